//! ICMP (RFC 792) and ICMPv6 (RFC 4443) errors that quote a TCP segment.

use crate::addr::{Endpoint, FourTuple};
use crate::bytes::{array, u16_at, u32_at};
use crate::checksum::Sum;
use crate::ethernet::Link;
use crate::ip::{self, Packet};
use crate::parse::ParseError;
use crate::tcp;

pub(crate) const PROTOCOL_V4: u8 = 1;
pub(crate) const PROTOCOL_V6: u8 = 58;

/// Both families put the quoted packet after eight bytes.
const HEADER_LEN: usize = 8;

/// What an error says, family and codes folded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpKind {
    /// No route to the network.
    NetUnreachable,
    /// No way to the host.
    HostUnreachable,
    /// The host does not speak TCP.
    ProtocolUnreachable,
    /// The host has no such port.
    PortUnreachable,
    /// A filter or a policy says no.
    Prohibited,
    /// The packet was too big for a link and could not be fragmented.
    PacketTooBig {
        /// The link's MTU in bytes; 0 if the router did not say (RFC 1191 §5).
        mtu: u32,
    },
    /// The hop limit ran out.
    TimeExceeded,
    /// A header field was not understood.
    ParameterProblem,
}

/// An ICMP error about one of our segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpQuote {
    /// The link header of the frame that brought it.
    pub link: Link,
    /// The quoted flow as seen from us: `local` is the quoted source.
    pub tuple: FourTuple,
    /// Sequence number of the quoted segment: check it against what is in flight (RFC 5927 §4.1).
    pub seq: u32,
    /// What is wrong.
    pub kind: IcmpKind,
}

/// Whether this packet can be an ICMP message of its own family.
#[inline]
pub(crate) fn is_icmp(packet: &Packet<'_>) -> bool {
    packet.protocol == if packet.dst.is_v4() { PROTOCOL_V4 } else { PROTOCOL_V6 }
}

/// Checks the message and reads the quote.
pub(crate) fn parse(link: Link, packet: &Packet<'_>) -> Result<IcmpQuote, ParseError> {
    let kind = kind(packet)?;
    let pseudo_header = if packet.dst.is_v4() { Sum::new() } else { packet.sum(PROTOCOL_V6) };
    if !pseudo_header.add_bytes(packet.payload).is_valid() {
        return Err(ParseError::IcmpChecksum);
    }
    let (tuple, seq) = quoted_segment(packet)?;
    Ok(IcmpQuote { link, tuple, seq, kind })
}

/// The quoted flow as seen from us, and the quoted sequence number.
pub(crate) fn quoted_segment(packet: &Packet<'_>) -> Result<(FourTuple, u32), ParseError> {
    let quote = packet.payload.get(HEADER_LEN..).ok_or(ParseError::Truncated)?;
    let quoted = ip::parse_quoted(packet.dst.is_v4(), quote)?;
    // Errors come to the address that the quoted packet was sent from.
    if quoted.protocol != tcp::PROTOCOL || quoted.src != packet.dst {
        return Err(ParseError::IcmpIgnored);
    }
    let ports = |at| u16_at(quoted.payload, at).ok_or(ParseError::Truncated);
    let tuple = FourTuple {
        local: Endpoint { addr: quoted.src, port: ports(0)? },
        remote: Endpoint { addr: quoted.dst, port: ports(2)? },
    };
    let seq = u32_at(quoted.payload, 4).ok_or(ParseError::Truncated)?;
    Ok((tuple, seq))
}

/// The meaning of type and code; anything but an error is ignored.
pub(crate) fn kind(packet: &Packet<'_>) -> Result<IcmpKind, ParseError> {
    let [kind, code, _, _] = array(packet.payload, 0).ok_or(ParseError::Truncated)?;
    let kind = if packet.dst.is_v4() {
        kind_v4(kind, code, u16_at(packet.payload, 6).ok_or(ParseError::Truncated)?)
    } else {
        kind_v6(kind, code, u32_at(packet.payload, 4).ok_or(ParseError::Truncated)?)
    };
    kind.ok_or(ParseError::IcmpIgnored)
}

/// Source quench (type 4) is ignored: RFC 6633.
fn kind_v4(kind: u8, code: u8, mtu: u16) -> Option<IcmpKind> {
    Some(match (kind, code) {
        (3, 0 | 6 | 11) => IcmpKind::NetUnreachable,
        (3, 1 | 5 | 7 | 8 | 12) => IcmpKind::HostUnreachable,
        (3, 2) => IcmpKind::ProtocolUnreachable,
        (3, 3) => IcmpKind::PortUnreachable,
        (3, 4) => IcmpKind::PacketTooBig { mtu: u32::from(mtu) },
        (3, 9 | 10 | 13..=15) => IcmpKind::Prohibited,
        (11, _) => IcmpKind::TimeExceeded,
        (12, _) => IcmpKind::ParameterProblem,
        _ => return None,
    })
}

fn kind_v6(kind: u8, code: u8, mtu: u32) -> Option<IcmpKind> {
    Some(match (kind, code) {
        (1, 0) => IcmpKind::NetUnreachable,
        (1, 2 | 3) => IcmpKind::HostUnreachable,
        (1, 4) => IcmpKind::PortUnreachable,
        (1, 1 | 5 | 6) => IcmpKind::Prohibited,
        (2, _) => IcmpKind::PacketTooBig { mtu },
        (3, _) => IcmpKind::TimeExceeded,
        (4, _) => IcmpKind::ParameterProblem,
        _ => return None,
    })
}
