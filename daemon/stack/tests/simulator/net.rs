//! The link between two hosts: it loses, duplicates, delays and so reorders frames.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fourwave_tcp::Nanos;

use crate::rng::Rng;

/// How bad the link is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) loss_per_mille: u64,
    pub(crate) duplicate_per_mille: u64,
    pub(crate) delay: Nanos,
    pub(crate) jitter: Nanos,
}

/// A frame on its way: when it arrives, in which order it was sent, to which host.
type Flight = (Nanos, u64, usize, Vec<u8>);

/// The link.
pub(crate) struct Net {
    faults: Faults,
    queue: BinaryHeap<Reverse<Flight>>,
    sent: u64,
}

impl Net {
    pub(crate) fn new(faults: Faults) -> Net {
        Net { faults, queue: BinaryHeap::new(), sent: 0 }
    }

    pub(crate) fn send(&mut self, now: Nanos, to: usize, frame: Vec<u8>, rng: &mut Rng) {
        if rng.chance(self.faults.loss_per_mille) {
            return;
        }
        if rng.chance(self.faults.duplicate_per_mille) {
            self.enqueue(now, to, frame.clone(), rng);
        }
        self.enqueue(now, to, frame, rng);
    }

    fn enqueue(&mut self, now: Nanos, to: usize, frame: Vec<u8>, rng: &mut Rng) {
        let at = now + self.faults.delay + rng.below(self.faults.jitter + 1);
        self.sent += 1;
        self.queue.push(Reverse((at, self.sent, to, frame)));
    }

    pub(crate) fn next(&self) -> Option<Nanos> {
        self.queue.peek().map(|Reverse((at, ..))| *at)
    }

    /// A frame that arrives by `now`, and where.
    pub(crate) fn arrive(&mut self, now: Nanos) -> Option<(usize, Vec<u8>)> {
        self.next().filter(|&at| at <= now)?;
        self.queue.pop().map(|Reverse((_, _, to, frame))| (to, frame))
    }
}
