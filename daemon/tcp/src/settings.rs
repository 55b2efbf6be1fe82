//! What an application chooses for one connection: the socket options that the protocol obeys.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::config::{Config, CongestionControl, MILLISECOND, Nanos, SECOND};
use crate::tcb::{NEVER, Tcb, flag};

/// Choices for one connection, or for all that a listener accepts. Zero is "as configured".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Settings {
    /// `TCP_KEEPIDLE`: seconds of silence before the first keepalive probe.
    pub keepalive_time: u32,
    /// `TCP_KEEPINTVL`: seconds between probes.
    pub keepalive_interval: u32,
    /// `TCP_USER_TIMEOUT`: milliseconds without progress after which the connection is given up
    /// (RFC 5482); 0 leaves that to the number of retries.
    pub user_timeout: u32,
    /// `SO_LINGER`: seconds plus one; 0 is off.
    pub linger: u32,
    /// `TCP_LINGER2`: seconds that an orphan stays in FIN_WAIT_2; negative: not at all.
    pub fin_timeout: i16,
    /// `IP_TTL`; 0 leaves it to the configuration.
    pub ttl: u8,
    /// `IPV6_UNICAST_HOPS`; likewise.
    pub hop_limit: u8,
    /// `SO_RCVBUF`: bytes that may wait to be read.
    pub recv_buffer: u32,
    /// `SO_SNDBUF`: bytes that may wait to be acknowledged. The owner of the buffer sees to it.
    pub send_buffer: u32,
    /// `TCP_MAXSEG`: largest segment to announce and to send. Settled by the handshake.
    pub max_segment: u16,
    /// `TCP_KEEPCNT`: unanswered probes before the connection is given up.
    pub keepalive_probes: u8,
    /// `TCP_SYNCNT`: SYN retransmissions with backoff.
    pub syn_retries: u8,
    /// `IP_TOS`, without the two bits of ECN.
    pub tos: u8,
    /// `IPV6_TCLASS`, without the two bits of ECN.
    pub traffic_class: u8,
    /// `TCP_CONGESTION`: a [`CongestionControl`] plus one.
    congestion: u8,
    /// Bits of [`switch`].
    switches: u8,
}

mod switch {
    /// `TCP_NODELAY`.
    pub(super) const NODELAY: u8 = 1;
    /// `TCP_CORK`.
    pub(super) const CORK: u8 = 1 << 1;
    /// `SO_KEEPALIVE`.
    pub(super) const KEEPALIVE: u8 = 1 << 2;
}

impl Settings {
    /// `TCP_NODELAY`: small segments do not wait for acknowledgements.
    pub fn nodelay(&self) -> bool {
        self.switches & switch::NODELAY != 0
    }

    /// See [`nodelay`](Self::nodelay).
    pub fn set_nodelay(&mut self, on: bool) {
        self.set_switch(switch::NODELAY, on);
    }

    /// `TCP_CORK`: no small segment, for 200 ms at the most.
    pub fn cork(&self) -> bool {
        self.switches & switch::CORK != 0
    }

    /// See [`cork`](Self::cork).
    pub fn set_cork(&mut self, on: bool) {
        self.set_switch(switch::CORK, on);
    }

    /// `SO_KEEPALIVE`.
    pub fn keepalive(&self) -> bool {
        self.switches & switch::KEEPALIVE != 0
    }

    /// See [`keepalive`](Self::keepalive).
    pub fn set_keepalive(&mut self, on: bool) {
        self.set_switch(switch::KEEPALIVE, on);
    }

    /// `TCP_CONGESTION`.
    pub fn congestion_control(&self, cfg: &Config) -> CongestionControl {
        CongestionControl::from_byte(self.congestion.wrapping_sub(1))
            .unwrap_or(cfg.congestion_control)
    }

    /// See [`congestion_control`](Self::congestion_control).
    pub fn set_congestion_control(&mut self, algorithm: CongestionControl) {
        self.congestion = algorithm as u8 + 1;
    }

    /// The field of the IP header, the bits of ECN clear.
    pub fn ip_tos(&self, is_v4: bool) -> u8 {
        if is_v4 { self.tos } else { self.traffic_class }
    }

    /// TTL or hop limit of what is sent.
    pub fn ip_ttl(&self, is_v4: bool, cfg: &Config) -> u8 {
        match if is_v4 { self.ttl } else { self.hop_limit } {
            0 => cfg.hop_limit,
            ttl => ttl,
        }
    }

    /// Seconds of silence before the first keepalive probe.
    pub fn keepalive_time(&self, cfg: &Config) -> u32 {
        or_default(self.keepalive_time, cfg.keepalive_time)
    }

