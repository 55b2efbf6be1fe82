//! What a shard counts: plain numbers, one owner, exported by whoever reads them.

use fourwave_tcp::DropReason;
use fourwave_wire::ParseError;

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $field:ident: $name:literal $([$dropped:ident])?,)*) => {
        /// Counts since the shard was made. Those that Linux also has carry Linux's names.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])* pub $field: u64,)*
            /// Frames refused before TCP saw them, by reason.
            pub frames_refused: [u64; ParseError::COUNT],
            /// Segments, or parts of them, that a connection did not take, by reason.
            pub segments_dropped: [u64; DropReason::COUNT],
        }

        /// What counters marked with a name in brackets count: something that was refused, dropped
        /// or given up, of which the last cases are kept.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Dropped {
            $($(#[doc = $name] $dropped,)?)*
        }

        impl Dropped {
            /// Every one, in index order.
            pub const ALL: &[Dropped] = &[$($(Dropped::$dropped,)?)*];

            /// The name of its counter.
            pub const fn name(self) -> &'static str {
                match self {
                    $($(Dropped::$dropped => $name,)?)*
                }
            }
        }

        impl Counters {
            pub(crate) fn of(&mut self, dropped: Dropped) -> &mut u64 {
                match dropped {
                    $($(Dropped::$dropped => &mut self.$field,)?)*
                }
            }

            /// Calls `f` with each counter's name, its reason if it is one of a family, and its
            /// value.
            pub fn for_each(&self, mut f: impl FnMut(&'static str, Option<&'static str>, u64)) {
                $(f($name, None, self.$field);)*
                for (name, value) in self.derived() {
                    f(name, None, value);
                }
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

        /// What a counter counts, for people. For the sum of a family without a reason.
        pub fn explain(name: &str, reason: Option<&str>) -> Option<&'static str> {
            match (name, reason) {
                $(($name, None) => Some(concat!($($doc),*).trim_ascii_start()),)*
                _ => explain_family(name, reason),
            }
        }
    };
}

counters! {
    /// TCP segments received, bad ones excluded.
    in_segs: "InSegs",
    /// Segments received that routers may mark (ECT(0)).
    in_ect_0: "InECT0Pkts",
    /// Segments received that were marked: there was congestion on the way.
    in_ce: "InCEPkts",
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
    attempt_fails: "AttemptFails" [AttemptFails],
    /// Connections reset after their handshake.
    estab_resets: "EstabResets" [EstabResets],
    /// An accept queue was full when a SYN or a handshake's last ACK came.
    listen_overflows: "ListenOverflows" [ListenOverflows],
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
    syn_queue_full: "TCPReqQFullDrop" [SynQueueFull],
    /// SYNs dropped because, without cookies, the last quarter of `max_syn_backlog` is kept for
    /// peers that have completed a handshake before.
    syn_peer_not_proven: "syn_peer_not_proven" [SynPeerNotProven],
    /// SYNs dropped, or answered by a cookie, because no SYN_RCVD record was free.
    syn_records_full: "syn_records_full" [SynRecordsFull],
    /// Last ACKs without data ignored because their listener waits for data
    /// (`TCP_DEFER_ACCEPT`).
    defer_accept_drops: "TCPDeferAcceptDrop" [DeferAcceptDrop],
    /// Handshakes and connections not yet accepted that went on at another listener when theirs
    /// ended.
    migrations: "TCPMigrateReqSuccess",
    /// The same, for which the other listener had no place.
    migrate_failures: "TCPMigrateReqFailure" [MigrateReqFailure],
    /// Connections reset because their listener ended before anybody accepted them.
    unaccepted_resets: "unaccepted_resets" [UnacceptedResets],
    /// Last ACKs ignored because no connection record was free.
    connections_full: "connections_full" [ConnectionsFull],
    /// Last ACKs ignored because the host had no room for the connection.
    open_refused: "open_refused" [OpenRefused],
    /// Handshakes given up because the last ACK never came.
    syn_ack_timeouts: "syn_ack_timeouts" [SynAckTimeouts],
    /// Handshakes that ended because their listener was closed.
    listener_closed: "listener_closed" [ListenerClosed],
    /// Handshakes that the peer reset, or that were reset because the accept queue was full
    /// (`abort_on_overflow`).
    embryonic_rsts: "EmbryonicRsts" [EmbryonicRsts],
    /// Handshakes that ended because the network says that the peer cannot be reached.
    request_unreachable: "request_unreachable" [RequestUnreachable],
    /// Acknowledgements in a handshake of what was not sent, answered by a reset.
    request_bad_ack: "request_bad_ack" [RequestBadAck],
    /// Segments out of place in a handshake, answered by an ACK.
    request_out_of_place: "request_out_of_place" [RequestOutOfPlace],
    /// Segments that mean nothing to a handshake under way.
    request_ignored: "request_ignored" [RequestIgnored],
    /// Answers to a handshake's stray segments left out: less than 500 ms after the last.
    ack_skipped_syn_recv: "TCPACKSkippedSynRecv" [AckSkippedSynRecv],
    /// Challenge ACKs sent.
    challenge_acks: "TCPChallengeACK",
    /// Challenge ACKs left out: `challenge_ack_limit` was used up.
    challenge_acks_limited: "challenge_acks_limited" [ChallengeAcksLimited],
    /// Answers in TIME_WAIT left out: less than 500 ms after the last.
    ack_skipped_time_wait: "TCPACKSkippedTimeWait" [AckSkippedTimeWait],
    /// The same in FIN_WAIT_2.
    ack_skipped_fin_wait_2: "TCPACKSkippedFinWait2" [AckSkippedFinWait2],
    /// TIME_WAIT and FIN_WAIT_2 records that ended.
    time_waits: "TW",
    /// New connections that took a TIME_WAIT record's place.
    time_wait_takeovers: "TWRecycled",
    /// Connections ended at once because no TIME_WAIT record was free.
    time_wait_overflow: "TCPTimeWaitOverflow" [TimeWaitOverflow],
    /// Segments that mean nothing to a TIME_WAIT record.
    time_wait_ignored: "time_wait_ignored" [TimeWaitIgnored],
    /// Old segments at a TIME_WAIT or FIN_WAIT_2 record, answered by an ACK.
    time_wait_duplicates: "time_wait_duplicates" [TimeWaitDuplicate],
    /// Segments older than the newest timestamp seen, at a TIME_WAIT record.
    paws_rejected: "PAWSTimewait" [PawsTimeWait],
    /// Connections reset because data came when the application was gone, or because the
    /// application wanted a reset.
    abort_on_data: "TCPAbortOnData" [AbortOnData],
    /// Connections reset because the application closed them without having read everything.
    abort_on_close: "TCPAbortOnClose" [AbortOnClose],
    /// Connections reset because more than `max_orphans` were held by nobody.
    abort_on_memory: "TCPAbortOnMemory" [AbortOnMemory],
    /// Connections given up because the peer did not answer.
    abort_on_timeout: "TCPAbortOnTimeout" [AbortOnTimeout],
    /// Segments without a connection, answered by a reset.
    no_connection: "no_connection" [NoConnection],
    /// Segments without a connection that call for no answer.
    no_connection_ignored: "no_connection_ignored" [NoConnectionIgnored],
    /// Segments to an address that is not ours.
    foreign_address: "foreign_address" [ForeignAddress],
    /// ICMP errors about a connection that we do not have.
    icmp_no_connection: "icmp_no_connection" [IcmpNoConnection],
    /// ICMP errors that quote what is not in flight.
    icmp_out_of_window: "OutOfWindowIcmps" [IcmpOutOfWindow],
    /// ICMP errors that say nothing about a handshake under way.
    icmp_ignored: "icmp_left_alone" [IcmpLeftAlone],
    /// Active opens that found no local port free at a worker; another one may have had one.
    no_local_port: "no_local_port" [NoLocalPort],
    /// Active opens to a peer that no route leads to.
    connect_no_route: "connect_no_route" [ConnectNoRoute],
    /// Active opens from a port that a connection to this peer has already.
    connect_in_use: "connect_in_use" [ConnectInUse],
    /// Active opens from a port that makes the flow another worker's.
    connect_not_owner: "connect_not_owner" [ConnectNotOwner],
    /// Active opens that found no connection record free.
    connect_full: "connect_full" [ConnectFull],
    /// Active opens to what is no address to connect to.
    connect_bad_address: "connect_bad_address" [ConnectBadAddress],
    /// Active opens given up because the next hop's link address never came.
    neighbour_timeouts: "neighbour_timeouts" [NeighbourTimeouts],
    /// Answers left out because there was no room to send.
    tx_ring_full: "tx_ring_full" [TxRingFull],
    /// Frames that did not fit the room for them: the path's MTU is larger than that.
    tx_too_small: "tx_too_small" [TxTooSmall],
    /// Frames for another worker that were lost because its hand-off ring was full.
    handoff_full: "handoff_full" [HandoffFull],
}

