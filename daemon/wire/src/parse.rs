//! The way in: a whole frame to what it means.

use core::fmt;

use crate::addr::{Endpoint, FourTuple};
use crate::bytes::u16_at;
use crate::ethernet::{self, Link};
use crate::icmp::{self, IcmpQuote};
use crate::ip::{self, Packet};
use crate::plain;
use crate::tcp::{self, Segment};

/// Parses one received Ethernet frame.
///
/// IPv4 header and ICMP checksums are always verified, TCP's as `checksum` says. Never panics.
#[inline]
pub fn parse(frame: &[u8], checksum: ChecksumPolicy) -> Result<Inbound<'_>, ParseError> {
    // Made where it is returned: it is too large to be passed on from hand to hand.
    if let Some(plain) = plain::check(frame, checksum)
        && let Some(options) = plain.options()
    {
        return Ok(Inbound::Tcp(plain.frame(options)));
    }
    parse_any(frame, checksum)
}

/// Parses a frame that may be anything, a plain one too.
#[inline(never)]
pub(crate) fn parse_any(frame: &[u8], checksum: ChecksumPolicy) -> Result<Inbound<'_>, ParseError> {
    let (link, ethertype, rest) = ethernet::split(frame).ok_or(ParseError::Truncated)?;
    // RFC 9293 §3.9.2.3: a group address never opens or carries a connection. Nor does a frame come
    // from one (IEEE 802.3 §3.2.3), and what answers it would reach all of the group.
    if link.dst.is_group() || link.src.is_group() {
        return Err(ParseError::NotUnicast);
    }
    ip::parse(ethertype, rest, true, |packet| parse_packet(link, packet, checksum))
}

#[inline]
fn parse_packet<'a>(
    link: Link,
    packet: &Packet<'a>,
    checksum: ChecksumPolicy,
) -> Result<Inbound<'a>, ParseError> {
    if packet.protocol != tcp::PROTOCOL {
        if !icmp::is_icmp(packet) {
            return Err(ParseError::NotTcp);
        }
        return icmp::parse(link, packet).map(Inbound::IcmpError);
    }
    let (source, destination, segment) = tcp::parse(packet, checksum)?;
    let tuple = FourTuple {
        local: Endpoint { addr: packet.dst, port: destination },
        remote: Endpoint { addr: packet.src, port: source },
    };
    Ok(Inbound::Tcp(TcpFrame { link, tuple, tos: packet.tos, ttl: packet.ttl, segment }))
}

/// The four-tuple that a frame belongs to, seen from this machine: a TCP segment's own, an ICMP
/// error's quoted one. Cheap: nothing is summed, and only what leads to the ports is checked, so a
/// tuple found here says nothing about whether [`parse`] takes the frame.
#[inline]
pub fn peek_tuple(frame: &[u8]) -> Option<FourTuple> {
    let (_, ethertype, rest) = ethernet::split(frame)?;
    ip::parse(ethertype, rest, false, peek_packet).ok()
}

#[inline]
fn peek_packet(packet: &Packet<'_>) -> Result<FourTuple, ParseError> {
    if packet.protocol == tcp::PROTOCOL {
        let port = |at| u16_at(packet.payload, at).ok_or(ParseError::Truncated);
        return Ok(FourTuple {
            local: Endpoint { addr: packet.dst, port: port(2)? },
            remote: Endpoint { addr: packet.src, port: port(0)? },
        });
    }
    if !icmp::is_icmp(packet) {
        return Err(ParseError::NotTcp);
    }
    icmp::kind(packet)?;
    icmp::quoted_segment(packet).map(|(tuple, _)| tuple)
}

/// Whether TCP checksums of received frames are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ChecksumPolicy {
    /// Verify; a wrong one drops the frame.
    #[default]
    Verify,
    /// Trust the device or the path. A veth peer with TX offload leaves only a partial sum.
    Trust,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound<'a> {
    /// A TCP segment.
    Tcp(TcpFrame<'a>),
    /// An ICMP error that quotes a TCP segment of ours.
    IcmpError(IcmpQuote),
}

/// A TCP segment with what surrounded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFrame<'a> {
    /// Link header as received; [`Link::reply`] answers it.
    pub link: Link,
    /// `local` is the destination.
    pub tuple: FourTuple,
    /// DSCP and ECN.
    pub tos: u8,
    /// Hops left.
    pub ttl: u8,
    /// The segment.
    pub segment: Segment<'a>,
}

/// Why a frame was refused; usable as an index below [`ParseError::COUNT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ParseError {
    /// A length says that more bytes follow than do.
    Truncated,
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// An IP header that contradicts itself, or an extension header that we do not follow.
    BadIpHeader,
    /// Wrong IPv4 header checksum.
    IpChecksum,
    /// A fragment: nothing is reassembled here.
    Fragment,
    /// A source or destination that no TCP connection can have.
    NotUnicast,
    /// Some other protocol.
    NotTcp,
    /// A TCP header whose length is impossible.
    TcpHeader,
    /// A malformed TCP option.
    TcpOptions,
    /// Wrong TCP checksum.
    TcpChecksum,
    /// Wrong ICMP checksum.
    IcmpChecksum,
    /// An ICMP message that is no error, or does not quote a segment of ours.
    IcmpIgnored,
}

