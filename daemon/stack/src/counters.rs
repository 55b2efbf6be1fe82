//! What a shard counts: plain numbers, one owner, exported by whoever reads them.

use fourwave_tcp::DropReason;
use fourwave_wire::ParseError;

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident: $name:literal,)*) => {
        /// Counts since the shard was made. Those that Linux also has carry Linux's names.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $field: u64,)*
            /// Frames refused before TCP saw them, by reason.
            pub frames_refused: [u64; ParseError::COUNT],
            /// Segments, or parts of them, that a connection did not take, by reason.
            pub segments_dropped: [u64; DropReason::COUNT],
        }

        impl Counters {
            /// Calls `f` with each counter's name, its reason if it is one of a family, and its
            /// value.
            pub fn for_each(&self, mut f: impl FnMut(&'static str, Option<&'static str>, u64)) {
                $(f($name, None, self.$field);)*
                for reason in ParseError::ALL {
                    let count = self.frames_refused[reason as usize];
                    f("frames_refused", Some(reason.reason()), count);
                }
                for reason in DropReason::ALL {
                    let count = self.segments_dropped[reason as usize];
                    f("segments_dropped", Some(reason.reason()), count);
                }
            }
        }
    };
}

counters! {
    /// TCP segments received, bad ones excluded.
    in_segs: "InSegs",
    /// Segments sent.
    out_segs: "OutSegs",
    /// Segments sent again.
    retrans_segs: "RetransSegs",
    /// Resets sent.
    out_rsts: "OutRsts",
    /// Connections opened from here.
    active_opens: "ActiveOpens",
    /// Connections that a listener's handshake completed.
    passive_opens: "PassiveOpens",
    /// Handshakes that failed.
    attempt_fails: "AttemptFails",
    /// Connections reset after their handshake.
    estab_resets: "EstabResets",
    /// An accept queue was full when a SYN or a handshake's last ACK came.
    listen_overflows: "ListenOverflows",
    /// SYNs and last ACKs dropped for whatever reason.
    listen_drops: "ListenDrops",
    /// SYNs answered by a cookie because their listener's SYN queue was full, or always.
    syn_queue_full_cookies: "TCPReqQFullDoCookies",
    /// SYN cookies sent.
    syn_cookies_sent: "SyncookiesSent",
    /// Last ACKs with a good cookie.
    syn_cookies_received: "SyncookiesRecv",
    /// ACKs that could have had a cookie and had not.
    syn_cookies_failed: "SyncookiesFailed",
    /// SYNs dropped because their listener's SYN queue was full.
    syn_queue_full: "TCPReqQFullDrop",
    /// SYNs dropped because, without cookies, the last quarter of `max_syn_backlog` is kept for
    /// peers that have completed a handshake before.
    syn_peer_not_proven: "syn_peer_not_proven",
    /// SYNs dropped, or answered by a cookie, because no SYN_RCVD record was free.
    syn_records_full: "syn_records_full",
    /// Last ACKs ignored because no connection record was free.
    connections_full: "connections_full",
    /// Last ACKs ignored because the host had no room for the connection.
    open_refused: "open_refused",
    /// Handshakes given up because the last ACK never came.
    syn_ack_timeouts: "syn_ack_timeouts",
    /// Segments that mean nothing to a handshake under way.
    request_ignored: "request_ignored",
    /// Answers to a handshake's stray segments left out: less than 500 ms after the last.
    ack_skipped_syn_recv: "TCPACKSkippedSynRecv",
    /// Challenge ACKs sent.
    challenge_acks: "TCPChallengeACK",
    /// Challenge ACKs left out: `challenge_ack_limit` was used up.
    challenge_acks_limited: "challenge_acks_limited",
    /// Answers in TIME_WAIT left out: less than 500 ms after the last.
    ack_skipped_time_wait: "TCPACKSkippedTimeWait",
    /// The same in FIN_WAIT_2.
    ack_skipped_fin_wait_2: "TCPACKSkippedFinWait2",
    /// TIME_WAIT and FIN_WAIT_2 records that ended.
    time_waits: "TW",
    /// New connections that took a TIME_WAIT record's place.
    time_wait_takeovers: "TWRecycled",
    /// Connections ended at once because no TIME_WAIT record was free.
    time_wait_overflow: "TCPTimeWaitOverflow",
    /// Segments that mean nothing to a TIME_WAIT record.
    time_wait_ignored: "time_wait_ignored",
    /// Segments older than the newest timestamp seen, at a TIME_WAIT record.
    paws_rejected: "PAWSTimewait",
    /// Data for a connection whose application is gone.
    abort_on_data: "TCPAbortOnData",
    /// Connections reset because more than `max_orphans` were held by nobody.
    abort_on_memory: "TCPAbortOnMemory",
    /// Connections given up because the peer did not answer.
    abort_on_timeout: "TCPAbortOnTimeout",
    /// Segments without a connection, answered by a reset.
    no_connection: "no_connection",
    /// Segments without a connection that call for no answer.
    no_connection_ignored: "no_connection_ignored",
    /// Segments to an address that is not ours.
    foreign_address: "foreign_address",
    /// ICMP errors about a connection that we do not have.
    icmp_no_connection: "icmp_no_connection",
    /// ICMP errors about a SYN-ACK that was not sent.
    icmp_out_of_window: "OutOfWindowIcmps",
    /// Active opens without a free local port.
    no_local_port: "no_local_port",
    /// Active opens given up because the next hop's link address never came.
    neighbour_timeouts: "neighbour_timeouts",
    /// Answers left out because there was no room to send.
    tx_ring_full: "tx_ring_full",
    /// Frames that did not fit the room for them: the path's MTU is larger than that.
    tx_too_small: "tx_too_small",
}

impl Counters {
    pub(crate) fn count_refused(&mut self, reason: ParseError) {
        self.frames_refused[reason as usize] += 1;
    }

    pub(crate) fn count_segment_drop(&mut self, reason: DropReason) {
        self.segments_dropped[reason as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_counter_is_exported_once_with_its_value() {
        let mut counters = Counters { listen_overflows: 3, ..Counters::default() };
        counters.count_refused(ParseError::TcpChecksum);
        counters.count_segment_drop(DropReason::OutOfWindow);
        let mut names = BTreeSet::new();
        let mut values = Vec::new();
        counters.for_each(|name, reason, value| {
            assert!(names.insert((name, reason)), "{name} {reason:?} twice");
            if value > 0 {
                values.push((name, reason, value));
            }
        });
        let expected = [
            ("ListenOverflows", None, 3),
            ("frames_refused", Some("tcp_checksum"), 1),
            ("segments_dropped", Some("out_of_window"), 1),
        ];
        assert_eq!(values, expected);
    }
}
