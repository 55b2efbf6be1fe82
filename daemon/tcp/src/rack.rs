//! Loss seen from time (RFC 8985): a reordering window instead of a count of duplicates, and a probe
//! for the tail of a flight.
//!
//! No time is kept per segment. Data sent once leaves in order, so whatever lies below a position
//! that the peer holds was sent before it, and is lost when that has been known for the reordering
//! window: later than RFC 8985 §6.2 finds it by what lay between the two transmissions, never
//! earlier. The same holds for what is sent again: it leaves in order too, so one repair that
//! arrives, or data sent after all of them, tells of the repairs that were lost, see
//! [`Recovery`](crate::recovery::Recovery). Only the third loss of a segment of a stream that cannot
//! go on meanwhile is left to the retransmission timer.

use fourwave_wire::SackBlock;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::config::{Config, MILLISECOND, Nanos};
use crate::loss::Before;
use crate::receive::Arrival;
use crate::tcb::{NEVER, Tcb, UNKNOWN, flag};

/// A coarse timer on either side does not make a probe of what was about to be acknowledged.
const PROBE_SLACK: Nanos = 2 * MILLISECOND;

/// What is known of order and of the tail.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Rack {
    /// End of the reordering window, or time for a probe.
    pub(crate) at: Nanos,
    /// What the peer does not hold below this position is lost.
    lost_end: i64,
    /// End of what the peer held when the reordering window began; [`UNKNOWN`] when none runs.
    reported: i64,
    /// All that was sent when the tail was probed, until the outcome is known; else [`UNKNOWN`].
    probe_end: i64,
    /// The probe repeated data.
    probe_repeats: u32,
    /// Segments have overtaken each other.
    reordering: u32,
}

impl Rack {
    pub(crate) fn new() -> Rack {
        Rack {
            at: NEVER,
            lost_end: 0,
            reported: UNKNOWN,
            probe_end: UNKNOWN,
            probe_repeats: 0,
            reordering: 0,
        }
    }

    pub(crate) fn lost_end(&self) -> i64 {
        self.lost_end
    }

    /// Once order cannot be relied on, a count of duplicates proves nothing (RFC 8985 §6.2 step 4).
    pub(crate) fn has_seen_reordering(&self) -> bool {
        self.reordering != 0
    }

    pub(crate) fn note_reordering(&mut self) {
        self.reordering = 1;
    }

    #[inline]
    pub(crate) fn is_probing(&self) -> bool {
        self.probe_end != UNKNOWN
    }

    /// A probe up to `end` goes out, `sent` was the highest position before.
    pub(crate) fn note_probe(&mut self, sent: i64, end: i64) {
        self.probe_end = end.max(sent);
        self.probe_repeats = u32::from(end <= sent);
    }

    /// A timeout: all that is outstanding is sent again anyway.
    pub(crate) fn give_way(&mut self) {
        *self = Rack { reordering: self.reordering, ..Rack::new() };
    }

    fn stop(&mut self) {
        self.at = NEVER;
        self.reported = UNKNOWN;
    }
}

impl Tcb {
    /// RFC 8985 §6.2 step 5: what the blocks of an ACK reveal in time.
    pub(crate) fn watch_order(&mut self, now: Nanos) {
        let held_end = self.held_end();
        if !self.rack.has_seen_reordering() {
            self.recovery.handle_held(self.snd_una, held_end);
        }
        if held_end <= self.rack.lost_end.max(self.snd_una) {
            if self.rack.reported != UNKNOWN {
                self.rack.stop();
            }
            return;
        }
        let in_order = self.recovery.is_active() && !self.rack.has_seen_reordering();
        // A probe is sent so much later than the rest that nothing can still be on its way.
        let probe_is_held = self.rack.is_probing() && held_end >= self.rack.probe_end;
        if in_order || probe_is_held {
            self.rack.lost_end = held_end;
            self.rack.stop();
        } else if self.rack.reported == UNKNOWN {
            self.rack.reported = held_end;
            self.rack.at = now + self.rtt.reordering_window();
        }
        if probe_is_held {
            // From here on it is an ordinary recovery.
            self.rack.probe_end = UNKNOWN;
        }
    }

    /// The reordering window is over, or the tail is to be probed.
    pub(crate) fn handle_rack_timer(&mut self, cfg: &Config, now: Nanos) {
        let reported = self.rack.reported;
        self.rack.stop();
        if reported == UNKNOWN {
            self.set_flag(flag::TAIL_PROBE, true);
            // RFC 8985 §7.3: the timeout waits for the probe's answer.
            self.restart_rtx(cfg, now);
            return;
        }
        self.rack.lost_end = self.rack.lost_end.max(reported);
        self.recovery.handle_held(self.snd_una, reported);
        self.watch_order(now);
        if self.lost_end(cfg) > self.snd_una && self.recovery.may_start(self.snd_una) {
            self.start_recovery(cfg, now, 0);
        }
    }

    /// Plans the probe of the tail (RFC 8985 §7.2): new data was sent or acknowledged.
    #[inline]
    pub(crate) fn plan_probe(&mut self, cfg: &Config, now: Nanos) {
        if !self.scoreboard.is_empty() {
            return;
        }
        let is_calm = self.has(flag::SACK)
            && self.is_outstanding()
            && !self.recovery.is_active()
            && !self.rack.is_probing()
            && self.backoff == 0
            && self.snd_nxt == self.snd_max;
        self.rack.stop();
        let Some(srtt) = self.rtt.srtt().filter(|_| is_calm && self.state().is_synchronized())
        else {
            return;
        };
        // RFC 8985 §7.2 allows for a delayed ACK of a single segment (WCDelAckT); but the peer may
        // delay until two full-sized ones have come.
        let delayed = self.flight() < 2 * self.payload_limit();
        let at = now + 2 * srtt + if delayed { cfg.rto_min } else { PROBE_SLACK };
        if at < self.rtx_at {
            self.rack.at = at;
        }
    }

    /// RFC 8985 §7.4: whether a probe that is acknowledged had repaired a loss, which nothing else
    /// would tell the congestion control.
    pub(crate) fn judge_probe(&mut self, arrival: &Arrival<'_>, before: Before) {
        let end = self.rack.probe_end;
        if self.snd_una < end {
            return;
        }
        let blocks = arrival.segment.options.sack;
        let reported = blocks.as_slice().first().is_some_and(|block| self.is_duplicate(*block));
        let is_repetition = self.snd_una == before.una && arrival.segment.sequence_len() == 0;
        if self.rack.probe_repeats == 0 || reported || (self.snd_una == end && is_repetition) {
            // New data, or original and repetition have both arrived.
            self.rack.probe_end = UNKNOWN;
        } else if self.snd_una > end {
            self.rack.probe_end = UNKNOWN;
            self.react(before.flight);
            self.congestion.settle();
        }
    }

    /// RFC 2883 §4: the first block lies below the acknowledgement.
    fn is_duplicate(&self, block: SackBlock) -> bool {
        self.snd_position(block.right) <= self.snd_una
    }

    /// One past the highest position that the peer holds.
    pub(crate) fn held_end(&self) -> i64 {
        self.snd_una + i64::from(self.scoreboard.end())
    }
}
