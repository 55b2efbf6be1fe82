//! `TCP_DEFER_ACCEPT`: a connection is accepted when its data is there.

mod common;

use std::sync::Arc;

use common::{Peer, SECONDS, World, small};
use fourwave_stack::ListenerShared;
use fourwave_wire::Flags;

const SYN_ACK: Flags = Flags::SYN.union(Flags::ACK);

fn deferring(seconds: u32) -> (World, Arc<ListenerShared>) {
    let mut world = World::new(small());
    let shared = world.listen(8);
    shared.set_defer_accept(seconds);
    (world, shared)
}

#[test]
fn an_ack_without_data_is_ignored_and_data_completes() {
    let (mut world, shared) = deferring(10);
    let mut peer = Peer::new(false, 1);
    peer.half_open(&mut world);
    for dropped in 1..=2 {
        assert!(world.exchange(&peer.ack()).is_empty());
        assert_eq!((shared.syn_len(), shared.accept_len()), (1, 0));
        assert_eq!(world.shard.counters().defer_accept_drops, dropped);
    }
    world.exchange(&peer.data(b"request"));
    assert_eq!((shared.syn_len(), shared.accept_len()), (0, 1));
    assert_eq!(world.app(0).received, b"request");
}

#[test]
fn a_fin_completes_too() {
    let (mut world, shared) = deferring(10);
    let mut peer = Peer::new(false, 1);
    peer.half_open(&mut world);
    world.exchange(&peer.fin());
    assert_eq!(shared.accept_len(), 1);
}

/// The peer has the SYN-ACK: none is sent until the deferring is about to end (10 s become 15:
/// four timeouts). The last one makes the peer send its ACK again, and then that is enough.
#[test]
fn a_silent_peer_is_accepted_in_the_end() {
    let (mut world, shared) = deferring(10);
    let mut peer = Peer::new(false, 1);
    peer.half_open(&mut world);
    world.exchange(&peer.ack());
    let sent = world.pass(14 * SECONDS);
    let times: Vec<u64> = sent.iter().map(|(at, _)| at / 1_000).collect();
    assert_eq!(times, []);
    let sent = world.pass(2 * SECONDS);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0 / 1_000, sent[0].1.head.flags), (1, SYN_ACK));
    world.exchange(&peer.ack());
    assert_eq!((shared.syn_len(), shared.accept_len()), (0, 1));
    assert_eq!(world.shard.counters().defer_accept_drops, 1);
    // Nothing was measured in the time that the data took.
    let conn = world.conn(0);
    assert_eq!(world.shard.tcb(conn).unwrap().srtt(), None);
}

/// Without any ACK it is a handshake like others; with one that no data follows it lasts as long
/// as the deferring, even beyond the retries of others.
#[test]
fn how_long_a_handshake_lasts() {
    let (mut world, _) = deferring(10);
    Peer::new(false, 1).half_open(&mut world);
    assert_eq!(world.pass(62 * SECONDS).len(), 5);
    world.pass(2 * SECONDS);
    world.assert_empty();

    let (mut world, _) = deferring(127);
    let mut peer = Peer::new(false, 1);
    peer.half_open(&mut world);
    world.exchange(&peer.ack());
    // Seven timeouts: 1 + 2 + … + 64 s, and 120 s for the answer to the SYN-ACK sent then.
    assert!(world.pass(126 * SECONDS).is_empty());
    assert_eq!(world.pass(2 * SECONDS).len(), 1);
    assert!(world.pass(118 * SECONDS).is_empty());
    assert_eq!(world.shard.gauges().syn_received, 1);
    world.pass(2 * SECONDS);
    assert_eq!(world.shard.counters().syn_ack_timeouts, 1);
    world.assert_empty();
}

#[test]
fn switched_off_it_is_over_at_once() {
    let (mut world, shared) = deferring(10);
    let mut peer = Peer::new(false, 1);
    peer.half_open(&mut world);
    world.exchange(&peer.ack());
    shared.set_defer_accept(0);
    world.exchange(&peer.ack());
    assert_eq!(shared.accept_len(), 1);
}
