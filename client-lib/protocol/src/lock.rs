//! A lock in a connection's block, shared by all threads of all processes of a group.
//!
//! The word names the process that holds it. A process that is killed meanwhile would hold it for
//! ever; the daemon, which notices the death, puts right what was left half done and
//! [breaks](Lock::break_for) the lock. Until then others wait. The daemon itself never takes one.

use crate::process::Process;
use crate::sync::{AtomicU32, Ordering};

/// Somebody sleeps for the lock. A process's name is below this bit.
const CONTENDED: u32 = 1 << 31;

/// Looks before the first sleep: a section is as long as copying some bytes.
const LOOKS: u32 = 100;

/// A lock of clients. Zeroed memory is a free one.
#[repr(transparent)]
#[derive(Debug)]
pub struct Lock(AtomicU32);

impl Lock {
    /// A free lock, for tests and models; in a segment it is zeroed memory.
    pub fn new() -> Lock {
        Lock(AtomicU32::new(0))
    }

    /// Client: takes the lock if it is free.
    pub fn try_lock(&self, own: Process) -> bool {
        // Acquire: pairs with the Release in unlock() and break_for().
        self.0.compare_exchange(0, own.raw(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Client: takes the lock; waits while others have it, as long as `goes_on` says so. It is
    /// asked every few milliseconds. `false`: it has said no.
    pub fn lock(&self, own: Process, mut goes_on: impl FnMut() -> bool) -> bool {
        if self.try_lock(own) {
            return true;
        }
        for _ in 0..LOOKS {
            if self.try_lock(own) {
                return true;
            }
            core::hint::spin_loop();
        }
        loop {
            // Relaxed: the exchanges below order what matters.
            let word = self.0.load(Ordering::Relaxed);
            let taken = match word {
                // Others may sleep, so it is taken as contended.
                0 => own.raw() | CONTENDED,
                word => word | CONTENDED,
            };
            // Acquire: as in try_lock().
            if word != taken
                && self
                    .0
                    .compare_exchange(word, taken, Ordering::Acquire, Ordering::Relaxed)
                    .is_err()
            {
                continue;
            }
            if word == 0 {
                return true;
            }
            wait(&self.0, taken);
            if !goes_on() {
                return false;
            }
        }
    }

    /// Client: gives the lock back.
    pub fn unlock(&self) {
        // Release: pairs with the Acquire of who takes it next.
        if self.0.swap(0, Ordering::Release) & CONTENDED != 0 {
            wake(&self.0);
        }
    }

    /// Daemon: the name in the lock: whatever a client has written there.
    pub fn holder(&self) -> Option<Process> {
        // Acquire: pairs with whatever wrote the name; what it did before is seen.
        Process::from_raw(self.0.load(Ordering::Acquire) & !CONTENDED)
    }

    /// Daemon: frees the lock if `dead` has it. Who sleeps for it looks again by itself.
    pub fn break_for(&self, dead: Process) {
        for word in [dead.raw(), dead.raw() | CONTENDED] {
            // Release: pairs with the Acquire of who takes it next.
            let _ = self.0.compare_exchange(word, 0, Ordering::Release, Ordering::Relaxed);
        }
    }

    /// Daemon: a free lock, whatever it was.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Default for Lock {
    fn default() -> Self {
        Lock::new()
    }
}

/// Sleeps until woken, for a few milliseconds at the most: the daemon wakes nobody.
#[cfg(not(loom))]
fn wait(word: &AtomicU32, expected: u32) {
    use rustix::thread::futex;
    let patience = rustix::time::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
    // Every way in which this ends is followed by another look.
    let _ = futex::wait(word, futex::Flags::empty(), expected, Some(&patience));
}

#[cfg(not(loom))]
fn wake(word: &AtomicU32) {
    // It fails only for an address that is none.
    let _ = rustix::thread::futex::wake(word, rustix::thread::futex::Flags::empty(), 1);
}

#[cfg(loom)]
fn wait(_: &AtomicU32, _: u32) {
    loom::thread::yield_now();
}

#[cfg(loom)]
fn wake(_: &AtomicU32) {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_dead_holder_is_broken_and_no_other() {
        let (one, two) = (Process::FIRST, Process::first(1));
        let lock = Lock::new();
        assert!(lock.lock(one, || true));
        assert_eq!(lock.holder(), Some(one));
        let mut asked = 0;
        let waited = lock.lock(two, || {
            asked += 1;
            asked < 2
        });
        assert!(!waited, "it is held");
        lock.break_for(two);
        assert_eq!(lock.holder(), Some(one));
        lock.break_for(one);
        assert_eq!(lock.holder(), None);
        assert!(lock.try_lock(two));
    }

    #[test]
    fn sections_exclude_each_other() {
        let shared = Arc::new((Lock::new(), AtomicU32::new(0)));
        let threads = [0, 1, 2].map(|slot| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                for _ in 0..2000 {
                    assert!(shared.0.lock(Process::first(slot), || true));
                    let seen = shared.1.load(Ordering::Relaxed);
                    std::hint::spin_loop();
                    shared.1.store(seen + 1, Ordering::Relaxed);
                    shared.0.unlock();
                }
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(shared.1.load(Ordering::Relaxed), 6000);
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Two takers, one of which finds it taken: sections exclude each other.
    #[test]
    fn sections_exclude_each_other() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let shared = Arc::new((Lock::new(), loom::cell::UnsafeCell::new(0)));
            let section = |shared: &(Lock, loom::cell::UnsafeCell<i32>), slot| {
                while !shared.0.try_lock(Process::first(slot)) {
                    thread::yield_now();
                }
                // SAFETY: loom itself fails if two sections overlap.
                shared.1.with_mut(|value| unsafe { *value += 1 });
                shared.0.unlock();
            };
            let other = Arc::clone(&shared);
            let thread = thread::spawn(move || section(&other, 1));
            section(&shared, 0);
            thread.join().unwrap();
        });
    }
}
