//! Options that are set before a socket exists.

use crate::choices::{Choices, TcpKeepalive, buffer_value, check, linger_value, timeout_value};
use crate::error::os;
use crate::listener::TcpListener;
use crate::runtime::{Runtime, Shared};
use crate::sockopt::{self, Name};
use crate::stream::TcpStream;
use fourwave_protocol::option::ConnOption;
use rustix::io::Errno;
use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Backlog unless another is asked for: Linux's `somaxconn`, where std asks for 128.
const DEFAULT_BACKLOG: u32 = 4096;

/// Makes sockets with other options than the default ones.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// let listener = fourwave::SocketOptions::new()
///     .backlog(1024)
///     .nodelay(true)
///     .bind("[::]:7777")?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SocketOptions {
    pub(crate) backlog: u32,
    pub(crate) v6_only: bool,
    pub(crate) reuse_address: bool,
    pub(crate) reuse_port: bool,
    pub(crate) defer_accept: Option<Duration>,
    pub(crate) nonblocking: bool,
    /// Those that the daemon knows.
    pub(crate) choices: Choices,
    runtime: Option<Runtime>,
}

impl SocketOptions {
    /// The defaults: backlog 4096, IPv6 wildcard listeners that accept IPv4 too, `SO_REUSEADDR` on
    /// (as in std), Nagle's algorithm on, blocking, the process's default daemon.
    pub fn new() -> SocketOptions {
        SocketOptions {
            backlog: DEFAULT_BACKLOG,
            v6_only: false,
            reuse_address: true,
            reuse_port: false,
            defer_accept: None,
            nonblocking: false,
            choices: Choices::default(),
            runtime: None,
        }
    }

    /// How many connections may wait to be accepted.
    ///
    /// As in Linux this limits the *accept queue*, of complete connections: one more than this
    /// fits, over all workers, and the daemon's `somaxconn` caps it. While it is full SYNs are
    /// dropped, and so is the last ACK of a handshake under way: peers try again until there is
    /// room, unless `tcp.abort_on_overflow` has them reset. Handshakes under way are counted apart,
    /// in a SYN queue of the same length; SYNs beyond it are answered by SYN cookies
    /// (`tcp.syncookies`). Other systems, BSDs for one, count both in one queue.
    #[must_use]
    pub fn backlog(mut self, backlog: u32) -> SocketOptions {
        self.backlog = backlog;
        self
    }

    /// `IPV6_V6ONLY`: a listener on `[::]` does not accept IPv4.
    #[must_use]
    pub fn v6_only(mut self, on: bool) -> SocketOptions {
        self.v6_only = on;
        self
    }

    /// `SO_REUSEADDR`, on unless it is switched off: a port can be bound although connections of a
    /// former listener are still there, in TIME_WAIT or otherwise. Never although another listener
    /// has it.
    #[must_use]
    pub fn reuse_address(mut self, on: bool) -> SocketOptions {
        self.reuse_address = on;
        self
    }

    /// `SO_REUSEPORT`: any number of listeners, of this process and of others of the same user, can
    /// have one address and port if all have set this. Each connection goes to one of them, by a
    /// keyed hash of its addresses and ports. When one closes, or its process dies, what waits in
    /// its queues goes to the others.
    #[must_use]
    pub fn reuse_port(mut self, on: bool) -> SocketOptions {
        self.reuse_port = on;
        self
    }

    /// `TCP_DEFER_ACCEPT`, see [`TcpListener::set_defer_accept`].
    #[must_use]
    pub fn defer_accept(mut self, patience: Duration) -> SocketOptions {
        self.defer_accept = Some(patience);
        self
    }

    /// `TCP_NODELAY` for the stream, or for all streams that the listener accepts.
    #[must_use]
    pub fn nodelay(self, on: bool) -> SocketOptions {
        self.choose(ConnOption::NoDelay, on.into())
    }

    /// `SO_KEEPALIVE`, as configured.
    #[must_use]
    pub fn keepalive(self, on: bool) -> SocketOptions {
        self.choose(ConnOption::KeepAlive, on.into())
    }