/// Linux's names for sums and members of our families.
const DERIVED: [(&str, &str); 5] = [
    ("InErrs", "TCP segments with a bad header, option or checksum."),
    ("InCsumErrors", "TCP segments with a wrong checksum."),
    ("PAWSEstab", "Segments older than the newest timestamp seen, at a connection."),
    ("TCPZeroWindowDrop", "Segments for which no receive window was open."),
    ("TCPRcvQDrop", "Segments that there was no memory for."),
];

fn explain_family(name: &str, reason: Option<&str>) -> Option<&'static str> {
    match (name, reason) {
        ("frames_refused", None) => Some("Frames refused before TCP saw them."),
        ("segments_dropped", None) => {
            Some("Segments, or parts of them, that a connection did not take.")
        }
        ("frames_refused", Some(reason)) => {
            let known = ParseError::ALL.into_iter().find(|error| error.reason() == reason);
            known.map(ParseError::explain)
        }
        ("segments_dropped", Some(reason)) => {
            let known = DropReason::ALL.into_iter().find(|dropped| dropped.reason() == reason);
            known.map(DropReason::explain)
        }
        (name, None) => DERIVED.into_iter().find(|(known, _)| *known == name).map(|(_, text)| text),
        (_, Some(_)) => None,
    }
}

impl Counters {
    fn derived(&self) -> [(&'static str, u64); DERIVED.len()] {
        let frames = |error: ParseError| self.frames_refused[error as usize];
        let segments = |reason: DropReason| self.segments_dropped[reason as usize];
        let checksum = frames(ParseError::TcpChecksum);
        let values = [
            checksum + frames(ParseError::TcpHeader) + frames(ParseError::TcpOptions),
            checksum,
            segments(DropReason::OldTimestamp),
            segments(DropReason::ZeroWindow),
            segments(DropReason::NoMemory),
        ];
        std::array::from_fn(|n| (DERIVED[n].0, values[n]))
    }

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
            let text = explain(name, reason).expect(name);
            assert!(text.ends_with('.') && !text.starts_with(' '), "{name}: {text}");
            if value > 0 {
                values.push((name, reason, value));
            }
        });
        let expected = [
            ("ListenOverflows", None, 3),
            ("InErrs", None, 1),
            ("InCsumErrors", None, 1),
            ("frames_refused", Some("tcp_checksum"), 1),
            ("segments_dropped", Some("out_of_window"), 1),
        ];
        assert_eq!(values, expected);
    }
}
