//! Descriptors of the library's own, out of the program's way.

use rustix::fd::OwnedFd;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit};

/// Programs index arrays by descriptors, and size them by the number of connections that they are
/// going to have; `select(2)` ends at this number.
const FIRST: u64 = 1024;

/// Gives a descriptor a high number, which no program counts on, so that the program's own get the
/// low ones that they would have without us. It stays where it is if there is no room.
pub(crate) fn aside(descriptor: OwnedFd) -> OwnedFd {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let first = FIRST.min(limit / 2) as i32;
    fcntl_dupfd_cloexec(&descriptor, first).unwrap_or(descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use std::os::fd::AsRawFd;

    #[test]
    fn the_low_number_is_free_again() {
        let low = eventfd(0, EventfdFlags::empty()).unwrap();
        let number = low.as_raw_fd();
        let high = aside(low);
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(high.as_raw_fd() as u64 >= FIRST.min(limit / 2));
        assert!(high.as_raw_fd() > number);
        assert!(rustix::io::fcntl_getfd(&high).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }
}
