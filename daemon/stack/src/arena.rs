//! A fixed-capacity pool of plain records, addressed by index.
//!
//! The memory is reserved when the arena is made and never grows. Slots are handed out from a free
//! list that runs through the records' own link field; slots never used before follow in order, so
//! that an arena touches no more memory than its fullest moment needed.

use std::ops::{Index, IndexMut};

use crate::NoMemory;

/// "No record": the end of every index-linked list.
pub const NIL: u32 = u32::MAX;

/// What a record offers to the arena that holds it.
///
/// `link` is free for the owner of a live record (a table may chain records through it); the
/// arena uses it while the slot is free. An odd generation means live, an even one free, so a
/// stale identifier never matches. A record without room for a generation keeps only its lowest bit.
pub trait Record: Copy {
    /// The link field.
    fn link(&self) -> u32;
    /// Replaces the link field.
    fn set_link(&mut self, link: u32);
    /// How often this slot changed between free and live; odd while live.
    fn generation(&self) -> u32;
    /// Replaces the generation.
    fn set_generation(&mut self, generation: u32);
}

/// The pool. See the module's documentation.
pub struct Arena<T> {
    slots: Vec<T>,
    capacity: u32,
    free: u32,
    live: u32,
    refused: u64,
}

impl<T: Record> Arena<T> {
    /// Reserves room for `capacity` records.
    ///
    /// # Errors
    /// [`NoMemory`] when the address space for them cannot be had.
    pub fn new(capacity: u32) -> Result<Self, NoMemory> {
        let mut slots = Vec::new();
        slots.try_reserve_exact(capacity as usize).map_err(|_| NoMemory)?;
        Ok(Self { slots, capacity, free: NIL, live: 0, refused: 0 })
    }

    /// Takes a slot for `value` and gives its index; `None`, counted, when the arena is full.
    pub fn insert(&mut self, value: T) -> Option<u32> {
        self.insert_with(|| value, |slot| *slot = value)
    }

    /// The same, for records that are made where they stay: `fill` writes all of a slot but link
    /// and generation, whatever is in it; `blank` is what one is that was never used.
    #[inline]
    pub fn insert_with(
        &mut self,
        blank: impl FnOnce() -> T,
        fill: impl FnOnce(&mut T),
    ) -> Option<u32> {
        let index = self.free;
        if index != NIL {
            let slot = &mut self.slots[index as usize];
            self.free = slot.link();
            let generation = slot.generation().wrapping_add(1);
            fill(slot);
            slot.set_generation(generation);
            self.live += 1;
            return Some(index);
        }
        if self.slots.len() >= self.capacity as usize {
            self.refused += 1;
            return None;
        }
        let index = self.slots.len() as u32;
        self.slots.push(blank());
        let slot = &mut self.slots[index as usize];
        fill(slot);
        slot.set_generation(1);
        self.live += 1;
        Some(index)
    }

    /// Gives the slot back.
    ///
    /// # Panics
    /// When the slot is not live: that is a fault of ours.
    pub fn remove(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let generation = slot.generation();
        assert!(generation & 1 == 1, "slot {index} freed twice");
        slot.set_generation(generation.wrapping_add(1));
        slot.set_link(self.free);
        self.free = index;
        self.live -= 1;
    }

    /// The live record at `index` of just this `generation`.
    pub fn get(&self, index: u32, generation: u32) -> Option<&T> {
        self.slots
            .get(index as usize)
            .filter(|slot| slot.generation() == generation && generation & 1 == 1)
    }

    /// Whether the slot holds a record.
    pub fn is_live(&self, index: u32) -> bool {
        self.slots.get(index as usize).is_some_and(|slot| slot.generation() & 1 == 1)
    }

    /// Number of live records.
    pub fn len(&self) -> u32 {
        self.live
    }

    /// Whether no record is live.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// How many records fit.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Whether the next [`Arena::insert`] would be refused.
    pub fn is_full(&self) -> bool {
        self.live == self.capacity
    }

    /// One past the highest index that was ever used.
    pub fn high_water(&self) -> u32 {
        self.slots.len() as u32
    }

    /// How many inserts were refused.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

impl<T: Record> Index<u32> for Arena<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        &self.slots[index as usize]
    }
}

impl<T: Record> IndexMut<u32> for Arena<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.slots[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Cell {
        link: u32,
        generation: u32,
        value: u32,
    }

    impl Record for Cell {
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

    fn cell(value: u32) -> Cell {
        Cell { link: NIL, generation: 0, value }
    }

    #[test]
    fn full_is_a_counted_refusal_and_room_comes_back() {
        let mut arena = Arena::new(2).unwrap();
        let a = arena.insert(cell(1)).unwrap();
        let b = arena.insert(cell(2)).unwrap();
        assert!(arena.is_full());
        assert_eq!(arena.insert(cell(3)), None);
        assert_eq!(arena.refused(), 1);
        arena.remove(a);
        let c = arena.insert(cell(3)).unwrap();
        assert_eq!((c, arena[b].value, arena[c].value), (a, 2, 3));
        assert_eq!((arena.len(), arena.high_water()), (2, 2));
    }

    #[test]
    fn a_stale_identifier_never_matches() {
        let mut arena = Arena::new(1).unwrap();
        let index = arena.insert(cell(1)).unwrap();
        let old = arena[index].generation;
        arena.remove(index);
        for generation in 0..8 {
            assert!(arena.get(index, generation).is_none());
        }
        arena.insert(cell(2)).unwrap();
        assert!(arena.get(index, old).is_none());
        assert_eq!(arena.get(index, arena[index].generation).unwrap().value, 2);
        assert!(arena.get(7, 1).is_none());
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn a_double_free_is_our_fault() {
        let mut arena = Arena::new(1).unwrap();
        let index = arena.insert(cell(1)).unwrap();
        arena.remove(index);
        arena.remove(index);
    }
}
