//! poll, select, epoll.

use crate::transfer::check;
use crate::{count, done, fail, next};
use fourwave_posix::select::{Sets, words};
use fourwave_posix::{Errno, Result, epoll, find, poll as both};
use libc::{epoll_event, fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval};
use std::ffi::{c_int, c_long};
use std::slice;
use std::time::{Duration, Instant};

/// A `struct timespec`.
fn time(seconds: i64, nanos: c_long) -> Result<Duration> {
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let seconds = u64::try_from(seconds).map_err(|_| Errno::INVAL)?;
    Ok(Duration::new(seconds, nanos.ok_or(Errno::INVAL)?))
}

/// A `struct timeval`. As for Linux's select(2) a second's worth of microseconds and more is fine.
fn time_of(time: &timeval) -> Result<Duration> {
    let seconds = u64::try_from(time.tv_sec).map_err(|_| Errno::INVAL)?;
    let micros = u64::try_from(time.tv_usec).map_err(|_| Errno::INVAL)?;
    Ok(Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros)))
}

fn millis(timeout: c_int) -> Option<Duration> {
    u64::try_from(timeout).ok().map(Duration::from_millis)
}

/// # Safety
/// Null or the caller's.
unsafe fn timespec_of(timeout: *const timespec) -> Result<Option<Duration>> {
    // SAFETY: as the caller says.
    let timeout = unsafe { timeout.as_ref() };
    timeout.map(|timeout| time(timeout.tv_sec, timeout.tv_nsec)).transpose()
}

