//! Selective acknowledgements, both ways.

use crate::script::{MS, MSS, Script, passive, plain};
use fourwave_tcp::{Config, Passive, State};

/// Expects full segments number `first..first + count`.
#[track_caller]
fn expect_full(t: &mut Script, first: u64, count: u64) {
    for i in first..first + count {
        t.expect(&format!(". {}:{}({MSS}) ack 1", 1 + i * MSS, 1 + (i + 1) * MSS));
    }
}

/// An ACK of `ack` whole segments that reports the segments `first..end` as held.
fn sack(t: &mut Script, ack: u64, first: u64, end: u64) {
    t.inject(&format!(". 1 ack {} sack {}:{}", 1 + ack * MSS, 1 + first * MSS, 1 + end * MSS));
}

/// Thirty segments wait, ten are sent.
fn ten_sent() -> Script {
    let mut t = Script::sacking();
    t.write(30 * MSS);
    expect_full(&mut t, 0, 10);
    t.silent();
    t
}

#[test]
fn sack_is_offered_and_agreed() {
    let mut t = Script::client(plain());
    assert!(t.expect("S 0 sackok yes").options.sack_permitted);
    t.inject("S. 0 ack 1 win 60000 mss 1000 sackok yes");
    t.expect(". 1 ack 1 sack -");
    t.inject("P. 11:21(10) ack 1");
    t.expect(". 1 ack 1 sack 11:21");
}

#[test]
fn without_an_agreement_there_are_no_blocks() {
    let mut t = Script::client(plain());
    t.expect("S 0 sackok yes");
    t.inject("S. 0 ack 1 win 60000 mss 1000");
    t.expect(". 1 ack 1 sack -");
    t.inject("P. 11:21(10) ack 1");
    t.expect(". 1 ack 1 sack -");

    let mut off = Script::client(Config { sack: false, ..plain() });
    assert!(!off.expect("S 0").options.sack_permitted);
    // An offer that answers none is not taken up.
    off.inject("S. 0 ack 1 win 60000 mss 1000 sackok yes");
    off.expect(". 1 ack 1");
    off.inject("P. 11:21(10) ack 1");
    off.expect(". 1 ack 1 sack -");
}

#[test]
fn a_simultaneous_open_agrees_too() {
    let mut t = Script::client(plain());
    t.expect("S 0 sackok yes");
    t.inject("S 0 win 60000 mss 1000 sackok yes");
    t.expect("S. 0 ack 1 sackok yes");
    t.inject("S. 0 ack 1 win 60000 mss 1000 sackok yes");
    t.state(State::Established);
    let mut t = Script::client(plain());
    t.expect("S 0 sackok yes");
    t.inject("S 0 win 60000 mss 1000");
    assert!(!t.expect("S. 0 ack 1").options.sack_permitted);
}

#[test]
fn the_newest_block_comes_first() {
    let mut t = Script::sacking();
    t.inject("P. 11:21(10) ack 1");
    t.expect(". 1 ack 1 sack 11:21");
    t.inject("P. 51:61(10) ack 1");
    t.expect(". 1 ack 1 sack 51:61,11:21");
    t.inject("P. 31:41(10) ack 1");
    t.expect(". 1 ack 1 sack 31:41,51:61,11:21");
    // One that grows is new again.
    t.inject("P. 21:26(5) ack 1");
    t.expect(". 1 ack 1 sack 11:26,31:41,51:61");
    t.inject("P. 71:81(10) ack 1");
    t.inject("P. 91:101(10) ack 1");
    // Four fit.
    t.expect(". 1 ack 1 sack 91:101,71:81,11:26,31:41");
    // The first hole is filled, then all of them.
    t.inject("P. 1:11(10) ack 1");
    t.expect(". 1 ack 26 sack 91:101,71:81,31:41,51:61");
    t.inject("P. 26:91(65) ack 1");
    t.expect(". 1 ack 101");
    t.has_received(100);
    t.inject("P. 101:102(1) ack 1");
    t.wait(40);
    t.expect(". 1 ack 102 sack -");
}

#[test]
fn beside_timestamps_three_blocks_fit() {
    let with = Passive { peer_timestamp: Some(1), sack_permitted: true, ..passive() };
    let mut t = Script::passive(Config::default(), &with);
    for start in [11, 31, 51, 71] {
        t.inject(&format!("P. {start}:{}(10) ack 1 ts 1:0", start + 10));
    }
    let ack = t.expect(". 1 ack 1 sack 71:81,51:61,31:41");
    assert_eq!(ack.options.wire_len(), 40);
}

