//! Whether lost data is being replaced, and how fast (RFC 6582, RFC 6675, RFC 9937).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One recovery: it starts when loss is noticed, and ends when all that was sent by then is
/// acknowledged or a timeout makes it pointless.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Recovery {
    /// Highest position sent when loss was last noticed. Nothing below it starts another recovery.
    point: i64,
    /// One past the highest position sent again (HighRxt).
    resent: i64,
    /// Bytes that this recovery can see delivered (RecoverFS).
    flight: u32,
    /// Bytes delivered since it began (prr_delivered).
    delivered: u32,
    /// Bytes sent since it began (prr_out).
    sent: u32,
    active: u32,
}

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
        Recovery { point: -1, resent: -1, flight: 0, delivered: 0, sent: 0, active: 0 }
    }

    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.active != 0
    }

    /// Whether loss at `una` is news: what was sent before the last recovery or timeout began may
    /// merely echo it (RFC 6582 §3.2 step 2, RFC 6675 §5.1).
    pub(crate) fn may_start(&self, una: i64) -> bool {
        !self.is_active() && una > self.point
    }

    /// Loss at `una` is noticed, all up to `sent` has been sent, `flight` bytes of it can still be
    /// seen delivered.
    pub(crate) fn start(&mut self, una: i64, sent: i64, flight: u32) {
        *self = Recovery {
            point: sent,
            resent: una,
            flight: flight.max(1),
            delivered: 0,
            sent: 0,
            active: 1,
        };
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
        self.active = 0;
    }

    /// All up to `sent` counts as lost and is sent again in turn.
    pub(crate) fn give_way(&mut self, sent: i64) {
        self.active = 0;
        self.point = sent;
        self.resent = sent;
    }

    /// Where the search for lost data to send goes on.
    pub(crate) fn resent(&self, una: i64) -> i64 {
        self.resent.max(una)
    }

    /// Whether data at `position` was surely sent only once.
    pub(crate) fn was_sent_once(&self, position: i64) -> bool {
        position >= self.resent
    }

    /// A segment of `len` bytes that ends at `end` was sent, or sent again.
    #[inline]
    pub(crate) fn handle_sent(&mut self, end: i64, len: u32, again: bool) {
        if self.active != 0 {
            self.sent = self.sent.saturating_add(len);
            if again {
                self.resent = self.resent.max(end);
            }
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
                recovery.handle_sent(20_000, MSS, false);
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
        recovery.handle_sent(1000, MSS, true);
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
        assert!(!recovery.may_start(5000) && recovery.may_start(5001));
        recovery.give_way(9000);
        assert!(!recovery.may_start(9000) && recovery.may_start(9001));
    }
}
