//! Calls on descriptors: close, dup, fcntl, ioctl.

use crate::description::{Description, Found};
use crate::error::{Errno, Result};
use crate::kernel;
use crate::numbers;
use crate::socket::{Socket, close_number};
use crate::table::{self, Owner};
use std::os::fd::RawFd;
use std::sync::Arc;

/// Bytes that were not sent yet (`linux/sockios.h`).
const SIOCOUTQNSD: libc::c_ulong = 0x894b;

/// Requests about interfaces, addresses and routes: from `SIOCADDRT` on, which the kernel answers
/// through any socket.
const OF_INTERFACES: std::ops::RangeInclusive<libc::c_ulong> = 0x890b..=0x89ff;

/// Requests about who gets signals: from `FIOSETOWN` to `SIOCGPGRP`, beside `F_SETOWN`.
const OF_OWNERS: std::ops::RangeInclusive<libc::c_ulong> = 0x8901..=0x8904;

/// Status flags that are kept and told, and mean nothing on a socket.
const KEPT: i32 = libc::O_APPEND | libc::O_NOATIME;

/// Whether urgent data comes next (`linux/sockios.h`).
const SIOCATMARK: libc::c_ulong = 0x8905;

/// Status flags that are not offered. The kernel refuses the second too.
const REFUSED: i32 = libc::O_ASYNC | libc::O_DIRECT;

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
/// `EBADF` and `EINVAL` as the kernel says; `EBADF` also for a number that carries the sockets
/// themselves.
pub fn dup_to(old: RawFd, new: RawFd, flags: Option<i32>) -> Result<RawFd> {
    if table::is_kept(old) || crate::is_own_descriptor(new) {
        return Err(Errno::BADF);
    }
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
/// `EINVAL` for status flags that are not offered (`O_ASYNC`), or as the kernel says.
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
            let waits = if socket.is_nonblocking() { libc::O_NONBLOCK } else { 0 };
            Ok(libc::O_RDWR | waits | socket.idle_flags())
        }
        libc::F_SETFL => set_status(fd, socket, argument as i32),
        _ => kernel::fcntl(fd, command, argument),
    }
}

fn set_status(fd: RawFd, socket: &Socket, flags: i32) -> Result<i32> {
    if !socket.is_served() {
        // While it is not decided, the kernel's socket is kept alike.
        kernel::fcntl(fd, libc::F_SETFL, flags as usize)?;
    } else if flags & REFUSED != 0 {
        return Err(Errno::INVAL);
    }
    socket.set_nonblocking(flags & libc::O_NONBLOCK != 0);
    socket.set_idle_flags(flags & KEPT);
    Ok(0)
}

/// `ioctl(2)` on a number that was found. The argument is as the call's.
///
/// # Errors
/// `ENOTTY` for requests that a TCP socket does not have, or that are not offered; `EFAULT` without
/// a pointer that is needed.
///
/// # Safety
/// `argument` is what the request wants: for those that are answered here null or a pointer to an
/// `int`, which need not be aligned.
pub unsafe fn ioctl(
    fd: RawFd,
    found: &Found,
    request: libc::c_ulong,
    argument: usize,
) -> Result<i32> {
    // Those that the kernel does to any number.
    if [libc::FIOCLEX, libc::FIONCLEX].contains(&request) {
        let done = kernel::ioctl(fd, request, argument)?;
        table::set_cloexec(fd, request == libc::FIOCLEX);
        return Ok(done);
    }
    let pointer = argument as *mut i32;
    match &**found {
        Description::Socket(socket) if socket.is_served() => {
            let answer = match request {
                libc::FIONREAD => i32::try_from(socket.unread()?).unwrap_or(i32::MAX),
                libc::TIOCOUTQ => i32::try_from(socket.unacknowledged()?).unwrap_or(i32::MAX),
                SIOCOUTQNSD => i32::try_from(socket.unsent()?).unwrap_or(i32::MAX),
                // Urgent data is received in line, and its mark is not kept.
                SIOCATMARK => 0,
                request if OF_INTERFACES.contains(&request) || OF_OWNERS.contains(&request) => {
                    return kernel::ioctl(fd, request, argument);
                }
                libc::FIONBIO | libc::FIOASYNC if pointer.is_null() => return Err(Errno::FAULT),
                // It is off.
                // SAFETY: as the caller says, and not null.
                libc::FIOASYNC if unsafe { pointer.read_unaligned() } == 0 => return Ok(0),
                libc::FIONBIO => {
                    // SAFETY: as the caller says, and not null.
                    socket.set_nonblocking(unsafe { pointer.read_unaligned() } != 0);
                    return Ok(0);
                }
                _ => return Err(Errno::NOTTY),
            };
            if pointer.is_null() {
                return Err(Errno::FAULT);
            }
            // SAFETY: as the caller says, and not null.
            unsafe { pointer.write_unaligned(answer) };
            Ok(0)
        }
        Description::Socket(socket) => {
            // While it is not decided, both are kept alike.
            let done = kernel::ioctl(fd, request, argument)?;
            if request == libc::FIONBIO {
                // SAFETY: as the caller says; the kernel has read it.
                socket.set_nonblocking(unsafe { pointer.read_unaligned() } != 0);
            }
            Ok(done)
        }
        Description::Epoll(_) => kernel::ioctl(fd, request, argument),
    }
}
