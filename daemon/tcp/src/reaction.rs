//! What a call tells its caller.

use core::fmt;
use core::ops::{BitOr, BitOrAssign};

/// Where received bytes go.
pub trait Buffers {
    /// Keeps `bytes` of the receive stream, the first of them at stream `offset` (0 is the first
    /// data byte after the SYN). They may lie beyond the in-order edge, and may repeat bytes stored
    /// before. `false` means no memory: the bytes count as not received, and the peer sends them
    /// again.
    fn store(&mut self, offset: u64, bytes: &[u8]) -> bool;
}

/// What a call changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[must_use]
pub struct Reaction {
    /// What the application or the owner of the record should know.
    pub events: Events,
    /// Why the segment, or a part of it, was not taken.
    pub drop: Option<DropReason>,
}

impl From<Events> for Reaction {
    fn from(events: Events) -> Reaction {
        Reaction { events, drop: None }
    }
}

/// A set of things that happened.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Events(pub u16);

impl Events {
    /// Nothing.
    pub const NONE: Events = Events(0);
    /// In-order data arrived: [`rcv_tail`](crate::Tcb::rcv_tail) grew.
    pub const READABLE: Events = Events(1);
    /// Data was acknowledged: [`snd_acked`](crate::Tcb::snd_acked) grew.
    pub const WRITABLE: Events = Events(1 << 1);
    /// The handshake of an active open is complete.
    pub const ESTABLISHED: Events = Events(1 << 2);
    /// The peer has finished sending and all it sent is here.
    pub const PEER_FIN: Events = Events(1 << 3);
    /// The peer reset the connection, or we did because data came for a closed handle.
    pub const RESET: Events = Events(1 << 4);
    /// The peer did not answer for as long as the settings allow.
    pub const TIMED_OUT: Events = Events(1 << 5);
    /// The peer refused the connection.
    pub const REFUSED: Events = Events(1 << 6);
    /// The network says that the peer cannot be reached; only while connecting.
    pub const UNREACHABLE: Events = Events(1 << 7);
    /// TIME_WAIT begins: drain, then keep a small record instead.
    pub const TIME_WAIT: Events = Events(1 << 8);
    /// FIN_WAIT_2 with no handle left: drain, then keep a small record instead.
    pub const FIN_WAIT2_ORPHAN: Events = Events(1 << 9);
    /// The connection is over: drain, then free the record.
    pub const CLOSED: Events = Events(1 << 10);
    /// The peer has acknowledged all that we sent and our FIN, while the handle is still open.
    pub const ALL_ACKED: Events = Events(1 << 11);

    const NAMES: [&'static str; 12] = [
        "READABLE",
        "WRITABLE",
        "ESTABLISHED",
        "PEER_FIN",
        "RESET",
        "TIMED_OUT",
        "REFUSED",
        "UNREACHABLE",
        "TIME_WAIT",
        "FIN_WAIT2_ORPHAN",
        "CLOSED",
        "ALL_ACKED",
    ];

    /// Whether all of `other` happened.
    #[inline]
    pub const fn contains(self, other: Events) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` happened.
    #[inline]
    pub const fn intersects(self, other: Events) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether nothing happened.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Events {
    type Output = Events;
    #[inline]
    fn bitor(self, other: Events) -> Events {
        Events(self.0 | other.0)
    }
}

impl BitOrAssign for Events {
    #[inline]
    fn bitor_assign(&mut self, other: Events) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut set = f.debug_set();
        for (bit, name) in Events::NAMES.iter().enumerate() {
            if self.0 & (1 << bit) != 0 {
                set.entry(&format_args!("{name}"));
            }
        }
        set.finish()
    }
}

/// Why a segment, or its data, was not taken; usable as an index below [`DropReason::COUNT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DropReason {
    /// The connection is over.
    Closed,
    /// An older timestamp than the last (PAWS, RFC 7323 §5).
    OldTimestamp,
    /// Outside the receive window.
    OutOfWindow,
    /// A RST in the window but not at its left edge: challenged (RFC 5961 §3.2).
    InexactReset,
    /// A SYN on a synchronised connection: challenged (RFC 5961 §4.2).
    UnexpectedSyn,
    /// Neither SYN, RST nor ACK.
    NoAck,
    /// Acknowledges what was never sent.
    AckOfUnsent,
    /// Acknowledges less than any segment in flight could (RFC 5961 §5.2).
    AckTooOld,
    /// All of its data had arrived before.
    Duplicate,
    /// No window is open for its data.
    ZeroWindow,
    /// [`Buffers::store`] had no memory.
    NoMemory,
    /// More holes than are tracked.
    TooManyHoles,
    /// Data for a handle that was closed: answered by RST.
    OrphanData,
    /// An ICMP error about a segment that is not in flight (RFC 5927 §4.1).
    IcmpOutOfWindow,
}

impl DropReason {
    /// Every reason, in index order.
    pub const ALL: [DropReason; DropReason::COUNT] = [
        DropReason::Closed,
        DropReason::OldTimestamp,
        DropReason::OutOfWindow,
        DropReason::InexactReset,
        DropReason::UnexpectedSyn,
        DropReason::NoAck,
        DropReason::AckOfUnsent,
        DropReason::AckTooOld,
        DropReason::Duplicate,
        DropReason::ZeroWindow,
        DropReason::NoMemory,
        DropReason::TooManyHoles,
        DropReason::OrphanData,
        DropReason::IcmpOutOfWindow,
    ];
    /// How many reasons there are.
    pub const COUNT: usize = 14;

