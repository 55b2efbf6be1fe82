//! What an application can choose: keepalive, user timeout, cork, quick ACKs, linger, buffers.

use crate::script::{MS, MSS, Script, passive, plain};
use fourwave_tcp::{
    Config, CongestionControl, Error, Events, Info, Passive, Recovery, Settings, State, TimerKind,
};

const SECOND: u64 = 1000;

/// Makes other choices.
fn choose(t: &mut Script, change: impl FnOnce(&mut Settings)) {
    let mut settings = *t.tcb.settings();
    change(&mut settings);
    t.tcb.apply(&t.cfg, t.now, &settings);
}

fn info(t: &Script) -> Info {
    t.tcb.info(&t.cfg, t.now)
}

/// Keepalive after 10 s, every 5 s, 3 times.
fn kept_alive() -> Script {
    let mut t = Script::server();
    choose(&mut t, |settings| {
        settings.set_keepalive(true);
        settings.keepalive_time = 10;
        settings.keepalive_interval = 5;
        settings.keepalive_probes = 3;
    });
    t
}

#[test]
fn keepalive_is_off_by_default() {
    let mut t = Script::server();
    assert!(t.tcb.deadline().is_none());
    t.wait(365 * 24 * 3600 * SECOND);
    t.silent();
    // Wanted: two hours, then every 75 s, nine times.
    choose(&mut t, |settings| settings.set_keepalive(true));
    t.wait(0);
    t.expect(". 0 ack 1");
    t.inject(". 1 ack 1");
    t.wait(7200 * SECOND - 1);
    t.silent();
    t.wait(1);
    for _ in 0..9 {
        t.expect(". 0 ack 1");
        t.wait(75 * SECOND - 1);
        t.silent();
        t.wait(1);
    }
    t.expect("R. 1 ack 1");
    assert_eq!(t.tcb.error(), Some(Error::TimedOut));
}

#[test]
fn a_peer_that_answers_is_kept() {
    let mut t = kept_alive();
    for _ in 0..20 {
        t.wait(10 * SECOND - 1);
        t.silent();
        t.wait(1);
        t.expect(". 0 ack 1");
        t.silent();
        t.wait(5 * SECOND);
        t.expect(". 0 ack 1");
        assert_eq!(info(&t).probes, 2);
        t.inject(". 1 ack 1");
        assert_eq!(info(&t).probes, 0);
    }
    t.state(State::Established);
    t.happened(Events::NONE);
}

#[test]
fn a_peer_that_is_gone_is_given_up() {
    let mut t = kept_alive();
    t.wait(10 * SECOND);
    for _ in 0..3 {
        t.expect(". 0 ack 1");
        t.happened(Events::NONE);
        t.wait(5 * SECOND);
    }
    t.happened(Events::TIMED_OUT | Events::CLOSED);
    assert_eq!(t.tcb.error(), Some(Error::TimedOut));
    t.expect("R. 1 ack 1");
    t.silent();
    assert!(t.tcb.deadline().is_none());
}

#[test]
fn people_see_the_keepalive_timer() {
    let mut t = kept_alive();
    t.wait(10 * SECOND);
    t.expect(". 0 ack 1");
    let timer = t.tcb.timer().unwrap();
    assert_eq!((timer.kind, timer.retries), (TimerKind::Keepalive, 1));
    assert_eq!(timer.at, t.now + 5 * SECOND * MS);
}

#[test]
fn what_the_peer_says_puts_keepalive_off() {
    let mut t = kept_alive();
    t.wait(9 * SECOND);
    t.inject("P. 1:11(10) ack 1");
    t.wait(40);
    t.expect(". 1 ack 11");
    t.wait(9 * SECOND);
    t.silent();
    // What we say does not.
    t.write(10);
    t.expect("P. 1:11(10) ack 11");
    t.inject(". 11 ack 11");
    t.wait(10 * SECOND);
    t.expect(". 10 ack 11");
    t.inject(". 11 ack 11");
    choose(&mut t, |settings| settings.set_keepalive(false));
    assert!(t.tcb.deadline().is_none());
}

