//! Sending and receiving.

use super::{Socket, State, Stream, deadline};
use crate::blocking::{patiently, signals_restart, waiting};
use crate::error::{Errno, Result, errno};
use fourwave::Patience;
use std::io::{IoSlice, IoSliceMut};
use std::time::Instant;

/// More than this at once is not moved: Linux's `MAX_RW_COUNT`.
const MOST: usize = 0x7fff_f000;

/// Bytes thrown away at once.
const WASTE: usize = 16 * 1024;

/// Flags of sending that would change what is sent. As in Linux others are ignored, if they are not
/// obeyed.
const SEND_REFUSED: i32 = libc::MSG_OOB | libc::MSG_FASTOPEN;

/// What `recvmsg` gives back; a TCP socket has no ancillary data and no address to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes; 0 is the end of the stream.
    pub bytes: usize,
    /// `msg_flags`.
    pub flags: i32,
}

impl Socket {
    fn stream(&self) -> Option<impl std::ops::Deref<Target = std::sync::Arc<State>>> {
        let state = self.state.load();
        matches!(**state, State::Stream(_)).then_some(state)
    }

    /// `recvmsg(2)`, and with it `recv`, `readv` and `read`.
    ///
    /// `MSG_TRUNC` throws bytes away instead of storing them, as for Linux's TCP.
    ///
    /// # Errors
    /// `ENOTCONN` without a connection; `EINVAL` for `MSG_OOB`, which has no data here, since
    /// urgent data is received in line; `EAGAIN`; `EINTR`; `ECONNRESET` and what else ends a
    /// connection; `ENETDOWN` when the daemon is gone.
    pub fn receive(&self, bufs: &mut [IoSliceMut<'_>], flags: i32) -> Result<Received> {
        let state = self.stream().ok_or(Errno::NOTCONN)?;
        let State::Stream(stream) = &**state else { return Err(Errno::NOTCONN) };
        if flags & libc::MSG_ERRQUEUE != 0 {
            return Err(Errno::AGAIN);
        }
        if flags & libc::MSG_OOB != 0 {
            return Err(Errno::INVAL);
        }
        let bytes = if flags & libc::MSG_WAITALL != 0 {
            self.receive_all(stream, bufs, flags)?
        } else {
            let deadline = deadline(&self.receive_timeout);
            self.receive_some(stream, bufs, flags, (deadline, deadline.is_none()))?
        };
        Ok(Received { bytes, flags: 0 })
    }

    /// As `recv(2)` with one buffer.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn recv(&self, buf: &mut [u8], flags: i32) -> Result<usize> {
        self.receive(&mut [IoSliceMut::new(buf)], flags).map(|received| received.bytes)
    }

