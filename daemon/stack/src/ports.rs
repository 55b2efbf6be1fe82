//! Ephemeral ports (RFC 6056 §3.3.4, double-hash port selection).

mod taken;

use std::ops::RangeInclusive;

use fourwave_tcp::Nanos;
use fourwave_wire::FourTuple;

use taken::Taken;
pub(crate) use taken::{Answer, Way};

use crate::NoMemory;
use crate::keys::Keys;

/// Peers are spread over this many counters.
const COUNTERS: usize = 256;

/// Most destinations, and chunks of ports towards them, that are kept in mind.
const MOST_WAYS: u32 = 1 << 20;

/// The range, how far each group of peers has got in it, and what is taken.
pub(crate) struct Ports {
    low: u16,
    count: u32,
    counters: [u32; COUNTERS],
    keys: Keys,
    taken: Taken,
}

/// A port that was chosen; one that is `claimed` is to be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) port: u16,
    pub(crate) claimed: bool,
}

impl Ports {
    /// For at most `flows` flows.
    pub(crate) fn new(
        range: &RangeInclusive<u16>,
        flows: u32,
        keys: Keys,
    ) -> Result<Ports, NoMemory> {
        let count = if range.is_empty() { 0 } else { u32::from(range.end() - range.start()) + 1 };
        let ways = if count == 0 { 0 } else { flows.min(MOST_WAYS) };
        let taken = Taken::new(count, ways)?;
        Ok(Ports { low: *range.start(), count, counters: [0; COUNTERS], keys, taken })
    }

    /// Claims a port that is free for this way and that `ask` takes. The search starts where an
    /// outsider cannot guess: half of the way's keyed hash is the offset, some of the rest chooses
    /// the counter, and `random` adds 0 to 3 steps, so that the next port is to be guessed even by
    /// one who saw the last.
    pub(crate) fn choose(
        &mut self,
        way: &Way,
        random: u64,
        mut ask: impl FnMut(u16) -> Answer,
    ) -> Option<Chosen> {
        let (hash, start, group) = self.start(way, random)?;
        let found = self.taken.find(hash, way, start, |place| ask(self.low + place as u16))?;
        // The next search goes on behind this port.
        let steps = (found.place + self.count - start) % self.count + 1;
        self.counters[group] = self.counters[group].wrapping_add(steps);
        Some(Chosen { port: self.low + found.place as u16, claimed: found.claimed })
    }

    /// A port of this way in TIME_WAIT that may be used again, see [`Taken::find_reusable`]. It
    /// stays claimed.
    pub(crate) fn choose_reusable(
        &mut self,
        way: &Way,
        times: (Nanos, Nanos),
        wait: impl Fn(u16) -> Option<Nanos>,
    ) -> Option<u16> {
        let (hash, start, _) = self.start(way, 0)?;
        let wait = |place| wait(self.low + place as u16);
        let place = self.taken.find_reusable(hash, way, start, times, wait)?;
        Some(self.low + place as u16)
    }

    /// Claims the local port of a flow if it is one of the range.
    pub(crate) fn claim(&mut self, tuple: &FourTuple) -> bool {
        let way = Way::from(tuple);
        let place = self.place(tuple.local.port);
        place.is_some_and(|place| self.taken.claim(self.hash(&way) as u32, &way, place))
    }

    /// Gives a claimed port back.
    pub(crate) fn give_back(&mut self, tuple: &FourTuple) {
        let way = Way::from(tuple);
        let place = self.place(tuple.local.port).expect("only ports of the range are claimed");
        self.taken.give_back(self.hash(&way) as u32, &way, place);
    }

    /// A flow that has claimed its port has come to TIME_WAIT.
    pub(crate) fn enter_time_wait(&mut self, tuple: &FourTuple) {
        let way = Way::from(tuple);
        self.taken.enter_time_wait(self.hash(&way) as u32, &way);
    }

    /// A flow that has claimed its port has left TIME_WAIT.
    pub(crate) fn leave_time_wait(&mut self, tuple: &FourTuple) {
        let way = Way::from(tuple);
        self.taken.leave_time_wait(self.hash(&way) as u32, &way);
    }

    /// Whether no port is claimed.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// The way's hash for the table, the place to start at, and the counter; `None` without ports.
    fn start(&mut self, way: &Way, random: u64) -> Option<(u32, u32, usize)> {
        let hash = self.hash(way);
        let group = (hash >> 32) as usize % COUNTERS;
        let counter = &mut self.counters[group];
        *counter = counter.wrapping_add((random % 4) as u32);
        let start = (hash as u32).wrapping_add(*counter).checked_rem(self.count)?;
        Some((hash as u32, start, group))
    }

    fn hash(&self, way: &Way) -> u64 {
        self.keys.port_hash(&way.source, &way.remote.addr, way.remote.port)
    }

    fn place(&self, port: u16) -> Option<u32> {
        let place = u32::from(port.checked_sub(self.low)?);
        (place < self.count).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fourwave_wire::{Addr, Endpoint};

    use super::*;

    fn way(last: u8) -> Way {
        let end = |last, port| Endpoint { addr: Addr::from_v4([10, 0, 0, last]), port };
        Way { source: end(1, 0).addr, remote: end(last, 443) }
    }

    fn ports(range: &RangeInclusive<u16>) -> Ports {
        let mut next = 3u64;
        let keys = Keys::generate(|| {
            next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            next
        });
        Ports::new(range, 1_000, keys).unwrap()
    }

    #[test]
    fn every_port_of_the_range_is_chosen_once() {
        for range in [1_000..=1_006, 0..=65_535, 5..=5] {
            let mut ports = ports(&range);
            let mut found = BTreeSet::new();
            while let Some(chosen) = ports.choose(&way(2), 7, |_| Answer::Take) {
                assert!(chosen.claimed && found.insert(chosen.port));
            }
            assert_eq!(found, range.collect());
        }
        #[expect(clippy::reversed_empty_ranges, reason = "an empty range is what is tested")]
        let mut none = ports(&(2..=1));
        assert_eq!(none.choose(&way(2), 1, |_| Answer::Take), None);
        assert_eq!(none.choose_reusable(&way(2), (0, 0), |_| Some(0)), None);
    }

    #[test]
    fn the_next_search_goes_on_behind_the_last() {
        let mut ports = ports(&(1_000..=1_999));
        let mut choose = |last| ports.choose(&way(last), 0, |_| Answer::Take).unwrap().port;
        let (port, next) = (choose(2), choose(2));
        assert_eq!((next - 1_000) % 1_000, (port - 1_000 + 1) % 1_000);
        // Another peer's start does not tell of this one's.
        assert_ne!(choose(3), next + 1);
    }
}
