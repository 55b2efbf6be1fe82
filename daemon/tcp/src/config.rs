//! What all connections of a shard share.

/// Nanoseconds of a monotonic clock, or a span of them.
pub type Nanos = u64;

pub(crate) const MILLISECOND: Nanos = 1_000_000;
pub(crate) const SECOND: Nanos = 1_000 * MILLISECOND;

/// How the congestion window grows and shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CongestionControl {
    /// RFC 5681 and RFC 6582; Linux calls it `reno`.
    NewReno = 0,
    /// RFC 9438.
    Cubic = 1,
}

/// Whether congestion is notified explicitly (RFC 3168); Linux's `tcp_ecn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// No.
    Off = 0,
    /// Our SYNs ask for it, and who asks for it gets it.
    On = 1,
    /// Who asks for it gets it.
    Accept = 2,
}

/// Settings, the defaults being Linux's unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Retransmission timeout before there is a sample (RFC 6298 §2.1).
    pub rto_initial: Nanos,
    /// Least margin of the timeout over the smoothed round-trip time.
    pub rto_min: Nanos,
    /// Largest timeout, backed off or not.
    pub rto_max: Nanos,
    /// Longest wait of an ACK for something to ride on (RFC 9293 MUST-58 allows 500 ms).
    pub delayed_ack: Nanos,
    /// Life of an orphan in FIN_WAIT_2.
    pub fin_timeout: Nanos,
    /// Stay in TIME_WAIT: 2 MSL.
    pub time_wait: Nanos,
    /// Least time between two challenge ACKs of one connection (`invalid_ratelimit`).
    pub challenge_interval: Nanos,
    /// SYN retransmissions with exponential backoff.
    pub syn_retries: u8,
    /// SYN retransmissions before those, without backoff.
    pub syn_linear_timeouts: u8,
    /// SYN-ACK retransmissions.
    pub synack_retries: u8,
    /// Retransmissions of data, or unanswered probes, before the connection is given up. Of data it
    /// stands for a time, see [`Config::patience`].
    pub retries2: u8,
    /// The same for a connection whose handle is closed. Linux writes 0 for this default.
    pub orphan_retries: u8,
    /// Seconds of silence before the first keepalive probe, where keepalive is wanted
    /// (RFC 9293 §3.8.4, MUST-28: not less than two hours by default).
    pub keepalive_time: u32,
    /// Seconds between keepalive probes.
    pub keepalive_interval: u32,
    /// Unanswered keepalive probes before the connection is given up.
    pub keepalive_probes: u8,
    /// Offer and accept window scaling (RFC 7323 §2).
    pub window_scaling: bool,
    /// Window scale to offer; at most 14.
    pub window_scale: u8,
    /// Duplicate ACKs that mean loss (RFC 5681 §3.2).
    pub duplicate_ack_threshold: u8,
    /// Congestion control of new connections.
    pub congestion_control: CongestionControl,
    /// Initial congestion window in segments (RFC 6928).
    pub initial_window: u8,
    /// Full-sized segments at the start that are acknowledged one by one, for the peer's slow start.
    pub quick_acks: u8,
    /// TTL or hop limit of what is sent, unless a connection has its own.
    pub hop_limit: u8,
    /// Receive window that a connection begins with, bytes.
    pub recv_window_first: u32,
    /// Largest receive window in bytes, and most bytes received that the application has not read.
    pub recv_window_max: u32,
    /// Most bytes written that the peer has not acknowledged.
    pub send_buffer: u32,
    /// Offer and accept timestamps (RFC 7323).
    pub timestamps: bool,
    /// Offer and accept selective acknowledgements (RFC 2018), duplicates reported (RFC 2883).
    pub sack: bool,
    /// Explicit congestion notification.
    pub ecn: Ecn,
    /// Search for a smaller segment size when large ones seem to be swallowed (RFC 4821, Linux's
    /// `tcp_mtu_probing` = 1; off in Linux unless asked for).
    pub mtu_probing: bool,
    /// Segment size that such a search starts from, options included.
    pub base_mss: u16,
    /// How long what was found holds before larger segments are tried again.
    pub mtu_probe_interval: Nanos,
    /// Start slowly after an idle time of one retransmission timeout (RFC 5681 §4.1).
    pub slow_start_after_idle: bool,
    /// Nagle's algorithm, in Minshall's form (RFC 9293 §3.7.4), for connections without
    /// `TCP_NODELAY`.
    pub nagle: bool,
}

