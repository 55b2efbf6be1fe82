//! `fork`: the locks of this crate are free in the child.
//!
//! The table is read without locks. What is locked for a moment everywhere in the process, the
//! kept numbers, is held across the fork by the thread that forks, so that the child finds it
//! free. Locks of single sockets are left alone: a child that goes on with a socket in the middle
//! of another thread's call is lost with the kernel's sockets too.

use crate::numbers::{self, Kept};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{MutexGuard, Once};

thread_local! {
    static HELD: RefCell<Option<MutexGuard<'static, Kept>>> = const { RefCell::new(None) };
}

/// Registers the handlers, once.
pub(crate) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handlers are functions of this library, which is never unloaded while its
        // sockets are in use.
        unsafe { libc::pthread_atfork(Some(prepare), Some(release), Some(begin_anew)) };
    });
}

static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Forks between the first process and this one: what was made under another number is a parent's.
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

extern "C" fn prepare() {
    let guard = numbers::lock();
    // A thread that is ending cannot keep it; then the child may find the lock held.
    let _ = HELD.try_with(|held| *held.borrow_mut() = Some(guard));
}

extern "C" fn release() {
    let _ = HELD.try_with(|held| held.borrow_mut().take());
}

extern "C" fn begin_anew() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    release();
}