#[test]
fn data_gives_way_to_blocks() {
    let mut t = Script::sacking();
    t.inject("P. 11:21(10) ack 1");
    t.write(2 * MSS);
    t.expect(". 1:989(988) ack 1 sack 11:21");
    t.expect(". 989:1977(988) ack 1 sack 11:21");
    t.tcb.set_nodelay(true);
    t.expect("P. 1977:2001(24) ack 1 sack 11:21");
}

#[test]
fn duplicates_are_reported_once() {
    let mut t = Script::sacking();
    t.inject("P. 1:21(20) ack 1");
    t.wait(40);
    t.expect(". 1 ack 21 sack -");
    // RFC 2883 §4.1.1: at the edge, before it, and half of it new.
    t.inject("P. 1:21(20) ack 1");
    t.expect(". 1 ack 21 sack 1:21");
    t.inject("P. 1:11(10) ack 1");
    t.expect(". 1 ack 21 sack 1:11");
    t.inject("P. 11:31(20) ack 1");
    t.wait(40);
    t.expect(". 1 ack 31 sack 11:21");
    t.inject("P. 31:41(10) ack 1");
    t.wait(40);
    t.expect(". 1 ack 41 sack -");
}

#[test]
fn duplicates_beyond_a_hole_come_before_the_block_they_are_in() {
    let mut t = Script::sacking();
    t.inject("P. 11:21(10) ack 1");
    t.inject("P. 31:41(10) ack 1");
    t.expect(". 1 ack 1 sack 31:41,11:21");
    // RFC 2883 §4.2.1: the second block is the larger one that holds the duplicate.
    t.inject("P. 11:16(5) ack 1");
    t.expect(". 1 ack 1 sack 11:16,11:21,31:41");
    // A batch: adjacent duplicates are one.
    t.inject("P. 11:16(5) ack 1");
    t.inject("P. 16:21(5) ack 1");
    t.expect(". 1 ack 1 sack 11:21,11:21,31:41");
    // What fills the hole brings some again.
    t.inject("P. 1:16(15) ack 1");
    t.expect(". 1 ack 21 sack 11:16,31:41");
}

#[test]
fn duplicates_after_the_fin_are_reported() {
    let mut t = Script::sacking();
    t.inject("FP. 1:11(10) ack 1");
    t.wait(40);
    t.expect(". 1 ack 12");
    t.inject("FP. 1:11(10) ack 1");
    t.expect(". 1 ack 12 sack 1:12");
}

#[test]
fn reports_let_new_data_go_then_repair() {
    let mut t = ten_sent();
    // Limited transmit (RFC 3042): what is held has left the network.
    sack(&mut t, 0, 1, 2);
    expect_full(&mut t, 10, 1);
    sack(&mut t, 0, 1, 3);
    expect_full(&mut t, 11, 1);
    t.silent();
    sack(&mut t, 0, 1, 4);
    assert!(t.expect(". 1:1001(1000) ack 1").retransmission);
    t.silent();
    // PRR: half of the ten, so every second report lets one go.
    let mut sent = 0;
    for end in 5..=12 {
        sack(&mut t, 0, 1, end);
        while t.tcb.poll_transmit(&t.cfg, t.now).is_some() {
            sent += 1;
        }
    }
    assert_eq!(sent, 4);
    t.inject(&format!(". 1 ack {}", 1 + 12 * MSS));
    assert_eq!(t.tcb.congestion_window(), 5000);
    assert_eq!(t.tcb.retransmits(), 1);
}

#[test]
fn every_hole_is_filled_in_one_round_trip() {
    let mut t = ten_sent();
    // 0, 2 and 4 are lost.
    t.inject(". 1 ack 1 sack 1001:2001");
    expect_full(&mut t, 10, 1);
    t.inject(". 1 ack 1 sack 3001:4001,1001:2001");
    expect_full(&mut t, 11, 1);
    t.inject(". 1 ack 1 sack 5001:6001,3001:4001,1001:2001");
    expect_full(&mut t, 0, 1);
    // Loss itself halves what is in flight; then PRR replaces what arrives.
    for end in [7, 8] {
        sack(&mut t, 0, 5, end);
        t.silent();
    }
    for (end, lost) in [(9, 2), (10, 4)] {
        sack(&mut t, 0, 5, end);
        let sent = t.expect(&format!(". {}:{}(1000) ack 1", lost * MSS + 1, (lost + 1) * MSS + 1));
        assert!(sent.retransmission);
        t.silent();
    }
    t.inject(". 1 ack 12001");
    assert_eq!(t.tcb.retransmits(), 3);
    assert_eq!(t.tcb.congestion_window(), 5000);
}

