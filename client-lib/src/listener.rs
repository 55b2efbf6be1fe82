//! `TcpListener`.

use crate::choices::{
    TcpKeepalive, buffer_value, check, congestion_name, congestion_value, linger_time,
    linger_value, option_methods, timeout_value,
};
use crate::connection::Connection;
use crate::control::unexpected;
use crate::error::{os, would_block};
use crate::family::Family;
use crate::fork::{self, Mutex};
use crate::lane::Lane;
use crate::options::SocketOptions;
use crate::park::{Interest as Waiting, block_on};
use crate::patience::Patience;
use crate::poller::{Core, Entry, Interest, Poller, Readiness, Source, Trigger, sealed};
use crate::runtime::Shared;
use crate::sockopt::{self, Name};
use crate::stream::TcpStream;
use fourwave_protocol::accept;
use fourwave_protocol::control::{BindOptions, Reply, Request};
use fourwave_protocol::option::ConnOption;
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A socket that accepts connections, like `std::net::TcpListener`.
///
/// Any number of threads may accept on it, through `&TcpListener` or clones. Connections come
/// in the order in which they were complete, as near as the workers' clocks tell. Accepting one
/// that waits costs no system call.
///
/// Closed when its last clone is dropped. Connections that nobody has accepted by then go to
/// listeners that share its address ([`SocketOptions::reuse_port`]). Without any they wait a moment
/// (the daemon's `accept_grace`, 2 s) for the next listener of the same user and address, and the
/// port goes on answering meanwhile, so that a server can be restarted without its peers noticing;
/// then they are reset. The same holds when the process dies.
pub struct TcpListener {
    inner: Arc<Inner>,
}

/// As std's: no call leaves it half changed, whatever panics around it.
impl UnwindSafe for TcpListener {}
impl RefUnwindSafe for TcpListener {}

impl TcpListener {
    /// Listens on `address` with a backlog of 4096, through the process's default daemon. Port 0
    /// means any free port; of several addresses the first that can be had is taken.
    ///
    /// # Errors
    /// `EADDRINUSE` and `EACCES` with the daemon's explanation, `ENETDOWN` without a daemon.
    pub fn bind<A: ToSocketAddrs>(address: A) -> io::Result<TcpListener> {
        SocketOptions::new().bind(address)
    }

    pub(crate) fn open(
        shared: &Arc<Shared>,
        address: SocketAddr,
        options: &SocketOptions,
    ) -> io::Result<TcpListener> {
        let listener = TcpListener::reserve(shared, address, options)?;
        listener.set_backlog(options.backlog)?;
        Ok(listener)
    }

    /// Has the address, and does not listen yet.
    pub(crate) fn reserve(
        shared: &Arc<Shared>,
        address: SocketAddr,
        options: &SocketOptions,
    ) -> io::Result<TcpListener> {
        let choices = options.choices.checked()?;
        let family = Family::of(address);
        let bind = BindOptions {
            v6_only: options.v6_only,
            reuse_address: options.reuse_address,
            reuse_port: options.reuse_port,
        };
        let (index, address) = match shared.request(&Request::Bind { address, options: bind })? {
            (Reply::Bound { listener, address }, _) => (listener, family.show(address)),
            (other, _) => return Err(unexpected(&other)),
        };
        let inner = Inner {
            shared: Arc::clone(shared),
            index,
            epoch: fork::epoch(),
            address,
            family,
            defer_accept: AtomicU32::new(0),
            linger: AtomicU32::new(0),
            nonblocking: AtomicBool::new(options.nonblocking),
            stopped: AtomicBool::new(false),
            pollers: Mutex::new(Vec::new()),
        };
        // From here on, dropping it closes it.
        let listener = TcpListener { inner: Arc::new(inner) };
        if options.defer_accept.is_some() {
            listener.set_defer_accept(options.defer_accept)?;
        }
        for (option, value) in choices {
            listener.set_option(option, value)?;
        }
        Ok(listener)
    }

