//! The rules of listening, one by one, as a peer and the listener's owner see them.

mod common;

use common::{MILLIS, PEER_MAC, Peer, ROUTER_MAC, SECONDS, World, endpoint, shown, small};
use fourwave_stack::{Config, Dropped, ListenError, ListenerShared, PathError, Reason, SynCookies};
use fourwave_wire::{Flags, Tag, Timestamps};

const SYN_ACK: Flags = Flags::SYN.union(Flags::ACK);

#[test]
fn a_handshake_makes_a_connection_on_the_accept_queue() {
    for v6 in [false, true] {
        let mut world = World::new(small());
        let shared = world.listen(4);
        let mut peer = Peer::new(v6, 1234);
        peer.half_open(&mut world);
        assert_eq!((shared.syn_len(), shared.accept_len()), (1, 0));
        assert_eq!(world.shard.gauges().syn_received, 1);
        assert!(world.exchange(&peer.ack()).is_empty());
        assert_eq!((shared.syn_len(), shared.accept_len()), (0, 1));
        let gauges = world.shard.gauges();
        assert_eq!((gauges.syn_received, gauges.connections), (0, 1));
        let app = world.app(0);
        assert!(app.accepted && app.tuple == Some(peer.tuple.flipped()));
        let conn = world.conn(0);
        world.shard.accepted(0, conn);
        assert_eq!(shared.accept_len(), 0);
        assert_eq!(world.shard.counters().passive_opens, 1);
    }
}

#[test]
fn data_on_the_last_ack_is_there_when_the_connection_is_accepted() {
    let mut world = World::new(small());
    world.listen(4);
    let mut peer = Peer::new(false, 1234);
    peer.half_open(&mut world);
    world.inject(&peer.seg(Flags::ACK | Flags::PSH | Flags::FIN, b"hello"));
    let app = world.app(0);
    assert_eq!((&app.received[..], app.rcv_tail, app.accepted), (&b"hello"[..], 5, true));
    let sent = world.pass(40 * MILLIS);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1.head.ack, peer.seq + 6);
}

#[test]
fn the_syn_ack_goes_to_where_the_syn_came_from_with_its_tags() {
    let mut world = World::new(small());
    world.listen(4);
    let source = world.host.locals[0];
    world.host.path = Err(PathError::Unresolved { source, mtu: 1400 });
    let mut peer = Peer::new(false, 1234);
    peer.link.vlan[0] = Tag { protocol: 0x8100, control: 42 };
    peer.link.vlan_count = 1;
    world.inject(&peer.syn());
    // At once, without a flush.
    let sent = world.drain();
    assert_eq!(sent[0].head.link.dst, PEER_MAC);
    assert_eq!(sent[0].head.link.tags(), peer.link.tags());
    assert_eq!(sent[0].head.options.mss, Some(1360));
    // A connection keeps that link header until the next hop is known.
    peer.take(&sent[0]);
    peer.seq += 1;
    world.exchange(&peer.ack());
    world.write(0, b"x");
    let sent = world.round();
    assert_eq!((sent[0].head.link.dst, sent[0].head.link.vlan_count), (PEER_MAC, 1));
    let resolved = World::new(small()).host.path;
    world.host.path = resolved;
    world.host.epoch += 1;
    world.write(0, b"y");
    world.inject(&{
        peer.take(&sent[0]);
        peer.ack()
    });
    let sent = world.round();
    assert_eq!((sent[0].head.link.dst, sent[0].head.link.vlan_count), (ROUTER_MAC, 0));
}

#[test]
fn the_syn_ack_offers_what_the_syn_did() {
    let mut world = World::new(small());
    world.listen(4);
    let bare = world.exchange(&Peer::new(false, 1).syn());
    let options = bare[0].head.options;
    assert_eq!((options.mss, options.window_scale, options.timestamps), (Some(1460), None, None));
    assert!(!options.sack_permitted);
    let mut syn = Peer::new(true, 2).syn();
    syn.head.options.window_scale = Some(3);
    syn.head.options.sack_permitted = true;
    syn.head.options.timestamps = Some(Timestamps { value: 99, echo: 0 });
    let full = world.exchange(&syn);
    let options = full[0].head.options;
    assert_eq!((options.mss, options.window_scale), (Some(1440), Some(7)));
    assert_eq!(options.timestamps.unwrap().echo, 99);
    assert!(options.sack_permitted);
}

