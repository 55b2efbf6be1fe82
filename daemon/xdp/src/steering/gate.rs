//! How many SYNs may wait for a worker: its side of the map `ADMISSION`.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fourwave_ebpf_common::Admission;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Lets the program steer a bounded number of SYNs that one queue's worker has not taken yet, and
/// drop the rest where that costs least. Frames of connections that exist are never dropped for it.
///
/// A worker that cannot keep up would otherwise find its receive ring full of SYNs: what it has
/// begun waits behind them or is lost with them, and hardly a connection is finished.
#[derive(Debug)]
pub struct Gate {
    map: Arc<Mapping>,
    queue: usize,
    credit: Credit,
}

impl Gate {
    /// The gate of `queue`, which must be in the map, for `most` SYNs at a time; 0: any number.
    pub(super) fn new(map: Arc<Mapping>, queue: u32, most: u32) -> Gate {
        let mut gate = Gate { map, queue: queue as usize, credit: Credit::new(most) };
        let steered = gate.map.number(gate.queue, STEERED).load(Ordering::Relaxed);
        gate.credit.open(steered);
        gate.limit().store(gate.credit.limit, Ordering::Relaxed);
        gate
    }

    /// To be called in each turn, at `now` (nanoseconds of any clock), after `taken` frames were
    /// taken from the queue's receive ring, where `waiting()` are now.
    #[inline]
    pub fn turn(&mut self, now: u64, taken: usize, waiting: impl FnOnce() -> u32) {
        let steered = self.map.number(self.queue, STEERED);
        // Relaxed, as the program's side: the numbers say nothing about other memory.
        let steered = || steered.load(Ordering::Relaxed);
        if let Some(limit) = self.credit.turn(now, taken, steered, waiting) {
            self.limit().store(limit, Ordering::Relaxed);
        }
    }

    fn limit(&self) -> &AtomicU64 {
        self.map.number(self.queue, LIMIT)
    }
}

/// Longer than this, in nanoseconds, no SYN shall wait again and again.
const LONG: u64 = 2_000_000;
/// So long after it was full last, the room grows again.
const CALM: u64 = 100_000_000;
/// The least room: what a worker takes in one turn.
const LEAST: u64 = crate::queue::BATCH as u64;

/// What is known of the SYNs in a receive ring, without looking at the frames there: those that
/// were steered before a moment are gone when as many frames as waited then have been taken.
///
/// A burst may fill all the room that there is. When it is full time after time, and what waits
/// there waits long, the worker does not keep up, and a long queue only makes everybody's wait as
/// long: the room is halved then, and doubled when it has not been full for a while.
#[derive(Debug)]
struct Credit {
    /// SYNs that may wait at the most; 0: any number.
    most: u64,
    /// SYNs that may wait for now.
    room: u64,
    /// Number of SYNs steered up to the mark.
    marked: u64,
    /// When that was.
    marked_at: u64,
    /// Frames to be taken until the mark is reached.
    ahead: u64,
    /// The limit that was set last: the program's CPU reads it all the time.
    limit: u64,
    /// Whether the mark before was reached late, with the room full.
    was_late: bool,
    /// When the room was full last, or has grown.
    full_at: u64,
}

impl Credit {
    fn new(most: u32) -> Credit {
        let most = u64::from(most);
        Credit {
            most,
            room: most,
            marked: 0,
            marked_at: 0,
            ahead: 0,
            limit: 0,
            was_late: false,
            full_at: 0,
        }
    }

    /// The limit, if it changes, when none of the `steered` waits.
    fn open(&mut self, steered: u64) -> Option<u64> {
        let limit = if self.most == 0 { 0 } else { steered.saturating_add(self.room) };
        let changes = limit != self.limit;
        self.limit = limit;
        changes.then_some(limit)
    }

    /// The new limit, if it has changed.
    #[inline]
    fn turn(
        &mut self,
        now: u64,
        taken: usize,
        steered: impl FnOnce() -> u64,
        waiting: impl FnOnce() -> u32,
    ) -> Option<u64> {
        if self.most == 0 {
            return None;
        }
        self.ahead = self.ahead.saturating_sub(taken as u64);
        if self.ahead > 0 {
            return None;
        }
        let reached = self.marked;
        // In this order: what is steered in between counts as waiting at the next mark only. The
        // few that are on their way from the program to the ring are beyond the limit for as long.
        self.marked = steered();
        // Otherwise nobody has come since the mark before.
        let is_full = self.marked != reached && self.marked >= self.limit;
        self.adapt(now, is_full);
        if self.marked != reached {
            self.ahead = waiting().into();
        }
        self.marked_at = now;
        self.open(reached)
    }

    /// Gives more or less room, when a mark has been reached.
    #[inline]
    fn adapt(&mut self, now: u64, is_full: bool) {
        let is_late = is_full && now - self.marked_at > LONG;
        if is_late && self.was_late {
            self.room = (self.room / 2).max(LEAST.min(self.most));
        }
        self.was_late = is_late;
        if is_full {
            self.full_at = now;
        } else if self.room < self.most && now - self.full_at > CALM {
            self.room = (2 * self.room).min(self.most);
            self.full_at = now;
        }
    }
}

/// The map's memory.
pub(super) struct Mapping {
    start: NonNull<AtomicU64>,
    bytes: usize,
    entries: usize,
}

/// Where the numbers of an entry are, in units of their size.
const STEERED: usize = std::mem::offset_of!(Admission, steered) / size_of::<u64>();
const LIMIT: usize = std::mem::offset_of!(Admission, limit) / size_of::<u64>();
const NUMBERS: usize = Admission::SIZE / size_of::<u64>();