    /// `SO_KEEPALIVE` with its numbers.
    #[must_use]
    pub fn tcp_keepalive(self, params: &TcpKeepalive) -> SocketOptions {
        params.options().fold(self, |options, (option, value)| options.choose(option, value))
    }

    /// `TCP_USER_TIMEOUT`; it bounds connecting too.
    #[must_use]
    pub fn tcp_user_timeout(self, timeout: Option<Duration>) -> SocketOptions {
        self.choose(ConnOption::UserTimeout, timeout_value(timeout))
    }

    /// `TCP_CORK`.
    #[must_use]
    pub fn cork(self, on: bool) -> SocketOptions {
        self.choose(ConnOption::Cork, on.into())
    }

    /// `TCP_MAXSEG`: the largest segment to announce and to send, 88 to 32767 bytes.
    #[must_use]
    pub fn mss(self, mss: u32) -> SocketOptions {
        self.choose(ConnOption::MaxSegment, mss)
    }

    /// `TCP_SYNCNT`: how often a SYN is sent again with doubled pauses, 1 to 127.
    #[must_use]
    pub fn syn_count(self, count: u32) -> SocketOptions {
        self.choose(ConnOption::SynCount, count)
    }

    /// `SO_RCVBUF`; set here it also limits the first window.
    #[must_use]
    pub fn recv_buffer_size(self, size: usize) -> SocketOptions {
        self.choose(ConnOption::ReceiveBuffer, buffer_value(size))
    }

    /// `SO_SNDBUF`.
    #[must_use]
    pub fn send_buffer_size(self, size: usize) -> SocketOptions {
        self.choose(ConnOption::SendBuffer, buffer_value(size))
    }

    /// `IP_TTL` and `IPV6_UNICAST_HOPS`, from the SYN on; 0 leaves them to the daemon.
    #[must_use]
    pub fn ttl(self, ttl: u32) -> SocketOptions {
        self.choose(ConnOption::Ttl, ttl).choose(ConnOption::HopLimit, ttl)
    }

    /// `IP_TOS`: from the SYN on.
    #[must_use]
    pub fn tos(self, tos: u8) -> SocketOptions {
        self.choose(ConnOption::Tos, (tos & !3).into())
    }

    /// `IPV6_TCLASS`: from the SYN on.
    #[must_use]
    pub fn tclass(self, tclass: u8) -> SocketOptions {
        self.choose(ConnOption::TrafficClass, (tclass & !3).into())
    }

    /// `SO_LINGER`.
    #[must_use]
    pub fn linger(self, linger: Option<Duration>) -> SocketOptions {
        self.choose(ConnOption::Linger, linger_value(linger))
    }

    fn choose(mut self, option: ConnOption, value: u32) -> SocketOptions {
        self.choices.set(option, value);
        self
    }

    /// The socket begins non-blocking. A [`connect`](Self::connect) then returns at once:
    /// the stream becomes writable when the attempt is over, and `take_error` says how.
    #[must_use]
    pub fn nonblocking(mut self, on: bool) -> SocketOptions {
        self.nonblocking = on;
        self
    }

    /// Which daemon to use.
    #[must_use]
    pub fn runtime(mut self, runtime: &Runtime) -> SocketOptions {
        self.runtime = Some(runtime.clone());
        self
    }

    /// Listens on the first of the addresses that can be had. Port 0 means any free port. What was
    /// chosen is for the connections that the listener accepts.
    ///
    /// # Errors
    /// `EADDRINUSE` and `EACCES` with the daemon's explanation, `EINVAL` for an option out of range,
    /// `ENETDOWN` without a daemon.
    pub fn bind<A: ToSocketAddrs>(&self, addresses: A) -> io::Result<TcpListener> {
        let shared = self.shared()?;
        first_success(addresses, |address| TcpListener::open(&shared, address, self))
    }

    /// `bind(2)` without `listen(2)`: nobody else can have the address from now on. It is listened
    /// on from the first [`set_backlog`](TcpListener::set_backlog).
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn reserve(&self, address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::reserve(&self.shared()?, address, self)
    }

