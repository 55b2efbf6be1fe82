//! send, recv, and their relatives.

use crate::{count, with};
use fourwave_posix::{Errno, Result, Socket, memory, raise_sigpipe};
use libc::{iovec, size_t, ssize_t};
use std::ffi::{c_int, c_void};
use std::io::IoSlice;

/// Sends, and raises `SIGPIPE` as it is raised.
fn send_all(socket: &Socket, bufs: &[IoSlice<'_>], flags: c_int) -> Result<usize> {
    let result = socket.send(bufs, flags);
    if result == Err(Errno::PIPE) && flags & libc::MSG_NOSIGNAL == 0 {
        raise_sigpipe();
    }
    result
}

/// # Safety
/// `buffer` has `size` bytes that may be written.
unsafe fn receive(
    fd: c_int,
    buffer: *mut c_void,
    size: size_t,
    flags: c_int,
) -> Option<Result<usize>> {
    // SAFETY: as the caller says.
    with(fd, |socket| socket.recv(unsafe { memory::bytes_mut(buffer, size) }?, flags))
}

/// # Safety
/// `buffer` has `size` bytes.
unsafe fn transmit(
    fd: c_int,
    buffer: *const c_void,
    size: size_t,
    flags: c_int,
) -> Option<Result<usize>> {
    with(fd, |socket| {
        // SAFETY: as the caller says.
        let bytes = unsafe { memory::bytes(buffer, size) }?;
        send_all(socket, &[IoSlice::new(bytes)], flags)
    })
}

/// send(2). Flags: MSG_DONTWAIT, MSG_NOSIGNAL, MSG_MORE; EOPNOTSUPP for MSG_OOB and MSG_FASTOPEN.
/// SIGPIPE as there.
///
/// # Safety
/// `buffer` points to `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_send(
    fd: c_int,
    buffer: *const c_void,
    size: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: as the caller says.
    let ours = unsafe { transmit(fd, buffer, size, flags) };
    // SAFETY: as the caller says.
    ours.map_or_else(|| unsafe { libc::send(fd, buffer, size, flags) }, count)
}

/// recv(2). Flags: MSG_DONTWAIT, MSG_PEEK, MSG_WAITALL, MSG_TRUNC; EINVAL for MSG_OOB.
///
/// # Safety
/// `buffer` points to `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_recv(
    fd: c_int,
    buffer: *mut c_void,
    size: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: as the caller says.
    let ours = unsafe { receive(fd, buffer, size, flags) };
    // SAFETY: as the caller says.
    ours.map_or_else(|| unsafe { libc::recv(fd, buffer, size, flags) }, count)
}

/// write(2).
///
/// # Safety
/// `buffer` points to `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_write(fd: c_int, buffer: *const c_void, size: size_t) -> ssize_t {
    // SAFETY: as the caller says.
    let ours = unsafe { transmit(fd, buffer, size, 0) };
    // SAFETY: as the caller says.
    ours.map_or_else(|| unsafe { libc::write(fd, buffer, size) }, count)
}

/// read(2).
///
/// # Safety
/// `buffer` points to `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_read(fd: c_int, buffer: *mut c_void, size: size_t) -> ssize_t {
    // SAFETY: as the caller says.
    let ours = unsafe { receive(fd, buffer, size, 0) };
    // SAFETY: as the caller says.
    ours.map_or_else(|| unsafe { libc::read(fd, buffer, size) }, count)
}

/// writev(2).
///
/// # Safety
/// `vectors` points to `number` vectors, which point to bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_writev(fd: c_int, vectors: *const iovec, number: c_int) -> ssize_t {
    let ours = with(fd, |socket| {
        let number = usize::try_from(number).map_err(|_| Errno::INVAL)?;
        // SAFETY: as the caller says.
        send_all(socket, &unsafe { memory::slices(vectors, number) }?, 0)
    });
    // SAFETY: as the caller says.
    ours.map_or_else(|| unsafe { libc::writev(fd, vectors, number) }, count)
}

/// readv(2).
///
/// # Safety
/// `vectors` points to `number` vectors, which point to bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_readv(fd: c_int, vectors: *const iovec, number: c_int) -> ssize_t {
    let ours = with(fd, |socket| {
        let number = usize::try_from(number).map_err(|_| Errno::INVAL)?;
        // SAFETY: as the caller says.
        let mut bufs = unsafe { memory::slices_mut(vectors, number) }?;
        socket.receive(&mut bufs, 0).map(|received| received.bytes)
    });
    // SAFETY: as the caller says.
    ours.map_or_else(|| unsafe { libc::readv(fd, vectors, number) }, count)
}