#[test]
fn the_syn_ack_is_sent_again_after_1_2_4_8_16_s_and_given_up_after_63() {
    let mut world = World::new(small());
    let shared = world.listen(4);
    let mut peer = Peer::new(false, 1234);
    peer.half_open(&mut world);
    let sent = world.pass(62 * SECONDS);
    let times: Vec<u64> = sent.iter().map(|(at, _)| at / 1_000).collect();
    assert_eq!(times, [1, 3, 7, 15, 31]);
    assert!(sent.iter().all(|(_, seg)| seg.head.flags == SYN_ACK && seg.head.ack == peer.seq));
    assert_eq!(shared.syn_len(), 1);
    assert!(world.pass(2 * SECONDS).is_empty());
    assert_eq!(shared.syn_len(), 0);
    assert_eq!(world.shard.counters().syn_ack_timeouts, 1);
    world.assert_empty();
}

#[test]
fn old_handshakes_are_given_up_early_when_the_queue_is_over_half_full() {
    let mut world = World::new(small());
    let shared = world.listen(16);
    for port in 1..=9 {
        Peer::new(false, port).half_open(&mut world);
    }
    // No young ones are left after the first second: two retries instead of five, for all but those
    // that find the queue no longer over half full.
    let sent = world.pass(7 * SECONDS);
    assert_eq!(sent.iter().filter(|(at, _)| *at < 1_500).count(), 9);
    assert_eq!(sent.iter().filter(|(at, _)| (1_500..6_500).contains(at)).count(), 9);
    assert_eq!(shared.syn_len(), 8);
    assert_eq!(world.shard.counters().syn_ack_timeouts, 1);
    assert_eq!(sent.iter().filter(|(at, _)| *at >= 6_500).count(), 8);
    world.pass(60 * SECONDS);
    assert_eq!(shared.syn_len(), 0);
    world.assert_empty();
}

#[test]
fn young_handshakes_spare_the_old_ones() {
    let mut world = World::new(small());
    let shared = world.listen(16);
    Peer::new(false, 1).half_open(&mut world);
    let mut young = 2;
    // Answered within a second each, but always more of them than of old ones.
    for _ in 0..40 {
        let mut peers: Vec<Peer> = (young..young + 12).map(|port| Peer::new(false, port)).collect();
        young += 12;
        for peer in &mut peers {
            world.inject(&peer.syn());
        }
        world.drain();
        world.pass(900 * MILLIS);
        for peer in &peers {
            let mut gone = peer.rst();
            gone.head.seq = peer.seq + 1;
            world.inject(&gone);
        }
        assert_eq!(shared.syn_len(), 1);
    }
    // 36 s: the last retry was at 31 s.
    assert_eq!(world.shard.counters().syn_ack_timeouts, 0);
    assert_eq!(world.shard.counters().retrans_segs, 5);
}

