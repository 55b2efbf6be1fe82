//! Which ephemeral ports are taken, for each destination.
//!
//! A port can be used once for each destination. So each destination that has connections has a
//! [`Group`], and 512 ports of it that have been looked at a [`Chunk`], a bit for each. The group
//! knows which chunks are full. To find a free port, or that there is none, takes a few words
//! however many are taken.
//!
//! A port that makes the flow another worker's is found out when it is asked for, and then counts
//! as taken: each is asked for once, as long as the chunk has a connection.

use fourwave_tcp::Nanos;
use fourwave_wire::{Addr, Endpoint, FourTuple};

use crate::NoMemory;
use crate::arena::Record;
use crate::hashed::Hashed;

/// Ports of a chunk.
const CHUNK: u32 = 512;
const WORDS: usize = CHUNK as usize / 64;
/// Chunks of the largest range.
const CHUNKS: usize = (1 << 16) / CHUNK as usize;

/// Most ports that one search looks at that can remember nothing, because memory for groups and
/// chunks is used up.
const BLIND_PROBES: u32 = 256;

/// A destination, and the address that it is reached from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) source: Addr,
    pub(crate) remote: Endpoint,
}

impl Way {
    /// The flow with this local port.
    pub(crate) fn with_port(&self, port: u16) -> FourTuple {
        FourTuple { local: Endpoint { addr: self.source, port }, remote: self.remote }
    }
}

impl From<&FourTuple> for Way {
    fn from(tuple: &FourTuple) -> Way {
        Way { source: tuple.local.addr, remote: tuple.remote }
    }
}

/// What a search is told of a port that is not known to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is the one.
    Take,
    /// It makes the flow another worker's, and always will.
    Foreign,
    /// A flow has it that this table was not told of.
    Busy,
}

/// A port that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Counted from the first port of the range.
    pub(crate) place: u32,
    /// To be given back.
    pub(crate) claimed: bool,
}

#[derive(Clone, Copy)]
struct Group {
    way: Way,
    link: u32,
    generation: u32,
    /// A bit for each chunk that has no free port.
    full: [u64; CHUNKS / 64],
    /// Ports claimed.
    claimed: u32,
    /// Of those, the ones in TIME_WAIT.
    waiting: u32,
    /// Before this none in TIME_WAIT may be used again.
    reusable_at: Nanos,
}

#[derive(Clone, Copy)]
struct Chunk {
    group: u32,
    number: u32,
    link: u32,
    generation: u32,
    /// Ports claimed; others whose bit is set are another worker's.
    claimed: u32,
    taken: [u64; WORDS],
}

macro_rules! record {
    ($name:ty) => {
        impl Record for $name {
            fn link(&self) -> u32 {
                self.link
            }
            fn set_link(&mut self, link: u32) {
                self.link = link;
            }
            fn generation(&self) -> u32 {
                self.generation
            }
            fn set_generation(&mut self, generation: u32) {
                self.generation = generation;
            }
        }
    };
}

record!(Group);
record!(Chunk);

/// The table. Every call has the way's keyed hash beside it.
pub(crate) struct Taken {
    /// Ports of the range.
    count: u32,
    groups: Hashed<Group>,
    chunks: Hashed<Chunk>,
}

impl Taken {
    /// For a range of `count` ports and at most `capacity` connections to different places.
    pub(crate) fn new(count: u32, capacity: u32) -> Result<Taken, NoMemory> {
        Ok(Taken { count, groups: Hashed::new(capacity)?, chunks: Hashed::new(capacity)? })
    }

    /// The first port from `start` on, going round, that is free and that `ask` takes.
    pub(crate) fn find(
        &mut self,
        hash: u32,
        way: &Way,
        start: u32,
        mut ask: impl FnMut(u32) -> Answer,
    ) -> Option<Found> {
        let Some(group) = self.group(hash, way) else {
            return self.find_blindly(start, &mut ask);
        };
        let chunks = self.count.div_ceil(CHUNK);
        let (first, offset) = (start / CHUNK, start % CHUNK);
        let mut found = None;
        // The first chunk comes again at the end, for what lies before the start.
        for step in 0..=chunks {
            let number = (first + step) % chunks;
            if self.groups.arena[group].full[number as usize / 64] >> (number % 64) & 1 != 0 {
                continue;
            }
            let from = if step == 0 { offset } else { 0 };
            let to = if step == chunks { offset } else { CHUNK };
            let Some(chunk) = self.chunk_or_new(group, number) else {
                found = self.find_blindly(number * CHUNK + from, &mut ask);
                break;
            };
            found = self.find_in_chunk(chunk, from..to, &mut ask);
            self.settle_chunk(group, chunk);
            if found.is_some() {
                break;
            }
        }
        self.settle_group(hash, group);
        found
    }

