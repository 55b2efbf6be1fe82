//! Whose a socket becomes.

use crate::configuration;
use crate::report;
use fourwave_posix::{Domain, Errno, Found, Result, Socket, find, forget, sockaddr};
use std::ffi::c_int;
use std::net::SocketAddr;

/// A socket that can still become ours.
pub(crate) fn undecided(fd: c_int) -> Option<Found> {
    let found = find(fd)?;
    found.socket().is_ok_and(Socket::is_fresh).then_some(found)
}

/// The program has got a socket from the kernel.
pub(crate) fn consider(fd: c_int, domain: c_int, kind: c_int, protocol: c_int) {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let is_tcp = kind & !flags == libc::SOCK_STREAM && [0, libc::IPPROTO_TCP].contains(&protocol);
    if let Some(domain) = Domain::of(domain)
        && fd >= 0
        && is_tcp
    {
        configuration::complain();
        if configuration::get().is_empty() {
            return;
        }
        // A number beyond all limits stays the kernel's.
        let _ = Socket::adopt(fd, domain, kind & libc::SOCK_NONBLOCK != 0);
    }
}

/// It is the kernel's.
pub(crate) fn leave(fd: c_int, found: Found) {
    // Its other numbers learn of it too. It is fresh: that was asked just now.
    let _ = found.socket().and_then(Socket::leave_to_kernel);
    drop(found);
    forget(fd);
}

/// `Some`: fourwave has done it, or failed; `None`: it is for the kernel, now and later.
pub(crate) fn take(
    fd: c_int,
    address: &[u8],
    is_ours: impl Fn(SocketAddr) -> bool,
    call: impl Fn(&Socket, SocketAddr) -> Result<()>,
) -> Option<Result<()>> {
    let found = undecided(fd)?;
    let ours = sockaddr::read(address).ok().filter(|address| is_ours(*address));
    let (Some(address), Ok(socket)) = (ours, found.socket()) else {
        leave(fd, found);
        return None;
    };
    match call(socket, address) {
        Err(Errno::NETDOWN) if configuration::get().falls_back() => {
            report::once("there is no daemon: kernel sockets are used (FOURWAVE_FALLBACK=kernel)");
            leave(fd, found);
            None
        }
        result => Some(result),
    }
}
