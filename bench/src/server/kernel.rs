//! The server on kernel sockets: epoll, `accept4`, one thread.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::engine::{self, Interest, Sockets};
use super::{BACKLOG, EVENTS, ServerConfig, announce};

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
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut listeners = Vec::new();
    for (token, &address) in config.listen.iter().enumerate() {
        let listener = listen(address)?;
        epoll::add(&epoll, &listener, EventData::new_u64(token as u64), EventFlags::IN)?;
        listeners.push(listener);
    }
    announce(&config.listen)?;
    let events = Vec::with_capacity(EVENTS);
    engine::run(Epoll { epoll, listeners, events }, config.listen.len(), config.size)
}

fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
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
