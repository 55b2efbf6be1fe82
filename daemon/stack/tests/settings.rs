//! What an application chooses for its connections: before they exist, on a listener, and later.

mod common;

use common::{MILLIS, Peer, SECONDS, Seg, World, endpoint, small};
use fourwave_tcp::{Error, Events, Settings, State};
use fourwave_wire::{Flags, Options};

fn chosen(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings
}

/// The answer to a SYN with all options.
fn syn_ack(world: &mut World, peer: &Peer) -> Seg {
    let mut syn = peer.syn();
    syn.head.options.window_scale = Some(3);
    let sent = world.exchange(&syn);
    let [syn_ack] = &sent[..] else { panic!("{sent:?}") };
    syn_ack.clone()
}

#[test]
fn a_listeners_choices_are_those_of_its_connections() {
    for (v6, tos) in [(false, 0x48), (true, 0x28)] {
        let mut world = World::new(small());
        world.listen(8);
        let settings = chosen(|settings| {
            settings.max_segment = 500;
            settings.recv_buffer = 3000;
            settings.tos = 0x48;
            settings.traffic_class = 0x28;
            settings.keepalive_time = 5;
            settings.set_nodelay(true);
            settings.set_keepalive(true);
        });
        world.shard.configure_listener(0, &settings);

        let mut peer = Peer::new(v6, 100);
        let answer = syn_ack(&mut world, &peer);
        assert_eq!((answer.head.options.mss, answer.head.window), (Some(500), 3000));
        assert_eq!(answer.head.tos, tos);
        peer.take(&answer);
        peer.seq += 1;
        assert!(world.exchange(&peer.ack()).is_empty());
        world.shard.accepted(0, world.conn(0));
        // Later choices of the listener are for later connections.
        world.shard.configure_listener(0, &Settings::default());

        world.write(0, &[1; 600]);
        world.write(0, &[2; 10]);
        let sent = world.round();
        let sizes: Vec<usize> = sent.iter().map(|seg| seg.payload.len()).collect();
        assert_eq!(sizes, [500, 110]);
        assert!(sent.iter().all(|seg| seg.head.tos == tos));
        world.write(0, &[3; 10]);
        // Nagle's algorithm would wait.
        assert_eq!(world.round().len(), 1);
        peer.ack += 620;
        assert!(world.exchange(&peer.ack()).is_empty());
        let probe = world.pass(5 * SECONDS);
        assert_eq!(probe.len(), 1);
        assert_eq!((probe[0].0, probe[0].1.head.seq), (5000, peer.ack - 1));

        let other = Peer::new(v6, 101);
        let answer = syn_ack(&mut world, &other);
        let mss = if v6 { 1440 } else { 1460 };
        assert_eq!((answer.head.options.mss, answer.head.window), (Some(mss), u16::MAX));
        assert_eq!(answer.head.tos, 0);
    }
}

#[test]
fn a_cookie_remembers_the_listeners_choices() {
    let mut world = World::new(fourwave_stack::Config {
        syncookies: fourwave_stack::SynCookies::Always,
        ..small()
    });
    world.listen(8);
    let settings = chosen(|settings| {
        settings.max_segment = 600;
        settings.tos = 0x48;
    });
    world.shard.configure_listener(0, &settings);
    let mut peer = Peer::new(false, 100);
    let answer = syn_ack(&mut world, &peer);
    assert_eq!((answer.head.options.mss, answer.head.tos), (Some(600), 0x48));
    peer.take(&answer);
    peer.seq += 1;
    assert!(world.exchange(&peer.ack()).is_empty());
    assert_eq!(world.shard.tcb(world.conn(0)).unwrap().settings(), &settings);
    world.write(0, &[1; 1000]);
    assert_eq!(world.round()[0].payload.len(), 600);
}

