//! What tools ask the daemon beyond counters, and the rows that it answers with.
//!
//! Rows come in any number of replies, a bounded part at a time, as the tool reads them.

use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

/// Rows in one reply: as many of the largest kind as fit.
pub const ROWS_PER_REPLY: usize = 64;

/// What [`Request::Query`](crate::control::Request::Query) asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Listeners and connections, handshakes and TIME_WAIT included: answered by
    /// [`Reply::Sockets`](crate::control::Reply::Sockets).
    Sockets(SocketFilter),
    /// The last cases of whatever was refused or dropped: answered by
    /// [`Reply::Drops`](crate::control::Reply::Drops).
    Drops,
}

/// The states of a socket, with the names of `ss`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "RFC 9293 §3.3.2 describes them")]
pub enum SocketState {
    Established,
    SynSent,
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    Closed,
    CloseWait,
    LastAck,
    Listen,
    Closing,
}

impl SocketState {
    /// Every state, in the order of the discriminants.
    pub const ALL: [SocketState; 11] = [
        SocketState::Established,
        SocketState::SynSent,
        SocketState::SynReceived,
        SocketState::FinWait1,
        SocketState::FinWait2,
        SocketState::TimeWait,
        SocketState::Closed,
        SocketState::CloseWait,
        SocketState::LastAck,
        SocketState::Listen,
        SocketState::Closing,
    ];

    /// As `ss` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            SocketState::Established => "ESTAB",
            SocketState::SynSent => "SYN-SENT",
            SocketState::SynReceived => "SYN-RECV",
            SocketState::FinWait1 => "FIN-WAIT-1",
            SocketState::FinWait2 => "FIN-WAIT-2",
            SocketState::TimeWait => "TIME-WAIT",
            SocketState::Closed => "UNCONN",
            SocketState::CloseWait => "CLOSE-WAIT",
            SocketState::LastAck => "LAST-ACK",
            SocketState::Listen => "LISTEN",
            SocketState::Closing => "CLOSING",
        }
    }
}

/// A set of states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct States(u16);

impl States {
    /// None.
    pub const NONE: States = States(0);
    /// Every state.
    pub const ALL: States = States((1 << SocketState::ALL.len()) - 1);

    /// Just this one.
    pub const fn only(state: SocketState) -> States {
        States(1 << state as u16)
    }

    /// These and those.
    #[must_use]
    pub const fn and(self, other: States) -> States {
        States(self.0 | other.0)
    }

    /// These without those.
    #[must_use]
    pub const fn without(self, other: States) -> States {
        States(self.0 & !other.0)
    }

    /// Whether the state is one of these.
    pub const fn has(self, state: SocketState) -> bool {
        self.0 & 1 << state as u16 != 0
    }
}

/// Which sockets are asked for: those that fit all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketFilter {
    /// In one of these states.
    pub states: States,
    /// With this port on our side.
    pub local_port: Option<u16>,
    /// With this port on the peer's side.
    pub peer_port: Option<u16>,
    /// With this port on either side.
    pub port: Option<u16>,
}

impl SocketFilter {
    /// Everything.
    pub const ALL: SocketFilter =
        SocketFilter { states: States::ALL, local_port: None, peer_port: None, port: None };

    /// Whether a socket is asked for; a listener's peer has port 0.
    pub fn takes(&self, state: SocketState, local_port: u16, peer_port: u16) -> bool {
        let is = |wanted: Option<u16>, port| wanted.is_none_or(|wanted| wanted == port);
        self.states.has(state)
            && is(self.local_port, local_port)
            && is(self.peer_port, peer_port)
            && (is(self.port, local_port) || is(self.port, peer_port))
    }
}

/// One listener or connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// Its state.
    pub state: SocketState,
    /// Bytes that the application has not read; of a listener, connections not yet accepted.
    pub receive_queue: u32,
    /// Bytes that the peer has not acknowledged; of a listener, its backlog.
    pub send_queue: u32,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's; `None` for a listener.
    pub peer: Option<SocketAddr>,
    /// Who holds it, where the asker may know. Nobody holds what is closed and not yet over.
    pub owner: Option<Owner>,
    /// The timer that runs.
    pub timer: Option<SocketTimer>,
    /// In a state of closing, how long somebody has been waited for, milliseconds: in CLOSE_WAIT
    /// the application, since the peer closed; else the peer, since something was last sent to it.
    pub waiting_ms: Option<u32>,
    /// Which worker has it; a listener is everyone's.
    pub worker: Option<u32>,
    /// More about it.
    pub kind: SocketKind,
}

/// What kind of socket a row is about, and what that kind alone has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SocketKind {
    /// A listener.
    Listener {
        /// Handshakes under way, over all workers.
        syn_queue: u32,
        /// Of an unspecified IPv6 address: IPv4 is not covered.
        v6_only: bool,
        /// Its owner has closed it or is gone: it is kept for a successor.
        kept: bool,
    },
    /// A connection that an application holds, and has accepted if it came in.
    Held,
    /// A connection on its listener's accept queue.
    Unaccepted,
    /// Closed by the application, and not over yet.
    Orphan,
    /// A handshake under way, or TIME_WAIT.
    Record,
}

