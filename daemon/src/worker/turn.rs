//! The poll loop.

use super::taps::{deliver, wall_clock};
use super::{Polling, Worker};
use crate::tap::Fate;
use fourwave_stack::{Dropped, Owners};
use rustix::time::ClockId;

/// Frames taken from the NIC queue, and from the hand-off ring, in one turn.
const BATCH: usize = 64;
/// Turns without work after which the CPU is offered to others while still polling.
const SPINS_BEFORE_YIELD: u32 = 16;
/// How often, in nanoseconds, a busy worker publishes counters and answers control's questions.
const HOUSEKEEPING: u64 = 20_000_000;

/// How long, in nanoseconds, to leave a device alone that takes no more frames.
const TX_RETRY: u64 = 1_000_000;

/// Frames before what the NIC told is judged by where they arrived.
const DOUBT_AFTER: u64 = 10_000;

/// CLOCK_MONOTONIC, nanoseconds.
pub(super) fn clock() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Worker {
    /// Works until control says stop.
    pub(super) fn run(&mut self) {
        let mut idle_since = None;
        let mut spins = 0;
        while !self.stopping {
            self.env.now = clock();
            if self.turn() > 0 {
                (idle_since, spins) = (None, 0);
                continue;
            }
            let since = *idle_since.get_or_insert(self.env.now);
            spins += 1;
            if self.may_sleep(since) {
                if self.is_housekeeping_due() {
                    self.housekeep();
                }
                self.sleep(self.env.now, self.wake_at());
                spins = 0;
                // Not `None`: after a wake for nothing it sleeps again at once.
            } else if spins > SPINS_BEFORE_YIELD {
                // Whoever shares this CPU, an application perhaps, can have it.
                rustix::thread::sched_yield();
            } else {
                core::hint::spin_loop();
            }
        }
        self.stop();
        self.housekeep();
    }

    fn may_sleep(&self, idle_since: u64) -> bool {
        match self.polling {
            Polling::Busy => false,
            Polling::Adaptive(spin) => {
                self.env.now.saturating_sub(idle_since) >= spin.as_nanos() as u64
            }
            Polling::Interrupt => true,
        }
    }

    /// When to look again without being woken.
    fn wake_at(&self) -> Option<u64> {
        if self.tx_behind || self.shard.has_output() {
            return Some(self.env.now + TX_RETRY);
        }
        let due = self.shard.next_deadline();
        if !self.changed {
            return due;
        }
        // What has changed is still to be published.
        let publish = self.published_at + HOUSEKEEPING;
        Some(due.map_or(publish, |due| due.min(publish)))
    }

    fn is_housekeeping_due(&self) -> bool {
        self.env.now - self.published_at >= HOUSEKEEPING
    }

    /// Takes a batch from each source, then sends what is due; returns how much work there was.
    fn turn(&mut self) -> usize {
        self.counters.turns += 1;
        let mut work = self.receive();
        self.gate.turn(self.env.now, work, || self.rx.waiting());
        work += self.take_over();
        work += self.handle_control();
        work += self.handle_commands();
        if self.shard.next_deadline().is_some_and(|due| due <= self.env.now) {
            self.shard.advance(self.env.now, &mut self.env);
            work += 1;
        }
        work += self.transmit();
        self.env.notices.deliver(&mut self.env.clients);
        if !self.env.taps.is_empty() {
            self.env.taps.settle();
        }
        if self.is_housekeeping_due() {
            self.housekeep();
        }
        self.changed |= work > 0;
        work
    }

    fn receive(&mut self) -> usize {
        let (shard, env, counters) = (&mut self.shard, &mut self.env, &mut self.counters);
        if self.workers == 1 {
            let count = self.rx.receive(BATCH, |frame| deliver(shard, env, frame, None));
            counters.frames_received += count as u64;
            return count;
        }
        let (keys, owners, workers) = (&self.keys, &self.owners, self.workers);
        let (index, exchange) = (self.index, &self.exchange);
        // A bit per worker to be woken; there are at most 64.
        let mut handed = 0u64;
        let count = self.rx.receive(BATCH, |frame| {
            let Some(tuple) = fourwave_wire::peek_tuple(frame) else {
                // Not for the stack; it says why when it looks at it whole.
                counters.unowned += 1;
                return deliver(shard, env, frame, None);
            };
            let owner = owners.owner(keys, &tuple, workers);
            if owner == index {
                deliver(shard, env, frame, None);
            } else if exchange.hand(owner, index, frame) {
                counters.frames_handed_over += 1;
                handed |= 1 << owner;
            } else {
                shard.note_drop(env.now, Dropped::HandoffFull, tuple);
                if !env.taps.is_empty() {
                    let dropped = Some(Dropped::HandoffFull.into());
                    env.taps.received(wall_clock(), Fate::Received { from: None, dropped }, frame);
                }
            }
        });
        while handed != 0 {
            exchange.ring(handed.trailing_zeros());
            handed &= handed - 1;
        }
        counters.frames_received += count as u64;
        count
    }

    /// Frames that other workers received for us.
    fn take_over(&mut self) -> usize {
        let mut count = 0;
        while count < BATCH {
            let Some(frame) = self.exchange.take(self.index) else { break };
            let from = Some(frame.from());
            deliver(&mut self.shard, &mut self.env, frame.bytes(), from);
            self.exchange.reuse(self.index, frame);
            count += 1;
        }
        self.counters.frames_taken_over += count as u64;
        count
    }

    fn transmit(&mut self) -> usize {
        let waiting = self.shard.has_output();
        // In any case: a new path table lets connections go on that had no way to their peer.
        self.shard.flush(self.env.now, &mut self.env);
        if self.tx_behind || !self.env.tx.is_flushed() {
            self.tx_behind = !self.env.tx.flush();
            return usize::from(!self.tx_behind);
        }
        usize::from(waiting)
    }

    fn housekeep(&mut self) {
        self.published_at = self.env.now;
        self.changed = false;
        self.report_idle();
        self.reclaim_extents();
        self.counters.tx_device_drops = self.env.tx.dropped();
        self.published.publish(&self.shard, &self.counters);
        self.watch_owners();
    }

    /// Says once if the NIC deals frames out otherwise than it told: nothing breaks, but most
    /// frames take the way over the hand-off ring then. Fragments and what carries headers that the
    /// NIC does not read always do.
    fn watch_owners(&mut self) {
        let (received, handed) = (self.counters.frames_received, self.counters.frames_handed_over);
        let doubtful = received >= DOUBT_AFTER && handed > received / 4;
        if self.owners_doubted || !doubtful || !matches!(self.owners, Owners::Rss(_)) {
            return;
        }
        self.owners_doubted = true;
        tracing::warn!(
            queue_of_worker = self.index,
            received,
            handed,
            "frames arrive on other queues than the interface's RSS key and table say; if they \
             were changed (ethtool -X), restart fourwaved"
        );
    }
}
