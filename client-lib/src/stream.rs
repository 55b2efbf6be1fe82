//! `TcpStream`.

use crate::choices::{
    TcpKeepalive, buffer_value, check, congestion_name, congestion_value, linger_time,
    linger_value, option_methods, timeout_value,
};
use crate::connection::Connection;
use crate::error::os;
use crate::halves::{OwnedReadHalf, OwnedWriteHalf, split};
use crate::options::SocketOptions;
use crate::patience::Patience;
use crate::poller::{Entry, Interest, Poller, Readiness, Source, Trigger, sealed};
use crate::read::Mode;
use crate::runtime::Shared;
use crate::sockopt::{self, Name};
use crate::tcp_info::TcpInfo;
use fourwave_protocol::option::ConnOption;
use rustix::io::Errno;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A connection, like `std::net::TcpStream`.
///
/// `&TcpStream` reads and writes too, so two threads can use the two directions. Closed when its
/// last clone is dropped: what was written is still sent, then a FIN; a reset if bytes were
/// received that nobody read, as in Linux. Reading and writing make no system call while both
/// sides are busy.
pub struct TcpStream {
    connection: Arc<Connection>,
}

/// As std's: no call leaves it half changed, whatever panics around it.
impl UnwindSafe for TcpStream {}
impl RefUnwindSafe for TcpStream {}

impl TcpStream {
    /// Connects through the process's default daemon; of several addresses to the first that
    /// answers.
    ///
    /// # Errors
    /// `ECONNREFUSED`, `ETIMEDOUT`, `EHOSTUNREACH`, `ENETUNREACH`, `EADDRNOTAVAIL`; `ENETDOWN`
    /// without a daemon.
    pub fn connect<A: ToSocketAddrs>(address: A) -> io::Result<TcpStream> {
        SocketOptions::new().connect(address)
    }

    /// Connects to one address, or gives up after `timeout`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), `ETIMEDOUT` when the time is over, `InvalidInput` for a
    /// timeout of zero.
    pub fn connect_timeout(address: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        SocketOptions::new().connect_timeout(address, timeout)
    }

    pub(crate) fn new(connection: Connection) -> TcpStream {
        TcpStream { connection: Arc::new(connection) }
    }

    pub(crate) fn open(
        shared: &Arc<Shared>,
        peer: SocketAddr,
        options: &SocketOptions,
        deadline: Option<Instant>,
    ) -> io::Result<TcpStream> {
        let connection = Connection::open(shared, peer, &options.choices, deadline)?;
        connection.nonblocking.store(options.nonblocking, Ordering::Relaxed);
        if !options.nonblocking {
            connection.finish_opening(Patience::until(deadline))?;
        }
        Ok(TcpStream::new(connection))
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.connection.shared
    }

