//! `libfourwave.so`: the calls of POSIX sockets under the names `fw_*`. `include/fourwave.h` is made
//! from what is exported here, and is what C programs read.
//!
//! Everything else is private to the library. A panic does not get out of it: it would be a bug of
//! ours, and ends the process as a failed assertion of C does.

#![expect(unreachable_pub, reason = "what C programs see is public, and cbindgen looks for that")]

mod descriptors;
mod sockets;
mod transfer;
mod waiting;

use fourwave_posix::{Errno, Result, Socket, find, is_kept};
use std::ffi::{c_int, c_void};

/// Sets errno; -1.
fn fail(errno: Errno) -> c_int {
    // SAFETY: the calling thread's errno.
    unsafe { *libc::__errno_location() = errno.raw_os_error() };
    -1
}

/// 0, or -1 and errno.
fn done(result: Result<()>) -> c_int {
    result.map_or_else(fail, |()| 0)
}

/// A number, or -1 and errno.
fn count(result: Result<usize>) -> libc::ssize_t {
    result.map_or_else(|errno| fail(errno) as libc::ssize_t, |count| count as libc::ssize_t)
}

/// Calls with the socket behind `fd`; `None` if `fd` is the kernel's.
fn with<T>(fd: c_int, call: impl FnOnce(&Socket) -> Result<T>) -> Option<Result<T>> {
    match find(fd) {
        Some(found) => Some(found.socket().and_then(call)),
        // Open, for the next accept; not the program's.
        None => is_kept(fd).then_some(Err(Errno::BADF)),
    }
}

/// Whether a pointer that the call needs is there.
fn given<T>(pointer: *const T) -> Result<()> {
    if pointer.cast::<c_void>().is_null() { Err(Errno::FAULT) } else { Ok(()) }
}
