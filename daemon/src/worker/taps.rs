//! Captures: copies of frames for tools. While there is none, a frame costs one branch.

use crate::tap::{Fate, Slot, Tap};
use fourwave_stack::Shard;
use rustix::time::ClockId;
use std::sync::Arc;

use super::host::Environment;

/// Captures that can be under way at a time. Control begins no more.
pub const MOST_TAPS: usize = 4;

/// Frames sent while one is received that wait for it: what is sent in answer is written down
/// after what it answers.
const HELD: usize = 64;

/// The captures under way.
pub(super) struct Taps {
    worker: u32,
    open: Vec<Open>,
    /// A frame is being handled.
    receiving: bool,
}

struct Open {
    tap: Arc<Tap>,
    held: Vec<Slot>,
    /// Something was passed on since control was told.
    passed: bool,
}

impl Taps {
    pub(super) fn new(worker: u32) -> Taps {
        Taps { worker, open: Vec::with_capacity(MOST_TAPS), receiving: false }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn add(&mut self, tap: Arc<Tap>) {
        // Withdrawn ones may still be here.
        self.open.retain(|open| !open.tap.is_withdrawn());
        self.open.push(Open { tap, held: Vec::with_capacity(HELD), passed: false });
    }

    /// After a turn: tells control of what there is, and lets go of what is not wanted any more.
    pub(super) fn settle(&mut self) {
        self.open.retain_mut(|open| {
            if std::mem::take(&mut open.passed) {
                open.tap.ring();
            }
            !open.tap.is_withdrawn()
        });
    }

    /// A frame is about to be sent.
    #[cold]
    pub(super) fn sent(&mut self, frame: &[u8]) {
        let at = wall_clock();
        for open in &mut self.open {
            let Some(mut slot) = open.tap.slot(self.worker, Fate::Sent, frame) else { continue };
            slot.fill(at, Fate::Sent, frame);
            if self.receiving && open.held.len() < HELD {
                open.held.push(slot);
            } else {
                open.tap.pass(self.worker, slot);
                open.passed = true;
            }
        }
    }

    /// A frame was received.
    #[cold]
    pub(super) fn received(&mut self, at: u64, fate: Fate, frame: &[u8]) {
        self.receiving = false;
        for open in &mut self.open {
            if let Some(mut slot) = open.tap.slot(self.worker, fate, frame) {
                slot.fill(at, fate, frame);
                open.tap.pass(self.worker, slot);
                open.passed = true;
            }
            for slot in open.held.drain(..) {
                open.tap.pass(self.worker, slot);
                open.passed = true;
            }
        }
    }
}

/// Hands a frame that arrived at worker `from`, if that is another one, to the shard.
#[inline]
pub(super) fn deliver(shard: &mut Shard, env: &mut Environment, frame: &[u8], from: Option<u32>) {
    if env.taps.is_empty() {
        shard.handle_frame(env.now, frame, env);
    } else {
        deliver_tapped(shard, env, frame, from);
    }
}

#[cold]
fn deliver_tapped(shard: &mut Shard, env: &mut Environment, frame: &[u8], from: Option<u32>) {
    let at = wall_clock();
    let before = shard.frame_drops();
    env.taps.receiving = true;
    shard.handle_frame(env.now, frame, env);
    let dropped = shard.last_frame_drop().filter(|_| shard.frame_drops() != before);
    env.taps.received(at, Fate::Received { from, dropped }, frame);
}

/// Nanoseconds since 1970.
pub(super) fn wall_clock() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::Realtime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
