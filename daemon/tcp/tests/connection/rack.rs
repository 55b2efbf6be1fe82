//! Loss seen from time (RFC 8985): reordering windows and tail loss probes.

use crate::script::{MS, MSS, Script};
use fourwave_tcp::State;

/// `count` segments are written and sent; the round trip is 10 ms.
fn sent(count: u64) -> Script {
    let mut t = Script::sacking();
    t.write(count * MSS);
    for _ in 0..count {
        assert!(t.tcb.poll_transmit(&t.cfg, t.now).is_some());
    }
    t.silent();
    t
}

#[test]
fn one_report_is_enough_after_the_reordering_window() {
    let mut t = sent(2);
    t.wait(10);
    t.inject(". 1 ack 1 sack 1001:2001");
    t.silent();
    // A quarter of the round trip.
    t.wait(2);
    t.silent();
    t.wait(1);
    assert!(t.expect(". 1:1001(1000) ack 1").retransmission);
    t.silent();
    t.inject(". 1 ack 2001");
    assert_eq!(t.tcb.congestion_window(), 2000);
    assert!(t.tcb.deadline().is_none());
}

#[test]
fn what_comes_within_the_window_was_not_lost() {
    let mut t = sent(3);
    t.wait(10);
    t.inject(". 1 ack 1 sack 1001:2001");
    t.wait(2);
    t.inject(". 1 ack 2001");
    t.wait(5);
    t.silent();
    t.inject(". 1 ack 3001");
    t.wait(1000);
    t.silent();
    assert_eq!(t.tcb.retransmits(), 0);
}

#[test]
fn where_segments_overtake_each_other_a_count_proves_nothing() {
    let mut t = sent(10);
    t.wait(10);
    // 1 overtakes 0: order cannot be relied on.
    t.inject(". 1 ack 1 sack 1001:2001");
    t.inject(". 1 ack 2001");
    for end in [4, 5, 6, 7] {
        t.inject(&format!(". 1 ack 2001 sack 3001:{}", end * MSS + 1));
    }
    t.silent();
    t.wait(2);
    t.silent();
    t.wait(1);
    t.expect(". 2001:3001(1000) ack 1");
    t.silent();
}

#[test]
fn a_late_report_below_another_is_reordering_too() {
    let mut t = sent(10);
    t.inject(". 1 ack 1 sack 5001:6001");
    t.inject(". 1 ack 1 sack 3001:4001,5001:6001");
    t.inject(". 1 ack 1 sack 7001:9001,3001:4001,5001:6001");
    t.silent();
    t.wait(3);
    t.expect(". 1:1001(1000) ack 1");
    // Several in one ACK are not: the ACKs between may have been lost.
    let mut t = sent(10);
    t.inject(". 1 ack 1 sack 5001:6001,3001:4001,1001:2001");
    t.expect(". 1:1001(1000) ack 1");
}

#[test]
fn in_recovery_what_lies_below_a_report_is_lost_at_once() {
    let mut t = sent(10);
    t.inject(". 1 ack 1 sack 1001:4001");
    t.expect(". 1:1001(1000) ack 1");
    t.silent();
    // 4, 5, 6 and 7 are gone with a single report; half of the window goes on.
    t.inject(". 1 ack 1 sack 8001:9001,1001:4001");
    t.expect(". 4001:5001(1000) ack 1");
}

#[test]
fn a_lost_tail_is_probed_with_the_last_segment() {
    let mut t = sent(5);
    t.wait(10);
    t.inject(". 1 ack 2001");
    t.silent();
    // Twice the round trip, and two ticks.
    t.wait(21);
    t.silent();
    t.wait(1);
    let probe = t.expect("P. 4001:5001(1000) ack 1");
    assert!(probe.retransmission);
    t.silent();
    // All that was not reported was sent long before the probe.
    t.inject(". 1 ack 2001 sack 4001:5001");
    t.expect(". 2001:3001(1000) ack 1");
    t.inject(". 1 ack 3001 sack 4001:5001");
    t.expect(". 3001:4001(1000) ack 1");
    t.inject(". 1 ack 5001");
    assert!(t.tcb.deadline().is_none());
    assert_eq!(t.tcb.retransmits(), 3);
}

#[test]
fn a_probe_that_repaired_the_loss_is_a_loss() {
    let mut t = sent(2);
    t.wait(10);
    t.inject(". 1 ack 1001");
    // A lone segment's ACK may be delayed: the timeout comes before the probe would.
    t.wait(210);
    t.expect("P. 1001:2001(1000) ack 1");
    assert_eq!(t.tcb.congestion_window(), MSS as u32);

    let mut t = sent(4);
    t.wait(10);
    t.inject(". 1 ack 2001");
    t.wait(22);
    t.expect("P. 3001:4001(1000) ack 1");
    t.inject(". 1 ack 4001");
    let window = t.tcb.congestion_window();
    t.write(MSS);
    t.expect("P. 4001:5001(1000) ack 1");
    // Beyond the probe, and no duplicate was reported.
    t.inject(". 1 ack 5001");
    assert!(t.tcb.congestion_window() < window);
}

