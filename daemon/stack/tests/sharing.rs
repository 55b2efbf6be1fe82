//! Listeners that share an address and port (`SO_REUSEPORT`), and what becomes of the queues of
//! one that ends.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{Peer, SECONDS, World, endpoint, shown, small};
use fourwave_stack::{Config, Dropped, ListenError, ListenerId, ListenerShared, Reason};
use fourwave_wire::Flags;

/// As many listeners of port 80 as there are backlogs.
fn sharing<const N: usize>(
    config: Config,
    backlogs: [u32; N],
) -> (World, [Arc<ListenerShared>; N]) {
    let mut world = World::new(config);
    let listeners = backlogs.map(|backlog| {
        let shared = ListenerShared::new(backlog);
        shared.set_reuse_port(true);
        shared
    });
    for (id, shared) in (0..).zip(&listeners) {
        world.shard.listen(id, endpoint("[::]:80"), false, shared.clone()).unwrap();
    }
    (world, listeners)
}

/// A peer whose flow listener `id` takes, with its handshake done.
fn open_at(world: &mut World, id: ListenerId, ports: &mut impl Iterator<Item = u16>) -> Peer {
    loop {
        let mut peer = Peer::new(false, ports.next().unwrap());
        let app = peer.open(world);
        if world.app(app).listener == Some(id) {
            return peer;
        }
        let conn = world.conn(app);
        world.shard.accepted(world.app(app).listener.unwrap(), conn);
        world.shard.abort(conn).unwrap();
        world.round();
    }
}

#[test]
fn all_must_have_set_it() {
    let (mut world, _) = sharing(small(), [1]);
    let mut listen = |id, local, reuse_port| {
        let shared = ListenerShared::new(1);
        shared.set_reuse_port(reuse_port);
        world.shard.listen(id, endpoint(local), false, shared)
    };
    assert_eq!(listen(1, "[::]:80", false), Err(ListenError::InUse));
    assert_eq!(listen(1, "[::]:80", true), Ok(()));
    assert_eq!(listen(2, "[::]:81", false), Ok(()));
    assert_eq!(listen(3, "[::]:81", true), Err(ListenError::InUse));
}

#[test]
fn flows_are_spread_and_each_stays_with_its_listener() {
    let (mut world, listeners) = sharing(Config { connections: 512, ..small() }, [400; 4]);
    for port in 1..=256 {
        let mut peer = Peer::new(port % 2 == 0, port);
        peer.half_open(&mut world);
        // A repeated SYN and the last ACK come to the same one.
        world.exchange(&peer.ack());
    }
    let lengths = listeners.each_ref().map(|shared| shared.accept_len());
    assert_eq!(lengths.iter().sum::<u32>(), 256);
    // 64 each, give or take five standard deviations.
    assert!(lengths.iter().all(|length| (30..=98).contains(length)), "{lengths:?}");
}

#[test]
fn a_more_specific_listener_still_wins() {
    let (mut world, listeners) = sharing(small(), [8; 2]);
    let specific = ListenerShared::new(8);
    world.shard.listen(2, endpoint("10.0.0.1:80"), false, specific.clone()).unwrap();
    for port in 1..=8 {
        Peer::new(false, port).open(&mut world);
    }
    assert_eq!(specific.accept_len(), 8);
    assert!(listeners.iter().all(|shared| shared.accept_len() == 0));
}

#[test]
fn handshakes_go_on_at_a_partner() {
    let (mut world, [first, second]) = sharing(small(), [16; 2]);
    let mut peers: Vec<Peer> = (1..=16).map(|port| Peer::new(false, port)).collect();
    for peer in &mut peers {
        peer.half_open(&mut world);
    }
    let at_first = first.syn_len();
    assert!((1..16).contains(&at_first));
    world.shard.unlisten(world.now, 0);
    assert_eq!((first.syn_len(), second.syn_len()), (0, 16));
    for peer in &peers {
        assert!(world.exchange(&peer.ack()).is_empty());
    }
    assert_eq!((second.syn_len(), second.accept_len()), (0, 16));
    assert_eq!(world.shard.counters().migrations, u64::from(at_first));
}

