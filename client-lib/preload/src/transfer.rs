//! read, write, recv, send, and their relatives; sendfile and splice.

use crate::sockets::{served, with};
use crate::{count, memory, next};
use fourwave_posix::{Errno, Result, Socket, raise_sigpipe};
use libc::{iovec, off_t, size_t, sockaddr, socklen_t, ssize_t};
use std::ffi::{c_int, c_uint, c_void};
use std::io::IoSlice;
use std::os::fd::BorrowedFd;

/// Sends, and raises `SIGPIPE` as it is raised.
pub(crate) fn send_all(socket: &Socket, bufs: &[IoSlice<'_>], flags: c_int) -> Result<usize> {
    piped(socket.send(bufs, flags), flags)
}

fn piped(result: Result<usize>, flags: c_int) -> Result<usize> {
    if result == Err(Errno::PIPE) && flags & libc::MSG_NOSIGNAL == 0 {
        raise_sigpipe();
    }
    result
}

/// # Safety
/// `buffer` has `size` bytes that may be written.
unsafe fn receive(fd: c_int, buffer: *mut c_void, size: size_t, flags: c_int) -> Option<ssize_t> {
    let received = with(fd, |socket| {
        // SAFETY: as the caller says.
        socket.recv(unsafe { memory::bytes_mut(buffer, size) }?, flags)
    });
    received.map(count)
}

/// # Safety
/// `buffer` has `size` bytes.
unsafe fn transmit(
    fd: c_int,
    buffer: *const c_void,
    size: size_t,
    flags: c_int,
) -> Option<ssize_t> {
    let sent = with(fd, |socket| {
        // SAFETY: as the caller says.
        let bytes = unsafe { memory::bytes(buffer, size) }?;
        send_all(socket, &[IoSlice::new(bytes)], flags)
    });
    sent.map(count)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn read(fd: c_int, buffer: *mut c_void, size: size_t) -> ssize_t {
    // SAFETY: the caller's arguments.
    unsafe { receive(fd, buffer, size, 0).unwrap_or_else(|| next::read(fd, buffer, size)) }
}

/// What `read` becomes with `_FORTIFY_SOURCE`: the compiler has checked what it could.
#[unsafe(no_mangle)]
unsafe extern "C" fn __read_chk(
    fd: c_int,
    buffer: *mut c_void,
    size: size_t,
    room: size_t,
) -> ssize_t {
    check(size, room);
    // SAFETY: the caller's arguments.
    unsafe { read(fd, buffer, size) }
}

/// A buffer that is too small ends the program, as in libc.
pub(crate) fn check(size: size_t, room: size_t) {
    if size > room {
        crate::report::once("buffer overflow detected");
        std::process::abort();
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn readv(fd: c_int, vectors: *const iovec, number: c_int) -> ssize_t {
    let received = with(fd, |socket| {
        let number = usize::try_from(number).map_err(|_| Errno::INVAL)?;
        // SAFETY: the caller's vectors.
        let mut bufs = unsafe { memory::slices_mut(vectors, number) }?;
        socket.receive(&mut bufs, 0).map(|received| received.bytes)
    });
    // SAFETY: the caller's arguments.
    received.map(count).unwrap_or_else(|| unsafe { next::readv(fd, vectors, number) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn recv(fd: c_int, buffer: *mut c_void, size: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's arguments.
    unsafe {
        receive(fd, buffer, size, flags).unwrap_or_else(|| next::recv(fd, buffer, size, flags))
    }
}

/// `recv` with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __recv_chk(
    fd: c_int,
    buffer: *mut c_void,
    size: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    check(size, room);
    // SAFETY: the caller's arguments.
    unsafe { recv(fd, buffer, size, flags) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn recvfrom(
    fd: c_int,
    buffer: *mut c_void,
    size: size_t,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller's arguments.
    unsafe {
        match receive(fd, buffer, size, flags) {
            Some(received) => {
                // As in Linux: a TCP socket says nothing of where bytes come from.
                if received >= 0 && !address.is_null() && !length.is_null() {
                    *length = 0;
                }
                received
            }
            None => next::recvfrom(fd, buffer, size, flags, address, length),
        }
    }
}

/// `recvfrom` with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __recvfrom_chk(
    fd: c_int,
    buffer: *mut c_void,
    size: size_t,
    room: size_t,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    check(size, room);
    // SAFETY: the caller's arguments.
    unsafe { recvfrom(fd, buffer, size, flags, address, length) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, size: size_t) -> ssize_t {
    // SAFETY: the caller's arguments.
    unsafe { transmit(fd, buffer, size, 0).unwrap_or_else(|| next::write(fd, buffer, size)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, vectors: *const iovec, number: c_int) -> ssize_t {
    let sent = with(fd, |socket| {
        let number = usize::try_from(number).map_err(|_| Errno::INVAL)?;
        // SAFETY: the caller's vectors.
        send_all(socket, &unsafe { memory::slices(vectors, number) }?, 0)
    });
    // SAFETY: the caller's arguments.
    sent.map(count).unwrap_or_else(|| unsafe { next::writev(fd, vectors, number) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn send(fd: c_int, buffer: *const c_void, size: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's arguments.
    unsafe {
        transmit(fd, buffer, size, flags).unwrap_or_else(|| next::send(fd, buffer, size, flags))
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sendto(
    fd: c_int,
    buffer: *const c_void,
    size: size_t,
    flags: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> ssize_t {
    // An address means nothing on a connection, as in Linux.
    // SAFETY: the caller's arguments.
    unsafe {
        transmit(fd, buffer, size, flags)
            .unwrap_or_else(|| next::sendto(fd, buffer, size, flags, address, length))
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sendfile(
    out: c_int,
    file: c_int,
    offset: *mut off_t,
    size: size_t,
) -> ssize_t {
    let sent = with(out, |socket| {
        if served(file).is_some() {
            return Err(Errno::INVAL);
        }
        let file = borrow(file)?;
        // SAFETY: null or the caller's.
        match unsafe { offset.as_mut() } {
            None => piped(fourwave_posix::sendfile(socket, file, None, size), 0),
            Some(offset) => {
                let mut at = u64::try_from(*offset).map_err(|_| Errno::INVAL)?;
                let sent = fourwave_posix::sendfile(socket, file, Some(&mut at), size);
                // Not beyond what the file has.
                *offset = at as off_t;
                piped(sent, 0)
            }
        }
    });
    match sent {
        Some(result) => count(result),
        // The kernel's own error: it cannot send from a socket.
        // SAFETY: the caller's arguments.
        None => unsafe { next::sendfile(out, file, offset, size) },
    }
}

/// `sendfile` for programs built with large offsets, which are no larger here.
#[unsafe(no_mangle)]
unsafe extern "C" fn sendfile64(
    out: c_int,
    file: c_int,
    offset: *mut off_t,
    size: size_t,
) -> ssize_t {
    // SAFETY: the caller's arguments.
    unsafe { sendfile(out, file, offset, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn splice(
    from: c_int,
    from_offset: *mut i64,
    to: c_int,
    to_offset: *mut i64,
    size: size_t,
    flags: c_uint,
) -> ssize_t {
    let (source, target) = (served(from), served(to));
    let (socket, pipe, into_socket) = match (&source, &target) {
        (None, None) => {
            drop((source, target));
            // SAFETY: the caller's arguments.
            return unsafe { next::splice(from, from_offset, to, to_offset, size, flags) };
        }
        (Some(_), Some(_)) => return count(Err(Errno::INVAL)),
        (None, Some(target)) => (target, from, true),
        (Some(source), None) => (source, to, false),
    };
    if !from_offset.is_null() || !to_offset.is_null() {
        return count(Err(Errno::SPIPE));
    }
    let spliced = socket
        .socket()
        .and_then(|socket| fourwave_posix::splice(socket, borrow(pipe)?, into_socket, size, flags));
    count(piped(spliced, 0))
}

/// A number as a descriptor for the time of a call.
fn borrow<'a>(fd: c_int) -> Result<BorrowedFd<'a>> {
    if fd < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: not -1; whether it is open is for the kernel to say.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}