    /// The peer's address.
    ///
    /// # Errors
    /// `ENOTCONN` while a non-blocking connect is not done, after a reset or timeout, and when both
    /// sides have closed.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.connection.peer()
    }

    /// Our address.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.connection.local()
    }

    /// Ends one direction or both. `Write` sends a FIN after what was written. `Read` only
    /// makes this side's reads end, as in Linux.
    ///
    /// # Errors
    /// `ENOTCONN` if the connection is not made yet, or has failed.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.connection.shutdown(how)
    }

    /// Another handle to the same connection.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        self.connection.shared.check()?;
        Ok(TcpStream { connection: Arc::clone(&self.connection) })
    }

    /// The two directions, each for an owner of its own. Dropping the writing half sends a FIN.
    ///
    /// Not in std, where clones serve; those keep both directions open until the last is dropped.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        split(self)
    }

    /// Reads without taking the bytes away.
    ///
    /// # Errors
    /// As reading.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.connection.receive(&mut [IoSliceMut::new(buf)], Mode::Peek)
    }

    /// `recvmsg(2)`, without ancillary data: as reading, but waits as `patience` says, whatever
    /// the stream is set to.
    ///
    /// # Errors
    /// `EAGAIN` when patience ends, `EINTR` if it allows that; otherwise as reading.
    pub fn recv_with(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        peek: bool,
        patience: Patience,
    ) -> io::Result<usize> {
        let mode = if peek { Mode::Peek } else { Mode::Take };
        self.connection.receive_with(bufs, mode, patience)
    }

    /// `recvmsg(2)` with `MSG_PEEK` and `MSG_WAITALL`: waits until the buffers can be filled, or the
    /// stream has ended, and leaves the bytes there. 32 KiB are waited for at the most.
    ///
    /// # Errors
    /// `EAGAIN` when patience ends, `EINTR` if it allows that, though there may be some bytes;
    /// otherwise as reading.
    pub fn peek_all_with(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        patience: Patience,
    ) -> io::Result<usize> {
        self.connection.receive_with(bufs, Mode::PeekAll, patience)
    }

    /// `sendmsg(2)`: as writing, but waits as `patience` says. What was written before patience
    /// ended or a signal came is the result, if it is anything.
    ///
    /// # Errors
    /// `EAGAIN` when patience ends, `EINTR` if it allows that; otherwise as writing.
    pub fn send_with(&self, bufs: &[IoSlice<'_>], patience: Patience) -> io::Result<usize> {
        self.connection.send_with(bufs, || patience)
    }

    /// Waits until a connect that was begun [non-blocking](SocketOptions::nonblocking) is done.
    ///
    /// # Errors
    /// Why there is no connection, told once as by [`take_error`](Self::take_error)
    /// (`ECONNABORTED` afterwards); `ETIMEDOUT` when patience ends, `EINTR` if it allows that.
    pub fn connected_with(&self, patience: Patience) -> io::Result<()> {
        self.connection.finish_opening(patience)
    }

    /// What it is ready for now.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn readiness(&self) -> io::Result<Readiness> {
        self.connection.readiness()
    }

    /// The same; if it cannot be written, pollers that watch for that hear when it can, although
    /// no write has failed.
    #[cfg(feature = "tokio")]
    pub(crate) fn writability(&self) -> io::Result<Readiness> {
        self.connection.writability()
    }

    /// `FIONREAD`: how many received bytes wait to be read.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn unread(&self) -> io::Result<usize> {
        self.connection.unread()
    }

    /// `SIOCOUTQ`: how many bytes were written and are not acknowledged by the peer. What of them was
    /// not sent yet, `SIOCOUTQNSD`, is in [`tcp_info`](Self::tcp_info).
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn unacknowledged(&self) -> io::Result<usize> {
        self.connection.unacknowledged()
    }

    /// Whether operations wait; for all clones.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.connection.shared.check()?;
        self.connection.nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    fn set_option(&self, option: ConnOption, value: u32) -> io::Result<()> {
        self.connection.set_option(option, value)
    }

    fn option(&self, option: ConnOption) -> io::Result<u32> {
        Ok(self.connection.report()?.options[option.index()])
    }

    /// `TCP_QUICKACK`: acknowledge at once for a while, or not. As in Linux it does not last.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        self.set_option(ConnOption::QuickAck, quickack.into())
    }

    /// See [`set_quickack`](Self::set_quickack).
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn quickack(&self) -> io::Result<bool> {
        Ok(self.option(ConnOption::QuickAck)? != 0)
    }

    /// `TCP_INFO`.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn tcp_info(&self) -> io::Result<TcpInfo> {
        let report = self.connection.report()?;
        Ok(TcpInfo::new(report.is_live, &report.info))
    }

    /// `setsockopt(2)` with Linux's numbers and layouts; [`socket_options`](crate::socket_options) has the table.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for what is not offered, `EINVAL` for a value that Linux does not take either.
    pub fn setsockopt(&self, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
        sockopt::set(self, level, name, value)
    }

    /// `getsockopt(2)` with Linux's numbers and layouts: writes as much of the value as fits into
    /// `value`, and returns how much that is.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for what is not offered.
    pub fn getsockopt(&self, level: i32, name: i32, value: &mut [u8]) -> io::Result<usize> {
        sockopt::get(self, level, name, value)
    }

    /// How long a read may wait before it gives `EAGAIN` (`WouldBlock`); `None`: for ever.
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.connection.read.set_timeout(timeout)
    }

    /// See [`set_read_timeout`](Self::set_read_timeout).
    ///
    /// # Errors
    /// None.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.connection.read.timeout())
    }

    /// How long a write may wait before it gives `EAGAIN` (`WouldBlock`); `None`: for ever.
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.connection.write.set_timeout(timeout)
    }

    /// See [`set_write_timeout`](Self::set_write_timeout).
    ///
    /// # Errors
    /// None.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.connection.write.timeout())
    }

    /// `SO_ERROR`: why the connection failed or could not be made. Told once, here or by the
    /// read or write that finds it first.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        let state = self.connection.status()?;
        Ok(self.connection.take_failure(state))
    }
}

option_methods!(TcpStream);

impl sockopt::Socket for TcpStream {
    fn set(&self, option: ConnOption, value: u32) -> io::Result<()> {
        self.set_option(option, value)
    }

    fn get(&self, option: ConnOption) -> io::Result<u32> {
        self.option(option)
    }

    fn set_own(&self, name: Name, timeout: Option<Duration>) -> io::Result<()> {
        match name {
            Name::ReadTimeout => self.set_read_timeout(timeout),
            _ => self.set_write_timeout(timeout),
        }
    }

    fn get_own(&self, name: Name) -> io::Result<Vec<u8>> {
        Ok(match name {
            Name::ReadTimeout => sockopt::timeval_bytes(self.read_timeout()?),
            Name::WriteTimeout => sockopt::timeval_bytes(self.write_timeout()?),
            Name::Info => self.tcp_info()?.to_raw().to_vec(),
            Name::Error => {
                let error = self.take_error()?.and_then(|error| error.raw_os_error());
                // Numbers of errors are positive.
                sockopt::int_bytes(error.unwrap_or(0) as u32)
            }
            Name::Domain => sockopt::int_bytes(sockopt::domain(&self.local_addr()?)),
            _ => sockopt::int_bytes(0),
        })
    }

    fn has(&self, name: Name) -> bool {
        name != Name::DeferAccept
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = &self.connection.block().addresses;
        f.debug_struct("TcpStream")
            .field("addr", &addresses.local())
            .field("peer", &addresses.peer())
            .finish_non_exhaustive()
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.connection.receive(&mut [IoSliceMut::new(buf)], Mode::Take)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.connection.receive(bufs, Mode::Take)
    }
}

impl Write for &TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.connection.send(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.connection.send(bufs)
    }

    /// Nothing is kept back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl Write for TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for TcpStream {}

impl sealed::Source for TcpStream {
    fn enter(
        &self,
        poller: &Poller,
        key: usize,
        wanted: (Interest, Trigger),
        entry: Entry,
    ) -> io::Result<()> {
        let core = &poller.core;
        self.connection.shared.check()?;
        if !core.belongs_to(&self.connection.shared) {
            return Err(os(Errno::INVAL));
        }
        self.connection.watch(core, key, wanted, entry)
    }

    fn leave(&self, poller: &Poller, key: Option<usize>) -> io::Result<()> {
        match key {
            Some(key) => self.connection.unwatch_key(&poller.core, key),
            None => self.connection.unwatch(&poller.core),
        }
    }
}