#[test]
fn an_active_open_knows_its_choices_from_the_syn_on() {
    let mut world = World::new(small());
    let settings = chosen(|settings| {
        settings.max_segment = 700;
        settings.recv_buffer = 4000;
        settings.traffic_class = 0xb8;
        settings.syn_retries = 1;
    });
    world.host.apps.0.push(common::App::default());
    let remote = endpoint("[fd00::9]:80");
    let (conn, tuple) =
        world.shard.connect_with(world.now, 0, None, remote, &settings, &mut world.host).unwrap();
    world.host.apps.0[0].conn = Some(conn);
    let sent = world.round();
    assert_eq!((sent[0].head.options.mss, sent[0].head.window), (Some(700), 4000));
    assert_eq!(sent[0].head.tos, 0xb8);
    // Four without backoff, one with.
    let again = world.pass(60 * SECONDS);
    assert_eq!(again.len(), 5);
    assert!(again.iter().all(|(_, seg)| seg.head.flags == Flags::SYN && seg.head.tos == 0xb8));
    assert_eq!(world.app(0).error, Some(Error::TimedOut));
    assert!(world.app(0).events.contains(Events::TIMED_OUT));
    assert_eq!(tuple.remote, remote);
    world.assert_empty();
}

/// One accepted connection.
fn accepted(world: &mut World, options: Options) -> Peer {
    world.listen(8);
    let mut peer = Peer { options, ..Peer::new(false, 100) };
    peer.open(world);
    world.shard.accepted(0, world.conn(0));
    peer
}

fn choose(world: &mut World, change: impl FnOnce(&mut Settings)) {
    let conn = world.conn(0);
    let mut settings = *world.shard.tcb(conn).unwrap().settings();
    change(&mut settings);
    world.shard.apply(world.now, conn, &settings).unwrap();
}

#[test]
fn lingering_for_no_time_resets_and_leaves_no_orphan() {
    let mut world = World::new(small());
    accepted(&mut world, Options::default());
    choose(&mut world, |settings| settings.linger = 1);
    world.write(0, b"never sent");
    world.shard.close(world.now, world.conn(0)).unwrap();
    let sent = world.round();
    assert_eq!(sent.len(), 1);
    assert!(sent[0].head.flags.contains(Flags::RST));
    world.assert_empty();
}

#[test]
fn an_orphan_waits_for_the_peers_fin_as_long_as_was_chosen() {
    let mut world = World::new(small());
    let mut peer = accepted(&mut world, Options::default());
    choose(&mut world, |settings| settings.fin_timeout = 3);
    world.shard.close(world.now, world.conn(0)).unwrap();
    assert_eq!(world.round().len(), 1);
    peer.ack += 1;
    assert!(world.exchange(&peer.ack()).is_empty());
    assert_eq!(world.shard.gauges().time_wait, 1);
    world.pass(3 * SECONDS - MILLIS);
    assert_eq!(world.shard.gauges().time_wait, 1);
    world.pass(2 * MILLIS);
    world.assert_empty();
}

#[test]
fn the_application_hears_that_all_was_acknowledged() {
    let mut world = World::new(small());
    let mut peer = accepted(&mut world, Options::default());
    world.write(0, b"all of it");
    world.shard.shutdown_write(world.conn(0)).unwrap();
    assert_eq!(world.round().len(), 1);
    peer.ack += 9;
    world.exchange(&peer.ack());
    assert!(!world.app(0).events.contains(Events::ALL_ACKED));
    peer.ack += 1;
    world.exchange(&peer.ack());
    assert!(world.app(0).events.contains(Events::ALL_ACKED));
    assert_eq!(world.shard.tcb(world.conn(0)).unwrap().state(), State::FinWait2);
}

#[test]
fn what_a_connection_knows_is_told_while_it_lives() {
    let mut world = World::new(small());
    let mut peer = accepted(&mut world, Options::default());
    world.exchange(&peer.data(b"request"));
    peer.seq += 7;
    let conn = world.conn(0);
    let info = world.shard.info(world.now, conn).unwrap();
    assert_eq!((info.state, info.bytes_received), (State::Established, 7));
    assert_eq!((info.segments_in, info.data_segments_in), (2, 1));
    world.exchange(&peer.rst());
    assert!(world.shard.info(world.now, conn).is_err());
    assert!(world.shard.apply(world.now, conn, &Settings::default()).is_err());
    world.assert_empty();
}
