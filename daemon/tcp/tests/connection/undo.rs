//! Loss that turns out to be none.

use crate::script::{MSS, Script, passive, plain};
use fourwave_tcp::{Config, Passive};

fn send_all(t: &mut Script) -> u64 {
    std::iter::from_fn(|| t.tcb.poll_transmit(&t.cfg, t.now)).count() as u64
}

/// Ten segments are sent; with timestamps the clock reads 1000000.
fn ten_sent(timestamps: bool, sack: bool) -> Script {
    let cfg = Config { timestamps, ..plain() };
    let peer_timestamp = timestamps.then_some(1);
    let mut t =
        Script::passive(cfg, &Passive { peer_timestamp, sack_permitted: sack, ..passive() });
    t.inject(if timestamps { ". 1 ack 1 ts 1:0" } else { ". 1 ack 1" });
    t.write(10 * u64::from(t.tcb.mss()));
    assert_eq!(send_all(&mut t), 10);
    t
}

#[test]
fn a_timeout_answered_by_the_original_is_undone() {
    let mut t = ten_sent(true, false);
    let window = t.tcb.congestion_window();
    t.wait(210);
    assert_eq!(send_all(&mut t), 1);
    // It echoes the first transmission: only late.
    t.inject(". 1 ack 989 ts 2:1000000");
    assert!(t.tcb.congestion_window() >= window, "{}", t.tcb.congestion_window());
    // Nothing else is sent again.
    assert_eq!(send_all(&mut t), 0);
    assert_eq!(t.tcb.retransmits(), 1);
}

#[test]
fn a_timeout_answered_by_the_repetition_is_not() {
    for echo in [1_000_210, 1_000_300, 0] {
        let mut t = ten_sent(true, false);
        t.wait(210);
        assert_eq!(send_all(&mut t), 1);
        t.inject(&format!(". 1 ack 989 ts 2:{echo}"));
        assert_eq!(t.tcb.congestion_window(), 2 * 988);
        assert_eq!(send_all(&mut t), 2);
        // Only the first acknowledgement can tell.
        t.inject(". 1 ack 1977 ts 3:1000000");
        assert!(t.tcb.congestion_window() < 5 * MSS as u32);
    }
}

#[test]
fn a_repair_of_what_was_only_overtaken_is_undone() {
    let mut t = ten_sent(true, true);
    let window = t.tcb.congestion_window();
    t.wait(20);
    t.inject(". 1 ack 1 sack 989:3953 ts 2:1000000");
    assert_eq!(send_all(&mut t), 1);
    assert!(t.tcb.congestion_window() < window);
    t.inject(". 1 ack 3953 ts 3:1000000");
    assert!(t.tcb.congestion_window() >= window);
}

#[test]
fn reported_duplicates_undo_without_timestamps() {
    let mut t = ten_sent(false, true);
    t.inject(". 1 ack 1 sack 1001:2001,3001:4001,5001:7001");
    assert_eq!(send_all(&mut t), 1);
    t.inject(". 1 ack 1 sack 5001:10001");
    let repeated = 1 + send_all(&mut t);
    assert!(repeated > 1);
    // All that was thought lost arrives.
    t.inject(". 1 ack 10001");
    assert_eq!(t.tcb.congestion_window(), 5000);
    t.inject(". 1 ack 10001 sack 1:1001");
    assert_eq!(t.tcb.congestion_window(), 5000);
    t.inject(&format!(". 1 ack 10001 sack 2001:{}", 2001 + (repeated - 1) * MSS));
    assert_eq!(t.tcb.congestion_window(), 10_000);
}

#[test]
fn one_duplicate_of_several_undoes_nothing() {
    let mut t = ten_sent(false, true);
    t.inject(". 1 ack 1 sack 1001:2001,3001:4001,5001:7001");
    assert_eq!(send_all(&mut t), 1);
    t.inject(". 1 ack 1 sack 5001:10001");
    assert!(send_all(&mut t) > 0);
    t.inject(". 1 ack 10001 sack 1:1001");
    assert_eq!(t.tcb.congestion_window(), 5000);
}
