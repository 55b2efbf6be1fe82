//! The decision about one frame.

use crate::{Config, Frame, PortKey, Ports, Verdict};

/// 802.1Q or 802.1ad tags that are looked through.
pub const MAX_VLAN_TAGS: usize = 2;

/// IPv6 extension headers that are followed. RFC 8200 §4.1 has a use for at most seven in one
/// packet.
pub const MAX_EXTENSION_HEADERS: usize = 8;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_8021Q: u16 = 0x8100;
const ETHERTYPE_8021AD: u16 = 0x88a8;

const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;

/// Bytes of an ICMP or ICMPv6 error before the packet that it quotes.
const ICMP_ERROR_HEADER: usize = 8;
const IPV6_HEADER: usize = 40;

/// Decides what happens to `frame`, given the `ports` that are served.
///
/// Never answers [`Verdict::DropNoSocket`] and [`Verdict::DropSyn`]: only the redirect itself can
/// know that.
#[inline(always)]
pub fn classify<F: Frame + ?Sized, P: Ports + ?Sized>(
    frame: &F,
    ports: &P,
    config: Config,
) -> Verdict {
    let verdict = match ethernet(frame) {
        Some((ETHERTYPE_IPV4, at)) => ipv4(frame, at, ports, config),
        Some((ETHERTYPE_IPV6, at)) => ipv6(frame, at, ports, config),
        Some(_) => Some(Verdict::PassOther),
        None => None,
    };
    // `None`: a header goes on past the end of the frame.
    verdict.unwrap_or(Verdict::PassMalformed)
}

/// The ethertype behind the VLAN tags, and where its header starts.
#[inline(always)]
fn ethernet<F: Frame + ?Sized>(frame: &F) -> Option<(u16, usize)> {
    let mut at = 12;
    let mut ethertype = frame.u16(at)?;
    for _ in 0..MAX_VLAN_TAGS {
        if ethertype != ETHERTYPE_8021Q && ethertype != ETHERTYPE_8021AD {
            break;
        }
        at += 4;
        ethertype = frame.u16(at)?;
    }
    Some((ethertype, at + 2))
}

#[inline(always)]
fn ipv4<F: Frame + ?Sized, P: Ports + ?Sized>(
    frame: &F,
    at: usize,
    ports: &P,
    config: Config,
) -> Option<Verdict> {
    let Some(header) = ipv4_header_length(frame.u8(at)?) else {
        return Some(Verdict::PassMalformed);
    };
    let fragment = Ipv4Fragment(frame.u16(at + 6)?);
    let transport = at + header;
    if fragment.offset() != 0 {
        return Some(Verdict::PassFragment);
    }
    match frame.u8(at + 9)? {
        TCP => {
            let port = frame.u16(transport + 2)?;
            let key = PortKey::v4(frame.bytes(at + 16)?, port);
            Some(tcp(frame, transport, ports, key, fragment.more()))
        }
        _ if fragment.more() => Some(Verdict::PassFragment),
        ICMP if config.flags & Config::ICMP_ERRORS != 0 => icmp(frame, transport, ports),
        _ => Some(Verdict::PassOther),
    }
}

#[inline(always)]
fn ipv6<F: Frame + ?Sized, P: Ports + ?Sized>(
    frame: &F,
    at: usize,
    ports: &P,
    config: Config,
) -> Option<Verdict> {
    if frame.u8(at)? >> 4 != 6 {
        return Some(Verdict::PassMalformed);
    }
    let upper = match follow_headers(frame, frame.u8(at + 6)?, at + IPV6_HEADER)? {
        Ok(upper) => upper,
        Err(verdict) => return Some(verdict),
    };
    match upper.protocol {
        TCP => {
            let port = frame.u16(upper.at + 2)?;
            let key = PortKey::new(frame.bytes(at + 24)?, port);
            // A v4-mapped address in an IPv6 header would be taken for an IPv4 one.
            if key.is_v4() {
                return Some(Verdict::PassMalformed);
            }
            Some(tcp(frame, upper.at, ports, key, upper.first_fragment))
        }
        _ if upper.first_fragment => Some(Verdict::PassFragment),
        ICMPV6 if config.flags & Config::ICMP_ERRORS != 0 => icmpv6(frame, upper.at, ports),
        _ => Some(Verdict::PassOther),
    }
}

/// TCP for `key` whose header is at `at`, whole or (`fragmented`) the first fragment.
#[inline(always)]
fn tcp<F: Frame + ?Sized, P: Ports + ?Sized>(
    frame: &F,
    at: usize,
    ports: &P,
    key: PortKey,
    fragmented: bool,
) -> Verdict {
    match (served(ports, key), fragmented) {
        (true, false) if opens(frame, at) => Verdict::SteerSyn,
        (true, false) => Verdict::SteerTcp,
        (true, true) => Verdict::DropFragment,
        (false, false) => Verdict::PassPort,
        (false, true) => Verdict::PassFragment,
    }
}

/// Whether the TCP header at `at` opens a connection. One that ends before its flags does not.
#[inline(always)]
fn opens<F: Frame + ?Sized>(frame: &F, at: usize) -> bool {
    const RST: u8 = 0x04;
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    frame.u8(at + 13).is_some_and(|flags| flags & (SYN | ACK | RST) == SYN)
}

