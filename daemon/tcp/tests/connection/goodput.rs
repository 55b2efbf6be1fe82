//! One long stream over a link with a rate, a delay, a queue and bad luck, in virtual time: what
//! loss recovery and congestion control make of it. `cargo test -p fourwave-tcp goodput -- --nocapture`
//! prints the figures. Nothing here depends on the machine, so they can be asserted.

use std::collections::BTreeMap;

use fourwave_tcp::{Active, Config, CongestionControl, Nanos, Tcb, Transmit};
use fourwave_wire::Segment;

use crate::pair::shake_hands;
use crate::random::Random;
use crate::script::MS;

const MSS: u64 = 1448;
/// Ethernet, IP, TCP and timestamps.
const OVERHEAD: u64 = 66;
const WINDOW: u32 = 4 << 20;

/// A link of the same kind each way; the second direction carries acknowledgements and loses too.
#[derive(Clone, Copy)]
struct Path {
    /// Bits per second.
    rate: u64,
    /// One way.
    delay: Nanos,
    /// Bytes that wait for the link at most.
    queue: u64,
    /// Of 10,000 segments.
    lost: u64,
    repeated: u64,
    overtaken: u64,
    /// The sender looks for what has arrived this often; 0: at once.
    every: Nanos,
}

impl Path {
    const fn new(megabits: u64, delay_ms: u64) -> Path {
        Path {
            rate: megabits * 1_000_000,
            delay: delay_ms * MS,
            queue: megabits * 125 * (2 * delay_ms + 10),
            lost: 0,
            repeated: 0,
            overtaken: 0,
            every: 0,
        }
    }
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    elapsed: Nanos,
    timeouts: u32,
    lost: u32,
    repeated: u32,
    /// Lost to a full queue.
    overflowed: u32,
}

impl Outcome {
    /// Bits per second.
    fn goodput(&self, len: u64) -> u64 {
        len * 8 * 1000 / (self.elapsed / MS).max(1)
    }
}

struct Flying {
    to: usize,
    sent: Transmit,
}

struct Run {
    tcbs: [Tcb; 2],
    configs: [Config; 2],
    path: Path,
    random: Random,
    now: Nanos,
    /// When each direction's link has sent all that waits for it.
    free_at: [Nanos; 2],
    flying: BTreeMap<(Nanos, u64), Flying>,
    count: u64,
    outcome: Outcome,
}

impl Run {
    fn flush(&mut self, from: usize) {
        let now = self.now;
        while let Some(sent) = self.tcbs[from].poll_transmit(&self.configs[from], now) {
            let len = sent.payload.end - sent.payload.start + OVERHEAD;
            let waits = self.free_at[from].saturating_sub(now);
            let is_data = len > OVERHEAD;
            if waits * self.path.rate / 8_000_000_000 > self.path.queue {
                self.outcome.overflowed += u32::from(is_data);
                continue;
            }
            self.free_at[from] = now.max(self.free_at[from]) + len * 8_000_000_000 / self.path.rate;
            if self.random.below(10_000) < self.path.lost {
                self.outcome.lost += u32::from(is_data);
                continue;
            }
            let late = self.random.below(10_000) < self.path.overtaken;
            let late = if late { MS + self.random.below(4) * MS } else { 0 };
            let copies = 1 + u64::from(self.random.below(10_000) < self.path.repeated);
            for _ in 0..copies {
                self.count += 1;
                let at = self.free_at[from] + self.path.delay + late;
                // The receiver looks at once.
                let at = if from == 0 { at } else { at.next_multiple_of(self.path.every.max(1)) };
                self.flying.insert((at, self.count), Flying { to: 1 - from, sent: sent.clone() });
            }
        }
    }

