//! close, dup, fcntl, ioctl, fork.

use crate::{done, fail, next};
use fourwave_posix::{Errno, find, is_kept, is_own_descriptor, own_descriptors};
use libc::pid_t;
use std::ffi::{c_int, c_uint, c_ulong};

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn close(fd: c_int) -> c_int {
    if find(fd).is_some() {
        return done(fourwave_posix::close(fd));
    }
    // A program that closes all that it does not know spares what carries its sockets.
    if is_kept(fd) || is_own_descriptor(fd) {
        return fail(Errno::BADF);
    }
    // SAFETY: the caller's argument.
    unsafe { next::close(fd) }
}

/// libc closes the number of a stream past us, unless it is one of [ours](crate::streams): what stood
/// behind it would answer for the next descriptor that gets the number.
#[unsafe(no_mangle)]
unsafe extern "C" fn fclose(stream: *mut libc::FILE) -> c_int {
    if !stream.is_null() && !crate::streams::forget(stream) {
        // SAFETY: the caller's stream. -1 for one without a number.
        fourwave_posix::forget(unsafe { next::fileno(stream) });
    }
    // SAFETY: the caller's argument.
    unsafe { next::fclose(stream) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    // CLOSE_RANGE_CLOEXEC closes nothing now, and what is ours is closed by exec anyhow.
    if flags as c_uint & libc::CLOSE_RANGE_CLOEXEC == 0 && first <= last {
        return close_but_own(first, last, flags);
    }
    // SAFETY: the caller's arguments.
    unsafe { next::close_range(first, last, flags) }
}

/// Closes a range, but for what carries the sockets; `exec` closes that.
fn close_but_own(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    let number = |fd: c_uint| c_int::try_from(fd).unwrap_or(c_int::MAX);
    fourwave_posix::forget_range(number(first), number(last));
    let mut from = first;
    for own in own_descriptors().map(|fd| fd as c_uint).filter(|own| (first..=last).contains(own)) {
        if from < own {
            // SAFETY: the caller's numbers.
            let result = unsafe { next::close_range(from, own - 1, flags) };
            if result != 0 {
                return result;
            }
        }
        from = own + 1;
    }
    if from > last {
        return 0;
    }
    // SAFETY: the caller's numbers.
    unsafe { next::close_range(from, last, flags) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn closefrom(first: c_int) {
    // No number is refused, as in libc, which has no error to tell either.
    close_but_own(c_uint::try_from(first).unwrap_or(0), c_uint::MAX, 0);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dup(fd: c_int) -> c_int {
    match find(fd) {
        Some(found) => fourwave_posix::dup(fd, &found, 0, false).unwrap_or_else(fail),
        None if is_kept(fd) => fail(Errno::BADF),
        // SAFETY: the caller's argument.
        None => unsafe { next::dup(fd) },
    }
}

/// Whether a number means nothing to us.
fn is_kernels(fd: c_int) -> bool {
    find(fd).is_none() && !is_kept(fd) && !is_own_descriptor(fd)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    if is_kernels(old) && is_kernels(new) {
        // SAFETY: the caller's arguments.
        return unsafe { next::dup2(old, new) };
    }
    fourwave_posix::dup_to(old, new, None).unwrap_or_else(fail)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    if is_kernels(old) && is_kernels(new) {
        // SAFETY: the caller's arguments.
        return unsafe { next::dup3(old, new, flags) };
    }
    fourwave_posix::dup_to(old, new, Some(flags)).unwrap_or_else(fail)
}

/// libc's takes any number of arguments; a third is the only one that it has. Passed or not, it is
/// in the same register.
#[unsafe(no_mangle)]
unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    if let Some(found) = find(fd) {
        return fourwave_posix::fcntl(fd, &found, command, argument).unwrap_or_else(fail);
    }
    if is_kept(fd) {
        return fail(Errno::BADF);
    }
    // SAFETY: the caller's arguments.
    unsafe { next::fcntl(fd, command, argument) }
}

/// `fcntl` for programs built with large offsets.
#[unsafe(no_mangle)]
unsafe extern "C" fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    if find(fd).is_some() || is_kept(fd) {
        // SAFETY: the caller's arguments.
        return unsafe { fcntl(fd, command, argument) };
    }
    // SAFETY: the caller's arguments.
    unsafe { next::fcntl64(fd, command, argument) }
}

/// As [`fcntl`]: one argument, passed or not.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int {
    if let Some(found) = find(fd) {
        // SAFETY: the caller's arguments.
        let done = unsafe { fourwave_posix::ioctl(fd, &found, request, argument) };
        return done.unwrap_or_else(fail);
    }
    if is_kept(fd) {
        return fail(Errno::BADF);
    }
    // SAFETY: the caller's arguments.
    unsafe { next::ioctl(fd, request, argument) }
}

/// A child of vfork(2) would change our tables, which are its parent's too; POSIX allows that it
/// is a fork(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn vfork() -> pid_t {
    // SAFETY: fork(2) has no arguments.
    unsafe { next::fork() }
}
