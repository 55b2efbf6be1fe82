//! SYN cookies, as a peer sees them.

mod common;

use std::sync::Arc;

use common::{MILLIS, Peer, SECONDS, World, shown, small};
use fourwave_stack::{Config, ListenerShared, SynCookies};
use fourwave_tcp::Ecn;
use fourwave_wire::{Flags, Timestamps};

/// A listener whose SYN queue is full of one.
fn overflowing(config: Config) -> (World, Arc<ListenerShared>) {
    let mut world = World::new(config);
    let shared = world.listen(0);
    Peer::new(false, 1).half_open(&mut world);
    assert_eq!(shared.syn_len(), 1);
    (world, shared)
}

fn always() -> World {
    let mut world = World::new(Config { syncookies: SynCookies::Always, ..small() });
    world.listen(4);
    world
}

#[test]
fn beyond_the_syn_queue_a_handshake_needs_no_record() {
    for v6 in [false, true] {
        let (mut world, shared) = overflowing(small());
        let mut peer = Peer::new(v6, 2);
        peer.half_open(&mut world);
        assert_eq!((shared.syn_len(), world.shard.gauges().syn_received), (1, 1));
        // The last ACK and data are one segment.
        assert!(world.exchange(&peer.data(b"hello")).is_empty());
        let app = world.app(0);
        assert_eq!((&app.received[..], app.accepted), (&b"hello"[..], true));
        assert_eq!(app.tuple, Some(peer.tuple.flipped()));
        assert_eq!((shared.syn_len(), shared.accept_len()), (1, 1));
        peer.seq += 5;
        world.write(0, b"reply");
        let sent = world.round();
        assert_eq!(shown(&sent), [format!("P. seq {} ack {} len 5", peer.ack, peer.seq)]);
        let counters = world.shard.counters();
        assert_eq!((counters.syn_queue_full_cookies, counters.syn_cookies_sent), (1, 1));
        assert_eq!((counters.syn_cookies_received, counters.passive_opens), (1, 1));
        assert_eq!((counters.syn_queue_full, counters.listen_drops), (0, 0));
    }
}

#[test]
fn a_full_table_of_records_is_got_round_by_cookies_too() {
    let mut world = World::new(Config { syn_received: 1, ..small() });
    let shared = world.listen(8);
    Peer::new(false, 1).half_open(&mut world);
    let mut peer = Peer::new(false, 2);
    peer.open(&mut world);
    assert_eq!((shared.syn_len(), shared.accept_len()), (1, 1));
    let counters = world.shard.counters();
    assert_eq!((counters.syn_records_full, counters.syn_cookies_received), (1, 1));
    assert_eq!(counters.listen_drops, 0);
}

/// Of an echo: its numbers have moved on equally far on both sides, and its record is gone.
#[test]
fn an_ack_out_of_a_conversation_is_no_cookie() {
    for distance in [1, 33, 100, 1 << 24] {
        let mut world = always();
        let mut peer = Peer::new(false, 2);
        peer.half_open(&mut world);
        peer.seq += distance;
        peer.ack = peer.ack.wrapping_add(distance);
        let sent = world.exchange(&peer.ack());
        assert_eq!(shown(&sent), [format!("R seq {} ack 0", peer.ack)], "{distance}");
    }
}

#[test]
fn the_mss_is_one_of_a_table() {
    let cases = [
        (false, None, 536),
        (false, Some(200), 536),
        (false, Some(1299), 536),
        (false, Some(1300), 1300),
        (false, Some(1452), 1440),
        (false, Some(9000), 1460),
        (true, None, 1220),
        (true, Some(1419), 1220),
        (true, Some(1420), 1420),
        (true, Some(1432), 1432),
        (true, Some(9000), 1440),
    ];
    for (v6, offered, expected) in cases {
        let mut world = always();
        let mut peer = Peer::new(v6, 2);
        let mut syn = peer.syn();
        syn.head.options.mss = offered;
        let sent = world.exchange(&syn);
        // Ours is not cut down to the table.
        assert_eq!(sent[0].head.options.mss, Some(if v6 { 1440 } else { 1460 }));
        peer.take(&sent[0]);
        peer.seq += 1;
        world.exchange(&peer.ack());
        assert_eq!(world.shard.tcb(world.conn(0)).unwrap().mss(), expected, "{offered:?}");
    }
}