    /// Takes the connection that waits the longest; waits for one unless non-blocking.
    ///
    /// # Errors
    /// `EAGAIN` when non-blocking and none waits, `ENETDOWN` when the daemon is gone.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let nonblocking = self.inner.nonblocking.load(Ordering::Relaxed);
        self.accept_with(if nonblocking { Patience::NONE } else { Patience::FOREVER })
    }

    /// The same, but waits as `patience` says, whatever the listener is set to.
    ///
    /// # Errors
    /// `EAGAIN` when patience ends, `EINTR` if it allows that, `ENETDOWN` when the daemon is gone.
    pub fn accept_with(&self, patience: Patience) -> io::Result<(TcpStream, SocketAddr)> {
        let inner = &*self.inner;
        let shared = &inner.shared;
        shared.check()?;
        inner.check()?;
        let now = shared.with_lane(|lane| Ok(inner.take(lane)))?;
        let waiting = match (now, patience.limit()) {
            (Some(waiting), _) => waiting,
            (None, None) => {
                shared.probe()?;
                return Err(would_block());
            }
            (None, Some(limit)) => shared
                .with_own_lane(|lane| {
                    block_on(shared, lane, limit, inner, || {
                        shared.check()?;
                        inner.check()?;
                        Ok(inner.take_waiting(lane))
                    })
                })?
                .ok_or_else(would_block)?,
        };
        let linger = inner.linger.load(Ordering::Relaxed);
        let handle = waiting.handle;
        let connection = Connection::new(Arc::clone(shared), handle, inner.family, linger);
        let peer = inner.family.show(connection.block().addresses.peer());
        Ok((TcpStream::new(connection), peer))
    }

    /// Accepts no more, for all clones: threads that wait in [`accept`](Self::accept), and whoever
    /// tries, get `EINVAL`, as after `shutdown(2)`. The address is free, and what waits is dealt with
    /// as after the last clone's end, when that has come.
    pub fn stop(&self) {
        self.inner.stopped.store(true, Ordering::Relaxed);
        self.inner.shared.wake_all_lanes();
    }

    /// What it is ready for now: readable when a connection waits to be accepted.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn readiness(&self) -> io::Result<Readiness> {
        self.inner.shared.check()?;
        Ok(Readiness::of_listener(self.inner.has_waiting()))
    }

    /// Whether a connection waits to be accepted. Looks only, and fails where
    /// [`accept`](Self::accept) would.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone, `EINVAL` after [`stop`](Self::stop).
    pub fn has_waiting(&self) -> io::Result<bool> {
        let inner = &self.inner;
        inner.shared.check()?;
        inner.check()?;
        let waits = inner.has_waiting();
        if !waits {
            inner.shared.probe()?;
        }
        Ok(waits)
    }

    /// An endless iterator over accepted connections.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// As [`incoming`](Self::incoming), keeping the listener.
    pub fn into_incoming(self) -> IntoIncoming {
        IntoIncoming { listener: self }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// Where it listens, with the port that was chosen for port 0.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.shared.check()?;
        Ok(self.inner.address)
    }

    /// Another handle to the same listener.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn try_clone(&self) -> io::Result<TcpListener> {
        self.inner.shared.check()?;
        Ok(TcpListener { inner: Arc::clone(&self.inner) })
    }

    /// Whether [`accept`](Self::accept) waits; for all clones.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.inner.shared.check()?;
        self.inner.nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    /// `listen(2)` once more: changes how many connections may wait to be accepted, as
    /// [`SocketOptions::backlog`] says. Those that wait already stay.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn set_backlog(&self, backlog: u32) -> io::Result<()> {
        self.inner.shared.command(&Request::Listen { listener: self.inner.index, backlog })
    }

    /// `TCP_DEFER_ACCEPT`: connections are accepted when their first bytes are there, or when they
    /// have been silent for so long (rounded up to whole seconds, and to the moments at which a
    /// SYN-ACK is sent again: 1, 3, 7, 15, … s). For all clones; `None` and zero are off.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn set_defer_accept(&self, patience: Option<Duration>) -> io::Result<()> {
        let patience = patience.unwrap_or(Duration::ZERO);
        let whole = patience.as_secs() + u64::from(patience.subsec_nanos() > 0);
        let seconds = u32::try_from(whole).unwrap_or(u32::MAX);
        let listener = self.inner.index;
        self.inner.shared.command(&Request::DeferAccept { listener, seconds })?;
        self.inner.defer_accept.store(seconds, Ordering::Relaxed);
        Ok(())
    }

    /// What [`set_defer_accept`](Self::set_defer_accept) set, in whole seconds.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn defer_accept(&self) -> io::Result<Option<Duration>> {
        self.inner.shared.check()?;
        let seconds = self.inner.defer_accept.load(Ordering::Relaxed);
        Ok((seconds > 0).then(|| Duration::from_secs(seconds.into())))
    }

    fn set_option(&self, option: ConnOption, value: u32) -> io::Result<()> {
        check(option, value)?;
        let listener = self.inner.index;
        self.inner.shared.command(&Request::SetOption { listener, option, value })?;
        if option == ConnOption::Linger {
            self.inner.linger.store(value, Ordering::Relaxed);
        }
        Ok(())
    }

    fn option(&self, option: ConnOption) -> io::Result<u32> {
        let request = Request::Options { listener: self.inner.index };
        match self.inner.shared.request(&request)? {
            (Reply::Options { values }, _) => Ok(values[option.index()]),
            (other, _) => Err(unexpected(&other)),
        }
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

    /// `SO_ERROR`: a listener has no error of its own.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.inner.shared.check()?;
        Ok(None)
    }
}

