//! The receive window and the application's offsets: flow control, with silly windows avoided.

use crate::config::{Config, Nanos};
use crate::reaction::OutOfRange;
use crate::tcb::{NEVER, Tcb, flag};

impl Tcb {
    /// The application has written the send stream up to offset `tail`.
    ///
    /// Refused when that goes back, exceeds what may wait for acknowledgement
    /// ([`Config::send_buffer`]), or comes after the end was declared.
    pub fn set_send_tail(&mut self, cfg: &Config, tail: u64) -> Result<(), OutOfRange> {
        let tail = i64::try_from(tail).map_err(|_| OutOfRange)?;
        let limit = self.snd_una.max(0) + i64::from(cfg.send_buffer);
        let frozen = self.has(flag::FIN_QUEUED | flag::ORPHAN);
        if tail < self.snd_tail || tail > limit || (frozen && tail != self.snd_tail) {
            return Err(OutOfRange);
        }
        self.snd_tail = tail;
        Ok(())
    }

    /// The application has read the receive stream up to offset `head`. Makes a window update due
    /// when the window has grown enough to be worth telling.
    ///
    /// Refused when that goes back or exceeds what was received.
    pub fn set_consumed(&mut self, head: u64) -> Result<(), OutOfRange> {
        let head = i64::try_from(head).map_err(|_| OutOfRange)?;
        if head < self.rcv_head || head > self.rcv_data_end() {
            return Err(OutOfRange);
        }
        self.rcv_head = head;
        self.tell_window_if_due();
        Ok(())
    }

    pub(crate) fn tell_window_if_due(&mut self) {
        if self.state().may_receive() && self.window_update_is_due() {
            self.set_flag(flag::ACK_NOW, true);
        }
    }

    /// Half of the buffer has been freed, or the peer sees less than a segment and can have one.
    fn window_update_is_due(&self) -> bool {
        let growth = self.window_growth();
        let starving = self.rcv_edge - self.rcv_nxt < i64::from(self.rcv_mss);
        growth >= i64::from(self.rcv_limit / 2) || (starving && growth >= self.worthwhile_growth())
    }

    fn window_growth(&self) -> i64 {
        self.rcv_head + i64::from(self.rcv_limit) - self.rcv_edge
    }

    /// RFC 9293 §3.8.6.2.2: less than this is not told.
    fn worthwhile_growth(&self) -> i64 {
        i64::from((self.rcv_limit / 2).min(u32::from(self.rcv_mss)))
    }

    /// The window field of the next segment. The right edge moves only in worthwhile steps, and
    /// never back (RFC 9293 §3.8.6, SHLD-14).
    #[inline]
    pub(crate) fn advertise_window(&mut self) -> u16 {
        let growth = self.window_growth();
        if growth > 0 && growth >= self.worthwhile_growth() {
            self.rcv_edge += growth;
        }
        self.scaled_window()
    }

    /// What the peer is told of the window as it stands.
    #[inline]
    pub(crate) fn scaled_window(&self) -> u16 {
        let window = (self.rcv_edge - self.rcv_nxt).max(0) >> self.rcv_scale;
        u16::try_from(window).unwrap_or(u16::MAX)
    }

    /// Received data of `len` bytes is to be acknowledged (RFC 5681 §4.2, RFC 9293 §3.8.6.3): at
    /// once when it is full-sized and the connection young, or when two full segments wait; else
    /// with what we send next, or when the delay is over. `TCP_QUICKACK` makes small ones count too.
    #[inline]
    pub(crate) fn schedule_ack(&mut self, cfg: &Config, now: Nanos, len: usize) {
        let full = len >= usize::from(self.rcv_mss);
        if (full || self.has(flag::QUICKACK)) && self.quick_acks > 0 {
            self.quick_acks -= 1;
            self.set_flag(flag::ACK_NOW, true);
        } else if self.rcv_nxt - self.rcv_acked >= 2 * i64::from(self.rcv_mss) {
            self.set_flag(flag::ACK_NOW, true);
        } else if self.ack_at == NEVER {
            self.ack_at = now + cfg.delayed_ack;
        }
    }
}
