//! Frames that the ordinary builder does not make: any option bytes, wrong checksums, ICMP errors.

use fourwave_wire::{FourTuple, FrameHead, Sum, build};

use crate::common::{OUR_MAC, PEER_MAC};

/// What is unusual about a segment.
#[derive(Default)]
pub(crate) struct Quirks {
    /// Bytes of an option list, a multiple of four of them, in place of the known options.
    pub(crate) options: Option<Vec<u8>>,
    pub(crate) bad_checksum: bool,
    /// Options of the IPv4 header, whole words of them.
    pub(crate) ip_options: Vec<u8>,
}

/// The frame of a segment.
pub(crate) fn segment(head: &FrameHead, payload: &[u8], quirks: &Quirks) -> Vec<u8> {
    let mut frame = vec![0; 4096];
    let mut head = *head;
    let list = quirks.options.clone().unwrap_or_default();
    if quirks.options.is_some() {
        head.options = fourwave_wire::Options::default();
    }
    let body = [&list[..], payload].concat();
    let len = build(&mut frame, &head, body.len(), |out| out.copy_from_slice(&body))
        .expect("scripts send nothing longer");
    frame.truncate(len);
    let ip_len = if head.tuple.is_v4() { 20 } else { 40 };
    let tcp = head.link.header_len() + ip_len;
    if !list.is_empty() {
        // The list went out as payload: the header grows over it.
        change(&mut frame[tcp..], 12, |offset| offset + ((list.len() as u16 / 4) << 12));
    }
    if quirks.bad_checksum {
        frame[tcp + 16] ^= 0x55;
    }
    if !quirks.ip_options.is_empty() {
        insert_ip_options(&mut frame, head.link.header_len(), &quirks.ip_options);
    }
    frame
}

/// Makes the IPv4 header at `at` longer.
fn insert_ip_options(frame: &mut Vec<u8>, at: usize, list: &[u8]) {
    let end = at + 20 + list.len();
    frame.splice(at + 20..at + 20, list.iter().copied());
    frame[at] += list.len() as u8 / 4;
    let len = (frame.len() - at) as u16;
    frame[at + 2..at + 4].copy_from_slice(&len.to_be_bytes());
    frame[at + 10..at + 12].fill(0);
    let checksum = Sum::new().add_bytes(&frame[at..end]).finish();
    frame[at + 10..at + 12].copy_from_slice(&checksum);
}

/// Changes a word of a TCP header and its checksum with it (RFC 1624).
fn change(tcp: &mut [u8], at: usize, change: impl Fn(u16) -> u16) {
    let word = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (old, sum) = (word(tcp, at), word(tcp, 16));
    let new = change(old);
    let total = u32::from(!sum) + u32::from(!old) + u32::from(new);
    let folded = (total & 0xffff) + (total >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    tcp[at..at + 2].copy_from_slice(&new.to_be_bytes());
    tcp[16..18].copy_from_slice(&(!(folded as u16)).to_be_bytes());
}

/// Type, code and the second word of an ICMP error; of both families where they differ.
pub(crate) fn icmp_kind(name: &str, mtu: u32, is_v4: bool) -> Option<(u8, u8, u32)> {
    Some(match (name, is_v4) {
        ("net-unreachable", true) => (3, 0, 0),
        ("host-unreachable", true) => (3, 1, 0),
        ("protocol-unreachable", true) => (3, 2, 0),
        ("port-unreachable", true) => (3, 3, 0),
        ("too-big", true) => (3, 4, mtu),
        ("source-route-failed", true) => (3, 5, 0),
        ("prohibited", true) => (3, 13, 0),
        ("source-quench", true) => (4, 0, 0),
        ("time-exceeded", true) => (11, 0, 0),
        ("parameter-problem", true) => (12, 0, 0),
        ("net-unreachable", false) => (1, 0, 0),
        ("host-unreachable", false) => (1, 3, 0),
        ("port-unreachable", false) => (1, 4, 0),
        ("prohibited", false) => (1, 1, 0),
        ("too-big", false) => (2, 0, mtu),
        ("time-exceeded", false) => (3, 0, 0),
        ("parameter-problem", false) => (4, 0, 0),
        _ => return None,
    })
}

/// An ICMP error of a router that quotes our segment with number `seq`; `tuple` as seen from us.
pub(crate) fn icmp(tuple: &FourTuple, seq: u32, (kind, code, word): (u8, u8, u32)) -> Vec<u8> {
    let mut quoted = Vec::new();
    quoted.extend(tuple.local.port.to_be_bytes());
    quoted.extend(tuple.remote.port.to_be_bytes());
    quoted.extend(seq.to_be_bytes());
    let ours = tuple.local.addr;
    let theirs = tuple.remote.addr;
    let mut message = vec![kind, code, 0, 0];
    message.extend(word.to_be_bytes());
    let mut frame = [&OUR_MAC.0[..], &PEER_MAC.0[..]].concat();
    match (ours.v4(), theirs.v4()) {
        (Some(ours), Some(theirs)) => {
            message.extend(ipv4(6, ours, theirs, &quoted));
            let checksum = Sum::new().add_bytes(&message).finish();
            message[2..4].copy_from_slice(&checksum);
            frame.extend([0x08, 0x00]);
            frame.extend(ipv4(1, [10, 0, 0, 254], ours, &message));
        }
        _ => {
            let router = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 254];
            message.extend(ipv6(6, ours.0, theirs.0, &quoted));
            let pseudo = [&router[..], &ours.0, &[0, 0, 0, message.len() as u8, 0, 0, 0, 58]];
            let checksum = Sum::new().add_bytes(&pseudo.concat()).add_bytes(&message).finish();
            message[2..4].copy_from_slice(&checksum);
            frame.extend([0x86, 0xdd]);
            frame.extend(ipv6(58, router, ours.0, &message));
        }
    }
    frame
}

fn ipv4(protocol: u8, from: [u8; 4], to: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let len = (20 + rest.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    let checksum = Sum::new().add_bytes(&packet).finish();
    packet[10..12].copy_from_slice(&checksum);
    packet.extend(rest);
    packet
}

fn ipv6(next: u8, from: [u8; 16], to: [u8; 16], rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((rest.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(from);
    packet.extend(to);
    packet.extend(rest);
    packet
}
