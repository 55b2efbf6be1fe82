//! Sending: windows, Nagle, probes, loss and its recovery.

use crate::script::{MS, MSS, Script, passive, plain};
use fourwave_tcp::{Config, CongestionControl, Error, Events, Passive, State};
use fourwave_wire::IcmpKind;

/// Expects full segments number `first..first + count`, the last one pushed or not.
#[track_caller]
fn expect_full(t: &mut Script, first: u64, count: u64, pushed: bool) {
    for i in first..first + count {
        let flags = if pushed && i == first + count - 1 { "P." } else { "." };
        t.expect(&format!("{flags} {}:{}({MSS}) ack 1", 1 + i * MSS, 1 + (i + 1) * MSS));
    }
}

fn without_nagle() -> Script {
    let mut t = Script::server();
    t.tcb.set_nodelay(true);
    t
}

#[test]
fn the_first_window_is_ten_segments() {
    let mut t = Script::server();
    t.write(20 * MSS);
    expect_full(&mut t, 0, 10, false);
    t.silent();
    // Slow start: each ACK of two lets four go.
    t.inject(". 1 ack 2001");
    t.happened(Events::WRITABLE);
    expect_full(&mut t, 10, 4, false);
    t.silent();
}

#[test]
fn the_peers_window_is_never_exceeded() {
    let mut t = Script::server();
    t.inject(". 1 ack 1 win 2500");
    t.write(5 * MSS);
    expect_full(&mut t, 0, 2, false);
    // 500 more would be silly.
    t.silent();
    t.inject(". 1 ack 2001 win 500");
    t.silent();
    t.inject(". 1 ack 2001 win 3000");
    expect_full(&mut t, 2, 3, true);
    t.silent();
}

#[test]
fn half_of_a_small_buffer_is_not_silly() {
    let passive = Passive { peer_window: 600, ..passive() };
    let mut t = Script::passive(plain(), &passive);
    // The script's first ACK told 60000: a peer whose window was never large is another one.
    let mut small = Script::client(plain());
    small.expect("S 0");
    small.inject("S. 0 ack 1 mss 1000 win 600");
    small.write(5 * MSS);
    small.expect(". 1:601(600) ack 1");
    t.write(10);
    t.expect("P. 1:11(10) ack 1");
}

#[test]
fn nagle_holds_the_second_small_segment() {
    let mut t = Script::server();
    t.write(10);
    t.expect("P. 1:11(10) ack 1");
    t.write(10);
    t.silent();
    // A full one may always go.
    t.write(MSS - 10);
    t.expect("P. 11:1011(1000) ack 1");
    t.write(5);
    t.silent();
    t.inject(". 1 ack 1011");
    t.expect("P. 1011:1016(5) ack 1");
}

#[test]
fn nodelay_does_not_wait() {
    let mut t = without_nagle();
    t.write(10);
    t.expect("P. 1:11(10) ack 1");
    t.write(10);
    t.expect("P. 11:21(10) ack 1");
}

#[test]
fn a_fin_does_not_wait_for_nagle() {
    let mut t = Script::server();
    t.write(10);
    t.expect("P. 1:11(10) ack 1");
    t.write(10);
    t.close();
    t.expect("FP. 11:21(10) ack 1");
}

#[test]
fn a_lost_segment_is_sent_again_with_backoff() {
    let mut t = Script::server();
    t.write(10);
    t.expect("P. 1:11(10) ack 1");
    // The handshake took 10 ms: 10 + max(200, 4 * 5).
    for (pause, count) in [(210, 1), (420, 2), (840, 3)] {
        t.wait(pause - 1);
        t.silent();
        t.wait(1);
        assert!(t.expect("P. 1:11(10) ack 1").retransmission);
        assert_eq!(t.tcb.retransmits(), count);
    }
    t.inject(". 1 ack 11");
    t.happened(Events::WRITABLE);
    assert!(t.tcb.deadline().is_none());
    // Karn: the answer was ambiguous, the estimate stays.
    assert_eq!(t.tcb.srtt(), Some(10 * MS));
}

