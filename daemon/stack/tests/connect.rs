//! Active opens: ports, paths, failures.

mod common;

use std::sync::Arc;

use common::{App, MILLIS, PEER_MAC, Peer, ROUTER_MAC, SECONDS, World, endpoint, shown, small};
use fourwave_stack::{Config, ConnectError, Owners, PathError, Rss, owner};
use fourwave_tcp::Error;
use fourwave_wire::{Addr, Endpoint, Flags, Timestamps};

/// Connects as a new application to 10.0.0.2:443 or fd00::2:443.
fn connect(world: &mut World, local: Option<Endpoint>, v6: bool) -> Result<Peer, ConnectError> {
    let remote = endpoint(if v6 { "[fd00::2]:443" } else { "10.0.0.2:443" });
    let app = world.host.apps.0.len() as u64;
    let (conn, tuple) = world.shard.connect(world.now, app, local, remote, &mut world.host)?;
    world.host.apps.0.push(App { conn: Some(conn), tuple: Some(tuple), ..App::default() });
    let mut peer = Peer::new(v6, 443);
    peer.tuple = tuple.flipped();
    Ok(peer)
}

#[test]
fn a_connection_is_opened_and_used() {
    for v6 in [false, true] {
        let mut world = World::new(small());
        let mut peer = connect(&mut world, None, v6).unwrap();
        assert!(small().local_ports.contains(&peer.tuple.remote.port));
        let sent = world.round();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].head.flags, Flags::SYN);
        assert_eq!(sent[0].head.link.dst, ROUTER_MAC);
        assert_eq!(sent[0].head.options.mss, Some(if v6 { 1440 } else { 1460 }));
        peer.take(&sent[0]);
        let mut syn_ack = peer.seg(Flags::SYN | Flags::ACK, &[]);
        syn_ack.head.options.mss = Some(1460);
        peer.seq += 1;
        let sent = world.exchange(&syn_ack);
        assert_eq!(shown(&sent), [format!(". seq {} ack {}", peer.ack, peer.seq)]);
        world.write(0, b"hello");
        let sent = world.round();
        assert_eq!(sent[0].payload, b"hello");
        assert_eq!(world.shard.counters().active_opens, 1);
        world.shard.abort_all();
        assert_eq!(world.round().len(), 1);
        world.assert_empty();
    }
}

#[test]
fn what_is_written_early_goes_out_with_the_last_ack() {
    let mut world = World::new(small());
    let mut peer = connect(&mut world, None, false).unwrap();
    world.write(0, b"early");
    let sent = world.round();
    assert_eq!((sent.len(), sent[0].payload.len()), (1, 0));
    peer.take(&sent[0]);
    let syn_ack = peer.seg(Flags::SYN | Flags::ACK, &[]);
    peer.seq += 1;
    let sent = world.exchange(&syn_ack);
    assert_eq!(shown(&sent), [format!("P. seq {} ack {} len 5", peer.ack, peer.seq)]);
}

#[test]
fn ports_are_owned_distinct_and_run_out_at_once() {
    let config = Config { worker: 1, workers: 3, ..small() };
    let mut world = World::new(config);
    let mut taken = std::collections::BTreeSet::new();
    let error = loop {
        match connect(&mut world, None, false) {
            Ok(peer) => assert!(taken.insert(peer.tuple.remote.port)),
            Err(error) => break error,
        }
    };
    assert_eq!(error, ConnectError::NoPort);
    assert_eq!(world.shard.counters().no_local_port, 1);
    // About a third of 64 ports are this worker's; all of them and no other were used.
    assert!((10..35).contains(&taken.len()), "{}", taken.len());
    // Another peer address has its ports to itself.
    let remote = endpoint("10.0.0.3:443");
    let other = world.shard.connect(world.now, 0, None, remote, &mut world.host);
    assert!(other.is_ok() || taken.len() == 64);
}

