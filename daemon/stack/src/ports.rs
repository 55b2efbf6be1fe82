//! Ephemeral ports (RFC 6056 §3.3.4, double-hash port selection).

use std::ops::RangeInclusive;

/// Peers are spread over this many counters.
const COUNTERS: usize = 256;

/// The range, and how far each group of peers has got in it.
pub(crate) struct Ports {
    low: u16,
    count: u32,
    counters: [u32; COUNTERS],
}

/// A search for a port: every port of the range once, from a start that an outsider cannot guess.
pub(crate) struct Search {
    low: u16,
    count: u32,
    start: u32,
    group: usize,
    tried: u32,
}

impl Ports {
    pub(crate) fn new(range: &RangeInclusive<u16>) -> Ports {
        let count = if range.is_empty() { 0 } else { u32::from(range.end() - range.start()) + 1 };
        Ports { low: *range.start(), count, counters: [0; COUNTERS] }
    }

    /// Starts a search; `hash` is the keyed hash of both addresses and the peer's port: half of it
    /// is the offset, some of the rest chooses the counter. `random` of 0 to 3 extra steps leaves
    /// the next port to be guessed even by one who saw the last.
    pub(crate) fn search(&mut self, hash: u64, random: u64) -> Search {
        let group = (hash >> 32) as usize % COUNTERS;
        let counter = &mut self.counters[group];
        *counter = counter.wrapping_add((random % 4) as u32);
        let start = (hash as u32).wrapping_add(*counter);
        Search { low: self.low, count: self.count, start, group, tried: 0 }
    }

    /// The search has ended, found or not: the next one goes on behind it.
    pub(crate) fn advance(&mut self, search: &Search) {
        let counter = &mut self.counters[search.group];
        *counter = counter.wrapping_add(search.tried);
    }
}

impl Iterator for Search {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.tried == self.count {
            return None;
        }
        let place = (u64::from(self.start) + u64::from(self.tried)) % u64::from(self.count);
        self.tried += 1;
        // Within a range of ports.
        Some(self.low + place as u16)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_search_gives_every_port_once() {
        for range in [1_000..=1_006, 0..=65_535, 5..=5] {
            let mut ports = Ports::new(&range);
            for hash in [0, 1, u64::MAX, 0xdead_beef_1234_5678] {
                let found: Vec<u16> = ports.search(hash, hash).collect();
                assert_eq!(found.len(), range.len());
                assert_eq!(found.iter().copied().collect::<BTreeSet<_>>(), range.clone().collect());
            }
        }
        #[expect(clippy::reversed_empty_ranges, reason = "an empty range is what is tested")]
        let mut none = Ports::new(&(2..=1));
        assert_eq!(none.search(1, 1).next(), None);
    }

    #[test]
    fn the_next_search_goes_on_behind_the_last() {
        let mut ports = Ports::new(&(1_000..=1_999));
        let mut first = ports.search(77, 0);
        let port = first.next().unwrap();
        ports.advance(&first);
        let next = ports.search(77, 0).next().unwrap();
        assert_eq!((next - 1_000) % 1_000, (port - 1_000 + 1) % 1_000);
        // Another peer's start does not tell of this one's.
        assert_ne!(ports.search(78 << 32 | 5, 0).next(), Some(next + 1));
    }
}
