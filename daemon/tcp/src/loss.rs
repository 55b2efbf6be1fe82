//! Loss noticed from acknowledgements, and its repair: by scoreboard where the peer reports what it
//! holds (RFC 6675), by counting duplicates where it does not (RFC 6582).

use fourwave_wire::SackBlock;

use crate::assembler::Range;
use crate::config::{Config, Nanos};
use crate::congestion::Growth;
use crate::receive::Arrival;
use crate::recovery::Progress;
use crate::tcb::{Tcb, flag};

/// How things stood when an acknowledgement came; sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    pub(crate) una: i64,
    pub(crate) flight: u32,
    /// Reported as held.
    pub(crate) held: u32,
    /// One past the highest position held.
    pub(crate) held_end: i64,
    /// Where the part ended whose holes are lost.
    pub(crate) lost_end: i64,
    /// The same for what was sent again.
    pub(crate) again_end: i64,
}

impl Tcb {
    /// How things stand before an acknowledgement counts.
    #[inline]
    pub(crate) fn before_ack(&self, arrival: &Arrival<'_>) -> Before {
        if self.is_calm(arrival) {
            let una = self.snd_una;
            let (held_end, lost_end, again_end) = (una, una, una);
            return Before { una, flight: self.flight(), held: 0, held_end, lost_end, again_end };
        }
        self.before_ack_in_trouble(arrival.cfg)
    }

    /// Nothing is known or suspected to be lost, and the segment reports nothing: what an
    /// acknowledgement means is no more than it says. So it is with nearly all of them.
    #[inline]
    pub(crate) fn is_calm(&self, arrival: &Arrival<'_>) -> bool {
        arrival.segment.options.sack.is_empty()
            && self.scoreboard.is_empty()
            && !self.recovery.is_active()
            && !self.rack.is_probing()
    }

    #[inline(never)]
    fn before_ack_in_trouble(&self, cfg: &Config) -> Before {
        Before {
            una: self.snd_una,
            flight: self.flight(),
            held: self.scoreboard.bytes(),
            held_end: self.held_end(),
            lost_end: self.lost_end(cfg),
            again_end: self.recovery.again_end(),
        }
    }

    /// `snd_una` has moved on, or not: what that and the segment's SACK blocks tell of loss.
    #[inline]
    pub(crate) fn learn_from_sack(&mut self, arrival: &Arrival<'_>, before: Before) {
        if before.held == 0 && self.is_calm(arrival) {
            self.grow(arrival, before);
        } else {
            self.learn_from_sack_in_trouble(arrival, before);
        }
    }

    #[inline(never)]
    fn learn_from_sack_in_trouble(&mut self, arrival: &Arrival<'_>, before: Before) {
        let blocks = arrival.segment.options.sack;
        if self.rack.is_probing() {
            self.judge_probe(arrival, before);
        } else if self.snd_una > before.una
            && before.held > 0
            && self.recovery.was_sent_once(before.una)
        {
            // What seemed to be missing has come after all.
            self.rack.note_reordering();
        }
        for block in blocks.as_slice() {
            self.take_block(*block, before);
        }
        let cfg = arrival.cfg;
        let acked = (self.snd_una - before.una) as u32;
        let held = self.scoreboard.bytes();
        let delivered = (acked + held).saturating_sub(before.held);
        if acked == 0 && delivered > 0 {
            self.duplicate_acks = self.duplicate_acks.saturating_add(1);
        }
        self.watch_order(arrival.now);
        if self.recovery.is_active() {
            self.go_on(cfg, before, delivered);
        } else if self.is_loss(cfg) && self.recovery.may_start(self.snd_una) {
            self.start_recovery(cfg, arrival.now, delivered);
        } else {
            self.grow(arrival, before);
        }
    }

    /// A block counts if it lies within what is outstanding. Others are old, report duplicates
    /// (RFC 2883), or lie.
    fn take_block(&mut self, block: SackBlock, before: Before) {
        let (left, right) = (self.snd_position(block.left), self.snd_position(block.right));
        if left > self.snd_una && left < right && right <= self.snd_max {
            // A window has 30 bits at most.
            let range =
                Range { start: (left - self.snd_una) as u32, end: (right - self.snd_una) as u32 };
            if let Some(new) = self.scoreboard.hole(range.start, range.end) {
                self.take_report(self.snd_una + i64::from(new.start), before);
            }
            self.scoreboard.add(range);
        }
    }

