//! ICMP errors as a router would write them.
#![allow(unreachable_pub, reason = "a module of several test programs")]

use fourwave_wire::FourTuple;

use crate::common::{OUR_MAC, PEER_MAC};

fn sum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let total: u32 = words.sum();
    (!((total & 0xffff) + (total >> 16)) as u16).to_be_bytes()
}

fn ipv4(protocol: u8, source: [u8; 4], destination: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let len = (20 + rest.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(source);
    packet.extend(destination);
    let checksum = sum(&packet);
    packet[10..12].copy_from_slice(&checksum);
    packet.extend(rest);
    packet
}

/// The error that quotes our segment of number `seq`; `tuple` as seen from us. `mtu` is for "too
/// big" alone.
pub fn error(tuple: FourTuple, seq: u32, kind: u8, code: u8, mtu: u16) -> Vec<u8> {
    let (ours, theirs) = (tuple.local.addr.v4().unwrap(), tuple.remote.addr.v4().unwrap());
    let mut quoted = Vec::new();
    quoted.extend(tuple.local.port.to_be_bytes());
    quoted.extend(tuple.remote.port.to_be_bytes());
    quoted.extend(seq.to_be_bytes());
    let [high, low] = mtu.to_be_bytes();
    let mut message = vec![kind, code, 0, 0, 0, 0, high, low];
    message.extend(ipv4(6, ours, theirs, &quoted));
    let checksum = sum(&message);
    message[2..4].copy_from_slice(&checksum);
    let mut frame = Vec::new();
    frame.extend(OUR_MAC.0);
    frame.extend(PEER_MAC.0);
    frame.extend([0x08, 0x00]);
    frame.extend(ipv4(1, [10, 0, 0, 254], ours, &message));
    frame
}