#[inline(always)]
fn served<P: Ports + ?Sized>(ports: &P, key: PortKey) -> bool {
    ports.contains(&key) || ports.contains(&key.any_address())
}

/// The header's length in bytes, `None` when this is no IPv4 header.
#[inline(always)]
fn ipv4_header_length(version_and_length: u8) -> Option<usize> {
    let words = usize::from(version_and_length & 0xf);
    (version_and_length >> 4 == 4 && words >= 5).then_some(words * 4)
}

/// The 16-bit word with flags and fragment offset (RFC 791 §3.1).
struct Ipv4Fragment(u16);

impl Ipv4Fragment {
    #[inline(always)]
    fn offset(&self) -> u16 {
        self.0 & 0x1fff
    }

    #[inline(always)]
    fn more(&self) -> bool {
        self.0 & 0x2000 != 0
    }
}

/// What comes behind the IPv6 extension headers.
struct Upper {
    protocol: u8,
    at: usize,
    /// More fragments follow. A fragment header with neither offset nor "more" is an atomic
    /// fragment: a whole packet (RFC 6946).
    first_fragment: bool,
}

/// Walks the extension headers that start at `at`; `Err` when the verdict is clear without
/// reaching their end.
#[inline(always)]
fn follow_headers<F: Frame + ?Sized>(
    frame: &F,
    mut next: u8,
    mut at: usize,
) -> Option<Result<Upper, Verdict>> {
    let mut first_fragment = false;
    for _ in 0..MAX_EXTENSION_HEADERS {
        match next {
            HOP_BY_HOP | DESTINATION_OPTIONS => {
                let [following, length] = frame.bytes(at)?;
                next = following;
                at += (usize::from(length) + 1) * 8;
            }
            ROUTING => {
                let [following, length, _, segments_left] = frame.bytes(at)?;
                // RFC 8200 §4.4: the destination address is not the last one yet.
                if segments_left != 0 {
                    return Some(Err(Verdict::PassInTransit));
                }
                next = following;
                at += (usize::from(length) + 1) * 8;
            }
            FRAGMENT => {
                let [following, _, offset_high, offset_low] = frame.bytes(at)?;
                let offset = u16::from_be_bytes([offset_high, offset_low & !7]);
                if offset != 0 {
                    return Some(Err(Verdict::PassFragment));
                }
                first_fragment |= offset_low & 1 != 0;
                next = following;
                at += 8;
            }
            AUTHENTICATION => {
                // RFC 4302 §2.2: in words of four bytes, minus 2.
                let [following, length] = frame.bytes(at)?;
                next = following;
                at += (usize::from(length) + 2) * 4;
            }
            protocol => {
                return Some(Ok(Upper { protocol, at, first_fragment }));
            }
        }
    }
    Some(match next {
        HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING | FRAGMENT | AUTHENTICATION => {
            Err(Verdict::DropHeaderChain)
        }
        protocol => Ok(Upper { protocol, at, first_fragment }),
    })
}

/// An ICMP message at `at`: steered when it is an error about TCP that a served port sent.
#[inline(always)]
fn icmp<F: Frame + ?Sized, P: Ports + ?Sized>(frame: &F, at: usize, ports: &P) -> Option<Verdict> {
    // RFC 792: destination unreachable, time exceeded, parameter problem. Source quench is
    // obsolete (RFC 6633), and redirects are the kernel's.
    if !matches!(frame.u8(at)?, 3 | 11 | 12) {
        return Some(Verdict::PassOther);
    }
    let quoted = at + ICMP_ERROR_HEADER;
    let Some(header) = ipv4_header_length(frame.u8(quoted)?) else {
        return Some(Verdict::PassMalformed);
    };
    let fragment = Ipv4Fragment(frame.u16(quoted + 6)?);
    if fragment.offset() != 0 || frame.u8(quoted + 9)? != TCP {
        return Some(Verdict::PassOther);
    }
    let port = frame.u16(quoted + header)?;
    let key = PortKey::v4(frame.bytes(quoted + 12)?, port);
    Some(quote(ports, key))
}

/// An ICMPv6 message at `at`: steered when it is an error about TCP that a served port sent.
#[inline(always)]
fn icmpv6<F: Frame + ?Sized, P: Ports + ?Sized>(
    frame: &F,
    at: usize,
    ports: &P,
) -> Option<Verdict> {
    // RFC 4443 §3: destination unreachable, packet too big, time exceeded, parameter problem.
    if !matches!(frame.u8(at)?, 1..=4) {
        return Some(Verdict::PassOther);
    }
    let quoted = at + ICMP_ERROR_HEADER;
    if frame.u8(quoted)? >> 4 != 6 {
        return Some(Verdict::PassMalformed);
    }
    // We send no extension headers, so a quote that has one is not about a frame of ours.
    if frame.u8(quoted + 6)? != TCP {
        return Some(Verdict::PassOther);
    }
    let port = frame.u16(quoted + IPV6_HEADER)?;
    let key = PortKey::new(frame.bytes(quoted + 8)?, port);
    if key.is_v4() {
        return Some(Verdict::PassMalformed);
    }
    Some(quote(ports, key))
}

#[inline(always)]
fn quote<P: Ports + ?Sized>(ports: &P, source: PortKey) -> Verdict {
    if served(ports, source) { Verdict::SteerIcmp } else { Verdict::PassPort }
}
