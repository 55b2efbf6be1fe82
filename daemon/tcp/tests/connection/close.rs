//! Closing: normal, half, simultaneous, by reset; orphans and TIME_WAIT.

use crate::script::{MS, Script};
use fourwave_tcp::{DropReason, Error, Events, State};

#[test]
fn active_close() {
    let mut t = Script::server();
    t.close();
    t.state(State::FinWait1);
    t.expect("F. 1 ack 1");
    t.silent();
    t.inject(". 1 ack 2");
    t.state(State::FinWait2);
    t.happened(Events::FIN_WAIT2_ORPHAN);
    t.inject("F. 1 ack 2");
    t.happened(Events::PEER_FIN | Events::TIME_WAIT);
    t.expect(". 2 ack 2");
    t.silent();
    t.wait(59_999);
    t.happened(Events::NONE);
    t.wait(1);
    t.happened(Events::CLOSED);
    assert!(t.tcb.deadline().is_none());
}

#[test]
fn time_wait_answers_a_repeated_fin_and_starts_again() {
    let mut t = Script::server();
    t.close();
    t.expect("F. 1 ack 1");
    t.inject("F. 1 ack 2");
    t.happened(Events::PEER_FIN | Events::TIME_WAIT);
    t.expect(". 2 ack 2");
    t.wait(30_000);
    t.inject("F. 1 ack 2");
    t.expect(". 2 ack 2");
    t.wait(59_999);
    t.state(State::TimeWait);
    t.wait(1);
    t.happened(Events::CLOSED);
}

#[test]
fn passive_close_with_acks_that_ride() {
    let mut t = Script::server();
    t.inject("F. 1 ack 1");
    t.happened(Events::PEER_FIN);
    t.silent();
    t.close();
    t.state(State::LastAck);
    t.expect("F. 1 ack 2");
    t.silent();
    t.inject(". 2 ack 2");
    t.happened(Events::CLOSED);
    assert_eq!(t.tcb.error(), None);
}

#[test]
fn a_fin_that_nobody_answers_is_acknowledged_after_the_delay() {
    let mut t = Script::server();
    t.inject("F. 1 ack 1");
    t.wait(40);
    t.expect(". 1 ack 2");
    // CLOSE_WAIT never times out.
    assert!(t.tcb.deadline().is_none());
}

#[test]
fn simultaneous_close() {
    let mut t = Script::server();
    t.close();
    t.expect("F. 1 ack 1");
    t.inject("F. 1 ack 1");
    t.state(State::Closing);
    t.happened(Events::PEER_FIN);
    t.expect(". 2 ack 2");
    t.inject(". 2 ack 2");
    t.happened(Events::TIME_WAIT);
    t.silent();
}

#[test]
fn half_close_goes_on_receiving_for_ever() {
    let mut t = Script::server();
    t.shutdown();
    t.expect("F. 1 ack 1");
    t.inject(". 1 ack 2");
    t.state(State::FinWait2);
    t.happened(Events::ALL_ACKED);
    assert!(t.tcb.deadline().is_none());
    t.wait(24 * 3600 * 1000);
    t.inject("P. 1:11(10) ack 2");
    t.happened(Events::READABLE);
    t.wait(40);
    t.expect(". 2 ack 11");
    t.inject("F. 11 ack 2");
    t.happened(Events::PEER_FIN | Events::TIME_WAIT);
}

#[test]
fn the_other_half_goes_on_sending() {
    let mut t = Script::server();
    t.inject("F. 1 ack 1");
    t.write(1500);
    t.expect(". 1:1001(1000) ack 2");
    t.expect("P. 1001:1501(500) ack 2");
    t.inject(". 2 ack 1501");
    t.close();
    t.expect("F. 1501 ack 2");
}

#[test]
fn a_lost_fin_is_sent_again() {
    let mut t = Script::server();
    t.write(10);
    t.close();
    t.expect("FP. 1:11(10) ack 1");
    t.wait(210);
    t.expect("FP. 1:11(10) ack 1");
    t.inject(". 1 ack 11");
    t.state(State::FinWait1);
    // The data was taken without the FIN.
    t.silent();
    t.wait(420);
    t.expect("F. 11 ack 1");
    t.inject(". 1 ack 12");
    t.state(State::FinWait2);
}

#[test]
fn a_close_sends_what_is_queued_first() {
    let mut t = Script::server();
    t.write(2500);
    t.close();
    t.expect(". 1:1001(1000) ack 1");
    t.expect(". 1001:2001(1000) ack 1");
    t.expect("FP. 2001:2501(500) ack 1");
    t.silent();
}

#[test]
fn unread_data_makes_close_a_reset() {
    let mut t = Script::server();
    t.inject("P. 1:11(10) ack 1");
    t.tcb.set_consumed(9).unwrap();
    t.close();
    t.happened(Events::READABLE | Events::CLOSED);
    t.expect("R. 1 ack 11");
    t.silent();
    assert_eq!(t.inject(". 11 ack 1"), Some(DropReason::Closed));
}

#[test]
fn data_for_an_orphan_is_answered_by_reset() {
    let mut t = Script::server();
    t.close();
    t.expect("F. 1 ack 1");
    assert_eq!(t.inject("P. 1:11(10) ack 2"), Some(DropReason::OrphanData));
    t.happened(Events::RESET | Events::CLOSED);
    t.expect("R. 2 ack 1");
    t.silent();
}

