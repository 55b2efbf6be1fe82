//! Very many short connections as seen from their client: segments and the time go in, segments
//! come out. No socket and no clock.
//!
//! It does what a client of a server that closes first has to do, in as few segments as the
//! protocol allows: SYN, the request on the handshake's last ACK, and a FIN that acknowledges reply
//! and FIN of the server. Whatever is lost is sent again (RFC 6298), and whatever the server sends
//! without closing is acknowledged after a while.

use std::collections::VecDeque;
use std::net::SocketAddr;

use fourwave_wire::{Endpoint, Flags, Options, Segment, Timestamps};

use super::super::report::{LoadReport, Outcome};
use super::super::sources::Sources;
use crate::stamps::Stamps;

/// How often each connection is looked at for something that is due, nanoseconds.
const GLANCE: u64 = 20_000_000;

/// Retransmission timeouts before anything was measured: RFC 6298 §2.1 for a SYN, Linux's minimum
/// for the rest.
const SYN_TIMEOUT: u64 = 1_000_000_000;
const TIMEOUT: u64 = 200_000_000;

/// Data that came without the server's FIN is acknowledged when that is not there after this.
const DELAYED_ACK: u64 = 40_000_000;

/// What the SYN says: the MSS of Ethernet, a scale that is not used.
const MSS: u16 = 1460;
const WINDOW_SCALE: u8 = 7;
const WINDOW: u16 = 65_535;

/// No connection uses the port.
const NONE: u32 = u32::MAX;

const NEVER: u64 = u64::MAX;

/// A segment to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) local: Endpoint,
    /// The server's port, counted from the target's.
    pub(super) port: u16,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: Flags,
    pub(super) window: u16,
    pub(super) options: Options,
    /// Where in [`Clients::pattern`] the payload begins, if the segment has one.
    pub(super) payload: Option<usize>,
}

/// Where segments go. What has no room is lost, and sent again in time.
pub(super) trait Output {
    fn send(&mut self, segment: &Outgoing);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    /// SYN sent.
    SynSent,
    /// The request was sent: its reply and the server's FIN are to come.
    Asked,
    /// Our FIN was sent, after the server's.
    LastAck,
    /// Our FIN was sent, before the server's.
    Closing,
}

#[derive(Clone, Debug)]
struct Connection {
    state: State,
    generation: u32,
    local: Endpoint,
    port: u16,
    iss: u32,
    /// Next expected of the server.
    rcv_nxt: u32,
    ts_recent: u32,
    uses_timestamps: bool,
    received: usize,
    /// Bytes of earlier requests of a kept connection.
    asked_before: u32,
    /// When its present request was sent.
    asked_at: u64,
    /// Where its payload begins in the pattern.
    pattern: usize,
    /// When it started or should have.
    from: u64,
    deadline: u64,
    resend_at: u64,
    timeout: u64,
    ack_at: u64,
    is_wrong: bool,
}

/// All connections of a load.
pub(super) struct Clients {
    size: usize,
    timeout: u64,
    keep_alive: bool,
    hold: bool,
    ports: u16,
    /// No connection begins another request.
    closing: bool,
    stamps: Option<Stamps>,
    sources: Sources,
    connections: Vec<Connection>,
    free: Vec<u32>,
    /// Connection by local port: addresses come round only after all ports of one.
    by_port: Box<[u32]>,
    /// Connections to look at, with their generations, in the order of time.
    glances: VecDeque<(u64, u32, u32)>,
    /// Bytes of all payloads.
    pattern: Vec<u8>,
    started: u64,
    in_flight: usize,
    pub(super) report: LoadReport,
}

/// Payloads begin at one of so many places of the pattern, so that bytes out of another connection
/// are noticed.
const PATTERNS: usize = 256;

impl Clients {
    /// Clients that send and expect `size` bytes, and give up after `timeout` nanoseconds.
    pub(super) fn new(size: usize, timeout: u64, sources: Sources) -> Clients {
        Clients {
            size,
            timeout,
            keep_alive: false,
            hold: false,
            ports: 1,
            closing: false,
            stamps: None,
            sources,
            connections: Vec::new(),
            free: Vec::new(),
            by_port: vec![NONE; 1 << 16].into_boxed_slice(),
            glances: VecDeque::new(),
            pattern: (0..size + PATTERNS).map(|i| (i * 7 + i / 251) as u8).collect(),
            started: 0,
            in_flight: 0,
            report: LoadReport::default(),
        }
    }

    /// Connections that make one request after another until they are told to
    /// [close](Self::close_after_replies).
    pub(super) fn keep_alive(mut self, keep: bool) -> Clients {
        self.keep_alive = keep;
        self
    }

