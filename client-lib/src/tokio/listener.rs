//! The asynchronous `TcpListener`.

use super::ToSocketAddrs;
use super::reactor::{Direction, Registration};
use super::stream::TcpStream;
use crate::options::SocketOptions;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

/// A socket that accepts connections, like `tokio::net::TcpListener`.
///
/// Any number of tasks may accept on it at once, through references.
pub struct TcpListener {
    /// Before the registration: it leaves the poller when it is dropped.
    listener: crate::TcpListener,
    registration: Registration,
}

impl TcpListener {
    /// Listens on the first of the addresses that can be had, with a backlog of 4096.
    ///
    /// # Errors
    /// As [`crate::TcpListener::bind`], and outside of a tokio runtime.
    pub async fn bind<A: ToSocketAddrs>(addresses: A) -> io::Result<TcpListener> {
        let addresses: Vec<SocketAddr> = ::tokio::net::lookup_host(addresses).await?.collect();
        TcpListener::from_std(SocketOptions::new().bind(&addresses[..])?)
    }

    /// Takes a listener into the tokio runtime of the calling task; it becomes non-blocking.
    /// [`SocketOptions`] makes listeners with other options than the default ones.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone, `ENOBUFS` without a lane, and outside of a tokio
    /// runtime.
    pub fn from_std(listener: crate::TcpListener) -> io::Result<TcpListener> {
        listener.set_nonblocking(true)?;
        let registration = Registration::new(listener.shared(), &listener)?;
        Ok(TcpListener { listener, registration })
    }

    /// The connection that has waited the longest.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let accepted = self.registration.perform(Direction::Read, || self.listener.accept()).await;
        let (stream, peer) = accepted?;
        Ok((TcpStream::from_std(stream)?, peer))
    }

    /// As [`accept`](Self::accept), for hand-written futures.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn poll_accept(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let polled = self.registration.poll(context, Direction::Read, || self.listener.accept());
        polled.map(|accepted| {
            let (stream, peer) = accepted?;
            Ok((TcpStream::from_std(stream)?, peer))
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// `IP_TTL`, see [`crate::TcpListener::set_ttl`].
    ///
    /// # Errors
    /// As [`crate::TcpListener::set_ttl`].
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.listener.set_ttl(ttl)
    }

    /// See [`set_ttl`](Self::set_ttl).
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn ttl(&self) -> io::Result<u32> {
        self.listener.ttl()
    }

    /// Takes the listener out of the tokio runtime. It stays non-blocking.
    ///
    /// # Errors
    /// None.
    pub fn into_std(self) -> io::Result<crate::TcpListener> {
        let TcpListener { listener, registration } = self;
        registration.release(&listener)?;
        Ok(listener)
    }

    /// The listener itself, for its options.
    pub fn get_ref(&self) -> &crate::TcpListener {
        &self.listener
    }
}

/// As [`TcpListener::from_std`].
impl TryFrom<crate::TcpListener> for TcpListener {
    type Error = io::Error;

    fn try_from(listener: crate::TcpListener) -> io::Result<TcpListener> {
        TcpListener::from_std(listener)
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.listener.fmt(f)
    }
}