#[test]
fn scale_sack_and_timestamps_survive_in_the_timestamp() {
    for scale in [None, Some(0), Some(3), Some(14)] {
        for clock in 0..70 {
            let mut world = always();
            world.now += clock * MILLIS;
            let mut peer = Peer::new(clock % 2 == 0, 2);
            peer.options.timestamps = Some(Timestamps { value: 700, echo: 0 });
            let mut syn = peer.syn();
            syn.head.options.window_scale = scale;
            let sack = clock % 3 == 0;
            syn.head.options.sack_permitted = sack;
            let sent = world.exchange(&syn);
            let options = sent[0].head.options;
            assert_eq!(options.window_scale, scale.map(|_| 7));
            assert_eq!(options.sack_permitted, sack);
            let cookie = options.timestamps.unwrap();
            assert_eq!(cookie.echo, 700);
            peer.take(&sent[0]);
            peer.seq += 1;
            assert!(world.exchange(&peer.data(b"x")).is_empty());
            // A hole: its answer names what lies behind it, if that was agreed on.
            let ahead = Peer { seq: peer.seq + 5, ..peer.clone() };
            let sent = world.exchange(&ahead.data(b"z"));
            assert_eq!(sent[0].head.options.sack.is_empty(), !sack);
            let tcb = world.shard.tcb(world.conn(0)).unwrap();
            assert_eq!(tcb.send_window(), 65_535 << scale.unwrap_or(0));
            // What follows is never older than what carried the options.
            world.write(0, b"y");
            let times = world.round()[0].head.options.timestamps.unwrap();
            assert_eq!(times.echo, 700);
            assert!(times.value.wrapping_sub(cookie.value) < 64, "{times:?} after {cookie:?}");
        }
    }
}

#[test]
fn without_timestamps_there_is_neither_scale_nor_sack() {
    let mut world = always();
    let mut peer = Peer::new(false, 2);
    let mut syn = peer.syn();
    syn.head.options.window_scale = Some(3);
    syn.head.options.sack_permitted = true;
    let sent = world.exchange(&syn);
    assert_eq!(sent[0].head.options.window_scale, None);
    assert!(!sent[0].head.options.sack_permitted);
    peer.take(&sent[0]);
    peer.seq += 1;
    world.exchange(&peer.ack());
    assert_eq!(world.shard.tcb(world.conn(0)).unwrap().send_window(), 65_535);
}

#[test]
fn options_that_were_not_agreed_on_are_refused() {
    let tcp = fourwave_tcp::Config { ecn: Ecn::Off, ..fourwave_tcp::Config::default() };
    let mut world = World::new(Config { syncookies: SynCookies::Always, tcp, ..small() });
    world.listen(4);
    let mut peer = Peer::new(false, 2);
    peer.options.timestamps = Some(Timestamps { value: 700, echo: 0 });
    peer.half_open(&mut world);
    // The bit of ECN, which is not offered.
    peer.options.timestamps.as_mut().unwrap().echo ^= 1 << 5;
    assert_eq!(shown(&world.exchange(&peer.ack())), [format!("R seq {} ack 0", peer.ack)]);
    peer.options.timestamps.as_mut().unwrap().echo ^= 1 << 5;
    assert!(world.exchange(&peer.ack()).is_empty());
    assert_eq!(world.shard.gauges().connections, 1);
}

#[test]
fn a_cookie_is_good_in_its_period_and_the_next() {
    // Tests start at 5 s, in the first minute.
    for (later, good) in [(0, true), (54, true), (114, true), (115, false), (300, false)] {
        let mut world = always();
        let mut peer = Peer::new(true, 2);
        peer.half_open(&mut world);
        world.now += later * SECONDS;
        let sent = world.exchange(&peer.ack());
        let counters = world.shard.counters();
        if good {
            assert!(sent.is_empty(), "{later}");
            assert_eq!((counters.syn_cookies_received, counters.syn_cookies_failed), (1, 0));
        } else {
            assert_eq!(shown(&sent), [format!("R seq {} ack 0", peer.ack)], "{later}");
            assert_eq!((counters.syn_cookies_received, counters.syn_cookies_failed), (0, 1));
        }
    }
}

#[test]
fn what_was_tampered_with_is_reset() {
    let mut world = always();
    let mut peer = Peer::new(false, 2);
    peer.half_open(&mut world);
    let mut wrong: Vec<Peer> = Vec::new();
    // The two lowest bits of the acknowledgement may give another MSS of the table.
    wrong.extend((2..32).map(|bit| Peer { ack: peer.ack ^ 1 << bit, ..peer.clone() }));
    wrong.extend((2..32).map(|bit| Peer { seq: peer.seq ^ 1 << bit, ..peer.clone() }));
    let mut other = peer.clone();
    other.tuple.local.port += 1;
    wrong.push(other);
    for peer in &wrong {
        assert_eq!(shown(&world.exchange(&peer.ack())), [format!("R seq {} ack 0", peer.ack)]);
    }
    assert_eq!(world.shard.counters().syn_cookies_failed, wrong.len() as u64);
    // Neither of these is looked at.
    assert!(world.exchange(&peer.seg(Flags::RST | Flags::ACK, &[])).is_empty());
    assert_eq!(world.exchange(&peer.seg(Flags::SYN | Flags::ACK, &[])).len(), 1);
    assert_eq!(world.shard.counters().syn_cookies_failed, wrong.len() as u64);
    assert_eq!(world.shard.gauges().connections, 0);
    assert!(world.exchange(&peer.ack()).is_empty());
    assert_eq!(world.shard.gauges().connections, 1);
}

