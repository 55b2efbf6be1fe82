//! What a shard is told at its start.

use std::ops::RangeInclusive;

use fourwave_tcp::Nanos;
use fourwave_wire::ChecksumPolicy;

use crate::owners::Owners;

/// Settings and limits of one shard. The memory for every limit is reserved by
/// [`Shard::new`](crate::Shard::new).
#[derive(Clone, Debug)]
pub struct Config {
    /// Which worker this shard belongs to, below `workers`.
    pub worker: u32,
    /// How many workers share the flows.
    pub workers: u32,
    /// How the flows are shared.
    pub owners: Owners,
    /// Most connections that have a full control block.
    pub connections: u32,
    /// Most SYN_RCVD records of all listeners.
    pub syn_received: u32,
    /// Most TIME_WAIT records (`max_tw_buckets`). Over it a connection ends at once.
    pub time_wait: u32,
    /// Listener identifiers lie below this.
    pub listeners: u32,
    /// Most of our own addresses that TIME_WAIT records name at a time.
    pub local_addresses: u16,
    /// Ephemeral ports of active opens.
    pub local_ports: RangeInclusive<u16>,
    /// Whether TCP checksums of received frames are verified.
    pub checksum: ChecksumPolicy,
    /// Reset a connection whose last handshake ACK finds the accept queue full, instead of leaving
    /// the peer to try again.
    pub abort_on_overflow: bool,
    /// When SYNs are answered by cookies.
    pub syncookies: SynCookies,
    /// Handshakes of one listener under way, without cookies: the last quarter of so many is kept
    /// for peers that have completed a handshake before.
    pub max_syn_backlog: u32,
    /// Most connections that nobody holds any more and that have segments to send or to wait for.
    /// One more is reset.
    pub max_orphans: u32,
    /// An active open may take the four-tuple of a TIME_WAIT record, if that has timestamps and is
    /// older than `tw_reuse_delay`.
    pub tw_reuse: bool,
    /// See `tw_reuse`.
    pub tw_reuse_delay: Nanos,
    /// Most challenge ACKs (RFC 5961 §7) a second over all connections; `None` is no limit but
    /// each connection's own. A number that outsiders can use up tells them about connections of
    /// others (RFC 9293 §3.8.6), so it varies from second to second, as in Linux.
    pub challenge_ack_limit: Option<u32>,
    /// Ignore a RST in TIME_WAIT (RFC 1337).
    pub rfc1337: bool,
    /// How long what a router told of a path's MTU holds (Linux's `mtu_expires`).
    pub mtu_expires: Nanos,
    /// How long an active open waits for a link address of its next hop.
    pub neighbour_timeout: Nanos,
    /// Shared by all connections.
    pub tcp: fourwave_tcp::Config,
}

impl Config {
    /// The longest SYN queue, the new SYN included, that takes any peer when there are no cookies.
    pub(crate) fn syn_backlog_for_all(&self) -> u32 {
        // Linux counts before the new one and asks whether less than a quarter is left.
        self.max_syn_backlog - (self.max_syn_backlog >> 2) + 1
    }
}

/// When a SYN is answered by a cookie instead of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SynCookies {
    /// Never: beyond the SYN queue it is dropped.
    Off,
    /// When the listener's SYN queue, or the shard's table of records, is full.
    OnOverflow,
    /// Always.
    Always,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            worker: 0,
            workers: 1,
            owners: Owners::Hash,
            connections: 65_536,
            syn_received: 16_384,
            time_wait: 16 << 20,
            listeners: 1_024,
            local_addresses: 1_024,
            local_ports: 10_240..=32_767,
            checksum: ChecksumPolicy::Verify,
            abort_on_overflow: false,
            syncookies: SynCookies::OnOverflow,
            max_syn_backlog: 4_096,
            max_orphans: 65_536,
            tw_reuse: false,
            tw_reuse_delay: 1_000_000_000,
            challenge_ack_limit: None,
            rfc1337: false,
            mtu_expires: 600_000_000_000,
            neighbour_timeout: 3_000_000_000,
            tcp: fourwave_tcp::Config::default(),
        }
    }
}