#[test]
fn timestamps_tell_which_transmission_was_answered() {
    let with = Passive { peer_timestamp: Some(1), ..passive() };
    let mut t = Script::passive(Config::default(), &with);
    t.inject(". 1 ack 1 ts 1:0");
    t.write(10);
    t.expect("P. 1:11(10) ack 1");
    t.wait(210);
    t.expect("P. 1:11(10) ack 1 ts 1000210:1");
    t.wait(50);
    t.inject(". 1 ack 11 ts 2:1000210");
    // 7/8 of 10 ms and 1/8 of 50 ms.
    assert_eq!(t.tcb.srtt(), Some(15 * MS));
}

#[test]
fn a_timeout_goes_back_and_starts_slowly() {
    let mut t = Script::server();
    t.write(4 * MSS);
    expect_full(&mut t, 0, 4, true);
    t.wait(210);
    expect_full(&mut t, 0, 1, false);
    t.silent();
    assert_eq!(t.tcb.congestion_window(), MSS as u32);
    t.inject(". 1 ack 1001");
    expect_full(&mut t, 1, 2, false);
    t.silent();
    // The peer had the rest.
    t.inject(". 1 ack 4001");
    t.silent();
    assert!(t.tcb.deadline().is_none());
}

#[test]
fn an_ack_after_going_back_carries_the_highest_number() {
    let mut t = Script::server();
    t.write(2 * MSS);
    expect_full(&mut t, 0, 2, true);
    t.wait(210);
    expect_full(&mut t, 0, 1, false);
    t.inject(". 1:1001(1000) ack 1");
    t.expect(". 2001 ack 1001");
}

#[test]
fn three_duplicate_acks_mean_loss() {
    let mut t = Script::server();
    t.write(20 * MSS);
    expect_full(&mut t, 0, 10, false);
    t.inject(". 1 ack 1001");
    expect_full(&mut t, 10, 2, false);
    // Segment 1 is lost. Limited transmit sends one new segment on each of the first two.
    t.inject(". 1 ack 1001");
    expect_full(&mut t, 12, 1, false);
    t.inject(". 1 ack 1001");
    expect_full(&mut t, 13, 1, false);
    t.silent();
    t.inject(". 1 ack 1001");
    let sent = t.expect(". 1001:2001(1000) ack 1");
    assert!(sent.retransmission);
    t.silent();
    // Half of the 11 that the window let go, limited transmit not counted, and the three that left.
    assert_eq!(t.tcb.congestion_window(), 8500);
    // Segment 5 is lost too: a partial acknowledgement says so.
    t.inject(". 1 ack 5001");
    t.expect(". 5001:6001(1000) ack 1");
    t.inject(". 1 ack 14001");
    assert_eq!(t.tcb.congestion_window(), 2000);
    expect_full(&mut t, 14, 2, false);
    assert_eq!(t.tcb.retransmits(), 2);
}

#[test]
fn acks_with_a_new_window_or_data_are_no_duplicates() {
    let mut t = Script::server();
    t.write(5 * MSS);
    expect_full(&mut t, 0, 5, true);
    t.inject(". 1 ack 1001");
    for window in [50_000, 49_000, 48_000] {
        t.inject(&format!(". 1 ack 1001 win {window}"));
    }
    for start in [1, 11, 21] {
        t.inject(&format!("P. {start}:{}(10) ack 1001 win 48000", start + 10));
    }
    t.silent();
    assert_eq!(t.tcb.retransmits(), 0);
}

#[test]
fn retries_are_spent_in_the_end() {
    let mut t = Script::server();
    t.write(10);
    t.expect("P. 1:11(10) ack 1");
    let mut pause = 210;
    for _ in 0..15 {
        t.wait(pause);
        t.expect("P. 1:11(10) ack 1");
        pause = (pause * 2).min(120_000);
    }
    t.wait(pause - 1);
    t.happened(Events::NONE);
    t.wait(1);
    t.happened(Events::TIMED_OUT | Events::CLOSED);
    assert_eq!(t.tcb.error(), Some(Error::TimedOut));
    t.silent();
}