#[test]
fn the_last_free_port_is_found_at_once_and_none_is_refused() {
    const PORTS: u16 = 2_048;
    let local_ports = 20_000..=20_000 + PORTS - 1;
    let config = Config { connections: u32::from(PORTS) + 1, local_ports, ..small() };
    let mut world = World::new(config);
    let mut conns = std::collections::BTreeMap::new();
    for _ in 0..PORTS {
        let peer = connect(&mut world, None, false).unwrap();
        let conn = world.conn(world.host.apps.0.len() - 1);
        assert!(conns.insert(peer.tuple.remote.port, conn).is_none());
    }
    for _ in 0..20 {
        assert_eq!(connect(&mut world, None, false).err(), Some(ConnectError::NoPort));
        let (port, conn) = conns.pop_first().unwrap();
        world.shard.abort(conn).unwrap();
        world.round();
        let peer = connect(&mut world, None, false).unwrap();
        assert_eq!(peer.tuple.remote.port, port);
        conns.insert(port, world.conn(world.host.apps.0.len() - 1));
        // One that was tried already comes last.
        let first = conns.remove(&port).unwrap();
        conns.insert(port + PORTS, first);
    }
    assert_eq!(world.shard.counters().no_local_port, 20);
    world.shard.abort_all();
    world.round();
    world.assert_empty();
}

#[test]
fn a_port_that_a_listener_uses_towards_the_peer_is_passed_over() {
    let mut world = World::new(Config { local_ports: 20_000..=20_001, ..small() });
    let shared = fourwave_stack::ListenerShared::new(4);
    world.shard.listen(0, endpoint("[::]:20000"), false, shared).unwrap();
    // The peer has connected from the very port that is connected to below.
    let mut peer = Peer::new(false, 443);
    peer.tuple = fourwave_wire::FourTuple {
        local: endpoint("10.0.0.2:443"),
        remote: endpoint("10.0.0.1:20000"),
    };
    assert_eq!(world.exchange(&peer.seg(Flags::SYN, &[])).len(), 1);
    assert_eq!(connect(&mut world, None, false).unwrap().tuple.remote.port, 20_001);
    assert_eq!(connect(&mut world, None, false).err(), Some(ConnectError::NoPort));
}

#[test]
fn owners_agree_with_the_ports_chosen() {
    let mut seed = 77u64;
    let keys = fourwave_stack::Keys::generate(|| {
        // As World::new draws them.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed
    });
    for worker in 0..4 {
        let mut world = World::new(Config { worker, workers: 4, ..small() });
        for v6 in [false, true] {
            let peer = connect(&mut world, None, v6).unwrap();
            assert_eq!(owner(&keys, &peer.tuple.flipped(), 4), worker);
        }
    }
}

#[test]
fn ports_bring_replies_to_the_worker_whose_queue_they_arrive_on() {
    let key: Vec<u8> = (7..47).collect();
    let rss = Arc::new(Rss::new(&key, (0..128).map(|place| place % 4).collect()).unwrap());
    for worker in 0..4 {
        let owners = Owners::Rss(Arc::clone(&rss));
        let mut world = World::new(Config { worker, workers: 4, owners, ..small() });
        for v6 in [false, true] {
            let mut count = 0;
            while let Ok(peer) = connect(&mut world, None, v6) {
                assert_eq!(rss.worker(&peer.tuple.flipped()), worker);
                count += 1;
            }
            // About a quarter of 64, and no other worker's.
            assert!((4..32).contains(&count), "{count}");
        }
        world.shard.abort_all();
        world.round();
        world.assert_empty();
    }
}

#[test]
fn a_given_local_port_is_taken_or_refused() {
    let mut world = World::new(small());
    let local = endpoint("10.0.0.1:5000");
    let peer = connect(&mut world, Some(local), false).unwrap();
    assert_eq!(peer.tuple.remote, local);
    assert_eq!(connect(&mut world, Some(local), false).err(), Some(ConnectError::InUse));
    let any = Endpoint { addr: Addr::UNSPECIFIED, port: 5001 };
    let peer = connect(&mut world, Some(any), true).unwrap();
    assert_eq!(peer.tuple.remote, endpoint("[fd00::1]:5001"));
    // Families do not mix.
    assert_eq!(connect(&mut world, Some(local), true).err(), Some(ConnectError::BadAddress));
    let mut others = 0;
    for port in 6000..6020 {
        let mut world = World::new(Config { worker: 0, workers: 2, ..small() });
        let local = Endpoint { port, ..local };
        match connect(&mut world, Some(local), false) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error, ConnectError::NotOwner);
                others += 1;
            }
        }
    }
    assert!((3..17).contains(&others), "{others}");
}

