//! The control socket: requests and replies, one at a time.

use crate::aside::OwnDescriptor;
use crate::error::{explained, gone};
use crate::fork::Mutex;
use fourwave_protocol::control::{MAX_DESCRIPTORS, MAX_MESSAGE, Reply, Request, decode, encode};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sockopt,
};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long a reply may take before the daemon counts as stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the daemon's control socket.
#[derive(Debug)]
pub(crate) struct Control {
    socket: OwnDescriptor,
    /// Held from request to reply, so that replies find their requests. Large buffers live here
    /// and not on the stacks of small threads.
    buffer: Mutex<Box<[u8; MAX_MESSAGE]>>,
    /// Replies that are on their way and that nobody waits for.
    unwanted: AtomicU32,
}

impl Control {
    /// Connects to the socket at `path`.
    pub(crate) fn connect(path: &Path) -> io::Result<Control> {
        let absent = |errno: Errno| absent(path, errno);
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let socket =
            OwnDescriptor::new(rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?);
        let address = SocketAddrUnix::new(path)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        rustix::net::connect(&socket, &address).map_err(absent)?;
        Ok(Control {
            socket,
            buffer: Mutex::new(Box::new([0; MAX_MESSAGE])),
            unwanted: AtomicU32::new(0),
        })
    }

    /// Sends a request and waits for its reply and the descriptors that came with it. A refusal
    /// is an error with the daemon's words.
    pub(crate) fn request(&self, request: &Request) -> io::Result<(Reply, Vec<OwnDescriptor>)> {
        let mut buffer = self.buffer.lock();
        self.skip_unwanted(&mut buffer)?;
        self.send(request, &mut buffer)?;
        self.receive(&mut buffer)
    }

    /// Sends a request and does not wait for its reply.
    pub(crate) fn announce(&self, request: &Request) -> io::Result<()> {
        let mut buffer = self.buffer.lock();
        self.send(request, &mut buffer)?;
        // Relaxed: under the lock.
        self.unwanted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn skip_unwanted(&self, buffer: &mut [u8; MAX_MESSAGE]) -> io::Result<()> {
        while self.unwanted.load(Ordering::Relaxed) > 0 {
            // Refused or not.
            self.receive_any(buffer)?;
            self.unwanted.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// In a child: `connection`, made for it by the daemon, takes the place of its parent's.
    pub(crate) fn replace(&self, connection: OwnDescriptor) -> io::Result<()> {
        sockopt::set_socket_timeout(&connection, sockopt::Timeout::Recv, Some(PATIENCE))?;
        crate::fork::replace(self.socket.as_fd(), connection)?;
        self.unwanted.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// In a child without a connection of its own: lets go of its parent's.
    pub(crate) fn hang_up(&self) -> io::Result<()> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        // The other end is closed at once: this one is hung up.
        let (end, _) = rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)?;
        Ok(crate::fork::replace(self.socket.as_fd(), end)?)
    }

    /// Sends a request that is answered by text, however long.
    pub(crate) fn text(&self, request: &Request) -> io::Result<String> {
        let mut buffer = self.buffer.lock();
        self.skip_unwanted(&mut buffer)?;
        self.send(request, &mut buffer)?;
        let mut all = String::new();
        loop {
            match self.receive(&mut buffer)?.0 {
                Reply::Text { text, more } => {
                    all.push_str(&text);
                    if !more {
                        return Ok(all);
                    }
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    fn send(&self, request: &Request, buffer: &mut [u8; MAX_MESSAGE]) -> io::Result<()> {
        let packet = encode(request, buffer)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        loop {
            match rustix::net::send(&self.socket, packet, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => return Err(gone()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// A reply; a refusal is an error.
    fn receive(&self, buffer: &mut [u8; MAX_MESSAGE]) -> io::Result<(Reply, Vec<OwnDescriptor>)> {
        match self.receive_any(buffer)? {
            (Reply::Error { errno, detail }, _) => Err(explained(errno, detail)),
            reply => Ok(reply),
        }
    }

    fn receive_any(
        &self,
        buffer: &mut [u8; MAX_MESSAGE],
    ) -> io::Result<(Reply, Vec<OwnDescriptor>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let length = loop {
            let mut into = [IoSliceMut::new(&mut buffer[..])];
            let flags = RecvFlags::CMSG_CLOEXEC;
            match rustix::net::recvmsg(&self.socket, &mut into, &mut ancillary, flags) {
                Ok(message) if message.bytes == 0 => return Err(gone()),
                Ok(message) => break message.bytes,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Err(gone()),
                Err(Errno::AGAIN) => {
                    return Err(explained(
                        Errno::TIMEDOUT.raw_os_error(),
                        "the fourwave daemon does not answer",
                    ));
                }
                Err(errno) => return Err(errno.into()),
            }
        };
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                descriptors.extend(fds.map(OwnDescriptor::new));
            }
        }
        match decode(&buffer[..length]) {
            Ok(reply) => Ok((reply, descriptors)),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    /// Whether the daemon has closed its end. A system call.
    pub(crate) fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match rustix::event::poll(&mut fds, Some(&now)) {
            Ok(_) => fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR),
            Err(_) => false,
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A reply that does not belong to the request.
pub(crate) fn unexpected(reply: &Reply) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the fourwave daemon gave an answer that does not fit: {reply:?}"),
    )
}

fn absent(path: &Path, errno: Errno) -> io::Error {
    let path = path.display();
    match errno {
        Errno::NOENT | Errno::CONNREFUSED => explained(
            Errno::NETDOWN.raw_os_error(),
            format!(
                "no fourwave daemon answers at {path}; start fourwaved, or name its socket in \
                 the environment variable FOURWAVE_SOCKET"
            ),
        ),
        errno => explained(
            errno.raw_os_error(),
            format!("cannot connect to the fourwave daemon at {path}"),
        ),
    }
}
