//! The control socket: Unix `SOCK_SEQPACKET`, one message per packet, on tokio's reactor.

use fourwave_protocol::control::{MAX_DESCRIPTORS, MAX_MESSAGE};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use std::cell::Cell;
use std::io;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use tokio::io::unix::AsyncFd;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Who is at the other end, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// 0 for a process of a PID namespace that we do not see.
    pub(super) pid: i32,
    pub(super) uid: u32,
}

/// The listening socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct Door {
    socket: AsyncFd<OwnedFd>,
    path: PathBuf,
}

impl Door {
    /// Listens at `path`, replacing what a predecessor left there: the caller holds the lock of
    /// the folder. Every user may connect; the policy decides who may do what. Must be called in
    /// a tokio runtime.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn open(path: &Path) -> io::Result<Door> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let family = AddressFamily::UNIX;
        let socket = rustix::net::socket_with(family, SocketType::SEQPACKET, FLAGS, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(path, everyone)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Door { socket: register(socket)?, path: path.to_owned() })
    }

    /// The next client.
    ///
    /// # Errors
    /// Those of `accept(2)`, such as no descriptor left.
    pub(super) async fn accept(&self) -> io::Result<(Packets, Peer)> {
        loop {
            let mut ready = self.socket.readable().await?;
            let accept = |fd: &AsyncFd<OwnedFd>| Ok(rustix::net::accept_with(fd, FLAGS)?);
            match ready.try_io(accept) {
                Ok(Ok(socket)) => {
                    let peer = credentials(socket.as_fd())?;
                    return Ok((Packets::new(socket, false)?, peer));
                }
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Gone already, or the folder is: either is what is wanted.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// One client's connection.
#[derive(Debug)]
pub(super) struct Packets {
    socket: AsyncFd<OwnedFd>,
    /// Whether the kernel tells who has sent each packet.
    told: bool,
    sender: Cell<Option<Peer>>,
}

impl Packets {
    fn new(socket: OwnedFd, told: bool) -> io::Result<Packets> {
        Ok(Packets { socket: register(socket)?, told, sender: Cell::new(None) })
    }

    /// A connection made by ourselves: our end, on which the kernel tells who sends, and the
    /// client's, which is a blocking one.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(super) fn pair() -> io::Result<(Packets, OwnedFd)> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (ours, theirs) = rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        rustix::net::sockopt::set_socket_passcred(&ours, true)?;
        Ok((Packets::new(ours, true)?, theirs))
    }

    /// Who has sent the packet that was received last, if the kernel tells.
    pub(super) fn sender(&self) -> Option<Peer> {
        self.sender.get()
    }

    /// The next packet; `None` when the client is gone.
    ///
    /// # Errors
    /// `InvalidData` for a packet that is larger than any message; those of `recv(2)`.
    pub(super) async fn receive<'a>(
        &self,
        buffer: &'a mut [u8; MAX_MESSAGE],
    ) -> io::Result<Option<&'a [u8]>> {
        let length = loop {
            let mut ready = self.socket.readable().await?;
            let receive = |fd: &AsyncFd<OwnedFd>| {
                // TRUNC: the packet's own length. Descriptors that come along are not taken.
                if self.told {
                    let (length, sender) = receive_signed(fd.as_fd(), &mut buffer[..])?;
                    self.sender.set(sender);
                    return Ok(length);
                }
                let (_, length) = rustix::net::recv(fd, &mut buffer[..], RecvFlags::TRUNC)?;
                Ok(length)
            };
            match ready.try_io(receive) {
                Ok(Ok(length)) => break length,
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(None);
                }
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        };
        match length {
            0 => Ok(None),
            length => buffer.get(..length).map(Some).ok_or(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Sends a packet with descriptors. Waits while the client does not read: nothing is queued
    /// on our side.
    ///
    /// # Errors
    /// Those of `sendmsg(2)`; `BrokenPipe` when the client is gone.
    pub(super) async fn send(
        &self,
        packet: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        loop {
            let mut ready = self.socket.writable().await?;
            match ready.try_io(|fd| send(fd.as_fd(), packet, descriptors)) {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}

/// Puts a descriptor on the reactor of the current runtime.
pub(super) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, and stays the same descriptor until it is dropped; the AsyncFd
    // owns it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

fn send(socket: BorrowedFd<'_>, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        assert!(fits, "no reply has more descriptors");
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::sendmsg(socket, &[IoSlice::new(packet)], &mut ancillary, flags)?;
    Ok(())
}

/// Receives a packet and who has sent it (`SCM_CREDENTIALS`). Not through rustix, whose `Pid`
/// cannot be 0.
fn receive_signed(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<Peer>)> {
    // Room for credentials alone: descriptors that come along are dropped by the kernel. In u64s,
    // because a header must be aligned.
    let mut space = [0u64; 8];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: zeroes are a valid msghdr, an empty one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = space.as_mut_ptr().cast();
    // SAFETY: plain arithmetic on a size.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) } as usize;
    assert!(message.msg_controllen <= size_of_val(&space));
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the message names `buffer` and `space` with at most their sizes, and both live until
    // after the call; the descriptor is open while it is borrowed.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written well-formed headers to `space` and their length to `message`.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
    let is_signature = |header: &&libc::cmsghdr| {
        header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_CREDENTIALS
    };
    let sender = header.filter(is_signature).map(|header| {
        // SAFETY: a header of this type is followed by a ucred, perhaps not aligned; any bytes are
        // a valid one.
        let found: libc::ucred =
            unsafe { std::ptr::read_unaligned(libc::CMSG_DATA(header).cast()) };
        Peer { pid: found.pid, uid: found.uid }
    });
    Ok((length, sender))
}

/// `SO_PEERCRED`. Not through rustix, whose `Pid` cannot be 0.
fn credentials(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `found`, which has as many, and any
    // bytes are a valid ucred; the descriptor is open while it is borrowed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok(Peer { pid: found.pid, uid: found.uid }),
        _ => Err(io::Error::last_os_error()),
    }
}
