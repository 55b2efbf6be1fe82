//! Which descriptor numbers are ours.
//!
//! A program calls for kernel descriptors far more often than for ours, so a number is looked up
//! in two loads. The entries are read without a lock, also in signal handlers and after `fork`.

use crate::description::{Description, Found};
use crate::fork;
use arc_swap::ArcSwapOption;
use std::os::fd::RawFd;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

/// Entries of a page.
const PAGE: usize = 1024;
/// Pages: more numbers than these the kernel does not give unless `fs.nr_open` is raised.
const PAGES: usize = 4096;

/// Pages come when the first of their numbers is used, and stay.
static TABLE: [AtomicPtr<Page>; PAGES] = [const { AtomicPtr::new(null_mut()) }; PAGES];

struct Page {
    /// What is known of the number besides its entry; 0 when there is none: the cheap look.
    kinds: [AtomicU8; PAGE],
    entries: [ArcSwapOption<Description>; PAGE],
}

/// The number is in use.
const USED: u8 = 1;
/// It is one of [`numbers`](crate::numbers), which wants it back.
const LENT: u8 = 2;
/// `exec` closes it. Known of lent numbers only.
const CLOEXEC: u8 = 4;
/// It waits among [`numbers`](crate::numbers): to the program it is closed.
const KEPT: u8 = 8;

/// Whose a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The kernel gave it to the program.
    Program,
    /// It was taken from [`numbers`](crate::numbers).
    Lent {
        /// `exec` closes it.
        cloexec: bool,
    },
}

impl Owner {
    fn kind(self) -> u8 {
        match self {
            Owner::Program => USED,
            Owner::Lent { cloexec: false } => USED | LENT,
            Owner::Lent { cloexec: true } => USED | LENT | CLOEXEC,
        }
    }

    fn of(kind: u8) -> Owner {
        match kind & LENT {
            0 => Owner::Program,
            _ => Owner::Lent { cloexec: kind & CLOEXEC != 0 },
        }
    }
}

fn page(fd: RawFd) -> Option<(&'static Page, usize)> {
    let fd = usize::try_from(fd).ok()?;
    // Acquire: pairs with the Release in insert().
    let page = TABLE.get(fd / PAGE)?.load(Ordering::Acquire);
    // SAFETY: a pointer that is not null was leaked from a Box in page_or_new().
    Some((unsafe { page.as_ref() }?, fd % PAGE))
}

/// What stands behind a number, if it is one of ours.
pub fn find(fd: RawFd) -> Option<Found> {
    let (page, index) = page(fd)?;
    // Relaxed: who was given the number has synchronised with whoever entered it.
    if page.kinds[index].load(Ordering::Relaxed) & USED == 0 {
        return None;
    }
    Found::new(page.entries[index].load())
}

/// Whether the table has room for this number.
pub(crate) fn has_room(fd: RawFd) -> bool {
    usize::try_from(fd).is_ok_and(|fd| fd < PAGE * PAGES)
}

/// Enters a number, which has room; returns what it stood for.
pub(crate) fn insert(
    fd: RawFd,
    description: Arc<Description>,
    owner: Owner,
) -> Option<Arc<Description>> {
    let (page, index) = page(fd).or_else(|| new_page(fd)).expect("has_room() was asked");
    let old = page.entries[index].swap(Some(description));
    page.kinds[index].store(owner.kind(), Ordering::Relaxed);
    old
}

/// Removes a number; returns what it stood for and whose it is.
pub(crate) fn remove(fd: RawFd) -> Option<(Arc<Description>, Owner)> {
    let (page, index) = page(fd)?;
    if page.kinds[index].load(Ordering::Relaxed) & USED == 0 {
        return None;
    }
    let kind = page.kinds[index].swap(0, Ordering::Relaxed);
    Some((page.entries[index].swap(None)?, Owner::of(kind)))
}

