//! `TCP_INFO`.

use fourwave_protocol::report::ConnInfo;
use std::time::Duration;

/// What the daemon knows about a connection: `struct tcp_info` in std's types. What fourwave does
/// not measure is not here, and zero in the raw form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpInfo {
    /// `tcpi_state`: the state as Linux numbers it, 1 being ESTABLISHED and 7 CLOSE.
    pub state: u8,
    /// `tcpi_ca_state`: 0 open, 1 disorder, 3 recovery, 4 loss.
    pub ca_state: u8,
    /// `tcpi_retransmits`: timeouts without an answer.
    pub retransmits: u8,
    /// `tcpi_probes`: probes without an answer, of a closed window or keepalive's.
    pub probes: u8,
    /// `tcpi_backoff`: doublings of the timeout.
    pub backoff: u8,
    /// Timestamps are in use.
    pub timestamps: bool,
    /// Selective acknowledgements are in use.
    pub sack: bool,
    /// Explicit congestion notification is in use.
    pub ecn: bool,
    /// `tcpi_snd_wscale` and `tcpi_rcv_wscale`, if windows are scaled.
    pub window_scales: Option<(u8, u8)>,
    /// `tcpi_rto`: retransmission timeout.
    pub rto: Duration,
    /// `tcpi_ato`: how long an acknowledgement waits at the most.
    pub ato: Duration,
    /// `tcpi_snd_mss`: most bytes in a segment that we send.
    pub snd_mss: u32,
    /// `tcpi_rcv_mss`: bytes in a full segment of the peer's.
    pub rcv_mss: u32,
    /// `tcpi_advmss`: what we announced.
    pub advmss: u32,
    /// `tcpi_unacked`: segments sent and not acknowledged.
    pub unacked: u32,
    /// `tcpi_sacked`: of those, held by the peer out of order.
    pub sacked: u32,
    /// `tcpi_lost`: of those, taken to be lost and not sent again yet.
    pub lost: u32,
    /// `tcpi_last_data_sent`: since then.
    pub last_data_sent: Duration,
    /// `tcpi_last_data_recv`: since then.
    pub last_data_recv: Duration,
    /// `tcpi_last_ack_recv`: since then.
    pub last_ack_recv: Duration,
    /// `tcpi_rtt`: smoothed round-trip time; zero before it is measured.
    pub rtt: Duration,
    /// `tcpi_rttvar`: its mean deviation.
    pub rttvar: Duration,
    /// `tcpi_min_rtt`, once it is measured.
    pub min_rtt: Option<Duration>,
    /// `tcpi_snd_cwnd`: congestion window in segments.
    pub snd_cwnd: u32,
    /// `tcpi_snd_ssthresh` in segments; `None` before a loss.
    pub snd_ssthresh: Option<u32>,
    /// `tcpi_snd_wnd`: the peer's window in bytes.
    pub snd_wnd: u32,
    /// `tcpi_rcv_wnd`: the window that the peer was told, bytes.
    pub rcv_wnd: u32,
    /// `tcpi_rcv_ssthresh`: the most that it can become at present, bytes.
    pub rcv_ssthresh: u32,
    /// `tcpi_rcv_space`: most bytes that were read in a round trip, from which the window is tuned.
    pub rcv_space: u32,
    /// `tcpi_rcv_rtt`: round-trip time as a receiver sees it, once it is known.
    pub rcv_rtt: Option<Duration>,
    /// `tcpi_pmtu`: largest packet that passes, by routes, routers and the search.
    pub pmtu: Option<u32>,
    /// `tcpi_notsent_bytes`: written and not sent.
    pub notsent_bytes: u64,
    /// `tcpi_bytes_acked`: data that the peer has acknowledged.
    pub bytes_acked: u64,
    /// `tcpi_bytes_received`: data received in order.
    pub bytes_received: u64,
    /// `tcpi_bytes_sent`: data sent, repetitions included.
    pub bytes_sent: u64,
    /// `tcpi_bytes_retrans`: data sent again.
    pub bytes_retrans: u64,
    /// `tcpi_total_retrans`: segments sent again.
    pub total_retrans: u32,
    /// `tcpi_segs_in`: segments received since the handshake.
    pub segs_in: u32,
    /// `tcpi_segs_out`: segments sent since the handshake.
    pub segs_out: u32,
    /// `tcpi_data_segs_in`: of those, with data.
    pub data_segs_in: u32,
    /// `tcpi_data_segs_out`: of those, with data.
    pub data_segs_out: u32,
    /// Segments were seen to overtake each other.
    pub reordering_seen: bool,
}

