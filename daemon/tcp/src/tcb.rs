//! The record of one connection.

use core::fmt;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::assembler::Assembler;
use crate::autotune::Reading;
use crate::config::{Config, Ecn, Nanos};
use crate::congestion::Congestion;
use crate::options::TIMESTAMPS_LEN;
use crate::pmtu::Search;
use crate::rack::Rack;
use crate::reaction::{Error, Events};
use crate::recovery::Recovery;
use crate::rtt::Rtt;
use crate::scoreboard::Scoreboard;
use crate::seq::SeqNum;
use crate::settings::Settings;
use crate::state::State;
use crate::undo::Undo;

/// A timer that is not running, a position that is not known.
pub(crate) const NEVER: Nanos = Nanos::MAX;
pub(crate) const UNKNOWN: i64 = i64::MAX;

/// Position of a SYN: one before the first data byte.
pub(crate) const SYN_POSITION: i64 = -1;

/// RFC 9293 §3.7.1, MUST-15: what a peer takes that does not say.
const DEFAULT_MSS_V4: u16 = 536;
const DEFAULT_MSS_V6: u16 = 1220;
/// Smaller announcements count as this one, Linux's `TCP_MIN_SND_MSS`: a tiny segment costs us more
/// than it costs the peer who asks for it.
pub(crate) const MIN_MSS: u16 = 48;

/// Arguments of [`Tcb::passive`]: what a finished handshake has settled.
#[derive(Clone, Copy, Debug)]
pub struct Passive {
    /// Our initial sequence number.
    pub iss: u32,
    /// The peer's initial sequence number.
    pub irs: u32,
    /// IPv4, not IPv6.
    pub is_v4: bool,
    /// Largest payload the path takes, options not counted: what our SYN-ACK announced.
    pub mss: u16,
    /// MSS option of the SYN.
    pub peer_mss: Option<u16>,
    /// Window scale of the SYN, if ours answered it; else neither side scales.
    pub peer_window_scale: Option<u8>,
    /// The peer's newest timestamp value, if timestamps were negotiated.
    pub peer_timestamp: Option<u32>,
    /// The SYN offered SACK and our SYN-ACK took it up.
    pub sack_permitted: bool,
    /// The SYN asked for explicit congestion notification and our SYN-ACK agreed.
    pub ecn: bool,
    /// Shift of our timestamp clock, the same as in the SYN-ACK.
    pub ts_offset: u32,
    /// Window field of the SYN. The final ACK's is taken when it is handled as a segment.
    pub peer_window: u16,
    /// SYN-ACK to ACK, if that is unambiguous.
    pub rtt: Option<Nanos>,
    /// How often the SYN-ACK was retransmitted.
    pub syn_retransmits: u8,
}

/// Arguments of [`Tcb::active`].
#[derive(Clone, Copy, Debug)]
pub struct Active {
    /// Our initial sequence number (RFC 6528).
    pub iss: u32,
    /// IPv4, not IPv6.
    pub is_v4: bool,
    /// Largest payload the path takes, options not counted: what our SYN announces.
    pub mss: u16,
    /// Shift of our timestamp clock.
    pub ts_offset: u32,
}

/// What a TIME_WAIT or FIN_WAIT_2 record takes over from a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeWait {
    /// Next sequence number of ours: one past our FIN.
    pub snd_nxt: u32,
    /// Next expected of the peer.
    pub rcv_nxt: u32,
    /// Window field to answer with, scaled.
    pub scaled_window: u16,
    /// The peer's newest timestamp value, if timestamps are in use.
    pub ts_recent: Option<u32>,
    /// Shift of our timestamp clock.
    pub ts_offset: u32,
}

