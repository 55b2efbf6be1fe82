//! socket, bind, listen, accept, connect, shutdown.

use crate::{choice, configuration, done, fail, memory, next};
use fourwave_posix::{Found, Socket, find};
use libc::{sockaddr, socklen_t};
use std::ffi::c_int;

/// A socket that is served here.
pub(crate) fn served(fd: c_int) -> Option<Found> {
    let found = find(fd)?;
    found.served().is_some().then_some(found)
}

/// Calls with a socket that is served here.
pub(crate) fn with<R>(fd: c_int, call: impl FnOnce(&Socket) -> R) -> Option<R> {
    let found = find(fd)?;
    Some(call(found.served()?))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    // SAFETY: the caller's arguments.
    let fd = unsafe { next::socket(domain, kind, protocol) };
    choice::consider(fd, domain, kind, protocol);
    fd
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    if find(fd).is_some() {
        // SAFETY: the caller's address, which has that length.
        let bytes = unsafe { memory::address(address, length) };
        if let Some(result) = with(fd, |_| Err(fourwave_posix::Errno::INVAL)) {
            return done(result);
        }
        let ours = |address| configuration::get().serves(address);
        let taken = choice::take(fd, bytes, ours, |socket, address| socket.bind(fd, address));
        if let Some(result) = taken {
            return done(result);
        }
    }
    // SAFETY: the caller's arguments.
    unsafe { next::bind(fd, address, length) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn listen(fd: c_int, backlog: c_int) -> c_int {
    if let Some(result) = with(fd, |socket| socket.listen(fd, backlog)) {
        return done(result);
    }
    if let Some(found) = choice::undecided(fd) {
        // Without an address: at any port, which nobody has named.
        choice::leave(fd, found);
    }
    // SAFETY: the caller's arguments.
    unsafe { next::listen(fd, backlog) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
    match with(fd, |socket| socket.accept(0)) {
        // SAFETY: the caller's pointers.
        Some(result) => unsafe { accepted(result, address, length) },
        // SAFETY: the caller's arguments.
        None => unsafe { next::accept(fd, address, length) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn accept4(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    match with(fd, |socket| socket.accept(flags)) {
        // SAFETY: the caller's pointers.
        Some(result) => unsafe { accepted(result, address, length) },
        // SAFETY: the caller's arguments.
        None => unsafe { next::accept4(fd, address, length, flags) },
    }
}

/// # Safety
/// `address` and `length` as accept(2) wants them.
unsafe fn accepted(
    result: fourwave_posix::Result<(c_int, std::net::SocketAddr)>,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    let (fd, peer) = match result {
        Ok(accepted) => accepted,
        Err(errno) => return fail(errno),
    };
    // SAFETY: as the caller says.
    match unsafe { memory::put_address(address, length, peer) } {
        Ok(()) => fd,
        Err(errno) => {
            // As in Linux the connection is lost.
            let _ = fourwave_posix::close(fd);
            fail(errno)
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    if find(fd).is_some() {
        // SAFETY: the caller's address, which has that length.
        let bytes = unsafe { memory::address(address, length) };
        if let Some(result) = with(fd, |socket| {
            fourwave_posix::sockaddr::read(bytes).and_then(|peer| socket.connect(fd, peer))
        }) {
            return done(result);
        }
        let ours = |address| configuration::get().connects(address);
        let taken = choice::take(fd, bytes, ours, |socket, peer| socket.connect(fd, peer));
        if let Some(result) = taken {
            return done(result);
        }
    }
    // SAFETY: the caller's arguments.
    unsafe { next::connect(fd, address, length) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    match with(fd, |socket| socket.shutdown(how)) {
        Some(result) => done(result),
        // SAFETY: the caller's arguments.
        None => unsafe { next::shutdown(fd, how) },
    }
}