    fn deliver(&mut self, flying: &Flying) {
        let sent = &flying.sent;
        let zeros = [0; MSS as usize];
        let segment = Segment {
            seq: sent.seq,
            ack: sent.ack,
            flags: sent.flags,
            window: sent.window,
            options: sent.options,
            payload: &zeros[..(sent.payload.end - sent.payload.start) as usize],
            ..Segment::default()
        };
        let cfg = &self.configs[flying.to];
        // What the bytes are is tested elsewhere.
        let _ = self.tcbs[flying.to].handle_segment(cfg, self.now, &segment, &mut Nowhere);
    }

    /// The sender writes all that fits its buffer, the receiver reads all there is.
    fn run_applications(&mut self, len: u64) {
        let room = self.tcbs[0].snd_acked() + u64::from(self.configs[0].send_buffer);
        self.tcbs[0].set_send_tail(&self.configs[0], room.min(len)).unwrap();
        let tail = self.tcbs[1].rcv_tail();
        self.tcbs[1].set_consumed(tail).unwrap();
    }

    fn step(&mut self, len: u64) {
        let arrival = self.flying.keys().next().map(|key| key.0);
        let timers = self.tcbs.iter().filter_map(Tcb::deadline).min();
        let next = arrival.into_iter().chain(timers).min().expect("the stream has not ended");
        self.now = self.now.max(next);
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now)
        {
            let flying = entry.remove();
            self.deliver(&flying);
        }
        for index in 0..2 {
            if self.tcbs[index].deadline().is_some_and(|deadline| deadline <= self.now) {
                let before = self.tcbs[index].congestion_window();
                let _ = self.tcbs[index].handle_timer(&self.configs[index], self.now);
                let after = self.tcbs[index].congestion_window();
                // No other timer leaves so little of the window.
                let is_timeout = u64::from(after) == MSS && after < before;
                self.outcome.timeouts += u32::from(is_timeout && index == 0);
            }
        }
        self.run_applications(len);
        self.flush(0);
        self.flush(1);
    }
}

/// The bytes do not matter here.
struct Nowhere;

impl fourwave_tcp::Buffers for Nowhere {
    fn store(&mut self, _: u64, _: &[u8]) -> bool {
        true
    }
}

/// `len` bytes from one end to the other.
fn stream(path: Path, algorithm: CongestionControl, len: u64, seed: u64) -> Outcome {
    let cfg = Config {
        congestion_control: algorithm,
        recv_window_first: WINDOW,
        recv_window_max: WINDOW,
        send_buffer: WINDOW,
        ..Config::default()
    };
    let configs = [cfg.clone(), cfg];
    let rtt = 2 * path.delay;
    let active = |iss| Active { iss, is_v4: true, mss: MSS as u16 + 12, ts_offset: 5 };
    let (a, b) = shake_hands(Tcb::active(&configs[0], 0, &active(7)), &configs, &active(9), rtt);
    let mut run = Run {
        tcbs: [a, b],
        configs,
        path,
        random: Random::new(seed),
        now: rtt,
        free_at: [0; 2],
        flying: BTreeMap::new(),
        count: 0,
        outcome: Outcome::default(),
    };
    run.run_applications(len);
    run.flush(0);
    while run.tcbs[0].snd_acked() < len {
        run.step(len);
    }
    Outcome { elapsed: run.now, repeated: run.tcbs[0].retransmits(), ..run.outcome }
}

/// The mean of a few seeds, printed.
#[expect(clippy::print_stdout, reason = "the figures are what people run this for")]
fn mean(path: Path, algorithm: CongestionControl) -> Outcome {
    let mut sum = Outcome::default();
    for seed in 0..SEEDS {
        let one = stream(path, algorithm, LEN, seed);
        sum.elapsed += one.elapsed / SEEDS;
        sum.timeouts += one.timeouts;
        sum.lost += one.lost;
        sum.repeated += one.repeated;
        sum.overflowed += one.overflowed;
    }
    let Path { rate, delay, lost, overtaken, repeated, .. } = path;
    println!(
        "{algorithm:?}, {} Mb/s, {} ms each way; of 10,000 {lost} lost, {overtaken} overtaken, \
         {repeated} repeated: {} kb/s, {} segments lost, {} to a full queue, {} sent again, {} timeouts",
        rate / 1_000_000,
        delay / MS,
        sum.goodput(LEN) / 1000,
        sum.lost,
        sum.overflowed,
        sum.repeated,
        sum.timeouts,
    );
    sum
}