#[test]
fn without_cookies_the_last_quarter_is_for_peers_that_proved_themselves() {
    let config = Config { syncookies: SynCookies::Off, max_syn_backlog: 8, ..small() };
    let mut world = World::new(config);
    let shared = world.listen(20);
    let elsewhere = |port| {
        let mut syn = Peer::new(false, port).syn();
        syn.head.tuple.local.addr = endpoint("10.0.0.3:0").addr;
        syn
    };
    let app = Peer::new(false, 1).open(&mut world);
    assert!(world.app(app).accepted);
    // Less than a quarter of 8 is left when 7 are there.
    for port in 1..=9 {
        assert_eq!(world.exchange(&elsewhere(port)).len(), usize::from(port <= 7), "{port}");
    }
    assert_eq!(shared.syn_len(), 7);
    let counters = world.shard.counters();
    assert_eq!((counters.syn_peer_not_proven, counters.listen_drops), (2, 2));
    // The peer that has been here gets in, up to the backlog.
    for port in 2..=20 {
        let expected = usize::from(shared.syn_len() <= 20);
        assert_eq!(world.exchange(&Peer::new(false, port).syn()).len(), expected);
    }
    assert_eq!(shared.syn_len(), 21);
    assert_eq!(world.shard.counters().syn_queue_full, 5);
    // With cookies the rule does not hold.
    let mut world = World::new(Config { max_syn_backlog: 8, ..small() });
    let shared = world.listen(20);
    for port in 1..=12 {
        Peer::new(true, port).half_open(&mut world);
    }
    assert_eq!(shared.syn_len(), 12);
}

#[test]
fn a_repeated_syn_gets_the_syn_ack_again_at_most_every_500_ms() {
    let mut world = World::new(small());
    world.listen(4);
    let peer = Peer::new(false, 1234);
    let first = shown(&world.exchange(&peer.syn()));
    assert_eq!(first.len(), 1);
    world.now += 10 * MILLIS;
    assert_eq!(shown(&world.exchange(&peer.syn())), first);
    world.now += 400 * MILLIS;
    assert!(world.exchange(&peer.syn()).is_empty());
    world.now += 100 * MILLIS;
    assert_eq!(shown(&world.exchange(&peer.syn())), first);
    assert_eq!(world.shard.counters().ack_skipped_syn_recv, 1);
    assert_eq!(world.shard.gauges().syn_received, 1);
}

#[test]
fn a_full_accept_queue_drops_syns() {
    let mut world = World::new(small());
    let shared = world.listen(1);
    for port in 1..=2 {
        Peer::new(false, port).open(&mut world);
    }
    assert_eq!(shared.accept_len(), 2);
    assert!(world.exchange(&Peer::new(false, 3).syn()).is_empty());
    let counters = world.shard.counters();
    assert_eq!((counters.listen_overflows, counters.listen_drops), (1, 1));
    let conn = world.conn(0);
    world.shard.accepted(0, conn);
    assert_eq!(world.exchange(&Peer::new(false, 3).syn()).len(), 1);
}

#[test]
fn a_last_ack_that_finds_the_accept_queue_full_is_ignored_and_the_request_stays() {
    let mut world = World::new(small());
    let shared = world.listen(0);
    let mut early = Peer::new(false, 1);
    let mut late = Peer::new(false, 2);
    early.half_open(&mut world);
    // The SYN queue holds one as well: room for the second is made by the first.
    assert!(world.exchange(&early.ack()).is_empty());
    assert_eq!(shared.accept_len(), 1);
    let conn = world.conn(0);
    world.shard.accepted(0, conn);
    late.half_open(&mut world);
    let mut third = Peer::new(false, 3);
    shared.set_backlog(1);
    third.half_open(&mut world);
    shared.set_backlog(0);
    assert!(world.exchange(&late.ack()).is_empty());
    assert!(world.exchange(&third.data(b"lost")).is_empty());
    let counters = world.shard.counters();
    assert_eq!((counters.listen_overflows, counters.listen_drops), (1, 1));
    assert_eq!(world.shard.gauges().syn_received, 1);
    // The SYN-ACK goes out again in time, and the answer to it finds room.
    let sent = world.pass(1_100 * MILLIS);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1.head.flags, SYN_ACK);
    let conn = world.conn(1);
    world.shard.accepted(0, conn);
    world.exchange(&third.data(b"lost"));
    assert_eq!(world.app(2).received, b"lost");
    assert_eq!(world.shard.gauges().syn_received, 0);
}