    /// `setsockopt(2)` with Linux's numbers and layouts, before there is a socket: besides what
    /// [`socket_options`](crate::socket_options) lists, `SO_REUSEADDR`, `SO_REUSEPORT` and
    /// `IPV6_V6ONLY`. Timeouts of reading and writing are no choices; streams have methods for
    /// them.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for what is not offered, `EINVAL` for a value that Linux does not take either.
    pub fn setsockopt(&mut self, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
        match sockopt::before_binding(level, name) {
            Some(sockopt::BeforeBinding::ReuseAddress) => {
                self.reuse_address = sockopt::flag(value)?;
            }
            Some(sockopt::BeforeBinding::ReusePort) => self.reuse_port = sockopt::flag(value)?,
            Some(sockopt::BeforeBinding::V6Only) => self.v6_only = sockopt::flag(value)?,
            None => {
                let chosen = RefCell::new(&mut *self);
                sockopt::set(&chosen, level, name, value)?;
            }
        }
        Ok(())
    }

    /// Connects to the first of the addresses that answers.
    ///
    /// # Errors
    /// `ECONNREFUSED`, `ETIMEDOUT`, `EHOSTUNREACH`, `ENETUNREACH`, `EADDRNOTAVAIL`; `EINVAL` for an
    /// option out of range; `ENETDOWN` without a daemon.
    pub fn connect<A: ToSocketAddrs>(&self, addresses: A) -> io::Result<TcpStream> {
        first_success(addresses, |address| self.connect_until(address, None))
    }

    /// Connects to one address, or gives up after `timeout`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), `ETIMEDOUT` when the time is over, `InvalidInput` for a
    /// timeout of zero.
    pub fn connect_timeout(
        &self,
        address: &SocketAddr,
        timeout: Duration,
    ) -> io::Result<TcpStream> {
        if timeout.is_zero() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.connect_until(*address, Instant::now().checked_add(timeout))
    }

    fn connect_until(
        &self,
        address: SocketAddr,
        deadline: Option<Instant>,
    ) -> io::Result<TcpStream> {
        TcpStream::open(&self.shared()?, address, self, deadline)
    }

    fn shared(&self) -> io::Result<Arc<Shared>> {
        match &self.runtime {
            Some(runtime) => Ok(Arc::clone(&runtime.shared)),
            None => Ok(Runtime::default_instance()?.shared),
        }
    }
}

/// What is chosen is checked as if the socket were there.
impl sockopt::Socket for RefCell<&mut SocketOptions> {
    fn set(&self, option: ConnOption, value: u32) -> io::Result<()> {
        check(option, value)?;
        self.borrow_mut().choices.set(option, value);
        Ok(())
    }

    fn get(&self, _: ConnOption) -> io::Result<u32> {
        Err(os(Errno::NOPROTOOPT))
    }

    fn set_own(&self, name: Name, time: Option<Duration>) -> io::Result<()> {
        match name {
            Name::DeferAccept => self.borrow_mut().defer_accept = time,
            _ => return Err(os(Errno::NOPROTOOPT)),
        }
        Ok(())
    }

    fn get_own(&self, _: Name) -> io::Result<Vec<u8>> {
        Err(os(Errno::NOPROTOOPT))
    }

    fn has(&self, name: Name) -> bool {
        // It does not last until there is a connection.
        name != Name::Number(ConnOption::QuickAck)
    }
}

impl Default for SocketOptions {
    fn default() -> Self {
        SocketOptions::new()
    }
}

/// Tries the addresses in turn, as std does.
fn first_success<T>(
    addresses: impl ToSocketAddrs,
    mut attempt: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = None;
    for address in addresses.to_socket_addrs()? {
        match attempt(address) {
            Ok(done) => return Ok(done),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "could not resolve to any addresses")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_tried_in_turn() {
        let both: [SocketAddr; 2] = ["1.2.3.4:5".parse().unwrap(), "1.2.3.4:6".parse().unwrap()];
        let mut seen = Vec::new();
        let got = first_success(&both[..], |address| {
            seen.push(address.port());
            if address.port() == 6 { Ok(address) } else { Err(io::ErrorKind::AddrInUse.into()) }
        });
        assert_eq!((got.unwrap().port(), seen), (6, vec![5, 6]));

        let none: [SocketAddr; 0] = [];
        let error = first_success(&none[..], |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
