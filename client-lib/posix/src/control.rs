//! Calls on descriptors: close, dup, fcntl, ioctl.

use crate::description::{Description, Found};
use crate::error::{Errno, Result};
use crate::kernel;
use crate::numbers;
use crate::socket::{Socket, close_number};
use crate::table::{self, Owner};
use std::os::fd::RawFd;
use std::sync::Arc;

/// Status flags that can be set on a socket of ours.
const SETTABLE: i32 = libc::O_NONBLOCK;

/// Whether urgent data comes next (`linux/sockios.h`).
const SIOCATMARK: libc::c_ulong = 0x8905;

/// Status flags that the kernel does not change on a socket either.
const IGNORED: i32 = libc::O_ACCMODE | libc::O_LARGEFILE | libc::O_CREAT | libc::O_EXCL;

/// `close(2)` of a number that [`find`](crate::find) finds. With `SO_LINGER` it waits.
///
/// # Errors
/// `EBADF` when another thread has closed it meanwhile.
pub fn close(fd: RawFd) -> Result<()> {
    close_number(fd)
}

/// Enters a new number for what `old` stands for.
fn enter(new: RawFd, description: Arc<Description>, owner: Owner) -> Result<RawFd> {
    if !table::has_room(new) {
        // Just made.
        let _ = kernel::close(new);
        return Err(Errno::MFILE);
    }
    table::insert(new, description, owner);
    Ok(new)
}

fn owner(old: RawFd, cloexec: bool) -> Owner {
    match table::owner(old) {
        Some(Owner::Lent { .. }) => Owner::Lent { cloexec },
        Some(Owner::Program) | None => Owner::Program,
    }
}

/// `dup(2)`, and `fcntl(2)` with `F_DUPFD`: the lowest free number from `least` on.
///
/// # Errors
/// `EMFILE` and `EINVAL` as the kernel says.
pub fn dup(old: RawFd, found: &Found, least: RawFd, cloexec: bool) -> Result<RawFd> {
    let new = kernel::dup_from(old, least, cloexec)?;
    enter(new, found.to_arc(), owner(old, cloexec))
}

/// `dup3(2)`, and for `None` `dup2(2)`: `old`, which may be the kernel's, gets the number `new`,
/// which may be ours.
///
/// # Errors
/// `EBADF` and `EINVAL` as the kernel says.
pub fn dup_to(old: RawFd, new: RawFd, flags: Option<i32>) -> Result<RawFd> {
    let found = crate::find(old);
    if old == new {
        return kernel::dup_to(old, new, flags);
    }
    if found.is_some() && !table::has_room(new) {
        return Err(Errno::BADF);
    }
    let done = kernel::dup_to(old, new, flags)?;
    // The kernel has put something else at the number.
    numbers::forget(new, new);
    let cloexec = flags.is_some_and(|flags| flags & libc::O_CLOEXEC != 0);
    match found {
        Some(found) => {
            // What it stood for before is closed by this, if it was the last number.
            drop(table::insert(new, found.to_arc(), owner(old, cloexec)));
        }
        None => drop(table::remove(new)),
    }
    Ok(done)
}

/// The kernel's own: the number is no more looked up.
pub fn forget(fd: RawFd) {
    drop(table::remove(fd));
}

/// `close_range(2)`: forgets what stands behind the numbers from `first` to `last`, which the
/// caller closes then.
pub fn forget_range(first: RawFd, last: RawFd) {
    numbers::forget(first, last);
    for fd in table::used(first, last) {
        drop(table::remove(fd));
    }
}

/// `fcntl(2)` on a number that was found. The argument is as the call's.
///
/// # Errors
/// `EINVAL` for status flags that are not offered (`O_ASYNC`, `O_DIRECT`), or as the kernel says.
pub fn fcntl(fd: RawFd, found: &Found, command: i32, argument: usize) -> Result<i32> {
    match command {
        libc::F_DUPFD => return dup(fd, found, argument as i32, false),
        libc::F_DUPFD_CLOEXEC => return dup(fd, found, argument as i32, true),
        libc::F_SETFD => {
            table::set_cloexec(fd, argument as i32 & libc::FD_CLOEXEC != 0);
            return kernel::fcntl(fd, command, argument);
        }
        _ => {}
    }
    let Description::Socket(socket) = &**found else {
        return kernel::fcntl(fd, command, argument);
    };
    match command {
        libc::F_GETFL if socket.is_served() => {
            Ok(libc::O_RDWR | if socket.is_nonblocking() { libc::O_NONBLOCK } else { 0 })
        }
        libc::F_SETFL => set_status(fd, socket, argument as i32),
        _ => kernel::fcntl(fd, command, argument),
    }
}

fn set_status(fd: RawFd, socket: &Socket, flags: i32) -> Result<i32> {
    if !socket.is_served() {
        // While it is not decided, the kernel's socket is kept alike.
        kernel::fcntl(fd, libc::F_SETFL, flags as usize)?;
    } else if flags & !(SETTABLE | IGNORED) != 0 {
        return Err(Errno::INVAL);
    }
    socket.set_nonblocking(flags & libc::O_NONBLOCK != 0);
    Ok(0)
}

/// What an `ioctl(2)` on a socket gives back through its argument.
///
/// # Errors
/// `ENOTTY` for requests that a TCP socket does not have, or that are not offered.
pub fn ioctl(socket: &Socket, request: libc::c_ulong, argument: i32) -> Result<Option<i32>> {
    match request {
        libc::FIONREAD => {
            let unread = socket.unread()?;
            Ok(Some(i32::try_from(unread).unwrap_or(i32::MAX)))
        }
        libc::FIONBIO => {
            socket.set_nonblocking(argument != 0);
            Ok(None)
        }
        // Urgent data is received in line, and its mark is not kept.
        SIOCATMARK => Ok(Some(0)),
        _ => Err(Errno::NOTTY),
    }
}