    fn receive_some(
        &self,
        stream: &Stream,
        bufs: &mut [IoSliceMut<'_>],
        flags: i32,
        wait: (Option<Instant>, bool),
    ) -> Result<usize> {
        let nonblocking = self.is_nonblocking() || flags & libc::MSG_DONTWAIT != 0;
        let peek = flags & libc::MSG_PEEK != 0;
        if flags & libc::MSG_TRUNC != 0 && !peek {
            let room = bufs.iter().map(|buf| buf.len()).sum::<usize>().min(WASTE);
            let mut waste = vec![0; room];
            return waiting(nonblocking, wait, |patience| {
                stream.stream.recv_with(&mut [IoSliceMut::new(&mut waste)], false, patience)
            });
        }
        waiting(nonblocking, wait, |patience| stream.stream.recv_with(bufs, peek, patience))
    }

    /// `MSG_WAITALL`: until the buffers are full, or the stream has ended, or a signal or an error
    /// came.
    fn receive_all(
        &self,
        stream: &Stream,
        bufs: &mut [IoSliceMut<'_>],
        flags: i32,
    ) -> Result<usize> {
        let deadline = deadline(&self.receive_timeout);
        let wanted: usize = bufs.iter().map(|buf| buf.len()).sum();
        if flags & libc::MSG_PEEK != 0 {
            return self.peek_all(stream, bufs, flags, deadline);
        }
        let mut rest: &mut [IoSliceMut<'_>] = bufs;
        let mut done = 0;
        while done < wanted {
            // As in Linux: once there is something, any signal ends it.
            let restarts = done == 0 && deadline.is_none();
            match self.receive_some(stream, rest, flags, (deadline, restarts)) {
                Ok(0) => break,
                Ok(count) => {
                    done += count;
                    IoSliceMut::advance_slices(&mut rest, count);
                }
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    /// `MSG_WAITALL` with `MSG_PEEK`.
    fn peek_all(
        &self,
        stream: &Stream,
        bufs: &mut [IoSliceMut<'_>],
        flags: i32,
        deadline: Option<Instant>,
    ) -> Result<usize> {
        let nonblocking = self.is_nonblocking() || flags & libc::MSG_DONTWAIT != 0;
        let all = patiently(nonblocking, deadline, |patience| {
            stream.stream.peek_all_with(bufs, patience)
        });
        match all {
            // Cut short: what is there, if there is anything.
            Err(why @ (Errno::AGAIN | Errno::INTR)) => {
                let some =
                    self.receive_some(stream, bufs, flags | libc::MSG_DONTWAIT, (None, false));
                some.map_err(|errno| if errno == Errno::AGAIN { why } else { errno })
            }
            all => all,
        }
    }

    /// `sendmsg(2)` without ancillary data, and with it `send`, `writev` and `write`. The caller
    /// raises `SIGPIPE` for `EPIPE` unless `MSG_NOSIGNAL` is there.
    ///
    /// # Errors
    /// `EPIPE` without a connection and after its end; `EOPNOTSUPP` for `MSG_OOB` and
    /// `MSG_FASTOPEN`; `EAGAIN`; `EINTR`; `ECONNRESET` and what else ends a connection; `ENETDOWN`
    /// when the daemon is gone.
    pub fn send(&self, bufs: &[IoSlice<'_>], flags: i32) -> Result<usize> {
        let state = self.stream().ok_or(Errno::PIPE)?;
        let State::Stream(stream) = &**state else { return Err(Errno::PIPE) };
        if flags & SEND_REFUSED != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        let total: usize = bufs.iter().map(|buf| buf.len()).fold(0, usize::saturating_add);
        if total > MOST {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &buf[..]);
            return self.send(&[IoSlice::new(&first[..first.len().min(MOST)])], flags);
        }
        if self.is_nonblocking() || flags & libc::MSG_DONTWAIT != 0 {
            return stream.stream.send_with(bufs, Patience::NONE).map_err(errno);
        }
        let deadline = deadline(&self.send_timeout);
        let done = patiently(false, deadline, |patience| stream.stream.send_with(bufs, patience))?;
        if done == total { Ok(total) } else { Ok(done + send_rest(stream, bufs, done, deadline)) }
    }

    /// `SIOCOUTQ`: bytes that were written and are not acknowledged.
    ///
    /// # Errors
    /// `EINVAL` on a listener, `ENETDOWN` when the daemon is gone.
    pub fn unacknowledged(&self) -> Result<usize> {
        match &**self.state.load() {
            State::Stream(stream) => stream.stream.unacknowledged().map_err(errno),
            State::Listening(_) => Err(Errno::INVAL),
            State::Fresh | State::Kernel | State::Bound(_) => Ok(0),
        }
    }

    /// `SIOCOUTQNSD`: those of them that were not sent.
    ///
    /// # Errors
    /// As [`unacknowledged`](Self::unacknowledged).
    pub fn unsent(&self) -> Result<usize> {
        match &**self.state.load() {
            State::Stream(stream) => {
                let info = stream.stream.tcp_info().map_err(errno)?;
                Ok(usize::try_from(info.notsent_bytes).unwrap_or(usize::MAX))
            }
            State::Listening(_) => Err(Errno::INVAL),
            State::Fresh | State::Kernel | State::Bound(_) => Ok(0),
        }
    }

    /// `FIONREAD`.
    ///
    /// # Errors
    /// `EINVAL` on a listener, `ENETDOWN` when the daemon is gone.
    pub fn unread(&self) -> Result<usize> {
        match &**self.state.load() {
            State::Stream(stream) => stream.stream.unread().map_err(errno),
            State::Listening(_) => Err(Errno::INVAL),
            State::Fresh | State::Kernel | State::Bound(_) => Ok(0),
        }
    }
}

/// A blocking call was cut short after `done` bytes: by its deadline, by an error, which the next
/// call tells, or by a signal, after which it goes on where that is wanted.
fn send_rest(
    stream: &Stream,
    bufs: &[IoSlice<'_>],
    done: usize,
    deadline: Option<Instant>,
) -> usize {
    let mut bufs = bufs.to_vec();
    let mut rest = &mut bufs[..];
    IoSlice::advance_slices(&mut rest, done);
    let mut more = 0;
    while !rest.is_empty() && deadline.is_none() && signals_restart() {
        let sent = patiently(false, deadline, |patience| stream.stream.send_with(rest, patience));
        let Ok(count @ 1..) = sent else { break };
        more += count;
        IoSlice::advance_slices(&mut rest, count);
    }
    more
}
