//! `fork(2)`: a child goes on with the sockets of its parent.
//!
//! ```text
//!  parent   before ── Fork ──▶ daemon: a process that holds what we hold, a connection for it
//!             │                                                        │
//!           fork                                                       │
//!           ╱  ╲                                                       │
//!  parent: closes the new connection    child: has it in the place of the parent's ◀─┘
//! ```
//! The control connection is what a process holds its sockets by: when it ends (exit, exec, kill),
//! the daemon takes the process's holds away. So a child needs its own, and must not keep its
//! parent's open. It is put under the old one's number, so that nothing else changes.
//!
//! Before the fork, every lock is taken under which sockets are taken, closed or registered. Nobody
//! can accept or close between the daemon's look at what we hold and the child's copy of our memory.
//!
//! The child takes its lanes anew, when it needs them: those of its parent are the parent's.
//!
//! All of the library's unsafe code is in this module.
#![allow(unsafe_code)]

mod lock;

pub(crate) use lock::{Interrupted, Mutex, MutexGuard, lock_interruptibly};

use crate::runtime::{Quiet, Shared};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::DupFlags;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once, Weak};

/// Forks between the first process that used this library and this one.
static EPOCH: AtomicU32 = AtomicU32::new(0);

/// How many forks lie between the first process that used this library and this one.
pub(crate) fn epoch() -> u32 {
    // Relaxed: changes only in a process that has one thread.
    EPOCH.load(Ordering::Relaxed)
}

/// The process's connections to daemons.
struct Enrolled {
    runtimes: Vec<Weak<Shared>>,
    /// Between the hooks of one fork.
    quiet: Vec<Quiet>,
}

static ENROLLED: Mutex<Enrolled> = Mutex::new(Enrolled { runtimes: Vec::new(), quiet: Vec::new() });

/// From now on a child of this process goes on with what this connection holds.
pub(crate) fn enroll(shared: &Arc<Shared>) {
    static HOOKS: Once = Once::new();
    HOOKS.call_once(|| {
        // SAFETY: the functions live as long as the library: glibc forgets them when that is
        // unloaded. It fails only without memory; then children have no sockets.
        unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    });
    let mut enrolled = ENROLLED.lock();
    enrolled.runtimes.retain(|runtime| runtime.strong_count() > 0);
    enrolled.runtimes.push(Arc::downgrade(shared));
}

extern "C" fn before() {
    let mut enrolled = ENROLLED.lock();
    let runtimes = enrolled.runtimes.iter().filter_map(Weak::upgrade);
    enrolled.quiet = runtimes.map(Shared::prepare_fork).collect();
    // Stays locked until the fork is done.
    std::mem::forget(enrolled);
}

extern "C" fn in_parent() {
    // SAFETY: before() has taken the lock in this thread and forgotten the guard.
    let mut enrolled = unsafe { ENROLLED.make_guard_unchecked() };
    for quiet in std::mem::take(&mut enrolled.quiet) {
        // The child's connection is closed here: if there is no child, for good.
        quiet.end_in_parent();
    }
}

extern "C" fn in_child() {
    EPOCH.fetch_add(1, Ordering::Relaxed);
    // Free since the line before, as every lock.
    let mut enrolled = ENROLLED.lock();
    for quiet in std::mem::take(&mut enrolled.quiet) {
        quiet.end_in_child();
    }
}

/// Unlocks what [`before`] has locked, its guard forgotten.
///
/// For [`Quiet`] alone: in the parent, once for each lock that it took.
pub(crate) fn unlock<T>(mutex: &Mutex<T>) {
    // SAFETY: the caller has locked it in this thread, before the fork, and forgotten the guard.
    unsafe { mutex.force_unlock() };
}

/// Puts `new` in the place of `old`: whatever has that descriptor's number has the new one's file
/// from now on.
pub(crate) fn replace(old: BorrowedFd<'_>, new: impl AsFd) -> rustix::io::Result<()> {
    // SAFETY: the number is open, because it is borrowed; it stays so, and is not closed here.
    let mut old = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(old.as_raw_fd()) });
    rustix::io::dup3(new, &mut old, DupFlags::CLOEXEC)
}