/// `tcpi_state` of a connection that is over.
const CLOSED: u64 = 7;
/// `TCP_INFINITE_SSTHRESH`.
const INFINITE: u32 = 0x7fff_ffff;

/// Bits of `tcpi_options`.
mod options {
    pub(super) const TIMESTAMPS: u8 = 1;
    pub(super) const SACK: u8 = 2;
    pub(super) const WINDOW_SCALE: u8 = 4;
    pub(super) const ECN: u8 = 8;
}

/// Bytes of `struct tcp_info` that are written, up to `tcpi_rcv_wnd`.
pub(crate) const RAW_LEN: usize = 236;

impl TcpInfo {
    /// From the daemon's report; without a control block the connection is over.
    pub(crate) fn new(is_live: bool, info: &ConnInfo) -> TcpInfo {
        // Counts of 8 and 32 bits travel as words of 64.
        let segments = |bytes: u64| bytes.div_ceil(info.send_mss.max(1)) as u32;
        let time = Duration::from_nanos;
        let infinite = info.slow_start_threshold >= u64::from(u32::MAX);
        TcpInfo {
            state: if is_live { info.state } else { CLOSED } as u8,
            ca_state: info.congestion_state as u8,
            retransmits: info.retransmits as u8,
            probes: info.probes as u8,
            backoff: info.backoff as u8,
            timestamps: info.timestamps != 0,
            sack: info.sack != 0,
            ecn: info.ecn != 0,
            window_scales: (info.scaling != 0)
                .then_some((info.send_scale as u8, info.receive_scale as u8)),
            rto: time(info.rto),
            ato: time(info.ato),
            snd_mss: info.send_mss as u32,
            rcv_mss: info.receive_mss as u32,
            advmss: info.advertised_mss as u32,
            unacked: segments(info.unacknowledged),
            sacked: segments(info.held),
            lost: segments(info.lost),
            last_data_sent: time(info.since_sent),
            last_data_recv: time(info.since_received),
            last_ack_recv: time(info.since_heard),
            rtt: time(info.rtt),
            rttvar: time(info.rtt_variance),
            min_rtt: (is_live && info.min_rtt != u64::MAX).then(|| time(info.min_rtt)),
            snd_cwnd: (info.congestion_window / info.send_mss.max(1)) as u32,
            snd_ssthresh: (!infinite).then(|| segments(info.slow_start_threshold)),
            snd_wnd: info.send_window as u32,
            rcv_wnd: info.receive_window as u32,
            rcv_ssthresh: info.receive_limit as u32,
            rcv_space: info.read_in_a_round_trip as u32,
            rcv_rtt: (info.receive_rtt > 0).then(|| time(info.receive_rtt)),
            pmtu: (info.path_mtu > 0).then_some(info.path_mtu as u32),
            notsent_bytes: info.unsent,
            bytes_acked: info.bytes_acked,
            bytes_received: info.bytes_received,
            bytes_sent: info.bytes_sent,
            bytes_retrans: info.bytes_resent,
            total_retrans: info.total_retransmits as u32,
            segs_in: info.segments_in as u32,
            segs_out: info.segments_out as u32,
            data_segs_in: info.data_segments_in as u32,
            data_segs_out: info.data_segments_out as u32,
            reordering_seen: info.reordering_seen != 0,
        }
    }