    /// Connections that end for us when they are open, and stay so for the server.
    pub(super) fn hold(mut self, hold: bool) -> Clients {
        self.hold = hold;
        self
    }

    /// So many ports of the server, in turn.
    pub(super) fn ports(mut self, ports: u16) -> Clients {
        self.ports = ports.max(1);
        self
    }

    /// The server tells here when it accepted.
    pub(super) fn stamps(mut self, stamps: Option<Stamps>) -> Clients {
        self.stamps = stamps;
        self
    }

    /// Kept connections make no further request, and close when their reply has come.
    pub(super) fn close_after_replies(&mut self) {
        self.closing = true;
    }

    /// Bytes of all payloads: `size` from the place that a segment names.
    pub(super) fn pattern(&self) -> &[u8] {
        &self.pattern
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Number of the pair of address and port that comes next.
    pub(super) fn next_source(&self) -> u64 {
        self.sources.position()
    }

    /// Starts a connection that was due at `from`.
    pub(super) fn start(&mut self, now: u64, from: u64, output: &mut impl Output) {
        let Some(local) = self.next_free_pair() else {
            self.report.end(Outcome::Errno(libc::EADDRNOTAVAIL));
            return;
        };
        self.started += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(Connection::free());
            (self.connections.len() - 1) as u32
        });
        self.by_port[usize::from(local.port())] = index;
        let connection = &mut self.connections[index as usize];
        *connection = Connection {
            state: State::SynSent,
            generation: connection.generation.wrapping_add(1),
            local: local.into(),
            port: (self.started % u64::from(self.ports)) as u16,
            // A clock that passes every number in 275 s, so that a pair that comes back while the
            // server remembers it begins above its old numbers (RFC 9293 §3.4.1).
            iss: (now / 64) as u32,
            pattern: self.started as usize % PATTERNS,
            from,
            deadline: now.saturating_add(self.timeout),
            resend_at: now + SYN_TIMEOUT,
            timeout: SYN_TIMEOUT,
            ..Connection::free()
        };
        output.send(&connection.syn(now));
        self.glances.push_back((now + GLANCE, index, connection.generation));
        self.in_flight += 1;
    }

    /// The next pair whose port no living connection has.
    fn next_free_pair(&mut self) -> Option<SocketAddr> {
        for _ in 0..1 << 16 {
            let pair = self.sources.next_pair();
            if self.by_port[usize::from(pair.port())] == NONE {
                return Some(pair);
            }
            self.report.ports_skipped += 1;
        }
        None
    }

    /// A segment of the server for the client end `local`.
    pub(super) fn handle(
        &mut self,
        now: u64,
        local: &Endpoint,
        segment: &Segment<'_>,
        output: &mut impl Output,
    ) {
        let index = self.by_port[usize::from(local.port)];
        let connection = self.connections.get_mut(index as usize);
        let Some(connection) = connection.filter(|connection| connection.local == *local) else {
            self.report.stray_frames += 1;
            // RFC 9293 §3.10.7.1. Only what belongs to a connection that was given up: a reset for
            // anything else could end the server's TIME_WAIT.
            if segment.flags.contains(Flags::SYN | Flags::ACK) {
                output.send(&reset(*local, 0, segment.ack));
            }
            return;
        };
        if let Some(timestamps) = segment.options.timestamps {
            connection.ts_recent = timestamps.value;
        }
        if segment.flags.contains(Flags::RST) {
            if let Some(errno) = connection.reset_by(segment) {
                self.end(index, Outcome::Errno(errno));
            }
            return;
        }
        match connection.state {
            State::Free => {}
            State::SynSent => {
                if connection.opens(segment) {
                    self.report.connect_latency.record(now.saturating_sub(connection.from));
                    if self.hold {
                        let seq = connection.iss.wrapping_add(1);
                        output.send(&connection.segment(now, Flags::ACK, seq));
                        self.end(index, Outcome::Complete);
                        return;
                    }
                    connection.ask(now);
                    output.send(&connection.request(now));
                }
            }
            State::Asked => {
                let expected = &self.pattern[connection.pattern..][..self.size];
                let had = connection.received;
                connection.take(now, segment, expected, output);
                if connection.received >= self.size && had < self.size {
                    self.replied(now, index, output);
                }
            }
            State::Closing => {
                if connection.is_closed_by(segment, self.size) {
                    output.send(&connection.last_ack(now, self.size));
                    let outcome = connection.outcome(self.size);
                    self.end(index, outcome);
                }
            }
            State::LastAck => {
                if segment.flags.contains(Flags::ACK) && segment.ack == connection.end(self.size) {
                    let outcome = connection.outcome(self.size);
                    self.end(index, outcome);
                } else if segment.sequence_len() > 0 {
                    // The server repeats its end: ours was lost.
                    output.send(&connection.fin(now, self.size));
                }
            }
        }
    }

    /// The reply is there: counts it, and goes on with a kept connection.
    fn replied(&mut self, now: u64, index: u32, output: &mut impl Output) {
        let connection = &mut self.connections[index as usize];
        self.report.reply_latency.record(now.saturating_sub(connection.asked_at));
        if let (0, Some(stamps)) = (connection.asked_before, &self.stamps)
            && let Some(accepted) = stamps.get(connection.local.into(), connection.from)
        {
            self.report.accept_latency.record(accepted - connection.from);
        }
        if !self.keep_alive || connection.state != State::Asked || connection.is_wrong {
            return;
        }
        connection.ack_at = NEVER;
        if self.closing {
            connection.state = State::Closing;
            connection.timeout = TIMEOUT;
            connection.resend_at = now + TIMEOUT;
            output.send(&connection.fin(now, self.size));
        } else {
            connection.asked_before = connection.asked_before.wrapping_add(self.size as u32);
            connection.received = 0;
            connection.pattern = (connection.pattern + 1) % PATTERNS;
            connection.deadline = now.saturating_add(self.timeout);
            connection.ask(now);
            output.send(&connection.request(now));
        }
    }

    fn end(&mut self, index: u32, outcome: Outcome) {
        let connection = &mut self.connections[index as usize];
        connection.state = State::Free;
        self.by_port[usize::from(connection.local.port)] = NONE;
        self.free.push(index);
        self.in_flight -= 1;
        self.report.end(outcome);
    }

    /// Does what has become due.
    pub(super) fn handle_time(&mut self, now: u64, output: &mut impl Output) {
        while let Some(&(at, index, generation)) = self.glances.front() {
            if at > now {
                return;
            }
            self.glances.pop_front();
            let connection = &mut self.connections[index as usize];
            if connection.state == State::Free || connection.generation != generation {
                continue;
            }
            if connection.deadline <= now {
                if connection.state == State::Asked {
                    let seq = connection.next_seq(self.size);
                    output.send(&reset(connection.local, connection.port, seq));
                }
                self.end(index, Outcome::Timeout);
                continue;
            }
            if connection.ack_at <= now {
                connection.ack_at = NEVER;
                output.send(&connection.ack(now, self.size));
            }
            if connection.resend_at <= now {
                self.report.client_retransmits += 1;
                connection.timeout *= 2;
                connection.resend_at = now + connection.timeout;
                let again = match connection.state {
                    State::SynSent => connection.syn(now),
                    State::Asked => connection.request(now),
                    State::LastAck | State::Closing => connection.fin(now, self.size),
                    State::Free => continue,
                };
                output.send(&again);
            }
            self.glances.push_back((now + GLANCE, index, generation));
        }
    }
}

