//! The way out: a whole frame from its parts.

use core::fmt;

use crate::addr::FourTuple;
use crate::checksum::Sum;
use crate::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Link};
use crate::ip::{V4_HEADER_LEN, V6_HEADER_LEN, pseudo_header};
use crate::options::Options;
use crate::plain;
use crate::tcp::{self, Flags};

/// Everything about a frame to send but its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FrameHead {
    /// Link header to send with.
    pub link: Link,
    /// `local` is the source. Both addresses are of one family.
    pub tuple: FourTuple,
    /// DSCP and ECN.
    pub tos: u8,
    /// Hop limit.
    pub ttl: u8,
    /// IPv4 identification; unused for IPv6.
    pub ip_id: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// The window field, already scaled down.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options; SACK blocks that do not fit are left out.
    pub options: Options,
}

/// The frame does not fit the buffer, or the packet is longer than IP can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall;

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the frame does not fit")
    }
}

impl core::error::Error for TooSmall {}

/// Writes a frame to the start of `out` and returns its length.
///
/// `fill` gets exactly `payload_len` bytes to write the payload into; what they hold before is
/// undefined. Checksums are computed afterwards. IPv4 packets carry DF (RFC 1191). Nothing is written when the frame
/// does not fit.
#[inline]
pub fn build(
    out: &mut [u8],
    head: &FrameHead,
    payload_len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Result<usize, TooSmall> {
    if plain::is_plain(head) {
        return plain::build(out, head, payload_len, fill).ok_or(TooSmall);
    }
    build_any(out, head, payload_len, fill)
}

/// Writes any frame, a plain one too.
pub(crate) fn build_any(
    out: &mut [u8],
    head: &FrameHead,
    payload_len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Result<usize, TooSmall> {
    let link_len = head.link.header_len();
    let v4 = head.tuple.is_v4();
    let ip_len = if v4 { V4_HEADER_LEN } else { V6_HEADER_LEN };
    let options_len = head.options.wire_len();
    let segment_len = tcp::HEADER_LEN + options_len + payload_len;
    let frame_len = link_len + ip_len + segment_len;
    if ip_len + segment_len > usize::from(u16::MAX) {
        return Err(TooSmall);
    }
    let frame = out.get_mut(..frame_len).ok_or(TooSmall)?;
    let (link, packet) = frame.split_at_mut(link_len);
    let (ip, segment) = packet.split_at_mut(ip_len);
    if v4 {
        head.link.emit(link, ETHERTYPE_IPV4);
        emit_v4(ip, head, segment_len);
    } else {
        head.link.emit(link, ETHERTYPE_IPV6);
        emit_v6(ip, head, segment_len);
    }
    let (fixed, rest) = segment.split_at_mut(tcp::HEADER_LEN);
    emit_tcp(fixed, head, options_len);
    let (options, payload) = rest.split_at_mut(options_len);
    head.options.emit(options);
    fill(payload);
    let tuple = &head.tuple;
    let pseudo = pseudo_header(&tuple.local.addr, &tuple.remote.addr, tcp::PROTOCOL, segment_len);
    tcp::fill_checksum(segment, pseudo);
    Ok(frame_len)
}

/// The largest payload that fits one IP packet of `mtu` bytes beside `options_len` bytes of TCP
/// options; 0 if there is no room. With no options this is the MSS to announce (RFC 9293 §3.7.1).
pub fn max_payload(mtu: u16, is_v4: bool, options_len: usize) -> u16 {
    let ip_len = if is_v4 { V4_HEADER_LEN } else { V6_HEADER_LEN };
    let overhead = ip_len + tcp::HEADER_LEN + options_len;
    // Smaller than `mtu`, hence 16 bits.
    usize::from(mtu).saturating_sub(overhead) as u16
}

fn emit_v4(out: &mut [u8], head: &FrameHead, segment_len: usize) {
    let [.., a0, a1, a2, a3] = head.tuple.local.addr.0;
    let [.., b0, b1, b2, b3] = head.tuple.remote.addr.0;
    // Checked against 64 KiB by the caller.
    let [l0, l1] = ((V4_HEADER_LEN + segment_len) as u16).to_be_bytes();
    let [i0, i1] = head.ip_id.to_be_bytes();
    const DONT_FRAGMENT: u8 = 0x40;
    let mut header = [
        0x45,
        head.tos,
        l0,
        l1,
        i0,
        i1,
        DONT_FRAGMENT,
        0,
        head.ttl,
        tcp::PROTOCOL,
        0,
        0,
        a0,
        a1,
        a2,
        a3,
        b0,
        b1,
        b2,
        b3,
    ];
    let [c0, c1] = Sum::new().add_bytes(&header).finish();
    header[10] = c0;
    header[11] = c1;
    out.copy_from_slice(&header);
}

fn emit_v6(out: &mut [u8], head: &FrameHead, segment_len: usize) {
    let [l0, l1] = (segment_len as u16).to_be_bytes();
    let (t0, t1) = (head.tos >> 4, head.tos << 4);
    out[..8].copy_from_slice(&[0x60 | t0, t1, 0, 0, l0, l1, tcp::PROTOCOL, head.ttl]);
    out[8..24].copy_from_slice(&head.tuple.local.addr.0);
    out[24..40].copy_from_slice(&head.tuple.remote.addr.0);
}

fn emit_tcp(out: &mut [u8], head: &FrameHead, options_len: usize) {
    let words = ((tcp::HEADER_LEN + options_len) / 4) as u8;
    out[..2].copy_from_slice(&head.tuple.local.port.to_be_bytes());
    out[2..4].copy_from_slice(&head.tuple.remote.port.to_be_bytes());
    out[4..8].copy_from_slice(&head.seq.to_be_bytes());
    out[8..12].copy_from_slice(&head.ack.to_be_bytes());
    out[12] = words << 4;
    out[13] = head.flags.0;
    out[14..16].copy_from_slice(&head.window.to_be_bytes());
    out[16..18].copy_from_slice(&[0, 0]);
    out[18..20].copy_from_slice(&head.urgent.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Addr, Endpoint, Mac, Timestamps};
    use proptest::prelude::{any, prop};
    use proptest::{option, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn the_short_way_writes_what_the_long_one_writes(
            numbers: (u32, u32, u8, u16, u16, u8, u8, u16),
            addresses: (u32, u32, u16, u16),
            times in option::of((any::<u32>(), any::<u32>())),
            others in option::of((option::of(any::<u16>()), option::of(0u8..15), any::<bool>())),
            payload in prop::collection::vec(any::<u8>(), 0..1500),
            room in 0usize..1600,
        ) {
            let (mss, window_scale, sack_permitted) = others.unwrap_or_default();
            let (seq, ack, flags, window, urgent, tos, ttl, ip_id) = numbers;
            let end = |addr: u32, port| Endpoint { addr: Addr::from_v4(addr.to_be_bytes()), port };
            let head = FrameHead {
                link: Link::new(Mac([2; 6]), Mac([4; 6])),
                tuple: FourTuple {
                    local: end(addresses.0, addresses.2),
                    remote: end(addresses.1, addresses.3),
                },
                tos, ttl, ip_id, seq, ack, flags: Flags(flags), window, urgent,
                options: Options {
                    mss,
                    window_scale,
                    sack_permitted,
                    timestamps: times.map(|(value, echo)| Timestamps { value, echo }),
                    ..Options::default()
                },
            };
            let fill = |out: &mut [u8]| out.copy_from_slice(&payload);
            let (mut long, mut short) = ([0u8; 1600], [0u8; 1600]);
            let expected = build_any(&mut long[..room], &head, payload.len(), fill);
            prop_assert_eq!(build(&mut short[..room], &head, payload.len(), fill), expected);
            prop_assert_eq!(long, short);
        }
    }
}
