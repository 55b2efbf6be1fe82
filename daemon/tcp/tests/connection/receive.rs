//! Receiving: order, holes, windows, and when to acknowledge.

use crate::script::{MSS, Script, passive, plain};
use fourwave_tcp::{Config, DropReason, Events, OutOfRange, Passive, State};

/// Full-sized segments from the peer, `first` the number of the first (from 0).
fn inject_full(t: &mut Script, first: u64, count: u64) {
    for i in first..first + count {
        let start = 1 + i * MSS;
        t.inject(&format!(". {start}:{}({MSS}) ack 1", start + MSS));
    }
}

#[test]
fn a_short_segment_waits_for_something_to_ride_on() {
    let mut t = Script::server();
    t.inject("P. 1:65(64) ack 1");
    t.wait(39);
    t.silent();
    t.wait(1);
    t.expect(". 1 ack 65");
    t.silent();
    assert!(t.tcb.deadline().is_none());
}

#[test]
fn the_delay_counts_from_the_first_segment() {
    let mut t = Script::server();
    t.inject("P. 1:11(10) ack 1");
    t.wait(30);
    t.inject("P. 11:21(10) ack 1");
    t.wait(10);
    t.expect(". 1 ack 21");
}

#[test]
fn full_segments_are_acknowledged_one_by_one_then_in_pairs() {
    let mut t = Script::server();
    for i in 0..16 {
        inject_full(&mut t, i, 1);
        t.expect(&format!(". 1 ack {}", 1 + (i + 1) * MSS));
        t.read();
    }
    inject_full(&mut t, 16, 1);
    t.silent();
    inject_full(&mut t, 17, 1);
    t.expect(&format!(". 1 ack {}", 1 + 18 * MSS));
    t.silent();
    inject_full(&mut t, 18, 1);
    t.wait(40);
    t.expect(&format!(". 1 ack {}", 1 + 19 * MSS));
}

#[test]
fn a_batch_is_acknowledged_once() {
    let mut t = Script::server();
    inject_full(&mut t, 0, 8);
    t.expect(". 1 ack 8001");
    t.silent();
    t.has_received(8000);
}

#[test]
fn a_hole_is_told_at_once_and_so_is_its_end() {
    let mut t = Script::server();
    t.inject("P. 11:21(10) ack 1");
    t.happened(Events::NONE);
    t.expect(". 1 ack 1");
    t.inject("P. 31:41(10) ack 1");
    t.expect(". 1 ack 1");
    t.inject("P. 1:11(10) ack 1");
    t.happened(Events::READABLE);
    t.expect(". 1 ack 21");
    t.inject("P. 21:31(10) ack 1");
    t.expect(". 1 ack 41");
    t.has_received(40);
}

#[test]
fn repeated_and_overlapping_data_is_trimmed() {
    let mut t = Script::server();
    t.inject("P. 1:21(20) ack 1");
    t.wait(40);
    t.expect(". 1 ack 21");
    assert_eq!(t.inject("P. 1:21(20) ack 1"), Some(DropReason::Duplicate));
    t.expect(". 1 ack 21");
    t.inject("P. 11:31(20) ack 1");
    t.has_received(30);
    // Out of order, overlapping what came out of order.
    t.inject("P. 41:61(20) ack 1");
    t.inject("P. 36:51(15) ack 1");
    t.expect(". 1 ack 31");
    t.inject("P. 21:41(20) ack 1");
    t.has_received(60);
}

#[test]
fn what_lies_before_the_window_is_answered() {
    let mut t = Script::server();
    t.inject("P. 1:21(20) ack 1");
    t.wait(40);
    t.expect(". 1 ack 21");
    assert_eq!(t.inject("P. 1:11(10) ack 1"), Some(DropReason::OutOfWindow));
    t.expect(". 1 ack 21");
}