/// One connection: plain old data.
///
/// Positions are `i64` distances from the first data byte of their direction: it is 0, the SYN is
/// -1, the FIN comes one after the last byte. They never wrap and they have an order; sequence
/// numbers exist only at the boundary.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tcb {
    /// Oldest position not acknowledged.
    pub(crate) snd_una: i64,
    /// Next to send; falls back to `snd_una` when the retransmission timer fires.
    pub(crate) snd_nxt: i64,
    /// One past the highest ever sent.
    pub(crate) snd_max: i64,
    /// One past the last byte that the application has written: where the FIN goes.
    pub(crate) snd_tail: i64,
    /// End of the last small segment sent, for Nagle.
    pub(crate) snd_small: i64,
    /// Receive and send position of the last window update (SND.WL1, SND.WL2).
    pub(crate) snd_wl1: i64,
    pub(crate) snd_wl2: i64,
    /// In-order edge.
    pub(crate) rcv_nxt: i64,
    /// What the application has read.
    pub(crate) rcv_head: i64,
    /// Right edge of the window that the peer was told.
    pub(crate) rcv_edge: i64,
    /// Acknowledgement last sent (Last.ACK.sent).
    pub(crate) rcv_acked: i64,
    /// Position of the peer's FIN, [`UNKNOWN`] before it came.
    pub(crate) rcv_fin: i64,
    /// Retransmission or, with nothing outstanding, zero-window probe.
    pub(crate) rtx_at: Nanos,
    /// Delayed ACK.
    pub(crate) ack_at: Nanos,
    /// End of FIN_WAIT_2 as an orphan, or of TIME_WAIT.
    pub(crate) life_at: Nanos,
    /// Data was last sent.
    pub(crate) sent_at: Nanos,
    /// The peer's FIN came.
    pub(crate) fin_at: Nanos,
    /// `ts_recent` was last set.
    pub(crate) ts_recent_at: Nanos,
    /// The next challenge ACK may be sent.
    pub(crate) challenge_at: Nanos,
    /// Keepalive: when to look how long the peer has been silent.
    pub(crate) keepalive_at: Nanos,
    /// The peer last said something acceptable.
    pub(crate) heard_at: Nanos,
    /// Data was last received.
    pub(crate) received_at: Nanos,
    /// The first timeout since there was progress: the user timeout counts from here.
    pub(crate) stalled_at: Nanos,
    /// Data bytes sent again.
    pub(crate) bytes_resent: u64,
    /// All that had been sent when the window last shrank, with [`flag::ECN`].
    pub(crate) ecn_point: i64,
    pub(crate) rtt: Rtt,
    pub(crate) recovery: Recovery,
    pub(crate) rack: Rack,
    pub(crate) congestion: Congestion,
    pub(crate) undo: Undo,
    pub(crate) reading: Reading,
    pub(crate) assembler: Assembler,
    pub(crate) scoreboard: Scoreboard,
    pub(crate) search: Search,
    pub(crate) settings: Settings,
    pub(crate) segments_in: u32,
    pub(crate) segments_out: u32,
    pub(crate) data_segments_in: u32,
    pub(crate) data_segments_out: u32,
    pub(crate) iss: u32,
    pub(crate) irs: u32,
    pub(crate) ts_offset: u32,
    pub(crate) ts_recent: u32,
    /// The peer's window, and the largest it ever was.
    pub(crate) snd_wnd: u32,
    pub(crate) snd_wnd_max: u32,
    /// Most bytes that may lie between `rcv_head` and `rcv_edge`.
    pub(crate) rcv_limit: u32,
    /// Sequence number of a RST that answers one segment and leaves the connection alone.
    pub(crate) reply_rst_seq: u32,
    /// Sequence numbers of a duplicate to report, while [`flag::DUPLICATE`] is set.
    pub(crate) duplicate_start: u32,
    pub(crate) duplicate_end: u32,
    pub(crate) retransmits: u32,
    pub(crate) flags: u32,
    /// Largest payload by path and peer, options not counted.
    pub(crate) mss: u16,
    /// Largest that both sides take, and that the path is known to take; the search for a size
    /// that passes may have made `mss` smaller than both.
    pub(crate) agreed_mss: u16,
    pub(crate) path_mss: u16,
    /// What we announced.
    pub(crate) local_mss: u16,
    /// A full-sized segment of the peer.
    pub(crate) rcv_mss: u16,
    pub(crate) state: u8,
    /// Doublings of the timeout.
    pub(crate) backoff: u8,
    /// Timeouts without an answer.
    pub(crate) retries: u8,
    pub(crate) duplicate_acks: u8,
    pub(crate) quick_acks: u8,
    pub(crate) snd_scale: u8,
    pub(crate) rcv_scale: u8,
    pub(crate) error: u8,
    pub(crate) soft_error: u8,
    /// Keepalive probes since the peer was heard.
    pub(crate) keepalive_probes: u8,
}

/// Loss recovery (SACK on both sides, RACK, PRR) is nearly half of it, and cold while nothing is lost.
const _: () = assert!(size_of::<Tcb>() <= 912);

