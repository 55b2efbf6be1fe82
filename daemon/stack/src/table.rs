//! The flow table: buckets of one cache line, each with the references of twelve records.
//!
//! Beside every reference stands a byte of the record's hash, so a search that finds nothing reads
//! one line, and one that finds its record reads that line and the record: it hardly ever looks at
//! another flow's record, which would be a cache miss each. A record that finds its bucket full goes
//! into the next one that is not, and every bucket passed counts it: a search goes on only where
//! that count is not zero.
//!
//! Buckets are filled to four fifths at most, so a record's share of the index is 6.7 bytes. They
//! are chosen by a keyed hash: nobody outside can make one overflow.

use crate::siphash::spread;

/// Which record a flow has: an arena and an index in 31 bits; 0 is "none", so that a zeroed table
/// is empty. The wheel uses the same numbers as identifiers of timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Ref(u32);

/// A [`Ref`] taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Conn(u32),
    Request(u32),
    TimeWait(u32),
}

const INDEX_BITS: u32 = 29;
/// Most records that one arena can have.
pub(crate) const MAX_RECORDS: u32 = 1 << INDEX_BITS;

impl Ref {
    pub(crate) fn from_raw(raw: u32) -> Ref {
        Ref(raw)
    }

    pub(crate) fn raw(self) -> u32 {
        self.0
    }

    pub(crate) fn flow(self) -> Option<Flow> {
        let index = self.0 & (MAX_RECORDS - 1);
        match self.0 >> INDEX_BITS {
            1 => Some(Flow::Conn(index)),
            2 => Some(Flow::Request(index)),
            3 => Some(Flow::TimeWait(index)),
            _ => None,
        }
    }
}

impl From<Flow> for Ref {
    fn from(flow: Flow) -> Ref {
        let (kind, index) = match flow {
            Flow::Conn(index) => (1, index),
            Flow::Request(index) => (2, index),
            Flow::TimeWait(index) => (3, index),
        };
        Ref(kind << INDEX_BITS | index)
    }
}

/// Slots of a bucket.
const SLOTS: usize = 12;
/// A bucket: the references, then a byte of hash for each, then how many records passed it.
type Bucket = [u32; 16];
const TAGS: usize = SLOTS;
const PASSED: usize = 15;

/// The buckets.
pub(crate) struct Table {
    words: Box<[u32]>,
    /// Where the first cache line begins.
    first: usize,
    buckets: usize,
}

impl Table {
    /// A table for `records` records.
    pub(crate) fn new(records: u32) -> Result<Table, crate::NoMemory> {
        let buckets = (records as usize * 5).div_ceil(SLOTS * 4).max(1);
        // One more, for the way to the start of a line.
        let count = (buckets + 1) * size_of::<Bucket>() / size_of::<u32>();
        // Asked for in a way that can fail, then taken as zeroed memory, which costs no page until
        // it is used.
        Vec::<u32>::new().try_reserve_exact(count).map_err(|_| crate::NoMemory)?;
        let words = vec![0; count].into_boxed_slice();
        let first = words.as_ptr().align_offset(size_of::<Bucket>());
        Ok(Table { words, first, buckets })
    }

    /// Takes the memory that [`new`](Table::new) only reserved: each page is written, with what is
    /// in it.
    pub(crate) fn touch(&mut self) {
        const PAGE_WORDS: usize = 4096 / size_of::<u32>();
        for word in self.words.iter_mut().step_by(PAGE_WORDS) {
            // Without it the compiler would see that nothing changes.
            *word = core::hint::black_box(*word);
        }
    }

