//! A kernel socket that holds a port, so that the kernel gives it to nobody else.

use super::diag::{self, Socket, Use};
use super::owner::{self, Owner};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A bound socket that neither listens nor connects. The port is free again when it is dropped.
#[derive(Debug)]
pub struct Holder {
    socket: OwnedFd,
    address: SocketAddr,
    v6_only: bool,
}

/// Why a port cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// A kernel socket has it.
    #[error("{address} is taken by {by}")]
    Taken {
        /// What was to be held.
        address: SocketAddr,
        /// Who has it.
        by: Taker,
    },
    /// The address is not this machine's.
    #[error("{0} is not an address of this machine")]
    NotLocal(IpAddr),
    /// The kernel refused for another reason.
    #[error("cannot hold {address}: {error}")]
    Kernel {
        /// What was to be held.
        address: SocketAddr,
        /// What the kernel said.
        error: Errno,
    },
    /// The kernel's sockets cannot be listed.
    #[error("cannot list the kernel's sockets: {0}")]
    Diag(#[from] io::Error),
}

/// Who uses a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taker {
    /// A process with a socket that listens or is bound.
    Process(Owner),
    /// A user's process that we may not look into.
    User(u32),
    /// Connections that began before; how many, and a process that has one.
    Connections(usize, Option<Owner>),
    /// A listener that set no `SO_REUSEADDR` is gone, its closed connections are remembered.
    TimeWait,
    /// The socket could not be found.
    Unknown,
}

impl fmt::Display for Taker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Taker::Process(owner) => owner.fmt(f),
            Taker::User(uid) => write!(f, "a process of user {uid}"),
            Taker::Connections(count, Some(owner)) => {
                write!(f, "{count} live connection(s) of the kernel, of {owner}")
            }
            Taker::Connections(count, None) => {
                write!(f, "{count} live connection(s) of the kernel")
            }
            Taker::TimeWait => f.write_str(
                "the kernel, which remembers connections of a server that did not set \
                 SO_REUSEADDR (TIME_WAIT); it is free within 60 s",
            ),
            Taker::Unknown => f.write_str("another socket of the kernel"),
        }
    }
}

impl Holder {
    /// Takes `address` from the kernel; port 0 takes any free port. An unspecified IPv6 address
    /// covers IPv4 too, unless `v6_only`.
    ///
    /// # Errors
    /// Any of [`HoldError`]; with [`HoldError::Taken`], when the kernel has a listener or live
    /// connections there.
    pub fn hold(address: SocketAddr, v6_only: bool) -> Result<Holder, HoldError> {
        let holder = Holder::bind(address, v6_only).map_err(|error| match error {
            Errno::ADDRINUSE => {
                HoldError::Taken { address, by: taker(address, v6_only).unwrap_or(Taker::Unknown) }
            }
            Errno::ADDRNOTAVAIL => HoldError::NotLocal(address.ip()),
            error => HoldError::Kernel { address, error },
        })?;
        // Connections of a listener that is gone do not prevent the bind. They would be cut off.
        let sockets = diag::sockets_on(holder.address.port())?;
        let live = || {
            overlapping(&sockets, address.ip(), v6_only)
                .filter(|socket| socket.usage == Use::Connection)
        };
        match live().count() {
            0 => Ok(holder),
            count => {
                let owner = live().find_map(|socket| owner::find(socket.inode));
                Err(HoldError::Taken { address, by: Taker::Connections(count, owner) })
            }
        }
    }

    /// Takes those of `ports` that nobody uses, at every address.
    ///
    /// # Errors
    /// Any of [`HoldError`] but [`HoldError::Taken`].
    pub fn hold_free(ports: impl Iterator<Item = u16>) -> Result<Vec<Holder>, HoldError> {
        let mut holders = Vec::new();
        for port in ports {
            let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            let bound = match Holder::bind(address, false) {
                // A kernel without IPv6.
                Err(Errno::AFNOSUPPORT) => {
                    Holder::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), false)
                }
                bound => bound,
            };
            match bound {
                Ok(holder) => holders.push(holder),
                Err(Errno::ADDRINUSE) => {}
                Err(error) => return Err(HoldError::Kernel { address, error }),
            }
        }
        // Looked up once for all.
        let sockets = diag::sockets_on(0)?;
        let live = sockets.iter().filter(|socket| socket.usage == Use::Connection);
        let busy: BTreeSet<u16> = live.map(|socket| socket.port).collect();
        holders.retain(|holder| !busy.contains(&holder.address.port()));
        Ok(holders)
    }

    fn bind(address: SocketAddr, v6_only: bool) -> Result<Holder, Errno> {
        let family = match address.is_ipv4() {
            true => AddressFamily::INET,
            false => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        // Gets past closed connections that the kernel remembers. Not for a port of the kernel's
        // choice: it would choose one that is shared.
        sockopt::set_socket_reuseaddr(&socket, address.port() != 0)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, v6_only)?;
        }
        rustix::net::bind(&socket, &address)?;
        let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
        // From now on not even sockets with SO_REUSEADDR get in.
        sockopt::set_socket_reuseaddr(&socket, false)?;
        Ok(Holder { socket, address: bound, v6_only })
    }

    /// What is held, with the port that was chosen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether holding this holds `address` too.
    pub fn covers(&self, address: IpAddr, v6_only: bool) -> bool {
        let ours = self.address.ip();
        match (is_any_v6(ours), self.v6_only) {
            (true, false) => true,
            (true, true) => address.is_ipv6() && (v6_only || !is_any_v6(address)),
            (false, _) if ours.is_unspecified() => address.is_ipv4(),
            (false, _) => ours == address,
        }
    }

    /// Lets another holder of ours share the port for the moment of its bind.
    pub(super) fn share(&self, shared: bool) -> Result<(), HoldError> {
        sockopt::set_socket_reuseaddr(&self.socket, shared)
            .map_err(|error| HoldError::Kernel { address: self.address, error })
    }
}