    /// As the kernel lays it out, in native byte order.
    pub(crate) fn to_raw(self) -> [u8; RAW_LEN] {
        let mut raw = [0; RAW_LEN];
        let scaled = |on, bit| if on { bit } else { 0 };
        let (send, receive) = self.window_scales.unwrap_or_default();
        raw[..6].copy_from_slice(&[
            self.state,
            self.ca_state,
            self.retransmits,
            self.probes,
            self.backoff,
            scaled(self.timestamps, options::TIMESTAMPS)
                | scaled(self.sack, options::SACK)
                | scaled(self.ecn, options::ECN)
                | scaled(self.window_scales.is_some(), options::WINDOW_SCALE),
        ]);
        // Two bit fields of four bits; which comes first depends on the byte order.
        raw[6] =
            if cfg!(target_endian = "little") { send | receive << 4 } else { send << 4 | receive };
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        for (at, value) in [
            (8, micros(self.rto)),
            (12, micros(self.ato)),
            (16, self.snd_mss),
            (20, self.rcv_mss),
            (24, self.unacked),
            (28, self.sacked),
            (32, self.lost),
            (44, millis(self.last_data_sent)),
            (52, millis(self.last_data_recv)),
            (56, millis(self.last_ack_recv)),
            (60, self.pmtu.unwrap_or(0)),
            (64, self.rcv_ssthresh),
            (68, micros(self.rtt)),
            (72, micros(self.rttvar)),
            (76, self.snd_ssthresh.unwrap_or(INFINITE)),
            (80, self.snd_cwnd),
            (84, self.advmss),
            (92, self.rcv_rtt.map_or(0, micros)),
            (96, self.rcv_space),
            (100, self.total_retrans),
            (136, self.segs_out),
            (140, self.segs_in),
            (144, u32::try_from(self.notsent_bytes).unwrap_or(u32::MAX)),
            // As Linux before the first measurement.
            (148, self.min_rtt.map_or(u32::MAX, micros)),
            (152, self.data_segs_in),
            (156, self.data_segs_out),
            (228, self.snd_wnd),
            (232, self.rcv_wnd),
        ] {
            raw[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        for (at, value) in [
            (120, self.bytes_acked),
            (128, self.bytes_received),
            (200, self.bytes_sent),
            (208, self.bytes_retrans),
        ] {
            raw[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        raw
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_segments() {
        let info = ConnInfo {
            state: 1,
            ecn: 1,
            send_mss: 1000,
            unacknowledged: 2001,
            congestion_window: 10_500,
            slow_start_threshold: u64::from(u32::MAX),
            rtt: 1_500_000,
            scaling: 1,
            send_scale: 3,
            receive_scale: 7,
            min_rtt: u64::MAX,
            receive_window: 500,
            receive_limit: 65_536,
            read_in_a_round_trip: 32_768,
            receive_rtt: 2_500_000,
            path_mtu: 1040,
            ..ConnInfo::default()
        };
        let live = TcpInfo::new(true, &info);
        assert_eq!((live.unacked, live.snd_cwnd, live.snd_ssthresh), (3, 10, None));
        assert_eq!((live.state, live.min_rtt), (1, None));
        let raw = live.to_raw();
        assert_eq!(raw[0], 1);
        assert_eq!(raw[5], options::WINDOW_SCALE | options::ECN);
        let word = |at: usize| u32::from_ne_bytes(raw[at..at + 4].try_into().unwrap());
        assert_eq!((word(68), word(76), word(24)), (1500, INFINITE, 3));
        assert_eq!((word(60), word(64), word(92)), (1040, 65_536, 2500));
        assert_eq!((word(96), word(232)), (32_768, 500));
        let over = TcpInfo::new(false, &ConnInfo::default());
        assert_eq!((over.state, over.snd_cwnd), (7, 0));
        assert_eq!((over.rcv_rtt, over.pmtu), (None, None));
    }
}
