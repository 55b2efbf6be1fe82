//! The tables of the configuration file.

use super::quantity;
use super::{ConfigError, CongestionControl, PortRange, ensure, within};
use fourwave_protocol::FIRST_WINDOW;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[tcp]`: settings of the protocol. Names are those of Linux's `net.ipv4.tcp_*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tcp {
    /// How long a closed connection is remembered (2 MSL); 60 s in Linux, fixed there.
    #[serde(with = "quantity::duration")]
    pub time_wait: Duration,
    /// How long a connection that nobody holds any more waits for its peer's FIN.
    #[serde(with = "quantity::duration")]
    pub fin_timeout: Duration,
    /// Connections in TIME_WAIT over all workers; beyond it they end at once, counted.
    pub max_tw_buckets: u32,
    /// Outgoing connections may take a four-tuple in TIME_WAIT: 0 never, 1 if that is safe, 2 on
    /// the loopback interface alone.
    pub tw_reuse: u8,
    /// How long a connection must have been in TIME_WAIT for that.
    #[serde(with = "quantity::duration")]
    pub tw_reuse_delay: Duration,
    /// Connections over all workers that nobody holds any more and that are not yet over.
    pub max_orphans: u32,
    /// Challenge ACKs a second over all connections; 2147483647 is no limit.
    pub challenge_ack_limit: u32,
    /// A RST does not end TIME_WAIT (RFC 1337).
    pub rfc1337: bool,
    /// Largest backlog of a listener.
    pub somaxconn: u32,
    /// SYN cookies: 0 never, 1 when the SYN queue is full, 2 always.
    pub syncookies: u8,
    /// Handshakes under way of one listener when there are no cookies.
    pub max_syn_backlog: u32,
    /// A connection that finds the accept queue full is reset instead of tried again.
    pub abort_on_overflow: bool,
    /// Retransmission timeout before a round trip was measured.
    #[serde(with = "quantity::duration")]
    pub rto_initial: Duration,
    /// Shortest retransmission timeout.
    #[serde(with = "quantity::duration")]
    pub rto_min: Duration,
    /// Longest retransmission timeout.
    #[serde(with = "quantity::duration")]
    pub rto_max: Duration,
    /// How long an acknowledgement waits for data to ride on.
    #[serde(with = "quantity::duration")]
    pub delayed_ack: Duration,
    /// Retransmissions of a SYN before an outgoing connection gives up.
    pub syn_retries: u8,
    /// Retransmissions of a SYN-ACK before an incoming connection gives up.
    pub synack_retries: u8,
    /// Retransmissions of data before a connection gives up.
    pub retries2: u8,
    /// The same for a connection that nobody holds any more; 0 means 8.
    pub orphan_retries: u8,
    /// SYN retransmissions without backoff, before those of `syn_retries`.
    pub syn_linear_timeouts: u8,
    /// Silence before the first keepalive probe, for connections that ask for keepalive.
    #[serde(with = "quantity::duration")]
    pub keepalive_time: Duration,
    /// Time between keepalive probes.
    #[serde(with = "quantity::duration")]
    pub keepalive_intvl: Duration,
    /// Unanswered keepalive probes before a connection is given up.
    pub keepalive_probes: u8,
    /// Congestion control of connections that choose none.
    pub congestion_control: CongestionControl,
    /// Segments that a connection may send before the first acknowledgement.
    pub initial_window: u8,
    /// Start slowly again after a pause.
    pub slow_start_after_idle: bool,
    /// Search for a smaller segment size when a path swallows large ones: 0 never, 1 then.
    pub mtu_probing: u8,
    /// Segment size that such a search starts from.
    pub base_mss: u16,
    /// How long a path MTU that a router told of is remembered.
    #[serde(with = "quantity::duration")]
    pub mtu_expires: Duration,
    /// Explicit congestion notification: 0 never, 1 asked for and granted, 2 granted.
    pub ecn: u8,
    /// TTL and hop limit of what is sent (RFC 9293 §3.9.2, MUST-49).
    pub ip_default_ttl: u8,
    /// Offer and accept timestamps (RFC 7323).
    pub timestamps: bool,
    /// Offer and accept window scaling (RFC 7323).
    pub window_scaling: bool,
    /// Offer and accept selective acknowledgements (RFC 2018).
    pub sack: bool,
    /// Most bytes that a connection offers to receive; the third number of Linux's.
    #[serde(with = "quantity::bytes")]
    pub rmem: u64,
    /// Most bytes that a connection buffers to send; the third number of Linux's.
    #[serde(with = "quantity::bytes")]
    pub wmem: u64,
}