#[test]
fn acks_are_held_against_cookies_only_for_120_s_after_an_overflow() {
    let mut world = World::new(small());
    world.listen(0);
    let stray = Peer { ack: 77, ..Peer::new(false, 9) };
    let failed = |world: &mut World| {
        // Without a round, in which the record's timer would take part.
        world.inject(&stray.ack());
        assert_eq!(shown(&world.drain()), ["R seq 77 ack 0"]);
        world.shard.counters().syn_cookies_failed
    };
    assert_eq!(failed(&mut world), 0);
    Peer::new(false, 1).half_open(&mut world);
    assert_eq!(failed(&mut world), 0);
    let mut peer = Peer::new(false, 2);
    peer.half_open(&mut world);
    assert_eq!(failed(&mut world), 1);
    world.now += 120 * SECONDS;
    assert_eq!(failed(&mut world), 2);
    world.now += MILLIS;
    assert_eq!(failed(&mut world), 2);
    world.inject(&peer.ack());
    assert_eq!(shown(&world.drain()), [format!("R seq {} ack 0", peer.ack)]);
    assert_eq!(world.shard.counters().syn_cookies_failed, 2);
}

#[test]
fn cookies_do_not_get_round_the_accept_queue() {
    for abort_on_overflow in [false, true] {
        let (mut world, shared) = overflowing(Config { abort_on_overflow, ..small() });
        let mut early = Peer::new(false, 2);
        let mut late = Peer::new(false, 3);
        early.half_open(&mut world);
        late.half_open(&mut world);
        assert!(world.exchange(&early.ack()).is_empty());
        assert_eq!(shared.accept_len(), 1);
        // No more SYNs are answered, and the ACK finds no room: as in Linux it is not reset.
        assert!(world.exchange(&Peer::new(false, 4).syn()).is_empty());
        let counters = world.shard.counters();
        assert_eq!((counters.listen_overflows, counters.listen_drops), (1, 1));
        assert!(world.exchange(&late.data(b"again")).is_empty());
        let counters = world.shard.counters();
        assert_eq!((counters.listen_overflows, counters.listen_drops), (2, 2));
        assert_eq!(counters.syn_cookies_sent, 2);
        let conn = world.conn(0);
        world.shard.accepted(0, conn);
        assert!(world.exchange(&late.data(b"again")).is_empty());
        assert_eq!(world.app(1).received, b"again");
    }
}

#[test]
fn always_means_no_records() {
    let mut world = always();
    let mut peer = Peer::new(false, 2);
    // Each SYN is answered, and alike within a minute.
    let sent = [1, 2, 3].map(|_| shown(&world.exchange(&peer.syn())));
    assert!(sent[0].len() == 1 && sent[1] == sent[0] && sent[2] == sent[0], "{sent:?}");
    assert_eq!(world.shard.gauges().syn_received, 0);
    let app = peer.open(&mut world);
    world.shard.abort(world.conn(app)).unwrap();
    world.round();
    world.assert_empty();
    assert_eq!(world.shard.counters().syn_queue_full_cookies, 4);
}

#[test]
fn off_means_neither_sent_nor_looked_at() {
    let (mut world, _) = overflowing(Config { syncookies: SynCookies::Off, ..small() });
    assert!(world.exchange(&Peer::new(false, 2).syn()).is_empty());
    let stray = Peer { ack: 77, ..Peer::new(false, 9) };
    assert_eq!(shown(&world.exchange(&stray.ack())), ["R seq 77 ack 0"]);
    let counters = world.shard.counters();
    assert_eq!((counters.syn_queue_full, counters.listen_drops), (1, 1));
    assert_eq!((counters.syn_cookies_sent, counters.syn_cookies_failed), (0, 0));
}

#[test]
fn a_flood_keeps_nobody_out() {
    let mut world = World::new(Config { syn_received: 16, ..small() });
    let shared = world.listen(9);
    let mut clients = Vec::new();
    for round in 0..50u32 {
        for port in 0..200u16 {
            let mut syn = Peer::new(round % 2 == 0, 1 + port).syn();
            // Spoofed: nobody answers the SYN-ACK.
            syn.head.tuple.local.addr.0[14..].copy_from_slice(&(256 + round as u16).to_be_bytes());
            world.inject(&syn);
        }
        world.drain();
        let mut client = Peer::new(false, 30_000 + round as u16);
        let app = client.open(&mut world);
        assert!(world.app(app).accepted);
        let conn = world.conn(app);
        world.shard.accepted(0, conn);
        clients.push(client);
        assert!(world.shard.gauges().syn_received <= 10 && shared.syn_len() <= 10);
        world.now += MILLIS;
    }
    assert_eq!(world.shard.counters().listen_drops, 0);
    assert_eq!(world.shard.gauges().connections, 50);
}