    /// A short name, for counters.
    pub const fn reason(self) -> &'static str {
        match self {
            DropReason::Closed => "closed",
            DropReason::OldTimestamp => "old_timestamp",
            DropReason::OutOfWindow => "out_of_window",
            DropReason::InexactReset => "inexact_reset",
            DropReason::UnexpectedSyn => "unexpected_syn",
            DropReason::NoAck => "no_ack",
            DropReason::AckOfUnsent => "ack_of_unsent",
            DropReason::AckTooOld => "ack_too_old",
            DropReason::Duplicate => "duplicate",
            DropReason::ZeroWindow => "zero_window",
            DropReason::NoMemory => "no_memory",
            DropReason::TooManyHoles => "too_many_holes",
            DropReason::OrphanData => "orphan_data",
            DropReason::IcmpOutOfWindow => "icmp_out_of_window",
        }
    }
}

impl DropReason {
    /// What happened, in a sentence.
    pub const fn explain(self) -> &'static str {
        match self {
            DropReason::Closed => "The connection is over.",
            DropReason::OldTimestamp => "An older timestamp than the last (PAWS, RFC 7323 §5).",
            DropReason::OutOfWindow => "Outside the receive window.",
            DropReason::InexactReset => {
                "A RST in the window but not at its left edge: challenged (RFC 5961 §3.2)."
            }
            DropReason::UnexpectedSyn => "A SYN on a connection: challenged (RFC 5961 §4.2).",
            DropReason::NoAck => "Neither SYN, RST nor ACK.",
            DropReason::AckOfUnsent => "Acknowledges what was never sent.",
            DropReason::AckTooOld => {
                "Acknowledges less than any segment in flight could (RFC 5961 §5.2)."
            }
            DropReason::Duplicate => "All of its data had arrived before.",
            DropReason::ZeroWindow => {
                "No window is open for its data: the application does not read."
            }
            DropReason::NoMemory => {
                "No payload memory: the application's quota (clients.bytes) is used up."
            }
            DropReason::TooManyHoles => "More holes in the data than are tracked.",
            DropReason::OrphanData => "Data for a handle that was closed: answered by RST.",
            DropReason::IcmpOutOfWindow => {
                "An ICMP error about a segment that is not in flight (RFC 5927 §4.1)."
            }
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

/// How a connection failed; the errno in brackets is what an application sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Error {
    /// RST to our SYN (`ECONNREFUSED`).
    Refused = 1,
    /// RST by the peer (`ECONNRESET`).
    Reset = 2,
    /// RST by the peer after its FIN (`EPIPE`).
    BrokenPipe = 3,
    /// Retries are spent (`ETIMEDOUT`).
    TimedOut = 4,
    /// No way to the host (`EHOSTUNREACH`).
    HostUnreachable = 5,
    /// No route to its network (`ENETUNREACH`).
    NetUnreachable = 6,
    /// The host does not speak TCP (`ENOPROTOOPT`).
    ProtocolUnreachable = 7,
    /// Our header was not understood on the way (`EPROTO`).
    Protocol = 8,
}

impl Error {
    const ALL: [Error; 8] = [
        Error::Refused,
        Error::Reset,
        Error::BrokenPipe,
        Error::TimedOut,
        Error::HostUnreachable,
        Error::NetUnreachable,
        Error::ProtocolUnreachable,
        Error::Protocol,
    ];

    /// The error that a record's byte stands for; 0 is none.
    pub(crate) fn from_byte(byte: u8) -> Option<Error> {
        Error::ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }
}

/// An offset that the connection's state does not allow: the caller believed a bad client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange;

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stream offset out of range")
    }
}

impl core::error::Error for OutOfRange {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_and_errors_match_their_bytes() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for error in Error::ALL {
            assert_eq!(Error::from_byte(error as u8), Some(error));
        }
        assert_eq!(Error::from_byte(0), None);
        assert_eq!(Error::from_byte(9), None);
    }

    #[test]
    fn events_print_their_names() {
        let events = Events::READABLE | Events::CLOSED;
        assert_eq!(format!("{events:?}"), "{READABLE, CLOSED}");
    }
}