/// Least and most bytes of one direction of a connection: what all begin with, and the most that a
/// scaled window can say (RFC 7323 §2.3).
const BUFFER: std::ops::RangeInclusive<u64> = FIRST_WINDOW..=1 << 30;
const BUFFER_ALLOWED: &str = "64KiB to 1GiB are allowed";

/// The number that Linux writes for "no limit", its default.
pub(crate) const NO_CHALLENGE_ACK_LIMIT: u32 = i32::MAX as u32;

impl Default for Tcp {
    fn default() -> Tcp {
        Tcp {
            time_wait: Duration::from_secs(60),
            fin_timeout: Duration::from_secs(60),
            max_tw_buckets: 16 << 20,
            tw_reuse: 2,
            tw_reuse_delay: Duration::from_secs(1),
            max_orphans: 65_536,
            challenge_ack_limit: NO_CHALLENGE_ACK_LIMIT,
            rfc1337: false,
            somaxconn: 4096,
            syncookies: 1,
            max_syn_backlog: 4096,
            abort_on_overflow: false,
            rto_initial: Duration::from_secs(1),
            rto_min: Duration::from_millis(200),
            rto_max: Duration::from_secs(120),
            delayed_ack: Duration::from_millis(40),
            syn_retries: 6,
            synack_retries: 5,
            retries2: 15,
            orphan_retries: 0,
            syn_linear_timeouts: 4,
            keepalive_time: Duration::from_secs(7200),
            keepalive_intvl: Duration::from_secs(75),
            keepalive_probes: 9,
            congestion_control: CongestionControl::Cubic,
            initial_window: 10,
            slow_start_after_idle: true,
            mtu_probing: 1,
            base_mss: 1024,
            mtu_expires: Duration::from_secs(600),
            ecn: 2,
            ip_default_ttl: 64,
            timestamps: true,
            window_scaling: true,
            sack: true,
            rmem: 4 << 20,
            wmem: 4 << 20,
        }
    }
}

impl Tcp {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        time("tcp.time_wait", self.time_wait, ms(1), s(3600), "1ms to 1h are allowed")?;
        time("tcp.fin_timeout", self.fin_timeout, ms(1), s(3600), "1ms to 1h are allowed")?;
        time("tcp.rto_min", self.rto_min, ms(1), s(10), "1ms to 10s are allowed")?;
        time("tcp.rto_max", self.rto_max, s(1), s(600), "1s to 10min are allowed")?;
        time("tcp.delayed_ack", self.delayed_ack, ms(1), ms(500), "1ms to 500ms are allowed")?;
        time(
            "tcp.rto_initial",
            self.rto_initial,
            self.rto_min,
            self.rto_max,
            "it must lie between tcp.rto_min and tcp.rto_max",
        )?;
        let delay = "0s to 1h are allowed";
        time("tcp.tw_reuse_delay", self.tw_reuse_delay, Duration::ZERO, s(3600), delay)?;
        within("tcp.tw_reuse", self.tw_reuse, 0..=2, "0, 1 and 2 are allowed")?;
        let orphans = "0 to 268435456 are allowed";
        within("tcp.max_orphans", self.max_orphans, 0..=1 << 28, orphans)?;
        let limits = "0 to 2147483647 are allowed";
        let most = NO_CHALLENGE_ACK_LIMIT;
        within("tcp.challenge_ack_limit", self.challenge_ack_limit, 0..=most, limits)?;
        let buckets = "1 to 268435456 are allowed";
        within("tcp.max_tw_buckets", self.max_tw_buckets, 1..=1 << 28, buckets)?;
        within("tcp.ip_default_ttl", self.ip_default_ttl, 1..=255, "1 to 255 are allowed")?;
        within("tcp.mtu_probing", self.mtu_probing, 0..=1, "0 and 1 are allowed")?;
        within("tcp.base_mss", self.base_mss, 512..=9000, "512 to 9000 are allowed")?;
        time("tcp.mtu_expires", self.mtu_expires, s(1), s(86_400), "1s to 24h are allowed")?;
        within("tcp.ecn", self.ecn, 0..=2, "0, 1 and 2 are allowed")?;
        within("tcp.syncookies", self.syncookies, 0..=2, "0, 1 and 2 are allowed")?;
        let backlog = "1 to 16777216 are allowed";
        within("tcp.max_syn_backlog", self.max_syn_backlog, 1..=1 << 24, backlog)?;
        within("tcp.somaxconn", self.somaxconn, 1..=65_535, "1 to 65535 are allowed")?;
        for (key, value) in [
            ("tcp.syn_retries", self.syn_retries),
            ("tcp.synack_retries", self.synack_retries),
            ("tcp.retries2", self.retries2),
        ] {
            within(key, value, 1..=32, "1 to 32 are allowed")?;
        }
        within("tcp.orphan_retries", self.orphan_retries, 0..=32, "0 to 32 are allowed")?;
        let linear = "0 to 127 are allowed";
        within("tcp.syn_linear_timeouts", self.syn_linear_timeouts, 0..=127, linear)?;
        for (key, value) in [
            ("tcp.keepalive_time", self.keepalive_time),
            ("tcp.keepalive_intvl", self.keepalive_intvl),
        ] {
            // As long as TCP_KEEPIDLE and TCP_KEEPINTVL can say.
            let allowed = "whole seconds from 1s to 32767s are allowed";
            time(key, value, s(1), s(32_767), allowed)?;
            ensure(value.subsec_nanos() == 0, key, format_args!("{value:?}"), allowed)?;
        }
        let probes = "1 to 127 are allowed";
        within("tcp.keepalive_probes", self.keepalive_probes, 1..=127, probes)?;
        within("tcp.initial_window", self.initial_window, 1..=64, "1 to 64 are allowed")?;
        within("tcp.rmem", self.rmem, BUFFER, BUFFER_ALLOWED)?;
        within("tcp.wmem", self.wmem, BUFFER, BUFFER_ALLOWED)
    }
}

