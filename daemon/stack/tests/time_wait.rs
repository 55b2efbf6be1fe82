//! The rules of TIME_WAIT and of FIN_WAIT_2 without an application.

mod common;

use common::{MILLIS, PEER_MAC, Peer, SECONDS, World, shown, small};
use fourwave_stack::{Config, SynCookies};
use fourwave_wire::{Flags, Timestamps};

/// A connection that the server has closed first, its FIN acknowledged: FIN_WAIT_2.
fn fin_wait_2(world: &mut World, peer: &mut Peer) {
    let app = peer.open(world);
    let conn = world.conn(app);
    world.shard.accepted(0, conn);
    world.shard.close(world.now, conn).unwrap();
    let sent = world.round();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].head.flags.contains(Flags::FIN));
    peer.take(&sent[0]);
    assert!(world.exchange(&peer.ack()).is_empty());
    assert!(world.app(app).closed);
    let gauges = world.shard.gauges();
    assert_eq!((gauges.connections, gauges.time_wait), (0, 1));
}

/// The same, and the peer's FIN has come.
fn time_wait(world: &mut World, peer: &mut Peer) {
    fin_wait_2(world, peer);
    let sent = world.exchange(&peer.fin());
    peer.seq = peer.seq.wrapping_add(1);
    assert_eq!(shown(&sent), [format!(". seq {} ack {}", peer.ack, peer.seq)]);
    assert_eq!(sent[0].head.link.dst, PEER_MAC);
}

fn world() -> World {
    let mut world = World::new(small());
    world.listen(16);
    world
}

#[test]
fn it_lasts_60_s_from_the_fin() {
    for v6 in [false, true] {
        let mut world = world();
        let mut peer = Peer::new(v6, 1);
        time_wait(&mut world, &mut peer);
        assert!(world.shard.uses_port(80));
        assert!(world.pass(59_999 * MILLIS).is_empty());
        assert_eq!(world.shard.gauges().time_wait, 1);
        world.pass(2 * MILLIS);
        world.assert_empty();
        assert_eq!(world.shard.counters().time_waits, 1);
    }
}

#[test]
fn the_connection_record_is_freed_at_once_when_the_last_acks_cross() {
    let mut world = world();
    let mut peer = Peer::new(false, 1);
    let app = peer.open(&mut world);
    let conn = world.conn(app);
    world.shard.accepted(0, conn);
    world.shard.close(world.now, conn).unwrap();
    let fin = world.round();
    // Simultaneous close: the peer's FIN does not acknowledge ours.
    let sent = world.exchange(&peer.fin());
    peer.seq = peer.seq.wrapping_add(1);
    assert_eq!(sent.last().unwrap().head.ack, peer.seq);
    assert_eq!(world.shard.gauges().connections, 1);
    peer.take(&fin[0]);
    assert!(world.exchange(&peer.ack()).is_empty());
    let gauges = world.shard.gauges();
    assert_eq!((gauges.connections, gauges.time_wait), (0, 1));
    assert!(world.shard.close(world.now, conn).is_err());
}

#[test]
fn a_repeated_fin_is_acknowledged_every_time_and_restarts_the_time() {
    let mut world = world();
    let mut peer = Peer::new(false, 1);
    time_wait(&mut world, &mut peer);
    let again = Peer { seq: peer.seq - 1, ..peer.clone() };
    for _ in 0..3 {
        world.now += 10 * SECONDS;
        for _ in 0..2 {
            let sent = world.exchange(&again.fin());
            assert_eq!(shown(&sent), [format!(". seq {} ack {}", peer.ack, peer.seq)]);
        }
    }
    world.pass(59_999 * MILLIS);
    assert_eq!(world.shard.gauges().time_wait, 1);
    world.pass(MILLIS);
    world.assert_empty();
}

#[test]
fn old_duplicates_are_acknowledged_at_most_every_500_ms() {
    let mut world = world();
    let mut peer = Peer::new(false, 1);
    time_wait(&mut world, &mut peer);
    world.now += SECONDS;
    let old = Peer { seq: peer.seq - 100, ..peer.clone() };
    assert_eq!(world.exchange(&old.ack()).len(), 1);
    world.now += 400 * MILLIS;
    assert!(world.exchange(&old.ack()).is_empty());
    assert_eq!(world.shard.counters().ack_skipped_time_wait, 1);
    world.now += 104 * MILLIS;
    assert_eq!(world.exchange(&old.ack()).len(), 1);
}

#[test]
fn a_reset_at_the_edge_ends_it_unless_rfc1337() {
    for rfc1337 in [false, true] {
        let mut world = World::new(Config { rfc1337, ..small() });
        world.listen(16);
        let mut peer = Peer::new(false, 1);
        time_wait(&mut world, &mut peer);
        let inexact = Peer { seq: peer.seq + 1, ..peer.clone() };
        assert!(world.exchange(&inexact.rst()).is_empty());
        assert_eq!(world.shard.gauges().time_wait, 1);
        assert!(world.exchange(&peer.rst()).is_empty());
        assert_eq!(world.shard.gauges().time_wait, u32::from(rfc1337));
    }
}

