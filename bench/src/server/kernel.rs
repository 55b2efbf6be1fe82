//! The server on kernel sockets: epoll, `accept4`, one thread.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::session::{Session, Step};
use super::{BACKLOG, ServerConfig, announce};

/// Events taken from epoll at once.
const EVENTS: usize = 256;

/// Connections accepted before the others get their turn.
const ACCEPT_BATCH: usize = 64;

/// Bytes read at once.
const SCRATCH: usize = 64 * 1024;

/// A connection that had to wait for its peer.
struct Waiting {
    stream: TcpStream,
    session: Session,
    interest: EventFlags,
}

struct Server {
    epoll: OwnedFd,
    listeners: Vec<OwnedFd>,
    /// Tokens below `listeners.len()` are listeners, the others are indices in here above that.
    waiting: Vec<Option<Waiting>>,
    free: Vec<usize>,
    size: usize,
    scratch: Vec<u8>,
}

/// Serves until the process is ended.
///
/// # Errors
/// When it cannot listen, or epoll fails.
pub fn serve(config: &ServerConfig) -> io::Result<()> {
    let mut server = Server {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        listeners: Vec::new(),
        waiting: Vec::new(),
        free: Vec::new(),
        size: config.size,
        scratch: vec![0; SCRATCH],
    };
    for (token, &address) in config.listen.iter().enumerate() {
        let listener = listen(address)?;
        epoll::add(&server.epoll, &listener, EventData::new_u64(token as u64), EventFlags::IN)?;
        server.listeners.push(listener);
    }
    announce(&config.listen)?;
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        events.clear();
        match epoll::wait(&server.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let token = event.data.u64() as usize;
            match token.checked_sub(server.listeners.len()) {
                None => server.accept(token)?,
                Some(index) => server.resume(index)?,
            }
        }
    }
}

impl Server {
    fn accept(&mut self, token: usize) -> io::Result<()> {
        for _ in 0..ACCEPT_BATCH {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let stream = match rustix::net::accept_with(&self.listeners[token], flags) {
                Ok(fd) => TcpStream::from(fd),
                Err(Errno::AGAIN) => return Ok(()),
                // The connection died in the queue; the next may live.
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                // Out of descriptors or memory: those that close make room.
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            self.begin(stream)?;
        }
        Ok(())
    }

    /// The request is often there already: then epoll never hears of this connection.
    fn begin(&mut self, mut stream: TcpStream) -> io::Result<()> {
        let mut session = Session::default();
        let Ok(step) = session.drive(&mut stream, self.size, &mut self.scratch) else {
            return Ok(());
        };
        let Some(interest) = interest(step) else { return Ok(()) };
        let index = self.free.pop().unwrap_or_else(|| {
            self.waiting.push(None);
            self.waiting.len() - 1
        });
        let token = EventData::new_u64((index + self.listeners.len()) as u64);
        epoll::add(&self.epoll, &stream, token, interest)?;
        self.waiting[index] = Some(Waiting { stream, session, interest });
        Ok(())
    }

    fn resume(&mut self, index: usize) -> io::Result<()> {
        let Some(waiting) = self.waiting.get_mut(index).and_then(Option::as_mut) else {
            return Ok(());
        };
        let stepped = waiting.session.drive(&mut waiting.stream, self.size, &mut self.scratch);
        // A peer that resets its connection ends it: that is its own affair.
        match stepped.ok().and_then(interest) {
            Some(wanted) if wanted == waiting.interest => Ok(()),
            Some(wanted) => {
                let token = EventData::new_u64((index + self.listeners.len()) as u64);
                waiting.interest = wanted;
                Ok(epoll::modify(&self.epoll, &waiting.stream, token, wanted)?)
            }
            None => {
                // Closing the last descriptor also takes it out of the epoll set.
                self.waiting[index] = None;
                self.free.push(index);
                Ok(())
            }
        }
    }
}

fn interest(step: Step) -> Option<EventFlags> {
    match step {
        Step::Read => Some(EventFlags::IN),
        Step::Write => Some(EventFlags::OUT),
        Step::Done => None,
    }
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
