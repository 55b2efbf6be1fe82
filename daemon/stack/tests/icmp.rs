//! ICMP errors about what a shard has sent (RFC 5927).

mod common;
#[path = "common/icmp.rs"]
mod icmp;

use common::{App, Peer, World, endpoint, small};
use fourwave_tcp::Error;

const DESTINATION_UNREACHABLE: u8 = 3;
const HOST: u8 = 1;
const PORT: u8 = 3;

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
    take(&mut world, &icmp::error(tuple, iss + 1, DESTINATION_UNREACHABLE, HOST, 0));
    assert_eq!(world.shard.counters().icmp_out_of_window, 1);
    take(&mut world, &icmp::error(tuple, iss, DESTINATION_UNREACHABLE, PORT, 0));
    assert_eq!(world.shard.gauges().syn_received, 1, "as Linux, no error for a handshake");
    take(&mut world, &icmp::error(tuple, iss, DESTINATION_UNREACHABLE, HOST, 0));
    world.assert_empty();
    take(&mut world, &icmp::error(tuple, iss, DESTINATION_UNREACHABLE, HOST, 0));
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
    take(
        &mut world,
        &icmp::error(tuple, syn.head.seq.wrapping_add(9), DESTINATION_UNREACHABLE, PORT, 0),
    );
    assert!(!world.app(0).closed);
    take(&mut world, &icmp::error(tuple, syn.head.seq, DESTINATION_UNREACHABLE, PORT, 0));
    assert_eq!(world.app(0).error, Some(Error::Refused));
    world.assert_empty();
}