#[test]
fn abort_on_overflow_resets_instead() {
    let mut world = World::new(Config { abort_on_overflow: true, ..small() });
    let shared = world.listen(1);
    let mut peers = [1, 2, 3].map(|port| Peer::new(false, port));
    shared.set_backlog(5);
    for peer in &mut peers {
        peer.half_open(&mut world);
    }
    shared.set_backlog(1);
    assert!(world.exchange(&peers[0].ack()).is_empty());
    assert!(world.exchange(&peers[1].ack()).is_empty());
    let sent = world.exchange(&peers[2].ack());
    assert_eq!(shown(&sent), [format!("R seq {} ack 0", peers[2].ack)]);
    assert_eq!((shared.syn_len(), world.shard.gauges().syn_received), (0, 0));
    let counters = world.shard.counters();
    assert_eq!((counters.embryonic_rsts, counters.attempt_fails), (1, 1));
}

#[test]
fn a_full_syn_queue_drops_syns_without_cookies() {
    let mut world = World::new(Config { syncookies: SynCookies::Off, ..small() });
    let shared = world.listen(1);
    for port in 1..=3 {
        let sent = world.exchange(&Peer::new(false, port).syn());
        assert_eq!(sent.len(), usize::from(port <= 2));
    }
    assert_eq!(shared.syn_len(), 2);
    let counters = world.shard.counters();
    assert_eq!((counters.syn_queue_full, counters.listen_drops), (1, 1));
    assert_eq!(counters.listen_overflows, 0);
}

#[test]
fn full_tables_and_a_full_host_refuse_and_count() {
    let mut world = World::new(Config {
        syn_received: 1,
        connections: 1,
        syncookies: SynCookies::Off,
        ..small()
    });
    let shared = world.listen(8);
    let mut first = Peer::new(false, 1);
    let mut second = Peer::new(false, 2);
    first.half_open(&mut world);
    assert!(world.exchange(&second.syn()).is_empty());
    assert_eq!(world.shard.counters().syn_records_full, 1);
    assert_eq!(shared.syn_len(), 1);

    world.host.refuse_open = true;
    assert!(world.exchange(&first.ack()).is_empty());
    assert_eq!(world.shard.counters().open_refused, 1);
    assert_eq!((shared.accept_len(), world.shard.gauges().connections), (0, 0));
    world.host.refuse_open = false;
    assert!(world.exchange(&first.ack()).is_empty());
    assert_eq!(world.shard.gauges().connections, 1);

    second.half_open(&mut world);
    assert!(world.exchange(&second.ack()).is_empty());
    assert_eq!(world.shard.counters().connections_full, 1);
    assert_eq!((shared.accept_len(), shared.syn_len()), (1, 1));
}

#[test]
fn segments_to_no_connection_are_reset_but_never_a_reset() {
    let mut world = World::new(small());
    world.listen(4);
    let peer = Peer { ack: 77, ..Peer::new(false, 9) };
    // RFC 9293 §3.10.7.1: to a listener's port as to any other.
    assert_eq!(shown(&world.exchange(&peer.data(b"abc"))), ["R seq 77 ack 0"]);
    let mut other = peer.clone();
    other.tuple.remote.port = 81;
    assert_eq!(shown(&world.exchange(&other.syn())), ["R. seq 0 ack 1001"]);
    assert_eq!(shown(&world.exchange(&other.seg(Flags::FIN, b"ab"))), ["R. seq 0 ack 1003"]);
    assert!(world.exchange(&other.rst()).is_empty());
    assert!(world.exchange(&peer.rst()).is_empty());
    // RFC 9293 §3.10.7.2: neither SYN nor ACK means nothing to a listener.
    assert!(world.exchange(&peer.seg(Flags::FIN, &[])).is_empty());
    assert!(world.exchange(&peer.seg(Flags::SYN | Flags::FIN, &[])).is_empty());
    assert_eq!(world.shard.counters().out_rsts, 3);
    world.assert_empty();
}

#[test]
fn segments_to_a_foreign_address_are_left_alone() {
    let mut world = World::new(small());
    world.listen(4);
    let mut peer = Peer::new(false, 9);
    peer.tuple.remote.addr = endpoint("10.0.0.77:0").addr;
    assert!(world.exchange(&peer.syn()).is_empty());
    assert!(world.exchange(&peer.ack()).is_empty());
    assert_eq!(world.shard.counters().foreign_address, 2);
}