/// Bits of [`Tcb::flags`].
pub(crate) mod flag {
    /// IPv4, not IPv6.
    pub(crate) const V4: u32 = 1;
    /// Timestamps in every segment.
    pub(crate) const TIMESTAMPS: u32 = 1 << 1;
    /// A keepalive probe is due.
    pub(crate) const KEEPALIVE: u32 = 1 << 2;
    /// A FIN follows the last byte written.
    pub(crate) const FIN_QUEUED: u32 = 1 << 3;
    /// The application's handle is closed.
    pub(crate) const ORPHAN: u32 = 1 << 4;
    /// An ACK is due.
    pub(crate) const ACK_NOW: u32 = 1 << 5;
    /// The segment at `snd_una` is to be sent again.
    pub(crate) const RESEND: u32 = 1 << 6;
    /// A window probe is due.
    pub(crate) const PROBE: u32 = 1 << 7;
    /// The SYN or SYN-ACK is to be sent.
    pub(crate) const SYN_DUE: u32 = 1 << 8;
    /// A RST that ends the connection is due.
    pub(crate) const RST_DUE: u32 = 1 << 9;
    /// A RST with `reply_rst_seq` is due.
    pub(crate) const REPLY_RST: u32 = 1 << 10;
    /// The peer agreed to scale windows, or may still do so.
    pub(crate) const SCALING: u32 = 1 << 11;
    /// Both sides agreed to selective acknowledgements, or may still do so.
    pub(crate) const SACK: u32 = 1 << 12;
    /// A duplicate arrived and is to be reported.
    pub(crate) const DUPLICATE: u32 = 1 << 13;
    /// The tail of what is outstanding is to be probed.
    pub(crate) const TAIL_PROBE: u32 = 1 << 14;
    /// A loss was noticed that may turn out to be none.
    pub(crate) const UNDO: u32 = 1 << 15;
    /// The first acknowledgement since may tell by its timestamp.
    pub(crate) const EIFEL: u32 = 1 << 16;
    /// `ACK_NOW` was set by a challenge and by nothing else.
    pub(crate) const CHALLENGED: u32 = 1 << 17;
    /// The congestion window was what ended the last transmission.
    pub(crate) const LIMITED: u32 = 1 << 18;
    /// Both sides agreed to explicit congestion notification, or may still do so.
    pub(crate) const ECN: u32 = 1 << 19;
    /// A mark arrived, and the peer has not said that it reacts.
    pub(crate) const ECHO: u32 = 1 << 20;
    /// The next new data tells the peer that the window has shrunk.
    pub(crate) const CWR_DUE: u32 = 1 << 21;
    /// What is being repaired is a probe for larger segments.
    pub(crate) const PROBE_LOST: u32 = 1 << 22;
    /// Small segments are acknowledged at once too, while quick ACKs last.
    pub(crate) const QUICKACK: u32 = 1 << 31;
}

impl Tcb {
    /// No connection: CLOSED, all of it zero. For memory in which one is going to be made.
    pub fn blank() -> Tcb {
        Tcb::new_zeroed()
    }

    /// A connection in ESTABLISHED out of a handshake that we answered.
    ///
    /// Handle the segment that completed the handshake next: its window, data and FIN count.
    pub fn passive(cfg: &Config, now: Nanos, passive: &Passive) -> Tcb {
        let mut tcb = Tcb::blank();
        tcb.become_passive(cfg, now, passive);
        tcb
    }

    /// The same in the place of another connection, or of zeroes: a record is too large to be made
    /// in one place and moved to another.
    pub fn become_passive(&mut self, cfg: &Config, now: Nanos, passive: &Passive) {
        self.start(cfg, now, passive.iss, passive.is_v4, passive.mss, passive.ts_offset);
        self.state = State::Established as u8;
        self.snd_una = 0;
        self.snd_nxt = 0;
        self.snd_max = 0;
        self.irs = passive.irs;
        self.set_flag(flag::TIMESTAMPS, passive.peer_timestamp.is_some());
        self.set_flag(flag::SACK, passive.sack_permitted);
        self.set_flag(flag::ECN, passive.ecn);
        self.ts_recent = passive.peer_timestamp.unwrap_or(0);
        self.agree_on_scale(cfg, passive.peer_window_scale);
        self.snd_wnd = u32::from(passive.peer_window);
        self.snd_wnd_max = self.snd_wnd;
        self.agree_on_mss(passive.peer_mss);
        if let Some(rtt) = passive.rtt {
            self.rtt.sample(cfg, rtt);
        }
        self.retries = passive.syn_retransmits;
        self.open(cfg);
    }