impl ParseError {
    /// Every reason, in index order.
    pub const ALL: [ParseError; ParseError::COUNT] = [
        ParseError::Truncated,
        ParseError::NotIp,
        ParseError::BadIpHeader,
        ParseError::IpChecksum,
        ParseError::Fragment,
        ParseError::NotUnicast,
        ParseError::NotTcp,
        ParseError::TcpHeader,
        ParseError::TcpOptions,
        ParseError::TcpChecksum,
        ParseError::IcmpChecksum,
        ParseError::IcmpIgnored,
    ];
    /// How many reasons there are.
    pub const COUNT: usize = 12;

    /// A short name, for counters.
    pub fn reason(self) -> &'static str {
        match self {
            ParseError::Truncated => "truncated",
            ParseError::NotIp => "not_ip",
            ParseError::BadIpHeader => "bad_ip_header",
            ParseError::IpChecksum => "ip_checksum",
            ParseError::Fragment => "fragment",
            ParseError::NotUnicast => "not_unicast",
            ParseError::NotTcp => "not_tcp",
            ParseError::TcpHeader => "tcp_header",
            ParseError::TcpOptions => "tcp_options",
            ParseError::TcpChecksum => "tcp_checksum",
            ParseError::IcmpChecksum => "icmp_checksum",
            ParseError::IcmpIgnored => "icmp_ignored",
        }
    }
}

impl ParseError {
    /// What happened, in a sentence.
    pub const fn explain(self) -> &'static str {
        match self {
            ParseError::Truncated => "A length says that more bytes follow than do.",
            ParseError::NotIp => "Neither IPv4 nor IPv6.",
            ParseError::BadIpHeader => {
                "An IP header that contradicts itself, or an extension header that is not followed."
            }
            ParseError::IpChecksum => "Wrong IPv4 header checksum.",
            ParseError::Fragment => "A fragment: nothing is put together here.",
            ParseError::NotUnicast => "An address that no TCP connection can have.",
            ParseError::NotTcp => "Some other protocol.",
            ParseError::TcpHeader => "A TCP header whose length is impossible.",
            ParseError::TcpOptions => "A malformed TCP option.",
            ParseError::TcpChecksum => {
                "Wrong TCP checksum; on veth set rx_checksum, or turn the peer's offload off."
            }
            ParseError::IcmpChecksum => "Wrong ICMP checksum.",
            ParseError::IcmpIgnored => {
                "An ICMP message that is no error, or does not quote a segment of ours."
            }
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl core::error::Error for ParseError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FrameHead, Mac, Options, SackBlock, Timestamps, build};
    use proptest::prelude::{any, prop};
    use proptest::{option, prop_assert_eq, proptest};

    proptest! {
        /// Whatever the short way takes, the long one takes too and finds the same in it; it takes
        /// whatever it should.
        #[test]
        fn both_ways_of_a_plain_frame_are_one(
            numbers: (u32, u32, u8, u16, u16, u8, u8),
            addresses: (u32, u32, u16, u16),
            times in option::of((any::<u32>(), any::<u32>())),
            block in option::weighted(0.2, (any::<u32>(), any::<u32>())),
            mss in option::weighted(0.2, any::<u16>()),
            payload in prop::collection::vec(any::<u8>(), 0..200),
            padding in 0usize..8,
            damage in option::of((0usize..60, 0u32..8)),
        ) {
            let (seq, ack, flags, window, urgent, tos, ttl) = numbers;
            let end = |addr: u32, port| Endpoint {
                // Unicast or not.
                addr: crate::Addr::from_v4(addr.to_be_bytes()),
                port,
            };
            let mut options = Options { mss, ..Options::default() };
            options.timestamps = times.map(|(value, echo)| Timestamps { value, echo });
            if let Some((left, right)) = block {
                options.sack.push(SackBlock { left, right });
            }
            let head = FrameHead {
                link: Link::new(Mac([2; 6]), Mac([4; 6])),
                tuple: FourTuple {
                    local: end(addresses.0, addresses.2),
                    remote: end(addresses.1, addresses.3),
                },
                tos, ttl, seq, ack, flags: crate::Flags(flags), window, urgent, options,
                ..FrameHead::default()
            };
            let mut frame = [0xeeu8; 400];
            let len = build(&mut frame, &head, payload.len(), |out| out.copy_from_slice(&payload));
            let len = len.unwrap();
            if let Some((at, bit)) = damage {
                frame[at] ^= 1 << bit;
            }
            let frame = &frame[..len + padding];
            for policy in [ChecksumPolicy::Verify, ChecksumPolicy::Trust] {
                let known = parse_any(frame, policy);
                let plain = plain::check(frame, policy);
                let plain = plain.and_then(|plain| Some(plain.frame(plain.options()?)));
                if let Some(plain) = plain {
                    prop_assert_eq!(Ok(Inbound::Tcp(plain)), known);
                } else if damage.is_none() {
                    // What was not damaged is refused for its addresses only.
                    prop_assert_eq!(known, Err(ParseError::NotUnicast));
                }
            }
        }
    }
}