impl CongestionControl {
    /// The one that a byte stands for.
    pub(crate) fn from_byte(byte: u8) -> Option<CongestionControl> {
        [CongestionControl::NewReno, CongestionControl::Cubic].get(usize::from(byte)).copied()
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            rto_initial: SECOND,
            rto_min: 200 * MILLISECOND,
            rto_max: 120 * SECOND,
            delayed_ack: 40 * MILLISECOND,
            fin_timeout: 60 * SECOND,
            time_wait: 60 * SECOND,
            challenge_interval: 500 * MILLISECOND,
            syn_retries: 6,
            syn_linear_timeouts: 4,
            synack_retries: 5,
            retries2: 15,
            orphan_retries: 8,
            keepalive_time: 7200,
            keepalive_interval: 75,
            keepalive_probes: 9,
            window_scaling: true,
            window_scale: Config::scale_for(4 << 20),
            duplicate_ack_threshold: 3,
            congestion_control: CongestionControl::Cubic,
            initial_window: 10,
            quick_acks: 16,
            hop_limit: 64,
            recv_window_first: 64 << 10,
            recv_window_max: 4 << 20,
            send_buffer: 4 << 20,
            timestamps: true,
            sack: true,
            ecn: Ecn::Accept,
            mtu_probing: true,
            base_mss: 1024,
            mtu_probe_interval: 600 * SECOND,
            slow_start_after_idle: true,
            nagle: true,
        }
    }
}

impl Config {
    /// The least window scale by which a window of `bytes` can be told (RFC 7323 §2.3).
    pub const fn scale_for(bytes: u32) -> u8 {
        let mut scale = 0;
        while scale < fourwave_wire::MAX_WINDOW_SCALE && bytes >> scale > u16::MAX as u32 {
            scale += 1;
        }
        scale
    }

    /// How long data is sent again in vain before the connection is given up: as long as `retries`
    /// retransmissions and the wait after the last take when the timeout is 200 ms at first. A time,
    /// and as Linux the same for all: a short timeout makes nobody impatient, nor a long one patient.
    pub fn patience(&self, retries: u8) -> Nanos {
        const FIRST: Nanos = 200 * MILLISECOND;
        let doublings = (self.rto_max / FIRST).max(1).ilog2().min(retries.into());
        let growing = FIRST.saturating_mul((2 << doublings) - 1);
        growing
            .saturating_add(self.rto_max.saturating_mul(u64::from(retries) - u64::from(doublings)))
    }

    /// Receive window that a connection begins with.
    #[inline]
    pub fn first_window(&self) -> u32 {
        self.recv_window_first.min(self.recv_window_max)
    }

    /// The window field of a SYN or SYN-ACK, which is never scaled (RFC 7323 §2.2).
    #[inline]
    pub fn syn_window(&self) -> u16 {
        u16::try_from(self.first_window()).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_as_linux_documents_it() {
        let cfg = Config::default();
        // Documentation/networking/ip-sysctl.rst: tcp_retries2 = 15 is 924.6 s.
        assert_eq!(cfg.patience(15), 924_600 * MILLISECOND);
        assert_eq!(cfg.patience(8), 102_200 * MILLISECOND);
        assert_eq!(cfg.patience(0), 200 * MILLISECOND);
        let cfg = Config { rto_max: SECOND / 10, ..cfg };
        assert_eq!(cfg.patience(3), 500 * MILLISECOND);
        let cfg = Config { rto_max: Nanos::MAX, ..cfg };
        assert!(cfg.patience(u8::MAX) > 1 << 60);
    }
}
