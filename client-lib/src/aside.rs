//! Descriptors of the library's own, out of the program's way.

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit};
use std::sync::atomic::{AtomicU64, Ordering};

/// Programs index arrays by descriptors, and size them by the number of connections that they are
/// going to have; `select(2)` ends at this number.
const FIRST: u64 = 1024;

const WORD_BITS: usize = u64::BITS as usize;

/// A bit for each number that is the library's own. Numbers beyond are not kept account of.
static OWN: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];

/// Whether a descriptor is one of the library's own, which a program that closes all that it does
/// not know must leave open.
pub fn is_own_descriptor(number: RawFd) -> bool {
    // Relaxed: a number that is just being made or closed is nobody else's anyhow.
    bit(number).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
}

/// The library's own descriptors, in order: see [`is_own_descriptor`].
pub fn own_descriptors() -> impl Iterator<Item = RawFd> {
    let words = (0..).zip(&OWN).filter(|(_, word)| word.load(Ordering::Relaxed) != 0);
    words.flat_map(|(word, _)| {
        let first = word * WORD_BITS as RawFd;
        (first..first + WORD_BITS as RawFd).filter(|number| is_own_descriptor(*number))
    })
}

fn bit(number: RawFd) -> Option<(&'static AtomicU64, u64)> {
    let number = usize::try_from(number).ok()?;
    Some((OWN.get(number / WORD_BITS)?, 1 << (number % WORD_BITS)))
}

/// A descriptor of the library's own, or of a layer above it: with a high number, which no program
/// counts on, and known to [`is_own_descriptor`] while it is open.
#[derive(Debug)]
pub struct OwnDescriptor(OwnedFd);

impl OwnDescriptor {
    /// Gives a descriptor a high number, so that the program's own get the low ones that they would
    /// have without us. It stays where it is if there is no room.
    pub fn new(descriptor: OwnedFd) -> OwnDescriptor {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let first = FIRST.min(limit / 2) as i32;
        let own = fcntl_dupfd_cloexec(&descriptor, first).unwrap_or(descriptor);
        if let Some((word, bit)) = bit(own.as_raw_fd()) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        OwnDescriptor(own)
    }
}

impl AsFd for OwnDescriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for OwnDescriptor {
    fn drop(&mut self) {
        // Closed right after this.
        if let Some((word, bit)) = bit(self.0.as_raw_fd()) {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    #[test]
    fn the_low_number_is_free_again() {
        let low = eventfd(0, EventfdFlags::empty()).unwrap();
        let number = low.as_raw_fd();
        let high = OwnDescriptor::new(low);
        let high = high.as_fd();
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(high.as_raw_fd() as u64 >= FIRST.min(limit / 2));
        assert!(high.as_raw_fd() > number);
        assert!(rustix::io::fcntl_getfd(high).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn own_numbers_are_known() {
        let own = OwnDescriptor::new(eventfd(0, EventfdFlags::empty()).unwrap());
        let number = own.as_fd().as_raw_fd();
        assert!(is_own_descriptor(number) && own_descriptors().any(|other| other == number));
        drop(own);
        assert!(!is_own_descriptor(RawFd::MAX) && !is_own_descriptor(-1) && !is_own_descriptor(0));
    }
}