impl Connection {
    fn free() -> Connection {
        Connection {
            state: State::Free,
            generation: 0,
            local: Endpoint::default(),
            port: 0,
            iss: 0,
            rcv_nxt: 0,
            ts_recent: 0,
            uses_timestamps: false,
            received: 0,
            asked_before: 0,
            asked_at: 0,
            pattern: 0,
            from: 0,
            deadline: NEVER,
            resend_at: NEVER,
            timeout: 0,
            ack_at: NEVER,
            is_wrong: false,
        }
    }

    /// Sequence number after a request of `size` bytes and our FIN.
    fn end(&self, size: usize) -> u32 {
        self.next_seq(size).wrapping_add(1)
    }

    /// Sequence number after a request of `size` bytes.
    fn next_seq(&self, size: usize) -> u32 {
        self.iss.wrapping_add(self.asked_before).wrapping_add(size as u32).wrapping_add(1)
    }

    /// Whether the segment is the SYN-ACK that we wait for.
    fn opens(&mut self, segment: &Segment<'_>) -> bool {
        let is_answer = segment.flags.contains(Flags::SYN | Flags::ACK)
            && segment.ack == self.iss.wrapping_add(1);
        if is_answer {
            self.rcv_nxt = segment.seq.wrapping_add(1);
            self.uses_timestamps = segment.options.timestamps.is_some();
        }
        is_answer
    }

    fn ask(&mut self, now: u64) {
        self.state = State::Asked;
        self.asked_at = now;
        self.timeout = TIMEOUT;
        self.resend_at = now + TIMEOUT;
    }