#[test]
fn what_a_request_thinks_of_stray_segments() {
    let mut world = World::new(small());
    world.listen(4);
    let mut peer = Peer::new(false, 1234);
    peer.half_open(&mut world);
    let ours = peer.ack;

    // An ACK of what was never sent is reset (RFC 9293 §3.10.7.4), and nothing is lost by it.
    let wrong = Peer { ack: ours + 5, ..peer.clone() };
    assert_eq!(shown(&world.exchange(&wrong.ack())), [format!("R seq {} ack 0", ours + 5)]);
    // No ACK, no SYN: ignored.
    assert!(world.exchange(&peer.seg(Flags::PSH, b"x")).is_empty());
    // Outside the window: where we are, at most every 500 ms.
    let outside = Peer { seq: peer.seq.wrapping_sub(9), ..peer.clone() };
    let expected = [format!(". seq {ours} ack {}", peer.seq)];
    assert_eq!(shown(&world.exchange(&outside.ack())), expected);
    assert!(world.exchange(&outside.ack()).is_empty());
    // A RST anywhere but at the very next number is challenged (RFC 5961 §3.2).
    world.now += SECONDS / 2;
    let inexact = Peer { seq: peer.seq + 1, ..peer.clone() };
    assert_eq!(shown(&world.exchange(&inexact.rst())), expected);
    // So is a SYN in the window (RFC 5961 §4.2).
    world.now += SECONDS / 2;
    assert_eq!(shown(&world.exchange(&inexact.syn()))[0], expected[0]);
    assert_eq!(world.shard.gauges().syn_received, 1);
    // The exact RST ends it.
    assert!(world.exchange(&peer.rst()).is_empty());
    world.assert_empty();
    assert_eq!(world.shard.counters().attempt_fails, 1);
}

#[test]
fn sack_outlives_the_handshakes_record() {
    for permitted in [true, false] {
        let mut world = World::new(small());
        world.listen(4);
        let mut peer = Peer::new(permitted, 1234);
        peer.options.sack_permitted = permitted;
        peer.open(&mut world);
        peer.seq = peer.seq.wrapping_add(10);
        let sent = world.exchange(&peer.data(b"late"));
        let left = permitted.then_some(peer.seq);
        assert_eq!(sent[0].head.options.sack.as_slice().first().map(|block| block.left), left);
    }
}

#[test]
fn timestamps_guard_a_request_but_a_last_ack_without_them_is_taken() {
    let mut world = World::new(small());
    world.listen(4);
    let mut peer = Peer::new(false, 1234);
    peer.options.timestamps = Some(Timestamps { value: 1_000, echo: 0 });
    peer.half_open(&mut world);
    let mut old = peer.clone();
    old.options.timestamps = Some(Timestamps { value: 999, echo: 0 });
    let sent = world.exchange(&old.ack());
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].head.options.timestamps.unwrap().echo, 1_000);
    assert_eq!(world.shard.gauges().connections, 0);
    peer.options.timestamps = None;
    assert!(world.exchange(&peer.ack()).is_empty());
    assert_eq!(world.shard.gauges().connections, 1);
}