// SAFETY: the memory is only touched through atomic numbers, and is mapped until it is dropped.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the array behind `map`, which has so many entries.
    pub(super) fn new(map: impl AsFd, entries: u32) -> io::Result<Mapping> {
        let entries = entries as usize;
        let bytes = (entries * Admission::SIZE).next_multiple_of(rustix::param::page_size());
        // SAFETY: a new mapping wherever the kernel likes.
        let start = unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            mmap(ptr::null_mut(), bytes, protection, MapFlags::SHARED, map, 0)?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { start, bytes, entries })
    }

    fn number(&self, entry: usize, number: usize) -> &AtomicU64 {
        assert!(entry < self.entries && number < NUMBERS);
        // SAFETY: within the mapping, which is page-aligned and lives as long as `self`; both
        // sides touch its numbers atomically only.
        unsafe { self.start.add(entry * NUMBERS + number).as_ref() }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("entries", &self.entries).finish_non_exhaustive()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our mapping, to which no reference is left.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// A program, its ring and a worker, whose turns take a millisecond.
    struct Play {
        now: u64,
        steered: u64,
        limit: u64,
        dropped: u64,
        /// Whether a frame is a SYN.
        ring: VecDeque<bool>,
        room: usize,
        credit: Credit,
    }

    impl Play {
        fn new(most: u32, room: usize) -> Play {
            let mut credit = Credit::new(most);
            let limit = credit.open(0).unwrap_or(0);
            Play { now: 0, steered: 0, limit, dropped: 0, ring: VecDeque::new(), room, credit }
        }

        fn arrive(&mut self, is_syn: bool) {
            if is_syn && !Admission::has_room(self.steered, self.limit) {
                self.dropped += 1;
                return;
            }
            self.steered += u64::from(is_syn);
            if self.ring.len() < self.room {
                self.ring.push_back(is_syn);
            }
        }

        fn turn(&mut self, batch: usize) {
            self.now += 1_000_000;
            let taken = self.ring.drain(..batch.min(self.ring.len())).count();
            let (steered, waiting) = (self.steered, self.ring.len() as u32);
            if let Some(limit) = self.credit.turn(self.now, taken, || steered, || waiting) {
                self.limit = limit;
            }
        }

        fn syns(&self) -> usize {
            self.ring.iter().filter(|is_syn| **is_syn).count()
        }
    }

    /// Numbers that look random.
    fn noise(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        move |below| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        }
    }

    #[test]
    fn never_more_syns_wait_than_may() {
        for seed in 1..200 {
            let mut random = noise(seed);
            let most = 1 + random(40) as u32;
            let mut play = Play::new(most, 64 + random(200) as usize);
            for _ in 0..2000 {
                match random(3) {
                    0 => play.turn(random(70) as usize),
                    kind => play.arrive(kind == 1),
                }
                assert!(play.syns() <= most as usize, "seed {seed}");
            }
        }
    }

    /// Whatever was lost in a full ring, the gate is as open as ever once the worker has kept up.
    #[test]
    fn it_opens_wholly_again() {
        for seed in 1..200 {
            let mut random = noise(seed);
            let most = 1 + random(40) as u32;
            let mut play = Play::new(most, 16);
            for _ in 0..500 {
                play.arrive(random(2) == 0);
            }
            while !play.ring.is_empty() {
                play.turn(5);
            }
            play.turn(5);
            play.turn(5);
            assert_eq!(play.limit, play.steered + u64::from(most), "seed {seed}");
        }
    }

    /// A ring that is never empty, and full of others' frames, keeps nobody out.
    #[test]
    fn it_goes_on_opening_while_frames_wait() {
        let mut play = Play::new(8, 64);
        let before = play.steered;
        for _ in 0..1000 {
            for _ in 0..64 {
                play.arrive(false);
                play.arrive(true);
            }
            play.turn(32);
            assert!(!play.ring.is_empty());
        }
        assert!(play.steered - before > 1000, "{}", play.steered);
        assert!(play.dropped > 0);
    }

    /// SYNs that come faster than they are taken are dropped before they have waited long; after a
    /// while without, a burst finds all the room again.
    #[test]
    fn a_standing_queue_is_made_short() {
        let mut play = Play::new(2048, 8192);
        for _ in 0..1000 {
            (0..200).for_each(|_| play.arrive(true));
            play.turn(100);
        }
        assert!(play.syns() <= 400, "{}", play.syns());
        for _ in 0..1000 {
            (0..50).for_each(|_| play.arrive(true));
            play.turn(100);
        }
        let dropped = play.dropped;
        (0..1900).for_each(|_| play.arrive(true));
        assert_eq!(play.dropped, dropped);
    }

    /// A worker that had no CPU for a moment finds the burst that came meanwhile, and later ones.
    #[test]
    fn a_burst_is_no_standing_queue() {
        let mut play = Play::new(2048, 8192);
        for _ in 0..20 {
            (0..2048).for_each(|_| play.arrive(true));
            play.now += 20_000_000;
            while !play.ring.is_empty() {
                play.turn(256);
            }
            play.turn(256);
        }
        assert_eq!((play.dropped, play.credit.room), (0, 2048));
    }

    #[test]
    fn without_a_limit_nothing_is_dropped() {
        let mut play = Play::new(0, 8);
        for _ in 0..100 {
            play.arrive(true);
            play.turn(0);
        }
        assert_eq!(play.dropped, 0);
    }
}
