//! What a connection knows about itself, for `TCP_INFO`.

use crate::config::{Config, Nanos};
use crate::state::State;
use crate::tcb::{NEVER, Tcb, flag};

/// A look at a connection; bytes and nanoseconds unless a name says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The state.
    pub state: State,
    /// Whether loss is being repaired.
    pub recovery: Recovery,
    /// Timeouts without an answer.
    pub retries: u8,
    /// Probes without an answer: of a closed window, or keepalive's.
    pub probes: u8,
    /// Doublings of the timeout.
    pub backoff: u8,
    /// Timestamps are in use.
    pub timestamps: bool,
    /// Selective acknowledgements are in use.
    pub sack: bool,
    /// Explicit congestion notification is in use.
    pub ecn: bool,
    /// Window scales of the peer and of ours, when windows are scaled.
    pub window_scales: Option<(u8, u8)>,
    /// Retransmission timeout, backed off.
    pub rto: Nanos,
    /// Longest wait of an acknowledgement.
    pub ato: Nanos,
    /// Largest payload that we send, options not counted in.
    pub snd_mss: u32,
    /// Largest payload that we take to be a full segment of the peer's.
    pub rcv_mss: u32,
    /// What we announced.
    pub advertised_mss: u32,
    /// Sent and not acknowledged.
    pub unacknowledged: u32,
    /// Of those, held by the peer out of order.
    pub held: u32,
    /// Of those, taken to be lost and not sent again yet.
    pub lost: u32,
    /// Since data was sent last.
    pub since_sent: Nanos,
    /// Since data was received last.
    pub since_received: Nanos,
    /// Since the peer was heard last.
    pub since_heard: Nanos,
    /// Smoothed round-trip time; 0 before it is measured.
    pub rtt: Nanos,
    /// Its mean deviation.
    pub rtt_variance: Nanos,
    /// Smallest round trip; `None` before it is measured.
    pub min_rtt: Option<Nanos>,
    /// Congestion window.
    pub congestion_window: u32,
    /// Slow start ends here; `u32::MAX` before a loss.
    pub slow_start_threshold: u32,
    /// The peer's window.
    pub send_window: u32,
    /// The window that the peer was told, and the most that it can become.
    pub receive_window: u32,
    /// See `receive_window`.
    pub receive_limit: u32,
    /// Most that was read in a round trip, from which the window is tuned.
    pub read_in_a_round_trip: u32,
    /// Round-trip time as a receiver sees it; `None` before anything tells of it.
    pub receive_rtt: Option<Nanos>,
    /// Largest packet that passes, as far as anybody knows; `None` when nobody does.
    pub path_mtu: Option<u16>,
    /// Written and not sent.
    pub unsent: u64,
    /// Data acknowledged by the peer.
    pub bytes_acked: u64,
    /// Data received in order.
    pub bytes_received: u64,
    /// Data sent, repetitions included.
    pub bytes_sent: u64,
    /// Data sent again.
    pub bytes_resent: u64,
    /// Segments sent again, SYNs included.
    pub retransmits: u32,
    /// Segments in each direction since the handshake of a passive open, or since the SYN.
    pub segments_in: u32,
    /// See `segments_in`.
    pub segments_out: u32,
    /// Of those, with data.
    pub data_segments_in: u32,
    /// See `data_segments_in`.
    pub data_segments_out: u32,
    /// Segments have overtaken each other.
    pub reordering_seen: bool,
}

/// What is being done about loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing is missing.
    Open,
    /// Duplicates were acknowledged, loss is not certain.
    Disorder,
    /// What is lost is sent again, in proportion to what arrives.
    Recovery,
    /// After a timeout.
    Loss,
}

impl Tcb {
    /// A look at everything.
    pub fn info(&self, cfg: &Config, now: Nanos) -> Info {
        let scales = (self.snd_scale, self.rcv_scale);
        let bytes_acked = self.snd_acked();
        // Not negative: no more can be sent than was written, FIN apart.
        let unsent = (self.snd_tail - self.snd_max.max(0)).max(0) as u64;
        let bytes_sent = self.snd_sent() + self.bytes_resent;
        let pipe = if self.state().is_synchronized() { self.pipe(cfg) } else { 0 };
        let held = self.scoreboard.bytes();
        let outstanding = self.outstanding();
        let resting = self.rtx_at == NEVER;
        let probing = !resting && self.snd_wnd == 0 && self.has_unsent();
        Info {
            state: self.state(),
            recovery: self.recovery_state(),
            retries: if probing { 0 } else { self.retries },
            probes: if probing { self.retries } else { self.keepalive_probes },
            backoff: self.backoff,
            timestamps: self.has(flag::TIMESTAMPS),
            sack: self.has(flag::SACK),
            ecn: self.has(flag::ECN),
            window_scales: self.has(flag::SCALING).then_some(scales),
            rto: self.rtt.backed_off(cfg, self.backoff),
            ato: cfg.delayed_ack,
            snd_mss: self.payload_limit(),
            rcv_mss: u32::from(self.rcv_mss),
            advertised_mss: u32::from(self.local_mss),
            unacknowledged: outstanding,
            held,
            lost: outstanding.saturating_sub(held).saturating_sub(pipe),
            since_sent: now.saturating_sub(self.sent_at),
            since_received: now.saturating_sub(self.received_at),
            since_heard: now.saturating_sub(self.heard_at),
            rtt: self.rtt.srtt().unwrap_or(0),
            rtt_variance: self.rtt.variance(),
            min_rtt: self.rtt.min(),
            congestion_window: self.congestion.window(),
            slow_start_threshold: self.congestion.threshold(),
            send_window: self.snd_wnd,
            // The edge never lies before what was received.
            receive_window: (self.rcv_edge - self.rcv_nxt).max(0) as u32,
            receive_limit: self.rcv_limit,
            read_in_a_round_trip: self.read_most(),
            receive_rtt: self.receive_round_trip(),
            path_mtu: self.path_mtu(),
            unsent,
            bytes_acked,
            bytes_received: self.rcv_tail(),
            bytes_sent,
            bytes_resent: self.bytes_resent,
            retransmits: self.retransmits,
            segments_in: self.segments_in,
            segments_out: self.segments_out,
            data_segments_in: self.data_segments_in,
            data_segments_out: self.data_segments_out,
            reordering_seen: self.rack.has_seen_reordering(),
        }
    }

    fn recovery_state(&self) -> Recovery {
        if self.retries > 0 && self.is_outstanding() {
            Recovery::Loss
        } else if self.recovery.is_active() {
            Recovery::Recovery
        } else if self.duplicate_acks > 0 || !self.scoreboard.is_empty() {
            Recovery::Disorder
        } else {
            Recovery::Open
        }
    }

    /// Bytes sent and not acknowledged, whatever the sender makes of them.
    fn outstanding(&self) -> u32 {
        // A window has 30 bits at most, and SYN or FIN adds one.
        (self.snd_max - self.snd_una) as u32
    }
}
