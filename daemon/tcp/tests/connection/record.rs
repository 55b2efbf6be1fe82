//! What segment scripts of a whole stack (`daemon/stack/tests/scripts`) do not see: TIME_WAIT as a
//! `Tcb` plays it itself, what a smaller record takes over, offsets that are refused.

use crate::script::{OUR_ISS, PEER_ISS, Script};
use fourwave_tcp::{Events, OutOfRange, State};

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
    assert_eq!(record.snd_nxt, OUR_ISS.wrapping_add(66));
    assert_eq!(record.rcv_nxt, PEER_ISS.wrapping_add(66));
    assert_eq!(record.ts_recent, None);
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