#[test]
fn a_closed_window_is_probed_for_as_long_as_the_peer_answers() {
    let mut t = Script::server();
    t.write(10);
    t.expect("P. 1:11(10) ack 1");
    t.inject(". 1 ack 11 win 0");
    t.write(2 * MSS);
    t.silent();
    for _ in 0..100 {
        t.wait(120_000);
        t.expect(". 10 ack 1");
        t.silent();
        t.inject(". 1 ack 11 win 0");
    }
    t.happened(Events::WRITABLE);
    t.inject(". 1 ack 11 win 5000");
    t.expect(". 11:1011(1000) ack 1");
    t.expect("P. 1011:2011(1000) ack 1");
    // The probes' backoff is forgotten.
    t.wait(210);
    t.expect(". 11:1011(1000) ack 1");
}

/// A probe's number is one that the peer may refuse, with all that the segment says.
#[test]
fn a_probe_takes_no_acknowledgement_away() {
    let mut t = Script::server();
    t.inject(". 1 ack 1 win 0");
    t.write(10);
    t.silent();
    t.wait(200);
    t.inject("P. 1:11(10) ack 1 win 0");
    t.wait(10);
    t.expect(". 0 ack 11");
    t.silent();
    t.wait(30);
    t.expect(". 1 ack 11");
    t.silent();
}

/// A retransmission lies before the segment that brought the last window. What it acknowledges is
/// new all the same, and so is its window.
#[test]
fn what_acknowledges_something_new_brings_a_new_window() {
    let mut t = Script::server();
    t.inject(". 1001 ack 1 win 2000");
    t.write(4 * MSS);
    expect_full(&mut t, 0, 2, false);
    t.silent();
    t.inject(". 1:1001(1000) ack 2001 win 0");
    t.expect(". 2001 ack 1001");
    t.silent();
}

#[test]
fn probes_back_off_and_give_up_without_an_answer() {
    let mut t = Script::server();
    t.inject(". 1 ack 1 win 0");
    t.write(10);
    t.silent();
    let mut pause = 210;
    for _ in 0..15 {
        t.wait(pause - 1);
        t.silent();
        t.wait(1);
        t.expect(". 0 ack 1");
        pause = (pause * 2).min(120_000);
    }
    t.wait(pause);
    t.happened(Events::TIMED_OUT | Events::CLOSED);
}

#[test]
fn a_window_too_small_for_a_segment_is_used_after_a_while() {
    let mut t = Script::server();
    t.inject(". 1 ack 1 win 100");
    t.write(2 * MSS);
    t.silent();
    t.wait(210);
    t.expect(". 1:101(100) ack 1");
    t.silent();
    t.inject(". 1 ack 101 win 60000");
    t.expect(". 101:1101(1000) ack 1");
}

#[test]
fn a_fin_waits_for_the_window_too() {
    let mut t = Script::server();
    t.inject(". 1 ack 1 win 0");
    t.shutdown();
    t.silent();
    t.wait(210);
    t.expect(". 0 ack 1");
    t.inject(". 1 ack 1 win 1");
    t.expect("F. 1 ack 1");
}

#[test]
fn a_window_that_shrinks_is_survived() {
    let mut t = Script::server();
    t.write(5 * MSS);
    expect_full(&mut t, 0, 5, true);
    t.inject(". 1 ack 1001 win 0");
    t.silent();
    // What was sent is repeated, window or not, and answers keep it alive.
    for _ in 0..40 {
        t.wait(120_000);
        t.expect(". 1001:2001(1000) ack 1");
        t.silent();
        t.inject(". 1 ack 1001 win 0");
    }
    t.state(State::Established);
    t.inject(". 1 ack 2001 win 60000");
    t.expect(". 2001:3001(1000) ack 1");
}

#[test]
fn an_older_segments_window_does_not_count() {
    let mut t = Script::server();
    t.inject("P. 1:11(10) ack 1 win 5000");
    t.write(10);
    t.expect("P. 1:11(10) ack 11");
    t.inject(". 11 ack 11 win 4000");
    t.inject(". 11 ack 5 win 9000");
    t.inject("P. 1:11(10) ack 11 win 9000");
    assert_eq!(t.tcb.send_window(), 4000);
}