    /// The record with this hash that `fits`.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut fits: impl FnMut(Flow) -> bool) -> Option<Flow> {
        let (mut at, tag) = self.place(hash);
        loop {
            let bucket = self.bucket(at);
            let mut candidates = tagged(bucket, tag);
            while candidates != 0 {
                let slot = candidates.trailing_zeros() as usize;
                if let Some(flow) = Ref(bucket[slot]).flow()
                    && fits(flow)
                {
                    return Some(flow);
                }
                candidates &= candidates - 1;
            }
            if bucket[PASSED] == 0 {
                return None;
            }
            at = self.after(at);
        }
    }

    /// Puts in a record that is not there. There is room: the table was made for all.
    pub(crate) fn insert(&mut self, hash: u64, flow: Flow) {
        let (mut at, tag) = self.place(hash);
        loop {
            let bucket = self.bucket_mut(at);
            if let Some(slot) = bucket[..SLOTS].iter().position(|&word| word == 0) {
                bucket[slot] = Ref::from(flow).0;
                set_tag(bucket, slot, tag);
                return;
            }
            bucket[PASSED] += 1;
            at = self.after(at);
        }
    }

    /// Takes out a record, which must be there.
    pub(crate) fn remove(&mut self, hash: u64, flow: Flow) {
        let (home, _) = self.place(hash);
        let (found, slot) = self.locate(hash, flow);
        let bucket = self.bucket_mut(found);
        bucket[slot] = 0;
        set_tag(bucket, slot, 0);
        let mut at = home;
        while at != found {
            self.bucket_mut(at)[PASSED] -= 1;
            at = self.after(at);
        }
    }

    /// Puts `new`, which is not there, where `old` is. Both have this hash.
    pub(crate) fn replace(&mut self, hash: u64, old: Flow, new: Flow) {
        let (found, slot) = self.locate(hash, old);
        self.bucket_mut(found)[slot] = Ref::from(new).0;
    }

    /// Bucket and slot of a record.
    fn locate(&self, hash: u64, flow: Flow) -> (usize, usize) {
        let word = Ref::from(flow).0;
        let (mut at, tag) = self.place(hash);
        loop {
            let bucket = self.bucket(at);
            let mut candidates = tagged(bucket, tag);
            while candidates != 0 {
                let slot = candidates.trailing_zeros() as usize;
                if bucket[slot] == word {
                    return (at, slot);
                }
                candidates &= candidates - 1;
            }
            assert!(bucket[PASSED] > 0, "{flow:?} is not where its hash says");
            at = self.after(at);
        }
    }

    /// The bucket to start at, by the lower half of the hash (the upper half chose the worker), and
    /// the byte that stands beside the reference, which is not zero.
    #[inline]
    fn place(&self, hash: u64) -> (usize, u8) {
        let half = hash as u32;
        // `spread` uses the half's upper bits.
        (spread(half, self.buckets), (half as u8).max(1))
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.buckets { 0 } else { at + 1 }
    }

    #[inline]
    fn bucket(&self, at: usize) -> &Bucket {
        &self.words[self.first..].as_chunks().0[at]
    }

    #[inline]
    fn bucket_mut(&mut self, at: usize) -> &mut Bucket {
        &mut self.words[self.first..].as_chunks_mut().0[at]
    }
}

/// One bit for each slot that has this tag; a few more slots' may be set, above one that is.
#[inline]
fn tagged(bucket: &Bucket, tag: u8) -> u32 {
    let low = u64::from(bucket[TAGS]) | u64::from(bucket[TAGS + 1]) << 32;
    let all = matches(low, tag) | matches(u64::from(bucket[TAGS + 2]), tag) << 8;
    all & ((1 << SLOTS) - 1)
}

