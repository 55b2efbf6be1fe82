//! `syscall(2)`: programs that name calls by number.

use crate::next;
use std::ffi::{c_int, c_long, c_uint, c_void};

unsafe extern "C" {
    // Ours, defined in this library.
    fn accept4(
        fd: c_int,
        address: *mut libc::sockaddr,
        length: *mut libc::socklen_t,
        flags: c_int,
    ) -> c_int;
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int;
}

/// libc's takes any number of arguments; the first six are in registers, passed or not, and the
/// seventh, on the stack, is the caller's frame at worst.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    let fd = a as c_int;
    // SAFETY: the caller's arguments, for the call of this number.
    unsafe {
        match number {
            libc::SYS_socket => libc::socket(fd, b as c_int, c as c_int).into(),
            libc::SYS_close => libc::close(fd).into(),
            libc::SYS_close_range => close_range(a as c_uint, b as c_uint, c as c_int).into(),
            libc::SYS_accept4 => {
                accept4(fd, b as *mut libc::sockaddr, c as *mut libc::socklen_t, d as c_int).into()
            }
            libc::SYS_accept => {
                accept4(fd, b as *mut libc::sockaddr, c as *mut libc::socklen_t, 0).into()
            }
            libc::SYS_bind => {
                libc::bind(fd, b as *const libc::sockaddr, c as libc::socklen_t).into()
            }
            libc::SYS_listen => libc::listen(fd, b as c_int).into(),
            libc::SYS_connect => {
                libc::connect(fd, b as *const libc::sockaddr, c as libc::socklen_t).into()
            }
            libc::SYS_shutdown => libc::shutdown(fd, b as c_int).into(),
            libc::SYS_read => libc::read(fd, b as *mut c_void, c as usize) as c_long,
            libc::SYS_write => libc::write(fd, b as *const c_void, c as usize) as c_long,
            libc::SYS_readv => libc::readv(fd, b as *const libc::iovec, c as c_int) as c_long,
            libc::SYS_writev => libc::writev(fd, b as *const libc::iovec, c as c_int) as c_long,
            libc::SYS_recvfrom => libc::recvfrom(
                fd,
                b as *mut c_void,
                c as usize,
                d as c_int,
                e as *mut libc::sockaddr,
                f as *mut libc::socklen_t,
            ) as c_long,
            libc::SYS_sendto => libc::sendto(
                fd,
                b as *const c_void,
                c as usize,
                d as c_int,
                e as *const libc::sockaddr,
                f as libc::socklen_t,
            ) as c_long,
            libc::SYS_recvmsg => libc::recvmsg(fd, b as *mut libc::msghdr, c as c_int) as c_long,
            libc::SYS_sendmsg => libc::sendmsg(fd, b as *const libc::msghdr, c as c_int) as c_long,
            libc::SYS_getsockname => {
                libc::getsockname(fd, b as *mut libc::sockaddr, c as *mut libc::socklen_t).into()
            }
            libc::SYS_getpeername => {
                libc::getpeername(fd, b as *mut libc::sockaddr, c as *mut libc::socklen_t).into()
            }
            libc::SYS_getsockopt => libc::getsockopt(
                fd,
                b as c_int,
                c as c_int,
                d as *mut c_void,
                e as *mut libc::socklen_t,
            )
            .into(),
            libc::SYS_setsockopt => libc::setsockopt(
                fd,
                b as c_int,
                c as c_int,
                d as *const c_void,
                e as libc::socklen_t,
            )
            .into(),
            libc::SYS_epoll_ctl => {
                libc::epoll_ctl(fd, b as c_int, c as c_int, d as *mut libc::epoll_event).into()
            }
            libc::SYS_epoll_pwait => libc::epoll_pwait(
                fd,
                b as *mut libc::epoll_event,
                c as c_int,
                d as c_int,
                e as *const libc::sigset_t,
            )
            .into(),
            libc::SYS_fcntl => libc::fcntl(fd, b as c_int, c as usize).into(),
            libc::SYS_ioctl => libc::ioctl(fd, b as libc::c_ulong, c as usize).into(),
            libc::SYS_dup => libc::dup(fd).into(),
            libc::SYS_dup3 => libc::dup3(fd, b as c_int, c as c_int).into(),
            libc::SYS_sendfile => {
                libc::sendfile(fd, b as c_int, c as *mut libc::off_t, d as usize) as c_long
            }
            libc::SYS_splice => libc::splice(
                fd,
                b as *mut libc::loff_t,
                c as c_int,
                d as *mut libc::loff_t,
                e as usize,
                f as c_uint,
            ) as c_long,
            _ => older(number, a, b, c, d, e, f),
        }
    }
}

/// Calls that newer architectures have no number for.
///
/// # Safety
/// The caller's arguments, for the call of this number.
unsafe fn older(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    // SAFETY: the caller's arguments.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        match number {
            libc::SYS_poll => {
                return libc::poll(a as *mut libc::pollfd, b as libc::nfds_t, c as c_int).into();
            }
            libc::SYS_dup2 => return libc::dup2(a as c_int, b as c_int).into(),
            libc::SYS_epoll_wait => {
                let events = b as *mut libc::epoll_event;
                return libc::epoll_wait(a as c_int, events, c as c_int, d as c_int).into();
            }
            _ => {}
        }
        next::syscall(number, a, b, c, d, e, f)
    }
}
