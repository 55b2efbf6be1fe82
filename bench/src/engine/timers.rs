//! The timer wheel alone: what it costs to arm, cancel and expire one of very many timers.

use fourwave_stack::wheel::{Timer, Timers, Wheel};
use serde::Serialize;

use crate::machine::cpu_nanos;

/// Deadlines lie within so many ticks: 60 s, as those of TIME_WAIT.
const SPAN: u32 = 60_000;

/// Nanoseconds for one timer, while about as many are armed as the run has.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TimerNanos {
    /// To arm one.
    pub arm: f64,
    /// To cancel one.
    pub cancel: f64,
    /// To let one expire.
    pub expire: f64,
}

struct Records(Vec<Timer>);

impl Timers for Records {
    fn timer(&mut self, id: u32) -> &mut Timer {
        &mut self.0[id as usize]
    }
}

/// Arms `count` timers at random deadlines, cancels every other one in random order and arms it
/// again, then lets all expire.
pub(super) fn measure(count: u32) -> TimerNanos {
    let mut records = Records(vec![Timer::IDLE; count as usize]);
    let mut wheel = Wheel::new();
    let mut random = Random(1);
    let deadlines: Vec<u64> = (0..count).map(|_| u64::from(1 + random.below(SPAN))).collect();
    let mut half: Vec<u32> = (0..count).step_by(2).collect();
    random.shuffle(&mut half);

    let start = cpu_nanos();
    for (id, deadline) in (0..count).zip(&deadlines) {
        wheel.arm(&mut records, id, *deadline);
    }
    let arm = nanos_each(start, count);
    assert_eq!(wheel.armed(), count as usize);

    let start = cpu_nanos();
    for id in &half {
        wheel.cancel(&mut records, *id);
    }
    let cancel = nanos_each(start, half.len() as u32);
    for id in &half {
        wheel.arm(&mut records, *id, deadlines[*id as usize]);
    }

    let start = cpu_nanos();
    let mut expired = 0;
    for tick in 1..=u64::from(SPAN) {
        while wheel.expire(&mut records, tick).is_some() {
            expired += 1;
        }
    }
    assert_eq!(expired, count, "every timer fires once");
    TimerNanos { arm, cancel, expire: nanos_each(start, count) }
}

fn nanos_each(start: u64, count: u32) -> f64 {
    (cpu_nanos() - start) as f64 / f64::from(count)
}

/// Not for secrets.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: u32) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 32) * u64::from(limit)) >> 32) as u32
    }

    pub(super) fn shuffle(&mut self, list: &mut [u32]) {
        for place in (1..list.len()).rev() {
            // Below 2^32, as the list's length is.
            let other = self.below(place as u32 + 1) as usize;
            list.swap(place, other);
        }
    }
}