option_methods!(TcpListener);

impl sockopt::Socket for TcpListener {
    fn set(&self, option: ConnOption, value: u32) -> io::Result<()> {
        self.set_option(option, value)
    }

    fn get(&self, option: ConnOption) -> io::Result<u32> {
        self.option(option)
    }

    fn set_own(&self, name: Name, time: Option<Duration>) -> io::Result<()> {
        match name {
            Name::DeferAccept => self.set_defer_accept(time),
            _ => Err(os(Errno::NOPROTOOPT)),
        }
    }

    fn get_own(&self, name: Name) -> io::Result<Vec<u8>> {
        Ok(sockopt::int_bytes(match name {
            Name::Listens => 1,
            Name::DeferAccept => self.inner.defer_accept.load(Ordering::Relaxed),
            Name::Domain => sockopt::domain(&self.local_addr()?),
            // SO_ERROR: a listener has none.
            _ => 0,
        }))
    }

    fn has(&self, name: Name) -> bool {
        match name {
            // Of a connection alone. Accepting does not time out.
            Name::Info
            | Name::Number(ConnOption::QuickAck)
            | Name::ReadTimeout
            | Name::WriteTimeout => false,
            Name::Number(_)
            | Name::Linger
            | Name::FinTimeout
            | Name::Congestion
            | Name::Buffer(_)
            | Name::Error
            | Name::Type
            | Name::Protocol
            | Name::Domain
            | Name::Listens
            | Name::OobInline
            | Name::ReceiveLeast
            | Name::SendLeast
            | Name::DeferAccept => true,
        }
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener").field("addr", &self.inner.address).finish_non_exhaustive()
    }
}

impl Source for TcpListener {}

impl sealed::Source for TcpListener {
    fn enter(
        &self,
        poller: &Poller,
        key: usize,
        wanted: (Interest, Trigger),
        entry: Entry,
    ) -> io::Result<()> {
        let core = &poller.core;
        self.inner.shared.check()?;
        if !core.belongs_to(&self.inner.shared) {
            return Err(os(Errno::INVAL));
        }
        let mut pollers = self.inner.pollers.lock();
        match (core.has_listener(self.inner.index), entry) {
            (true, Entry::New) => return Err(os(Errno::EXIST)),
            (false, Entry::Change) => return Err(os(Errno::NOENT)),
            (false, Entry::New | Entry::Beside) => {
                core.quietly(|| {
                    pollers.retain(|poller| poller.strong_count() > 0);
                    pollers.push(Arc::downgrade(core));
                });
            }
            (true, Entry::Change | Entry::Beside) => {}
        }
        core.set_listener(self.inner.index, key, wanted, entry);
        Ok(())
    }