    /// A connection in SYN_SENT, its SYN due.
    pub fn active(cfg: &Config, now: Nanos, active: &Active) -> Tcb {
        let mut tcb = Tcb::blank();
        tcb.start(cfg, now, active.iss, active.is_v4, active.mss, active.ts_offset);
        tcb.state = State::SynSent as u8;
        tcb.set_flag(flag::TIMESTAMPS, cfg.timestamps);
        tcb.set_flag(flag::SACK, cfg.sack);
        tcb.set_flag(flag::ECN, cfg.ecn == Ecn::On);
        tcb.set_flag(flag::SCALING, cfg.window_scaling);
        tcb.set_flag(flag::SYN_DUE, true);
        tcb
    }

    /// Sets every field.
    #[inline]
    fn start(&mut self, cfg: &Config, now: Nanos, iss: u32, is_v4: bool, mss: u16, ts_offset: u32) {
        let mss = mss.max(MIN_MSS);
        let flags = if is_v4 { flag::V4 } else { 0 };
        *self = Tcb {
            snd_una: SYN_POSITION,
            snd_nxt: SYN_POSITION,
            snd_max: SYN_POSITION,
            snd_tail: 0,
            snd_small: SYN_POSITION,
            snd_wl1: SYN_POSITION,
            snd_wl2: SYN_POSITION,
            rcv_nxt: 0,
            rcv_head: 0,
            rcv_edge: i64::from(cfg.syn_window()),
            rcv_acked: 0,
            rcv_fin: UNKNOWN,
            rtx_at: NEVER,
            ack_at: NEVER,
            life_at: NEVER,
            sent_at: now,
            fin_at: NEVER,
            ts_recent_at: now,
            challenge_at: 0,
            keepalive_at: NEVER,
            heard_at: now,
            received_at: now,
            stalled_at: NEVER,
            bytes_resent: 0,
            ecn_point: SYN_POSITION,
            rtt: Rtt::new(cfg),
            congestion: Congestion::new(cfg.congestion_control, u32::from(mss), cfg.initial_window),
            recovery: Recovery::new(),
            rack: Rack::new(),
            undo: Undo::default(),
            assembler: Assembler::default(),
            scoreboard: Scoreboard::default(),
            search: Search::none(),
            settings: Settings::default(),
            segments_in: 0,
            segments_out: 0,
            data_segments_in: 0,
            data_segments_out: 0,
            iss,
            irs: 0,
            ts_offset,
            ts_recent: 0,
            snd_wnd: 0,
            snd_wnd_max: 0,
            rcv_limit: cfg.first_window(),
            reading: Reading::new(cfg, now),
            reply_rst_seq: 0,
            duplicate_start: 0,
            duplicate_end: 0,
            retransmits: 0,
            flags,
            mss,
            agreed_mss: mss,
            path_mss: u16::MAX,
            local_mss: mss,
            rcv_mss: mss,
            state: State::Closed as u8,
            backoff: 0,
            retries: 0,
            duplicate_acks: 0,
            quick_acks: cfg.quick_acks,
            snd_scale: 0,
            rcv_scale: 0,
            error: 0,
            soft_error: 0,
            keepalive_probes: 0,
        };
    }

    /// The peer's SYN carried this scale, or none: then neither side scales (RFC 7323 §2.2).
    pub(crate) fn agree_on_scale(&mut self, cfg: &Config, peer: Option<u8>) {
        let peer = peer.filter(|_| cfg.window_scaling);
        self.set_flag(flag::SCALING, peer.is_some());
        match peer {
            Some(scale) => {
                self.snd_scale = scale.min(fourwave_wire::MAX_WINDOW_SCALE);
                self.rcv_scale = cfg.window_scale.min(fourwave_wire::MAX_WINDOW_SCALE);
            }
            None => self.rcv_limit = self.scalable(self.rcv_limit),
        }
    }

    /// A receive buffer of which the window field can tell all.
    pub(crate) fn scalable(&self, limit: u32) -> u32 {
        if self.has(flag::SCALING) { limit } else { limit.min(u32::from(u16::MAX)) }
    }