    /// What was missing at `position` has arrived.
    fn take_report(&mut self, position: i64, before: Before) {
        if self.recovery.was_sent_once(position) {
            // Below what was held before this ACK: an earlier one that was lost may have told the rest.
            if position < before.held_end && !self.rack.is_probing() {
                self.rack.note_reordering();
            }
            return;
        }
        // After a timeout, `snd_nxt` tells how far the repair has come. What overtakes proves nothing.
        if position < self.snd_nxt && !self.rack.has_seen_reordering() {
            let repaired = self.recovery.resent(self.snd_una).min(self.snd_nxt);
            self.recovery.handle_repair(self.snd_una, position, repaired);
        }
    }

    fn grow(&mut self, arrival: &Arrival<'_>, before: Before) {
        let acked = (self.snd_una - before.una) as u32;
        if acked > 0 && !self.is_echo(arrival) {
            self.congestion.grow(&Growth {
                acked,
                flight: before.flight,
                is_limited: self.has(flag::LIMITED),
                una: self.snd_una,
                sent: self.snd_max,
                echoed: self.echoed(arrival),
                mss: self.payload_limit(),
                now: arrival.now,
                srtt: self.rtt.srtt().unwrap_or(0),
            });
        }
    }

    /// RFC 6675 §5, step 1 and 2: enough duplicates, or the oldest segment is lost by the scoreboard.
    fn is_loss(&self, cfg: &Config) -> bool {
        self.is_outstanding()
            && (self.lost_end(cfg) > self.snd_una
                || (self.duplicate_acks >= cfg.duplicate_ack_threshold
                    && !self.rack.has_seen_reordering()))
    }

    /// RFC 6675 §5, step 4; `delivered` bytes by the acknowledgement that tells, if one does.
    pub(crate) fn start_recovery(&mut self, cfg: &Config, now: Nanos, delivered: u32) {
        self.prepare_undo();
        self.judge_lost_probe(cfg, now);
        let visible = self.flight() - self.scoreboard.bytes() + delivered;
        let before = self.last_flight(visible);
        if !self.has_reacted() {
            self.react(self.flight());
        }
        let is_new = self.recovery.was_sent_once(self.snd_una);
        self.recovery.start(self.snd_una, self.snd_max, before);
        self.recovery.handle_delivered(before - visible);
        self.rtt.cancel();
        self.set_flag(flag::RESEND, is_new);
        self.pace(cfg, delivered, false);
    }

    /// What was in the network when data was last sent, when now `flight` bytes are. Several
    /// acknowledgements are handled before anything is sent: each but the first finds less in the
    /// network than its window let go, and none of them is a reason to slow down.
    pub(crate) fn last_flight(&self, flight: u32) -> u32 {
        if self.has(flag::LIMITED) { flight.max(self.congestion.window()) } else { flight }
    }

    /// An acknowledgement during recovery.
    fn go_on(&mut self, cfg: &Config, before: Before, delivered: u32) {
        if self.recovery.is_complete(self.snd_una) {
            self.recovery.finish();
            self.congestion.settle();
            self.forgive_lost_probe();
            self.duplicate_acks = 0;
            return;
        }
        if self.snd_una > before.una && !self.rack.has_seen_reordering() {
            self.recovery.handle_answer(before.una);
        }
        if delivered > 0 {
            let is_safe = self.snd_una > before.una
                && self.lost_end(cfg) <= before.lost_end.max(self.snd_una)
                && self.recovery.again_end() <= before.again_end.max(self.snd_una);
            self.pace(cfg, delivered, is_safe);
        }
    }

    /// Sets the window for what may be sent now.
    fn pace(&mut self, cfg: &Config, delivered: u32, is_safe: bool) {
        let progress = Progress { delivered, pipe: self.pipe(cfg), is_safe };
        let (threshold, mss) = (self.congestion.threshold(), self.payload_limit());
        let window = self.recovery.window(progress, threshold, mss);
        self.congestion.set_window(window);
    }

    /// Bytes believed to be in the network (RFC 6675 §4, SetPipe): sent, not held by the peer, and
    /// not lost, or sent again since.
    #[inline]
    pub(crate) fn pipe(&self, cfg: &Config) -> u32 {
        let flight = self.flight();
        if self.scoreboard.is_empty() && !self.recovery.is_active() {
            return flight;
        }
        let unheld = flight - self.scoreboard.bytes_below(flight);
        let again = self.recovery.lost_again(self.snd_una);
        let in_network = unheld - self.missing(&again);
        if !self.recovery.is_active() {
            return in_network;
        }
        in_network - self.missing(&(self.recovery.resent(self.snd_una)..self.lost_end(cfg)))
    }