/// Whose a number is that is in use.
pub(crate) fn owner(fd: RawFd) -> Option<Owner> {
    let (page, index) = page(fd)?;
    let kind = page.kinds[index].load(Ordering::Relaxed);
    (kind & USED != 0).then(|| Owner::of(kind))
}

/// Whether a number is closed to the program, though the kernel has it open: it is kept for the
/// next socket.
pub fn is_kept(fd: RawFd) -> bool {
    page(fd).is_some_and(|(page, index)| page.kinds[index].load(Ordering::Relaxed) == KEPT)
}

/// A number begins or ends to be kept.
pub(crate) fn set_kept(fd: RawFd, kept: bool) {
    if let Some((page, index)) = page(fd).or_else(|| new_page(fd)) {
        page.kinds[index].store(if kept { KEPT } else { 0 }, Ordering::Relaxed);
    }
}

/// `FD_CLOEXEC` of a number was changed.
pub(crate) fn set_cloexec(fd: RawFd, cloexec: bool) {
    if let (Some((page, index)), Some(Owner::Lent { .. })) = (page(fd), owner(fd)) {
        page.kinds[index].store(Owner::Lent { cloexec }.kind(), Ordering::Relaxed);
    }
}

/// The numbers in use from `first` to `last`.
pub(crate) fn used(first: RawFd, last: RawFd) -> Vec<RawFd> {
    let mut found = Vec::new();
    let (first, last) = (first.max(0), last.min((PAGE * PAGES - 1) as RawFd));
    let mut fd = first;
    while fd <= last {
        match page(fd) {
            None => fd = (fd / PAGE as RawFd + 1) * PAGE as RawFd,
            Some((page, index)) => {
                if page.kinds[index].load(Ordering::Relaxed) & USED != 0 {
                    found.push(fd);
                }
                fd += 1;
            }
        }
    }
    found
}

fn new_page(fd: RawFd) -> Option<(&'static Page, usize)> {
    fork::register();
    let slot = TABLE.get(usize::try_from(fd).ok()? / PAGE)?;
    let new = Box::into_raw(Box::new(Page {
        kinds: [const { AtomicU8::new(0) }; PAGE],
        entries: [const { ArcSwapOption::const_empty() }; PAGE],
    }));
    // Release: pairs with the Acquire in page().
    if slot.compare_exchange(null_mut(), new, Ordering::Release, Ordering::Relaxed).is_err() {
        // SAFETY: made above, and nobody else has seen it.
        drop(unsafe { Box::from_raw(new) });
    }
    page(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::{Domain, Socket};

    fn description() -> Arc<Description> {
        Arc::new(Description::Socket(Socket::fresh(Domain::V4, false)))
    }

    #[test]
    fn numbers_come_and_go() {
        // Not numbers that another test of this process gets from the kernel.
        let (low, high) = (900_000, 900_000 + PAGE as RawFd);
        assert!(find(low).is_none());
        assert!(insert(low, description(), Owner::Program).is_none());
        assert!(insert(high, description(), Owner::Lent { cloexec: true }).is_none());
        assert!(find(low).is_some());
        assert_eq!(used(low, high), [low, high]);
        let found = find(low).unwrap();
        set_cloexec(low, true);
        set_cloexec(high, false);
        assert_eq!(owner(low), Some(Owner::Program));
        assert_eq!(owner(high), Some(Owner::Lent { cloexec: false }));
        assert!(remove(low).is_some());
        assert!(find(low).is_none());
        assert!(found.socket().is_ok(), "who has found it keeps it");
        assert!(remove(low).is_none() && owner(low).is_none());
        assert!(remove(high).is_some());
    }

    #[test]
    fn there_are_limits() {
        assert!(find(-1).is_none());
        assert!(find(RawFd::MAX).is_none());
        assert!(!has_room(RawFd::MAX) && !has_room(-1) && has_room(0));
        assert!(used(-5, RawFd::MAX).iter().all(|fd| *fd >= 0));
    }
}