/// Old ones count as old at their new listener, and time out there.
#[test]
fn handshakes_that_moved_keep_their_timers() {
    let (mut world, [_, second]) = sharing(small(), [16; 2]);
    for port in 1..=8 {
        Peer::new(false, port).half_open(&mut world);
    }
    world.pass(SECONDS);
    world.shard.unlisten(world.now, 0);
    assert_eq!(second.syn_len(), 8);
    world.pass(63 * SECONDS);
    assert_eq!(second.syn_len(), 0);
    world.assert_empty();
}

#[test]
fn connections_are_moved_while_there_are_places() {
    let (mut world, [first, second]) = sharing(small(), [8, 1]);
    let mut ports = 1..;
    let peers: Vec<Peer> = (0..3).map(|_| open_at(&mut world, 0, &mut ports)).collect();
    assert_eq!((first.accept_len(), second.accept_len()), (3, 0));
    let conn_of = |world: &World, peer: &Peer| {
        let mut apps = world.host.apps.0.iter();
        apps.find(|app| app.tuple == Some(peer.tuple.flipped())).unwrap().conn.unwrap()
    };
    let conns: Vec<_> = peers.iter().map(|peer| conn_of(&world, peer)).collect();
    let base = world.host.apps.0.len() as u64;
    let moved: Vec<bool> = (base..)
        .zip(&conns)
        .map(|(app, &conn)| {
            assert_eq!(world.shard.partner(0, conn), Some(1));
            world.shard.move_waiting(world.now, conn, 1, app)
        })
        .collect();
    assert_eq!(moved, [true, true, false], "backlog + 1 fit");
    assert_eq!((first.accept_len(), second.accept_len()), (1, 2));
    // What had no place is reset with its listener.
    world.host.apps.0.extend((0..2).map(|_| common::App::default()));
    world.shard.unlisten(world.now, 0);
    let sent = world.round();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].head.tuple, peers[2].tuple);
    assert!(sent[0].head.flags.contains(Flags::RST));
    // What comes now is the new application's.
    world.exchange(&peers[0].data(b"hello"));
    assert_eq!(world.app(base as usize).received, b"hello");
    world.shard.accepted(1, conns[0]);
    assert_eq!(second.accept_len(), 1);
    assert!(!world.shard.move_waiting(world.now, conns[0], 1, 0), "it waits no more");
    let counters = world.shard.counters();
    let counted = [counters.migrations, counters.migrate_failures, counters.unaccepted_resets];
    assert_eq!(counted, [2, 1, 1]);
    let refused = world.shard.samples(Reason::Other(Dropped::MigrateReqFailure)).next().unwrap();
    assert_eq!(refused.tuple, peers[2].tuple.flipped());
    for conn in &conns[..2] {
        world.shard.abort(*conn).unwrap();
    }
    world.round();
    assert!(world.shard.is_empty());
}

#[test]
fn the_last_of_them_resets() {
    let (mut world, _) = sharing(small(), [8; 2]);
    let mut half = Peer::new(false, 1);
    half.half_open(&mut world);
    world.shard.unlisten(world.now, 0);
    world.shard.unlisten(world.now, 1);
    assert_eq!(shown(&world.exchange(&half.ack())), [format!("R seq {} ack 0", half.ack)]);
    world.assert_empty();
}

/// A cookie's ACK may come to another listener than its SYN, once there are more or fewer.
#[test]
fn a_cookie_is_good_at_every_listener_of_the_address() {
    let (mut world, _) = sharing(small(), [0; 2]);
    let mut seen = BTreeSet::new();
    let mut peers: Vec<Peer> = (1..=12).map(|port| Peer::new(false, port)).collect();
    for peer in &mut peers {
        peer.half_open(&mut world);
    }
    assert_eq!(world.shard.counters().syn_cookies_sent, 10);
    world.shard.unlisten(world.now, 0);
    let late = ListenerShared::new(16);
    late.set_reuse_port(true);
    world.shard.listen(2, endpoint("[::]:80"), false, late).unwrap();
    for peer in &peers {
        world.exchange(&peer.ack());
        if let Some(app) = world.host.apps.0.last() {
            seen.insert(app.listener.unwrap());
        }
    }
    assert_eq!(seen, BTreeSet::from([1, 2]));
    assert_eq!(world.shard.counters().syn_cookies_failed, 0);
}