    /// The peer's SYN announced this MSS, or none (RFC 9293 §3.7.1, MUST-16).
    pub(crate) fn agree_on_mss(&mut self, peer: Option<u16>) {
        let default = if self.has(flag::V4) { DEFAULT_MSS_V4 } else { DEFAULT_MSS_V6 };
        self.agreed_mss = peer.unwrap_or(default).max(MIN_MSS).min(self.local_mss);
        self.mss = self.agreed_mss.min(self.path_mss);
        self.rcv_mss = self.agreed_mss - self.options_len();
    }

    /// The handshake is over, however it went: the data phase starts.
    pub(crate) fn open(&mut self, cfg: &Config) {
        // RFC 6928 §2: a path that lost the handshake more than once starts with one segment.
        let segments = if self.retries > 1 { 1 } else { cfg.initial_window };
        let algorithm = self.settings.congestion_control(cfg);
        self.congestion = Congestion::new(algorithm, self.payload_limit(), segments);
        if self.retries > 0 {
            self.rtt.open_after_loss();
        }
        self.retries = 0;
        self.backoff = 0;
        self.stalled_at = NEVER;
        self.plan_keepalive(cfg);
    }

    /// The one door for changes of state.
    pub(crate) fn transition(&mut self, next: State) {
        let state = self.state();
        assert!(state.may_become(next), "no way from {state} to {next}");
        self.state = next as u8;
    }

    /// Ends the connection; what it returns is to be told.
    pub(crate) fn finish(&mut self, error: Option<Error>, events: Events) -> Events {
        self.transition(State::Closed);
        if let Some(error) = error {
            self.error = error as u8;
        }
        self.rtx_at = NEVER;
        self.ack_at = NEVER;
        self.life_at = NEVER;
        self.rack.at = NEVER;
        self.keepalive_at = NEVER;
        self.flags &=
            !(flag::ACK_NOW | flag::RESEND | flag::PROBE | flag::KEEPALIVE | flag::SYN_DUE);
        events | Events::CLOSED
    }

    #[inline]
    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    #[inline]
    pub(crate) fn set_flag(&mut self, flag: u32, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    /// Clears `flag` and returns whether it was set.
    #[inline]
    pub(crate) fn take_flag(&mut self, flag: u32) -> bool {
        let was_set = self.has(flag);
        self.flags &= !flag;
        was_set
    }

    /// Option bytes in every segment after the handshake.
    #[inline]
    pub(crate) fn options_len(&self) -> u16 {
        if self.has(flag::TIMESTAMPS) { TIMESTAMPS_LEN } else { 0 }
    }

    /// Most payload bytes in one segment that carries no SACK blocks.
    #[inline]
    pub(crate) fn payload_limit(&self) -> u32 {
        u32::from(self.mss - self.options_len())
    }

    /// Bytes sent and not acknowledged, as far as the sender counts on them.
    #[inline]
    pub(crate) fn flight(&self) -> u32 {
        // A window has 30 bits at most, and a FIN adds one.
        (self.snd_nxt - self.snd_una) as u32
    }

    #[inline]
    pub(crate) fn is_outstanding(&self) -> bool {
        self.snd_max > self.snd_una
    }

    /// Whether data or a FIN waits to be sent for the first time.
    #[inline]
    pub(crate) fn has_unsent(&self) -> bool {
        self.snd_max < self.snd_tail + i64::from(self.has(flag::FIN_QUEUED))
    }

    /// Whether our FIN was sent and acknowledged.
    #[inline]
    pub(crate) fn fin_is_acked(&self) -> bool {
        self.has(flag::FIN_QUEUED) && self.snd_una > self.snd_tail
    }

    /// One past the last data byte received in order, the FIN not counted.
    #[inline]
    pub(crate) fn rcv_data_end(&self) -> i64 {
        self.rcv_nxt.min(self.rcv_fin)
    }

    /// Sequence number of a send position.
    #[inline]
    pub(crate) fn snd_seq(&self, position: i64) -> u32 {
        sequence(self.iss, position)
    }

    /// Sequence number of a receive position.
    #[inline]
    pub(crate) fn rcv_seq(&self, position: i64) -> u32 {
        sequence(self.irs, position)
    }

    /// Send position of a sequence number: the one nearest to `snd_una`.
    #[inline]
    pub(crate) fn snd_position(&self, seq: u32) -> i64 {
        let una = SeqNum(self.snd_seq(self.snd_una));
        self.snd_una + i64::from(SeqNum(seq).distance_from(una))
    }

    /// Receive position of a sequence number: the one nearest to `rcv_nxt`.
    #[inline]
    pub(crate) fn rcv_position(&self, seq: u32) -> i64 {
        let nxt = SeqNum(self.rcv_seq(self.rcv_nxt));
        self.rcv_nxt + i64::from(SeqNum(seq).distance_from(nxt))
    }
}

/// `initial` is the SYN's number, and the SYN is at -1.
#[inline]
fn sequence(initial: u32, position: i64) -> u32 {
    // The low 32 bits of a position are its place on the circle.
    SeqNum(initial).plus(1).plus(position as u32).0
}

/// Getters.
impl Tcb {
    /// The state.
    #[inline]
    pub fn state(&self) -> State {
        State::from_byte(self.state).expect("only transition() writes the state")
    }

