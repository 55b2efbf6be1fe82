//! What can be given to a poller.

use super::Poller;
use super::event::{Interest, Trigger};
use std::io;

/// A [`TcpListener`](crate::TcpListener) or [`TcpStream`](crate::TcpStream). Sealed.
pub trait Source: sealed::Source {}

pub(crate) mod sealed {
    use super::{Interest, Poller, Trigger, io};

    pub trait Source {
        /// Enters the poller (`new`) or changes what it looks for.
        fn enter(
            &self,
            poller: &Poller,
            key: usize,
            interest: Interest,
            trigger: Trigger,
            new: bool,
        ) -> io::Result<()>;

        /// Leaves the poller.
        fn leave(&self, poller: &Poller) -> io::Result<()>;
    }
}
