//! Path MTU: told by routers, by routes, or found where nobody tells (RFC 1191, 8201, 4821).

use crate::script::{MSS, OUR_ISS, Script, passive, plain};
use fourwave_tcp::{Config, Passive};
use fourwave_wire::IcmpKind;

/// IPv4 and TCP headers.
const HEADERS: u64 = 40;

fn sacking(cfg: Config) -> Script {
    Script::passive(cfg, &Passive { sack_permitted: true, ..passive() })
}

/// The sizes of the segments that are due.
fn sizes(t: &mut Script) -> Vec<u64> {
    let due = std::iter::from_fn(|| t.tcb.poll_transmit(&t.cfg, t.now));
    due.map(|sent| sent.payload.end - sent.payload.start).collect()
}

fn too_big(t: &mut Script, seq: u64, mtu: u64) {
    let kind = IcmpKind::PacketTooBig { mtu: mtu as u32 };
    let _ = t.tcb.handle_icmp(&t.cfg, t.now, OUR_ISS.wrapping_add(seq as u32), kind);
}

/// A connection whose path swallows segments of more than `limit` bytes; the window is open wide.
struct Hole {
    t: Script,
    limit: u64,
    /// Received by the peer, beyond its edge too.
    held: Vec<(u64, u64)>,
    edge: u64,
    largest: u64,
}

impl Hole {
    fn new(limit: u64) -> Hole {
        let cfg = Config { send_buffer: 1 << 20, ..plain() };
        Hole { t: sacking(cfg), limit, held: Vec::new(), edge: 1, largest: 0 }
    }

    /// What is due crosses the path or not, and the peer answers it.
    fn cross(&mut self) -> usize {
        let due = std::iter::from_fn(|| self.t.tcb.poll_transmit(&self.t.cfg, self.t.now));
        let due: Vec<_> = due.collect();
        for sent in &due {
            let len = sent.payload.end - sent.payload.start;
            if len == 0 || len > self.limit {
                continue;
            }
            self.largest = self.largest.max(len);
            self.held.push((sent.payload.start + 1, sent.payload.end + 1));
            self.held.sort_unstable();
            for (start, end) in &self.held {
                if *start <= self.edge {
                    self.edge = self.edge.max(*end);
                }
            }
            let edge = self.edge;
            self.held.retain(|(_, end)| *end > edge);
            let blocks = self.held.iter().rev().take(3).map(|(l, r)| format!("{l}:{r}"));
            let blocks = blocks.collect::<Vec<_>>().join(",");
            let sack = if blocks.is_empty() { String::new() } else { format!(" sack {blocks}") };
            self.t.inject(&format!(". 1 ack {edge}{sack}"));
        }
        due.len()
    }

    /// Writes and lets time pass until all is acknowledged.
    fn send(&mut self, len: u64) {
        self.t.write(len);
        let end = self.t.tcb.snd_acked() + len;
        for _ in 0..20_000 {
            if self.t.tcb.snd_acked() == end {
                return;
            }
            if self.cross() == 0 {
                self.t.wait(5);
            }
        }
        panic!("{:?}", self.t.tcb);
    }
}

#[test]
fn a_router_makes_segments_smaller_and_what_is_in_flight_goes_again() {
    let mut t = Script::server();
    t.write(5 * MSS);
    assert_eq!(sizes(&mut t), [1000; 5]);
    let window = t.tcb.congestion_window();
    too_big(&mut t, 1, 600);
    assert_eq!(sizes(&mut t)[..2], [560, 560]);
    assert_eq!(t.tcb.congestion_window(), window, "that is no congestion");
    // It cannot make them larger, and what is not in flight means nothing.
    too_big(&mut t, 1, 900);
    too_big(&mut t, 99_999, 552);
    assert_eq!(u64::from(t.tcb.mss()), 600 - HEADERS);
}

#[test]
fn what_others_learned_holds_here_until_it_is_forgotten() {
    let mut t = Script::server();
    t.write(2 * MSS);
    t.tcb.set_path_mtu(&t.cfg, t.now, 700);
    assert_eq!(sizes(&mut t)[0], 660);
    t.inject(". 1 ack 2001");
    t.tcb.set_path_mtu(&t.cfg, t.now, 1500);
    t.write(2 * MSS);
    // No more than both ends agreed on.
    assert_eq!(sizes(&mut t), [1000, 1000]);
}

#[test]
fn before_the_handshake_it_holds_too() {
    let mut t = Script::client(plain());
    t.tcb.set_path_mtu(&t.cfg, t.now, 700);
    // What we take is not what the path takes.
    t.expect("S 0 mss 1000");
    t.inject("S. 0 ack 1 mss 1000");
    t.expect(". 1 ack 1");
    t.write(MSS);
    assert_eq!(sizes(&mut t)[0], 660);
}

#[test]
fn a_path_that_swallows_large_segments_is_found_out() {
    let cfg = Config { base_mss: 600, ..plain() };
    let mut t = sacking(cfg);
    t.write(4 * MSS);
    assert_eq!(sizes(&mut t), [1000; 4]);
    t.wait(25);
    assert_eq!(sizes(&mut t), [1000], "a probe of the tail");
    for wait in [210, 420] {
        t.wait(wait);
        assert_eq!(sizes(&mut t), [1000]);
    }
    // The third timeout.
    t.wait(840);
    assert_eq!(sizes(&mut t), [600]);
    t.inject(". 1 ack 601");
    assert_eq!(sizes(&mut t), [600, 600]);
}

#[test]
fn small_segments_that_are_lost_accuse_nobody() {
    let cfg = Config { base_mss: 600, ..plain() };
    let mut t = sacking(cfg);
    t.write(500);
    assert_eq!(sizes(&mut t), [500]);
    t.wait(10_000);
    assert_eq!(sizes(&mut t), [500]);
    t.inject(". 1 ack 501");
    t.write(2 * MSS);
    assert_eq!(sizes(&mut t)[0], 1000);
}

#[test]
fn when_probing_is_off_nothing_gets_smaller() {
    let mut t = sacking(Config { base_mss: 600, mtu_probing: false, ..plain() });
    t.write(4 * MSS);
    sizes(&mut t);
    t.wait(30_000);
    assert_eq!(sizes(&mut t), [1000]);
}

/// The largest segment that passes is found, to within the threshold, and losing probes costs the
/// window nothing.
#[test]
fn the_search_finds_what_passes() {
    for limit in [600, 701, 900, 990] {
        let mut hole = Hole::new(limit);
        hole.t.cfg.base_mss = 600;
        hole.send(400_000);
        let mss = u64::from(hole.t.tcb.mss());
        assert!(mss <= limit && mss + 8 >= limit, "{mss} of {limit}");
        assert!(hole.t.tcb.congestion_window() > 10_000, "{:?}", hole.t.tcb);
    }
}

#[test]
fn larger_segments_are_tried_again_later() {
    let mut hole = Hole::new(700);
    hole.t.cfg.base_mss = 600;
    hole.send(400_000);
    assert!(hole.t.tcb.mss() <= 700);
    hole.limit = 1000;
    hole.send(100_000);
    assert!(hole.t.tcb.mss() <= 700, "not yet");
    hole.t.wait(601_000);
    hole.send(600_000);
    assert_eq!(hole.t.tcb.mss(), 1000);
    assert_eq!(hole.largest, 1000);
}
