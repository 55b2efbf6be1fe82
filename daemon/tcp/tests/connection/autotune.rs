//! How the buffers grow with what a connection needs, and shrink again.

use fourwave_tcp::{Config, Passive, Settings};

use crate::script::{MS, MSS, Script, passive, plain};

const FIRST: u32 = 64 << 10;
const MOST: u32 = 4 << 20;
/// As much as there is.
const ALL: u64 = 1 << 40;
/// The round-trip time that the handshake has measured, milliseconds.
const ROUND_TRIP: u64 = 10;

/// A server whose client scales windows and sends as fast as they allow.
fn scaling() -> Script {
    Script::passive(plain(), &Passive { peer_window_scale: Some(0), ..passive() })
}

fn limit(t: &Script) -> u32 {
    t.tcb.info(&t.cfg, t.now).receive_limit
}

/// How far the peer may send, as a position.
fn edge(t: &Script) -> u64 {
    t.tcb.rcv_tail() + u64::from(t.tcb.info(&t.cfg, t.now).receive_window)
}

/// A round trip: the peer sends up to `most` bytes, as far as the window goes, and hears our
/// acknowledgements; then the application reads `read` bytes. Returns the window asked for.
fn round(t: &mut Script, most: u64, read: u64) -> Option<u32> {
    t.wait(ROUND_TRIP);
    let edge = edge(t);
    let mut at = t.tcb.rcv_tail();
    let end = edge.min(at + most);
    while at < end {
        let next = end.min(at + MSS);
        t.inject(&format!(". {}:{}({}) ack 1", at + 1, next + 1, next - at));
        at = next;
    }
    while t.tcb.poll_transmit(&t.cfg, t.now).is_some() {}
    let info = t.tcb.info(&t.cfg, t.now);
    assert_eq!(info.bytes_received, at, "all of it lay in the window");
    let head = (t.read_so_far() + read).min(at);
    t.read_to(head);
    let wanted = t.tcb.tune_receive(&t.cfg, t.now);
    while t.tcb.poll_transmit(&t.cfg, t.now).is_some() {}
    wanted
}

/// The same, and what is asked for is given.
fn round_with_memory(t: &mut Script, most: u64, read: u64) {
    let before = edge(t);
    if let Some(wanted) = round(t, most, read) {
        t.tcb.set_receive_window(&t.cfg, wanted);
        while t.tcb.poll_transmit(&t.cfg, t.now).is_some() {}
    }
    assert!(edge(t) >= before, "the right edge never moves left");
}

#[test]
fn the_first_window_is_64_kib() {
    let t = scaling();
    assert_eq!(limit(&t), FIRST);
    assert_eq!(edge(&t), u64::from(u16::MAX), "a SYN cannot say more");
    let mut client = Script::client(plain());
    client.expect("S 0 win 65535");
}

#[test]
fn it_grows_with_a_fast_reader() {
    let mut t = scaling();
    let mut limits = vec![limit(&t)];
    for _ in 0..12 {
        round_with_memory(&mut t, ALL, ALL);
        limits.push(limit(&t));
    }
    assert!(limits.is_sorted(), "{limits:?}");
    assert!(limits[2] >= 2 * FIRST, "{limits:?}");
    assert_eq!(limits.last(), Some(&MOST), "{limits:?}");
    assert!(edge(&t) - t.tcb.rcv_tail() > u64::from(MOST) * 9 / 10, "and the peer is told");
}

#[test]
fn it_does_not_grow_with_a_slow_reader() {
    for read in [0, 1000, 20_000] {
        let mut t = scaling();
        for _ in 0..100 {
            round_with_memory(&mut t, ALL, read);
        }
        assert_eq!(limit(&t), FIRST, "{read} bytes in a round trip");
    }
}

#[test]
fn it_does_not_grow_with_a_reader_that_comes_seldom() {
    let mut t = scaling();
    for round in 0..200 {
        let read = if round % 20 == 19 { ALL } else { 0 };
        round_with_memory(&mut t, ALL, read);
    }
    assert_eq!(limit(&t), FIRST);
}

#[test]
fn it_does_not_grow_beyond_what_a_slow_sender_needs() {
    let mut t = scaling();
    for _ in 0..100 {
        round_with_memory(&mut t, 20_000, ALL);
    }
    assert_eq!(limit(&t), FIRST);
}

#[test]
fn what_is_not_given_is_asked_for_again() {
    let mut t = scaling();
    round(&mut t, ALL, ALL);
    for _ in 0..5 {
        let wanted = round(&mut t, ALL, ALL);
        assert!(wanted.is_some_and(|wanted| wanted > FIRST), "{wanted:?}");
        assert_eq!(limit(&t), FIRST);
    }
    t.tcb.set_receive_window(&t.cfg, 100_000);
    assert_eq!(limit(&t), 100_000);
    t.tcb.set_receive_window(&t.cfg, u32::MAX);
    assert_eq!(limit(&t), MOST, "never more than configured");
}

#[test]
fn an_idle_connection_starts_small_again() {
    let mut t = scaling();
    for _ in 0..12 {
        round_with_memory(&mut t, ALL, ALL);
    }
    let told = edge(&t);
    assert!(!t.tcb.rest_receive(&t.cfg, t.now), "it has just received");
    t.wait(1500);
    assert!(t.tcb.rest_receive(&t.cfg, t.now));
    assert_eq!(limit(&t), FIRST);
    // RFC 9293 §3.8.6, SHLD-14: what was offered can be used.
    assert_eq!(edge(&t), told);
    while t.tcb.rcv_tail() + u64::from(FIRST) < told {
        round(&mut t, 50_000, ALL);
        assert!(edge(&t) >= told && edge(&t) <= told.max(t.tcb.rcv_tail() + u64::from(FIRST)));
    }
    round(&mut t, 50_000, ALL);
    assert!(edge(&t) > told, "then it moves on");
}

