//! What can be given to a poller.

use super::Poller;
use super::event::{Interest, Trigger};
use std::io;

/// A [`TcpListener`](crate::TcpListener) or [`TcpStream`](crate::TcpStream). Sealed.
pub trait Source: sealed::Source {}

/// How a source is given to a poller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It is not there yet.
    New,
    /// It is there.
    Change,
    /// It may be there, under other keys.
    Beside,
}

pub(crate) mod sealed {
    use super::{Entry, Interest, Poller, Trigger, io};

    pub trait Source {
        /// Enters the poller or changes what it looks for.
        fn enter(
            &self,
            poller: &Poller,
            key: usize,
            wanted: (Interest, Trigger),
            entry: Entry,
        ) -> io::Result<()>;

        /// Leaves the poller: what is watched under this key, or all.
        fn leave(&self, poller: &Poller, key: Option<usize>) -> io::Result<()>;
    }
}