#[test]
fn unlistening_forgets_handshakes_and_resets_what_waits() {
    let mut world = World::new(small());
    let shared = world.listen(8);
    let mut waiting = Peer::new(false, 1);
    waiting.open(&mut world);
    let mut accepted = Peer::new(false, 2);
    accepted.open(&mut world);
    let conn = world.conn(1);
    world.shard.accepted(0, conn);
    let mut half = Peer::new(true, 3);
    half.half_open(&mut world);

    world.shard.unlisten(world.now, 0);
    assert_eq!(shared.syn_len(), 0);
    let sent = world.round();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].head.tuple, waiting.tuple);
    assert!(sent[0].head.flags.contains(Flags::RST));
    assert!(world.app(0).closed && !world.app(1).closed);
    // Whom it met is remembered.
    for (reason, peer) in [(Dropped::UnacceptedResets, &waiting), (Dropped::ListenerClosed, &half)]
    {
        let samples = world.shard.samples(Reason::Other(reason));
        let met: Vec<_> = samples.map(|sample| (sample.at, sample.tuple)).collect();
        assert_eq!(met, [(world.now, peer.tuple.flipped())]);
    }
    let gauges = world.shard.gauges();
    assert_eq!((gauges.connections, gauges.syn_received), (1, 0));
    // Too late.
    let sent = world.exchange(&half.ack());
    assert_eq!(shown(&sent), [format!("R seq {} ack 0", half.ack)]);
    // The accepted one lives.
    accepted.seq = accepted.seq.wrapping_add(0);
    world.exchange(&accepted.data(b"still here"));
    assert_eq!(world.app(1).received, b"still here");
    // The number can be used again.
    world.shard.listen(0, endpoint("[::]:80"), false, ListenerShared::new(1)).unwrap();
}

#[test]
fn a_connection_that_dies_unaccepted_keeps_its_place_until_its_entry_is_taken() {
    let mut world = World::new(small());
    let shared = world.listen(8);
    let mut peer = Peer::new(false, 1);
    peer.open(&mut world);
    world.exchange(&peer.rst());
    assert!(world.app(0).closed);
    assert_eq!(shared.accept_len(), 1);
    let conn = world.conn(0);
    world.shard.accepted(0, conn);
    assert_eq!(shared.accept_len(), 0);
    world.assert_empty();

    // Nor does the listener remember it.
    for port in 2..=4 {
        Peer::new(false, port).open(&mut world);
    }
    let conn = world.conn(2);
    world.shard.abort(conn).unwrap();
    assert_eq!(world.round().len(), 1);
    world.shard.unlisten(world.now, 0);
    assert_eq!(world.round().len(), 2);
    world.assert_empty();
}

#[test]
fn listeners_do_not_share_an_address_and_port_or_a_number() {
    let mut world = World::new(small());
    world.listen(1);
    let listen = |world: &mut World, id, local: &str| {
        world.shard.listen(id, endpoint(local), false, ListenerShared::new(1))
    };
    assert_eq!(listen(&mut world, 1, "[::]:80"), Err(ListenError::InUse));
    assert_eq!(listen(&mut world, 0, "[::]:81"), Err(ListenError::BadId));
    assert_eq!(listen(&mut world, 8, "[::]:81"), Err(ListenError::BadId));
    assert_eq!(listen(&mut world, 1, "10.0.0.1:80"), Ok(()));
    assert!(world.shard.uses_port(80) && !world.shard.uses_port(81));
}

#[test]
fn draining_refuses_syns_and_lets_handshakes_finish() {
    let mut world = World::new(small());
    world.listen(4);
    let mut under_way = Peer::new(false, 1);
    under_way.half_open(&mut world);
    world.shard.set_draining(true);
    assert_eq!(shown(&world.exchange(&Peer::new(false, 2).syn())), ["R. seq 0 ack 1001"]);
    assert!(world.exchange(&under_way.ack()).is_empty());
    assert_eq!(world.shard.gauges().connections, 1);
}

#[test]
fn a_syn_ack_without_room_is_counted_and_sent_by_the_timer() {
    let mut world = World::new(small());
    world.listen(4);
    world.host.tx_room = 0;
    assert!(world.exchange(&Peer::new(false, 1).syn()).is_empty());
    assert_eq!(world.shard.counters().tx_ring_full, 1);
    let sample = world.shard.samples(Reason::Other(Dropped::TxRingFull)).next().unwrap();
    assert_eq!((sample.tuple.remote.port, sample.flags), (1, Flags::SYN | Flags::ACK));
    assert_eq!(sample.at, world.now);
    world.host.tx_room = 8;
    assert_eq!(world.pass(SECONDS).len(), 1);
}