#[test]
fn a_keepalive_probe_is_answered_at_a_limited_rate() {
    let mut t = Script::server();
    assert_eq!(t.inject(". 0 ack 1"), Some(DropReason::OutOfWindow));
    t.expect(". 1 ack 1");
    t.inject(". 0 ack 1");
    t.silent();
    t.wait(500);
    t.inject(". 0 ack 1");
    t.expect(". 1 ack 1");
}

#[test]
fn the_window_closes_and_opens() {
    let mut t = Script::server();
    inject_full(&mut t, 0, 65);
    t.expect(". 1 ack 65001 win 535");
    // Beyond the window: cut off.
    t.inject(". 65001:66001(1000) ack 1");
    t.wait(40);
    t.expect(". 1 ack 65536 win 0");
    t.has_received(65_535);
    assert_eq!(t.inject(". 65536:66536(1000) ack 1"), Some(DropReason::ZeroWindow));
    t.expect(". 1 ack 65536 win 0");
    // A probe's acknowledgement counts even now.
    t.write(10);
    t.expect("P. 1:11(10) ack 65536");
    t.inject(". 65536 ack 11");
    assert_eq!(t.tcb.snd_acked(), 10);
    // Too little to tell.
    t.tcb.set_consumed(999).unwrap();
    t.silent();
    t.tcb.set_consumed(1000).unwrap();
    t.expect(". 11 ack 65536 win 1000");
    t.read();
    t.expect(". 11 ack 65536 win 65535");
    t.silent();
}

#[test]
fn reading_little_sends_no_update() {
    let mut t = Script::server();
    t.inject("P. 1:501(500) ack 1");
    t.wait(40);
    t.expect(". 1 ack 501");
    t.read();
    t.silent();
}

#[test]
fn half_the_buffer_read_is_worth_an_update() {
    let mut t = Script::server();
    inject_full(&mut t, 0, 40);
    t.expect(". 1 ack 40001 win 25535");
    t.tcb.set_consumed(32_000).unwrap();
    t.silent();
    t.read();
    t.expect(". 1 ack 40001 win 65535");
}

#[test]
fn a_scaled_window_reaches_further() {
    let cfg = Config { recv_window_max: 1 << 20, ..plain() };
    let passive = Passive { peer_window_scale: Some(0), ..passive() };
    let mut t = Script::passive(cfg, &passive);
    inject_full(&mut t, 0, 2);
    t.expect(". 1 ack 2001 win 8176");
}

#[test]
fn offsets_out_of_range_are_refused() {
    let mut t = Script::server();
    t.inject("P. 1:11(10) ack 1");
    assert_eq!(t.tcb.set_consumed(11), Err(OutOfRange));
    assert_eq!(t.tcb.set_consumed(u64::MAX), Err(OutOfRange));
    assert_eq!(t.tcb.set_consumed(10), Ok(()));
    assert_eq!(t.tcb.set_consumed(9), Err(OutOfRange));
    let buffer = u64::from(t.cfg.send_buffer);
    assert_eq!(t.tcb.set_send_tail(&t.cfg, buffer + 1), Err(OutOfRange));
    assert_eq!(t.tcb.set_send_tail(&t.cfg, u64::MAX), Err(OutOfRange));
    assert_eq!(t.tcb.set_send_tail(&t.cfg, 10), Ok(()));
    assert_eq!(t.tcb.set_send_tail(&t.cfg, 9), Err(OutOfRange));
    t.shutdown();
    assert_eq!(t.tcb.set_send_tail(&t.cfg, 11), Err(OutOfRange));
    assert_eq!(t.tcb.set_send_tail(&t.cfg, 10), Ok(()));
}

#[test]
fn without_memory_the_segment_did_not_come() {
    let mut t = Script::server();
    t.received.is_full = true;
    assert_eq!(t.inject("FP. 1:11(10) ack 1"), Some(DropReason::NoMemory));
    assert_eq!(t.inject("P. 11:21(10) ack 1"), Some(DropReason::NoMemory));
    t.happened(Events::NONE);
    t.state(State::Established);
    t.expect(". 1 ack 1");
    t.received.is_full = false;
    t.inject("FP. 1:11(10) ack 1");
    t.happened(Events::READABLE | Events::PEER_FIN);
}