    /// How the connection failed, if it did.
    pub fn error(&self) -> Option<Error> {
        Error::from_byte(self.error)
    }

    /// In-order bytes received.
    #[inline]
    pub fn rcv_tail(&self) -> u64 {
        // Not negative: reception starts at 0.
        self.rcv_data_end() as u64
    }

    /// Bytes that the peer has acknowledged.
    #[inline]
    pub fn snd_acked(&self) -> u64 {
        self.snd_una.clamp(0, self.snd_tail) as u64
    }

    /// Bytes written and not acknowledged.
    pub fn send_queue(&self) -> u64 {
        self.snd_tail as u64 - self.snd_acked()
    }

    /// In-order bytes that the application has not said it has read.
    pub fn receive_queue(&self) -> u64 {
        // Nobody reads what has not come.
        (self.rcv_data_end() - self.rcv_head) as u64
    }

    /// Bytes sent at least once.
    pub fn snd_sent(&self) -> u64 {
        self.snd_max.clamp(0, self.snd_tail) as u64
    }

    /// Whether the peer's FIN and all before it arrived.
    pub fn fin_received(&self) -> bool {
        self.rcv_nxt > self.rcv_fin
    }

    /// Whether the application's handle is closed.
    pub fn is_orphan(&self) -> bool {
        self.has(flag::ORPHAN)
    }

    /// Since when somebody is waited for: the application since the peer's FIN came, the peer since
    /// we last sent something to it. `None` while data may flow both ways, or before.
    pub fn waiting_since(&self) -> Option<Nanos> {
        match self.state() {
            State::CloseWait => Some(self.fin_at),
            State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck => {
                Some(self.sent_at)
            }
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::TimeWait => None,
        }
    }

    /// Largest payload of a segment now.
    pub fn mss(&self) -> u16 {
        self.mss - self.options_len()
    }

    /// Largest payload that a segment may have: that of a probe for a larger path MTU.
    pub fn largest_segment(&self) -> u16 {
        self.agreed_mss.min(self.path_mss) - self.options_len()
    }

    /// Smoothed round-trip time, once measured.
    pub fn srtt(&self) -> Option<Nanos> {
        self.rtt.srtt()
    }

    /// Retransmission timeout, not backed off.
    pub fn rto(&self) -> Nanos {
        self.rtt.rto()
    }

    /// Segments sent again, SYNs included.
    pub fn retransmits(&self) -> u32 {
        self.retransmits
    }

    /// Congestion window in bytes.
    pub fn congestion_window(&self) -> u32 {
        self.congestion.window()
    }

    /// The peer's window in bytes.
    pub fn send_window(&self) -> u32 {
        self.snd_wnd
    }

    /// What a record that outlives this one needs; true in FIN_WAIT_2 and TIME_WAIT.
    pub fn time_wait(&self) -> TimeWait {
        TimeWait {
            snd_nxt: self.snd_seq(self.snd_max),
            rcv_nxt: self.rcv_seq(self.rcv_nxt),
            scaled_window: self.scaled_window(),
            ts_recent: self.has(flag::TIMESTAMPS).then_some(self.ts_recent),
            ts_offset: self.ts_offset,
        }
    }
}

impl fmt::Debug for Tcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tcb")
            .field("state", &self.state())
            .field("una/nxt/max/tail", &[self.snd_una, self.snd_nxt, self.snd_max, self.snd_tail])
            .field("rcv head/nxt/edge", &[self.rcv_head, self.rcv_nxt, self.rcv_edge])
            .field("snd_wnd", &self.snd_wnd)
            .field("cwnd", &self.congestion.window())
            .field("flags", &format_args!("{:#b}", self.flags))
            .field("deadline", &self.deadline())
            .finish_non_exhaustive()
    }
}
