//! A doorbell between threads of the daemon: an eventfd and a sleep flag.
//!
//! Both ends are ours, so an eventfd is safe here, as it is not between daemon and client.

use fourwave_protocol::wake::Sleeper;
use rustix::event::EventfdFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io;

#[derive(Debug)]
pub(super) struct Bell {
    sleeper: Sleeper,
    fd: OwnedFd,
}

impl Bell {
    pub(super) fn new() -> io::Result<Bell> {
        let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Bell { sleeper: Sleeper::new(), fd })
    }

    /// Announces sleep; look for work once more before sleeping.
    pub(super) fn prepare(&self) {
        self.sleeper.prepare();
    }

    /// Takes [`prepare`](Self::prepare) back.
    pub(super) fn awake(&self) {
        self.sleeper.awake();
    }

    /// After work was published: wakes the other side if it sleeps.
    pub(super) fn ring(&self) {
        if self.sleeper.must_ring() {
            self.ring_always();
        }
    }

    /// After work was published for a side that does not announce its sleep.
    pub(super) fn ring_always(&self) {
        // Fails only when 2⁶⁴ - 2 rings wait: then it is readable, which is all we want.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable until the next ring.
    pub(super) fn clear(&self) {
        let _ = rustix::io::read(&self.fd, &mut [0u8; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
