//! Numbers for accepted sockets.
//!
//! A number is held by a duplicate of one kernel socket that is never connected: whoever gets at
//! it past this library reads `ENOTCONN`. Numbers that the program has closed are kept for the
//! next ones, so that a busy server makes no system call for them.

use crate::error::Result;
use crate::kernel;
use crate::table;
use fourwave::OwnDescriptor;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Closed numbers that are kept at the most, of each kind: they count towards `RLIMIT_NOFILE`.
const KEPT: usize = 128;

/// The lowest number that is kept. Programs count on those below: after `close(0)` the next
/// descriptor is the new standard input.
const FIRST_KEPT: RawFd = 3;

static PLACEHOLDER: OnceLock<OwnDescriptor> = OnceLock::new();
static KEPT_NUMBERS: Mutex<Kept> =
    Mutex::new(Kept { cloexec: BinaryHeap::new(), plain: BinaryHeap::new() });

/// Numbers that wait, the lowest first: those that `exec` closes, and the others.
#[derive(Debug)]
pub(crate) struct Kept {
    cloexec: BinaryHeap<Reverse<RawFd>>,
    plain: BinaryHeap<Reverse<RawFd>>,
}

impl Kept {
    fn of(&mut self, cloexec: bool) -> &mut BinaryHeap<Reverse<RawFd>> {
        if cloexec { &mut self.cloexec } else { &mut self.plain }
    }
}

pub(crate) fn lock() -> MutexGuard<'static, Kept> {
    KEPT_NUMBERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that nobody uses yet. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Number {
    fd: RawFd,
    cloexec: bool,
}

impl Number {
    /// # Errors
    /// `EMFILE` and `ENFILE` as the kernel says.
    pub(crate) fn take(cloexec: bool) -> Result<Number> {
        if let Some(Reverse(fd)) = lock().of(cloexec).pop() {
            table::set_kept(fd, false);
            return Ok(Number { fd, cloexec });
        }
        let fd = kernel::dup_own(placeholder()?, cloexec)?;
        Ok(Number { fd, cloexec })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd
    }

    /// It is in use now.
    pub(crate) fn used(self) -> (RawFd, bool) {
        let own = (self.fd, self.cloexec);
        std::mem::forget(self);
        own
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        give_back(self.fd, self.cloexec);
    }
}

/// Keeps a number that [`Number::take`] gave, or closes it.
pub(crate) fn give_back(fd: RawFd, cloexec: bool) {
    let mut kept = lock();
    let numbers = kept.of(cloexec);
    if fd >= FIRST_KEPT && numbers.len() < KEPT && table::has_room(fd) {
        table::set_kept(fd, true);
        numbers.push(Reverse(fd));
        return;
    }
    drop(kept);
    // Not one that can fail: it is ours.
    let _ = kernel::close(fd);
}

/// The kernel is about to close these numbers, or to put something else there.
pub(crate) fn forget(first: RawFd, last: RawFd) {
    let mut kept = lock();
    let outside = |Reverse(fd): &Reverse<RawFd>| {
        let inside = (first..=last).contains(fd);
        if inside {
            table::set_kept(*fd, false);
        }
        !inside
    };
    kept.cloexec.retain(outside);
    kept.plain.retain(outside);
}

fn placeholder() -> Result<&'static OwnDescriptor> {
    if let Some(placeholder) = PLACEHOLDER.get() {
        return Ok(placeholder);
    }
    let new = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Not a low number, which the program may count on.
    Ok(PLACEHOLDER.get_or_init(|| OwnDescriptor::new(new)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_numbers_are_used_again() {
        // Nothing but this test asks for numbers that exec keeps.
        let number = Number::take(false).unwrap();
        let fd = number.fd();
        drop(number);
        assert!(table::is_kept(fd));
        let again = Number::take(false).unwrap();
        assert_eq!(again.fd(), fd);
        let (fd, _) = again.used();
        assert!(!table::is_kept(fd));
        give_back(fd, false);
        forget(fd, fd);
        assert!(!table::is_kept(fd));
        assert_ne!(Number::take(false).unwrap().fd(), fd, "the kernel has it still");
        kernel::close(fd).unwrap();
    }
}
