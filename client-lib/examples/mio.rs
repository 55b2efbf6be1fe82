//! An echo server in mio's event loop, where fourwave's sockets are one source beside others.
//!
//! `cargo run --example mio -- 0.0.0.0:7777`

use fourwave::{Event, Events, Interest, Poller, SocketOptions, TcpStream, Trigger};
use mio::unix::SourceFd;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// mio's token for all sockets of fourwave's.
const FOURWAVE: mio::Token = mio::Token(0);
/// The poller's key of the listener. Connections have the keys above.
const LISTENER: usize = 0;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "0.0.0.0:7777".to_owned());
    let listener = SocketOptions::new().nonblocking(true).bind(address)?;
    let poller = Poller::new()?;
    poller.add(&listener, LISTENER, Interest::READABLE, Trigger::Level)?;
    let mut mio = mio::Poll::new()?;
    let descriptor = poller.as_fd().as_raw_fd();
    mio.registry().register(&mut SourceFd(&descriptor), FOURWAVE, mio::Interest::READABLE)?;
    eprintln!("listening on {}", listener.local_addr()?);

    let mut connections = HashMap::new();
    let mut next_key = LISTENER;
    let (mut ours, mut others) = (Events::with_capacity(64), mio::Events::with_capacity(64));
    loop {
        // No system call while there is something to do.
        while poller.wait(&mut ours, Some(Duration::ZERO))? > 0 {
            for event in ours.iter() {
                if event.key() != LISTENER {
                    serve(&poller, &mut connections, event)?;
                    continue;
                }
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(true)?;
                        next_key += 1;
                        poller.add(&stream, next_key, Interest::READABLE, Trigger::Level)?;
                        connections.insert(next_key, Connection { stream, unsent: Vec::new() });
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
        // From here on the descriptor tells.
        if poller.arm()? {
            continue;
        }
        match mio.poll(&mut others, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            // Sources of mio's own would be served here; `FOURWAVE` is by the next wait.
            _ => {}
        }
    }
}

struct Connection {
    stream: TcpStream,
    unsent: Vec<u8>,
}

/// Goes on with a connection, which is dropped when it is over.
fn serve(
    poller: &Poller,
    connections: &mut HashMap<usize, Connection>,
    event: Event,
) -> io::Result<()> {
    let Some(connection) = connections.get_mut(&event.key()) else { return Ok(()) };
    match connection.echo() {
        Ok(()) => {
            connections.remove(&event.key());
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let blocked = !connection.unsent.is_empty();
            let interest = if blocked { Interest::WRITABLE } else { Interest::READABLE };
            poller.modify(&connection.stream, event.key(), interest, Trigger::Level)
        }
        Err(error) => {
            eprintln!("{:?}: {error}", connection.stream);
            connections.remove(&event.key());
            Ok(())
        }
    }
}

impl Connection {
    /// To the end of the stream, or until it would block.
    fn echo(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            while !self.unsent.is_empty() {
                let count = self.stream.write(&self.unsent)?;
                self.unsent.drain(..count);
            }
            match self.stream.read(&mut buffer)? {
                0 => return Ok(()),
                count => self.unsent.extend(&buffer[..count]),
            }
        }
    }
}