    /// A part of the reply, the server's FIN, or an ACK of the request.
    fn take(&mut self, now: u64, segment: &Segment<'_>, expected: &[u8], output: &mut impl Output) {
        if segment.flags.contains(Flags::SYN) {
            // Our request was lost, or is under way: the SYN-ACK is repeated.
            output.send(&self.request(now));
            return;
        }
        let size = expected.len();
        if segment.ack == self.next_seq(size) {
            self.resend_at = NEVER;
        }
        if segment.sequence_len() == 0 {
            return;
        }
        if segment.seq != self.rcv_nxt {
            // A part is missing, or known already: where we are says which.
            output.send(&self.ack(now, size));
            return;
        }
        let payload = segment.payload;
        let rest = &expected[self.received.min(size)..];
        self.is_wrong |= rest.get(..payload.len()) != Some(payload);
        self.received += payload.len();
        self.rcv_nxt = self.rcv_nxt.wrapping_add(segment.sequence_len());
        if segment.flags.contains(Flags::FIN) {
            self.state = State::LastAck;
            self.timeout = TIMEOUT;
            self.resend_at = now + TIMEOUT;
            self.ack_at = NEVER;
            output.send(&self.fin(now, size));
        } else if self.ack_at == NEVER {
            self.ack_at = now + DELAYED_ACK;
        }
    }

    /// The errno that a socket would give, if the reset is one of this connection's.
    fn reset_by(&self, segment: &Segment<'_>) -> Option<i32> {
        match self.state {
            State::Free => None,
            State::SynSent => {
                (segment.ack == self.iss.wrapping_add(1)).then_some(libc::ECONNREFUSED)
            }
            State::Asked | State::LastAck | State::Closing => {
                (segment.seq == self.rcv_nxt).then_some(libc::ECONNRESET)
            }
        }
    }

    /// Whether the segment ends a connection that we closed first: the server's FIN, after all
    /// else, with the acknowledgement of ours.
    fn is_closed_by(&mut self, segment: &Segment<'_>, size: usize) -> bool {
        let closes = segment.flags.contains(Flags::FIN | Flags::ACK)
            && segment.ack == self.end(size)
            && segment.seq == self.rcv_nxt;
        if closes {
            // Bytes beyond the reply.
            self.is_wrong |= !segment.payload.is_empty();
            self.rcv_nxt = self.rcv_nxt.wrapping_add(segment.sequence_len());
        }
        closes
    }

    fn outcome(&self, size: usize) -> Outcome {
        match self.received {
            _ if self.is_wrong => Outcome::WrongEcho,
            received if received == size => Outcome::Complete,
            _ => Outcome::ShortEcho,
        }
    }

    fn syn(&self, now: u64) -> Outgoing {
        let timestamps = Timestamps { value: clock(now), echo: 0 };
        Outgoing {
            local: self.local,
            port: self.port,
            seq: self.iss,
            ack: 0,
            flags: Flags::SYN,
            window: WINDOW,
            options: Options {
                mss: Some(MSS),
                window_scale: Some(WINDOW_SCALE),
                sack_permitted: true,
                timestamps: Some(timestamps),
                ..Options::default()
            },
            payload: None,
        }
    }

    fn request(&self, now: u64) -> Outgoing {
        let flags = Flags::ACK | Flags::PSH;
        let seq = self.iss.wrapping_add(1).wrapping_add(self.asked_before);
        Outgoing { payload: Some(self.pattern), ..self.segment(now, flags, seq) }
    }

    fn ack(&self, now: u64, size: usize) -> Outgoing {
        self.segment(now, Flags::ACK, self.next_seq(size))
    }

    fn fin(&self, now: u64, size: usize) -> Outgoing {
        self.segment(now, Flags::ACK | Flags::FIN, self.next_seq(size))
    }

    fn last_ack(&self, now: u64, size: usize) -> Outgoing {
        self.segment(now, Flags::ACK, self.end(size))
    }

    fn segment(&self, now: u64, flags: Flags, seq: u32) -> Outgoing {
        let timestamps = Timestamps { value: clock(now), echo: self.ts_recent };
        Outgoing {
            local: self.local,
            port: self.port,
            seq,
            ack: self.rcv_nxt,
            flags,
            window: WINDOW >> WINDOW_SCALE,
            options: Options {
                timestamps: self.uses_timestamps.then_some(timestamps),
                ..Options::default()
            },
            payload: None,
        }
    }
}

fn reset(local: Endpoint, port: u16, seq: u32) -> Outgoing {
    Outgoing {
        local,
        port,
        seq,
        ack: 0,
        flags: Flags::RST,
        window: 0,
        options: Options::default(),
        payload: None,
    }
}

/// The timestamp clock: milliseconds.
fn clock(now: u64) -> u32 {
    (now / 1_000_000) as u32
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
