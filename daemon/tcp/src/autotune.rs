//! How much the two buffers of a connection should hold: what a round trip needs, found out while
//! the bytes flow (Linux calls the receiving half dynamic right-sizing).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::config::{Config, MILLISECOND, Nanos, SECOND};
use crate::options::timestamp;
use crate::receive::Arrival;
use crate::tcb::{Tcb, flag};

/// A connection that received nothing for so long, or for a retransmission timeout if that is
/// longer, is idle.
const IDLE: Nanos = SECOND;

/// Below this, the clock of the timestamps tells nothing.
const COARSE: Nanos = 2 * MILLISECOND;

/// A measurement of how fast the application reads.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Reading {
    /// When it began, and what had been read by then.
    since: Nanos,
    head: i64,
    /// The right edge of the window then. What lies beyond it was sent a round trip later.
    edge: i64,
    /// Round-trip time by the timestamps that the peer echoes; 0 before the first.
    round_trip: Nanos,
    /// Most bytes that were read in a round trip.
    most: u32,
    /// The echo that was looked at last.
    echo: u32,
}

impl Reading {
    pub(crate) fn new(cfg: &Config, now: Nanos) -> Reading {
        let edge = i64::from(cfg.syn_window());
        Reading { since: now, head: 0, edge, round_trip: 0, most: cfg.first_window() / 2, echo: 0 }
    }
}

impl Tcb {
    /// The receive window that suits how fast the application reads, if that is a larger one than
    /// there is: to be asked after [`Tcb::set_consumed`], and answered by
    /// [`Tcb::set_receive_window`] as far as there is memory. It is asked for again until given.
    ///
    /// A window that the application has chosen (`SO_RCVBUF`) is asked for at once and no other.
    pub fn tune_receive(&mut self, cfg: &Config, now: Nanos) -> Option<u32> {
        if !self.state().may_receive() || self.is_orphan() {
            return None;
        }
        let limit = self.scalable(self.settings.recv_limit(cfg));
        if limit <= self.rcv_limit {
            return None;
        }
        if self.settings.recv_buffer != 0 {
            return Some(limit);
        }
        let read = self.read_in_a_round_trip(now)?;
        let suits = self.suitable_window(read).min(limit);
        self.reading.most = self.reading.most.max(read);
        let is_fast = self.reading.most > cfg.first_window() / 2;
        (is_fast && suits > self.rcv_limit).then_some(suits)
    }

    /// The receive window may be `bytes`: what [`Tcb::tune_receive`] asked for, or less.
    pub fn set_receive_window(&mut self, cfg: &Config, bytes: u32) {
        self.rcv_limit = bytes.min(self.scalable(self.settings.recv_limit(cfg)));
        self.tell_window_if_due();
    }

    /// An idle connection's receive window becomes the first one again; the right edge stays
    /// where it is until the peer has used what it was told (RFC 9293 §3.8.6, SHLD-14). Its peer
    /// starts slowly after such a time (RFC 5681 §4.1), so nothing is lost. `false`: it is not idle.
    pub fn rest_receive(&mut self, cfg: &Config, now: Nanos) -> bool {
        let idle = now.saturating_sub(self.received_at) > IDLE.max(self.rtt.rto());
        if !idle || self.settings.recv_buffer != 0 {
            return false;
        }
        self.rcv_limit = self.rcv_limit.min(cfg.first_window());
        self.reading.most = cfg.first_window() / 2;
        self.measure_anew(now);
        true
    }

    /// Bytes that may be written and not acknowledged: two congestion windows, so that there is
    /// something to send when the first is acknowledged, or what the application has chosen
    /// (`SO_SNDBUF`).
    pub fn send_space(&self, cfg: &Config) -> u32 {
        match self.settings.send_buffer {
            0 => {
                let twice = self.congestion.window().saturating_mul(2);
                twice.max(cfg.first_window()).min(cfg.send_buffer)
            }
            chosen => chosen.min(cfg.send_buffer),
        }
    }

    /// RFC 7323 §4.1, turned round: a full segment that echoes another of our timestamps than the
    /// last one tells how long ago we sent it.
    #[inline]
    pub(crate) fn note_echo(&mut self, arrival: &Arrival<'_>) {
        let Some(timestamps) = arrival.segment.options.timestamps else { return };
        let full = arrival.segment.payload.len() >= usize::from(self.rcv_mss);
        if !full || timestamps.echo == self.reading.echo || !self.has(flag::TIMESTAMPS) {
            return;
        }
        self.reading.echo = timestamps.echo;
        let age = timestamp(arrival.now, self.ts_offset).wrapping_sub(timestamps.echo);
        let sample = Nanos::from(age) * MILLISECOND;
        // After a pause the echo is as old as the pause; an echo of the future is none.
        if arrival.now.saturating_sub(self.received_at) > IDLE || age > i32::MAX as u32 {
            return;
        }
        let known = self.reading.round_trip;
        self.reading.round_trip = match known {
            0 => sample,
            _ => (7 * known + sample) / 8,
        };
    }

    /// What the application read in the last round trip, when one is over.
    fn read_in_a_round_trip(&mut self, now: Nanos) -> Option<u32> {
        let elapsed = now.saturating_sub(self.reading.since).max(1);
        let read = u64::try_from(self.rcv_head - self.reading.head).unwrap_or(0);
        if read == 0 {
            // The measurement goes on: who reads much after a long time has not read fast.
            return None;
        }
        let read = match self.receive_round_trip() {
            Some(round_trip) if elapsed < round_trip => return None,
            Some(round_trip) => u128::from(read) * u128::from(round_trip) / u128::from(elapsed),
            // Nothing was ever timed: a window that has come is a round trip.
            None if self.rcv_nxt <= self.reading.edge => return None,
            None => u128::from(read),
        };
        self.measure_anew(now);
        Some(u32::try_from(read).unwrap_or(u32::MAX))
    }

    /// Most bytes that were read in a round trip.
    pub(crate) fn read_most(&self) -> u32 {
        self.reading.most
    }

    fn measure_anew(&mut self, now: Nanos) {
        self.reading.since = now;
        self.reading.head = self.rcv_head;
        self.reading.edge = self.rcv_edge;
    }

    /// The round-trip time of what the peer sends: by its echoes, or where those are too coarse by
    /// our own segments, be it the handshake's.
    pub(crate) fn receive_round_trip(&self) -> Option<Nanos> {
        match (self.reading.round_trip, self.rtt.srtt()) {
            (echoed, Some(srtt)) if echoed < COARSE => Some(srtt),
            (0, None) => None,
            (echoed, _) => Some(echoed),
        }
    }

    /// As Linux: twice what was read, so that the sender is not held back while that is
    /// acknowledged, and more in proportion when it is growing, as in slow start.
    fn suitable_window(&self, read: u32) -> u32 {
        let (read, most) = (u64::from(read), u64::from(self.reading.most.max(1)));
        let window = 2 * read.max(most) + 16 * u64::from(self.rcv_mss);
        let growth = window.saturating_mul(read.saturating_sub(most)) / most;
        u32::try_from(window.saturating_add(2 * growth)).unwrap_or(u32::MAX)
    }
}
