//! What routers tell of a path, for every connection that takes it.

mod common;
#[path = "common/icmp.rs"]
mod icmp;

use common::{App, Peer, SECONDS, World, endpoint, small};
use fourwave_stack::Config;
use fourwave_wire::FourTuple;

/// IPv4 and TCP headers.
const HEADERS: usize = 40;

/// Writes 1300 bytes; the sizes of the segments that bring them.
fn write(world: &mut World, app: usize) -> Vec<usize> {
    world.write(app, &[7; 1300]);
    world.round().iter().map(|seg| seg.payload.len()).collect()
}

/// A router says that `tuple`'s segment with number `seq` was larger than `mtu`.
fn too_big(world: &mut World, tuple: FourTuple, seq: u32, mtu: u16) {
    let frame = icmp::error(tuple, seq, 3, 4, mtu);
    world.shard.handle_frame(world.now, &frame, &mut world.host);
}

fn connect(world: &mut World, app: usize) -> Peer {
    let remote = endpoint("10.0.0.2:443");
    let connected = world.shard.connect(world.now, app as u64, None, remote, &mut world.host);
    let (conn, tuple) = connected.unwrap();
    world.host.apps.0.push(App { conn: Some(conn), ..App::default() });
    let syn = world.round().remove(0);
    assert_eq!(syn.head.options.mss, Some(1460), "what we take is not what the path takes");
    let mut peer = Peer::new(false, 1);
    peer.tuple = tuple.flipped();
    peer.take(&syn);
    let mut answer = peer.seg(fourwave_wire::Flags::SYN | fourwave_wire::Flags::ACK, &[]);
    answer.head.options.mss = Some(1460);
    peer.seq += 1;
    assert_eq!(world.exchange(&answer).len(), 1);
    peer
}

#[test]
fn one_connection_learns_for_all_to_the_same_peer() {
    let mut world = World::new(small());
    world.listen(8);
    let mut peers: Vec<Peer> = (1..=2).map(|port| Peer::new(false, port)).collect();
    for peer in &mut peers {
        let mut syn = peer.syn();
        syn.head.options.mss = Some(1460);
        peer.half_open(&mut world);
        assert!(world.exchange(&peer.ack()).is_empty());
    }
    assert_eq!(write(&mut world, 0), [1300]);
    assert_eq!(write(&mut world, 1), [1300]);
    let tuple = peers[0].tuple.flipped();
    // Of what is not in flight nothing is learned (RFC 5927).
    too_big(&mut world, tuple, peers[0].ack.wrapping_sub(5), 1000);
    assert!(world.round().is_empty());
    too_big(&mut world, tuple, peers[0].ack, 1000);
    let again: Vec<usize> = world.round().iter().map(|seg| seg.payload.len()).collect();
    assert_eq!(again, [1000 - HEADERS, 1300 - (1000 - HEADERS)]);
    // The other connection, from its next segment on: what it has in flight goes again as well.
    world.write(1, &[7; 1300]);
    assert!(world.round().iter().all(|seg| seg.payload.len() <= 1000 - HEADERS));
    // New ones, in and out.
    let mut third = Peer::new(false, 3);
    third.open(&mut world);
    assert_eq!(write(&mut world, 2)[0], 1000 - HEADERS);
    connect(&mut world, 3);
    assert_eq!(write(&mut world, 3)[0], 1000 - HEADERS);
    // Another peer's path is another one.
    let mut other = Peer::new(true, 4);
    other.open(&mut world);
    let app = world.host.apps.0.len() - 1;
    assert_eq!(write(&mut world, app), [1300]);
}

#[test]
fn what_was_learned_is_forgotten() {
    let mut world = World::new(Config { mtu_expires: 2 * SECONDS, ..small() });
    let mut peer = connect(&mut world, 0);
    assert_eq!(write(&mut world, 0), [1300]);
    too_big(&mut world, peer.tuple.flipped(), peer.ack, 700);
    assert_eq!(world.round()[0].payload.len(), 700 - HEADERS);
    peer.ack = peer.ack.wrapping_add(1300);
    assert!(world.exchange(&peer.ack()).is_empty());
    world.now += SECONDS;
    assert_eq!(write(&mut world, 0)[0], 700 - HEADERS);
    peer.ack = peer.ack.wrapping_add(1300);
    assert!(world.exchange(&peer.ack()).is_empty());
    world.now += SECONDS;
    assert_eq!(write(&mut world, 0), [1300]);
}

#[test]
fn a_route_that_shrinks_is_followed() {
    let mut world = World::new(small());
    let mut peer = connect(&mut world, 0);
    assert_eq!(write(&mut world, 0), [1300]);
    peer.ack = peer.ack.wrapping_add(1300);
    assert!(world.exchange(&peer.ack()).is_empty());
    let path = world.host.path.unwrap();
    world.host.path = Ok(fourwave_stack::Path { mtu: 600, ..path });
    world.host.epoch += 1;
    assert_eq!(write(&mut world, 0)[0], 600 - HEADERS);
}
