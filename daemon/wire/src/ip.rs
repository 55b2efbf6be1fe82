//! IPv4 (RFC 791) and IPv6 (RFC 8200): what a whole TCP or ICMP packet needs, no reassembly.

use crate::addr::Addr;
use crate::bytes::{array, u16_at};
use crate::checksum::Sum;
use crate::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::parse::ParseError;

/// The part of `tos` that is ECN's (RFC 3168 §5).
pub const ECN_BITS: u8 = 0b11;
/// Its sender reacts to marks: ECT(0).
pub const ECN_ECT_0: u8 = 0b10;
/// A mark: congestion was experienced.
pub(crate) const ECN_CE: u8 = 0b11;

pub(crate) const V4_HEADER_LEN: usize = 20;
pub(crate) const V6_HEADER_LEN: usize = 40;

/// No sender in good faith stacks more; a limit keeps hostile chains short.
const MAX_EXTENSION_HEADERS: usize = 8;

/// An IP packet, cut to its own length: link padding is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) src: Addr,
    pub(crate) dst: Addr,
    /// DSCP and ECN.
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) payload: &'a [u8],
}

impl Packet<'_> {
    /// The pseudo-header sum for this packet's payload (RFC 9293 §3.1).
    #[inline]
    pub(crate) fn sum(&self, protocol: u8) -> Sum {
        pseudo_header(&self.src, &self.dst, protocol, self.payload.len())
    }
}

/// The pseudo-header of RFC 9293 §3.1 and RFC 8200 §8.1: `len` is below 64 KiB.
#[inline]
pub(crate) fn pseudo_header(src: &Addr, dst: &Addr, protocol: u8, len: usize) -> Sum {
    Sum::new()
        .add_bytes(src.on_wire())
        .add_bytes(dst.on_wire())
        .add_u16(u16::from(protocol))
        .add_u16(len as u16)
}

/// Checks the headers of a received packet and gives it to `next`, which is compiled once for each
/// family: the common path is then free of what only the other one needs.
#[inline]
pub(crate) fn parse<'a, T>(
    ethertype: u16,
    bytes: &'a [u8],
    verify_header: bool,
    next: impl Fn(&Packet<'a>) -> Result<T, ParseError>,
) -> Result<T, ParseError> {
    match ethertype {
        ETHERTYPE_IPV4 => next(&unicast(parse_v4(bytes, verify_header)?)?),
        ETHERTYPE_IPV6 => next(&unicast(parse_v6(bytes)?)?),
        _ => Err(ParseError::NotIp),
    }
}

#[inline]
fn unicast(packet: Packet<'_>) -> Result<Packet<'_>, ParseError> {
    if packet.src.is_unicast() && packet.dst.is_unicast() {
        Ok(packet)
    } else {
        Err(ParseError::NotUnicast)
    }
}

#[inline]
fn parse_v4(bytes: &[u8], verify: bool) -> Result<Packet<'_>, ParseError> {
    let (mut packet, header_len) = v4_header(bytes)?;
    let total_len = usize::from(u16_at(bytes, 2).ok_or(ParseError::Truncated)?);
    if total_len < header_len {
        return Err(ParseError::BadIpHeader);
    }
    let header = bytes.get(..header_len).ok_or(ParseError::Truncated)?;
    if verify && !Sum::new().add_bytes(header).is_valid() {
        return Err(ParseError::IpChecksum);
    }
    // More fragments, or an offset: this is not a whole datagram.
    if u16_at(header, 6).is_none_or(|field| field & 0x3fff != 0) {
        return Err(ParseError::Fragment);
    }
    packet.payload = bytes.get(header_len..total_len).ok_or(ParseError::Truncated)?;
    Ok(packet)
}