    /// Claims a port that somebody asked for by its number; `false` when there is no memory for
    /// that, or it is claimed.
    pub(crate) fn claim(&mut self, hash: u32, way: &Way, place: u32) -> bool {
        let Some(group) = self.group(hash, way) else { return false };
        let chunk = self.chunk_or_new(group, place / CHUNK);
        let claimed = chunk.is_some_and(|chunk| {
            let bit = place % CHUNK;
            let ask = &mut |_| Answer::Take;
            let found = self.find_in_chunk(chunk, bit..bit + 1, ask).is_some();
            self.settle_chunk(group, chunk);
            found
        });
        self.settle_group(hash, group);
        claimed
    }

    /// A port that was claimed is free again.
    pub(crate) fn give_back(&mut self, hash: u32, way: &Way, place: u32) {
        let group = self.find_group(hash, way).expect("who has claimed a port has a group");
        let number = place / CHUNK;
        let chunk = self.find_chunk(group, number).expect("a claimed port is in a chunk");
        let record = &mut self.chunks.arena[chunk];
        let (word, bit) = (place % CHUNK / 64, place % 64);
        assert!(record.taken[word as usize] >> bit & 1 == 1, "a port was given back twice");
        record.taken[word as usize] &= !(1 << bit);
        record.claimed -= 1;
        self.groups.arena[group].claimed -= 1;
        self.settle_chunk(group, chunk);
        self.settle_group(hash, group);
    }

    /// A claimed port's flow has come to TIME_WAIT.
    pub(crate) fn enter_time_wait(&mut self, hash: u32, way: &Way) {
        let group = self.find_group(hash, way).expect("who has claimed a port has a group");
        self.groups.arena[group].waiting += 1;
    }

    /// A claimed port's flow has left TIME_WAIT.
    pub(crate) fn leave_time_wait(&mut self, hash: u32, way: &Way) {
        let group = self.find_group(hash, way).expect("who has claimed a port has a group");
        self.groups.arena[group].waiting -= 1;
    }

    /// The first port from `start` on, going round, that is in TIME_WAIT and may be used again.
    /// `wait` says how long it is until a port may, `None` when it never does; whoever enters
    /// TIME_WAIT later may be `delay` after that. When none may, the next search before one can
    /// ends at once.
    pub(crate) fn find_reusable(
        &mut self,
        hash: u32,
        way: &Way,
        start: u32,
        (now, delay): (Nanos, Nanos),
        wait: impl Fn(u32) -> Option<Nanos>,
    ) -> Option<u32> {
        let group = self.find_group(hash, way)?;
        let record = &self.groups.arena[group];
        if record.waiting == 0 || now < record.reusable_at {
            return None;
        }
        let mut least = delay;
        for step in 0..self.count {
            let place = (start + step) % self.count;
            match wait(place) {
                Some(0) => return Some(place),
                Some(nanos) => least = least.min(nanos),
                None => {}
            }
        }
        self.groups.arena[group].reusable_at = now.saturating_add(least);
        None
    }

