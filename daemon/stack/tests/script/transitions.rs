//! Which transitions of the table a change of state went through.

use std::collections::{BTreeSet, VecDeque};

use fourwave_tcp::{State, TRANSITIONS};

/// Transitions, by the places of their states in [`State::ALL`].
pub(crate) type Taken = BTreeSet<(u8, u8)>;

/// Those of the table.
pub(crate) fn all() -> Taken {
    TRANSITIONS.iter().map(|(from, to)| (*from as u8, *to as u8)).collect()
}

/// The shortest way of the table from one state to another: one segment can take several steps.
/// `None` if there is none but through the end of the connection.
pub(crate) fn path(from: State, to: State) -> Option<Vec<(u8, u8)>> {
    let mut ways = VecDeque::from([(from, Vec::new())]);
    let mut seen = vec![from];
    while let Some((at, way)) = ways.pop_front() {
        if at == to {
            return Some(way);
        }
        // A record may give way to the next connection of its four-tuple.
        if at == State::Closed && at != from && to != State::SynSent {
            continue;
        }
        for (_, next) in TRANSITIONS.iter().filter(|(start, _)| *start == at) {
            if !seen.contains(next) {
                seen.push(*next);
                let step = (at as u8, *next as u8);
                ways.push_back((*next, [&way[..], &[step]].concat()));
            }
        }
    }
    None
}

/// In words, a line each.
pub(crate) fn describe(taken: &Taken) -> String {
    let name = |state: u8| State::from_byte(state).map_or("?", State::name);
    taken.iter().map(|(from, to)| format!("  {} -> {}\n", name(*from), name(*to))).collect()
}
