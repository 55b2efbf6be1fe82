//! Messages on the control socket: a Unix `SOCK_SEQPACKET`, one request or reply per packet,
//! encoded with postcard. The daemon identifies the peer by `SO_PEERCRED`.
//!
//! Replies come in the order of the requests. Descriptors travel as `SCM_RIGHTS` beside the
//! reply that says how many to expect.

use crate::capture::{CaptureCount, CapturedFrame, Step};
use crate::layout::{MAX_WORKERS, Params};
use crate::option::ConnOption;
use crate::process::Process;
use crate::query::{DropSample, Query, Socket};
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

/// Largest packet in either direction, bytes. Longer texts are sent in several replies.
pub const MAX_MESSAGE: usize = 16 * 1024;

/// Most descriptors beside a reply: those of [`Reply::Forked`].
pub const MAX_DESCRIPTORS: usize = MAX_WORKERS as usize + 1;

/// From a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First message of an application: asks for a group and its segment.
    Hello {
        /// [`crate::VERSION`] of the client library.
        version: u32,
        /// Program name, for people who read lists.
        name: String,
    },
    /// The asking process is about to fork: makes another process of the group, which holds what
    /// this one holds. Commands that were posted before this are done before.
    Fork,
    /// A forked process's first word: from it the daemon learns which process it is.
    Arrived,
    /// A new lane (a set of rings and doorbells).
    AttachLane,
    /// The lane is no longer used.
    DetachLane {
        /// Which one.
        lane: u16,
    },
    /// `bind(2)`: claims an address and port.
    Bind {
        /// Port 0 asks for any free port. An unspecified address means every address.
        address: SocketAddr,
        /// What is asked for beyond that.
        options: BindOptions,
    },
    /// `listen(2)`: begins to accept, or changes the backlog.
    Listen {
        /// From [`Reply::Bound`].
        listener: u32,
        /// As in Linux: limits the accept queue (`backlog` + 1 fit) and the SYN queue.
        backlog: u32,
    },
    /// `TCP_DEFER_ACCEPT`: connections are accepted when their first bytes are there.
    DeferAccept {
        /// From [`Reply::Bound`].
        listener: u32,
        /// For about so long at the most; 0 is off.
        seconds: u32,
    },
    /// Closes a listener. What waits in its queues goes to a listener that shares its address, or
    /// waits `accept_grace` for the next one there.
    CloseListener {
        /// From [`Reply::Bound`].
        listener: u32,
    },
    /// Sets an option of all connections that a listener accepts from now on.
    SetOption {
        /// From [`Reply::Bound`].
        listener: u32,
        /// Which option.
        option: ConnOption,
        /// Its value, one that [`ConnOption::allows`].
        value: u32,
    },
    /// What a listener's connections begin with: answered by [`Reply::Options`].
    Options {
        /// From [`Reply::Bound`].
        listener: u32,
    },
    /// Counters as text, for tools: answered by any number of [`Reply::Text`].
    Stats,
    /// The configuration in force, as TOML, for tools: answered by any number of
    /// [`Reply::Text`].
    Settings,
    /// Something that workers have to look up, for tools.
    Query {
        /// [`crate::VERSION`] of the tool.
        version: u32,
        /// What.
        query: Query,
    },
    /// Copies of frames, for root and the daemon's own user, until the tool shuts its side of the
    /// socket down: answered by [`Reply::Capturing`] and any number of [`Reply::Captured`].
    Capture {
        /// [`crate::VERSION`] of the tool.
        version: u32,
        /// Which ones, [`MOST_STEPS`](crate::capture::MOST_STEPS) at most.
        filter: Vec<Step>,
        /// Bytes of each, at the most.
        snaplen: u32,
    },
}

/// Options of [`Request::Bind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindOptions {
    /// `IPV6_V6ONLY`: an unspecified IPv6 address does not cover IPv4.
    pub v6_only: bool,
    /// `SO_REUSEADDR`: what is left of a former listener's connections is not in the way.
    pub reuse_address: bool,
    /// `SO_REUSEPORT`: others of the same user may have the same address, if they set it too.
    pub reuse_port: bool,
}

impl Default for BindOptions {
    /// As `std::net::TcpListener` asks for.
    fn default() -> BindOptions {
        BindOptions { v6_only: false, reuse_address: true, reuse_port: false }
    }
}

