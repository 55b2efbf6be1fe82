//! The asynchronous `TcpStream`.

use super::ToSocketAddrs;
use super::reactor::{Direction, Registration};
use super::split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf, split, split_borrowed};
use crate::options::SocketOptions;
use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A connection, like `tokio::net::TcpStream`.
pub struct TcpStream {
    /// Before the registration: it leaves the poller when it is dropped.
    pub(super) stream: crate::TcpStream,
    pub(super) registration: Registration,
}

impl TcpStream {
    /// Connects to the first of the addresses that answers.
    ///
    /// # Errors
    /// As [`crate::TcpStream::connect`], and outside of a tokio runtime.
    pub async fn connect<A: ToSocketAddrs>(addresses: A) -> io::Result<TcpStream> {
        let mut last = None;
        for address in ::tokio::net::lookup_host(addresses).await? {
            match TcpStream::connect_with(&SocketOptions::new(), address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "could not resolve to any addresses")
        }))
    }

    /// Connects to one address, with these options.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_with(
        options: &SocketOptions,
        address: SocketAddr,
    ) -> io::Result<TcpStream> {
        let stream = TcpStream::from_std(options.clone().nonblocking(true).connect(address)?)?;
        let opened = || match stream.stream.take_error()? {
            Some(error) => Err(error),
            None => match stream.stream.peer_addr() {
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                    Err(io::ErrorKind::WouldBlock.into())
                }
                other => other.map(drop),
            },
        };
        stream.registration.perform(Direction::Write, opened).await?;
        Ok(stream)
    }

    /// Takes a connection into the tokio runtime of the calling task; it becomes non-blocking.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone, `ENOBUFS` without a lane, `EEXIST` when it is in a
    /// poller, and outside of a tokio runtime.
    pub fn from_std(stream: crate::TcpStream) -> io::Result<TcpStream> {
        stream.set_nonblocking(true)?;
        let registration = Registration::new(stream.shared(), &stream)?;
        Ok(TcpStream { stream, registration })
    }

    /// Bytes that can be read, without taking them.
    ///
    /// # Errors
    /// As [`crate::TcpStream::peek`].
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.registration.perform(Direction::Read, || self.stream.peek(buffer)).await
    }

    /// The peer's address.
    ///
    /// # Errors
    /// As [`crate::TcpStream::peer_addr`].
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Our address.
    ///
    /// # Errors
    /// As [`crate::TcpStream::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// `TCP_NODELAY`.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.stream.set_nodelay(nodelay)
    }

    /// `TCP_QUICKACK`, see [`crate::TcpStream::set_quickack`].
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        self.stream.set_quickack(quickack)
    }

    /// See [`set_quickack`](Self::set_quickack).
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn quickack(&self) -> io::Result<bool> {
        self.stream.quickack()
    }

    /// See [`set_nodelay`](Self::set_nodelay).
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.stream.nodelay()
    }

    /// `SO_LINGER`, see [`crate::TcpStream::set_linger`]: with a time, dropping the stream blocks.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        self.stream.set_linger(linger)
    }

    /// See [`set_linger`](Self::set_linger).
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.stream.linger()
    }

    /// `SO_ERROR`, see [`crate::TcpStream::take_error`].
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.stream.take_error()
    }

    /// `IP_TTL`, see [`crate::TcpStream::set_ttl`].
    ///
    /// # Errors
    /// As [`crate::TcpStream::set_ttl`].
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.stream.set_ttl(ttl)
    }

    /// See [`set_ttl`](Self::set_ttl).
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn ttl(&self) -> io::Result<u32> {
        self.stream.ttl()
    }

    /// Takes the connection out of the tokio runtime. It stays non-blocking.
    ///
    /// # Errors
    /// None.
    pub fn into_std(self) -> io::Result<crate::TcpStream> {
        let TcpStream { stream, registration } = self;
        registration.release(&stream)?;
        Ok(stream)
    }

    /// The connection itself, for its options.
    pub fn get_ref(&self) -> &crate::TcpStream {
        &self.stream
    }

    /// The two directions, for one task. Dropping them leaves the stream as it is.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        split_borrowed(self)
    }

    /// The two directions, for tasks of their own. Dropping the writing half sends a FIN.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        split(self)
    }

    pub(super) fn poll_read_into(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.initialize_unfilled();
        let attempt = || (&self.stream).read(room);
        self.registration
            .poll(context, Direction::Read, attempt)
            .map_ok(|count| buffer.advance(count))
    }

    pub(super) fn poll_write_from(
        &self,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let attempt = || (&self.stream).write_vectored(bytes);
        self.registration.poll(context, Direction::Write, attempt)
    }

    pub(super) fn shut_write(&self) -> io::Result<()> {
        match self.stream.shutdown(Shutdown::Write) {
            // The peer was faster: it is closed all the same.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }
}

/// As [`TcpStream::from_std`].
impl TryFrom<crate::TcpStream> for TcpStream {
    type Error = io::Error;

    fn try_from(stream: crate::TcpStream) -> io::Result<TcpStream> {
        TcpStream::from_std(stream)
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_read_into(context, buffer)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_from(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_from(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is kept back.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A FIN follows what was written.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shut_write())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}
