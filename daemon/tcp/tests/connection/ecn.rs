//! Explicit congestion notification (RFC 3168).

use crate::script::{MSS, Script, passive, plain};
use fourwave_tcp::{Config, Ecn, Passive, State};
use fourwave_wire::Flags;

/// A server's connection that agreed to it.
fn agreed() -> Script {
    Script::passive(plain(), &Passive { ecn: true, sack_permitted: true, ..passive() })
}

fn asking() -> Script {
    Script::client(Config { ecn: Ecn::On, ..plain() })
}

/// How many segments are due; none of them is sent again.
fn drain(t: &mut Script) -> u64 {
    let mut count = 0;
    while let Some(sent) = t.tcb.poll_transmit(&t.cfg, t.now) {
        assert!(!sent.retransmission);
        count += 1;
    }
    count
}

#[test]
fn a_syn_that_asks_gets_it_by_a_syn_ack_that_agrees() {
    for (answer, agrees) in [("SE.", true), ("S.", false), ("SEW.", false)] {
        let mut t = asking();
        assert!(!t.expect("SEW 0").markable);
        t.inject(&format!("{answer} 0 ack 1 mss 1000"));
        t.state(State::Established);
        assert!(!t.expect(". 1 ack 1").markable);
        t.write(MSS);
        assert_eq!(t.expect("P. 1:1001(1000) ack 1").markable, agrees);
        t.inject("P. 1:11(10) ack 1001 tos 3");
        t.wait(40);
        t.expect(if agrees { "E. 1001 ack 11" } else { ". 1001 ack 11" });
    }
}

#[test]
fn by_default_we_do_not_ask() {
    let mut t = Script::client(plain());
    t.expect("S 0");
    t.inject("SE. 0 ack 1 mss 1000");
    t.expect(". 1 ack 1");
    t.write(MSS);
    assert!(!t.expect("P. 1:1001(1000) ack 1").markable);
}

#[test]
fn a_syn_sent_again_does_not_ask() {
    let mut t = asking();
    t.expect("SEW 0");
    t.wait(1000);
    assert!(t.expect("S 0").retransmission);
    // The answer to the first may still agree.
    t.inject("SE. 0 ack 1 mss 1000");
    t.expect(". 1 ack 1");
    t.write(MSS);
    assert!(t.expect("P. 1:1001(1000) ack 1").markable);
}

#[test]
fn both_may_ask_at_once() {
    let mut t = asking();
    t.expect("SEW 0");
    t.inject("SEW 0 mss 1000");
    t.expect("SE. 0 ack 1");
    t.inject(". 1 ack 1");
    t.state(State::Established);
    t.write(MSS);
    assert!(t.expect("P. 1:1001(1000) ack 1").markable);
}

#[test]
fn only_new_data_can_be_marked() {
    let mut t = agreed();
    t.write(3 * MSS);
    for _ in 0..3 {
        assert!(t.tcb.poll_transmit(&t.cfg, t.now).unwrap().markable);
    }
    t.inject("P. 1:11(10) ack 1 sack 1001:3001");
    t.wait(3);
    let repair = t.expect(". 1:1001(1000) ack 11");
    assert!(repair.retransmission && !repair.markable);
    t.inject("P. 11:21(10) ack 3001");
    t.wait(40);
    assert!(!t.expect(". 3001 ack 21").markable);
    t.read();
    t.close();
    assert!(!t.expect("F. 3001 ack 21").markable);
}

#[test]
fn a_mark_is_echoed_until_the_peer_reacts() {
    let mut t = agreed();
    t.inject("P. 1:11(10) ack 1 tos 3");
    // At once, in every segment, data or not.
    t.expect("E. 1 ack 11");
    t.inject("P. 11:21(10) ack 1");
    t.wait(40);
    t.expect("E. 1 ack 21");
    t.write(10);
    t.expect("PE. 1:11(10) ack 21");
    // CWR on what has no data says nothing.
    t.inject("W. 21 ack 11");
    t.inject("P. 21:31(10) ack 11");
    t.wait(40);
    t.expect("E. 11 ack 31");
    t.inject("PW. 31:41(10) ack 11");
    t.expect(". 11 ack 41");
    // Marked itself, it ends one echo and starts the next.
    t.inject("P. 41:51(10) ack 11 tos 3");
    t.expect("E. 11 ack 51");
    t.inject("PW. 51:61(10) ack 11 tos 3");
    t.expect("E. 11 ack 61");
    // Marks on ACKs are nobody's.
    let mut t = agreed();
    t.inject(". 1 ack 1 tos 3");
    t.write(10);
    t.expect("P. 1:11(10) ack 1");
}

#[test]
fn an_echo_shrinks_the_window_once_a_round_trip() {
    let mut t = agreed();
    t.write(30 * MSS);
    assert_eq!(drain(&mut t), 10);
    t.inject("E. 1 ack 1001");
    assert_eq!(t.tcb.congestion_window(), 5000);
    assert_eq!(drain(&mut t), 0);
    t.inject("E. 1 ack 6001");
    assert_eq!(t.tcb.congestion_window(), 5000);
    // The first new data says so, and only that.
    assert!(t.expect("W. 10001:11001(1000) ack 1").markable);
    assert_eq!(drain(&mut t), 0);
    // What was sent before it is acknowledged; the peer has not heard of it yet.
    t.inject("E. 1 ack 10001");
    assert_eq!(t.tcb.congestion_window(), 5000);
    assert_eq!(drain(&mut t), 4);
    // It has, and there is another mark.
    t.inject("E. 1 ack 11001");
    assert_eq!(t.tcb.congestion_window(), 2500);
    t.inject(". 1 ack 15001");
    t.expect("W. 15001:16001(1000) ack 1");
}

#[test]
fn loss_and_marks_of_one_window_are_one_reaction() {
    let mut t = agreed();
    t.write(30 * MSS);
    assert_eq!(drain(&mut t), 10);
    t.inject("E. 1 ack 1 sack 1001:2001");
    assert_eq!(t.tcb.congestion_window(), 5000);
    t.inject("E. 1 ack 1 sack 1001:6001");
    assert!(t.expect(". 1:1001(1000) ack 1").retransmission);
    t.inject("E. 1 ack 10001");
    assert_eq!(t.tcb.congestion_window(), 5000);
    t.expect("W. 10001:11001(1000) ack 1");
    // The other way round: the loss first.
    let mut t = agreed();
    t.write(30 * MSS);
    assert_eq!(drain(&mut t), 10);
    t.inject(". 1 ack 1 sack 1001:6001");
    assert!(t.expect(". 1:1001(1000) ack 1").retransmission);
    t.inject("E. 1 ack 10001");
    assert_eq!(t.tcb.congestion_window(), 5000);
    assert!(t.expect("W. 10001:11001(1000) ack 1").flags.contains(Flags::CWR));
}

#[test]
fn without_agreement_the_bits_mean_nothing() {
    let mut t = Script::sacking();
    t.write(30 * MSS);
    assert_eq!(drain(&mut t), 10);
    t.inject("E. 1 ack 1001");
    assert!(t.tcb.congestion_window() >= 10_000);
    t.inject("P. 1:11(10) ack 1001 tos 3");
    let sent = t.tcb.poll_transmit(&t.cfg, t.now).unwrap();
    assert!(!sent.flags.intersects(Flags::ECE | Flags::CWR));
}

#[test]
fn a_reset_echoes_nothing() {
    let mut t = agreed();
    t.inject("P. 1:11(10) ack 1 tos 3");
    t.expect("E. 1 ack 11");
    t.close();
    t.expect("R. 1 ack 11");
}