/// From the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Answer to `Hello`. One descriptor: the segment's memory.
    Welcome {
        /// How the segment is laid out.
        params: Params,
        /// The client's name in the group.
        process: Process,
    },
    /// Answer to `Fork`. First descriptor: the new process's control connection, which says no
    /// `Hello`. Behind it, if the new process has a lane already, the doorbells of that, as for
    /// `Attached`.
    Forked {
        /// The new process's name.
        process: Process,
        /// Its first lane, while the group has many left; else it asks for one when it needs one.
        lane: Option<u16>,
    },
    /// Answer to `AttachLane`. One descriptor per worker: the client's end of its doorbell.
    Attached {
        /// Index of the lane in the segment.
        lane: u16,
    },
    /// Answer to `Bind`.
    Bound {
        /// Index of the listener in the segment.
        listener: u32,
        /// Where it is bound, with the port that was chosen.
        address: SocketAddr,
    },
    /// Done, nothing to say.
    Done,
    /// Answer to `Options`.
    Options {
        /// By [`ConnOption::index`].
        values: [u32; ConnOption::ALL.len()],
    },
    /// Refused.
    Error {
        /// Linux errno that a socket call would give.
        errno: i32,
        /// What happened and what helps, for people.
        detail: String,
    },
    /// A piece of text.
    Text {
        /// The piece.
        text: String,
        /// Whether another piece follows.
        more: bool,
    },
    /// Some listeners and connections.
    Sockets {
        /// At most [`ROWS_PER_REPLY`](crate::query::ROWS_PER_REPLY).
        rows: Vec<Socket>,
        /// Whether another reply follows.
        more: bool,
    },
    /// A capture begins.
    Capturing {
        /// Names of the workers' queues, in the order of the workers.
        queues: Vec<String>,
    },
    /// Some frames.
    Captured {
        /// In the order of each worker.
        frames: Vec<CapturedFrame>,
        /// What has happened so far, in the order of the workers.
        counts: Vec<CaptureCount>,
        /// Whether another reply follows.
        more: bool,
    },
    /// Some of what was refused or dropped.
    Drops {
        /// At most [`ROWS_PER_REPLY`](crate::query::ROWS_PER_REPLY).
        rows: Vec<DropSample>,
        /// Whether another reply follows.
        more: bool,
    },
}

/// A message that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("malformed control message: {0}")]
pub struct Malformed(#[from] postcard::Error);

/// Encodes a message.
///
/// # Errors
/// [`Malformed`] if it exceeds [`MAX_MESSAGE`] bytes.
pub fn encode<'a, T: Serialize>(
    message: &T,
    buffer: &'a mut [u8; MAX_MESSAGE],
) -> Result<&'a [u8], Malformed> {
    Ok(postcard::to_slice(message, buffer)?)
}

/// Decodes a message; the whole packet must be one.
///
/// # Errors
/// [`Malformed`] for anything else.
pub fn decode<'a, T: Deserialize<'a>>(packet: &'a [u8]) -> Result<T, Malformed> {
    match postcard::take_from_bytes(packet)? {
        (message, []) => Ok(message),
        _ => Err(Malformed(postcard::Error::DeserializeBadEncoding)),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_survive() {
        let mut buffer = [0; MAX_MESSAGE];
        let request = Request::Bind {
            address: "[fd99::2]:7777".parse().unwrap(),
            options: BindOptions { v6_only: true, ..BindOptions::default() },
        };
        let packet = encode(&request, &mut buffer).unwrap();
        assert_eq!(decode::<Request>(packet).unwrap(), request);
        let params = Params::for_quota(2, 1000, 1 << 20, 4 << 20);
        let reply = Reply::Welcome { params, process: Process::FIRST };
        let packet = encode(&reply, &mut buffer).unwrap();
        assert_eq!(decode::<Reply>(packet).unwrap(), reply);
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut buffer = [0; MAX_MESSAGE];
        let mut packet = encode(&Request::AttachLane, &mut buffer).unwrap().to_vec();
        packet.push(0);
        assert!(decode::<Request>(&packet).is_err());
    }

    proptest! {
        #[test]
        fn anything_can_be_decoded(packet in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Request>(&packet);
        }
    }
}