#[test]
fn a_syn_above_the_old_sequence_takes_over() {
    for v6 in [false, true] {
        let mut world = world();
        let mut peer = Peer::new(v6, 1);
        time_wait(&mut world, &mut peer);
        let new = Peer { seq: peer.seq + 1, ..peer.clone() };
        let sent = world.exchange(&new.syn());
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].head.flags, Flags::SYN | Flags::ACK);
        // Above everything that the old connection sent, the same peer's ISN or not.
        assert_eq!(sent[0].head.seq, peer.ack.wrapping_add(65_537));
        let gauges = world.shard.gauges();
        assert_eq!((gauges.time_wait, gauges.syn_received), (0, 1));
        assert_eq!(world.shard.counters().time_wait_takeovers, 1);
        let mut new = new;
        new.take(&sent[0]);
        new.seq += 1;
        assert!(world.exchange(&new.ack()).is_empty());
        assert_eq!(world.shard.gauges().connections, 1);
        world.shard.abort_all();
        world.round();
        world.assert_empty();
    }
}

#[test]
fn a_syn_at_or_below_the_old_sequence_is_acknowledged() {
    let mut world = world();
    let mut peer = Peer::new(false, 1);
    time_wait(&mut world, &mut peer);
    for below in [0, 1, 1_000_000] {
        world.now += SECONDS;
        let new = Peer { seq: peer.seq.wrapping_sub(below), ..peer.clone() };
        let sent = world.exchange(&new.syn());
        assert_eq!(shown(&sent), [format!(". seq {} ack {}", peer.ack, peer.seq)]);
    }
    // It may have been a new connection's: the time has not started again.
    world.pass(57 * SECONDS);
    world.assert_empty();
}

#[test]
fn a_newer_timestamp_takes_over_at_any_sequence_and_an_older_one_does_not() {
    let mut world = world();
    let mut peer = Peer::new(false, 1);
    peer.options.timestamps = Some(Timestamps { value: 500, echo: 0 });
    time_wait(&mut world, &mut peer);
    world.now += SECONDS;
    let mut new = Peer { seq: peer.seq + 9, ..peer.clone() };
    new.options.timestamps = Some(Timestamps { value: 499, echo: 0 });
    let sent = world.exchange(&new.syn());
    assert_eq!(sent[0].head.flags, Flags::ACK);
    assert_eq!(sent[0].head.options.timestamps.unwrap().echo, 500);
    assert_eq!(world.shard.counters().paws_rejected, 1);
    new.seq = peer.seq - 700;
    new.options.timestamps = Some(Timestamps { value: 501, echo: 0 });
    let sent = world.exchange(&new.syn());
    assert_eq!(sent[0].head.flags, Flags::SYN | Flags::ACK);
}

#[test]
fn our_timestamps_go_on_from_connection_to_record_to_next_connection() {
    let mut world = world();
    let mut peer = Peer::new(false, 1);
    peer.options.timestamps = Some(Timestamps { value: 500, echo: 0 });
    time_wait(&mut world, &mut peer);
    let during = peer.options.timestamps.unwrap().echo;
    world.now += 7 * SECONDS;
    let again = Peer { seq: peer.seq - 1, ..peer.clone() };
    let sent = world.exchange(&again.fin());
    let record = sent[0].head.options.timestamps.unwrap().value;
    assert_eq!(record.wrapping_sub(during), 7_000);
    world.now += SECONDS;
    let mut new = Peer { seq: peer.seq + 1, ..peer.clone() };
    new.options.timestamps = Some(Timestamps { value: 600, echo: 0 });
    let sent = world.exchange(&new.syn());
    assert_eq!(sent[0].head.options.timestamps.unwrap().value.wrapping_sub(record), 1_000);
}

#[test]
fn a_takeover_skips_the_syn_queue_limit_but_not_the_accept_queue() {
    use SynCookies::{Always, Off, OnOverflow};
    for (syncookies, places, answers) in [(Off, 2, 0), (OnOverflow, 2, 1), (Always, 0, 1)] {
        let mut world = World::new(Config { syncookies, ..small() });
        let shared = world.listen(1);
        let mut peer = Peer::new(false, 1);
        time_wait(&mut world, &mut peer);
        for port in 2..=3 {
            assert_eq!(world.exchange(&Peer::new(false, port).syn()).len(), 1);
        }
        assert_eq!(world.exchange(&Peer::new(false, 4).syn()).len(), answers);
        let new = Peer { seq: peer.seq + 1, ..peer.clone() };
        let sent = world.exchange(&new.syn());
        assert_eq!(sent[0].head.flags, Flags::SYN | Flags::ACK);
        assert_eq!(sent[0].head.seq, peer.ack.wrapping_add(65_537));
        assert_eq!(shared.syn_len(), places + 1, "a record, never a cookie");
    }

    let mut world = World::new(small());
    world.listen(0);
    let mut peer = Peer::new(false, 1);
    time_wait(&mut world, &mut peer);
    Peer::new(false, 2).open(&mut world);
    let new = Peer { seq: peer.seq + 1, ..peer };
    assert!(world.exchange(&new.syn()).is_empty());
    assert_eq!(world.shard.counters().listen_overflows, 1);
    assert_eq!(world.shard.gauges().time_wait, 1, "the record outlives a SYN that is dropped");
}

