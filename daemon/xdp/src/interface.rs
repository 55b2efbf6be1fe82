//! Facts about a network interface.

use std::io;
use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use crate::sys;

/// How many queues an interface has in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Receive queues. An AF_XDP socket receives from exactly one of them.
    pub rx: u32,
    /// Transmit queues. A socket on a queue beyond them sends nothing, without an error.
    pub tx: u32,
}

/// The numbers of queues of `interface`, or `None` when its driver does not tell them.
///
/// # Errors
/// `ENODEV` when there is no such interface in this thread's network namespace.
pub fn channels(interface: &str) -> io::Result<Option<Channels>> {
    let socket = any_socket()?;
    match sys::ethtool_channels(socket.as_fd(), interface) {
        Ok(found) => {
            Ok(Some(Channels { rx: found.rx + found.combined, tx: found.tx + found.combined }))
        }
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Index of `interface` in this thread's network namespace; `ENODEV` when it has none.
pub(crate) fn index(interface: &str) -> io::Result<u32> {
    Ok(netdevice::name_to_index(any_socket()?, interface)?)
}

pub(crate) fn any_socket() -> io::Result<rustix::fd::OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}