#[test]
fn more_holes_than_are_tracked_are_left_to_the_peer() {
    let mut t = Script::server();
    for i in 1..=16 {
        assert_eq!(t.inject(&format!(". {0}:{1}(1) ack 1", i * 10, i * 10 + 1)), None);
    }
    assert_eq!(t.inject(". 180:181(1) ack 1"), Some(DropReason::TooManyHoles));
    t.inject(". 1:180(179) ack 1");
    t.has_received(179);
}

#[test]
fn nothing_counts_after_the_fin() {
    let mut t = Script::server();
    t.inject("F. 21:31(10) ack 1");
    // A FIN that contradicts the first, and data behind it.
    t.inject("F. 41:51(10) ack 1");
    t.inject("P. 31:36(5) ack 1");
    t.inject("P. 1:41(40) ack 1");
    t.happened(Events::READABLE | Events::PEER_FIN);
    t.has_received(30);
    t.expect(". 1 ack 32");
}

#[test]
fn a_fin_before_known_data_is_a_lie() {
    let mut t = Script::server();
    t.inject("P. 31:41(10) ack 1");
    t.inject("F. 11:21(10) ack 1");
    t.inject("P. 1:11(10) ack 1");
    t.state(State::Established);
    t.inject("F. 21:41(20) ack 1");
    t.state(State::CloseWait);
    t.has_received(40);
}

#[test]
fn a_fin_out_of_order_waits() {
    let mut t = Script::server();
    t.inject("F. 11 ack 1");
    t.state(State::Established);
    t.expect(". 1 ack 1");
    t.inject("P. 1:11(10) ack 1");
    t.happened(Events::READABLE | Events::PEER_FIN);
    t.state(State::CloseWait);
}

#[test]
fn timestamps_guard_against_old_segments() {
    let with = Passive { peer_timestamp: Some(100), ..passive() };
    let mut t = Script::passive(Config::default(), &with);
    t.inject(". 1 ack 1 ts 100:0");
    t.inject("P. 1:11(10) ack 1 ts 105:0");
    assert_eq!(t.inject("P. 11:21(10) ack 1 ts 104:0"), Some(DropReason::OldTimestamp));
    t.expect(". 1 ack 11 ts 1000000:105");
    t.has_received(10);
    // One that lacks the option is taken, as Linux takes it.
    assert_eq!(t.inject("P. 11:21(10) ack 1"), None);
    // A RST needs none.
    t.inject("R 21 ts 1:0");
    t.state(State::Closed);
}

#[test]
fn the_echoed_timestamp_is_the_oldest_unacknowledged() {
    let with = Passive { peer_timestamp: Some(100), ..passive() };
    let mut t = Script::passive(Config::default(), &with);
    t.inject(". 1 ack 1 ts 100:0");
    t.inject("P. 1:11(10) ack 1 ts 110:0");
    t.inject("P. 11:21(10) ack 1 ts 120:0");
    // Delayed: the peer measures the delay too (RFC 7323 §4.3 A).
    t.wait(40);
    t.expect(". 1 ack 21 ts 1000040:110");
    // Beyond a hole: not echoed (case B).
    t.inject("P. 31:41(10) ack 1 ts 130:0");
    t.expect(". 1 ack 21 ts 1000040:110");
}

#[test]
fn a_timestamp_of_a_month_ago_says_nothing() {
    let with = Passive { peer_timestamp: Some(100), ..passive() };
    let mut t = Script::passive(Config::default(), &with);
    t.inject(". 1 ack 1 ts 100:0");
    t.wait(25 * 24 * 3600 * 1000);
    assert_eq!(t.inject("P. 1:11(10) ack 1 ts 50:0"), None);
}
