//! What ought to happen to a frame, written down a second time: on slices, one layer after the
//! other, without regard to speed or to the verifier.

use fourwave_ebpf_common::Verdict;

use super::{ANY4_PORT, ANY6_PORT, HOST4, HOST6, PORT};

/// The verdict that [`classify`](fourwave_ebpf_common::classify()) has to reach when
/// [`super::keys`] are served and ICMP errors are steered.
pub fn expected(frame: &[u8]) -> Verdict {
    decide(frame).unwrap_or(Verdict::PassMalformed)
}

fn decide(frame: &[u8]) -> Option<Verdict> {
    let mut rest = frame.get(12..)?;
    let mut ethertype = number(rest)?;
    let mut tags = 0;
    while matches!(ethertype, 0x8100 | 0x88a8) && tags < 2 {
        rest = rest.get(4..)?;
        ethertype = number(rest)?;
        tags += 1;
    }
    let packet = rest.get(2..)?;
    match ethertype {
        0x0800 => over_ipv4(packet),
        0x86dd => over_ipv6(packet),
        _ => Some(Verdict::PassOther),
    }
}

fn over_ipv4(packet: &[u8]) -> Option<Verdict> {
    let first = *packet.first()?;
    if !(0x45..=0x4f).contains(&first) {
        return Some(Verdict::PassMalformed);
    }
    let word = number(packet.get(6..)?)?;
    if word % 0x2000 != 0 {
        return Some(Verdict::PassFragment);
    }
    let more = word / 0x2000 % 2 == 1;
    let protocol = *packet.get(9)?;
    let payload =
        |packet: &'_ [u8]| packet.get(usize::from(first - 0x40) * 4..).map(<[u8]>::to_vec);
    match (protocol, more) {
        (6, _) => {
            let segment = payload(packet)?;
            let port = number(segment.get(2..)?)?;
            let destination: [u8; 4] = *packet.get(16..)?.first_chunk()?;
            Some(tcp(serves4(destination, port), more, segment.get(13)))
        }
        (_, true) => Some(Verdict::PassFragment),
        (1, false) => icmp4(&payload(packet)?),
        _ => Some(Verdict::PassOther),
    }
}

fn icmp4(message: &[u8]) -> Option<Verdict> {
    if ![3, 11, 12].contains(message.first()?) {
        return Some(Verdict::PassOther);
    }
    let quote = message.get(8..)?;
    let first = *quote.first()?;
    if !(0x45..=0x4f).contains(&first) {
        return Some(Verdict::PassMalformed);
    }
    let fragment_offset = number(quote.get(6..)?)? % 0x2000;
    if fragment_offset != 0 || *quote.get(9)? != 6 {
        return Some(Verdict::PassOther);
    }
    let port = number(quote.get(usize::from(first - 0x40) * 4..)?)?;
    let source: [u8; 4] = *quote.get(12..)?.first_chunk()?;
    Some(quoted(serves4(source, port)))
}

fn over_ipv6(packet: &[u8]) -> Option<Verdict> {
    if packet.first()? / 16 != 6 {
        return Some(Verdict::PassMalformed);
    }
    let mut next = *packet.get(6)?;
    let mut rest = packet.get(40..).unwrap_or(&[]);
    let mut first_fragment = false;
    let mut seen = 0;
    while [0, 43, 44, 51, 60].contains(&next) {
        if seen == 8 {
            return Some(Verdict::DropHeaderChain);
        }
        seen += 1;
        let length = match next {
            43 | 44 => {
                let bytes: [u8; 4] = *rest.first_chunk()?;
                if next == 43 && bytes[3] > 0 {
                    return Some(Verdict::PassInTransit);
                }
                if next == 44 {
                    if number(&bytes[2..])? / 8 > 0 {
                        return Some(Verdict::PassFragment);
                    }
                    first_fragment |= bytes[3] % 2 == 1;
                    8
                } else {
                    8 + usize::from(bytes[1]) * 8
                }
            }
            51 => 8 + usize::from(*rest.get(1)?) * 4,
            _ => 8 + usize::from(*rest.get(1)?) * 8,
        };
        next = rest[0];
        // What lies past the end is only missed when it is looked at.
        rest = rest.get(length..).unwrap_or(&[]);
    }
    match (next, first_fragment) {
        (6, _) => {
            let port = number(rest.get(2..)?)?;
            let destination: [u8; 16] = *packet.get(24..)?.first_chunk()?;
            if is_mapped(destination) {
                return Some(Verdict::PassMalformed);
            }
            Some(tcp(serves6(destination, port), first_fragment, rest.get(13)))
        }
        (_, true) => Some(Verdict::PassFragment),
        (58, false) => icmp6(rest),
        _ => Some(Verdict::PassOther),
    }
}

fn icmp6(message: &[u8]) -> Option<Verdict> {
    if ![1, 2, 3, 4].contains(message.first()?) {
        return Some(Verdict::PassOther);
    }
    let quote = message.get(8..)?;
    if quote.first()? / 16 != 6 {
        return Some(Verdict::PassMalformed);
    }
    if *quote.get(6)? != 6 {
        return Some(Verdict::PassOther);
    }
    let port = number(quote.get(40..)?)?;
    let source: [u8; 16] = *quote.get(8..)?.first_chunk()?;
    if is_mapped(source) {
        return Some(Verdict::PassMalformed);
    }
    Some(quoted(serves6(source, port)))
}

fn tcp(served: bool, first_fragment: bool, flags: Option<&u8>) -> Verdict {
    // Of FIN, SYN, RST, PSH and ACK.
    let opens = flags.is_some_and(|flags| [2, 3, 10, 11].contains(&(flags % 32)));
    if served && first_fragment {
        Verdict::DropFragment
    } else if served && opens {
        Verdict::SteerSyn
    } else if served {
        Verdict::SteerTcp
    } else if first_fragment {
        Verdict::PassFragment
    } else {
        Verdict::PassPort
    }
}

fn quoted(served: bool) -> Verdict {
    if served { Verdict::SteerIcmp } else { Verdict::PassPort }
}

fn serves4(address: [u8; 4], port: u16) -> bool {
    port == ANY4_PORT || (port == PORT && address == HOST4)
}

fn serves6(address: [u8; 16], port: u16) -> bool {
    port == ANY6_PORT || (port == PORT && address == HOST6)
}

fn is_mapped(address: [u8; 16]) -> bool {
    address.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])
}

/// The first two bytes, in network order.
fn number(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}