    /// Seconds between keepalive probes.
    pub fn keepalive_interval(&self, cfg: &Config) -> u32 {
        or_default(self.keepalive_interval, cfg.keepalive_interval)
    }

    /// Unanswered keepalive probes before the connection is given up.
    pub fn keepalive_probes(&self, cfg: &Config) -> u8 {
        match self.keepalive_probes {
            0 => cfg.keepalive_probes,
            probes => probes,
        }
    }

    /// SYN retransmissions with backoff.
    pub fn syn_retries(&self, cfg: &Config) -> u8 {
        match self.syn_retries {
            0 => cfg.syn_retries,
            retries => retries,
        }
    }

    /// How long an orphan stays in FIN_WAIT_2; `None`: not at all.
    pub fn fin_timeout(&self, cfg: &Config) -> Option<Nanos> {
        match self.fin_timeout {
            0 => Some(cfg.fin_timeout),
            seconds => u64::try_from(seconds).ok().map(|seconds| seconds * SECOND),
        }
    }

    /// Bytes that may wait to be read. Not less than two steps of the window scale, which is agreed
    /// on for larger windows: of less, the peer would be told zero although all is read.
    pub fn recv_limit(&self, cfg: &Config) -> u32 {
        let steps = if cfg.window_scaling { 2 << cfg.window_scale } else { 0 };
        let chosen = if self.recv_buffer == 0 { 0 } else { self.recv_buffer.max(steps) };
        or_default(chosen, cfg.recv_window_max).min(cfg.recv_window_max)
    }

    /// The window field of a SYN or SYN-ACK, which is never scaled (RFC 7323 §2.2).
    pub fn syn_window(&self, cfg: &Config) -> u16 {
        u16::try_from(self.recv_limit(cfg)).unwrap_or(u16::MAX).min(cfg.syn_window())
    }

    /// The MSS to announce where the path takes `mss`.
    pub fn limit_mss(&self, mss: u16) -> u16 {
        match self.max_segment {
            0 => mss,
            most => mss.min(most),
        }
    }

    /// Whether closing resets the connection at once (`SO_LINGER` with zero).
    pub(crate) fn resets_on_close(&self) -> bool {
        self.linger == 1
    }

    pub(crate) fn user_timeout(&self) -> Option<Nanos> {
        (self.user_timeout > 0).then(|| Nanos::from(self.user_timeout) * MILLISECOND)
    }

    fn set_switch(&mut self, bit: u8, on: bool) {
        if on {
            self.switches |= bit;
        } else {
            self.switches &= !bit;
        }
    }
}

fn or_default(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

impl Tcb {
    /// What was chosen for this connection.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Choices that were made before the connection: for a new record, before anything is handled
    /// or sent.
    pub fn begin(&mut self, cfg: &Config, now: Nanos, settings: &Settings) {
        self.apply(cfg, now, settings);
        self.rcv_edge = i64::from(settings.syn_window(cfg));
    }

    /// Other choices from now on.
    pub fn apply(&mut self, cfg: &Config, now: Nanos, settings: &Settings) {
        let old = core::mem::replace(&mut self.settings, *settings);
        if settings.recv_buffer != old.recv_buffer {
            // The right edge stays where it is until it lies within the limit again
            // (RFC 9293 §3.8.6, SHLD-14).
            // More than the first window has to be backed: Tcb::tune_receive() asks for it.
            let limit = settings.recv_limit(cfg).min(cfg.first_window());
            self.rcv_limit = self.scalable(limit);
        }
        let algorithm = settings.congestion_control(cfg);
        if algorithm != old.congestion_control(cfg) {
            self.congestion.set_algorithm(algorithm);
        }
        self.plan_keepalive(cfg);
        if self.keepalive_at != NEVER {
            self.keepalive_at = self.keepalive_at.max(now);
        }
        if self.rtx_at != NEVER {
            self.rtx_at = self.within_user_timeout(self.rtx_at).max(now);
        }
    }

    /// Turns Nagle's algorithm off or on.
    pub fn set_nodelay(&mut self, on: bool) {
        self.settings.set_nodelay(on);
    }

    /// `TCP_QUICKACK`. On: an acknowledgement that waits goes now, and so do the next ones, as
    /// many as at the start of a connection. Off: they wait for something to ride on.
    pub fn set_quickack(&mut self, cfg: &Config, on: bool) {
        self.set_flag(flag::QUICKACK, on);
        self.quick_acks = if on { cfg.quick_acks } else { 0 };
        if on && self.ack_at != NEVER {
            self.set_flag(flag::ACK_NOW, true);
        }
    }

    /// `TCP_QUICKACK`: whether the next segment is acknowledged at once.
    pub fn quickack(&self) -> bool {
        self.quick_acks > 0
    }
}