#[test]
fn bad_addresses_no_route_and_a_full_table_are_refused() {
    let mut world = World::new(Config { connections: 1, ..small() });
    for remote in ["127.0.0.1:80", "0.0.0.0:80", "224.0.0.1:80", "10.0.0.2:0", "[::1]:80"] {
        let result = world.shard.connect(world.now, 0, None, endpoint(remote), &mut world.host);
        assert_eq!(result.err(), Some(ConnectError::BadAddress), "{remote}");
    }
    let path = std::mem::replace(&mut world.host.path, Err(PathError::NoRoute));
    assert_eq!(connect(&mut world, None, false).err(), Some(ConnectError::NoRoute));
    world.host.path = path;
    connect(&mut world, None, false).unwrap();
    assert_eq!(connect(&mut world, None, false).err(), Some(ConnectError::Full));
}

#[test]
fn a_refused_connection_says_so() {
    let mut world = World::new(small());
    let mut peer = connect(&mut world, None, false).unwrap();
    peer.take(&world.round()[0]);
    peer.seq = 0;
    assert!(world.exchange(&peer.seg(Flags::RST | Flags::ACK, &[])).is_empty());
    assert_eq!(world.app(0).error, Some(Error::Refused));
    world.assert_empty();
}

#[test]
fn the_syn_waits_for_the_next_hop_and_goes_out_when_it_is_known() {
    let mut world = World::new(small());
    let path = world.host.path;
    let source = world.host.locals[0];
    world.host.path = Err(PathError::Unresolved { source, mtu: 1500 });
    connect(&mut world, None, false).unwrap();
    assert!(world.pass(100 * MILLIS).is_empty());
    assert!(!world.shard.has_output());
    // Something else has changed: still nothing.
    world.host.epoch += 1;
    assert!(world.round().is_empty());
    world.host.path = path;
    world.host.epoch += 1;
    let sent = world.round();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].head.flags, Flags::SYN);
    // Its retransmission has its own time.
    let sent = world.pass(1_100 * MILLIS);
    assert_eq!(sent.len(), 1);
}

#[test]
fn a_next_hop_that_never_answers_is_unreachable() {
    let mut world = World::new(small());
    let source = world.host.locals[0];
    world.host.path = Err(PathError::Unresolved { source, mtu: 1500 });
    connect(&mut world, None, false).unwrap();
    assert!(world.pass(2_900 * MILLIS).is_empty());
    assert!(!world.app(0).closed);
    assert!(world.pass(200 * MILLIS).is_empty());
    assert_eq!(world.app(0).error, Some(Error::HostUnreachable));
    world.assert_empty();
}

#[test]
fn closing_before_the_next_hop_is_known_leaves_nothing() {
    let mut world = World::new(small());
    let source = world.host.locals[0];
    world.host.path = Err(PathError::Unresolved { source, mtu: 1500 });
    connect(&mut world, None, true).unwrap();
    world.round();
    let conn = world.conn(0);
    world.shard.close(world.now, conn).unwrap();
    assert!(world.round().is_empty());
    world.assert_empty();
}

#[test]
fn an_established_connection_keeps_its_way_while_the_next_hop_is_resolved_again() {
    let mut world = World::new(small());
    world.listen(4);
    let mut peer = Peer::new(false, 1);
    let app = peer.open(&mut world);
    let source = world.host.locals[0];
    world.host.path = Err(PathError::Unresolved { source, mtu: 1500 });
    world.host.epoch += 1;
    world.write(app, b"x");
    let sent = world.round();
    assert_eq!(sent.len(), 1);
    assert_ne!(sent[0].head.link.dst, PEER_MAC, "the route's, learned at the SYN");
    assert_eq!(sent[0].head.link.dst, ROUTER_MAC);
}

#[test]
fn full_room_keeps_output_for_the_next_flush() {
    let mut world = World::new(small());
    for _ in 0..3 {
        connect(&mut world, None, false).unwrap();
    }
    world.host.tx_room = 2;
    assert!(!world.shard.flush(world.now, &mut world.host));
    assert!(world.shard.has_output());
    assert_eq!(world.drain().len(), 2);
    world.host.tx_room = 9;
    assert!(world.shard.flush(world.now, &mut world.host));
    assert_eq!(world.drain().len(), 1);
    assert!(!world.shard.has_output());
    world.pass(SECONDS / 2);
}

