//! Challenge ACKs and their limit over all connections.

mod common;

use common::{Peer, SECONDS, World, small};
use fourwave_stack::Config;

/// Inexact resets to ten connections: how many are challenged.
fn challenged(limit: Option<u32>) -> (usize, World) {
    let mut world = World::new(Config { challenge_ack_limit: limit, ..small() });
    world.listen(64);
    let mut peers: Vec<Peer> = (0..10).map(|port| Peer::new(port % 2 == 0, 100 + port)).collect();
    for peer in &mut peers {
        peer.open(&mut world);
    }
    let mut sent = 0;
    for peer in &peers {
        for _ in 0..2 {
            let inexact = Peer { seq: peer.seq + 9, ..peer.clone() };
            let answers = world.exchange(&inexact.rst());
            assert!(answers.iter().all(|ack| ack.head.seq == peer.ack));
            sent += answers.len();
        }
    }
    assert_eq!(world.shard.gauges().connections, 10);
    (sent, world)
}

#[test]
fn each_connection_has_its_own_limit() {
    let (sent, world) = challenged(None);
    assert_eq!((sent, world.shard.counters().challenge_acks), (10, 10));
    assert_eq!(world.shard.counters().challenge_acks_limited, 0);
}

#[test]
fn all_connections_together_have_another() {
    let (sent, world) = challenged(Some(2));
    assert!((1..=2).contains(&sent), "{sent}");
    let counters = world.shard.counters();
    assert_eq!(counters.challenge_acks, sent as u64);
    assert_eq!(counters.challenge_acks_limited, 10 - sent as u64);
    // Half of 2 to half as much again; of 0 none.
    assert_eq!(challenged(Some(0)).0, 0);
}

#[test]
fn acknowledgements_of_data_are_no_challenges() {
    let mut world = World::new(Config { challenge_ack_limit: Some(0), ..small() });
    world.listen(4);
    let mut peer = Peer::new(false, 1);
    peer.open(&mut world);
    // Both in one round: an ACK is due for data behind a hole when the reset comes.
    let ahead = Peer { seq: peer.seq + 9, ..peer.clone() };
    world.inject(&ahead.data(b"hello"));
    world.inject(&ahead.rst());
    assert_eq!(world.round()[0].head.ack, peer.seq);
    // A delayed one stays due.
    let mut peer = Peer::new(true, 2);
    peer.open(&mut world);
    world.inject(&peer.data(b"x"));
    peer.seq += 1;
    world.inject(&Peer { seq: peer.seq + 9, ..peer.clone() }.rst());
    assert_eq!(world.shard.counters().challenge_acks_limited, 1);
    assert_eq!(world.pass(SECONDS / 10).len(), 1);
    // Nor is the answer to a segment outside the window.
    let outside = Peer { seq: peer.seq.wrapping_sub(50), ..peer.clone() };
    world.now += SECONDS;
    assert_eq!(world.exchange(&outside.ack()).len(), 1);
    assert_eq!(world.shard.counters().challenge_acks, 0);
}
