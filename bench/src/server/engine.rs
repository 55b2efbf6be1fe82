//! The server's loop, the same for both kinds of sockets.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use super::ServerConfig;
use super::session::{Session, Step};
use crate::machine::now_ns;
use crate::stamps::Stamps;

/// Connections accepted before the others get their turn.
const ACCEPT_BATCH: usize = 64;

/// Bytes read at once.
const SCRATCH: usize = 64 * 1024;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    Read,
    Write,
}

/// Listening, non-blocking sockets with level-triggered readiness. Listeners have the tokens from
/// 0 on.
pub(super) trait Sockets {
    type Stream: Read + Write;

    /// Waits until something is ready, and replaces the contents of `ready` by its tokens.
    fn wait(&mut self, ready: &mut Vec<usize>) -> io::Result<()>;

    /// The next connection of a listener, non-blocking; `None` when none waits.
    fn accept(&mut self, listener: usize) -> io::Result<Option<Self::Stream>>;

    /// The client's end of a connection.
    fn peer(&self, stream: &Self::Stream) -> io::Result<SocketAddr>;

    /// Reports `stream` as `token` from now on. Dropping the stream ends that.
    fn watch(&mut self, stream: &Self::Stream, token: usize, interest: Interest) -> io::Result<()>;

    /// Waits for something else on a watched stream.
    fn change(&mut self, stream: &Self::Stream, token: usize, interest: Interest)
    -> io::Result<()>;
}

/// A connection that had to wait for its peer.
struct Waiting<Stream> {
    stream: Stream,
    session: Session,
    interest: Interest,
}

struct Server<S: Sockets> {
    sockets: S,
    listeners: usize,
    /// The connection with token `listeners + i` is at `i`.
    waiting: Vec<Option<Waiting<S::Stream>>>,
    free: Vec<usize>,
    size: usize,
    scratch: Vec<u8>,
    stamps: Option<Stamps>,
}

/// Serves until an error or the end of the process.
pub(super) fn run(sockets: impl Sockets, config: &ServerConfig) -> io::Result<()> {
    let listeners = config.listen.len();
    let mut server = Server {
        sockets,
        listeners,
        waiting: Vec::new(),
        free: Vec::new(),
        size: config.size,
        scratch: vec![0; SCRATCH],
        stamps: config.stamps()?,
    };
    let mut ready = Vec::new();
    loop {
        server.sockets.wait(&mut ready)?;
        for &token in &ready {
            match token.checked_sub(listeners) {
                None => server.accept(token)?,
                Some(index) => server.resume(index)?,
            }
        }
    }
}

impl<S: Sockets> Server<S> {
    fn accept(&mut self, listener: usize) -> io::Result<()> {
        for _ in 0..ACCEPT_BATCH {
            match self.sockets.accept(listener)? {
                Some(stream) => {
                    self.stamp(&stream);
                    self.begin(stream)?;
                }
                None => break,
            }
        }
        Ok(())
    }

    /// Tells the client, for some connections, when `accept` returned.
    fn stamp(&mut self, stream: &S::Stream) {
        if let Some(stamps) = &mut self.stamps
            && stamps.is_due()
        {
            let now = now_ns();
            // One that was reset meanwhile has no peer any more.
            if let Ok(peer) = self.sockets.peer(stream) {
                stamps.put(peer, now);
            }
        }
    }

    /// The request is often there already: then nobody has to watch this connection.
    fn begin(&mut self, mut stream: S::Stream) -> io::Result<()> {
        let mut session = Session::default();
        let stepped = session.drive(&mut stream, self.size, &mut self.scratch);
        let Some(interest) = stepped.ok().and_then(interest) else { return Ok(()) };
        let index = self.free.pop().unwrap_or_else(|| {
            self.waiting.push(None);
            self.waiting.len() - 1
        });
        self.sockets.watch(&stream, self.listeners + index, interest)?;
        self.waiting[index] = Some(Waiting { stream, session, interest });
        Ok(())
    }

    fn resume(&mut self, index: usize) -> io::Result<()> {
        // Ready in the same batch in which it ended: nothing is left to do.
        let Some(waiting) = self.waiting.get_mut(index).and_then(Option::as_mut) else {
            return Ok(());
        };
        let stepped = waiting.session.drive(&mut waiting.stream, self.size, &mut self.scratch);
        // A peer that resets its connection ends it: that is its own affair.
        match stepped.ok().and_then(interest) {
            Some(wanted) if wanted == waiting.interest => Ok(()),
            Some(wanted) => {
                waiting.interest = wanted;
                self.sockets.change(&waiting.stream, self.listeners + index, wanted)
            }
            None => {
                self.waiting[index] = None;
                self.free.push(index);
                Ok(())
            }
        }
    }
}

/// `None`: the connection is to be closed.
fn interest(step: Step) -> Option<Interest> {
    match step {
        Step::Read => Some(Interest::Read),
        Step::Write => Some(Interest::Write),
        Step::Done => None,
    }
}
