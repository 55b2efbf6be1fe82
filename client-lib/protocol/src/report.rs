//! What the daemon answers to [`Command::Ask`](crate::command::Command::Ask): all options of a
//! connection, and what it knows about itself. It lies in a block beside the lane's rings, because
//! it is larger than an event.

use crate::option::ConnOption;
use crate::sync::{AtomicU64, Ordering};

/// Words of an answer block; what is not used is zero.
pub const REPORT_WORDS: usize = 64;

/// Where a worker leaves a [`Report`] for a lane. Written by the daemon alone.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct ReportBlock([AtomicU64; REPORT_WORDS]);

impl ReportBlock {
    /// Daemon: leaves a report. The event that tells of it publishes it.
    pub fn store(&self, report: &Report) {
        for (cell, word) in self.0.iter().zip(report.words()) {
            // Relaxed: published by the Release that posts the event.
            cell.store(word, Ordering::Relaxed);
        }
    }

    /// Client: the report that an event told of.
    pub fn load(&self) -> Report {
        // Relaxed: ordered by the Acquire that took the event.
        Report::from_words(core::array::from_fn(|at| self.0[at].load(Ordering::Relaxed)))
    }
}

/// All options of a connection, and what it knows about itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// By [`ConnOption::index`]; buffers as they are, other options as they were set or are
    /// configured.
    pub options: [u32; ConnOption::ALL.len()],
    /// Whether there still is a control block; without one the rest is zero.
    pub is_live: bool,
    /// What the control block says.
    pub info: ConnInfo,
}

impl Report {
    fn words(&self) -> [u64; REPORT_WORDS] {
        let mut words = [0; REPORT_WORDS];
        let (options, rest) = words.split_at_mut(self.options.len());
        for (word, value) in options.iter_mut().zip(self.options) {
            *word = u64::from(value);
        }
        rest[0] = u64::from(self.is_live);
        rest[1..=ConnInfo::WORDS].copy_from_slice(&self.info.words());
        words
    }

    fn from_words(words: [u64; REPORT_WORDS]) -> Report {
        let mut report = Report::default();
        let (options, rest) = words.split_at(report.options.len());
        for (value, word) in report.options.iter_mut().zip(options) {
            // No more was stored.
            *value = *word as u32;
        }
        report.is_live = rest[0] != 0;
        report.info = ConnInfo::from_words(core::array::from_fn(|at| rest[1 + at]));
        report
    }
}

/// Declares [`ConnInfo`] and the order of its words in one place.
macro_rules! conn_info {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a connection knows about itself. Bytes and nanoseconds unless a name says otherwise.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct ConnInfo {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl ConnInfo {
            const WORDS: usize = [$(stringify!($name)),*].len();

            fn words(&self) -> [u64; ConnInfo::WORDS] {
                [$(self.$name),*]
            }

            fn from_words([$($name),*]: [u64; ConnInfo::WORDS]) -> ConnInfo {
                ConnInfo { $($name),* }
            }
        }
    };
}

conn_info! {
    /// State, numbered as in Linux's `tcp_states.h`.
    state,
    /// What is done about loss, numbered as in Linux's `enum tcp_ca_state`.
    congestion_state,
    /// Timeouts without an answer.
    retransmits,
    /// Probes without an answer.
    probes,
    /// Doublings of the timeout.
    backoff,
    /// Timestamps are in use: 0 or 1.
    timestamps,
    /// Selective acknowledgements are in use: 0 or 1.
    sack,
    /// Explicit congestion notification is in use: 0 or 1.
    ecn,
    /// Windows are scaled: 0 or 1.
    scaling,
    /// The peer's scale.
    send_scale,
    /// Ours.
    receive_scale,
    /// Retransmission timeout.
    rto,
    /// Longest wait of an acknowledgement.
    ato,
    /// Largest payload that we send.
    send_mss,
    /// A full segment of the peer's.
    receive_mss,
    /// What we announced.
    advertised_mss,
    /// Sent and not acknowledged.
    unacknowledged,
    /// Of those, held by the peer out of order.
    held,
    /// Of those, taken to be lost.
    lost,
    /// Since data was sent.
    since_sent,
    /// Since data was received.
    since_received,
    /// Since the peer was heard.
    since_heard,
    /// Smoothed round-trip time.
    rtt,
    /// Its mean deviation.
    rtt_variance,
    /// Smallest round trip; `u64::MAX` before it was measured.
    min_rtt,
    /// Congestion window.
    congestion_window,
    /// Slow start threshold; `u32::MAX` before a loss.
    slow_start_threshold,
    /// The peer's window.
    send_window,
    /// The window that the peer was told.
    receive_window,
    /// The most that it can become.
    receive_limit,
    /// Most that was read in a round trip.
    read_in_a_round_trip,
    /// Round-trip time as a receiver sees it; 0 before it is known.
    receive_rtt,
    /// Largest packet that passes; 0 when nobody knows.
    path_mtu,
    /// Written and not sent.
    unsent,
    /// Data acknowledged.
    bytes_acked,
    /// Data received in order.
    bytes_received,
    /// Data sent, repetitions included.
    bytes_sent,
    /// Data sent again.
    bytes_resent,
    /// Segments sent again.
    total_retransmits,
    /// Segments received.
    segments_in,
    /// Segments sent.
    segments_out,
    /// Segments received with data.
    data_segments_in,
    /// Segments sent with data.
    data_segments_out,
    /// Segments were seen to overtake each other: 0 or 1.
    reordering_seen,
}

const _: () = assert!(ConnOption::ALL.len() + 1 + ConnInfo::WORDS <= REPORT_WORDS);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives() {
        let block = ReportBlock([const { AtomicU64::new(0) }; REPORT_WORDS]);
        assert_eq!(block.load(), Report::default());
        let report = Report {
            options: core::array::from_fn(|at| u32::MAX - at as u32),
            is_live: true,
            info: ConnInfo::from_words(core::array::from_fn(|at| u64::MAX - at as u64)),
        };
        block.store(&report);
        assert_eq!(block.load(), report);
    }
}
