//! Records of an arena, found by hash through chains.

use crate::NoMemory;
use crate::arena::{Arena, NIL, Record};
use crate::siphash::spread;

/// The arena and the heads of its chains, which run through the records' links.
pub(crate) struct Hashed<T> {
    pub(crate) arena: Arena<T>,
    /// One more than an index, so that zeroed memory is empty and costs no page until it is used.
    heads: Box<[u32]>,
}

impl<T: Record> Hashed<T> {
    pub(crate) fn new(capacity: u32) -> Result<Hashed<T>, NoMemory> {
        let heads = vec![0; capacity.max(1) as usize].into_boxed_slice();
        Ok(Hashed { arena: Arena::new(capacity)?, heads })
    }

    /// The record with this hash that `fits`.
    pub(crate) fn find(&self, hash: u32, fits: impl Fn(&T) -> bool) -> Option<u32> {
        let mut at = self.heads[self.bucket(hash)].wrapping_sub(1);
        while at != NIL {
            if fits(&self.arena[at]) {
                return Some(at);
            }
            at = self.arena[at].link();
        }
        None
    }

    /// Adds a record that is not there; `None` when no more fit.
    pub(crate) fn insert(&mut self, hash: u32, mut record: T) -> Option<u32> {
        let bucket = self.bucket(hash);
        record.set_link(self.heads[bucket].wrapping_sub(1));
        let index = self.arena.insert(record)?;
        self.heads[bucket] = index + 1;
        Some(index)
    }

    /// Takes a record out, which must be there.
    pub(crate) fn remove(&mut self, hash: u32, index: u32) {
        let after = self.arena[index].link();
        let bucket = self.bucket(hash);
        let mut at = self.heads[bucket].wrapping_sub(1);
        if at == index {
            self.heads[bucket] = after.wrapping_add(1);
        } else {
            while self.arena[at].link() != index {
                at = self.arena[at].link();
            }
            self.arena[at].set_link(after);
        }
        self.arena.remove(index);
    }

    fn bucket(&self, hash: u32) -> usize {
        spread(hash, self.heads.len())
    }
}