#[test]
fn an_idle_connection_starts_slowly_again() {
    let mut t = Script::server();
    for i in 0..10 {
        t.write(10 * MSS);
        expect_full(&mut t, i * 10, 10, true);
        t.inject(&format!(". 1 ack {}", 1 + (i + 1) * 10 * MSS));
    }
    assert!(t.tcb.congestion_window() > 11_000);
    t.wait(1000);
    t.write(30 * MSS);
    expect_full(&mut t, 100, 10, false);
    t.silent();
}

#[test]
fn a_smaller_path_cuts_smaller_segments() {
    let mut t = Script::server();
    t.write(2 * MSS);
    expect_full(&mut t, 0, 2, true);
    let kind = IcmpKind::PacketTooBig { mtu: 640 };
    let seq = crate::script::OUR_ISS.wrapping_add(1);
    let reaction = t.tcb.handle_icmp(&t.cfg, t.now, seq, kind);
    assert_eq!(reaction.drop, None);
    t.expect(". 1:601(600) ack 1");
    t.expect(". 601:1201(600) ack 1");
    t.expect(". 1201:1801(600) ack 1");
    t.expect("P. 1801:2001(200) ack 1");
    t.silent();
    assert_eq!(t.tcb.mss(), 600);
    assert_eq!(t.tcb.congestion_window(), 10_000);
    // Silly claims are cut to Linux's minimum.
    let _ = t.tcb.handle_icmp(&t.cfg, t.now, seq, IcmpKind::PacketTooBig { mtu: 68 });
    assert_eq!(t.tcb.mss(), 512);
}

#[test]
fn icmp_explains_a_timeout_and_ends_only_attempts() {
    let mut t = Script::server();
    t.write(10);
    t.expect("P. 1:11(10) ack 1");
    let seq = |n: u32| crate::script::OUR_ISS.wrapping_add(n);
    let far = t.tcb.handle_icmp(&t.cfg, t.now, seq(11), IcmpKind::HostUnreachable);
    assert!(far.drop.is_some());
    let near = t.tcb.handle_icmp(&t.cfg, t.now, seq(1), IcmpKind::PortUnreachable);
    assert_eq!((near.drop, near.events), (None, Events::NONE));
    let _ = t.tcb.handle_icmp(&t.cfg, t.now, seq(1), IcmpKind::HostUnreachable);
    t.wait(2_000_000);
    t.happened(Events::TIMED_OUT | Events::CLOSED);
    assert_eq!(t.tcb.error(), Some(Error::HostUnreachable));

    for (kind, error, events) in [
        (IcmpKind::PortUnreachable, Error::Refused, Events::REFUSED),
        (IcmpKind::NetUnreachable, Error::NetUnreachable, Events::UNREACHABLE),
    ] {
        let mut t = Script::client(plain());
        t.expect("S 0");
        let reaction = t.tcb.handle_icmp(&t.cfg, t.now, seq(0), kind);
        assert_eq!(reaction.events, events | Events::CLOSED);
        assert_eq!(t.tcb.error(), Some(error));
    }
}

#[test]
fn cubic_gives_up_three_tenths() {
    let cfg = Config { congestion_control: CongestionControl::Cubic, ..plain() };
    let mut t = Script::passive(cfg, &Passive { sack_permitted: true, ..passive() });
    t.write(30 * MSS);
    expect_full(&mut t, 0, 10, false);
    t.inject(". 1 ack 1 sack 1001:4001");
    expect_full(&mut t, 0, 1, false);
    t.inject(". 1 ack 10001");
    assert_eq!(t.tcb.congestion_window(), 7000);
    expect_full(&mut t, 10, 7, false);
    t.silent();
    // With so small a window the curve lags behind Reno's share: 9/17 of a segment a round trip.
    t.wait(10);
    t.inject(". 1 ack 17001");
    assert_eq!(t.tcb.congestion_window(), 7529);
}
