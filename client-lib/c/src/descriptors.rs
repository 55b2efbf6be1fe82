//! close, dup, fcntl, ioctl.

use crate::{done, fail};
use fourwave_posix::{Errno, find, is_kept, is_own_descriptor};
use std::ffi::{c_int, c_ulong};

/// close(2). Required for descriptors of fourwave's, and for epoll instances that watch them. With
/// SO_LINGER it waits. EBADF for what the library itself has open.
#[unsafe(no_mangle)]
pub extern "C" fn fw_close(fd: c_int) -> c_int {
    if find(fd).is_some() {
        return done(fourwave_posix::close(fd));
    }
    if is_kept(fd) || is_own_descriptor(fd) {
        return fail(Errno::BADF);
    }
    // SAFETY: no memory is handed over.
    unsafe { libc::close(fd) }
}

/// dup(2).
#[unsafe(no_mangle)]
pub extern "C" fn fw_dup(fd: c_int) -> c_int {
    match find(fd) {
        Some(found) => fourwave_posix::dup(fd, &found, 0, false).unwrap_or_else(fail),
        None if is_kept(fd) => fail(Errno::BADF),
        // SAFETY: no memory is handed over.
        None => unsafe { libc::dup(fd) },
    }
}

/// dup2(2); either descriptor may be the kernel's. EBADF for a number that the library itself has open.
#[unsafe(no_mangle)]
pub extern "C" fn fw_dup2(from: c_int, to: c_int) -> c_int {
    fourwave_posix::dup_to(from, to, None).unwrap_or_else(fail)
}

/// dup3(2), as fw_dup2.
#[unsafe(no_mangle)]
pub extern "C" fn fw_dup3(from: c_int, to: c_int, flags: c_int) -> c_int {
    fourwave_posix::dup_to(from, to, Some(flags)).unwrap_or_else(fail)
}

/// See the header, which lets the last argument be missing: given or not, it is in the same
/// register.
///
/// # Safety
/// `argument` is what the command wants.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    if let Some(found) = find(fd) {
        return fourwave_posix::fcntl(fd, &found, command, argument).unwrap_or_else(fail);
    }
    if is_kept(fd) {
        return fail(Errno::BADF);
    }
    // SAFETY: as the caller says.
    unsafe { libc::fcntl(fd, command, argument) }
}

/// As [`fw_fcntl`].
///
/// # Safety
/// `argument` points to what the request wants.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int {
    if let Some(found) = find(fd) {
        // SAFETY: as the caller says.
        let done = unsafe { fourwave_posix::ioctl(fd, &found, request, argument) };
        return done.unwrap_or_else(fail);
    }
    if is_kept(fd) {
        return fail(Errno::BADF);
    }
    // SAFETY: as the caller says.
    unsafe { libc::ioctl(fd, request, argument) }
}
