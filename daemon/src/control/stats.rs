//! Counters as text: `name value` lines.

use crate::explain::label;
use fourwave_protocol::control::{MAX_MESSAGE, Reply};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Counters by name. A name that comes several times (once per worker) is added up.
#[derive(Debug, Default)]
pub struct Totals(BTreeMap<String, u64>);

impl Totals {
    /// Adds `value` to what `name` has.
    pub fn add(&mut self, name: impl Into<String>, value: u64) {
        let total = self.0.entry(name.into()).or_default();
        *total = total.saturating_add(value);
    }

    /// Adds to one counter of a family, and to the family's sum.
    pub fn add_to_family(&mut self, name: &str, member: &str, value: u64) {
        self.add(format!("{name}{{{}=\"{member}\"}}", label(name)), value);
        self.add(name, value);
    }

    /// One line per counter, in the order of the names.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.0 {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{name} {value}");
        }
        text
    }
}

/// A text in as many replies as it needs, cut between lines.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = Reply> {
    // What a reply needs besides its text fits in 64 bytes.
    const ROOM: usize = MAX_MESSAGE - 64;
    let mut rest = text;
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let window = rest.floor_char_boundary(ROOM);
        let cut = match window == rest.len() {
            true => rest.len(),
            false => rest[..window].rfind('\n').map_or(window, |line| line + 1),
        };
        let (piece, tail) = rest.split_at(cut);
        rest = tail;
        done = rest.is_empty();
        Some(Reply::Text { text: piece.to_owned(), more: !done })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fourwave_protocol::control::encode;

    #[test]
    fn equal_names_are_added_up() {
        let mut totals = Totals::default();
        totals.add("b", 2);
        totals.add("a", 1);
        totals.add("b", 3);
        totals.add_to_family("c", "odd", 4);
        totals.add_to_family("c", "late", 5);
        let text = "a 1\nb 5\nc 9\nc{reason=\"late\"} 5\nc{reason=\"odd\"} 4\n";
        assert_eq!(totals.text(), text);
    }

    #[test]
    fn long_texts_come_in_pieces_that_fit() {
        let lines: String = (0..5000).map(|n| format!("counter_{n} {n}\n")).collect();
        let endless = "x".repeat(3 * MAX_MESSAGE);
        for text in ["", "one 1\n", &lines, &endless] {
            let mut whole = String::new();
            let pieces: Vec<Reply> = pieces(text).collect();
            let last = pieces.len() - 1;
            for (index, piece) in pieces.iter().enumerate() {
                assert!(encode(piece, &mut [0; MAX_MESSAGE]).is_ok());
                let Reply::Text { text, more } = piece else { panic!("{piece:?}") };
                assert_eq!(*more, index != last);
                whole += text;
            }
            assert_eq!(whole, text);
        }
    }
}