#[test]
fn keepalive_leaves_retransmissions_alone() {
    let mut t = kept_alive();
    t.write(10);
    t.expect("P. 1:11(10) ack 1");
    let mut again = 0;
    for _ in 0..60 {
        t.wait(SECOND);
        while let Some(sent) = t.tcb.poll_transmit(&t.cfg, t.now) {
            assert!(sent.retransmission);
            again += 1;
        }
    }
    assert!((5..10).contains(&again), "{again}");
    t.inject(". 1 ack 11");
    t.wait(10 * SECOND);
    t.expect(". 10 ack 1");
}

#[test]
fn keepalive_of_a_client_begins_with_the_connection() {
    let mut t = Script::client(plain());
    choose(&mut t, |settings| {
        settings.set_keepalive(true);
        settings.keepalive_time = 1;
    });
    t.expect("S 0");
    t.inject("S. 0 ack 1 mss 1000");
    t.expect(". 1 ack 1");
    t.wait(SECOND);
    t.expect(". 0 ack 1");
}

#[test]
fn half_closed_connections_are_kept_alive_and_time_wait_is_not() {
    let mut t = kept_alive();
    t.shutdown();
    t.expect("F. 1 ack 1");
    t.inject(". 1 ack 2");
    t.state(State::FinWait2);
    t.wait(10 * SECOND);
    t.expect(". 1 ack 1");
    t.inject("F. 1 ack 2");
    t.state(State::TimeWait);
    t.expect(". 2 ack 2");
    t.wait(30 * SECOND);
    t.silent();
}

#[test]
fn the_user_timeout_bounds_retransmission() {
    let mut t = Script::server();
    choose(&mut t, |settings| settings.user_timeout = 1000);
    t.write(10);
    t.expect("P. 1:11(10) ack 1");
    // From the first timeout on, as Linux: 210, 630, and then what is left.
    t.wait(210);
    t.expect("P. 1:11(10) ack 1");
    t.wait(420);
    t.expect("P. 1:11(10) ack 1");
    t.wait(579);
    t.silent();
    t.happened(Events::NONE);
    t.wait(1);
    t.happened(Events::TIMED_OUT | Events::CLOSED);
    assert_eq!(t.tcb.error(), Some(Error::TimedOut));
    t.silent();
}

#[test]
fn the_user_timeout_can_be_longer_than_all_retries() {
    let mut t = Script::server();
    choose(&mut t, |settings| settings.user_timeout = 2 * 3600 * 1000);
    t.write(10);
    t.expect("P. 1:11(10) ack 1");
    for _ in 0..118 {
        t.wait(60 * SECOND);
        while t.tcb.poll_transmit(&t.cfg, t.now).is_some() {}
    }
    assert!(info(&t).retries > t.cfg.retries2);
    t.happened(Events::NONE);
    t.wait(3 * 60 * SECOND);
    t.happened(Events::TIMED_OUT | Events::CLOSED);
}

#[test]
fn progress_starts_the_user_timeout_again() {
    let mut t = Script::server();
    choose(&mut t, |settings| settings.user_timeout = 1000);
    // The second answer comes 1220 ms after the first timeout.
    for (segment, timeout, ack) in [("1:11", 210, 11), ("11:21", 420, 21)] {
        t.write(10);
        t.expect(&format!("P. {segment}(10) ack 1"));
        t.wait(timeout);
        t.expect(&format!("P. {segment}(10) ack 1"));
        t.wait(400);
        t.inject(&format!(". 1 ack {ack}"));
    }
    t.happened(Events::WRITABLE);
    t.state(State::Established);
}

#[test]
fn the_user_timeout_bounds_a_closed_window_though_it_is_answered() {
    let mut t = Script::server();
    choose(&mut t, |settings| settings.user_timeout = 5000);
    t.inject(". 1 ack 1 win 0");
    t.write(10);
    t.silent();
    let mut probes = 0;
    while t.tcb.state() == State::Established {
        t.wait(100);
        while let Some(probe) = t.tcb.poll_transmit(&t.cfg, t.now) {
            assert!(probe.payload.is_empty());
            probes += 1;
            t.inject(". 1 ack 1 win 0");
        }
    }
    assert!(probes > 2);
    assert_eq!(t.tcb.error(), Some(Error::TimedOut));
}

