//! Whether lost data is being replaced, and how fast (RFC 6582, RFC 6675, RFC 9937).

use core::ops::Range;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::tcb::{SYN_POSITION, UNKNOWN};

/// One recovery: it starts when loss is noticed, and ends when all that was sent by then is
/// acknowledged or a timeout makes it pointless.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Recovery {
    /// Highest position sent when loss was last noticed. Nothing below it starts another recovery.
    point: i64,
    /// One past the highest position sent again (HighRxt), now and when this recovery started.
    resent: i64,
    inherited: i64,
    /// What was sent again and lost again: its end, and how far it was sent once more.
    again_end: i64,
    again: i64,
    /// One past the highest position sent when data was last sent again; [`UNKNOWN`] before that.
    mark: i64,
    /// Bytes that this recovery can see delivered (RecoverFS).
    flight: u32,
    /// Bytes delivered since it began (prr_delivered).
    delivered: u32,
    /// Bytes sent since it began (prr_out).
    sent: u32,
    phase: u32,
}

/// Phases: none, loss is being repaired, and a repair has arrived.
const IDLE: u32 = 0;
const ACTIVE: u32 = 1;
const ANSWERED: u32 = 2;

/// What one acknowledgement means to a recovery; sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Newly acknowledged, selectively or not.
    pub(crate) delivered: u32,
    /// Still in the network.
    pub(crate) pipe: u32,
    /// The oldest hole was filled and no new loss came to light (SafeACK).
    pub(crate) is_safe: bool,
}

