//! What holds of every connection at every moment between two calls; for simulators and fuzzers.

use crate::config::Config;
use crate::state::State;
use crate::tcb::{NEVER, SYN_POSITION, Tcb, UNKNOWN, flag};

impl Tcb {
    /// Asserts that the numbers of this connection do not contradict each other.
    ///
    /// # Panics
    /// When they do.
    pub fn check(&self, cfg: &Config) {
        self.check_sending();
        self.check_receiving(cfg);
        self.check_timers();
    }

    /// RFC 9293 §3.3.1, the send sequence space.
    fn check_sending(&self) {
        assert!(SYN_POSITION <= self.snd_una && self.snd_una <= self.snd_nxt, "{self:?}");
        assert!(self.snd_nxt <= self.snd_max, "{self:?}");
        let end = self.snd_tail + i64::from(self.has(flag::FIN_QUEUED));
        assert!(self.snd_max <= end, "sent what was not written: {self:?}");
        assert!(!self.state().is_synchronized() || self.snd_una >= 0, "{self:?}");
        assert!(self.snd_wnd <= self.snd_wnd_max, "{self:?}");
        let held = i64::from(self.scoreboard.end());
        assert!(self.snd_una + held <= self.snd_max, "holds what was not sent: {self:?}");
        assert!(self.congestion.window() > 0, "{self:?}");
        assert!(self.payload_limit() > 0, "{self:?}");
    }

    /// RFC 9293 §3.3.1, the receive sequence space.
    fn check_receiving(&self, cfg: &Config) {
        assert!(0 <= self.rcv_head && self.rcv_head <= self.rcv_data_end(), "{self:?}");
        assert!(self.rcv_acked <= self.rcv_nxt, "{self:?}");
        // A FIN takes a number, and no room.
        let fin = i64::from(self.fin_received());
        assert!(self.rcv_nxt <= self.rcv_edge + fin, "beyond the window: {self:?}");
        let window = self.rcv_edge - self.rcv_head;
        assert!(window <= i64::from(cfg.recv_window_max), "more than the buffer: {self:?}");
        let ahead = i64::from(self.assembler.end());
        assert!(ahead == 0 || self.rcv_nxt + ahead <= self.rcv_edge.min(self.rcv_fin), "{self:?}");
        assert!(self.rcv_fin == UNKNOWN || self.rcv_fin <= self.rcv_edge, "{self:?}");
        assert!(self.rcv_nxt <= self.rcv_fin.saturating_add(1), "{self:?}");
    }

    /// Whatever waits for the peer has a timer that will not wait for ever.
    fn check_timers(&self) {
        let waits = self.is_outstanding() && self.state().may_send();
        assert!(!waits || self.rtx_at != NEVER, "nothing will ask again: {self:?}");
        match self.state() {
            State::Closed => assert!(self.deadline().is_none(), "{self:?}"),
            State::TimeWait => assert!(self.life_at != NEVER, "{self:?}"),
            State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => {}
        }
    }
}