#[test]
fn without_a_listener_a_new_syn_is_acknowledged() {
    let mut world = world();
    let mut peer = Peer::new(false, 1);
    time_wait(&mut world, &mut peer);
    world.shard.unlisten(world.now, 0);
    assert!(world.shard.uses_port(80), "a record still uses the port");
    world.now += SECONDS;
    let new = Peer { seq: peer.seq + 1, ..peer.clone() };
    assert_eq!(world.exchange(&new.syn())[0].head.flags, Flags::ACK);
    assert_eq!(world.shard.gauges().time_wait, 1);
    world.pass(61 * SECONDS);
    assert!(!world.shard.uses_port(80));
}

#[test]
fn an_orphan_in_fin_wait_2_gives_up_after_fin_timeout() {
    let mut world = world();
    let mut peer = Peer::new(true, 1);
    fin_wait_2(&mut world, &mut peer);
    assert!(world.pass(59 * SECONDS).is_empty());
    assert_eq!(world.shard.gauges().time_wait, 1);
    world.pass(1_100 * MILLIS);
    world.assert_empty();
}

#[test]
fn data_for_an_orphan_in_fin_wait_2_is_reset() {
    let mut world = world();
    let mut peer = Peer::new(false, 1);
    fin_wait_2(&mut world, &mut peer);
    assert!(world.exchange(&peer.ack()).is_empty(), "a bare ACK says nothing new");
    let sent = world.exchange(&peer.data(b"who reads this?"));
    assert_eq!(shown(&sent), [format!("R seq {} ack 0", peer.ack)]);
    world.assert_empty();
    assert_eq!(world.shard.counters().abort_on_data, 1);
}

#[test]
fn an_orphan_in_fin_wait_2_challenges_what_is_out_of_place() {
    let mut world = world();
    let mut peer = Peer::new(false, 1);
    fin_wait_2(&mut world, &mut peer);
    let expected = [format!(". seq {} ack {}", peer.ack, peer.seq)];
    let ahead = Peer { seq: peer.seq + 1, ..peer.clone() };
    let behind = Peer { seq: peer.seq - 50, ..peer.clone() };
    for stray in [ahead.rst(), ahead.syn(), behind.ack(), behind.data(b"old")] {
        world.now += SECONDS;
        assert_eq!(shown(&world.exchange(&stray)), expected, "{}", stray.show());
    }
    assert!(world.exchange(&behind.ack()).len() <= 1);
    assert!(world.exchange(&peer.rst()).is_empty());
    world.assert_empty();
}

#[test]
fn without_a_free_record_the_connection_ends_at_once_and_it_is_counted() {
    let mut world = World::new(Config { time_wait: 1, ..small() });
    world.listen(16);
    time_wait(&mut world, &mut Peer::new(false, 1));
    let mut peer = Peer::new(false, 2);
    let app = peer.open(&mut world);
    let conn = world.conn(app);
    world.shard.accepted(0, conn);
    world.shard.close(world.now, conn).unwrap();
    let fin = world.round();
    peer.take(&fin[0]);
    world.exchange(&peer.fin());
    assert!(world.app(app).closed);
    let gauges = world.shard.gauges();
    assert_eq!((gauges.connections, gauges.time_wait), (0, 1));
    assert_eq!(world.shard.counters().time_wait_overflow, 1);
}

#[test]
fn a_segment_of_the_next_connection_in_the_same_batch_finds_the_record() {
    let mut world = world();
    let mut peer = Peer::new(false, 1);
    let app = peer.open(&mut world);
    let conn = world.conn(app);
    world.shard.accepted(0, conn);
    world.shard.close(world.now, conn).unwrap();
    let fin = world.round();
    peer.take(&fin[0]);
    // The FIN and the next SYN come before the next flush.
    world.inject(&peer.fin());
    let new = Peer { seq: peer.seq + 2, ..peer.clone() };
    world.inject(&new.syn());
    let sent = world.round();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].head.ack, peer.seq + 1);
    assert_eq!(sent[1].head.flags, Flags::SYN | Flags::ACK);
}
