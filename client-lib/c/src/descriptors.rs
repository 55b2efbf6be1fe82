//! close, dup, fcntl, ioctl.

use crate::{done, fail};
use fourwave_posix::{Errno, find, is_kept};
use std::ffi::{c_int, c_ulong};

/// close(2). Required for descriptors of fourwave's, and for epoll instances that watch them. With
/// SO_LINGER it waits.
#[unsafe(no_mangle)]
pub extern "C" fn fw_close(fd: c_int) -> c_int {
    if find(fd).is_some() {
        return done(fourwave_posix::close(fd));
    }
    if is_kept(fd) {
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
        // SAFETY: no memory is handed over.
        None => unsafe { libc::dup(fd) },
    }
}

/// dup2(2); either descriptor may be the kernel's.
#[unsafe(no_mangle)]
pub extern "C" fn fw_dup2(from: c_int, to: c_int) -> c_int {
    fourwave_posix::dup_to(from, to, None).unwrap_or_else(fail)
}

/// dup3(2); either descriptor may be the kernel's.
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
    // Those that the kernel does to any number.
    let on_number = [libc::FIOCLEX, libc::FIONCLEX].contains(&request);
    let found = find(fd).filter(|found| found.socket().is_ok() && !on_number);
    let Some(found) = found else {
        // SAFETY: as the caller says.
        return unsafe { libc::ioctl(fd, request, argument) };
    };
    let pointer = argument as *mut c_int;
    if pointer.is_null() {
        return fail(Errno::FAULT);
    }
    // SAFETY: those that are answered have a pointer to an int; others are not looked at.
    let given = if request == libc::FIONBIO { unsafe { *pointer } } else { 0 };
    let answer = found.socket().and_then(|socket| fourwave_posix::ioctl(socket, request, given));
    match answer {
        Ok(None) => 0,
        Ok(Some(answer)) => {
            // SAFETY: as above.
            unsafe { *pointer = answer };
            0
        }
        Err(errno) => fail(errno),
    }
}
