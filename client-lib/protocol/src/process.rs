//! Names of a group's processes.
//!
//! A group is a process and its forks. The daemon names each of them; what a process does in
//! shared memory that somebody must be able to tell later (taking a connection off an accept
//! queue, holding a [lock](crate::lock)) it signs with its name.

use core::num::NonZeroU32;
use serde::{Deserialize, Serialize};

/// Most processes of a group at a time.
pub const MAX_PROCESSES: usize = 256;

const SLOT_BITS: u32 = MAX_PROCESSES.trailing_zeros();

/// Largest generation: the top bit of a name stays free for who stores it.
const LAST_GENERATION: u32 = (1 << (31 - SLOT_BITS)) - 1;

/// Names a process of a group: a slot, and how often that was used. Never zero, below 2³¹.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Process(NonZeroU32);

impl Process {
    /// The first process of every group.
    pub const FIRST: Process = match NonZeroU32::new(1 << SLOT_BITS) {
        Some(raw) => Process(raw),
        None => panic!("not zero"),
    };

    /// The name that `raw` is; `None` for what is none.
    pub const fn from_raw(raw: u32) -> Option<Process> {
        if raw >> 31 != 0 || raw >> SLOT_BITS == 0 {
            return None;
        }
        match NonZeroU32::new(raw) {
            Some(raw) => Some(Process(raw)),
            None => None,
        }
    }

    /// The name as a number.
    pub const fn raw(self) -> u32 {
        self.0.get()
    }

    /// Which of the [`MAX_PROCESSES`] it is; its own as long as it lives.
    pub const fn slot(self) -> usize {
        self.0.get() as usize % MAX_PROCESSES
    }

    /// The first name for a slot.
    ///
    /// # Panics
    /// If there is no such slot.
    pub const fn first(slot: usize) -> Process {
        assert!(slot < MAX_PROCESSES);
        match Process::from_raw(Process::FIRST.raw() | slot as u32) {
            Some(first) => first,
            None => panic!("a generation above zero"),
        }
    }

    /// The name of the slot's next process.
    pub const fn next(self) -> Process {
        let slot = self.slot();
        match self.raw() >> SLOT_BITS {
            LAST_GENERATION => Process::first(slot),
            generation => match Process::from_raw((generation + 1) << SLOT_BITS | slot as u32) {
                Some(next) => next,
                None => panic!("a generation in range"),
            },
        }
    }
}

impl From<Process> for u32 {
    fn from(process: Process) -> u32 {
        process.raw()
    }
}

impl TryFrom<u32> for Process {
    type Error = &'static str;

    fn try_from(raw: u32) -> Result<Process, &'static str> {
        Process::from_raw(raw).ok_or("not the name of a process")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_slot_differ_and_stay_in_range() {
        assert_eq!(Process::first(0), Process::FIRST);
        let first = Process::first(MAX_PROCESSES - 1);
        assert_eq!((first.slot(), first.next().slot()), (255, 255));
        assert_ne!(first, first.next());
        assert_eq!(Process::from_raw(first.raw()), Some(first));
        for wrong in [0, 1, 255, 1 << 31, u32::MAX] {
            assert_eq!(Process::from_raw(wrong), None, "{wrong:#x}");
        }
        let last = Process::from_raw((LAST_GENERATION << SLOT_BITS) | 7).unwrap();
        assert_eq!(last.next(), Process::first(7));
    }
}
