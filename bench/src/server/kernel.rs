//! The server on kernel sockets: epoll, `accept4`.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::engine::{self, Interest, Sockets};
use super::{BACKLOG, EVENTS, Readiness, ServerConfig, on_all_cpus};

struct Epoll {
    epoll: OwnedFd,
    listeners: Vec<OwnedFd>,
    events: Vec<Event>,
}

/// Serves until the process is ended.
///
/// # Errors
/// When it cannot listen, or epoll fails.
pub fn serve(config: &ServerConfig) -> io::Result<()> {
    on_all_cpus(config, |readiness| serve_thread(config, readiness))
}

fn serve_thread(config: &ServerConfig, readiness: &Readiness<'_>) -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut listeners = Vec::new();
    for (token, &address) in config.listen.iter().enumerate() {
        let listener = listen(address, config)?;
        epoll::add(&epoll, &listener, EventData::new_u64(token as u64), EventFlags::IN)?;
        listeners.push(listener);
    }
    readiness.listening()?;
    let events = Vec::with_capacity(EVENTS);
    engine::run(Epoll { epoll, listeners, events }, config)
}

/// A listening socket as the configuration wants it.
pub(super) fn listen(address: SocketAddr, config: &ServerConfig) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if config.shares_addresses() {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if config.defer_accept {
        set_defer_accept(&socket)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// `TCP_DEFER_ACCEPT`, for as long as the first SYN-ACK would wait for an answer.
fn set_defer_accept(socket: &OwnedFd) -> io::Result<()> {
    let seconds: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `seconds` is an integer of that length and lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Sockets for Epoll {
    type Stream = TcpStream;

    fn wait(&mut self, ready: &mut Vec<usize>) -> io::Result<()> {
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.clear();
        ready.extend(self.events.iter().map(|event| event.data.u64() as usize));
        Ok(())
    }

    fn accept(&mut self, listener: usize) -> io::Result<Option<TcpStream>> {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            return match rustix::net::accept_with(&self.listeners[listener], flags) {
                Ok(fd) => Ok(Some(TcpStream::from(fd))),
                Err(Errno::AGAIN) => Ok(None),
                // The connection died in the queue; the next may live.
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                // Out of descriptors or memory: connections that close make room.
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Ok(None),
                Err(error) => Err(error.into()),
            };
        }
    }

    fn peer(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        stream.peer_addr()
    }

    fn watch(&mut self, stream: &TcpStream, token: usize, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, stream, EventData::new_u64(token as u64), flags(interest))?)
    }

    fn change(&mut self, stream: &TcpStream, token: usize, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, stream, EventData::new_u64(token as u64), flags(interest))?)
    }
}

fn flags(interest: Interest) -> EventFlags {
    match interest {
        Interest::Read => EventFlags::IN,
        Interest::Write => EventFlags::OUT,
    }
}
