//! The server on fourwave: the library's poller.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use fourwave::{Events, Poller, SocketOptions, TcpListener, TcpStream, Trigger};

use super::engine::{self, Interest, Sockets};
use super::{BACKLOG, EVENTS, Readiness, ServerConfig, on_all_cpus};

struct Fourwave {
    poller: Poller,
    listeners: Vec<TcpListener>,
    events: Events,
}

/// Serves until the process is ended, through the daemon that `FOURWAVE_SOCKET` names.
///
/// # Errors
/// When there is no daemon, when it does not let us listen, or when it goes away.
pub fn serve(config: &ServerConfig) -> io::Result<()> {
    on_all_cpus(config, |readiness| serve_thread(config, readiness))
}

fn serve_thread(config: &ServerConfig, readiness: &Readiness<'_>) -> io::Result<()> {
    let poller = Poller::new()?;
    let mut options = SocketOptions::new().backlog(BACKLOG.unsigned_abs()).nonblocking(true);
    if config.shares_addresses() {
        options = options.reuse_port(true);
    }
    if config.defer_accept {
        options = options.defer_accept(Duration::from_secs(1));
    }
    let mut listeners = Vec::new();
    for (token, &address) in config.listen.iter().enumerate() {
        let listener = options.bind(address)?;
        poller.add(&listener, token, fourwave::Interest::READABLE, Trigger::Level)?;
        listeners.push(listener);
    }
    readiness.listening()?;
    let events = Events::with_capacity(EVENTS);
    engine::run(Fourwave { poller, listeners, events }, config)
}

impl Sockets for Fourwave {
    type Stream = TcpStream;

    fn wait(&mut self, ready: &mut Vec<usize>) -> io::Result<()> {
        ready.clear();
        match self.poller.wait(&mut self.events, None) {
            Ok(_) => {}
            // A debugger has come or gone, for one.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        ready.extend(self.events.iter().map(|event| event.key()));
        Ok(())
    }

    fn accept(&mut self, listener: usize) -> io::Result<Option<TcpStream>> {
        match self.listeners[listener].accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                Ok(Some(stream))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn peer(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        stream.peer_addr()
    }

    fn watch(&mut self, stream: &TcpStream, token: usize, interest: Interest) -> io::Result<()> {
        self.poller.add(stream, token, translate(interest), Trigger::Level)
    }

    fn change(&mut self, stream: &TcpStream, token: usize, interest: Interest) -> io::Result<()> {
        self.poller.modify(stream, token, translate(interest), Trigger::Level)
    }
}

fn translate(interest: Interest) -> fourwave::Interest {
    match interest {
        Interest::Read => fourwave::Interest::READABLE,
        Interest::Write => fourwave::Interest::WRITABLE,
    }
}