/// An application group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Process, as it was when it connected to the daemon.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Its own word for itself, 64 bytes at most.
    pub name: String,
}

/// A timer as `ss -o` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketTimer {
    /// What it is for.
    pub kind: TimerKind,
    /// Until it fires.
    pub milliseconds: u32,
    /// How often it has fired without an answer.
    pub retries: u8,
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimerKind {
    /// Sends again what is not acknowledged.
    Retransmit,
    /// Ends FIN_WAIT_2, or asks whether the peer is still there.
    Keepalive,
    /// Ends TIME_WAIT.
    TimeWait,
    /// Probes a window that is closed.
    Persist,
}

impl TimerKind {
    /// As `ss` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            TimerKind::Retransmit => "on",
            TimerKind::Keepalive => "keepalive",
            TimerKind::TimeWait => "timewait",
            TimerKind::Persist => "persist",
        }
    }
}

/// Something that was refused or dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropSample {
    /// The reason's name.
    pub reason: String,
    /// When: nanoseconds since 1970, UTC.
    pub at: u64,
    /// At which worker.
    pub worker: u32,
    /// Our end, if that could be told.
    pub local: Option<SocketAddr>,
    /// The peer's end, if that could be told.
    pub peer: Option<SocketAddr>,
    /// The segment, if it is about one.
    pub segment: Option<SegmentHead>,
}

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentHead {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Bytes of payload.
    pub len: u16,
    /// The header's flags.
    pub flags: u8,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::control::{MAX_MESSAGE, Reply, decode, encode};

    #[test]
    fn the_largest_rows_fit_one_reply() {
        let address = SocketAddr::new([0xff; 16].into(), u16::MAX);
        let row = Socket {
            state: SocketState::Closing,
            receive_queue: u32::MAX,
            send_queue: u32::MAX,
            local: address,
            peer: Some(address),
            owner: Some(Owner { pid: i32::MIN, uid: u32::MAX, name: "x".repeat(64) }),
            timer: Some(SocketTimer {
                kind: TimerKind::Persist,
                milliseconds: u32::MAX,
                retries: u8::MAX,
            }),
            waiting_ms: Some(u32::MAX),
            worker: Some(u32::MAX),
            kind: SocketKind::Listener { syn_queue: u32::MAX, v6_only: true, kept: true },
        };
        let reply = Reply::Sockets { rows: vec![row; ROWS_PER_REPLY], more: true };
        let mut buffer = [0; MAX_MESSAGE];
        let packet = encode(&reply, &mut buffer).unwrap();
        assert_eq!(decode::<Reply>(packet).unwrap(), reply);
    }

    #[test]
    fn the_largest_drops_fit_one_reply() {
        let address = SocketAddr::new([0xff; 16].into(), u16::MAX);
        let segment = SegmentHead { seq: u32::MAX, ack: u32::MAX, len: u16::MAX, flags: u8::MAX };
        let drop = DropSample {
            reason: "x".repeat(64),
            at: u64::MAX,
            worker: u32::MAX,
            local: Some(address),
            peer: Some(address),
            segment: Some(segment),
        };
        let reply = Reply::Drops { rows: vec![drop; ROWS_PER_REPLY], more: true };
        assert!(encode(&reply, &mut [0; MAX_MESSAGE]).is_ok());
    }

    #[test]
    fn states_match_their_bits() {
        for (index, state) in SocketState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, index);
            let others = States::ALL.without(States::only(state));
            assert!(States::only(state).has(state) && !others.has(state));
            assert_eq!(others.and(States::only(state)), States::ALL);
            assert!(!States::NONE.has(state));
        }
    }

    #[test]
    fn a_filter_takes_what_fits_all_of_it() {
        let all = SocketFilter::ALL;
        let takes = |filter: SocketFilter, state| filter.takes(state, 80, 5000);
        assert!(takes(all, SocketState::Established));
        let states = States::only(SocketState::TimeWait);
        assert!(!takes(SocketFilter { states, ..all }, SocketState::Established));
        for (filter, fits) in [
            (SocketFilter { local_port: Some(80), ..all }, true),
            (SocketFilter { local_port: Some(5000), ..all }, false),
            (SocketFilter { peer_port: Some(5000), ..all }, true),
            (SocketFilter { peer_port: Some(80), ..all }, false),
            (SocketFilter { port: Some(80), ..all }, true),
            (SocketFilter { port: Some(5000), ..all }, true),
            (SocketFilter { port: Some(81), ..all }, false),
            (SocketFilter { port: Some(80), peer_port: Some(1), ..all }, false),
        ] {
            assert_eq!(takes(filter, SocketState::Established), fits, "{filter:?}");
        }
    }
}
