//! A tool that wants to see frames: what it asks for, and how they come.

use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// Steps that a filter may have.
pub const MOST_STEPS: usize = 64;

/// Bytes of frames in one reply, beside what describes them; at least one frame comes anyway.
pub const REPLY_BYTES: usize = 12 * 1024;

/// Bytes that describe a frame in a reply, at the most; counted in [`REPLY_BYTES`].
pub const FRAME_OVERHEAD: usize = 80;

/// One step of a filter, in postfix order: tests push their result, the others take results off
/// and push theirs. A filter without steps takes everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// This address.
    Host(End, IpAddr),
    /// This TCP port; of an ICMP error, that of the segment that it quotes.
    Port(End, u16),
    /// TCP.
    Tcp,
    /// An ICMP or ICMPv6 error.
    Icmp,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// Received.
    Received,
    /// Sent.
    Sent,
    /// Refused or dropped.
    Dropped,
    /// Refused or dropped for the reason of this name.
    Reason(String),
    /// Takes one.
    Not,
    /// Takes two.
    And,
    /// Takes two.
    Or,
}

/// Which end of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// Where it comes from or where it goes.
    Either,
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedFrame {
    /// When: nanoseconds since 1970, UTC.
    pub at: u64,
    /// The worker whose queue it came from or goes to.
    pub worker: u32,
    /// What became of it.
    pub verdict: FrameVerdict,
    /// Bytes that it had.
    pub length: u32,
    /// The first of them.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// What became of a frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FrameVerdict {
    /// Handed to the NIC queue.
    Sent,
    /// Received.
    Received {
        /// The worker that it was handed to, if it arrived at one that does not own its connection.
        handed_to: Option<u32>,
        /// The reason's name, if it was refused or dropped.
        dropped: Option<String>,
    },
}

/// What has happened at one worker since a capture began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureCount {
    /// Frames that the filter took.
    pub matched: u64,
    /// Of those, the ones that were lost because the tool was too slow.
    pub missed: u64,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::control::{MAX_MESSAGE, Reply, decode, encode};
    use crate::layout::MAX_WORKERS;

    /// The reply that is as full as they get: just below the limit, and one more frame.
    #[test]
    fn the_largest_reply_fits() {
        let frame = |bytes: usize| CapturedFrame {
            at: u64::MAX,
            worker: u32::MAX,
            verdict: FrameVerdict::Received {
                handed_to: Some(u32::MAX),
                dropped: Some("x".repeat(32)),
            },
            length: u32::MAX,
            bytes: vec![0xff; bytes],
        };
        let count = CaptureCount { matched: u64::MAX, missed: u64::MAX };
        let counts = vec![count; MAX_WORKERS as usize];
        let frames = vec![frame(REPLY_BYTES)];
        let reply = Reply::Captured { frames, counts, more: true };
        let mut buffer = [0; MAX_MESSAGE];
        let packet = encode(&reply, &mut buffer).unwrap();
        assert_eq!(decode::<Reply>(packet).unwrap(), reply);
        let overhead = encode(&frame(0), &mut buffer).unwrap().len();
        assert!(overhead <= FRAME_OVERHEAD, "{overhead}");
    }
}
