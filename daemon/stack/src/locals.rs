//! Our own addresses as small numbers.
//!
//! A machine has few addresses and very many TIME_WAIT records, so a record names its local address
//! by two bytes. An address is here as long as a record names it.

use fourwave_wire::Addr;

use crate::NoMemory;
use crate::arena::{Arena, NIL, Record};
use crate::keys::Keys;
use crate::siphash::spread;

#[derive(Clone, Copy)]
struct Local {
    addr: Addr,
    link: u32,
    generation: u32,
    users: u32,
}

impl Record for Local {
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

/// The table: an arena with hash chains.
pub(crate) struct Locals {
    arena: Arena<Local>,
    heads: Box<[u32]>,
    keys: Keys,
}

impl Locals {
    pub(crate) fn new(capacity: u16, keys: Keys) -> Result<Locals, NoMemory> {
        Ok(Locals {
            arena: Arena::new(u32::from(capacity))?,
            heads: vec![NIL; usize::from(capacity).max(1)].into_boxed_slice(),
            keys,
        })
    }

    /// The number of `addr`, which gets one more user; `None` when too many addresses are in use.
    pub(crate) fn acquire(&mut self, addr: &Addr) -> Option<u16> {
        let bucket = self.bucket(addr);
        let mut at = self.heads[bucket];
        while at != NIL {
            let local = &mut self.arena[at];
            if local.addr == *addr {
                local.users += 1;
                return Some(at as u16);
            }
            at = local.link;
        }
        let local = Local { addr: *addr, link: self.heads[bucket], generation: 0, users: 1 };
        let index = self.arena.insert(local)?;
        self.heads[bucket] = index;
        // The arena has at most 65,535 slots.
        Some(index as u16)
    }

    /// The address has one user less.
    pub(crate) fn release(&mut self, index: u16) {
        let index = u32::from(index);
        let local = &mut self.arena[index];
        local.users -= 1;
        if local.users > 0 {
            return;
        }
        let (addr, after) = (local.addr, local.link);
        let bucket = self.bucket(&addr);
        if self.heads[bucket] == index {
            self.heads[bucket] = after;
        } else {
            let mut at = self.heads[bucket];
            while self.arena[at].link != index {
                at = self.arena[at].link;
            }
            self.arena[at].link = after;
        }
        self.arena.remove(index);
    }

    /// The address behind a number in use.
    #[inline]
    pub(crate) fn addr(&self, index: u16) -> &Addr {
        &self.arena[u32::from(index)].addr
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.arena.is_empty()
    }

    fn bucket(&self, addr: &Addr) -> usize {
        spread(self.keys.address_hash(addr) as u32, self.heads.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_users_like_a_map(ops in prop::collection::vec((any::<bool>(), 0u8..8), 0..200)) {
            let mut locals = Locals::new(5, Keys::generate(|| 7)).unwrap();
            let mut model: BTreeMap<u8, (u16, u32)> = BTreeMap::new();
            for (take, last) in ops {
                let addr = Addr::from_v4([10, 0, 0, last]);
                if take {
                    let known = model.get(&last).map(|&(index, _)| index);
                    let index = locals.acquire(&addr);
                    if let Some(known) = known {
                        prop_assert_eq!(index, Some(known));
                    } else {
                        prop_assert_eq!(index.is_some(), model.len() < 5);
                    }
                    if let Some(index) = index {
                        prop_assert_eq!(locals.addr(index), &addr);
                        model.entry(last).or_insert((index, 0)).1 += 1;
                    }
                } else if let Some((index, users)) = model.get_mut(&last) {
                    locals.release(*index);
                    *users -= 1;
                    if *users == 0 {
                        model.remove(&last);
                    }
                }
                prop_assert_eq!(locals.is_empty(), model.is_empty());
            }
        }
    }
}
