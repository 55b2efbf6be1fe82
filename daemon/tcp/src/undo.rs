//! Loss that was none: what it cost is given back (RFC 3522 and RFC 4015 by timestamps, RFC 3708 by
//! reported duplicates).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::receive::Arrival;
use crate::tcb::{Tcb, flag};

/// What to go back to, while [`flag::UNDO`] is set; sizes in bytes.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Undo {
    pub(crate) window: u32,
    pub(crate) threshold: u32,
    /// Timestamp of the first retransmission, while [`flag::EIFEL`] is set.
    stamp: u32,
    /// Sent again and not reported as a duplicate.
    repeated: u32,
}

impl Tcb {
    /// Loss is noticed; the window has not shrunk for it yet.
    pub(crate) fn prepare_undo(&mut self) {
        // What an earlier recovery sent again would be taken for originals.
        self.set_flag(flag::UNDO, self.recovery.was_sent_once(self.snd_una));
        self.undo = Undo {
            window: self.congestion.window(),
            threshold: self.congestion.threshold(),
            stamp: 0,
            repeated: 0,
        };
        self.set_flag(flag::EIFEL, false);
    }

    /// `len` bytes are sent again, the timestamp clock reads `stamp`.
    pub(crate) fn note_repetition(&mut self, len: u32, stamp: u32) {
        if self.has(flag::UNDO) && !self.rack.is_probing() {
            if self.undo.repeated == 0 && self.has(flag::TIMESTAMPS) {
                self.undo.stamp = stamp;
                self.set_flag(flag::EIFEL, true);
            }
            self.undo.repeated = self.undo.repeated.saturating_add(len);
        }
    }

    /// `snd_una` has moved on, or not: undoes what was done for a loss if the acknowledgement shows
    /// that there was none.
    #[inline]
    pub(crate) fn undo_if_spurious(&mut self, arrival: &Arrival<'_>, is_new: bool) {
        if !self.has(flag::UNDO) {
            return;
        }
        // RFC 4015 §3: long after it, the window of then means nothing.
        if self.snd_una > self.recovery.point() + i64::from(self.undo.window) {
            self.set_flag(flag::UNDO | flag::EIFEL, false);
            return;
        }
        let by_time = is_new && self.take_flag(flag::EIFEL) && self.answers_original(arrival);
        if by_time || self.all_were_duplicates(arrival) {
            self.undo();
        }
    }

    /// RFC 3522 §3.2 step 4: it echoes a timestamp from before the first retransmission.
    fn answers_original(&self, arrival: &Arrival<'_>) -> bool {
        let echo = arrival.segment.options.timestamps.map(|timestamps| timestamps.echo);
        // 0 is what a peer says that has nothing to echo.
        echo.is_some_and(|echo| echo != 0 && (echo.wrapping_sub(self.undo.stamp) as i32) < 0)
    }

    /// RFC 3708 §2: the peer has reported all that was sent again as a duplicate.
    fn all_were_duplicates(&mut self, arrival: &Arrival<'_>) -> bool {
        let Some(block) = arrival.segment.options.sack.as_slice().first() else {
            return false;
        };
        let (left, right) = (self.snd_position(block.left), self.snd_position(block.right));
        let is_report = left < right && right <= self.snd_una && self.has(flag::SACK);
        if !is_report || self.undo.repeated == 0 || self.rack.is_probing() {
            return false;
        }
        let len = u32::try_from(right - left).unwrap_or(u32::MAX);
        self.undo.repeated = self.undo.repeated.saturating_sub(len);
        self.undo.repeated == 0
    }

    fn undo(&mut self) {
        self.set_flag(flag::UNDO | flag::EIFEL | flag::RESEND, false);
        if self.recovery.was_reported() && self.has(flag::SACK) {
            // Nothing was lost, so something was overtaken.
            self.rack.note_reordering();
        }
        if self.recovery.is_active() {
            self.congestion.settle();
        }
        if self.has(flag::SACK) {
            self.recovery.revoke(self.snd_una);
        } else {
            // The repetitions will bring duplicate acknowledgements (RFC 6582 §3.2 step 2).
            self.recovery.finish();
        }
        self.duplicate_acks = 0;
        // RFC 4015 §3.2: new data next, not what was going to be sent again.
        self.snd_nxt = self.snd_max;
        self.congestion.restore(self.undo.window, self.undo.threshold);
    }
}
