//! The flow table: bucket heads, and chains that run through the records themselves.
//!
//! There are as many buckets as records fit, four bytes each, so a record's share of the index is
//! four bytes and a chain is short however full the arenas are. Buckets are chosen by a keyed hash:
//! nobody outside can make chains long.

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

/// Where a record keeps the next one of its chain.
pub(crate) trait Chain {
    fn next(&self, flow: Flow) -> Ref;
    fn set_next(&mut self, flow: Flow, next: Ref);
}

/// The bucket heads.
pub(crate) struct Table {
    heads: Box<[u32]>,
}

impl Table {
    /// A table for `records` records.
    pub(crate) fn new(records: u32) -> Result<Table, crate::NoMemory> {
        let count = records.max(1) as usize;
        // Asked for in a way that can fail, then taken as zeroed memory, which costs no page until
        // it is used.
        Vec::<u32>::new().try_reserve_exact(count).map_err(|_| crate::NoMemory)?;
        Ok(Table { heads: vec![0; count].into_boxed_slice() })
    }

    /// First record of the bucket of `hash`.
    #[inline]
    pub(crate) fn head(&self, hash: u64) -> Ref {
        Ref(self.heads[self.bucket(hash)])
    }

    /// Puts a record that is in no bucket at the front of its bucket.
    pub(crate) fn insert(&mut self, chain: &mut impl Chain, hash: u64, flow: Flow) {
        let bucket = self.bucket(hash);
        chain.set_next(flow, Ref(self.heads[bucket]));
        self.heads[bucket] = Ref::from(flow).0;
    }

    /// Takes a record out of its bucket, in which it must be.
    pub(crate) fn remove(&mut self, chain: &mut impl Chain, hash: u64, flow: Flow) {
        let next = chain.next(flow);
        self.redirect(chain, hash, flow, next);
    }

    /// Puts `new`, which is in no bucket, where `old` is.
    pub(crate) fn replace(&mut self, chain: &mut impl Chain, hash: u64, old: Flow, new: Flow) {
        let next = chain.next(old);
        chain.set_next(new, next);
        self.redirect(chain, hash, old, new.into());
    }

    /// Makes what points to `from` point to `to`.
    fn redirect(&mut self, chain: &mut impl Chain, hash: u64, from: Flow, to: Ref) {
        let bucket = self.bucket(hash);
        let from = Ref::from(from);
        if self.heads[bucket] == from.0 {
            self.heads[bucket] = to.0;
            return;
        }
        let mut at = Ref(self.heads[bucket]);
        while let Some(flow) = at.flow() {
            let next = chain.next(flow);
            if next == from {
                chain.set_next(flow, to);
                return;
            }
            at = next;
        }
        panic!("{from:?} is not in its bucket");
    }

    /// By the lower half of the hash; the upper half chose the worker.
    #[inline]
    fn bucket(&self, hash: u64) -> usize {
        spread(hash as u32, self.heads.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    impl Chain for [Vec<Ref>; 3] {
        fn next(&self, flow: Flow) -> Ref {
            match flow {
                Flow::Conn(i) => self[0][i as usize],
                Flow::Request(i) => self[1][i as usize],
                Flow::TimeWait(i) => self[2][i as usize],
            }
        }

        fn set_next(&mut self, flow: Flow, next: Ref) {
            match flow {
                Flow::Conn(i) => self[0][i as usize] = next,
                Flow::Request(i) => self[1][i as usize] = next,
                Flow::TimeWait(i) => self[2][i as usize] = next,
            }
        }
    }

    fn flow(kind: u32, index: u32) -> Flow {
        match kind {
            0 => Flow::Conn(index),
            1 => Flow::Request(index),
            _ => Flow::TimeWait(index),
        }
    }

    /// Of a flow with this index; few values, so that buckets are shared.
    fn hash(index: u32) -> u64 {
        u64::from(index / 3).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    proptest! {
        #[test]
        fn holds_exactly_what_a_set_holds(ops in prop::collection::vec((0u32..3, 0u32..12), 0..200)) {
            let mut chain = [vec![Ref(0); 12], vec![Ref(0); 12], vec![Ref(0); 12]];
            let mut table = Table::new(7).unwrap();
            let mut model: BTreeSet<(u32, u32)> = BTreeSet::new();
            for (kind, index) in ops {
                let at = flow(kind, index);
                let same = (0..3).find(|&other| model.contains(&(other, index)));
                match same {
                    None => {
                        table.insert(&mut chain, hash(index), at);
                        model.insert((kind, index));
                    }
                    Some(other) if other == kind => {
                        table.remove(&mut chain, hash(index), at);
                        model.remove(&(kind, index));
                    }
                    Some(other) => {
                        table.replace(&mut chain, hash(index), flow(other, index), at);
                        model.remove(&(other, index));
                        model.insert((kind, index));
                    }
                }
                let mut found = BTreeSet::new();
                for head in &table.heads {
                    let mut at = Ref(*head);
                    while let Some(flow) = at.flow() {
                        found.insert(match flow {
                            Flow::Conn(index) => (0, index),
                            Flow::Request(index) => (1, index),
                            Flow::TimeWait(index) => (2, index),
                        });
                        at = chain.next(flow);
                    }
                }
                prop_assert_eq!(&found, &model);
            }
        }
    }
}