    /// Whether nothing is claimed.
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.arena.is_empty() && self.chunks.arena.is_empty()
    }

    fn find_in_chunk(
        &mut self,
        chunk: u32,
        bits: std::ops::Range<u32>,
        ask: &mut impl FnMut(u32) -> Answer,
    ) -> Option<Found> {
        let record = &mut self.chunks.arena[chunk];
        let mut from = bits.start;
        while let Some(bit) = first_zero(&record.taken, from).filter(|bit| *bit < bits.end) {
            let place = record.number * CHUNK + bit;
            let answer = ask(place);
            if answer != Answer::Busy {
                record.taken[bit as usize / 64] |= 1 << (bit % 64);
            }
            if answer == Answer::Take {
                record.claimed += 1;
                self.groups.arena[record.group].claimed += 1;
                return Some(Found { place, claimed: true });
            }
            from = bit + 1;
        }
        None
    }

    /// Without memory: a bounded number of ports, nothing remembered.
    fn find_blindly(&self, start: u32, ask: &mut impl FnMut(u32) -> Answer) -> Option<Found> {
        let mut places = (0..self.count.min(BLIND_PROBES)).map(|step| (start + step) % self.count);
        let place = places.find(|place| ask(*place) == Answer::Take)?;
        Some(Found { place, claimed: false })
    }

    fn find_group(&self, hash: u32, way: &Way) -> Option<u32> {
        self.groups.find(hash, |group| group.way == *way)
    }

    fn group(&mut self, hash: u32, way: &Way) -> Option<u32> {
        self.find_group(hash, way).or_else(|| {
            let group = Group {
                way: *way,
                link: 0,
                generation: 0,
                full: [0; CHUNKS / 64],
                claimed: 0,
                waiting: 0,
                reusable_at: 0,
            };
            self.groups.insert(hash, group)
        })
    }

    fn find_chunk(&self, group: u32, number: u32) -> Option<u32> {
        let fits = |chunk: &Chunk| chunk.group == group && chunk.number == number;
        self.chunks.find(chunk_hash(group, number), fits)
    }

    fn chunk_or_new(&mut self, group: u32, number: u32) -> Option<u32> {
        self.find_chunk(group, number).or_else(|| {
            let ports = (self.count - number * CHUNK).min(CHUNK);
            let mut taken = [0; WORDS];
            // What lies beyond the range is nobody's.
            for bit in ports..CHUNK {
                taken[bit as usize / 64] |= 1 << (bit % 64);
            }
            let chunk = Chunk { group, number, link: 0, generation: 0, claimed: 0, taken };
            self.chunks.insert(chunk_hash(group, number), chunk)
        })
    }

    /// Tells the group whether the chunk is full, and frees one that says nothing.
    fn settle_chunk(&mut self, group: u32, chunk: u32) {
        let Chunk { number, claimed, taken, .. } = self.chunks.arena[chunk];
        let full = taken == [u64::MAX; WORDS];
        let word = &mut self.groups.arena[group].full[number as usize / 64];
        *word = *word & !(1 << (number % 64)) | u64::from(full) << (number % 64);
        if claimed == 0 && !full {
            self.chunks.remove(chunk_hash(group, number), chunk);
        }
    }

    /// Frees a group that has no port, with chunks that are full of other workers' ports.
    fn settle_group(&mut self, hash: u32, group: u32) {
        let Group { claimed, full, .. } = self.groups.arena[group];
        if claimed > 0 {
            return;
        }
        for number in (0..CHUNKS as u32).filter(|n| full[*n as usize / 64] >> (n % 64) & 1 != 0) {
            let chunk = self.find_chunk(group, number).expect("a full chunk is kept");
            self.chunks.remove(chunk_hash(group, number), chunk);
        }
        self.groups.remove(hash, group);
    }
}

