//! The daemon's counters.

use std::collections::BTreeMap;

/// Counters by name, as `fourwave stats` prints them.
#[derive(Clone, Debug)]
pub struct Stats(BTreeMap<String, u64>);

impl Stats {
    /// Lines of `name value`; the value stands after the last space.
    pub fn parse(text: &str) -> Stats {
        let parse = |line: &str| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        };
        Stats(text.lines().map(parse).collect())
    }

    /// A counter that must be there: a zero would be a claim.
    pub fn get(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no counter {name} in {:#?}", self.0))
    }
}