    /// Bytes that the peer does not hold in `span`, which does not start below `snd_una`.
    fn missing(&self, span: &core::ops::Range<i64>) -> u32 {
        if span.is_empty() {
            return 0;
        }
        self.scoreboard
            .missing((span.start - self.snd_una) as u32, (span.end - self.snd_una) as u32)
    }

    /// Where the part ends whose holes are lost, by count or by time; `snd_una` when there is none.
    pub(crate) fn lost_end(&self, cfg: &Config) -> i64 {
        let by_time = self.rack.lost_end().min(self.held_end());
        let by_time = by_time.max(self.recovery.answered_end()).max(self.snd_una);
        if self.rack.has_seen_reordering() {
            return by_time;
        }
        let edge = self.scoreboard.lost_edge(self.payload_limit(), cfg.duplicate_ack_threshold);
        by_time.max(self.snd_una + i64::from(edge))
    }

    /// Lost data that was not sent again yet (RFC 6675 §4, NextSeg rule 1); with `all`, also what
    /// lies below data that the peer holds but may be late only (rule 3).
    pub(crate) fn next_lost(&self, cfg: &Config, all: bool) -> Option<core::ops::Range<i64>> {
        if self.scoreboard.is_empty() && !self.recovery.is_active() {
            return None;
        }
        // Rounded up to a segment: what is too much now is subtracted from what may go later.
        if self.pipe(cfg) >= self.congestion.window() {
            return None;
        }
        let again = self.recovery.lost_again(self.snd_una);
        if let Some(hole) = self.hole(&again) {
            return Some(hole);
        }
        if !self.recovery.is_active() {
            return None;
        }
        let end = if all { self.held_end() } else { self.lost_end(cfg) };
        self.hole(&(self.recovery.resent(self.snd_una)..end))
    }

    /// The first stretch of `span` that the peer does not report as held.
    fn hole(&self, span: &core::ops::Range<i64>) -> Option<core::ops::Range<i64>> {
        if span.is_empty() {
            return None;
        }
        let (from, to) = ((span.start - self.snd_una) as u32, (span.end - self.snd_una) as u32);
        let hole = self.scoreboard.hole(from, to)?;
        Some(self.snd_una + i64::from(hole.start)..self.snd_una + i64::from(hole.end))
    }

    /// The first stretch from `start` on that was sent and that the peer does not report as held;
    /// where it ends at the latest when nothing is there any more.
    pub(crate) fn unheld(&self, start: i64) -> core::ops::Range<i64> {
        self.hole(&(start..self.snd_max)).unwrap_or_else(|| {
            let end = self.snd_max.max(start);
            end..end
        })
    }

    /// The peer does not report what it holds: an acknowledgement of new data.
    pub(crate) fn learn_from_ack(&mut self, arrival: &Arrival<'_>, before: Before) {
        let acked = (self.snd_una - before.una) as u32;
        let mss = self.payload_limit();
        if !self.recovery.is_active() {
            self.grow(arrival, before);
        } else if self.recovery.is_complete(self.snd_una) {
            // RFC 6582 §3.2 step 3, full acknowledgement, option 1: no burst.
            let window = self.congestion.threshold().min(self.flight().max(mss) + mss);
            self.congestion.set_window(window);
            self.recovery.finish();
            self.forgive_lost_probe();
        } else {
            // A partial acknowledgement: the segment at `snd_una` is lost too.
            self.recovery.handle_partial(self.flight());
            self.congestion.deflate(acked, mss);
            self.set_flag(flag::RESEND, self.is_outstanding());
        }
    }

    /// The peer does not report what it holds: a duplicate acknowledgement (RFC 5681 §2, §3.2).
    pub(crate) fn learn_from_duplicate(&mut self, cfg: &Config, now: Nanos) {
        let mss = self.payload_limit();
        self.duplicate_acks = self.duplicate_acks.saturating_add(1);
        if self.recovery.is_active() {
            if self.recovery.take_duplicate(mss) {
                self.congestion.inflate(1, mss);
            }
            return;
        }
        if self.duplicate_acks != cfg.duplicate_ack_threshold
            || !self.recovery.may_start_by_count(self.snd_una)
        {
            return;
        }
        self.prepare_undo();
        self.judge_lost_probe(cfg, now);
        if !self.has_reacted() {
            self.react(self.flight());
        }
        self.recovery.start(self.snd_una, self.snd_max, self.flight());
        self.congestion.settle();
        self.congestion.inflate(u32::from(cfg.duplicate_ack_threshold), mss);
        self.rtt.cancel();
        self.set_flag(flag::RESEND, true);
    }
}
