//! Waiting until a stream is ready, apart from doing something with it.
//!
//! What a stream is ready for lies in memory, so that it is looked at anew each time, and nothing
//! has to be remembered of what tokio's reactor said last: there is no readiness that is only
//! believed.

use super::reactor::Direction;
use super::stream::TcpStream;
use ::tokio::io::{Interest, ReadBuf, Ready};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::task::{Context, Poll};

/// Which events can make it ready.
fn directions(interest: Interest) -> &'static [Direction] {
    match (interest.is_readable(), interest.is_writable()) {
        (true, false) => &[Direction::Read],
        (false, true) => &[Direction::Write],
        // Failures are told to both.
        (true, true) | (false, false) => &[Direction::Read, Direction::Write],
    }
}

impl TcpStream {
    /// Waits until it is ready for any part of `interest`, and says for what: for reading also when
    /// the stream has ended, and for both when the connection has failed.
    ///
    /// Cancellation-safe: nothing is taken.
    ///
    /// ```no_run
    /// use fourwave::tokio::TcpStream;
    /// use std::io::{ErrorKind, Result};
    /// use tokio::io::Interest;
    ///
    /// /// Sends what is there back, as far as there is room for it, from one task.
    /// async fn echo(stream: TcpStream) -> Result<()> {
    ///     let (mut buffer, mut start, mut end) = ([0; 4096], 0, 0);
    ///     loop {
    ///         let interest = if start == end { Interest::READABLE } else { Interest::WRITABLE };
    ///         stream.ready(interest).await?;
    ///         let done = match start == end {
    ///             true => stream.try_read(&mut buffer),
    ///             false => stream.try_write(&buffer[start..end]),
    ///         };
    ///         match done {
    ///             Ok(0) => return Ok(()),
    ///             Ok(count) if start == end => (start, end) = (0, count),
    ///             Ok(count) => start += count,
    ///             // Another task was faster.
    ///             Err(error) if error.kind() == ErrorKind::WouldBlock => {}
    ///             Err(error) => return Err(error),
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        self.registration.perform_any(directions(interest), || self.ready_now(interest)).await
    }

    /// Waits until [`try_read`](Self::try_read) has something: bytes, the end or an error. Another
    /// task may take it before.
    ///
    /// Cancellation-safe: nothing is taken.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub async fn readable(&self) -> io::Result<()> {
        self.ready(Interest::READABLE).await.map(drop)
    }

    /// Waits until [`try_write`](Self::try_write) takes a byte at least, or has an error.
    ///
    /// Cancellation-safe: nothing is taken.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub async fn writable(&self) -> io::Result<()> {
        self.ready(Interest::WRITABLE).await.map(drop)
    }

    /// As [`readable`](Self::readable), for hand-written futures.
    ///
    /// # Errors
    /// As [`readable`](Self::readable).
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_ready(context, Interest::READABLE)
    }

    /// As [`writable`](Self::writable), for hand-written futures.
    ///
    /// # Errors
    /// As [`writable`](Self::writable).
    pub fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_ready(context, Interest::WRITABLE)
    }

    fn poll_ready(&self, context: &mut Context<'_>, interest: Interest) -> Poll<io::Result<()>> {
        let attempt = || self.ready_now(interest).map(drop);
        self.registration.poll_any(context, directions(interest), attempt)
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is; otherwise as reading.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.stream).read(buffer)
    }

    /// As [`try_read`](Self::try_read), into several buffers.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    pub fn try_read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&self.stream).read_vectored(buffers)
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; otherwise as writing.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.stream).write(bytes)
    }

    /// As [`try_write`](Self::try_write), from several buffers.
    ///
    /// # Errors
    /// As [`try_write`](Self::try_write).
    pub fn try_write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.stream).write_vectored(buffers)
    }

    /// Calls `operation`, which is to do something with [the stream itself](Self::get_ref), if the
    /// stream is ready for it.
    ///
    /// # Errors
    /// `WouldBlock` if it is not; otherwise those of `operation`.
    pub fn try_io<R>(
        &self,
        interest: Interest,
        operation: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        self.ready_now(interest)?;
        operation()
    }

    /// Calls `operation` when the stream is ready for it, and again after each `WouldBlock`.
    ///
    /// As cancellation-safe as `operation` is: between two calls nothing is held.
    ///
    /// # Errors
    /// Those of `operation`; `ENETDOWN` when the daemon is gone.
    pub async fn async_io<R>(
        &self,
        interest: Interest,
        mut operation: impl FnMut() -> io::Result<R>,
    ) -> io::Result<R> {
        let attempt = || {
            self.ready_now(interest)?;
            operation()
        };
        self.registration.perform_any(directions(interest), attempt).await
    }

    /// As [`peek`](Self::peek), for hand-written futures.
    ///
    /// # Errors
    /// As [`peek`](Self::peek).
    pub fn poll_peek(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let room = buffer.initialize_unfilled();
        let attempt = || self.stream.peek(room);
        self.registration.poll(context, Direction::Read, attempt).map_ok(|count| {
            buffer.advance(count);
            count
        })
    }

    /// What it is ready for, of `interest`; `WouldBlock` if that is nothing.
    fn ready_now(&self, interest: Interest) -> io::Result<Ready> {
        let readiness = if interest.is_writable() {
            self.stream.writability()?
        } else {
            self.stream.readiness()?
        };
        let wanted = |asked, is, ready| if asked && is { ready } else { Ready::EMPTY };
        let ready = wanted(interest.is_readable(), readiness.is_readable(), Ready::READABLE)
            | wanted(interest.is_readable(), readiness.is_read_closed(), Ready::READ_CLOSED)
            | wanted(interest.is_writable(), readiness.is_writable(), Ready::WRITABLE)
            | wanted(interest.is_writable(), readiness.is_closed(), Ready::WRITE_CLOSED)
            | wanted(interest.is_error(), readiness.is_error(), Ready::ERROR);
        if ready.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(ready) }
    }
}
