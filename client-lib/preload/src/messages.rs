//! recvmsg, sendmsg, recvmmsg, sendmmsg.

use crate::sockets::with;
use crate::transfer::send_all;
use crate::{count, fail, memory, next, report};
use fourwave_posix::{Errno, Result, Socket, find};
use libc::{mmsghdr, msghdr, ssize_t, timespec};
use std::ffi::{c_int, c_uint};

/// # Safety
/// `message` is null or the caller's.
unsafe fn receive(socket: &Socket, message: *mut msghdr, flags: c_int) -> Result<usize> {
    // SAFETY: as the caller says.
    let message = unsafe { message.as_mut() }.ok_or(Errno::FAULT)?;
    // SAFETY: the message's vectors.
    let mut bufs = unsafe { memory::slices_mut(message.msg_iov, message.msg_iovlen) }?;
    let received = socket.receive(&mut bufs, flags)?;
    (message.msg_namelen, message.msg_controllen) = (0, 0);
    message.msg_flags = received.flags;
    Ok(received.bytes)
}

/// # Safety
/// `message` is null or the caller's.
unsafe fn transmit(socket: &Socket, message: *const msghdr, flags: c_int) -> Result<usize> {
    // SAFETY: as the caller says.
    let message = unsafe { message.as_ref() }.ok_or(Errno::FAULT)?;
    if message.msg_controllen != 0 {
        return Err(Errno::INVAL);
    }
    // SAFETY: the message's vectors.
    send_all(socket, &unsafe { memory::slices(message.msg_iov, message.msg_iovlen) }?, flags)
}

/// Whether a message would hand on one of our descriptors.
///
/// # Safety
/// `message` is null or the caller's.
unsafe fn hands_on(message: *const msghdr) -> bool {
    // SAFETY: as the caller says.
    let Some(header) = (unsafe { message.as_ref() }) else { return false };
    if header.msg_controllen == 0 || header.msg_control.is_null() {
        return false;
    }
    // SAFETY: libc's macros walk over control data that is as long as the message says.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(message);
        while let Some(part) = control.as_ref() {
            if (part.cmsg_level, part.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let bytes = part.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
                let data = libc::CMSG_DATA(control).cast::<c_int>();
                let fds = bytes / size_of::<c_int>();
                if (0..fds).any(|index| is_ours(data.add(index).read_unaligned())) {
                    return true;
                }
            }
            control = libc::CMSG_NXTHDR(message, control);
        }
    }
    false
}

fn is_ours(fd: c_int) -> bool {
    find(fd).is_some_and(|found| found.served().is_some())
}

fn refuse() -> c_int {
    report::once(
        "a fourwave socket cannot be sent to another process over a Unix socket (SCM_RIGHTS)",
    );
    fail(Errno::OPNOTSUPP)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's message.
    match with(fd, |socket| unsafe { receive(socket, message, flags) }) {
        Some(result) => count(result),
        // SAFETY: the caller's arguments.
        None => unsafe { next::recvmsg(fd, message, flags) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's message.
    match with(fd, |socket| unsafe { transmit(socket, message, flags) }) {
        Some(result) => count(result),
        // SAFETY: the caller's message.
        None if unsafe { hands_on(message) } => refuse() as ssize_t,
        // SAFETY: the caller's arguments.
        None => unsafe { next::sendmsg(fd, message, flags) },
    }
}

/// One message after the other: what there is after the first does not wait. The timeout is only
/// looked at by the kernel between messages, of which a stream has one.
#[unsafe(no_mangle)]
unsafe extern "C" fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    number: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    let received = with(fd, |socket| {
        // SAFETY: the caller's messages.
        unsafe {
            each(messages, number, |message, at| {
                let wait = if at == 0 { 0 } else { libc::MSG_DONTWAIT };
                receive(socket, message, flags & !libc::MSG_WAITFORONE | wait)
            })
        }
    });
    match received {
        Some(result) => count(result) as c_int,
        // SAFETY: the caller's arguments.
        None => unsafe { next::recvmmsg(fd, messages, number, flags, timeout) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sendmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    number: c_uint,
    flags: c_int,
) -> c_int {
    let sent = with(fd, |socket| {
        // SAFETY: the caller's messages.
        unsafe { each(messages, number, |message, _| transmit(socket, message, flags)) }
    });
    if let Some(result) = sent {
        return count(result) as c_int;
    }
    for at in 0..number as usize {
        // SAFETY: the caller's messages.
        if unsafe { hands_on(&raw const (*messages.add(at)).msg_hdr) } {
            return refuse();
        }
    }
    // SAFETY: the caller's arguments.
    unsafe { next::sendmmsg(fd, messages, number, flags) }
}

/// Does a call for each message until one has nothing; returns how many were done.
///
/// # Safety
/// `messages` points to `number` messages.
unsafe fn each(
    messages: *mut mmsghdr,
    number: c_uint,
    mut call: impl FnMut(*mut msghdr, usize) -> Result<usize>,
) -> Result<usize> {
    let mut done = 0;
    for at in 0..number as usize {
        // SAFETY: as the caller says.
        let message = unsafe { &mut *messages.add(at) };
        match call(&raw mut message.msg_hdr, at) {
            Ok(bytes) => message.msg_len = bytes as c_uint,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
        done += 1;
        if message.msg_len == 0 {
            break;
        }
    }
    Ok(done)
}