#[test]
fn a_closed_window_that_is_answered_is_probed_for_ever() {
    let mut t = Script::server();
    t.inject(". 1 ack 1 win 0");
    t.write(10);
    t.silent();
    let mut probes = 0;
    for _ in 0..200 {
        t.wait(120 * SECOND);
        while t.tcb.poll_transmit(&t.cfg, t.now).is_some() {
            probes += 1;
        }
        t.inject(". 1 ack 1 win 0");
    }
    assert!(probes > 10 * u32::from(t.cfg.retries2), "{probes}");
    t.happened(Events::NONE);
    t.inject(". 1 ack 1 win 1000");
    t.expect("P. 1:11(10) ack 1");
}

#[test]
fn the_user_timeout_replaces_keepalives_count() {
    let mut t = kept_alive();
    choose(&mut t, |settings| settings.user_timeout = 31_000);
    t.wait(10 * SECOND);
    // After 10, 15, 20, 25 and 30 s: more than three.
    for _ in 0..5 {
        t.expect(". 0 ack 1");
        t.happened(Events::NONE);
        t.wait(5 * SECOND);
    }
    t.happened(Events::TIMED_OUT | Events::CLOSED);
    t.expect("R. 1 ack 1");
}

#[test]
fn the_user_timeout_bounds_connecting() {
    let mut t = Script::client(plain());
    choose(&mut t, |settings| settings.user_timeout = 2500);
    for _ in 0..3 {
        t.expect("S 0");
        t.happened(Events::NONE);
        t.wait(1000);
    }
    t.expect("S 0");
    t.wait(500);
    t.happened(Events::TIMED_OUT | Events::CLOSED);
}

#[test]
fn syn_retries_can_be_chosen() {
    let mut t = Script::client(Config { syn_linear_timeouts: 0, ..plain() });
    choose(&mut t, |settings| settings.syn_retries = 1);
    t.expect("S 0");
    t.wait(1000);
    t.expect("S 0");
    t.wait(1999);
    t.happened(Events::NONE);
    t.wait(1);
    t.happened(Events::TIMED_OUT | Events::CLOSED);
    assert_eq!(t.tcb.error(), Some(Error::TimedOut));
}

#[test]
fn a_cork_holds_small_segments_back() {
    let mut t = Script::server();
    choose(&mut t, |settings| settings.set_cork(true));
    t.write(10);
    t.silent();
    t.write(MSS);
    t.expect(". 1:1001(1000) ack 1");
    t.silent();
    t.inject(". 1 ack 1001");
    t.silent();
    choose(&mut t, |settings| settings.set_cork(false));
    t.expect("P. 1001:1011(10) ack 1");
}

#[test]
fn a_cork_waits_200_ms() {
    let mut t = Script::server();
    choose(&mut t, |settings| {
        settings.set_cork(true);
        // As Linux: the cork is stronger.
        settings.set_nodelay(true);
    });
    for round in 0..30 {
        let (from, to) = (1 + round * 10, 11 + round * 10);
        t.write(10);
        t.silent();
        t.wait(199);
        t.silent();
        t.wait(1);
        t.expect(&format!("P. {from}:{to}(10) ack 1"));
        assert_eq!(info(&t).retries, 0);
        t.inject(&format!(". 1 ack {to}"));
    }
    assert_eq!(t.tcb.retransmits(), 0);
}

#[test]
fn a_cork_does_not_hold_the_end_back() {
    let mut t = Script::server();
    choose(&mut t, |settings| settings.set_cork(true));
    t.write(10);
    t.silent();
    t.close();
    t.expect("FP. 1:11(10) ack 1");
}

#[test]
fn a_corked_segment_that_is_lost_is_sent_again() {
    let mut t = Script::server();
    choose(&mut t, |settings| settings.set_cork(true));
    t.write(10);
    t.silent();
    t.wait(200);
    t.expect("P. 1:11(10) ack 1");
    t.wait(210);
    assert!(t.expect("P. 1:11(10) ack 1").retransmission);
}