#[test]
fn an_orphan_in_fin_wait_2_lives_for_fin_timeout() {
    let mut t = Script::server();
    t.shutdown();
    t.expect("F. 1 ack 1");
    t.inject(". 1 ack 2");
    t.wait(1_000_000);
    t.happened(Events::ALL_ACKED);
    t.close();
    t.happened(Events::FIN_WAIT2_ORPHAN);
    t.wait(59_999);
    t.state(State::FinWait2);
    t.wait(1);
    t.happened(Events::CLOSED);
}

#[test]
fn a_fin_beyond_a_hole_tells_an_orphan_of_data() {
    let mut t = Script::server();
    t.close();
    t.expect("F. 1 ack 1");
    assert_eq!(t.inject("F. 11 ack 2"), Some(DropReason::OrphanData));
    t.happened(Events::RESET | Events::CLOSED);
    t.expect("R. 2 ack 1");
}

#[test]
fn an_orphan_gives_up_sooner() {
    let mut t = Script::server();
    t.close();
    t.expect("F. 1 ack 1");
    let mut pause = 210;
    for _ in 0..8 {
        t.wait(pause);
        t.expect("F. 1 ack 1");
        pause = (pause * 2).min(120_000);
    }
    t.wait(pause);
    t.happened(Events::TIMED_OUT | Events::CLOSED);
}

#[test]
fn an_orphan_does_not_wait_for_a_closed_window_for_ever() {
    let mut t = Script::server();
    t.inject(". 1 ack 1 win 0");
    t.write(10);
    t.close();
    t.silent();
    let mut pause = 210;
    for _ in 0..8 {
        t.wait(pause);
        t.expect(". 0 ack 1");
        t.inject(". 1 ack 1 win 0");
        pause *= 2;
    }
    t.wait(pause);
    t.happened(Events::TIMED_OUT | Events::CLOSED);
}

#[test]
fn an_abort_resets() {
    let mut t = Script::server();
    t.write(10);
    t.expect("P. 1:11(10) ack 1");
    let reaction = t.tcb.abort();
    assert_eq!(reaction.events, Events::CLOSED);
    t.expect("R. 11 ack 1");
    t.silent();
    assert!(t.tcb.deadline().is_none());
    assert_eq!(t.tcb.abort().events, Events::NONE);
}

#[test]
fn only_an_exact_reset_counts() {
    let mut t = Script::server();
    t.inject("P. 1:11(10) ack 1");
    assert_eq!(t.inject("R 10"), Some(DropReason::OutOfWindow));
    assert_eq!(t.inject("R 80000"), Some(DropReason::OutOfWindow));
    t.silent();
    assert_eq!(t.inject("R 12"), Some(DropReason::InexactReset));
    t.expect(". 1 ack 11");
    t.inject("R 12");
    t.silent();
    t.inject("R 11");
    t.happened(Events::READABLE | Events::RESET | Events::CLOSED);
    assert_eq!(t.tcb.error(), Some(Error::Reset));
    t.silent();
    // What came before it is still there to read.
    assert_eq!(t.tcb.rcv_tail(), 10);
}

#[test]
fn a_reset_after_the_fin_breaks_the_pipe() {
    for seq in [1, 2] {
        let mut t = Script::server();
        t.inject("F. 1 ack 1");
        t.inject(&format!("R {seq}"));
        t.happened(Events::PEER_FIN | Events::RESET | Events::CLOSED);
        assert_eq!(t.tcb.error(), Some(Error::BrokenPipe));
    }
}

#[test]
fn a_reset_in_last_ack_is_no_error() {
    let mut t = Script::server();
    t.inject("F. 1 ack 1");
    t.close();
    t.expect("F. 1 ack 2");
    t.inject("R 2");
    t.happened(Events::PEER_FIN | Events::CLOSED);
    assert_eq!(t.tcb.error(), None);
}

#[test]
fn a_syn_on_a_live_connection_is_challenged() {
    let mut t = Script::server();
    for seq in [0, 1, 500, 4_000_000] {
        assert_eq!(t.inject(&format!("S {seq}")), Some(DropReason::UnexpectedSyn));
        t.expect(". 1 ack 1");
        t.inject(&format!("S {seq}"));
        t.silent();
        t.wait(500);
    }
    t.state(State::Established);
}

#[test]
fn impossible_acks_are_challenged_and_take_their_data_with_them() {
    let mut t = Script::server();
    assert_eq!(t.inject("P. 1:11(10) ack 2"), Some(DropReason::AckOfUnsent));
    t.expect(". 1 ack 1");
    t.wait(500);
    let mut t2 = Script::server();
    t2.write(100_000);
    for _ in 0..50 {
        while t2.tcb.poll_transmit(&t2.cfg, t2.now).is_some() {}
        let sent = 1 + t2.tcb.snd_sent();
        t2.inject(&format!(". 1 ack {sent}"));
    }
    assert_eq!(t2.tcb.snd_acked(), 100_000);
    // The largest window was 60000.
    assert_eq!(t2.inject("P. 1:11(10) ack 40000"), Some(DropReason::AckTooOld));
    assert_eq!(t2.inject("P. 1:11(10) ack 40001"), None);
    t2.has_received(10);
    assert_eq!(t.inject("P 1:11(10)"), Some(DropReason::NoAck));
    assert_eq!(t.tcb.rcv_tail(), 0);
    assert!(t.now > MS);
}
