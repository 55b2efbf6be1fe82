//! A short way for the frames that nearly all are: untagged, IPv4 without options, TCP. Everything
//! is at a fixed place there.
//!
//! What is parsed here is parsed by [`parse`](crate::parse()) in the same way, and whatever is
//! unusual about a frame, all that is wrong with one included, is left to it. The same holds for
//! [`build`](crate::build).

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

use crate::addr::{Addr, Endpoint, FourTuple};
use crate::checksum::Sum;
use crate::emit::FrameHead;
use crate::ethernet::{ETHERTYPE_IPV4, Link, Mac};
use crate::ip::{ECN_BITS, ECN_CE, V4_HEADER_LEN};
use crate::options::{Options, PLAIN_TIMESTAMPS, Timestamps};
use crate::parse::{ChecksumPolicy, TcpFrame};
use crate::tcp::{self, Flags, Segment};

const LINK_LEN: usize = 14;
/// Version 4, five words.
const V4_PLAIN: u8 = 0x45;
const DONT_FRAGMENT: u16 = 0x4000;
/// More fragments, or an offset.
const FRAGMENT: u16 = 0x3fff;

/// The three headers as they lie in a frame.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    dst: Mac,
    src: Mac,
    ethertype: U16,
    ip: Ip,
    tcp: Tcp,
}

/// RFC 791 §3.1.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Ip {
    version: u8,
    tos: u8,
    total_len: U16,
    id: U16,
    fragment: U16,
    ttl: u8,
    protocol: u8,
    checksum: [u8; 2],
    source: [u8; 4],
    destination: [u8; 4],
}

/// RFC 9293 §3.1.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Tcp {
    source: U16,
    destination: U16,
    seq: U32,
    ack: U32,
    /// Words of header and options, times 16.
    words: u8,
    flags: Flags,
    window: U16,
    checksum: [u8; 2],
    urgent: U16,
}

/// RFC 7323 §3.2, padded as in its Appendix A.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Times {
    kind: U32,
    value: U32,
    echo: U32,
}

impl Ip {
    #[inline]
    fn sum(self) -> Sum {
        Sum::of_words::<5>(transmute!(self))
    }

    /// RFC 9293 §3.1; `len` is the segment's.
    #[inline]
    fn pseudo_sum(&self, len: u16) -> Sum {
        let addresses = [self.source, self.destination];
        let addresses: [u32; 2] = transmute!(addresses);
        Sum::of_words(addresses).add_u16(u16::from(tcp::PROTOCOL)).add_u16(len)
    }

    /// [`Addr::is_unicast`], of both.
    #[inline]
    fn is_unicast(&self) -> bool {
        let is_unicast = |first: u8| first != 0 && first != 127 && first < 224;
        is_unicast(self.source[0]) && is_unicast(self.destination[0])
    }
}

impl Tcp {
    #[inline]
    fn sum(self) -> Sum {
        Sum::of_words::<5>(transmute!(self))
    }
}

impl Times {
    #[inline]
    fn sum(self) -> Sum {
        Sum::of_words::<3>(transmute!(self))
    }
}

/// A plain frame, checked but for its options.
pub(crate) struct Plain<'a> {
    head: &'a Head,
    options: &'a [u8],
    payload: &'a [u8],
}

/// Looks at a frame; `None` if it is not a plain one, or there is something wrong with it.
#[inline]
pub(crate) fn check(frame: &[u8], policy: ChecksumPolicy) -> Option<Plain<'_>> {
    let (head, rest) = Head::ref_from_prefix(frame).ok()?;
    let Head { dst, src, ethertype, ip, tcp } = head;
    let segment_len = ip.total_len.get().wrapping_sub(V4_HEADER_LEN as u16);
    let header_len = usize::from(tcp.words >> 4) * 4;
    let is_plain = !dst.is_group()
        && !src.is_group()
        && ethertype.get() == ETHERTYPE_IPV4
        && ip.version == V4_PLAIN
        && ip.fragment.get() & FRAGMENT == 0
        && ip.protocol == tcp::PROTOCOL
        && ip.is_unicast()
        && ip.total_len.get() >= (V4_HEADER_LEN + tcp::HEADER_LEN) as u16
        && header_len >= tcp::HEADER_LEN;
    if !is_plain || !ip.sum().is_valid() {
        return None;
    }
    let rest = rest.get(..usize::from(segment_len) - tcp::HEADER_LEN)?;
    let is_intact = policy == ChecksumPolicy::Trust
        || ip.pseudo_sum(segment_len).plus(tcp.sum()).add_bytes(rest).is_valid();
    if !is_intact {
        return None;
    }
    let (options, payload) = rest.split_at_checked(header_len - tcp::HEADER_LEN)?;
    Some(Plain { head, options, payload })
}

