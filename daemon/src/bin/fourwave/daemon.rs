//! The connection to the daemon's control socket, and what can go wrong with it.

use fourwave_protocol::control::{MAX_MESSAGE, Malformed, Reply, Request, decode, encode};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::path::{Path, PathBuf};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no fourwaved answers at {0}: {1} (is it running? --runtime-dir names another one)")]
    Connect(PathBuf, io::Error),
    #[error("this user may not connect to fourwaved at {0} (permissions of its folder?)")]
    MayNot(PathBuf),
    #[error("talking to fourwaved: {0}")]
    Talk(io::Error),
    #[error("writing: {0}")]
    Output(io::Error),
    #[error("fourwaved is of another release than this tool: {0}")]
    Malformed(#[from] Malformed),
    #[error("fourwaved refuses: {0}")]
    Refused(String),
    #[error("{0}")]
    Usage(String),
}

impl Failure {
    /// An answer that does not belong to the question.
    pub(crate) fn unexpected(_reply: &Reply) -> Failure {
        Failure::Refused("it gave an answer to something else".to_owned())
    }

    /// Whether nobody reads what we print any more.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// A connected daemon.
pub(crate) struct Daemon {
    socket: OwnedFd,
    buffer: Box<[u8; MAX_MESSAGE]>,
}

impl Daemon {
    /// Connects to the daemon whose `runtime_dir` this is, or to that of this machine.
    pub(crate) fn connect(runtime_dir: Option<&Path>) -> Result<Daemon, Failure> {
        let path = socket_path(runtime_dir);
        let connect = || -> io::Result<OwnedFd> {
            let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
            let socket = rustix::net::socket_with(family, SocketType::SEQPACKET, flags, None)?;
            rustix::net::connect(&socket, &SocketAddrUnix::new(&path)?)?;
            Ok(socket)
        };
        match connect() {
            Ok(socket) => Ok(Daemon { socket, buffer: Box::new([0; MAX_MESSAGE]) }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Failure::MayNot(path))
            }
            Err(error) => Err(Failure::Connect(path, error)),
        }
    }

    /// Sends a request.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<(), Failure> {
        let packet = encode(request, &mut self.buffer)?;
        let sent = rustix::net::send(&self.socket, packet, SendFlags::NOSIGNAL);
        sent.map_err(|errno| Failure::Talk(errno.into()))?;
        Ok(())
    }

    /// Asks something that is answered by text; all of it.
    pub(crate) fn text(&mut self, request: &Request) -> Result<String, Failure> {
        self.ask(request)?;
        let mut all = String::new();
        loop {
            match self.reply()? {
                Reply::Text { text, more } => {
                    all += &text;
                    if !more {
                        return Ok(all);
                    }
                }
                other => return Err(Failure::unexpected(&other)),
            }
        }
    }

    /// The next reply. A refusal is an error.
    pub(crate) fn reply(&mut self) -> Result<Reply, Failure> {
        let received = rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::empty());
        let (_, length) = received.map_err(|errno| Failure::Talk(errno.into()))?;
        Daemon::read(&self.buffer[..length])
    }

    /// What a packet says; an empty one says that the daemon is gone. A refusal is an error.
    pub(crate) fn read(packet: &[u8]) -> Result<Reply, Failure> {
        if packet.is_empty() {
            return Err(Failure::Talk(io::ErrorKind::UnexpectedEof.into()));
        }
        match decode(packet)? {
            // What a daemon says to a question that it does not know yet.
            Reply::Error { errno, .. } if errno == Errno::PROTO.raw_os_error() => {
                Err(Failure::Refused("it is of an older release than this tool".to_owned()))
            }
            Reply::Error { detail, .. } => Err(Failure::Refused(detail)),
            reply => Ok(reply),
        }
    }

    /// The socket, for who waits for other things too.
    pub(crate) fn into_socket(self) -> OwnedFd {
        self.socket
    }
}

/// Where the daemon listens: as asked for, or where programs on this machine find it.
fn socket_path(runtime_dir: Option<&Path>) -> PathBuf {
    match (runtime_dir, std::env::var_os("FOURWAVE_SOCKET")) {
        (Some(folder), _) => folder.join("control.sock"),
        (None, Some(path)) => path.into(),
        (None, None) => "/run/fourwave/control.sock".into(),
    }
}