fn time(
    key: &str,
    value: Duration,
    least: Duration,
    most: Duration,
    allowed: &'static str,
) -> Result<(), ConfigError> {
    ensure((least..=most).contains(&value), key, format_args!("{value:?}"), allowed)
}

/// `[limits]`: what each worker has room for. The memory is reserved at start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections.
    pub connections: u32,
    /// Handshakes under way.
    pub syn: u32,
    /// Listeners.
    pub listeners: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connections: 131_072, syn: 65_536, listeners: 4096 }
    }
}

impl Limits {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let allowed = "1 to 16777216 are allowed";
        within("limits.connections", self.connections, 1..=1 << 24, allowed)?;
        within("limits.syn", self.syn, 1..=1 << 24, allowed)?;
        within("limits.listeners", self.listeners, 1..=65_536, "1 to 65536 are allowed")
    }
}

/// `[clients]`: who may use the daemon, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clients {
    /// Processes and tools that can be connected to the control socket at a time.
    pub max_clients: u32,
    /// Connections of an application group (a process and its forks), over all workers.
    pub connections: u32,
    /// Payload memory of an application group, bytes.
    #[serde(with = "quantity::bytes")]
    pub bytes: u64,
    /// How long connections that nobody has accepted wait for the next listener of their address
    /// when theirs has gone.
    #[serde(with = "quantity::duration")]
    pub accept_grace: Duration,
    /// Exceptions by user; the first that names the user holds.
    pub rules: Vec<Rule>,
}

impl Default for Clients {
    fn default() -> Clients {
        Clients {
            max_clients: 256,
            connections: 65_536,
            bytes: 1 << 30,
            accept_grace: Duration::from_secs(2),
            rules: Vec::new(),
        }
    }
}

/// One of `[[clients.rules]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Users that it is about, by number; empty: everybody.
    pub uids: Vec<u32>,
    /// Ports that they may bind, and no others; absent: those that the kernel would let them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<PortRange>>,
    /// Instead of `clients.connections`; 0 refuses them altogether.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Instead of `clients.bytes`.
    #[serde(with = "quantity::optional_bytes", skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// Least and most payload memory of a group, bytes.
const BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 40;
const BYTES_ALLOWED: &str = "1MiB to 1TiB are allowed";

impl Clients {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let connections = "1 to 16777216 are allowed";
        within("clients.max_clients", self.max_clients, 1..=65_536, "1 to 65536 are allowed")?;
        within("clients.connections", self.connections, 1..=1 << 24, connections)?;
        within("clients.bytes", self.bytes, BYTES, BYTES_ALLOWED)?;
        let (least, most) = (Duration::ZERO, Duration::from_secs(600));
        let allowed = "0s to 10min are allowed";
        time("clients.accept_grace", self.accept_grace, least, most, allowed)?;
        for (index, rule) in self.rules.iter().enumerate() {
            let key = |name| format!("clients.rules[{index}].{name}");
            if let Some(count) = rule.connections {
                let allowed = "0 to 16777216 are allowed";
                within(&key("connections"), count, 0..=1 << 24, allowed)?;
            }
            if let Some(bytes) = rule.bytes {
                within(&key("bytes"), bytes, BYTES, BYTES_ALLOWED)?;
            }
        }
        Ok(())
    }
}