impl<'a> Plain<'a> {
    /// Its options; `None` if they are malformed.
    #[inline]
    pub(crate) fn options(&self) -> Option<Options> {
        match Times::ref_from_bytes(self.options) {
            Ok(times) if times.kind.get() == PLAIN_TIMESTAMPS => {
                let timestamps = Timestamps { value: times.value.get(), echo: times.echo.get() };
                Some(Options { timestamps: Some(timestamps), ..Options::default() })
            }
            _ => Options::parse(self.options).ok(),
        }
    }

    /// What it says, these being its options.
    #[inline]
    pub(crate) fn frame(&self, options: Options) -> TcpFrame<'a> {
        let Head { dst, src, ethertype: _, ip, tcp } = self.head;
        let end = |addr, port: U16| Endpoint { addr: Addr::from_v4(addr), port: port.get() };
        TcpFrame {
            link: Link::new(*dst, *src),
            tuple: FourTuple {
                local: end(ip.destination, tcp.destination),
                remote: end(ip.source, tcp.source),
            },
            tos: ip.tos,
            ttl: ip.ttl,
            segment: Segment {
                seq: tcp.seq.get(),
                ack: tcp.ack.get(),
                flags: tcp.flags,
                window: tcp.window.get(),
                urgent: tcp.urgent.get(),
                options,
                congested: ip.tos & ECN_BITS == ECN_CE,
                payload: self.payload,
            },
        }
    }
}

/// Whether a frame with this head is a plain one.
#[inline]
pub(crate) fn is_plain(head: &FrameHead) -> bool {
    head.link.vlan_count == 0 && head.tuple.is_v4()
}

/// Writes a plain frame, as [`build`](crate::build) does; `None` when it does not fit.
#[inline]
pub(crate) fn build(
    out: &mut [u8],
    head: &FrameHead,
    payload_len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Option<usize> {
    let times = head.options.plain_timestamps();
    let options_len = match times {
        Some(_) => size_of::<Times>(),
        None => head.options.wire_len(),
    };
    let frame_len = size_of::<Head>() + options_len + payload_len;
    let total_len = u16::try_from(frame_len - LINK_LEN).ok()?;
    let (frame, rest) = Head::mut_from_prefix(out.get_mut(..frame_len)?).ok()?;
    let [.., a0, a1, a2, a3] = head.tuple.local.addr.0;
    let [.., b0, b1, b2, b3] = head.tuple.remote.addr.0;
    let mut ip = Ip {
        version: V4_PLAIN,
        tos: head.tos,
        total_len: total_len.into(),
        id: head.ip_id.into(),
        fragment: DONT_FRAGMENT.into(),
        ttl: head.ttl,
        protocol: tcp::PROTOCOL,
        checksum: [0; 2],
        source: [a0, a1, a2, a3],
        destination: [b0, b1, b2, b3],
    };
    ip.checksum = ip.sum().finish();
    let mut tcp = Tcp {
        source: head.tuple.local.port.into(),
        destination: head.tuple.remote.port.into(),
        seq: head.seq.into(),
        ack: head.ack.into(),
        words: ((tcp::HEADER_LEN + options_len) / 4) as u8 * 16,
        flags: head.flags,
        window: head.window.into(),
        checksum: [0; 2],
        urgent: head.urgent.into(),
    };
    let (options, payload) = rest.split_at_mut(options_len);
    let options_sum = match times {
        Some(Timestamps { value, echo }) => {
            let kind = PLAIN_TIMESTAMPS.into();
            let times = Times { kind, value: value.into(), echo: echo.into() };
            times.write_to(options).ok()?;
            times.sum()
        }
        None => {
            head.options.emit(options);
            Sum::new().add_bytes(options)
        }
    };
    fill(payload);
    let pseudo = ip.pseudo_sum(total_len - V4_HEADER_LEN as u16);
    tcp.checksum = pseudo.plus(tcp.sum()).plus(options_sum).add_bytes(payload).finish();
    let Link { dst, src, .. } = head.link;
    *frame = Head { dst, src, ethertype: ETHERTYPE_IPV4.into(), ip, tcp };
    Some(frame_len)
}
