//! getsockname, getpeername, getsockopt, setsockopt.

use crate::sockets::with;
use crate::{choice, done, memory, next};
use fourwave_posix::{Errno, Result};
use libc::{sockaddr, socklen_t};
use std::ffi::{c_int, c_void};
use std::slice;

#[unsafe(no_mangle)]
unsafe extern "C" fn getsockname(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    match with(fd, |socket| socket.local(fd)) {
        // SAFETY: the caller's pointers.
        Some(result) => done(result.and_then(|own| unsafe { put(address, length, own) })),
        // SAFETY: the caller's arguments.
        None => unsafe { next::getsockname(fd, address, length) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn getpeername(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    match with(fd, fourwave_posix::Socket::peer) {
        // SAFETY: the caller's pointers.
        Some(result) => done(result.and_then(|peer| unsafe { put(address, length, peer) })),
        // SAFETY: the caller's arguments.
        None => unsafe { next::getpeername(fd, address, length) },
    }
}

/// # Safety
/// `address` and `length` as getsockname(2) wants them.
unsafe fn put(
    address: *mut sockaddr,
    length: *mut socklen_t,
    value: std::net::SocketAddr,
) -> Result<()> {
    if address.is_null() {
        return Err(Errno::FAULT);
    }
    // SAFETY: as the caller says.
    unsafe { memory::put_address(address, length, value) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    let asked = with(fd, |socket| {
        if value.is_null() || length.is_null() {
            return Err(Errno::FAULT);
        }
        // SAFETY: not null.
        let bytes = c_int::try_from(unsafe { length.read_unaligned() });
        let bytes = bytes.map_err(|_| Errno::INVAL)? as usize;
        // SAFETY: `length` says how many bytes `value` has.
        let room = unsafe { slice::from_raw_parts_mut(value.cast(), bytes) };
        let written = socket.getsockopt(fd, level, name, room)?;
        // SAFETY: not null.
        unsafe { length.write_unaligned(written as socklen_t) };
        Ok(())
    });
    match asked {
        Some(result) => done(result),
        // SAFETY: the caller's arguments.
        None => unsafe { next::getsockopt(fd, level, name, value, length) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    // SAFETY: the caller's value, which has that length.
    let bytes = || unsafe { memory::bytes(value, length as usize) };
    let set = with(fd, |socket| socket.setsockopt(fd, level, name, bytes()?));
    if let Some(result) = set {
        return done(result);
    }
    // SAFETY: the caller's arguments.
    let result = unsafe { next::setsockopt(fd, level, name, value, length) };
    if result == 0
        && let Some(found) = choice::undecided(fd)
        && let (Ok(socket), Ok(bytes)) = (found.socket(), bytes())
    {
        socket.note_choice(level, name, bytes);
    }
    result
}
