//! The link between two hosts: it loses, duplicates, damages, delays and so reorders frames, has a
//! rate and a bounded queue, and takes only packets of some size.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fourwave_tcp::Nanos;
use fourwave_wire::{ChecksumPolicy, parse};

use crate::draw::Faults;
use crate::frame::{Frame, is_v6, mark, too_big};
use crate::rng::Rng;
use crate::trace::{Fate, Trace};
use crate::watch::Seen;

/// A frame on its way.
pub(crate) struct Flight {
    pub(crate) to: usize,
    pub(crate) frame: Frame,
    /// What it says, unless it was damaged on the way.
    pub(crate) seen: Option<Seen>,
}

/// One direction.
#[derive(Clone, Copy, Default)]
struct Line {
    /// Everything is lost until then.
    bad_until: Nanos,
    /// The last frame has left by then.
    free_at: Nanos,
}

/// What the link has done.
#[derive(Clone, Copy, Default)]
pub(crate) struct Done {
    /// Frames given to it.
    pub(crate) taken: u64,
    /// Frames lost or damaged.
    pub(crate) lost: u64,
    /// Frames that were too large for it.
    pub(crate) too_big: u64,
    /// Frames that were told of congestion.
    pub(crate) marked: u64,
}

/// The link.
pub(crate) struct Net {
    faults: Faults,
    lines: [Line; 2],
    /// When frames arrive, in which order they were sent, their slots in `flights`.
    queue: BinaryHeap<Reverse<(Nanos, u32, u32)>>,
    flights: Vec<Option<Flight>>,
    free: Vec<u32>,
    /// Buffers for frames.
    pool: Vec<Vec<u8>>,
    order: u32,
    pub(crate) done: Done,
    pub(crate) trace: Trace,
}

impl Net {
    pub(crate) fn new(faults: Faults, trace: Trace) -> Net {
        Net {
            faults,
            lines: [Line::default(); 2],
            queue: BinaryHeap::new(),
            flights: Vec::new(),
            free: Vec::new(),
            pool: Vec::new(),
            order: 0,
            done: Done::default(),
            trace,
        }
    }

    /// Takes a frame to be carried to `to`, and gives a buffer for the next one.
    pub(crate) fn send(&mut self, now: Nanos, mut flight: Flight, rng: &mut Rng) {
        self.done.taken += 1;
        let faults = self.faults;
        let to = flight.to;
        if flight.frame.packet_len() > usize::from(faults.mtu) {
            self.done.too_big += 1;
            self.trace.frame(now, to, &flight.frame, Fate::TooBig);
            if !faults.is_blackhole {
                self.report_too_big(now, &flight, rng);
            }
            return self.recycle(flight.frame);
        }
        let line = &mut self.lines[to];
        if rng.chance(faults.burst_per_mille) {
            line.bad_until = now + rng.below(faults.burst);
        }
        // A full queue drops what comes last.
        let starts = line.free_at.max(now);
        let full = starts - now > faults.queue;
        if now < line.bad_until || full || rng.chance(faults.loss_per_mille) {
            self.done.lost += 1;
            self.trace.frame(now, to, &flight.frame, Fate::Lost);
            return self.recycle(flight.frame);
        }
        let marks = starts - now > faults.mark_from || rng.chance(faults.mark_per_mille);
        if marks && mark(flight.frame.bytes_mut()) {
            self.done.marked += 1;
        }
        let bytes = flight.frame.bytes().len() as u64;
        let leaves = starts + (bytes * 1_000_000_000).checked_div(faults.rate).unwrap_or(0);
        line.free_at = leaves;
        if rng.chance(faults.duplicate_per_mille) {
            let frame = self.copy(&flight.frame);
            self.carry(leaves, Flight { frame, ..flight }, Fate::Doubled, rng);
        }
        self.carry(leaves, flight, Fate::Carried, rng);
    }

    fn carry(&mut self, leaves: Nanos, mut flight: Flight, fate: Fate, rng: &mut Rng) {
        let faults = self.faults;
        let mut at = leaves + faults.delay;
        if faults.jitter > 0 {
            at += rng.below(faults.jitter + 1);
        }
        if rng.chance(faults.reorder_per_mille) {
            at += rng.below(4 * faults.delay);
        }
        let mut fate = fate;
        if rng.chance(faults.damage_per_mille) {
            damage(&mut flight.frame, rng);
            fate = Fate::Damaged;
            // No checksum covers link addresses and a few fields of IPv6.
            if parse(flight.frame.bytes(), ChecksumPolicy::Verify).is_err() {
                flight.seen = None;
                self.done.lost += 1;
            }
        } else if rng.chance(faults.pad_per_mille) {
            // Some links pad; what follows the packet is not part of it.
            flight.frame.pad(rng.below(8) as usize);
        }
        self.trace.frame(leaves, flight.to, &flight.frame, fate);
        self.enqueue(at, flight);
    }

    /// A router tells the sender.
    fn report_too_big(&mut self, now: Nanos, flight: &Flight, rng: &mut Rng) {
        if rng.chance(self.faults.loss_per_mille) {
            return;
        }
        let mut report = self.buffer();
        too_big(flight.frame.bytes(), self.faults.mtu, &mut report);
        let to = 1 - flight.to;
        self.trace.frame(now, to, &report, Fate::Carried);
        self.enqueue(now + self.faults.delay, Flight { to, frame: report, seen: None });
    }

    fn enqueue(&mut self, at: Nanos, flight: Flight) {
        self.order += 1;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.flights[slot as usize] = Some(flight);
                slot
            }
            None => {
                self.flights.push(Some(flight));
                self.flights.len() as u32 - 1
            }
        };
        self.queue.push(Reverse((at, self.order, slot)));
    }

    pub(crate) fn next(&self) -> Option<Nanos> {
        self.queue.peek().map(|Reverse((at, ..))| *at)
    }

    /// A frame that arrives by `now`. [`Net::recycle`] takes its buffer back.
    pub(crate) fn arrive(&mut self, now: Nanos) -> Option<Flight> {
        self.next().filter(|&at| at <= now)?;
        let Reverse((_, _, slot)) = self.queue.pop()?;
        self.free.push(slot);
        self.flights[slot as usize].take()
    }

    pub(crate) fn recycle(&mut self, frame: Frame) {
        self.pool.push(frame.into_buffer());
    }

    /// An empty frame.
    pub(crate) fn buffer(&mut self) -> Frame {
        Frame::new(self.pool.pop())
    }

    fn copy(&mut self, frame: &Frame) -> Frame {
        let mut copy = self.buffer();
        copy.set(frame.bytes());
        copy
    }
}

/// Damage that the checksums must notice: a few bits next to each other, or bytes that are missing.
fn damage(frame: &mut Frame, rng: &mut Rng) {
    let len = frame.bytes().len();
    if rng.chance(200) {
        return frame.cut(rng.below(len as u64) as usize);
    }
    // A shorter length of an IPv6 packet cuts off what the sum would miss: one time in 65,536 it
    // comes out right.
    let length = if is_v6(frame.bytes()) { 18..20 } else { 0..0 };
    let bit = rng.below(8);
    let at = loop {
        let at = rng.below(len as u64) as usize;
        if !length.contains(&at) {
            break at;
        }
    };
    frame.bytes_mut()[at] ^= 1 << bit;
    // Less than 16 bits in a row never cancel out.
    if bit > 3 && rng.chance(300) {
        frame.bytes_mut()[at] ^= 1 << (bit - 3);
    }
}