impl Recovery {
    pub(crate) fn new() -> Recovery {
        Recovery {
            point: SYN_POSITION,
            resent: SYN_POSITION,
            inherited: SYN_POSITION,
            again_end: SYN_POSITION,
            again: SYN_POSITION,
            mark: UNKNOWN,
            flight: 0,
            delivered: 0,
            sent: 0,
            phase: IDLE,
        }
    }

    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.phase != IDLE
    }

    /// Whether loss at `una` is news: what was sent before the last recovery or timeout began may
    /// merely echo it (RFC 6675 §5.1).
    pub(crate) fn may_start(&self, una: i64) -> bool {
        !self.is_active() && una >= self.point
    }

    /// The same where the peer does not report what it holds. Then repairs that were not needed
    /// bring duplicate acknowledgements of the very point (RFC 6582 §3.2 step 2).
    pub(crate) fn may_start_by_count(&self, una: i64) -> bool {
        self.may_start(una) && una > self.point
    }

    /// Loss at `una` is noticed, all up to `sent` has been sent, `flight` bytes of it can still be
    /// seen delivered. What the last recovery sent again beyond its point is still on its way.
    pub(crate) fn start(&mut self, una: i64, sent: i64, flight: u32) {
        let resent = self.resent.max(una);
        *self = Recovery {
            point: sent,
            resent,
            inherited: resent,
            flight: flight.max(1),
            delivered: 0,
            sent: 0,
            phase: ACTIVE,
            ..*self
        };
    }

    /// `bytes` had been delivered, and not been replaced, when loss was noticed.
    pub(crate) fn handle_delivered(&mut self, bytes: u32) {
        self.delivered = self.delivered.saturating_add(bytes);
    }

    /// Whether `una` acknowledges all that was sent when it began.
    pub(crate) fn is_complete(&self, una: i64) -> bool {
        una >= self.point
    }

    /// All that had been sent when loss was last noticed.
    pub(crate) fn point(&self) -> i64 {
        self.point
    }

    pub(crate) fn finish(&mut self) {
        self.phase = IDLE;
    }

    /// There was no loss, all up to `una` is acknowledged: what is lost from here on is news.
    pub(crate) fn revoke(&mut self, una: i64) {
        *self = Recovery { point: una, ..Recovery::new() };
    }

    /// All up to `sent` counts as lost and is sent again in turn.
    pub(crate) fn give_way(&mut self, sent: i64) {
        *self = Recovery { point: sent, resent: sent, mark: sent, ..Recovery::new() };
    }

    /// Whether the last loss was noticed from acknowledgements, not from a timeout.
    pub(crate) fn was_reported(&self) -> bool {
        self.flight > 0
    }

    /// Where the search for lost data to send goes on.
    pub(crate) fn resent(&self, una: i64) -> i64 {
        self.resent.max(una)
    }

    /// Whether data at `position` was surely sent only once.
    pub(crate) fn was_sent_once(&self, position: i64) -> bool {
        position >= self.resent
    }

    /// `snd_una` has moved on from `una`. If that was repaired by this recovery, all that was sent
    /// before it started has arrived or never will.
    pub(crate) fn handle_answer(&mut self, una: i64) {
        if (self.inherited..self.resent).contains(&una) {
            self.phase = ANSWERED;
        }
    }

    /// Where what the first repair's arrival shows to be lost ends: all that is not held.
    pub(crate) fn answered_end(&self) -> i64 {
        if self.phase == ANSWERED { self.point } else { SYN_POSITION }
    }

    /// A duplicate acknowledgement: whether it can stand for a segment of `mss` bytes that left the
    /// network. There are no more of those than were in it (RFC 5681 §3.2 step 4), however many
    /// duplicates a peer makes up.
    pub(crate) fn take_duplicate(&mut self, mss: u32) -> bool {
        let is_one = self.delivered < self.flight;
        self.delivered = self.delivered.saturating_add(mss);
        is_one
    }

    /// A partial acknowledgement: from here on, duplicates stand for these `flight` bytes.
    pub(crate) fn handle_partial(&mut self, flight: u32) {
        self.delivered = 0;
        self.flight = flight.max(1);
    }

    /// What was lost again and still has to be sent once more; empty as a rule.
    #[inline]
    pub(crate) fn lost_again(&self, una: i64) -> Range<i64> {
        let start = self.again.max(una);
        start..self.again_end.max(start)
    }

    /// Where [`Recovery::lost_again`] ends: it moves when another loss comes to light.
    pub(crate) fn again_end(&self) -> i64 {
        self.again_end
    }

    /// A new segment of `len` bytes was sent.
    #[inline]
    pub(crate) fn handle_sent(&mut self, len: u32) {
        if self.is_active() {
            self.sent = self.sent.saturating_add(len);
        }
    }

    /// Positions `piece` were sent again, all up to `sent` had been sent before.
    pub(crate) fn handle_resent(&mut self, piece: Range<i64>, sent: i64) {
        self.mark = sent;
        if (self.again..self.again_end).contains(&piece.start) {
            self.again = piece.end;
        }
        if self.is_active() {
            self.resent = self.resent.max(piece.end);
        }
        // A segment takes 16 bits of positions at most, and a FIN adds one.
        self.handle_sent((piece.end - piece.start) as u32);
    }

    /// The peer holds data that ends at `held_end`. If that was sent after all that was sent again,
    /// what is still missing of the latter was lost again (RFC 8985 §6.2 step 5).
    pub(crate) fn handle_held(&mut self, una: i64, held_end: i64) {
        if held_end > self.mark && self.resent > una {
            self.again = una;
            self.again_end = self.resent;
            self.mark = UNKNOWN;
        }
    }

    /// What was sent again at `position` has arrived; repairs have come as far as `repaired`. They
    /// are sent in order, so what was sent again before and is still missing was lost again.
    pub(crate) fn handle_repair(&mut self, una: i64, position: i64, repaired: i64) {
        let lost_again = self.lost_again(una);
        if position >= lost_again.end {
            self.again = lost_again.start;
            self.again_end = position;
        } else if position < lost_again.start {
            // The second repair of this arrived: all of the first are older.
            self.again = lost_again.start;
            self.again_end = repaired;
        }
    }

    /// Proportional rate reduction (RFC 9937 §6): the window that lets what left the network be
    /// replaced in proportion, so that it ends near `threshold` without a pause or a burst.
    pub(crate) fn window(&mut self, progress: Progress, threshold: u32, mss: u32) -> u32 {
        let Progress { delivered, pipe, is_safe } = progress;
        self.delivered = self.delivered.saturating_add(delivered);
        let room = if pipe > threshold {
            let target = u64::from(self.delivered) * u64::from(threshold);
            let target = target.div_ceil(u64::from(self.flight));
            u32::try_from(target).unwrap_or(u32::MAX).saturating_sub(self.sent)
        } else {
            let owed = self.delivered.saturating_sub(self.sent).max(delivered);
            let owed = if is_safe { owed.saturating_add(mss) } else { owed };
            owed.min(threshold - pipe)
        };
        // The first retransmission goes whatever the sums say.
        let room = if self.sent == 0 { room.max(mss) } else { room };
        pipe.saturating_add(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    fn progress(delivered: u32, pipe: u32, is_safe: bool) -> Progress {
        Progress { delivered, pipe, is_safe }
    }

    /// One of twenty segments lost, window to be halved: every second ACK lets one go.
    #[test]
    fn sends_in_proportion_to_what_arrives() {
        let mut recovery = Recovery::new();
        recovery.start(0, 20_000, 16_000);
        let mut pipe = 16_000;
        let mut sent = 0;
        for _ in 0..16 {
            pipe -= MSS;
            let window = recovery.window(progress(1000, pipe, false), 10_000, MSS);
            while pipe + MSS <= window {
                recovery.handle_sent(MSS);
                pipe += MSS;
                sent += 1;
            }
        }
        assert_eq!((sent, pipe), (10, 10_000));
    }

    /// Most of the flight is lost: growth towards the threshold only when the path proves safe.
    #[test]
    fn grows_back_only_on_safe_acknowledgements() {
        let mut recovery = Recovery::new();
        recovery.start(0, 20_000, 5_000);
        assert_eq!(recovery.window(progress(1000, 2000, false), 10_000, MSS), 3000);
        recovery.handle_resent(0..1000, 20_000);
        assert_eq!(recovery.window(progress(1000, 2000, false), 10_000, MSS), 3000);
        assert_eq!(recovery.window(progress(1000, 2000, true), 10_000, MSS), 5000);
        assert_eq!(recovery.window(progress(1000, 9500, true), 10_000, MSS), 10_000);
    }

    #[test]
    fn old_loss_starts_nothing() {
        let mut recovery = Recovery::new();
        assert!(recovery.may_start(0));
        recovery.start(0, 5000, 5000);
        assert!(!recovery.may_start(4000) && !recovery.is_complete(4999));
        assert!(recovery.is_complete(5000));
        recovery.finish();
        assert!(!recovery.may_start(4999) && recovery.may_start(5000));
        assert!(!recovery.may_start_by_count(5000) && recovery.may_start_by_count(5001));
        recovery.give_way(9000);
        assert!(!recovery.may_start(8999) && recovery.may_start(9000));
    }
}
