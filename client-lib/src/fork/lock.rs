//! A mutex that a fork sets free.
//!
//! A child of a process with several threads has only the one that forked. What another thread had
//! locked at that moment would stay locked in the child for ever. So a lock's word says in which
//! process it was taken (counted by forks, see [`epoch`]), and one that an earlier process took is
//! free. Data that must not be seen half changed is quiet at a fork, because the hook
//! [before it](super) takes its locks.

use super::epoch;
use lock_api::{GuardSend, RawMutexTimed};
use rustix::io::Errno;
use rustix::thread::futex;
use rustix::time::Timespec;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A mutex of this library: everything that is locked here is locked with it.
pub(crate) type Mutex<T> = lock_api::Mutex<RawMutex, T>;

/// What a [`Mutex`] has locked.
pub(crate) type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawMutex, T>;

const LOCKED: u32 = 1;
/// Somebody may sleep for it.
const WAITERS: u32 = 2;
/// Bits below the epoch.
const EPOCH_SHIFT: u32 = 2;

/// Looks before the first sleep.
const LOOKS: u32 = 64;

/// Zero, or the epoch in which it was taken, with [`LOCKED`] and perhaps [`WAITERS`].
pub(crate) struct RawMutex(AtomicU32);

impl RawMutex {
    fn word() -> u32 {
        epoch() << EPOCH_SHIFT | LOCKED
    }

    /// Whether a lock with this word can be taken.
    fn is_free(word: u32) -> bool {
        word == 0 || word >> EPOCH_SHIFT != epoch() << EPOCH_SHIFT >> EPOCH_SHIFT
    }

    fn swap(&self, from: u32, to: u32) -> bool {
        // Acquire: pairs with the Release in unlock().
        self.0.compare_exchange_weak(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock; waits for it until `deadline` at the most. A signal that is handled does not
    /// end that.
    fn wait(&self, deadline: Option<Instant>) -> bool {
        loop {
            match self.wait_once(deadline) {
                Err(Interrupted) => {}
                Ok(locked) => return locked,
            }
        }
    }

    /// The same, until a signal is handled.
    fn wait_once(&self, deadline: Option<Instant>) -> Result<bool, Interrupted> {
        for _ in 0..LOOKS {
            let word = self.0.load(Ordering::Relaxed);
            if Self::is_free(word) && self.swap(word, Self::word()) {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        loop {
            let word = self.0.load(Ordering::Relaxed);
            if Self::is_free(word) {
                // Others may sleep for it.
                if self.swap(word, Self::word() | WAITERS) {
                    return Ok(true);
                }
                continue;
            }
            if word & WAITERS == 0 && !self.swap(word, word | WAITERS) {
                continue;
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
            let left = left.map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
            let slept = futex::wait(&self.0, futex::Flags::PRIVATE, word | WAITERS, left.as_ref());
            if slept == Err(Errno::INTR) {
                return Err(Interrupted);
            }
            // Every other way in which this ends is followed by another look.
        }
    }
}

/// A signal was handled while a lock was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interrupted;

/// Locks `mutex`, until `deadline` at the most (then `None`).
///
/// # Errors
/// [`Interrupted`] when a signal was handled meanwhile.
pub(crate) fn lock_interruptibly<T>(
    mutex: &Mutex<T>,
    deadline: Option<Instant>,
) -> Result<Option<MutexGuard<'_, T>>, Interrupted> {
    // SAFETY: only asked to lock.
    let raw = unsafe { mutex.raw() };
    let locked = raw.swap(0, RawMutex::word()) || raw.wait_once(deadline)?;
    // SAFETY: locked just now, for the guard.
    Ok(locked.then(|| unsafe { mutex.make_guard_unchecked() }))
}

// SAFETY: the lock is taken by moving the word from free to locked with a compare-and-swap, and
// only who took it makes it free again. A word of an earlier epoch is of a thread that is not in
// this process, so that nobody here has the lock.
unsafe impl lock_api::RawMutex for RawMutex {
    const INIT: RawMutex = RawMutex(AtomicU32::new(0));

    type GuardMarker = GuardSend;

    fn lock(&self) {
        if !self.swap(0, Self::word()) {
            self.wait(None);
        }
    }

    fn try_lock(&self) -> bool {
        let word = self.0.load(Ordering::Relaxed);
        // Not weak: a free lock is taken.
        let (own, order) = (Self::word(), Ordering::Relaxed);
        Self::is_free(word) && self.0.compare_exchange(word, own, Ordering::Acquire, order).is_ok()
    }

    unsafe fn unlock(&self) {
        // Release: pairs with the Acquire of who takes it next.
        if self.0.swap(0, Ordering::Release) & WAITERS != 0 {
            // It fails only for an address that is none.
            let _ = futex::wake(&self.0, futex::Flags::PRIVATE, 1);
        }
    }

    fn is_locked(&self) -> bool {
        !Self::is_free(self.0.load(Ordering::Relaxed))
    }
}

// SAFETY: as for lock().
unsafe impl RawMutexTimed for RawMutex {
    type Duration = Duration;
    type Instant = Instant;

    fn try_lock_for(&self, timeout: Duration) -> bool {
        self.swap(0, Self::word()) || self.wait(Instant::now().checked_add(timeout))
    }

    fn try_lock_until(&self, timeout: Instant) -> bool {
        self.swap(0, Self::word()) || self.wait(Some(timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn one_at_a_time() {
        let shared = Arc::new(Mutex::new(0));
        let threads = [(); 4].map(|()| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                for _ in 0..5000 {
                    let mut value = shared.lock();
                    let seen = *value;
                    std::hint::spin_loop();
                    *value = seen + 1;
                }
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(*shared.lock(), 20_000);
    }

    #[test]
    fn patience_ends() {
        let mutex = Mutex::new(());
        let guard = mutex.lock();
        assert!(mutex.try_lock().is_none());
        assert!(mutex.try_lock_for(Duration::from_millis(5)).is_none());
        drop(guard);
        assert!(mutex.try_lock_until(Instant::now()).is_some());
    }
}
