//! `libfourwave_preload.so`: put into `LD_PRELOAD`, it gives an unmodified program sockets of
//! fourwave for the ports that `FOURWAVE_PORTS` names, and for the destinations that
//! `FOURWAVE_CONNECT` names; all others stay the kernel's. The README beside this has the rest.
//!
//! Each module has a family of libc's functions. All of them look first whether the descriptor is
//! one of ours, which costs two loads, and pass everything else to the next library's function.

mod choice;
mod configuration;
mod files;
mod messages;
mod names;
mod next;
mod report;
mod sockets;
mod streams;
mod syscall;
mod transfer;
mod waiting;

use fourwave_posix::memory;
use std::ffi::c_int;

/// Before the program's own code, which may change its environment, and may call from where hardly
/// anything is allowed.
extern "C" fn begin() {
    next::find_all();
    configuration::get();
}

#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

/// What a function of libc returns that has failed.
fn fail(errno: fourwave_posix::Errno) -> c_int {
    // SAFETY: the calling thread's errno.
    unsafe { *libc::__errno_location() = errno.raw_os_error() };
    -1
}

/// What a function of libc returns: 0, or -1 and errno.
fn done(result: fourwave_posix::Result<()>) -> c_int {
    result.map_or_else(fail, |()| 0)
}

/// What a function of libc returns that counts.
fn count(result: fourwave_posix::Result<usize>) -> libc::ssize_t {
    result.map_or_else(|errno| fail(errno) as libc::ssize_t, |count| count as libc::ssize_t)
}
