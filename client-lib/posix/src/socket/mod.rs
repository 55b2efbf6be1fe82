//! Sockets: which state they are in, and how it changes.

mod io;
mod options;

pub use io::Received;

use crate::blocking::{patiently, when_over};
use crate::description::Description;
use crate::epoll;
use crate::error::{Errno, Result, errno, explain};
use crate::kernel;
use crate::numbers::{self, Number};
use crate::table::{self, Owner};
use arc_swap::ArcSwap;
use fourwave::{Readiness, SocketOptions, TcpListener, TcpStream};
use options::{Chosen, Inherited};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Address family of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`.
    V6,
}

impl Domain {
    /// That of this number.
    pub fn of(domain: i32) -> Option<Domain> {
        match domain {
            libc::AF_INET => Some(Domain::V4),
            libc::AF_INET6 => Some(Domain::V6),
            _ => None,
        }
    }

    fn number(self) -> i32 {
        match self {
            Domain::V4 => libc::AF_INET,
            Domain::V6 => libc::AF_INET6,
        }
    }

    fn has(self, address: SocketAddr) -> bool {
        address.is_ipv4() == (self == Domain::V4)
    }

    fn wildcard(self) -> SocketAddr {
        match self {
            Domain::V4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
            Domain::V6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
        }
    }
}

/// A TCP socket of ours, or one that may become one.
#[derive(Debug)]
pub struct Socket {
    domain: Domain,
    nonblocking: AtomicBool,
    /// Status flags without an effect.
    idle_flags: AtomicI32,
    /// `SO_RCVTIMEO` in nanoseconds, 0 for none.
    receive_timeout: AtomicU64,
    /// `SO_SNDTIMEO` likewise.
    send_timeout: AtomicU64,
    state: ArcSwap<State>,
    /// Held while the state changes.
    change: Mutex<()>,
    /// Options that were set before there was an address.
    chosen: Mutex<Option<Box<Chosen>>>,
    /// What of them an accepted socket has of its listener's, and no kernel's socket knows.
    inherited: Inherited,
    /// Epoll instances that watched the kernel's socket of the same number before, or watch a
    /// connection that may fail and be tried again.
    watched: Mutex<Vec<epoll::Early>>,
}

/// What a socket is.
#[derive(Debug)]
enum State {
    /// Nothing yet. The kernel's socket of the same number answers.
    Fresh,
    /// The kernel's for good.
    Kernel,
    /// It has an address, and does not listen yet.
    Bound(TcpListener),
    Listening(TcpListener),
    Stream(Stream),
}

#[derive(Debug)]
struct Stream {
    stream: TcpStream,
    /// No call has returned its success yet.
    connecting: AtomicBool,
}

/// Locks that protect no invariant across a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Making and deciding.
impl Socket {
    pub(crate) fn fresh(domain: Domain, nonblocking: bool) -> Socket {
        Socket::with_state(domain, nonblocking, State::Fresh)
    }

    fn with_state(domain: Domain, nonblocking: bool, state: State) -> Socket {
        Socket {
            domain,
            nonblocking: AtomicBool::new(nonblocking),
            idle_flags: AtomicI32::new(0),
            receive_timeout: AtomicU64::new(0),
            send_timeout: AtomicU64::new(0),
            state: ArcSwap::from_pointee(state),
            change: Mutex::new(()),
            chosen: Mutex::new(None),
            inherited: Inherited::default(),
            watched: Mutex::new(Vec::new()),
        }
    }

    /// `socket(2)`: a stream socket; `flags` are `SOCK_NONBLOCK` and `SOCK_CLOEXEC`.
    ///
    /// # Errors
    /// What the kernel says: `EMFILE`, `ENFILE`.
    pub fn create(domain: Domain, flags: i32) -> Result<RawFd> {
        let flags = flags & (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        let fd = kernel::socket(domain.number(), libc::SOCK_STREAM | flags, 0)?;
        match Socket::adopt(fd, domain, flags & libc::SOCK_NONBLOCK != 0) {
            Ok(()) => Ok(fd),
            Err(errno) => {
                // Made above.
                let _ = kernel::close(fd);
                Err(errno)
            }
        }
    }

    /// A fresh TCP socket of the kernel can be used here from now on, until it is
    /// [left to the kernel](Self::leave_to_kernel).
    ///
    /// # Errors
    /// `EMFILE` for a number beyond all that are kept account of.
    pub fn adopt(fd: RawFd, domain: Domain, nonblocking: bool) -> Result<()> {
        if !table::has_room(fd) {
            return Err(Errno::MFILE);
        }
        let socket = Socket::fresh(domain, nonblocking);
        table::insert(fd, Arc::new(Description::Socket(socket)), Owner::Program);
        Ok(())
    }

    /// The socket is the kernel's for good.
    ///
    /// # Errors
    /// `EINVAL` when it is ours already.
    pub fn leave_to_kernel(&self) -> Result<()> {
        let _change = lock(&self.change);
        match **self.state.load() {
            State::Fresh | State::Kernel => {
                self.state.store(Arc::new(State::Kernel));
                Ok(())
            }
            State::Bound(_) | State::Listening(_) | State::Stream(_) => Err(Errno::INVAL),
        }
    }

    /// Whether nothing has decided yet whose it is.
    pub fn is_fresh(&self) -> bool {
        matches!(**self.state.load(), State::Fresh)
    }

    /// Whether it is served here.
    pub fn is_served(&self) -> bool {
        !matches!(**self.state.load(), State::Fresh | State::Kernel)
    }

    /// Its address family.
    pub fn domain(&self) -> Domain {
        self.domain
    }

    /// What was chosen before; explains what of it has no meaning here.
    fn options(&self) -> SocketOptions {
        lock(&self.chosen).as_deref().map_or_else(Chosen::default_options, Chosen::options)
    }

    /// It has changed from the kernel's to ours: so do its places in epoll instances.
    fn moved(&self, _: RawFd) {
        let watched = std::mem::take(&mut *lock(&self.watched));
        for early in watched {
            early.move_over(self);
        }
    }

    /// Whether connecting is under way, or has failed without anybody having asked.
    pub(crate) fn is_connecting(&self) -> bool {
        match &**self.state.load() {
            State::Stream(stream) => stream.connecting.load(Ordering::Relaxed),
            _ => false,
        }
    }

    /// An epoll instance watches it, and has to hear when another connection takes its place.
    pub(crate) fn watched_early(&self, early: epoll::Early) {
        let mut watched = lock(&self.watched);
        watched.retain(|other| !other.is_same(&early));
        watched.push(early);
    }

    /// It does so no longer.
    pub(crate) fn unwatched_early(&self, epfd: RawFd, fd: RawFd) {
        lock(&self.watched).retain(|other| !other.is_of(epfd, fd));
    }
}

/// Listening.
impl Socket {
    /// `bind(2)`, to an address that fourwave serves.
    ///
    /// # Errors
    /// `EINVAL` when it has an address, `EAFNOSUPPORT` for one of the other family; `EADDRINUSE`,
    /// `EACCES`, `ENETDOWN` with an explanation.
    pub fn bind(&self, fd: RawFd, address: SocketAddr) -> Result<()> {
        let change = lock(&self.change);
        if !self.is_fresh() {
            return Err(Errno::INVAL);
        }
        if !self.domain.has(address) {
            return Err(Errno::AFNOSUPPORT);
        }
        let listener = self.options().reserve(address).map_err(errno)?;
        self.inherited.ask_kernel(fd, self.domain);
        self.state.store(Arc::new(State::Bound(listener)));
        drop(change);
        self.moved(fd);
        Ok(())
    }

    /// `listen(2)`; without an address at any free port.
    ///
    /// # Errors
    /// `EINVAL` on a connection, otherwise as [`bind`](Self::bind).
    pub fn listen(&self, fd: RawFd, backlog: i32) -> Result<()> {
        if self.is_fresh() {
            self.bind(fd, self.domain.wildcard())?;
        }
        let _change = lock(&self.change);
        // As in Linux: a negative number is a very large one.
        let backlog = backlog as u32;
        let state = self.state.load();
        let listener = match &**state {
            State::Bound(listener) | State::Listening(listener) => listener,
            State::Fresh | State::Kernel | State::Stream(_) => return Err(Errno::INVAL),
        };
        listener.set_backlog(backlog).map_err(errno)?;
        if matches!(**state, State::Bound(_)) {
            let listener = listener.try_clone().map_err(errno)?;
            self.state.store(Arc::new(State::Listening(listener)));
        }
        Ok(())
    }

    /// `accept4(2)`. `flags` are `SOCK_NONBLOCK` and `SOCK_CLOEXEC`.
    ///
    /// # Errors
    /// `EINVAL` when it does not listen, or for other flags; `EAGAIN`, `EINTR`, `EMFILE`,
    /// `ENFILE`; `ENETDOWN` when the daemon is gone.
    pub fn accept(&self, flags: i32) -> Result<(RawFd, SocketAddr)> {
        if flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != 0 {
            return Err(Errno::INVAL);
        }
        let state = self.state.load();
        let State::Listening(listener) = &**state else { return Err(Errno::INVAL) };
        let nonblocking = self.is_nonblocking();
        // A look only: what is taken without a number would be lost.
        if nonblocking && !listener.has_waiting().map_err(errno)? {
            return Err(Errno::AGAIN);
        }
        // As in Linux: without a number no connection is taken.
        let number = Number::take(flags & libc::SOCK_CLOEXEC != 0)?;
        if !table::has_room(number.fd()) {
            return Err(Errno::MFILE);
        }
        let deadline = deadline(&self.receive_timeout);
        let (stream, peer) =
            patiently(nonblocking, deadline, |patience| listener.accept_with(patience))?;
        let stream = Stream { stream, connecting: AtomicBool::new(false) };
        let nonblocking = flags & libc::SOCK_NONBLOCK != 0;
        let socket = Socket::with_state(self.domain, nonblocking, State::Stream(stream));
        // Inherited, as in Linux.
        for (new, own) in [
            (&socket.receive_timeout, &self.receive_timeout),
            (&socket.send_timeout, &self.send_timeout),
        ] {
            new.store(own.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        socket.inherited.take_from(&self.inherited);
        let (fd, cloexec) = number.used();
        table::insert(fd, Arc::new(Description::Socket(socket)), Owner::Lent { cloexec });
        Ok((fd, peer))
    }
}

/// Connecting.
impl Socket {
    /// `connect(2)`.
    ///
    /// # Errors
    /// `EINPROGRESS` when non-blocking or out of time, `EALREADY` while it is under way,
    /// `EISCONN` afterwards, `EINTR`; `ECONNREFUSED`, `ETIMEDOUT`, `EHOSTUNREACH`, `ENETUNREACH`,
    /// `EADDRNOTAVAIL`; `EOPNOTSUPP` with an explanation for a socket that is bound; `ENETDOWN`
    /// with an explanation without a daemon.
    pub fn connect(&self, fd: RawFd, peer: SocketAddr) -> Result<()> {
        let change = lock(&self.change);
        let begun = match &**self.state.load() {
            State::Fresh if !self.domain.has(peer) => return Err(Errno::AFNOSUPPORT),
            State::Fresh => {
                let options = self.options().nonblocking(true);
                let stream = options.connect(peer).map_err(errno)?;
                let stream = Stream { stream, connecting: AtomicBool::new(true) };
                self.state.store(Arc::new(State::Stream(stream)));
                true
            }
            State::Stream(_) => false,
            State::Bound(_) => {
                explain("fourwave cannot connect from a socket that is bound to a served port");
                return Err(Errno::OPNOTSUPP);
            }
            State::Listening(_) => return Err(Errno::ISCONN),
            State::Kernel => return Err(Errno::INVAL),
        };
        drop(change);
        if begun {
            self.moved(fd);
            if self.is_nonblocking() {
                return Err(Errno::INPROGRESS);
            }
        }
        self.finish_connecting()
    }

    /// Waits for a connect that is under way, or says how it ended.
    fn finish_connecting(&self) -> Result<()> {
        let state = self.state.load();
        let State::Stream(stream) = &**state else { return Err(Errno::INVAL) };
        if !stream.connecting.load(Ordering::Relaxed) {
            return Err(Errno::ISCONN);
        }
        let over = if self.is_nonblocking() { Errno::ALREADY } else { Errno::INPROGRESS };
        let deadline = deadline(&self.send_timeout);
        let connected = patiently(self.is_nonblocking(), deadline, |patience| {
            match stream.stream.connected_with(patience) {
                // Out of time, or the connection's own end?
                Err(error) if fourwave::errno(&error) == Some(libc::ETIMEDOUT) => {
                    let failed = stream.stream.readiness()?.is_error();
                    let again = std::io::Error::from_raw_os_error(libc::EAGAIN);
                    Err(if failed { error } else { again })
                }
                result => result,
            }
        });
        match when_over(connected, over) {
            Ok(()) => {
                stream.connecting.store(false, Ordering::Relaxed);
                Ok(())
            }
            Err(errno) if stream.stream.readiness().is_ok_and(|ready| ready.is_error()) => {
                // As in Linux it can be tried again.
                let _change = lock(&self.change);
                self.state.store(Arc::new(State::Fresh));
                Err(errno)
            }
            Err(errno) => Err(errno),
        }
    }
}

/// What is asked for and set on any socket that is served here.
impl Socket {
    /// `O_NONBLOCK`.
    pub fn is_nonblocking(&self) -> bool {
        self.nonblocking.load(Ordering::Relaxed)
    }

    /// Sets `O_NONBLOCK`.
    pub fn set_nonblocking(&self, nonblocking: bool) {
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
    }

    /// Status flags that mean nothing on a socket, and are told as they were set.
    pub(crate) fn idle_flags(&self) -> i32 {
        self.idle_flags.load(Ordering::Relaxed)
    }

    /// Sets them.
    pub(crate) fn set_idle_flags(&self, flags: i32) {
        self.idle_flags.store(flags, Ordering::Relaxed);
    }

    /// `getsockname(2)`.
    ///
    /// # Errors
    /// What the kernel says of a fresh socket; `ENETDOWN` when the daemon is gone.
    pub fn local(&self, fd: RawFd) -> Result<SocketAddr> {
        match &**self.state.load() {
            State::Fresh | State::Kernel => kernel::getsockname(fd),
            State::Bound(listener) | State::Listening(listener) => {
                listener.local_addr().map_err(errno)
            }
            State::Stream(stream) => stream.stream.local_addr().map_err(errno),
        }
    }

    /// `getpeername(2)`.
    ///
    /// # Errors
    /// `ENOTCONN` without a peer, `ENETDOWN` when the daemon is gone.
    pub fn peer(&self) -> Result<SocketAddr> {
        match &**self.state.load() {
            State::Stream(stream) => stream.stream.peer_addr().map_err(errno),
            _ => Err(Errno::NOTCONN),
        }
    }

    /// `shutdown(2)`.
    ///
    /// # Errors
    /// `ENOTCONN` without a connection, or when it has failed; `EINVAL` for a direction that there
    /// is not. A listener stops listening when its receiving side is shut, for good: accepting
    /// gives `EINVAL`, also to threads that wait.
    pub fn shutdown(&self, how: i32) -> Result<()> {
        let how = match how {
            libc::SHUT_RD => Shutdown::Read,
            libc::SHUT_WR => Shutdown::Write,
            libc::SHUT_RDWR => Shutdown::Both,
            _ => return Err(Errno::INVAL),
        };
        match &**self.state.load() {
            State::Stream(stream) => stream.stream.shutdown(how).map_err(errno),
            State::Listening(_) if how == Shutdown::Write => Ok(()),
            State::Listening(listener) => {
                listener.stop();
                Ok(())
            }
            State::Fresh | State::Kernel | State::Bound(_) => Err(Errno::NOTCONN),
        }
    }

    /// What it is ready for. A daemon that is gone is an error of each of its sockets.
    pub(crate) fn readiness(&self) -> Option<Result<Readiness>> {
        Some(match &**self.state.load() {
            State::Fresh | State::Kernel => return None,
            State::Bound(_) => Ok(Readiness::default()),
            State::Listening(listener) => listener.readiness().map_err(errno),
            State::Stream(stream) => stream.stream.readiness().map_err(errno),
        })
    }

    /// Gives what a poller can watch to `f`; `None` for a socket that is not served here.
    pub(crate) fn with_source<R>(&self, f: impl FnOnce(Watchable<'_>) -> R) -> Option<R> {
        Some(match &**self.state.load() {
            State::Fresh | State::Kernel => return None,
            State::Bound(listener) | State::Listening(listener) => f(Watchable::Listener(listener)),
            State::Stream(stream) => f(Watchable::Stream(&stream.stream)),
        })
    }
}

/// What a poller can watch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Watchable<'a> {
    Listener(&'a TcpListener),
    Stream(&'a TcpStream),
}

/// Closes what a number stood for, and the number.
pub(crate) fn close_number(fd: RawFd) -> Result<()> {
    let Some((description, owner)) = table::remove(fd) else { return Err(Errno::BADF) };
    // The number last: nobody gets it while something stands behind it.
    drop(description);
    match owner {
        Owner::Lent { cloexec } => numbers::give_back(fd, cloexec),
        Owner::Program => kernel::close(fd)?,
    }
    Ok(())
}

fn deadline(nanos: &AtomicU64) -> Option<Instant> {
    timeout(nanos).and_then(|timeout| Instant::now().checked_add(timeout))
}

fn timeout(nanos: &AtomicU64) -> Option<Duration> {
    match nanos.load(Ordering::Relaxed) {
        0 => None,
        nanos => Some(Duration::from_nanos(nanos)),
    }
}