/// One bit for each byte that is `tag`, which is not zero.
#[inline]
fn matches(tags: u64, tag: u8) -> u32 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // A byte that is zero borrows, and its highest bit tells.
    let differ = tags ^ (ONES * u64::from(tag));
    let found = differ.wrapping_sub(ONES) & !differ & (ONES << 7);
    // Each of these bits comes to lie in the highest byte, in its byte's place.
    ((found >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

#[inline]
fn set_tag(bucket: &mut Bucket, slot: usize, tag: u8) {
    let shift = slot % 4 * 8;
    let word = &mut bucket[TAGS + slot / 4];
    *word = *word & !(0xff << shift) | u32::from(tag) << shift;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn flow(kind: u32, index: u32) -> Flow {
        match kind {
            0 => Flow::Conn(index),
            1 => Flow::Request(index),
            _ => Flow::TimeWait(index),
        }
    }

    /// Of a flow with this index: many share a bucket, and some the whole hash.
    fn hash(index: u32) -> u64 {
        u64::from(index / 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) & 0x7fff_ffff_8fff_ffff
    }

    fn fill(table: &Table) -> usize {
        (0..table.buckets)
            .map(|at| table.bucket(at)[..SLOTS].iter().filter(|w| **w != 0).count())
            .sum()
    }

    proptest! {
        #[test]
        fn holds_exactly_what_a_set_holds(
            ops in prop::collection::vec((0u32..3, 0u32..80), 0..600),
        ) {
            let mut table = Table::new(60).unwrap();
            let mut model: BTreeSet<(u32, u32)> = BTreeSet::new();
            for (kind, index) in ops {
                let at = flow(kind, index);
                let same = (0..3).find(|&other| model.contains(&(other, index)));
                match same {
                    None if model.len() == 60 => continue,
                    None => {
                        table.insert(hash(index), at);
                        model.insert((kind, index));
                    }
                    Some(other) if other == kind => {
                        table.remove(hash(index), at);
                        model.remove(&(kind, index));
                    }
                    Some(other) => {
                        table.replace(hash(index), flow(other, index), at);
                        model.remove(&(other, index));
                        model.insert((kind, index));
                    }
                }
                for index in 0..80 {
                    let held = (0..3).find(|&kind| model.contains(&(kind, index)));
                    let found = table.find(hash(index), |found| {
                        (0..3).any(|kind| found == flow(kind, index))
                    });
                    prop_assert_eq!(found, held.map(|kind| flow(kind, index)));
                }
                prop_assert_eq!(fill(&table), model.len());
            }
            for (kind, index) in model {
                table.remove(hash(index), flow(kind, index));
            }
            prop_assert!(table.words.iter().all(|&word| word == 0), "a count or a tag is left");
        }
    }

    #[test]
    #[should_panic(expected = "is not where its hash says")]
    fn taking_out_what_is_not_there_is_our_fault() {
        Table::new(10).unwrap().remove(1, Flow::Conn(1));
    }

    #[test]
    fn a_tag_is_found_wherever_it_stands_and_only_slots_are() {
        for tag in 1..=255u8 {
            for slot in 0..SLOTS {
                let mut bucket = [0; 16];
                // What lies behind the tags is no tag.
                bucket[PASSED] = u32::MAX;
                set_tag(&mut bucket, slot, tag);
                let found = tagged(&bucket, tag);
                assert_eq!((found >> slot) & 1, 1, "{tag} in slot {slot}");
                assert_eq!(found >> SLOTS, 0, "{tag} in slot {slot}: {found:b}");
                assert_eq!(tagged(&bucket, tag ^ 0x80 | 2) >> SLOTS, 0);
            }
        }
    }

    #[test]
    fn touching_changes_nothing() {
        let mut table = Table::new(10_000).unwrap();
        let flows: Vec<_> = (0..10_000).map(|index| flow(index % 3, index)).collect();
        for (index, &flow) in flows.iter().enumerate() {
            table.insert(hash(index as u32), flow);
        }
        let before = table.words.clone();
        table.touch();
        assert_eq!(table.words, before);
    }

    #[test]
    fn a_bucket_is_a_cache_line() {
        let table = Table::new(1_000).unwrap();
        for at in 0..table.buckets {
            assert!(table.bucket(at).as_ptr().addr().is_multiple_of(64));
        }
        assert!(table.buckets * SLOTS * 4 >= 1_000 * 5);
    }
}