const SEEDS: u64 = 5;
const LEN: u64 = 8 << 20;
const PATHS: [Path; 3] = [Path::new(1000, 1), Path::new(100, 10), Path::new(20, 40)];
const ALGORITHMS: [CongestionControl; 2] = [CongestionControl::Cubic, CongestionControl::NewReno];

/// Losses one by one cost a round trip, not a timeout, even when the repair is lost too.
#[test]
fn loss_is_repaired_without_timeouts() {
    for path in PATHS {
        for algorithm in ALGORITHMS {
            for (lost, one_timeout_in) in [(10, 30), (100, 30), (500, 30)] {
                let outcome = mean(Path { lost, ..path }, algorithm);
                let allowed = (outcome.lost + outcome.overflowed) / one_timeout_in;
                assert!(outcome.timeouts <= allowed.max(2), "{outcome:?}");
                let needed = outcome.lost + outcome.overflowed;
                assert!(outcome.repeated >= needed, "{outcome:?}");
            }
        }
    }
}

/// The first slow start fills the queue; what is lost then does not stop the stream.
#[test]
fn a_queue_that_overflows_does_not_stop_the_stream() {
    for path in PATHS {
        for algorithm in ALGORITHMS {
            let outcome = mean(path, algorithm);
            assert_eq!(outcome.timeouts, 0, "{outcome:?}");
            assert!(outcome.goodput(LEN) > path.rate * 2 / 5, "{outcome:?}");
        }
    }
}

/// Order that is not kept, and segments that come twice, cost little.
#[test]
fn reordering_and_duplication_are_no_loss() {
    for path in PATHS {
        for algorithm in ALGORITHMS {
            let outcome = mean(Path { overtaken: 100, repeated: 100, ..path }, algorithm);
            assert!(outcome.goodput(LEN) > path.rate / 5, "{outcome:?}");
        }
    }
}

/// The congestion window of a Reno flow over a path that loses one in `1/p` is some 1.2/√p segments.
#[test]
fn goodput_is_what_the_loss_allows() {
    for (lost, root) in [(10, 316), (100, 1000), (500, 2236)] {
        for algorithm in ALGORITHMS {
            let path = Path { lost, ..Path::new(100, 10) };
            let outcome = mean(path, algorithm);
            // √p is `root` / 10,000; the round trip is 20 ms.
            let reno = (MSS * 8 * 12_000 / root) * 50;
            assert!(outcome.goodput(LEN) > reno.min(path.rate) / 2, "{outcome:?}, {reno}");
        }
    }
}

/// A short path, and a sender that handles many acknowledgements before it sends: the window is what
/// the loss allows, and hardly anything is sent again that was not lost.
#[test]
fn a_sender_that_looks_rarely_keeps_its_window_and_repeats_only_what_was_lost() {
    for (lost, root) in [(100, 1000), (500, 2236)] {
        for every in [0, 100_000, 400_000] {
            let path = Path { delay: 200_000, queue: 1 << 20, ..Path::new(1000, 1) };
            let outcome = mean(Path { lost, every, ..path }, CongestionControl::Cubic);
            assert!(outcome.timeouts <= outcome.lost / 80, "{outcome:?}");
            assert!(outcome.repeated >= outcome.lost, "{outcome:?}");
            // What was acknowledged, but the acknowledgement was lost, comes on top.
            assert!(outcome.repeated <= outcome.lost + outcome.lost / 20, "{outcome:?}");
            // √p is `root` / 10,000; an acknowledgement waits for half of `every` on the mean.
            let reno = MSS * 8 * 12_000 / root * 1_000_000_000 / (2 * path.delay + every / 2);
            assert!(outcome.goodput(LEN) > reno / 4, "{outcome:?}, {reno}");
        }
    }
}
