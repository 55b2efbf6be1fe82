//! poll and epoll.

use crate::{count, done};
use fourwave_posix::{epoll, find, poll};
use libc::{epoll_event, nfds_t, pollfd};
use std::ffi::c_int;
use std::slice;
use std::time::Duration;

fn millis(timeout: c_int) -> Option<Duration> {
    u64::try_from(timeout).ok().map(Duration::from_millis)
}

/// poll(2), for descriptors of the kernel's and of fourwave's together.
///
/// # Safety
/// `fds` points to `number` entries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_poll(fds: *mut pollfd, number: nfds_t, timeout: c_int) -> c_int {
    let entries = if fds.is_null() || number == 0 {
        &mut []
    } else {
        // SAFETY: as the caller says.
        unsafe { slice::from_raw_parts_mut(fds, number as usize) }
    };
    if !poll::concerns(entries) {
        // SAFETY: as the caller says.
        return unsafe { libc::poll(fds, number, timeout) };
    }
    count(poll::poll(entries, millis(timeout), None)) as c_int
}

/// epoll_create1(2). The instance watches descriptors of the kernel's and of fourwave's.
#[unsafe(no_mangle)]
pub extern "C" fn fw_epoll_create1(flags: c_int) -> c_int {
    // SAFETY: no memory is handed over.
    unsafe { libc::epoll_create1(flags) }
}

/// epoll_ctl(2). Level-triggered, EPOLLET and EPOLLONESHOT; EPOLLIN, EPOLLOUT and EPOLLRDHUP.
///
/// # Safety
/// `event` is null or points to an event.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_epoll_ctl(
    epfd: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    match find(fd).filter(|found| found.socket().is_ok()) {
        Some(found) => {
            // SAFETY: as the caller says.
            let event = unsafe { event.as_ref() }.copied();
            done(epoll::control(epfd, operation, fd, &found, event))
        }
        // SAFETY: as the caller says.
        None => unsafe { libc::epoll_ctl(epfd, operation, fd, event) },
    }
}

/// epoll_wait(2).
///
/// # Safety
/// `events` has room for `room` events.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_epoll_wait(
    epfd: c_int,
    events: *mut epoll_event,
    room: c_int,
    timeout: c_int,
) -> c_int {
    let Some(found) = find(epfd) else {
        // SAFETY: as the caller says.
        return unsafe { wait_in_the_kernel(epfd, events, room, timeout) };
    };
    // SAFETY: as the caller says.
    let out = unsafe { room_for(events, room) };
    count(epoll::wait(epfd, &found, out, millis(timeout), None)) as c_int
}

/// The instance has no socket of ours, yet.
///
/// # Safety
/// As [`fw_epoll_wait`].
unsafe fn wait_in_the_kernel(
    epfd: c_int,
    events: *mut epoll_event,
    room: c_int,
    timeout: c_int,
) -> c_int {
    let begun = std::time::Instant::now();
    // SAFETY: as the caller says.
    let told = unsafe { libc::epoll_wait(epfd, events, room, timeout) };
    // Another thread may have added one while this one slept, which wakes it.
    let (Some(found), Ok(number @ 1..)) = (find(epfd), usize::try_from(told)) else { return told };
    // SAFETY: as the caller says.
    let out = unsafe { room_for(events, room) };
    let (kept, rung) = epoll::strip(&found, &mut out[..number]);
    if kept > 0 || !rung {
        return kept as c_int;
    }
    let left = millis(timeout).map(|whole| whole.saturating_sub(begun.elapsed()));
    count(epoll::wait(epfd, &found, out, left, None)) as c_int
}

/// # Safety
/// `events` has room for `room` events, or is null.
unsafe fn room_for<'a>(events: *mut epoll_event, room: c_int) -> &'a mut [epoll_event] {
    match usize::try_from(room) {
        // SAFETY: as the caller says.
        Ok(room) if !events.is_null() => unsafe { slice::from_raw_parts_mut(events, room) },
        _ => &mut [],
    }
}