#[test]
fn a_block_larger_than_two_segments_is_enough() {
    let mut t = ten_sent();
    // One ACK for a whole batch: no three duplicates ever come.
    sack(&mut t, 0, 1, 3);
    expect_full(&mut t, 10, 2);
    t.silent();
    t.inject(". 1 ack 1 sack 1001:3002");
    assert!(t.expect(". 1:1001(1000) ack 1").retransmission);
}

#[test]
fn the_rest_is_filled_when_there_is_nothing_new() {
    let mut t = Script::sacking();
    t.write(8 * MSS);
    for _ in 0..8 {
        assert!(t.tcb.poll_transmit(&t.cfg, t.now).is_some());
    }
    // 0 is lost by the rule; 5 may be late only (RFC 6675 §4, NextSeg rule 3).
    t.inject(". 1 ack 1 sack 1001:5001,6001:7001");
    t.expect(". 1:1001(1000) ack 1");
    t.inject(". 1 ack 5001 sack 6001:7001");
    t.expect(". 5001:6001(1000) ack 1");
    // 7 left before the repair that has arrived, so it will not come any more.
    t.expect("P. 7001:8001(1000) ack 1");
    t.silent();
}

#[test]
fn acknowledged_data_and_lies_are_no_reports() {
    let mut t = ten_sent();
    t.inject(". 1 ack 1001");
    expect_full(&mut t, 10, 2);
    // Below, at the edge, beyond what was sent, upside down, half outside.
    for block in ["1:501", "1001:2001", "20001:21001", "3001:2001", "11001:13001", "501:3001"] {
        for _ in 0..4 {
            t.inject(&format!(". 1 ack 1001 sack {block}"));
            t.silent();
        }
    }
    assert_eq!(t.tcb.retransmits(), 0);
    // The same report again is no news.
    for _ in 0..4 {
        sack(&mut t, 1, 2, 3);
    }
    expect_full(&mut t, 12, 1);
    t.silent();
}

#[test]
fn a_timeout_goes_back_around_what_is_held() {
    let mut t = Script::sacking();
    t.write(6 * MSS);
    for _ in 0..6 {
        assert!(t.tcb.poll_transmit(&t.cfg, t.now).is_some());
    }
    t.inject(". 1 ack 1 sack 1001:2001");
    t.inject(". 1 ack 1 sack 3001:4001,1001:2001");
    t.silent();
    // The repair is lost as well.
    t.wait(3);
    t.expect(". 1:1001(1000) ack 1");
    t.silent();
    t.wait(210);
    t.expect(". 1:1001(1000) ack 1");
    t.silent();
    t.inject(". 1 ack 2001 sack 3001:4001");
    t.expect(". 2001:3001(1000) ack 1");
    t.expect(". 4001:5001(1000) ack 1");
    t.expect("P. 5001:6001(1000) ack 1");
    t.silent();
    t.inject(". 1 ack 6001");
    assert!(t.tcb.deadline().is_none());
    assert_eq!(t.tcb.retransmits(), 5);
}

#[test]
fn a_peer_that_throws_data_away_gets_it_again() {
    let mut t = Script::sacking();
    t.write(3 * MSS);
    expect_full(&mut t, 0, 2);
    t.expect("P. 2001:3001(1000) ack 1");
    t.inject(". 1 ack 1 sack 1001:3001");
    t.wait(210);
    t.expect(". 1:1001(1000) ack 1");
    t.silent();
    // RFC 2018 §8: it had reported the rest, and acknowledges only this.
    t.inject(". 1 ack 1001");
    t.wait(420);
    t.expect(". 1001:2001(1000) ack 1");
    t.inject(". 1 ack 2001");
    t.expect("P. 2001:3001(1000) ack 1");
}

#[test]
fn a_lost_fin_is_a_hole_too() {
    let mut t = Script::sacking();
    t.write(5 * MSS);
    t.close();
    expect_full(&mut t, 0, 4);
    t.expect("FP. 4001:5001(1000) ack 1");
    t.inject(". 1 ack 1 sack 1001:4001");
    t.expect(". 1:1001(1000) ack 1");
    t.inject(". 1 ack 4001");
    t.wait(500);
    t.expect("FP. 4001:5001(1000) ack 1");
    t.inject(". 1 ack 5002");
    t.state(State::FinWait2);
}

#[test]
fn loss_in_the_repair_of_a_timeout_waits_for_its_end() {
    let mut t = ten_sent();
    t.wait(22);
    expect_full(&mut t, 10, 1);
    t.wait(210);
    expect_full(&mut t, 0, 1);
    // These echo the first transmission: no second reduction (RFC 6675 §5.1).
    sack(&mut t, 0, 1, 6);
    assert_eq!(t.tcb.congestion_window(), MSS as u32);
    t.silent();
    assert_eq!(t.now % MS, 0);
}
