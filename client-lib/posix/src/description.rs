//! Open descriptions: what descriptor numbers stand for.

use crate::epoll::Epoll;
use crate::error::{Errno, Result};
use crate::socket::Socket;
use arc_swap::Guard;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// What one number, or several after `dup` and `fork`, stand for. Closed with the last of them.
#[derive(Debug)]
pub enum Description {
    /// A socket.
    Socket(Socket),
    /// A kernel epoll instance that watches sockets of ours too.
    Epoll(Epoll),
}

impl Description {
    /// The socket.
    ///
    /// # Errors
    /// `ENOTSOCK` for an epoll instance.
    pub fn socket(&self) -> Result<&Socket> {
        match self {
            Description::Socket(socket) => Ok(socket),
            Description::Epoll(_) => Err(Errno::NOTSOCK),
        }
    }

    /// The socket, if it is one that is served here: bound, listening or connected by fourwave.
    /// Anything else is for the kernel to answer, who knows the same number.
    pub fn served(&self) -> Option<&Socket> {
        match self {
            Description::Socket(socket) => socket.is_served().then_some(socket),
            Description::Epoll(_) => None,
        }
    }

    /// The epoll instance.
    pub fn epoll(&self) -> Option<&Epoll> {
        match self {
            Description::Epoll(epoll) => Some(epoll),
            Description::Socket(_) => None,
        }
    }
}

/// A description that was found; lives as long as this does.
pub struct Found(Guard<Option<Arc<Description>>>);

impl Found {
    pub(crate) fn new(guard: Guard<Option<Arc<Description>>>) -> Option<Found> {
        guard.is_some().then_some(Found(guard))
    }

    /// A share of it.
    pub(crate) fn to_arc(&self) -> Arc<Description> {
        Arc::clone(self.arc())
    }

    pub(crate) fn arc(&self) -> &Arc<Description> {
        self.0.as_ref().expect("checked when it was found")
    }
}

impl Deref for Found {
    type Target = Description;

    fn deref(&self) -> &Description {
        self.arc()
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
