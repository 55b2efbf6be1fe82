//! The system calls that no crate of ours wraps. All `unsafe` of the control side is here.

use std::ffi::{CString, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// Commands of `bpf(2)`, from `enum bpf_cmd` in the kernel's `include/uapi/linux/bpf.h`.
const BPF_OBJ_GET: c_int = 7;
const BPF_PROG_TEST_RUN: c_int = 10;
const BPF_LINK_DETACH: c_int = 34;

/// `union bpf_attr` as `BPF_PROG_TEST_RUN` reads it, up to the last field used here.
#[repr(C)]
#[derive(Default)]
struct TestRunAttr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    _reserved: u32,
}

/// Runs an XDP program once on `frame`, in the kernel but without a device, and returns what the
/// program returns.
pub(crate) fn bpf_test_run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
    let size = u32::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut attr = TestRunAttr {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        data_size_in: size,
        data_in: frame.as_ptr() as u64,
        repeat: 1,
        ..TestRunAttr::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attr)?;
    Ok(attr.retval)
}

/// `union bpf_attr` as `BPF_OBJ_GET` reads it.
#[repr(C)]
struct ObjectGetAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens what is pinned at `path`.
pub(crate) fn bpf_object_get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjectGetAttr { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    let descriptor = bpf(BPF_OBJ_GET, &mut attr)?;
    // SAFETY: the call succeeded, so its result is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// `union bpf_attr` as `BPF_LINK_DETACH` reads it.
#[repr(C)]
struct LinkDetachAttr {
    link_fd: u32,
}

/// Takes the link's program off its interface, whoever else holds or pins the link. When this
/// returns, no frame reaches the program any more.
pub(crate) fn bpf_link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkDetachAttr { link_fd: link.as_raw_fd().cast_unsigned() };
    bpf(BPF_LINK_DETACH, &mut attr).map(|_| ())
}

fn bpf<T>(command: c_int, attr: &mut T) -> io::Result<c_int> {
    // SAFETY: `attr` is a live, initialised prefix of `union bpf_attr` for this command, and its
    // exact size is passed, so the kernel neither reads nor writes past it. The pointers that
    // callers put in it (a frame, a path that ends in 0) outlive the call and are only read.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attr).cast::<c_void>(), size_of::<T>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // The kernel's `int`, widened by `syscall`.
    Ok(result as c_int)
}

/// `SOL_XDP` option of Linux 6.17 and later: descriptors that one `sendto` may take in copy mode.
const XDP_MAX_TX_SKB_BUDGET: c_int = 9;

/// Lets one wake-up send up to `budget` frames in copy mode, where the kernel's default is 32.
pub(crate) fn set_tx_budget(socket: BorrowedFd<'_>, budget: u32) -> io::Result<()> {
    set_option(socket, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &budget)
}

/// A packet socket does not see what this machine sends.
pub(crate) fn packet_ignore_outgoing(socket: BorrowedFd<'_>) -> io::Result<()> {
    let yes: c_int = 1;
    set_option(socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &yes)
}

/// Gives a socket a classic BPF program that says what it takes.
pub(crate) fn attach_filter(
    socket: BorrowedFd<'_>,
    program: &[libc::sock_filter],
) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Binds a packet socket to an interface, for frames of all protocols.
pub(crate) fn packet_bind(socket: BorrowedFd<'_>, interface: u32) -> io::Result<()> {
    // SAFETY: integers and bytes, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = interface.cast_signed();
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` lives across the call, which reads `length` bytes of it.
    let result = unsafe { libc::bind(socket.as_raw_fd(), ptr::from_ref(&address).cast(), length) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn set_option<T>(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` lives across the call, which reads as many bytes as are passed. What it
    // points at (a filter of `len` operations) lives as long, and is only read.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EthtoolChannels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    pub(crate) rx: u32,
    pub(crate) tx: u32,
    other: u32,
    pub(crate) combined: u32,
}

const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// Asks the driver of `interface` for its numbers of queues, through any `socket`.
pub(crate) fn ethtool_channels(
    socket: BorrowedFd<'_>,
    interface: &str,
) -> io::Result<EthtoolChannels> {
    let mut channels = EthtoolChannels { cmd: ETHTOOL_GCHANNELS, ..EthtoolChannels::default() };
    // SAFETY: `cmd` makes the kernel write exactly this struct.
    unsafe { ethtool_ioctl(socket, interface, ptr::from_mut(&mut channels).cast())? };
    Ok(channels)
}

/// Hands a request to the driver of `interface`. What its command is, and the lengths in it, must
/// make the answer no longer than it: [`crate::rss`] sees to that.
pub(crate) fn ethtool(
    socket: BorrowedFd<'_>,
    interface: &str,
    request: &mut [u64],
) -> io::Result<()> {
    // SAFETY: the request is live and writable, and its maker has given it the length of the
    // answer that it asks for: `struct ethtool_rxnfc` for ETHTOOL_GRXFH, and for ETHTOOL_GRSSH
    // `struct ethtool_rxfh` with room for as much as its two lengths say.
    unsafe { ethtool_ioctl(socket, interface, request.as_mut_ptr().cast()) }
}

/// # Safety
/// `data` points at a request of ethtool's that is as long as its answer.
unsafe fn ethtool_ioctl(
    socket: BorrowedFd<'_>,
    interface: &str,
    data: *mut libc::c_char,
) -> io::Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    // The last byte stays 0, so that the name ends.
    let room = &mut name[..libc::IFNAMSIZ - 1];
    if interface.len() > room.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in room.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    let mut request =
        libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: data } };
    // SAFETY: the name ends in a 0; the caller vouches for `data`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