/// Not keyed: both numbers are ours.
fn chunk_hash(group: u32, number: u32) -> u32 {
    let mixed = (u64::from(group) << 32 | u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

/// The first bit that is zero, from `from` on.
fn first_zero(words: &[u64; WORDS], from: u32) -> Option<u32> {
    let mut free = !words.get(from as usize / 64)? & (u64::MAX << (from % 64));
    let mut word = from as usize / 64;
    while free == 0 {
        word += 1;
        free = !*words.get(word)?;
    }
    Some(word as u32 * 64 + free.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn way(last: u8) -> Way {
        let addr = Addr::from_v4([10, 0, 0, last]);
        Way { source: Addr::from_v4([10, 0, 0, 1]), remote: Endpoint { addr, port: 443 } }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Find(u8, u32),
        Claim(u8, u32),
        GiveBack(u8, u32),
    }

    fn op() -> impl Strategy<Value = Op> {
        let way = 0u8..2;
        prop_oneof![
            6 => (way.clone(), any::<u32>()).prop_map(|(way, at)| Op::Find(way, at)),
            1 => (way.clone(), any::<u32>()).prop_map(|(way, at)| Op::Claim(way, at)),
            2 => (way, any::<u32>()).prop_map(|(way, at)| Op::GiveBack(way, at)),
        ]
    }

    proptest! {
        /// Ports are free, claimed, or another worker's for ever (every `foreign`-th is not).
        #[test]
        fn finds_the_next_free_port_and_says_at_once_that_there_is_none(
            count in prop_oneof![1u32..20, 500u32..530, 1020u32..1100],
            foreign in 1u32..4,
            fill in any::<bool>(),
            ops in prop::collection::vec(op(), 0..150),
        ) {
            let mut taken = Taken::new(count, 64).unwrap();
            let mut model: BTreeMap<u8, BTreeSet<u32>> = BTreeMap::new();
            let ours = |place: u32| place.is_multiple_of(foreign);
            if fill {
                for place in (0..count).filter(|place| ours(*place)).skip(1) {
                    prop_assert!(taken.claim(0, &way(0), place));
                    model.entry(0).or_default().insert(place);
                }
            }
            for op in ops {
                match op {
                    Op::Find(to, start) => {
                        let start = start % count;
                        let held = model.entry(to).or_default();
                        let free = |place: &u32| ours(*place) && !held.contains(place);
                        let expected = (start..count).chain(0..start).find(free);
                        let mut asked = BTreeSet::new();
                        let found = taken.find(u32::from(to), &way(to), start, |place| {
                            assert!(asked.insert(place) && !held.contains(&place));
                            if ours(place) { Answer::Take } else { Answer::Foreign }
                        });
                        prop_assert_eq!(found.map(|found| found.place), expected);
                        prop_assert!(found.is_none_or(|found| found.claimed));
                        held.extend(expected);
                        if found.is_none() && !held.is_empty() {
                            // What was learnt is kept.
                            let again = taken.find(u32::from(to), &way(to), start, |_| {
                                unreachable!("every port is known to be taken")
                            });
                            prop_assert_eq!(again, None);
                        }
                    }
                    Op::Claim(to, place) => {
                        let place = place % count;
                        let held = model.entry(to).or_default();
                        if ours(place) {
                            let claimed = taken.claim(u32::from(to), &way(to), place);
                            prop_assert_eq!(claimed, held.insert(place));
                        }
                    }
                    Op::GiveBack(to, nth) => {
                        let held = model.entry(to).or_default();
                        if !held.is_empty() {
                            let place = *held.iter().nth(nth as usize % held.len()).unwrap();
                            held.remove(&place);
                            taken.give_back(u32::from(to), &way(to), place);
                        }
                    }
                }
                prop_assert_eq!(taken.is_empty(), model.values().all(BTreeSet::is_empty));
            }
            for (to, held) in model {
                for place in held {
                    taken.give_back(u32::from(to), &way(to), place);
                }
            }
            prop_assert!(taken.is_empty());
        }
    }

    #[test]
    fn without_memory_a_search_is_short_and_claims_nothing() {
        let mut taken = Taken::new(2_000, 1).unwrap();
        let found = taken.find(1, &way(1), 1_990, |_| Answer::Take).unwrap();
        assert!(found.claimed);
        let found = taken.find(2, &way(2), 1_990, |_| Answer::Take).unwrap();
        assert_eq!(found, Found { place: 1_990, claimed: false });
        assert!(!taken.claim(2, &way(2), 7));
        let mut asked = 0;
        let busy = |_| {
            asked += 1;
            Answer::Busy
        };
        assert_eq!(taken.find(2, &way(2), 1_990, busy), None);
        assert_eq!(asked, BLIND_PROBES);
        taken.give_back(1, &way(1), 1_990);
        assert!(taken.is_empty());
    }

    #[test]
    fn a_search_in_time_wait_is_not_repeated_before_it_can_succeed() {
        let mut taken = Taken::new(600, 8).unwrap();
        for place in [3, 4, 599] {
            assert!(taken.claim(1, &way(1), place));
        }
        let search = |taken: &mut Taken, now, waits: &dyn Fn(u32) -> Option<Nanos>| {
            taken.find_reusable(1, &way(1), 500, (now, 1_000), waits)
        };
        let never = |_: u32| unreachable!("nothing is in TIME_WAIT, or it is too early");
        assert_eq!(search(&mut taken, 10, &never), None);
        taken.enter_time_wait(1, &way(1));
        taken.enter_time_wait(1, &way(1));
        let waits = |place| if place == 4 { Some(50) } else { None };
        assert_eq!(search(&mut taken, 100, &waits), None);
        assert_eq!(search(&mut taken, 149, &never), None);
        assert_eq!(search(&mut taken, 150, &|place| (place == 4).then_some(0)), Some(4));
        assert_eq!(search(&mut taken, 150, &|place| (place < 5).then_some(0)), Some(0));
        taken.leave_time_wait(1, &way(1));
        taken.leave_time_wait(1, &way(1));
        assert_eq!(search(&mut taken, 9_000, &never), None);
    }
}