/// # Safety
/// `fds` points to `number` entries.
unsafe fn entries<'a>(fds: *mut pollfd, number: nfds_t) -> &'a mut [pollfd] {
    if fds.is_null() || number == 0 {
        return &mut [];
    }
    // SAFETY: as the caller says.
    unsafe { slice::from_raw_parts_mut(fds, number as usize) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn poll(fds: *mut pollfd, number: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the caller's entries.
    let entries = unsafe { entries(fds, number) };
    if !both::concerns(entries) {
        // SAFETY: the caller's arguments.
        return unsafe { next::poll(fds, number, timeout) };
    }
    count(both::poll(entries, millis(timeout), None)) as c_int
}

/// `poll` with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __poll_chk(
    fds: *mut pollfd,
    number: nfds_t,
    timeout: c_int,
    room: size_t,
) -> c_int {
    check(number as usize * size_of::<pollfd>(), room);
    // SAFETY: the caller's arguments.
    unsafe { poll(fds, number, timeout) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ppoll(
    fds: *mut pollfd,
    number: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's entries.
    let entries = unsafe { entries(fds, number) };
    if !both::concerns(entries) {
        // SAFETY: the caller's arguments.
        return unsafe { next::ppoll(fds, number, timeout, mask) };
    }
    // SAFETY: null or the caller's.
    let (timeout, mask) = unsafe { (timespec_of(timeout), mask.as_ref()) };
    count(timeout.and_then(|timeout| both::poll(entries, timeout, mask))) as c_int
}

/// `ppoll` with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __ppoll_chk(
    fds: *mut pollfd,
    number: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    room: size_t,
) -> c_int {
    check(number as usize * size_of::<pollfd>(), room);
    // SAFETY: the caller's arguments.
    unsafe { ppoll(fds, number, timeout, mask) }
}

/// # Safety
/// The sets are null or have `nfds` bits, in whole words.
unsafe fn sets<'a>(
    nfds: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
) -> Option<Sets<'a>> {
    let nfds = usize::try_from(nfds).ok()?;
    let bits = |set: *mut fd_set| {
        // SAFETY: as the caller says; the words of a set are 64 bits.
        (!set.is_null()).then(|| unsafe { slice::from_raw_parts_mut(set.cast(), words(nfds)) })
    };
    Some(Sets { nfds, read: bits(read), write: bits(write), except: bits(except) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn select(
    nfds: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    // SAFETY: the caller's sets.
    let Some(sets) = unsafe { sets(nfds, read, write, except) }.filter(Sets::concern) else {
        // SAFETY: the caller's arguments.
        return unsafe { next::select(nfds, read, write, except, timeout) };
    };
    // SAFETY: null or the caller's.
    let timeout = unsafe { timeout.as_mut() };
    let whole = timeout.as_ref().map(|whole| time_of(whole)).transpose();
    let whole = match whole {
        Ok(whole) => whole,
        Err(errno) => return fail(errno),
    };
    let start = Instant::now();
    let result = sets.select(whole, None);
    if let (Some(timeout), Some(whole)) = (timeout, whole) {
        // As Linux: what is left of it.
        let left = whole.saturating_sub(start.elapsed());
        timeout.tv_sec = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        timeout.tv_usec = left.subsec_micros().into();
    }
    count(result) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pselect(
    nfds: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's sets.
    let Some(sets) = unsafe { sets(nfds, read, write, except) }.filter(Sets::concern) else {
        // SAFETY: the caller's arguments.
        return unsafe { next::pselect(nfds, read, write, except, timeout, mask) };
    };
    // SAFETY: null or the caller's.
    let (timeout, mask) = unsafe { (timespec_of(timeout), mask.as_ref()) };
    count(timeout.and_then(|timeout| sets.select(timeout, mask))) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_ctl(
    epfd: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    match find(fd).filter(|found| found.socket().is_ok()) {
        Some(found) => {
            // SAFETY: null or the caller's.
            let event = unsafe { event.as_ref() }.copied();
            done(epoll::control(epfd, operation, fd, &found, event))
        }
        // SAFETY: the caller's arguments.
        None => unsafe { next::epoll_ctl(epfd, operation, fd, event) },
    }
}

/// Waits where the sockets are. `kernel` is libc's own call for an instance without any of ours,
/// with the time that is left.
///
/// # Safety
/// `events` has room for that many events.
unsafe fn epoll_both(
    epfd: c_int,
    events: *mut epoll_event,
    room: c_int,
    timeout: Option<Duration>,
    mask: Option<&sigset_t>,
    kernel: impl Fn() -> c_int,
) -> c_int {
    let start = Instant::now();
    let left = || timeout.map(|whole| whole.saturating_sub(start.elapsed()));
    let out = || {
        let room = usize::try_from(room).unwrap_or(0);
        if events.is_null() {
            return &mut [][..];
        }
        // SAFETY: as the caller says.
        unsafe { slice::from_raw_parts_mut(events, room) }
    };
    if find(epfd).is_none() {
        let told = kernel();
        // It may have become one of ours while the thread slept in the kernel's call.
        let Some(found) = find(epfd) else { return told };
        let Ok(number @ 1..) = usize::try_from(told) else { return told };
        let (kept, rung) = epoll::strip(&found, &mut out()[..number]);
        if kept > 0 || !rung {
            return kept as c_int;
        }
    }
    match find(epfd) {
        Some(found) => count(epoll::wait(epfd, &found, out(), left(), mask)) as c_int,
        None => fail(Errno::BADF),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_wait(
    epfd: c_int,
    events: *mut epoll_event,
    room: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe {
        let kernel = || next::epoll_wait(epfd, events, room, timeout);
        epoll_both(epfd, events, room, millis(timeout), None, kernel)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_pwait(
    epfd: c_int,
    events: *mut epoll_event,
    room: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe {
        let kernel = || next::epoll_pwait(epfd, events, room, timeout, mask);
        epoll_both(epfd, events, room, millis(timeout), mask.as_ref(), kernel)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_pwait2(
    epfd: c_int,
    events: *mut epoll_event,
    room: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe {
        let kernel = || next::epoll_pwait2(epfd, events, room, timeout, mask);
        match timespec_of(timeout) {
            Ok(time) => epoll_both(epfd, events, room, time, mask.as_ref(), kernel),
            Err(errno) => fail(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let read = |tv_sec, tv_usec| time_of(&timeval { tv_sec, tv_usec });
        assert_eq!(read(1, 5), Ok(Duration::from_micros(1_000_005)));
        assert_eq!(read(0, 1_500_000), Ok(Duration::from_millis(1500)), "as Linux takes it");
        assert_eq!((read(-1, 0), read(0, -1)), (Err(Errno::INVAL), Err(Errno::INVAL)));
        assert_eq!(time(1, 1_000_000_000), Err(Errno::INVAL));
        assert_eq!(time(1, 5), Ok(Duration::new(1, 5)));
    }
}
