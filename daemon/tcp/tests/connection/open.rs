//! Opening: passive, active, refused, both at once.

use crate::script::{MS, Script, passive, plain};
use fourwave_tcp::{Config, DropReason, Error, Events, Passive, State};

#[test]
fn a_short_connection_takes_no_packet_too_many() {
    let mut t = Script::server();
    t.inject("P. 1:65(64) ack 1");
    t.happened(Events::READABLE);
    t.has_received(64);
    t.silent();
    t.read();
    t.write(64);
    t.close();
    // Reply, the request's ACK and the FIN in one segment.
    t.expect("FP. 1:65(64) ack 65");
    t.silent();
    t.inject("F. 65 ack 66");
    t.happened(Events::WRITABLE | Events::PEER_FIN | Events::TIME_WAIT);
    t.expect(". 66 ack 66");
    t.silent();
    t.state(State::TimeWait);
    let record = t.tcb.time_wait();
    assert_eq!(record.snd_nxt, crate::script::OUR_ISS.wrapping_add(66));
    assert_eq!(record.rcv_nxt, crate::script::PEER_ISS.wrapping_add(66));
    assert_eq!(record.ts_recent, None);
}

#[test]
fn data_and_fin_on_the_handshakes_last_ack_count() {
    let mut t = Script::passive(plain(), &passive());
    t.inject("FP. 1:101(100) ack 1");
    t.happened(Events::READABLE | Events::PEER_FIN);
    t.has_received(100);
    t.state(State::CloseWait);
}

#[test]
fn active_open() {
    let mut t = Script::client(plain());
    t.expect("S 0 win 65535 mss 1000 ws 7");
    t.silent();
    t.state(State::SynSent);
    t.inject("S. 0 ack 1 mss 900 ws 3 win 500");
    t.happened(Events::ESTABLISHED);
    // The window of a SYN is not scaled, later ones are.
    assert_eq!(t.tcb.send_window(), 500);
    assert_eq!(t.tcb.mss(), 900);
    t.expect(". 1 ack 1 win 511");
    t.silent();
    t.inject(". 1 ack 1 win 100");
    assert_eq!(t.tcb.send_window(), 800);
    assert!(t.tcb.deadline().is_none());
}

#[test]
fn the_handshakes_last_ack_rides_on_data_that_waits() {
    let mut t = Script::client(plain());
    t.write(10);
    t.expect("S 0");
    t.silent();
    t.inject("S. 0 ack 1 mss 1000");
    t.expect("P. 1:11(10) ack 1");
    t.silent();
}

#[test]
fn without_the_peers_offer_nothing_is_scaled() {
    let mut t = Script::client(plain());
    t.expect("S 0 ws 7");
    t.inject("S. 0 ack 1 mss 1000 win 600");
    t.expect(". 1 ack 1 win 65535");
    t.inject(". 1 ack 1 win 700");
    assert_eq!(t.tcb.send_window(), 700);
}

#[test]
fn a_peer_that_names_no_mss_gets_the_default() {
    for (is_v4, mss) in [(true, 536), (false, 1220)] {
        let passive = Passive { is_v4, mss: 1400, peer_mss: None, ..passive() };
        assert_eq!(Script::passive(plain(), &passive).tcb.mss(), mss);
    }
    // And one that names a silly one is not believed.
    let passive = Passive { peer_mss: Some(1), ..passive() };
    assert_eq!(Script::passive(plain(), &passive).tcb.mss(), 48);
}

#[test]
fn data_on_the_syn_ack_counts() {
    let mut t = Script::client(plain());
    t.expect("S 0");
    t.inject("S. 0:20(20) ack 1 mss 1000");
    t.happened(Events::ESTABLISHED | Events::READABLE);
    assert_eq!(t.tcb.rcv_tail(), 20);
    t.expect(". 1 ack 21");
}

#[test]
fn a_reset_refuses() {
    let mut t = Script::client(plain());
    t.expect("S 0");
    assert_eq!(t.inject("R 0"), Some(DropReason::OutOfWindow), "it acknowledges nothing");
    t.state(State::SynSent);
    t.inject("R. 0 ack 1");
    t.happened(Events::REFUSED | Events::CLOSED);
    assert_eq!(t.tcb.error(), Some(Error::Refused));
    t.silent();
    assert!(t.tcb.deadline().is_none());
}

#[test]
fn an_old_syn_ack_is_reset_and_the_attempt_goes_on() {
    let mut t = Script::client(plain());
    t.expect("S 0");
    assert_eq!(t.inject("S. 0 ack 7"), Some(DropReason::AckOfUnsent));
    t.expect("R 7");
    assert_eq!(t.inject("R. 0 ack 7"), Some(DropReason::AckOfUnsent));
    assert_eq!(t.inject(". 0 ack 1"), Some(DropReason::NoAck));
    t.silent();
    t.state(State::SynSent);
    t.inject("S. 0 ack 1");
    t.state(State::Established);
}

#[test]
fn a_syn_ack_before_the_syn_is_a_forgery() {
    let mut t = Script::client(plain());
    assert_eq!(t.inject("S. 0 ack 0"), Some(DropReason::AckOfUnsent));
    t.expect("R 0");
    t.expect("S 0");
}