#[test]
fn a_probe_that_arrived_twice_was_for_nothing() {
    for duplicate in [". 1 ack 4001 sack 3001:4001", ". 1 ack 4001"] {
        let mut t = sent(4);
        t.wait(10);
        t.inject(". 1 ack 2001");
        t.wait(22);
        t.expect("P. 3001:4001(1000) ack 1");
        t.inject(". 1 ack 4001");
        let window = t.tcb.congestion_window();
        t.inject(duplicate);
        t.write(MSS);
        t.expect("P. 4001:5001(1000) ack 1");
        t.inject(". 1 ack 5001");
        assert_eq!(t.tcb.congestion_window(), window);
    }
}

#[test]
fn new_data_is_the_better_probe() {
    let mut t = Script::sacking();
    t.write(20 * MSS);
    for _ in 0..10 {
        assert!(t.tcb.poll_transmit(&t.cfg, t.now).is_some());
    }
    t.silent();
    t.wait(22);
    let probe = t.expect(". 10001:11001(1000) ack 1");
    assert!(!probe.retransmission);
    t.silent();
    // One probe at a time: then the timeout, counted from the probe.
    t.wait(209);
    t.silent();
    t.wait(1);
    t.expect(". 1:1001(1000) ack 1");
    t.silent();
    assert_eq!(t.now % MS, 0);
}

#[test]
fn a_lost_fin_is_probed() {
    let mut t = Script::sacking();
    t.write(3 * MSS);
    t.close();
    for _ in 0..3 {
        assert!(t.tcb.poll_transmit(&t.cfg, t.now).is_some());
    }
    t.inject(". 1 ack 1001");
    t.wait(22);
    t.expect("FP. 2001:3001(1000) ack 1");
    t.inject(". 1 ack 3002");
    t.state(State::FinWait2);
}

#[test]
fn without_sack_nothing_is_probed() {
    let mut t = Script::server();
    t.write(3 * MSS);
    for _ in 0..3 {
        assert!(t.tcb.poll_transmit(&t.cfg, t.now).is_some());
    }
    t.wait(209);
    t.silent();
}

#[test]
fn a_repair_that_is_lost_is_noticed_by_what_was_sent_after_it() {
    let mut t = sent(10);
    t.write(10 * MSS);
    t.inject(". 1 ack 1 sack 1001:4001");
    assert!(t.expect(". 1:1001(1000) ack 1").retransmission);
    t.silent();
    // Each report lets a segment go every other time; the first of them left after the repair.
    for end in [6, 8, 10] {
        t.inject(&format!(". 1 ack 1 sack 1001:{}", end * MSS + 1));
        while let Some(sent) = t.tcb.poll_transmit(&t.cfg, t.now) {
            assert!(!sent.retransmission, "all the rest has arrived");
        }
    }
    t.inject(". 1 ack 1 sack 1001:11001");
    assert!(t.expect(". 1:1001(1000) ack 1").retransmission);
    // Once more only when that is known to be lost too.
    t.inject(". 1 ack 1 sack 1001:12001");
    let next = t.tcb.poll_transmit(&t.cfg, t.now);
    assert!(next.is_none_or(|sent| !sent.retransmission));
}

#[test]
fn a_repair_that_is_lost_is_noticed_by_one_that_arrives() {
    let mut t = sent(10);
    // 0 and 2 are lost.
    t.inject(". 1 ack 1 sack 1001:2001,3001:7001");
    assert!(t.expect(". 1:1001(1000) ack 1").retransmission);
    t.inject(". 1 ack 1 sack 3001:10001,1001:2001");
    assert!(t.expect(". 2001:3001(1000) ack 1").retransmission);
    t.silent();
    // The repair of 2 has come, that of 0 has not.
    t.inject(". 1 ack 1 sack 1001:10001");
    assert!(t.expect(". 1:1001(1000) ack 1").retransmission);
    t.inject(". 1 ack 10001");
    assert_eq!((t.tcb.retransmits(), t.tcb.congestion_window()), (3, 5000));
}

#[test]
fn what_left_before_a_repair_that_arrives_is_lost() {
    let mut t = sent(10);
    t.inject(". 1 ack 1 sack 1001:4001");
    assert!(t.expect(". 1:1001(1000) ack 1").retransmission);
    // 4 to 9 left before it and were never reported.
    t.inject(". 1 ack 4001");
    assert!(t.expect(". 4001:5001(1000) ack 1").retransmission);
    assert!(t.expect(". 5001:6001(1000) ack 1").retransmission);
}

#[test]
fn after_a_timeout_a_lost_repair_is_noticed_too() {
    let mut t = sent(10);
    t.wait(22);
    assert!(t.tcb.poll_transmit(&t.cfg, t.now).is_some(), "the tail is probed");
    t.wait(220);
    assert!(t.expect(". 1:1001(1000) ack 1").retransmission);
    t.inject(". 1 ack 1001");
    t.expect(". 1001:2001(1000) ack 1");
    t.expect(". 2001:3001(1000) ack 1");
    t.silent();
    // The repair of 2 has come, that of 1 has not.
    t.inject(". 1 ack 1001 sack 2001:3001");
    assert!(t.expect(". 1001:2001(1000) ack 1").retransmission);
    let waits = t.tcb.retransmits();
    t.inject(". 1 ack 1001 sack 2001:3001");
    assert!(t.tcb.retransmits() <= waits + 1);
}
