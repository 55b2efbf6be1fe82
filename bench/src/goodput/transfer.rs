//! One stream from end to end.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use super::{Direction, GoodputConfig};
use crate::lab::Lab;
use crate::machine;

/// Bytes per write and read.
const PIECE: usize = 256 * 1024;

/// A server of either kind that does not block.
pub(crate) enum Listener {
    Kernel(std::net::TcpListener),
    Fourwave(fourwave::TcpListener),
}

/// What is needed of either library's streams.
trait Stream: Read + Write + Send {
    fn finish_writing(&self) -> io::Result<()>;
    fn be_patient(&self, patience: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn finish_writing(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn be_patient(&self, patience: Duration) -> io::Result<()> {
        self.set_nonblocking(false)?;
        self.set_read_timeout(Some(patience))?;
        self.set_write_timeout(Some(patience))
    }
}

impl Stream for fourwave::TcpStream {
    fn finish_writing(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn be_patient(&self, patience: Duration) -> io::Result<()> {
        self.set_nonblocking(false)?;
        self.set_read_timeout(Some(patience))?;
        self.set_write_timeout(Some(patience))
    }
}

impl Listener {
    fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        match self {
            Listener::Kernel(listener) => {
                listener.accept().map(|(stream, peer)| (Box::new(stream) as Box<dyn Stream>, peer))
            }
            Listener::Fourwave(listener) => {
                listener.accept().map(|(stream, peer)| (Box::new(stream) as Box<dyn Stream>, peer))
            }
        }
    }

    /// The connection from `peer`. Others were given up by their clients.
    fn accept_from(&self, peer: SocketAddr, deadline: Instant) -> io::Result<Box<dyn Stream>> {
        loop {
            match self.accept() {
                Ok((stream, from)) if from == peer => return Ok(stream),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if Instant::now() > deadline {
                        return Err(ErrorKind::TimedOut.into());
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A stream that is about to be sent.
pub(crate) struct Transfer<'a> {
    pub(crate) config: &'a GoodputConfig,
    pub(crate) lab: &'a Lab,
    pub(crate) listener: &'a Listener,
    pub(crate) address: SocketAddr,
    pub(crate) direction: Direction,
    pub(crate) data: &'a [u8],
}

impl Transfer<'_> {
    /// Connects, sends, and compares what arrives with what was sent; returns the time from the
    /// first write until the last byte was read.
    pub(crate) fn run(&self) -> io::Result<Duration> {
        let patience = self.config.patience;
        let deadline = Instant::now() + patience;
        let connect = || TcpStream::connect_timeout(&self.address, patience);
        let client = self.lab.client().run(connect).map_err(io::Error::other)??;
        use_cubic(&client)?;
        let server = self.listener.accept_from(client.local_addr()?, deadline)?;
        client.be_patient(patience)?;
        server.be_patient(patience)?;
        let client: Box<dyn Stream> = Box::new(client);
        let (server, client) = ((server, self.config.server_cpu), (client, self.config.client_cpu));
        let ((mut from, from_cpu), (mut to, to_cpu)) = match self.direction {
            Direction::Down => (server, client),
            Direction::Up => (client, server),
        };
        // Before the clock starts: pages are taken by the first touch.
        let mut received = vec![1; self.data.len()];
        let begun = Instant::now();
        let end = thread::scope(|scope| {
            let sender = scope.spawn(move || {
                machine::pin(from_cpu)?;
                send(&mut *from, self.data)
            });
            let receiver = scope.spawn(|| {
                machine::pin(to_cpu)?;
                receive(&mut *to, &mut received, deadline)
            });
            let received = receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let sent = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sent.and(received)
        })?;
        if received != self.data {
            return Err(io::Error::new(ErrorKind::InvalidData, "other bytes came than were sent"));
        }
        Ok(end - begun)
    }
}

/// Linux's default congestion control and ours; a machine may have made another one its default.
pub(crate) fn use_cubic(socket: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_tcp_congestion(socket, "cubic")?)
}

/// Sends everything and the end, and waits until the other side has closed.
fn send(stream: &mut dyn Stream, data: &[u8]) -> io::Result<()> {
    for piece in data.chunks(PIECE) {
        stream.write_all(piece)?;
    }
    stream.finish_writing()?;
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::new(ErrorKind::InvalidData, "the receiver sent something")),
    }
}

/// Receives as much as fits `into` and then the end; returns when the last byte was there.
fn receive(stream: &mut dyn Stream, into: &mut [u8], deadline: Instant) -> io::Result<Instant> {
    let mut filled = 0;
    while filled < into.len() {
        let room = into.len().min(filled + PIECE);
        match stream.read(&mut into[filled..room])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
        if Instant::now() > deadline {
            return Err(ErrorKind::TimedOut.into());
        }
    }
    let end = Instant::now();
    match stream.read(&mut [0])? {
        0 => {
            stream.finish_writing()?;
            Ok(end)
        }
        _ => Err(io::Error::new(ErrorKind::InvalidData, "more came than was sent")),
    }
}

/// Bytes without a period that a segment or a buffer could hide behind (xorshift64).
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let mut word = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length.next_multiple_of(8));
    while bytes.len() < length {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
