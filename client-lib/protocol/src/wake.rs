//! Sleeping and waking without lost wake-ups and without needless system calls.
//!
//! A side that has nothing to do raises its flag, looks once more, and only then blocks on its
//! doorbell. The other side publishes work first, then tests the flag, and rings the doorbell
//! only when it is up. With a `SeqCst` fence on both sides at least one of them sees the other
//! (store buffering is ruled out); an Acquire load after a plain store would not be enough.
//!
//! The flag lies in shared memory, so a hostile client can hold it up: the daemon rings at most
//! once per client and loop.

use crate::sync::{AtomicU32, Ordering, fence};

/// The "I am about to sleep" flag of one worker or one lane, on a cache line of its own.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Sleeper {
    flag: AtomicU32,
}

impl Sleeper {
    /// An awake sleeper, for tests and models; in a segment it is zeroed memory.
    pub fn new() -> Sleeper {
        Sleeper { flag: AtomicU32::new(0) }
    }

    /// Announces sleep. The caller must look for work again after this and before it blocks.
    pub fn prepare(&self) {
        self.flag.store(1, Ordering::Relaxed);
        // SeqCst: pairs with the fence in must_ring(); orders our flag before our second look.
        fence(Ordering::SeqCst);
    }

    /// Takes the announcement back, after waking or when the second look found work.
    pub fn awake(&self) {
        self.flag.store(0, Ordering::Relaxed);
    }

    /// Whether the doorbell must be rung, asked after work was published. Takes the flag down,
    /// so that one sleep is ended by one ring.
    pub fn must_ring(&self) -> bool {
        // SeqCst: pairs with the fence in prepare(); orders the published work before this look.
        fence(Ordering::SeqCst);
        self.is_sleeping()
    }

    /// Like [`must_ring`](Self::must_ring) for a caller that has made the fence already, once
    /// for many sleepers.
    pub fn is_sleeping(&self) -> bool {
        self.flag.load(Ordering::Relaxed) != 0 && self.flag.swap(0, Ordering::Relaxed) != 0
    }
}

impl Default for Sleeper {
    fn default() -> Self {
        Sleeper::new()
    }
}

/// The fence that a caller of [`Sleeper::is_sleeping`] makes once, after publishing.
pub fn publish_fence() {
    // SeqCst: pairs with the fence in Sleeper::prepare().
    fence(Ordering::SeqCst);
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Whoever goes to sleep without having seen the work is rung.
    #[test]
    fn no_wake_up_is_lost() {
        loom::model(|| {
            let shared = Arc::new((Sleeper::new(), AtomicU32::new(0)));
            let other = Arc::clone(&shared);
            let producer = thread::spawn(move || {
                let (sleeper, work) = &*other;
                work.store(1, Ordering::Relaxed);
                sleeper.must_ring()
            });
            let (sleeper, work) = &*shared;
            sleeper.prepare();
            let seen = work.load(Ordering::Relaxed) != 0;
            let rung = producer.join().unwrap();
            assert!(seen || rung);
        });
    }
}