/// The connection that was opened last, closed from here: in FIN_WAIT_2, or in TIME_WAIT.
fn closed(world: &mut World, mut peer: Peer, timestamps: bool, fin: bool) -> Peer {
    peer.take(&world.round()[0]);
    if timestamps {
        peer.options.timestamps = Some(Timestamps { value: 100, echo: 0 });
    }
    let syn_ack = peer.seg(Flags::SYN | Flags::ACK, &[]);
    peer.seq += 1;
    assert_eq!(world.exchange(&syn_ack).len(), 1);
    let conn = world.conn(world.host.apps.0.len() - 1);
    world.shard.close(world.now, conn).unwrap();
    peer.take(&world.round()[0]);
    assert_eq!(world.exchange(&if fin { peer.fin() } else { peer.ack() }).len(), usize::from(fin));
    assert_eq!(world.shard.gauges().time_wait, 1);
    peer
}

/// One port.
fn narrow(tw_reuse: bool) -> Config {
    Config { local_ports: 20_000..=20_000, tw_reuse, ..small() }
}

#[test]
fn a_port_in_time_wait_is_free_after_60_s() {
    let mut world = World::new(narrow(false));
    let peer = connect(&mut world, None, false).unwrap();
    closed(&mut world, peer, true, true);
    world.pass(59_900 * MILLIS);
    assert_eq!(connect(&mut world, None, false).err(), Some(ConnectError::NoPort));
    world.pass(200 * MILLIS);
    assert!(connect(&mut world, None, false).is_ok());
}

#[test]
fn tw_reuse_takes_a_record_over_after_its_delay() {
    for v6 in [false, true] {
        let mut world = World::new(narrow(true));
        let peer = connect(&mut world, None, v6).unwrap();
        let old = closed(&mut world, peer, true, true);
        world.pass(SECONDS);
        assert_eq!(connect(&mut world, None, v6).err(), Some(ConnectError::NoPort));
        world.pass(MILLIS);
        let mut peer = connect(&mut world, None, v6).unwrap();
        assert_eq!(peer.tuple, old.tuple);
        let gauges = world.shard.gauges();
        assert_eq!((gauges.connections, gauges.time_wait), (1, 0));
        assert_eq!(world.shard.counters().time_wait_takeovers, 1);
        let syn = &world.round()[0];
        assert_eq!(syn.head.flags, Flags::SYN);
        // Above all that the old connection sent, and newer.
        assert_eq!(syn.head.seq, old.ack.wrapping_add(65_537));
        let newer = syn.head.options.timestamps.unwrap().value;
        let last = old.options.timestamps.unwrap().echo;
        assert!((1_001..1_100).contains(&newer.wrapping_sub(last)), "{newer} after {last}");
        peer.take(syn);
        let syn_ack = peer.seg(Flags::SYN | Flags::ACK, &[]);
        peer.seq += 1;
        assert_eq!(world.exchange(&syn_ack).len(), 1);
        world.shard.abort_all();
        assert_eq!(world.round().len(), 1);
        world.assert_empty();
    }
}

#[test]
fn tw_reuse_needs_timestamps_and_the_end_of_both_directions() {
    for (timestamps, fin) in [(false, true), (true, false)] {
        let mut world = World::new(narrow(true));
        let peer = connect(&mut world, None, false).unwrap();
        let old = closed(&mut world, peer, timestamps, fin);
        world.pass(30 * SECONDS);
        assert_eq!(connect(&mut world, None, false).err(), Some(ConnectError::NoPort));
        let local = Some(old.tuple.remote);
        assert_eq!(connect(&mut world, local, false).err(), Some(ConnectError::InUse));
    }
}

#[test]
fn a_port_that_is_asked_for_is_reused_at_once() {
    let mut world = World::new(small());
    let local = Some(endpoint("10.0.0.1:5000"));
    let peer = connect(&mut world, local, false).unwrap();
    let old = closed(&mut world, peer, true, true);
    connect(&mut world, local, false).unwrap();
    assert_eq!(world.round()[0].head.seq, old.ack.wrapping_add(65_537));
}
