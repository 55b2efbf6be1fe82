//! What can happen to a frame, and how it is counted.

use core::fmt;

/// Why a frame went where it went; also its index in the map `STATS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Passed: neither TCP nor an ICMP error over IP.
    PassOther = 0,
    /// Passed: TCP, or an ICMP error about TCP, of a port that is not served.
    PassPort = 1,
    /// Passed: a fragment, other than the first one of a datagram for a served port.
    PassFragment = 2,
    /// Passed: headers that contradict themselves or end early. The kernel drops these.
    PassMalformed = 3,
    /// Passed: IPv6 with a routing header that names further hops.
    PassInTransit = 4,
    /// Redirected: TCP to a served port, other than a SYN.
    SteerTcp = 5,
    /// Redirected: an ICMP error that quotes TCP from a served port.
    SteerIcmp = 6,
    /// Dropped: the first fragment of a datagram for a served port. Passed on, the kernel would
    /// put the datagram together and reset the connection.
    DropFragment = 7,
    /// Dropped: more IPv6 extension headers than the program follows, so that the port stays
    /// unknown. RFC 8504 §5.3 lets a host do that; RFC 8200 §4.1 has a use for at most seven.
    DropHeaderChain = 8,
    /// Dropped: it was to be redirected, but no socket is bound to its queue.
    DropNoSocket = 9,
    /// Redirected: a SYN to a served port.
    SteerSyn = 10,
    /// Dropped: a SYN, when as many as the queue's [`Admission`](crate::Admission) allows were
    /// still waiting for the worker.
    DropSyn = 11,
}

/// What the XDP program does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The kernel gets it, untouched.
    Pass,
    /// The AF_XDP socket of its queue gets it.
    Steer,
    /// Nobody gets it.
    Drop,
}

impl Verdict {
    /// All verdicts, each at its own index.
    pub const ALL: [Self; 12] = [
        Self::PassOther,
        Self::PassPort,
        Self::PassFragment,
        Self::PassMalformed,
        Self::PassInTransit,
        Self::SteerTcp,
        Self::SteerIcmp,
        Self::DropFragment,
        Self::DropHeaderChain,
        Self::DropNoSocket,
        Self::SteerSyn,
        Self::DropSyn,
    ];

    /// Number of verdicts: the length of `STATS`.
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// Its index in `STATS`.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// What becomes of the frame.
    #[inline(always)]
    #[must_use]
    pub const fn action(self) -> Action {
        match self {
            Self::PassOther
            | Self::PassPort
            | Self::PassFragment
            | Self::PassMalformed
            | Self::PassInTransit => Action::Pass,
            Self::SteerTcp | Self::SteerIcmp | Self::SteerSyn => Action::Steer,
            Self::DropFragment | Self::DropHeaderChain | Self::DropNoSocket | Self::DropSyn => {
                Action::Drop
            }
        }
    }

    /// What happened, in a sentence.
    #[must_use]
    pub const fn explain(self) -> &'static str {
        match self {
            Self::PassOther => "Passed to the kernel: neither TCP nor an ICMP error about it.",
            Self::PassPort => "Passed to the kernel: a port that is not served.",
            Self::PassFragment => "Passed to the kernel: a fragment.",
            Self::PassMalformed => "Passed to the kernel, which drops it: malformed headers.",
            Self::PassInTransit => "Passed to the kernel: IPv6 that is to be routed further.",
            Self::SteerTcp => "Taken: TCP to a served port, other than a SYN.",
            Self::SteerIcmp => "Taken: an ICMP error about TCP from a served port.",
            Self::DropFragment => "Dropped: first fragment of a datagram for a served port.",
            Self::DropHeaderChain => "Dropped: more IPv6 extension headers than are followed.",
            Self::DropNoSocket => "Dropped: no worker has this queue (queues).",
            Self::SteerSyn => "Taken: a SYN to a served port.",
            Self::DropSyn => "Dropped: a SYN more than may wait for a busy worker (rx_syn_limit).",
        }
    }

    /// Its name in metrics, in snake case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PassOther => "pass_other",
            Self::PassPort => "pass_port",
            Self::PassFragment => "pass_fragment",
            Self::PassMalformed => "pass_malformed",
            Self::PassInTransit => "pass_in_transit",
            Self::SteerTcp => "steer_tcp",
            Self::SteerIcmp => "steer_icmp",
            Self::DropFragment => "drop_fragment",
            Self::DropHeaderChain => "drop_header_chain",
            Self::DropNoSocket => "drop_no_socket",
            Self::SteerSyn => "steer_syn",
            Self::DropSyn => "drop_syn",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const _: () = {
    let mut i = 0;
    while i < Verdict::ALL.len() {
        assert!(Verdict::ALL[i].index() as usize == i, "each verdict stands at its own index");
        i += 1;
    }
};