    fn leave(&self, poller: &Poller, key: Option<usize>) -> io::Result<()> {
        let core = &poller.core;
        let mut pollers = self.inner.pollers.lock();
        if !core.belongs_to(&self.inner.shared) || !core.has_listener(self.inner.index) {
            return Err(os(Errno::NOENT));
        }
        if key.is_some_and(|key| core.forget_listener_key(self.inner.index, key)) {
            return Ok(());
        }
        core.quietly(|| pollers.retain(|poller| !std::ptr::eq(poller.as_ptr(), &**core)));
        core.forget_listener(self.inner.index);
        Ok(())
    }
}

/// Accepts without end; made by [`TcpListener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl FusedIterator for Incoming<'_> {}

/// Accepts without end; made by [`TcpListener::into_incoming`].
#[derive(Debug)]
pub struct IntoIncoming {
    listener: TcpListener,
}

impl Iterator for IntoIncoming {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl FusedIterator for IntoIncoming {}

/// What all clones share.
struct Inner {
    shared: Arc<Shared>,
    /// In the segment.
    index: u32,
    /// The [`epoch`](fork::epoch) of the process that has bound it.
    epoch: u32,
    address: SocketAddr,
    /// Of the address that was asked for.
    family: Family,
    /// Seconds, 0 for none.
    defer_accept: AtomicU32,
    /// `SO_LINGER` for accepted streams, as this process has set it last.
    linger: AtomicU32,
    nonblocking: AtomicBool,
    stopped: AtomicBool,
    pollers: Mutex<Vec<Weak<Core>>>,
}

impl Inner {
    /// `EINVAL` when it was stopped.
    fn check(&self) -> io::Result<()> {
        // Relaxed: who waits is woken after this was set, by a kick that has the fence.
        if self.stopped.load(Ordering::Relaxed) { Err(os(Errno::INVAL)) } else { Ok(()) }
    }

    fn has_waiting(&self) -> bool {
        let mut workers = 0..self.shared.params().workers;
        workers.any(|worker| !self.shared.segment.accept_ring(self.index, worker).is_empty())
    }

    /// Takes the connection with the oldest stamp from the workers' queues. Not while this process
    /// forks: the child would know of a connection that it does not hold.
    fn take(&self, lane: &Lane) -> Option<accept::Waiting> {
        lane.exclusively(|| self.take_oldest())
    }

    fn take_oldest(&self) -> Option<accept::Waiting> {
        let ring = |worker| self.shared.segment.accept_ring(self.index, worker);
        let (workers, process) = (self.shared.params().workers, self.shared.process());
        if workers == 1 {
            return ring(0).pop(process);
        }
        loop {
            let waiting = |worker| {
                ring(worker).peek().map(|waiting: accept::Waiting| (waiting.stamp, worker))
            };
            let (_, worker) = (0..workers).filter_map(waiting).min()?;
            // It may be a younger one by now, or none, if another thread was faster: that
            // thread has the older one. Only with none there is reason to look again.
            if let Some(waiting) = ring(worker).pop(process) {
                return Some(waiting);
            }
        }
    }
}

impl Inner {
    /// Takes a connection for a lane that waits for one.
    ///
    /// It leaves the set of waiters before it takes: a lane that had taken one already and were
    /// told of the next would go away with a wake-up that another sleeper needs.
    fn take_waiting(&self, lane: &Lane) -> Option<accept::Waiting> {
        if !self.has_waiting() {
            return None;
        }
        self.disarm(lane.index());
        self.take(lane)
    }
}

impl Waiting for Inner {
    fn arm(&self, lane: u16) {
        self.shared.segment.listener(self.index).wait(lane);
    }

    fn disarm(&self, lane: u16) {
        self.shared.segment.listener(self.index).unwait(lane);
    }

    fn is_armed(&self, lane: u16) -> bool {
        self.shared.segment.listener(self.index).is_waiting(lane)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for core in self.pollers.get_mut().drain(..).filter_map(|poller| poller.upgrade()) {
            core.forget_listener(self.index);
        }
        // A daemon that is gone has closed it already.
        let close = Request::CloseListener { listener: self.index };
        let _ = if self.epoch == fork::epoch() {
            self.shared.command(&close)
        } else {
            // It came with a fork: others hold it, as a rule, so that nothing ends which somebody
            // could wait for. What this process asks for next is done after it.
            self.shared.announce(&close)
        };
    }
}
