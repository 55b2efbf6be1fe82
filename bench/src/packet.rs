//! Whole link-layer frames, received and sent in batches on one interface (`packet(7)`).

use std::ffi::CString;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Frames per system call.
pub const BATCH: usize = 64;

/// Most bytes of a frame: a link without jumbo frames, with room for VLAN tags.
pub const FRAME_BYTES: usize = 2048;

/// Bytes that may wait to be received: a whole receive window of a peer, and the kernel's overhead.
const RECEIVE_BUFFER: libc::c_int = 64 << 20;

/// Room for one frame, and how much of it is used.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Box<[u8; FRAME_BYTES]>,
    len: usize,
}

impl Frame {
    /// Room without a frame in it.
    pub fn new() -> Frame {
        Frame { bytes: Box::new([0; FRAME_BYTES]), len: 0 }
    }

    /// The frame.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The frame is these bytes now.
    ///
    /// # Panics
    /// When they are more than [`FRAME_BYTES`].
    pub fn fill(&mut self, bytes: &[u8]) {
        self.len = bytes.len();
        self.bytes[..self.len].copy_from_slice(bytes);
    }
}

impl Default for Frame {
    fn default() -> Self {
        Frame::new()
    }
}

/// Everything that an interface receives, and a way to send on it.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// Opens one on `interface` of the calling thread's namespace. It does not block, does not see
    /// what is sent on the interface, and what it sends skips the queueing discipline.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`, `ENODEV` when there is no such interface.
    pub fn open(interface: &str) -> io::Result<PacketSocket> {
        let name = CString::new(interface)?;
        // SAFETY: `name` is NUL-terminated and lives until the call returns.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let index = i32::try_from(index).ok().filter(|index| *index > 0);
        let index = index.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Protocol 0: nothing is received before the socket is bound to the interface.
        // SAFETY: takes no pointers.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: just made, and nobody else's.
        let socket = PacketSocket { fd: unsafe { OwnedFd::from_raw_fd(fd) } };
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        // SAFETY: all-zero is a valid `sockaddr_ll`: integers and bytes.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: `address` is a `sockaddr_ll` of that length and lives until the call returns.
        check(unsafe { libc::bind(fd, (&raw const address).cast(), length) })?;
        Ok(socket)
    }

    /// Receives up to [`BATCH`] frames into the room that `frames` offers; returns how many.
    ///
    /// # Errors
    /// Whatever `recvmmsg` says; nothing to receive is no error. Frames that the room cannot hold
    /// are cut off.
    pub fn receive(&self, frames: &mut [Frame]) -> io::Result<usize> {
        // SAFETY: all-zero is a valid `iovec` and a valid `mmsghdr`: integers and null pointers.
        let mut parts: [libc::iovec; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        let count = frames.len().min(BATCH);
        for ((frame, part), message) in frames.iter_mut().zip(&mut parts).zip(&mut messages) {
            part.iov_base = frame.bytes.as_mut_ptr().cast();
            part.iov_len = FRAME_BYTES;
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        let fd = self.fd.as_raw_fd();
        // SAFETY: the first `count` headers name one `iovec` each, which names the bytes of a frame
        // that is borrowed mutably until the call returns.
        let received = unsafe {
            libc::recvmmsg(
                fd,
                messages.as_mut_ptr(),
                count as libc::c_uint,
                0,
                std::ptr::null_mut(),
            )
        };
        match check(received) {
            Ok(received) => {
                for (frame, message) in frames.iter_mut().zip(&messages).take(received as usize) {
                    frame.len = message.msg_len as usize;
                }
                Ok(received as usize)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Sends up to [`BATCH`] of `frames`; returns how many, 0 when there is no room now.
    ///
    /// # Errors
    /// Whatever `sendmmsg` says.
    pub fn send<'a>(&self, frames: impl Iterator<Item = &'a [u8]>) -> io::Result<usize> {
        // SAFETY: all-zero is a valid `iovec` and a valid `mmsghdr`: integers and null pointers.
        let mut parts: [libc::iovec; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        let mut count = 0;
        for ((frame, part), message) in frames.zip(&mut parts).zip(&mut messages) {
            part.iov_base = frame.as_ptr().cast_mut().cast();
            part.iov_len = frame.len();
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            count += 1;
        }
        if count == 0 {
            return Ok(0);
        }
        let fd = self.fd.as_raw_fd();
        // SAFETY: the first `count` headers name one `iovec` each, which names a slice that lives
        // for 'a and is only read.
        let sent = unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), count, 0) };
        match check(sent) {
            Ok(sent) => Ok(sent as usize),
            Err(error) if is_congestion(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Frames that came and found no room since the last call.
    ///
    /// # Errors
    /// Whatever `getsockopt` says.
    pub fn take_overruns(&self) -> io::Result<u64> {
        // SAFETY: all-zero is a valid `tpacket_stats`: two integers.
        let mut stats: libc::tpacket_stats = unsafe { zeroed() };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        let fd = self.fd.as_raw_fd();
        // SAFETY: `stats` and `length` live until the call returns, and `length` is the size of
        // `stats`.
        check(unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        })?;
        Ok(u64::from(stats.tp_drops))
    }

    fn set(&self, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        let fd = self.fd.as_raw_fd();
        // SAFETY: `value` is an integer of that length and lives until the call returns.
        let result =
            unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), length) };
        check(result).map(drop)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn is_congestion(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