/// The fixed fields and the header's length; the payload is left empty.
#[inline]
fn v4_header(bytes: &[u8]) -> Result<(Packet<'_>, usize), ParseError> {
    let head: &[u8; V4_HEADER_LEN] = bytes.first_chunk().ok_or(ParseError::Truncated)?;
    let header_len = usize::from(head[0] & 0x0f) * 4;
    if head[0] >> 4 != 4 || header_len < V4_HEADER_LEN {
        return Err(ParseError::BadIpHeader);
    }
    let packet = Packet {
        src: Addr::from_v4([head[12], head[13], head[14], head[15]]),
        dst: Addr::from_v4([head[16], head[17], head[18], head[19]]),
        tos: head[1],
        ttl: head[8],
        protocol: head[9],
        payload: &[],
    };
    Ok((packet, header_len))
}

fn parse_v6(bytes: &[u8]) -> Result<Packet<'_>, ParseError> {
    let len = usize::from(u16_at(bytes, 4).ok_or(ParseError::Truncated)?);
    let whole = bytes.get(..V6_HEADER_LEN + len).ok_or(ParseError::Truncated)?;
    v6_packet(whole)
}

/// Walks the extension headers of `bytes`, which ends where the packet (or its quote) ends.
fn v6_packet(bytes: &[u8]) -> Result<Packet<'_>, ParseError> {
    let truncated = ParseError::Truncated;
    let [b0, b1, _, _, _, _, mut next, ttl] = array::<8>(bytes, 0).ok_or(truncated)?;
    if b0 >> 4 != 6 {
        return Err(ParseError::BadIpHeader);
    }
    let (src, dst) = (array(bytes, 8).ok_or(truncated)?, array(bytes, 24).ok_or(truncated)?);
    let (src, dst) = (Addr(src), Addr(dst));
    // A mapped address on the wire would pass for IPv4 in our tables (RFC 4942 §2.2).
    if src.is_v4() || dst.is_v4() {
        return Err(ParseError::NotUnicast);
    }
    let mut at = V6_HEADER_LEN;
    for _ in 0..=MAX_EXTENSION_HEADERS {
        let Some(len) = extension_len(next, bytes.get(at..).ok_or(truncated)?)? else {
            let payload = bytes.get(at..).ok_or(truncated)?;
            let tos = (b0 << 4) | (b1 >> 4);
            return Ok(Packet { src, dst, tos, ttl, protocol: next, payload });
        };
        next = bytes[at];
        at += len;
    }
    Err(ParseError::BadIpHeader)
}

/// Length of the extension header at the start of `bytes`, `None` if `kind` is no extension header.
/// At least one byte is there when a length is returned.
fn extension_len(kind: u8, bytes: &[u8]) -> Result<Option<usize>, ParseError> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    if !matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
        return Ok(None);
    }
    let [_, len, b2, b3] = array(bytes, 0).ok_or(ParseError::Truncated)?;
    match kind {
        // RFC 8200 §4.4: a route that goes on from here is not for us to follow.
        ROUTING if b3 != 0 => Err(ParseError::BadIpHeader),
        // RFC 6946: a fragment that is the whole packet is as good as none.
        FRAGMENT if u16::from_be_bytes([b2, b3]) & !0x6 != 0 => Err(ParseError::Fragment),
        FRAGMENT => Ok(Some(8)),
        _ => Ok(Some((usize::from(len) + 1) * 8)),
    }
}

/// The packet quoted in an ICMP error: perhaps cut short, its header perhaps changed on the way, so
/// neither lengths nor checksums are checked.
pub(crate) fn parse_quoted(v4: bool, bytes: &[u8]) -> Result<Packet<'_>, ParseError> {
    if !v4 {
        return v6_packet(bytes);
    }
    let (mut packet, header_len) = v4_header(bytes)?;
    let offset = u16_at(bytes, 6).ok_or(ParseError::Truncated)? & 0x1fff;
    if offset != 0 {
        return Err(ParseError::Fragment);
    }
    packet.payload = bytes.get(header_len..).ok_or(ParseError::Truncated)?;
    Ok(packet)
}