#[test]
fn a_corked_sender_still_probes_a_closed_window() {
    let mut t = Script::server();
    choose(&mut t, |settings| settings.set_cork(true));
    t.inject(". 1 ack 1 win 0");
    t.write(2 * MSS);
    t.silent();
    t.wait(210);
    t.expect(". 0 ack 1");
    t.inject(". 1 ack 1 win 60000");
    t.expect(". 1:1001(1000) ack 1");
}

#[test]
fn quick_acks_are_for_full_segments_until_asked_for() {
    let mut t = Script::server();
    t.inject(". 1:1001(1000) ack 1");
    t.expect(". 1 ack 1001");
    t.inject("P. 1001:1011(10) ack 1");
    t.silent();
    assert!(t.tcb.quickack());
    t.tcb.set_quickack(&t.cfg, true);
    // The one that waited.
    t.expect(". 1 ack 1011");
    for i in 0..u64::from(t.cfg.quick_acks) {
        assert!(t.tcb.quickack());
        let (from, to) = (1011 + i * 10, 1021 + i * 10);
        t.inject(&format!("P. {from}:{to}(10) ack 1"));
        t.expect(&format!(". 1 ack {to}"));
    }
    // As in Linux it does not last.
    assert!(!t.tcb.quickack());
    let from = 1011 + 10 * u64::from(t.cfg.quick_acks);
    t.inject(&format!("P. {from}:{}(10) ack 1", from + 10));
    t.silent();
    t.wait(40);
    t.expect(&format!(". 1 ack {}", from + 10));
}

#[test]
fn quick_acks_can_be_declined() {
    let mut t = Script::server();
    t.tcb.set_quickack(&t.cfg, false);
    t.inject(". 1:1001(1000) ack 1");
    t.silent();
    t.inject(". 1001:2001(1000) ack 1");
    t.expect(". 1 ack 2001");
}

#[test]
fn lingering_for_no_time_resets() {
    let mut t = Script::server();
    choose(&mut t, |settings| settings.linger = 1);
    t.write(10);
    t.close();
    t.happened(Events::CLOSED);
    t.expect("R. 1 ack 1");
    t.silent();
}

#[test]
fn lingering_for_some_time_closes_in_order() {
    let mut t = Script::server();
    choose(&mut t, |settings| settings.linger = 6);
    t.write(10);
    t.close();
    t.expect("FP. 1:11(10) ack 1");
    t.state(State::FinWait1);
}

#[test]
fn the_wait_for_the_peers_fin_can_be_chosen() {
    let mut t = Script::server();
    choose(&mut t, |settings| settings.fin_timeout = 7);
    t.close();
    t.expect("F. 1 ack 1");
    t.inject(". 1 ack 2");
    t.happened(Events::FIN_WAIT2_ORPHAN);
    t.wait(7 * SECOND - 1);
    t.happened(Events::NONE);
    t.wait(1);
    t.happened(Events::CLOSED);

    // Not at all: a late close resets, an early one is over with the FIN's acknowledgement.
    let mut t = Script::server();
    choose(&mut t, |settings| settings.fin_timeout = -1);
    t.shutdown();
    t.expect("F. 1 ack 1");
    t.inject(". 1 ack 2");
    t.happened(Events::ALL_ACKED);
    t.close();
    t.happened(Events::CLOSED);
    t.expect("R. 2 ack 1");

    let mut t = Script::server();
    choose(&mut t, |settings| settings.fin_timeout = -1);
    t.close();
    t.expect("F. 1 ack 1");
    t.inject(". 1 ack 2");
    t.happened(Events::CLOSED);
    t.silent();
}

