//! Calls of the kernel, made directly: under `LD_PRELOAD` libc's functions lead back here.

use crate::error::{Errno, Result};
use crate::sockaddr;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use std::net::SocketAddr;
use std::os::fd::{IntoRawFd, RawFd};
use std::time::Duration;
use syscalls::{Sysno, syscall};

/// Bytes of the kernel's signal set.
const SIGSET_BYTES: usize = 8;

/// A signal mask for the time of a wait.
pub(crate) type Mask<'a> = Option<&'a libc::sigset_t>;

/// A number as a descriptor for the time of a call.
fn borrowed<'a>(fd: RawFd) -> Result<BorrowedFd<'a>> {
    if fd < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: not -1. Whether it is open is for the kernel to say: it is used for system calls
    // that take numbers from programs anyway.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

fn result(result: std::result::Result<usize, syscalls::Errno>) -> Result<usize> {
    result.map_err(|errno| Errno::from_raw_os_error(errno.into_raw()))
}

fn mask_pointer(mask: Mask<'_>) -> *const libc::sigset_t {
    mask.map_or(std::ptr::null(), std::ptr::from_ref)
}

pub(crate) fn close(fd: RawFd) -> Result<()> {
    // SAFETY: closes a number that the caller owns.
    result(unsafe { syscall!(Sysno::close, fd) }).map(|_| ())
}

/// The lowest free number from `least` on for what `fd` is.
pub(crate) fn dup_from(fd: RawFd, least: RawFd, cloexec: bool) -> Result<RawFd> {
    let fd = borrowed(fd)?;
    let new = fcntl_dupfd_cloexec(fd, least)?;
    if !cloexec {
        fcntl_setfd(&new, FdFlags::empty())?;
    }
    Ok(new.into_raw_fd())
}

/// As [`dup_from`], for the caller's own descriptor.
pub(crate) fn dup_own(fd: &impl AsFd, cloexec: bool) -> Result<RawFd> {
    let new = fcntl_dupfd_cloexec(fd, 0)?;
    if !cloexec {
        fcntl_setfd(&new, FdFlags::empty())?;
    }
    Ok(new.into_raw_fd())
}

/// `dup3(2)`, or `dup2(2)` for `None`.
pub(crate) fn dup_to(old: RawFd, new: RawFd, flags: Option<i32>) -> Result<RawFd> {
    // SAFETY: numbers only; what `new` stood for is closed as the caller asked.
    let done = unsafe {
        match flags {
            Some(flags) => syscall!(Sysno::dup3, old, new, flags),
            // Not every architecture has dup2(2).
            None if old == new => syscall!(Sysno::fcntl, old, libc::F_GETFD).map(|_| new as usize),
            None => syscall!(Sysno::dup3, old, new, 0),
        }
    };
    result(done).map(|fd| fd as RawFd)
}

pub(crate) fn fcntl(fd: RawFd, command: i32, argument: usize) -> Result<i32> {
    // SAFETY: the argument is the caller's, as fcntl(2) wants it for the command.
    result(unsafe { syscall!(Sysno::fcntl, fd, command, argument) }).map(|value| value as i32)
}

pub(crate) fn ioctl(fd: RawFd, request: libc::c_ulong, argument: usize) -> Result<i32> {
    // SAFETY: the argument is the caller's, as ioctl(2) wants it for the request.
    result(unsafe { syscall!(Sysno::ioctl, fd, request, argument) }).map(|value| value as i32)
}

pub(crate) fn socket(domain: i32, kind: i32, protocol: i32) -> Result<RawFd> {
    // SAFETY: numbers only.
    result(unsafe { syscall!(Sysno::socket, domain, kind, protocol) }).map(|fd| fd as RawFd)
}

pub(crate) fn setsockopt(fd: RawFd, level: i32, name: i32, value: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads `value`, as long as it is.
    let done = unsafe { syscall!(Sysno::setsockopt, fd, level, name, value.as_ptr(), value.len()) };
    result(done).map(|_| ())
}

/// Writes at most `value`; returns how many bytes.
pub(crate) fn getsockopt(fd: RawFd, level: i32, name: i32, value: &mut [u8]) -> Result<usize> {
    let mut length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    // SAFETY: the kernel writes at most `length` bytes, which `value` has, and the length.
    let done = unsafe {
        syscall!(Sysno::getsockopt, fd, level, name, value.as_mut_ptr(), &raw mut length)
    };
    result(done).map(|_| length as usize)
}

pub(crate) fn getsockname(fd: RawFd) -> Result<SocketAddr> {
    let mut storage = sockaddr::Storage::default();
    let (address, length) = storage.parts();
    // SAFETY: the kernel writes at most as many bytes as the storage says that it has.
    result(unsafe { syscall!(Sysno::getsockname, fd, address, length) })?;
    storage.address().ok_or(Errno::AFNOSUPPORT)
}

/// Waits for descriptors of the kernel. As `ppoll(2)`, for ever with `None`.
pub(crate) fn poll(
    fds: &mut [libc::pollfd],
    timeout: Option<Duration>,
    mask: Mask<'_>,
) -> Result<usize> {
    let mut time = timeout.map(timespec);
    let time = time.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
    let mask = mask_pointer(mask);
    // SAFETY: the kernel changes the entries and the time that it is given; the mask is read.
    let done =
        unsafe { syscall!(Sysno::ppoll, fds.as_mut_ptr(), fds.len(), time, mask, SIGSET_BYTES) };
    result(done)
}

/// `epoll_pwait(2)`; the time is rounded up to milliseconds.
pub(crate) fn epoll_wait(
    epfd: RawFd,
    events: &mut [libc::epoll_event],
    timeout: Option<Duration>,
    mask: Mask<'_>,
) -> Result<usize> {
    let millis = timeout
        .map_or(-1, |time| i32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
    let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
    let mask = mask_pointer(mask);
    // SAFETY: the kernel writes at most `room` events.
    let done = unsafe {
        syscall!(Sysno::epoll_pwait, epfd, events.as_mut_ptr(), room, millis, mask, SIGSET_BYTES)
    };
    result(done)
}

pub(crate) fn epoll_ctl(
    epfd: RawFd,
    operation: i32,
    fd: RawFd,
    event: Option<libc::epoll_event>,
) -> Result<()> {
    let mut event = event;
    let event = event.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
    // SAFETY: the kernel reads the event.
    result(unsafe { syscall!(Sysno::epoll_ctl, epfd, operation, fd, event) }).map(|_| ())
}

/// Sends a signal to the calling thread.
pub(crate) fn raise(signal: i32) {
    // SAFETY: numbers only. It cannot fail for a thread that runs.
    let _ = unsafe {
        let pid = syscall!(Sysno::getpid).unwrap_or_default();
        let thread = syscall!(Sysno::gettid).unwrap_or_default();
        syscall!(Sysno::tgkill, pid, thread, signal)
    };
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