#[test]
fn a_syn_is_retried_as_linux_retries_it() {
    let mut t = Script::client(plain());
    t.expect("S 0");
    let mut seconds = 0;
    // Four linear ones more than `syn_retries`, then doubling: 131 s in all.
    for pause in [1, 1, 1, 1, 1, 2, 4, 8, 16, 32] {
        t.wait(pause * 1000 - 1);
        t.silent();
        t.wait(1);
        let sent = t.expect("S 0 mss 1000 ws 7");
        assert!(sent.retransmission);
        seconds += pause;
    }
    t.wait(64_000 - 1);
    t.happened(Events::NONE);
    t.wait(1);
    assert_eq!(seconds + 64, 131);
    t.happened(Events::TIMED_OUT | Events::CLOSED);
    assert_eq!(t.tcb.error(), Some(Error::TimedOut));
    t.silent();
}

#[test]
fn a_handshake_with_loss_starts_carefully() {
    let mut t = Script::client(plain());
    t.expect("S 0");
    t.wait(1000);
    t.expect("S 0");
    t.wait(1000);
    t.expect("S 0");
    t.inject("S. 0 ack 1 mss 1000");
    assert_eq!(t.tcb.congestion_window(), 1000);
    // No sample can be trusted: RFC 6298 §5.7.
    assert_eq!((t.tcb.srtt(), t.tcb.rto()), (None, 3000 * MS));
}

#[test]
fn the_handshake_is_a_round_trip_sample() {
    let mut t = Script::client(plain());
    t.expect("S 0");
    t.wait(30);
    t.inject("S. 0 ack 1 mss 1000");
    assert_eq!(t.tcb.srtt(), Some(30 * MS));
    assert_eq!(t.tcb.congestion_window(), 10_000);
}

#[test]
fn both_open_at_once_and_syn_acks_cross() {
    let mut t = Script::client(plain());
    t.expect("S 0");
    t.inject("S 0 mss 900 ws 2");
    t.state(State::SynReceived);
    t.expect("S. 0 ack 1 mss 1000 ws 7");
    t.silent();
    t.inject("S. 0 ack 1 mss 900 ws 2");
    t.happened(Events::ESTABLISHED);
    t.silent();
    t.write(10);
    t.expect("P. 1:11(10) ack 1");
    t.inject(". 1 ack 11 win 100");
    assert_eq!(t.tcb.send_window(), 400);
}

#[test]
fn both_open_at_once_and_a_plain_ack_ends_it() {
    let mut t = Script::client(plain());
    t.expect("S 0");
    t.inject("S 0 mss 1000");
    t.expect("S. 0 ack 1");
    t.wait(1000);
    t.expect("S. 0 ack 1");
    t.inject("P. 1:11(10) ack 1");
    t.happened(Events::ESTABLISHED | Events::READABLE);
}

#[test]
fn syn_received_refuses_wrong_acks_and_gives_up() {
    let mut t = Script::client(plain());
    t.expect("S 0");
    t.inject("S 0 mss 1000");
    t.expect("S. 0 ack 1");
    assert_eq!(t.inject(". 1 ack 9"), Some(DropReason::AckOfUnsent));
    t.expect("R 9");
    t.state(State::SynReceived);
    for pause in [1, 2, 4, 8, 16] {
        t.wait(pause * 1000);
        t.expect("S. 0 ack 1");
    }
    t.wait(32_000);
    t.happened(Events::TIMED_OUT | Events::CLOSED);
}

#[test]
fn a_reset_in_syn_received_refuses() {
    let mut t = Script::client(plain());
    t.expect("S 0");
    t.inject("S 0 mss 1000");
    t.expect("S. 0 ack 1");
    t.inject("R 1");
    t.happened(Events::REFUSED | Events::CLOSED);
}

#[test]
fn a_close_in_syn_received_waits_for_the_handshake() {
    let mut t = Script::client(plain());
    t.expect("S 0");
    t.inject("S 0 mss 1000");
    t.close();
    t.expect("S. 0 ack 1");
    t.silent();
    t.inject(". 1 ack 1");
    t.state(State::FinWait1);
    t.expect("F. 1 ack 1");
}

#[test]
fn a_close_in_syn_sent_tells_nobody() {
    let mut t = Script::client(plain());
    t.expect("S 0");
    t.close();
    t.happened(Events::CLOSED);
    t.silent();
    assert!(t.tcb.deadline().is_none());
}

#[test]
fn a_repeated_syn_ack_is_acknowledged_again() {
    let mut t = Script::client(plain());
    t.expect("S 0");
    t.inject("S. 0 ack 1 mss 1000");
    t.expect(". 1 ack 1");
    assert_eq!(t.inject("S. 0 ack 1 mss 1000"), Some(DropReason::UnexpectedSyn));
    t.expect(". 1 ack 1");
}

#[test]
fn timestamps_are_used_only_when_both_offer_them() {
    let cfg = Config::default();
    let mut t = Script::client(cfg.clone());
    t.expect("S 0 ts 1000000:0");
    t.inject("S. 0 ack 1 mss 1000 ts 77:1000000");
    t.expect(". 1 ack 1 ts 1000000:77");
    assert_eq!(t.tcb.mss(), 988);

    let mut t = Script::client(cfg);
    t.expect("S 0 ts 1000000:0");
    t.inject("S. 0 ack 1 mss 1000");
    assert_eq!(t.expect(". 1 ack 1").options.timestamps, None);
    assert_eq!(t.tcb.mss(), 1000);
}