fn is_any_v6(address: IpAddr) -> bool {
    address.is_ipv6() && address.is_unspecified()
}

/// Who keeps us from `address`.
fn taker(address: SocketAddr, v6_only: bool) -> Option<Taker> {
    let sockets = diag::sockets_on(address.port()).ok()?;
    let overlapping: Vec<Socket> = overlapping(&sockets, address.ip(), v6_only).collect();
    let of = |usage| overlapping.iter().find(move |socket| socket.usage == usage);
    if let Some(socket) = of(Use::Listener).or_else(|| of(Use::Bound)) {
        let owner = owner::find(socket.inode).map(Taker::Process);
        return Some(owner.unwrap_or(Taker::User(socket.uid)));
    }
    let connections = overlapping.iter().filter(|socket| socket.usage == Use::Connection);
    match connections.clone().count() {
        0 => of(Use::Remembered).map(|_| Taker::TimeWait),
        count => {
            let owner = connections.clone().find_map(|socket| owner::find(socket.inode));
            Some(Taker::Connections(count, owner))
        }
    }
}

/// The sockets whose address and `address` have something in common.
fn overlapping(sockets: &[Socket], address: IpAddr, v6_only: bool) -> impl Iterator<Item = Socket> {
    sockets.iter().copied().filter(move |socket| {
        let theirs = socket.local;
        theirs == address
            // Theirs may cover IPv4 too.
            || is_any_v6(theirs)
            || theirs.is_unspecified() && address.is_ipv4()
            || is_any_v6(address) && (theirs.is_ipv6() || !v6_only)
            || address.is_unspecified() && address.is_ipv4() && theirs.is_ipv4()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// std sets SO_REUSEADDR, as servers do.
    #[test]
    fn a_held_port_is_refused_to_all_others() {
        let holder = Holder::hold(local(0), false).unwrap();
        let address = holder.address();
        assert_ne!(address.port(), 0);
        let refused = TcpListener::bind(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        let error = Holder::hold(address, false).unwrap_err();
        assert!(error.to_string().contains("is taken by"), "{error}");
        drop(holder);
        TcpListener::bind(address).unwrap();
    }

    #[test]
    fn the_kernels_listener_is_named() {
        let listener = TcpListener::bind(local(0)).unwrap();
        let address = listener.local_addr().unwrap();
        for wanted in [address, SocketAddr::from(([0, 0, 0, 0], address.port()))] {
            let error = Holder::hold(wanted, false).unwrap_err().to_string();
            assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        }
    }

    #[test]
    fn live_connections_are_in_the_way_and_closed_ones_are_not() {
        let listener = TcpListener::bind(local(0)).unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        drop(listener);
        let error = Holder::hold(address, false).unwrap_err().to_string();
        assert!(error.contains("1 live connection(s)"), "{error}");
        // The server closes first and remembers; the client's FIN completes it.
        drop(server);
        assert_eq!(io::Read::read(&mut &client, &mut [0]).unwrap(), 0);
        drop(client);
        Holder::hold(address, false).unwrap();
    }

    #[test]
    fn a_foreign_address_is_said_to_be_foreign() {
        let error = Holder::hold("192.0.2.77:0".parse().unwrap(), false).unwrap_err();
        assert!(matches!(error, HoldError::NotLocal(_)), "{error}");
    }

    #[test]
    fn what_is_covered() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let any_v4 = Holder::hold("0.0.0.0:0".parse().unwrap(), false).unwrap();
        assert!(any_v4.covers(ip("10.0.0.1"), false) && any_v4.covers(ip("0.0.0.0"), false));
        assert!(!any_v4.covers(ip("::"), false) && !any_v4.covers(ip("fd99::1"), false));
        let both = Holder::hold("[::]:0".parse().unwrap(), false).unwrap();
        for address in ["10.0.0.1", "0.0.0.0", "::", "fd99::1"] {
            assert!(both.covers(ip(address), false), "{address}");
        }
        let any_v6 = Holder::hold("[::]:0".parse().unwrap(), true).unwrap();
        assert!(any_v6.covers(ip("::"), true) && any_v6.covers(ip("fd99::1"), false));
        assert!(!any_v6.covers(ip("::"), false) && !any_v6.covers(ip("0.0.0.0"), false));
        let one = Holder::hold(local(0), false).unwrap();
        assert!(one.covers(ip("127.0.0.1"), false) && !one.covers(ip("0.0.0.0"), false));
    }
}