#[test]
fn a_smaller_receive_buffer_takes_nothing_back() {
    let mut t = Script::server();
    let before = info(&t).receive_window;
    choose(&mut t, |settings| settings.recv_buffer = 4000);
    assert_eq!(info(&t).receive_window, before);
    assert_eq!(info(&t).receive_limit, 4000);
    let mut got = 0;
    while got < u64::from(before) {
        let len = MSS.min(u64::from(before) - got);
        t.inject(&format!(". {}:{}({len}) ack 1", 1 + got, 1 + got + len));
        while t.tcb.poll_transmit(&t.cfg, t.now).is_some() {}
        got += len;
    }
    t.has_received(got);
    t.wait(40);
    while t.tcb.poll_transmit(&t.cfg, t.now).is_some() {}
    assert_eq!(info(&t).receive_window, 0);
    t.read();
    t.expect(&format!(". 1 ack {} win 4000", 1 + got));
    // Larger again, as far as the field can say without a scale.
    choose(&mut t, |settings| settings.recv_buffer = 60_000);
    t.inject(&format!("P. {}:{}(10) ack 1", 1 + got, 11 + got));
    t.wait(40);
    t.expect(&format!(". 1 ack {} win 59990", 11 + got));
}

#[test]
fn the_congestion_control_can_be_changed() {
    let mut t = Script::server();
    assert_eq!(t.tcb.settings().congestion_control(&t.cfg), CongestionControl::NewReno);
    choose(&mut t, |settings| settings.set_congestion_control(CongestionControl::Cubic));
    assert_eq!(t.tcb.settings().congestion_control(&t.cfg), CongestionControl::Cubic);
    t.write(20 * MSS);
    while t.tcb.poll_transmit(&t.cfg, t.now).is_some() {}
    t.wait(210);
    // CUBIC keeps seven tenths of the flight, NewReno half of it.
    assert_eq!(info(&t).slow_start_threshold, 7000);
}

#[test]
fn information_is_true() {
    let mut t = Script::passive(plain(), &Passive { sack_permitted: true, ..passive() });
    let fresh = info(&t);
    assert_eq!((fresh.state, fresh.recovery), (State::Established, Recovery::Open));
    assert_eq!((fresh.rtt, fresh.min_rtt), (10 * MS, Some(10 * MS)));
    assert_eq!((fresh.snd_mss, fresh.advertised_mss), (1000, 1000));
    assert_eq!((fresh.congestion_window, fresh.slow_start_threshold), (10_000, u32::MAX));
    assert!(fresh.sack && !fresh.timestamps && fresh.window_scales.is_none());
    assert_eq!((fresh.path_mtu, fresh.receive_rtt), (Some(1040), Some(10 * MS)));
    assert_eq!((fresh.receive_limit, fresh.read_in_a_round_trip), (65_535, 32_768));
    t.tcb.set_path_mtu(&t.cfg, t.now, 1500);
    assert_eq!((info(&t).path_mtu, info(&t).snd_mss), (Some(1500), 1000));

    t.write(12 * MSS);
    while t.tcb.poll_transmit(&t.cfg, t.now).is_some() {}
    t.wait(7);
    let sent = info(&t);
    assert_eq!((sent.unacknowledged, sent.unsent), (10_000, 2000));
    assert_eq!((sent.bytes_sent, sent.bytes_acked, sent.bytes_resent), (10_000, 0, 0));
    assert_eq!((sent.data_segments_out, sent.since_sent), (10, 7 * MS));

    t.inject(". 1 ack 1 sack 1001:2001");
    let disorder = info(&t);
    assert_eq!((disorder.recovery, disorder.held), (Recovery::Disorder, 1000));
    t.inject(". 1 ack 1 sack 1001:4001");
    let lossy = info(&t);
    assert_eq!((lossy.recovery, lossy.held, lossy.lost), (Recovery::Recovery, 3000, 1000));
    while t.tcb.poll_transmit(&t.cfg, t.now).is_some() {}
    let again = info(&t);
    assert_eq!((again.bytes_resent, again.retransmits, again.lost), (1000, 1, 0));

    t.inject(". 1 ack 10001");
    while t.tcb.poll_transmit(&t.cfg, t.now).is_some() {}
    t.inject(". 1 ack 12001");
    t.inject("P. 1:51(50) ack 12001");
    let done = info(&t);
    assert_eq!((done.bytes_acked, done.bytes_received), (12_000, 50));
    assert_eq!((done.data_segments_in, done.unacknowledged, done.unsent), (1, 0, 0));
    assert_eq!((done.since_received, done.since_heard), (0, 0));
}
