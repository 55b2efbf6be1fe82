//! ICMP errors about what a shard has sent (RFC 5927).

mod common;

use common::{App, OUR_MAC, PEER_MAC, Peer, World, endpoint, small};
use fourwave_tcp::Error;
use fourwave_wire::FourTuple;

const DESTINATION_UNREACHABLE: u8 = 3;
const HOST: u8 = 1;
const PORT: u8 = 3;

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

/// The error that quotes our segment of number `seq`; `tuple` as seen from us.
fn error(tuple: FourTuple, seq: u32, kind: u8, code: u8) -> Vec<u8> {
    let (ours, theirs) = (tuple.local.addr.v4().unwrap(), tuple.remote.addr.v4().unwrap());
    let mut quoted = Vec::new();
    quoted.extend(tuple.local.port.to_be_bytes());
    quoted.extend(tuple.remote.port.to_be_bytes());
    quoted.extend(seq.to_be_bytes());
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
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

fn take(world: &mut World, frame: &[u8]) {
    world.shard.handle_frame(world.now, frame, &mut world.host);
    world.round();
}

#[test]
fn an_unreachable_peer_ends_its_handshake_if_the_quote_is_right() {
    let mut world = World::new(small());
    world.listen(4);
    let mut peer = Peer::new(false, 7);
    peer.half_open(&mut world);
    let (tuple, iss) = (peer.tuple.flipped(), peer.ack - 1);
    take(&mut world, &error(tuple, iss + 1, DESTINATION_UNREACHABLE, HOST));
    assert_eq!(world.shard.counters().icmp_out_of_window, 1);
    take(&mut world, &error(tuple, iss, DESTINATION_UNREACHABLE, PORT));
    assert_eq!(world.shard.gauges().syn_received, 1, "as Linux, no error for a handshake");
    take(&mut world, &error(tuple, iss, DESTINATION_UNREACHABLE, HOST));
    world.assert_empty();
    take(&mut world, &error(tuple, iss, DESTINATION_UNREACHABLE, HOST));
    assert_eq!(world.shard.counters().icmp_no_connection, 1);
}

#[test]
fn an_error_reaches_the_connection_it_quotes() {
    let mut world = World::new(small());
    let remote = endpoint("10.0.0.2:443");
    let connected = world.shard.connect(world.now, 0, None, remote, &mut world.host);
    let (conn, tuple) = connected.unwrap();
    world.host.apps.0.push(App { conn: Some(conn), ..App::default() });
    let syn = world.round().remove(0);
    take(&mut world, &error(tuple, syn.head.seq.wrapping_add(9), DESTINATION_UNREACHABLE, PORT));
    assert!(!world.app(0).closed);
    take(&mut world, &error(tuple, syn.head.seq, DESTINATION_UNREACHABLE, PORT));
    assert_eq!(world.app(0).error, Some(Error::Refused));
    world.assert_empty();
}