#[test]
fn without_scaling_the_field_is_the_limit() {
    let mut t = Script::passive(plain(), &passive());
    for _ in 0..20 {
        round_with_memory(&mut t, ALL, ALL);
    }
    assert_eq!(limit(&t), u32::from(u16::MAX));
}

#[test]
fn a_buffer_that_was_chosen_is_not_tuned() {
    let mut t = scaling();
    let mut settings = Settings::default();
    settings.recv_buffer = 200_000;
    t.tcb.apply(&t.cfg, t.now, &settings);
    assert_eq!(limit(&t), FIRST, "more has to be backed");
    assert_eq!(round(&mut t, 1000, ALL), Some(200_000), "it is asked for at once");
    t.tcb.set_receive_window(&t.cfg, 200_000);
    for _ in 0..10 {
        assert_eq!(round(&mut t, ALL, ALL), None);
    }
    t.wait(5000);
    assert!(!t.tcb.rest_receive(&t.cfg, t.now));
    assert_eq!(limit(&t), 200_000);

    let mut t = scaling();
    settings.recv_buffer = 10_000;
    t.tcb.apply(&t.cfg, t.now, &settings);
    for _ in 0..20 {
        assert_eq!(round(&mut t, ALL, ALL), None);
    }
    assert_eq!(limit(&t), 10_000);
    assert!(edge(&t) - t.tcb.rcv_tail() <= 10_000);
}

#[test]
fn nobody_reads_after_the_end() {
    let mut t = scaling();
    round(&mut t, ALL, 0);
    let fin = t.tcb.rcv_tail() + 1;
    t.inject(&format!("F. {fin} ack 1"));
    t.wait(ROUND_TRIP);
    t.read();
    assert_eq!(t.tcb.tune_receive(&t.cfg, t.now), None);
}

/// Nothing of ours was ever timed: what the peer echoes tells the round trip, or without
/// timestamps that a whole window has come.
#[test]
fn a_round_trip_is_known_without_one_of_our_own() {
    let mut cfg = plain();
    let never = Passive { rtt: None, peer_window_scale: Some(0), ..passive() };
    let mut t = Script::passive(cfg.clone(), &never);
    for _ in 0..12 {
        round_with_memory(&mut t, ALL, ALL);
    }
    assert_eq!(limit(&t), MOST);

    cfg.timestamps = true;
    let echoing = Passive { peer_timestamp: Some(1), ..never };
    let mut t = Script::passive(cfg, &echoing);
    let mut at = 0u64;
    for round in 0..40u64 {
        t.wait(50);
        // Each echoes what we sent 50 ms ago; 20 kB in a round trip need no larger window.
        let echo = (t.now / MS) as u32 - 50;
        for _ in 0..20 {
            t.inject(&format!(". {}:{}(988) ack 1 ts {}:{echo}", at + 1, at + 989, 2 + round));
            at += 988;
        }
        t.read();
        assert_eq!(t.tcb.tune_receive(&t.cfg, t.now), None);
        while t.tcb.poll_transmit(&t.cfg, t.now).is_some() {}
    }
    assert_eq!(t.tcb.rcv_tail(), at);
}

#[test]
fn a_send_buffer_holds_two_congestion_windows() {
    let mut t = scaling();
    assert_eq!(t.tcb.send_space(&t.cfg), FIRST);
    let mut acked = 0u64;
    for _ in 0..12 {
        t.write(u64::from(t.tcb.send_space(&t.cfg)).saturating_sub(t.tcb.send_queue()));
        let mut sent = acked;
        while let Some(segment) = t.tcb.poll_transmit(&t.cfg, t.now) {
            sent = sent.max(segment.payload.end);
        }
        t.wait(ROUND_TRIP);
        acked = sent;
        t.inject(&format!(". 1 ack {} win 65535", acked + 1));
        let twice = 2 * t.tcb.congestion_window();
        assert_eq!(t.tcb.send_space(&t.cfg), twice.clamp(FIRST, MOST));
    }
    assert!(t.tcb.send_space(&t.cfg) > FIRST);

    let mut settings = Settings::default();
    settings.send_buffer = 30_000;
    t.tcb.apply(&t.cfg, t.now, &settings);
    assert_eq!(t.tcb.send_space(&t.cfg), 30_000);
    settings.send_buffer = u32::MAX;
    t.tcb.apply(&t.cfg, t.now, &settings);
    assert_eq!(t.tcb.send_space(&t.cfg), MOST);
}

/// A window of less than a step of the scale cannot be told.
#[test]
fn a_small_buffer_with_a_coarse_scale_is_not_told_as_none() {
    let cfg = Config { window_scale: 14, recv_window_max: 1 << 30, ..plain() };
    let mut t = Script::passive(cfg, &Passive { peer_window_scale: Some(0), ..passive() });
    let mut settings = Settings::default();
    settings.recv_buffer = 5000;
    t.tcb.apply(&t.cfg, t.now, &settings);
    for _ in 0..200 {
        round(&mut t, 700, ALL);
    }
    assert_eq!(t.tcb.rcv_tail(), 200 * 700);
    t.inject(&format!(". {0}:{1}(700) ack 1", 140_001, 140_701));
    t.wait(1000);
    t.read();
    let told = t.tcb.poll_transmit(&t.cfg, t.now).expect("an acknowledgement").window;
    assert!(told > 0, "the peer may go on");
}
