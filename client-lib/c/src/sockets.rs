//! socket, bind, listen, accept, connect, shutdown, names and options.

use crate::{done, fail, given, with};
use fourwave_posix::{
    Domain, Errno, Result, Socket, last_explanation, memory, sockaddr as addresses,
};
use libc::{sockaddr, socklen_t};
use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::net::SocketAddr;
use std::ptr::null;

/// socket(2): a TCP socket of fourwave's. `domain` is AF_INET or AF_INET6, `kind` SOCK_STREAM, with
/// SOCK_NONBLOCK and SOCK_CLOEXEC; `protocol` 0 or IPPROTO_TCP.
/// EAFNOSUPPORT, ESOCKTNOSUPPORT and EPROTONOSUPPORT for others.
#[unsafe(no_mangle)]
pub extern "C" fn fw_socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    socket(domain, kind, protocol).unwrap_or_else(fail)
}

fn socket(domain: c_int, kind: c_int, protocol: c_int) -> Result<c_int> {
    const FLAGS: c_int = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let domain = Domain::of(domain).ok_or(Errno::AFNOSUPPORT)?;
    if kind & !FLAGS != libc::SOCK_STREAM {
        return Err(Errno::SOCKTNOSUPPORT);
    }
    if ![0, libc::IPPROTO_TCP].contains(&protocol) {
        return Err(Errno::PROTONOSUPPORT);
    }
    Socket::create(domain, kind & FLAGS)
}

/// bind(2). EADDRINUSE and EACCES come with an explanation, as does ENETDOWN without a daemon.
///
/// # Safety
/// `address` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    let ours = with(fd, |socket| {
        given(address)?;
        // SAFETY: as the caller says.
        socket.bind(fd, addresses::read(unsafe { memory::address(address, length) })?)
    });
    // SAFETY: as the caller says.
    ours.map_or_else(|| unsafe { libc::bind(fd, address, length) }, done)
}

/// listen(2). At any free port if the socket has no address.
#[unsafe(no_mangle)]
pub extern "C" fn fw_listen(fd: c_int, backlog: c_int) -> c_int {
    let ours = with(fd, |socket| socket.listen(fd, backlog));
    // SAFETY: no memory is handed over.
    ours.map_or_else(|| unsafe { libc::listen(fd, backlog) }, done)
}

/// accept(2): fw_accept4 without flags.
///
/// # Safety
/// `address` and `length` are null, or `address` points to as many bytes as `length` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_accept(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: as the caller says.
    unsafe { fw_accept4(fd, address, length, 0) }
}

/// accept4(2). `flags` are SOCK_NONBLOCK and SOCK_CLOEXEC.
///
/// # Safety
/// `address` and `length` are null, or `address` points to as many bytes as `length` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_accept4(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    let ours = with(fd, |socket| {
        let (accepted, peer) = socket.accept(flags)?;
        // SAFETY: as the caller says.
        let told = unsafe { memory::put_address(address, length, peer) };
        told.map(|()| accepted).inspect_err(|_| {
            // As in Linux the connection is lost.
            let _ = fourwave_posix::close(accepted);
        })
    });
    match ours {
        Some(result) => result.unwrap_or_else(fail),
        // SAFETY: as the caller says.
        None => unsafe { libc::accept4(fd, address, length, flags) },
    }
}

/// connect(2). A socket that is bound cannot connect: EOPNOTSUPP.
///
/// # Safety
/// `address` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_connect(
    fd: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> c_int {
    let ours = with(fd, |socket| {
        given(address)?;
        // SAFETY: as the caller says.
        socket.connect(fd, addresses::read(unsafe { memory::address(address, length) })?)
    });
    // SAFETY: as the caller says.
    ours.map_or_else(|| unsafe { libc::connect(fd, address, length) }, done)
}

/// shutdown(2).
#[unsafe(no_mangle)]
pub extern "C" fn fw_shutdown(fd: c_int, how: c_int) -> c_int {
    let ours = with(fd, |socket| socket.shutdown(how));
    // SAFETY: no memory is handed over.
    ours.map_or_else(|| unsafe { libc::shutdown(fd, how) }, done)
}

/// # Safety
/// As [`memory::put_address`].
unsafe fn tell(name: Result<SocketAddr>, out: *mut sockaddr, length: *mut socklen_t) -> Result<()> {
    let name = name?;
    given(out)?;
    // SAFETY: as the caller says.
    unsafe { memory::put_address(out, length, name) }
}

/// getsockname(2).
///
/// # Safety
/// `address` points to as many bytes as `length` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_getsockname(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: as the caller says.
    let ours = with(fd, |socket| unsafe { tell(socket.local(fd), address, length) });
    // SAFETY: as the caller says.
    ours.map_or_else(|| unsafe { libc::getsockname(fd, address, length) }, done)
}

/// getpeername(2).
///
/// # Safety
/// `address` points to as many bytes as `length` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_getpeername(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: as the caller says.
    let ours = with(fd, |socket| unsafe { tell(socket.peer(), address, length) });
    // SAFETY: as the caller says.
    ours.map_or_else(|| unsafe { libc::getpeername(fd, address, length) }, done)
}

/// setsockopt(2). ENOPROTOOPT for options that fourwave does not have: nothing is accepted and then
/// ignored.
///
/// # Safety
/// `value` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    let ours = with(fd, |socket| {
        // SAFETY: as the caller says.
        socket.setsockopt(fd, level, name, unsafe { memory::bytes(value, length as usize) }?)
    });
    // SAFETY: as the caller says.
    ours.map_or_else(|| unsafe { libc::setsockopt(fd, level, name, value, length) }, done)
}

/// getsockopt(2).
///
/// # Safety
/// `value` points to as many bytes as `length` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fw_getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    let ours = with(fd, |socket| {
        given(length)?;
        // SAFETY: as the caller says.
        let room = unsafe { *length };
        if room > i32::MAX as socklen_t {
            return Err(Errno::INVAL);
        }
        // SAFETY: as the caller says.
        let out = unsafe { memory::bytes_mut(value, room as usize) }?;
        let written = socket.getsockopt(fd, level, name, out)?;
        // SAFETY: as the caller says. No more than there was room for.
        unsafe { *length = written as socklen_t };
        Ok(())
    });
    // SAFETY: as the caller says.
    ours.map_or_else(|| unsafe { libc::getsockopt(fd, level, name, value, length) }, done)
}

thread_local! {
    static EXPLANATION: RefCell<Option<CString>> = const { RefCell::new(None) };
}

/// What the last failure of this thread that came with an explanation was about, in a sentence: who
/// holds the port, which daemon does not answer. NULL if there was none. The string is valid until
/// the thread calls this again.
#[unsafe(no_mangle)]
pub extern "C" fn fw_explanation() -> *const c_char {
    let Some(text) = last_explanation().and_then(|text| CString::new(text).ok()) else {
        return null();
    };
    let kept = EXPLANATION.try_with(|kept| {
        *kept.borrow_mut() = Some(text);
        kept.borrow().as_ref().map_or(null(), |text| text.as_ptr())
    });
    // A thread that is ending keeps none.
    kept.unwrap_or(null())
}
