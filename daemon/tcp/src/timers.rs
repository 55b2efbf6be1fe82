//! The timers: retransmission, loss by time, zero-window probe, delayed ACK, keepalive, and the ends
//! of life.

use crate::config::{Config, Nanos};
use crate::reaction::{Error, Events, Reaction};
use crate::state::State;
use crate::tcb::{NEVER, Tcb, flag};

/// A timer that runs, for people who look at connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// What it is for.
    pub kind: TimerKind,
    /// When it fires.
    pub at: Nanos,
    /// How often it has fired without an answer.
    pub retries: u8,
}

/// What a timer is for. A delayed acknowledgement is none, as in Linux's `ss`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerKind {
    /// Sends again what is not acknowledged.
    Retransmit,
    /// Ends FIN_WAIT_2, or asks a silent peer whether it is there.
    Keepalive,
    /// Ends TIME_WAIT.
    TimeWait,
    /// Probes a window that is closed.
    Persist,
}

impl Tcb {
    /// The timer that says most about the connection's state.
    pub fn timer(&self) -> Option<Timer> {
        let rtx_at = self.rtx_at.min(self.rack.at);
        let (kind, at) = if rtx_at != NEVER {
            let waits = self.is_outstanding() || !self.state().is_synchronized();
            (if waits { TimerKind::Retransmit } else { TimerKind::Persist }, rtx_at)
        } else if self.life_at != NEVER {
            let over = self.state() == State::TimeWait;
            (if over { TimerKind::TimeWait } else { TimerKind::Keepalive }, self.life_at)
        } else if self.keepalive_at != NEVER {
            let (at, retries) = (self.keepalive_at, self.keepalive_probes);
            return Some(Timer { kind: TimerKind::Keepalive, at, retries });
        } else {
            return None;
        };
        Some(Timer { kind, at, retries: self.retries })
    }

    /// When [`Tcb::handle_timer`] is due; `None` when no timer runs.
    #[inline]
    pub fn deadline(&self) -> Option<Nanos> {
        let earliest = self.rtx_at.min(self.ack_at).min(self.life_at);
        let earliest = earliest.min(self.rack.at).min(self.keepalive_at);
        (earliest != NEVER).then_some(earliest)
    }

    /// Does what is due at `now`. Calling it early does nothing.
    pub fn handle_timer(&mut self, cfg: &Config, now: Nanos) -> Reaction {
        if self.life_at <= now {
            // FIN_WAIT_2 as an orphan, or TIME_WAIT, is over.
            return self.finish(None, Events::NONE).into();
        }
        if self.ack_at <= now {
            self.ack_at = NEVER;
            self.set_flag(flag::ACK_NOW, true);
        }
        if self.rtx_at <= now {
            return self.handle_rtx_timer(cfg, now);
        }
        if self.rack.at <= now {
            self.handle_rack_timer(cfg, now);
        }
        if self.keepalive_at <= now {
            return self.handle_keepalive_timer(cfg, now);
        }
        Reaction::default()
    }

    /// Retransmission, zero-window probe, or the end of a cork's patience.
    fn handle_rtx_timer(&mut self, cfg: &Config, now: Nanos) -> Reaction {
        if self.is_corked() && !self.is_outstanding() {
            // Nothing has failed: what was held back goes now.
            self.rtx_at = NEVER;
            self.set_flag(flag::PROBE, true);
            return Reaction::default();
        }
        if self.is_overdue(cfg, now) {
            return self.give_up().into();
        }
        self.stalled_at = self.stalled_at.min(now);
        self.retries = self.retries.saturating_add(1);
        if self.state() != State::SynSent || self.retries > cfg.syn_linear_timeouts {
            self.backoff = self.backoff.saturating_add(1);
        }
        if !self.state().is_synchronized() {
            self.resend_syn();
        } else if self.is_outstanding() {
            self.go_back(cfg);
        } else {
            self.set_flag(flag::PROBE, true);
        }
        self.rtx_at = self.timeout_from(cfg, now);
        Reaction::default()
    }

    /// When the retransmission timer fires that starts at `now`.
    #[inline]
    pub(crate) fn timeout_from(&self, cfg: &Config, now: Nanos) -> Nanos {
        self.within_user_timeout(now + self.rtt.backed_off(cfg, self.backoff))
    }

    /// No wait is longer than what is left of the user timeout (as Linux).
    #[inline]
    pub(crate) fn within_user_timeout(&self, at: Nanos) -> Nanos {
        match self.settings.user_timeout() {
            Some(timeout) if self.stalled_at != NEVER => at.min(self.stalled_at + timeout),
            Some(_) | None => at,
        }
    }

    /// Starts the retransmission timer afresh, or stops it when nothing is outstanding
    /// (RFC 6298 §5.2, §5.3).
    #[inline]
    pub(crate) fn restart_rtx(&mut self, cfg: &Config, now: Nanos) {
        self.rtx_at = if self.is_outstanding() { self.timeout_from(cfg, now) } else { NEVER };
    }

    /// Whether what waits has waited for as long as it may. The user timeout (RFC 5482) counts from
    /// the first timeout, as in Linux, and whether or not a peer with a closed window answers.
    fn is_overdue(&self, cfg: &Config, now: Nanos) -> bool {
        let user_timeout = self.settings.user_timeout();
        let stalled_for = now.saturating_sub(self.stalled_at);
        if user_timeout.is_some_and(|timeout| self.stalled_at != NEVER && stalled_for >= timeout) {
            return true;
        }
        let limit = self.retry_limit(cfg);
        if !self.is_outstanding() || !self.state().is_synchronized() {
            return self.retries >= limit;
        }
        // Of an established connection with data under way the user timeout takes the place of the
        // retries.
        let counts = user_timeout.is_none() || self.is_orphan();
        counts && self.retries > 0 && self.has_repeated_for(cfg.patience(limit), now)
    }

    /// Whether data was sent again in vain for `patience`. A window that shrank to nothing is no
    /// silence: then the time counts from the peer's last word.
    fn has_repeated_for(&self, patience: Nanos, now: Nanos) -> bool {
        let answered_at = if self.snd_wnd == 0 { self.heard_at } else { 0 };
        now.saturating_sub(self.stalled_at.max(answered_at)) >= patience
    }

    /// Timeouts in a row that are allowed (RFC 9293 §3.8.3); of data, what [`Config::patience`] makes
    /// of them.
    fn retry_limit(&self, cfg: &Config) -> u8 {
        let state = self.state();
        if state == State::SynSent {
            self.settings.syn_retries(cfg).saturating_add(cfg.syn_linear_timeouts)
        } else if state == State::SynReceived {
            cfg.synack_retries
        } else if self.is_orphan() {
            cfg.orphan_retries
        } else {
            cfg.retries2
        }
    }

    pub(crate) fn give_up(&mut self) -> Events {
        // What the network said while we waited explains more than the silence does.
        let error = Error::from_byte(self.soft_error).unwrap_or(Error::TimedOut);
        self.finish(Some(error), Events::TIMED_OUT)
    }

    fn resend_syn(&mut self) {
        self.rtt.cancel();
        self.set_flag(flag::SYN_DUE, true);
    }

    /// RFC 6298 §5.4: everything is sent again from the oldest byte on, as the window allows, except
    /// what the peer holds. RFC 2018 §8 would forget that too: here a peer that throws data away is
    /// found out when its acknowledgement reaches it.
    fn go_back(&mut self, cfg: &Config) {
        let first = self.retries == 1;
        if first {
            self.prepare_undo();
        }
        self.suspect_black_hole(cfg);
        let (flight, mss) = (self.flight(), self.payload_limit());
        self.congestion.handle_timeout(flight, mss, first);
        self.note_reaction();
        self.recovery.give_way(self.snd_max);
        self.rack.give_way();
        self.rtt.cancel();
        self.duplicate_acks = 0;
        self.snd_nxt = self.snd_una;
        self.set_flag(flag::TAIL_PROBE | flag::PROBE_LOST, false);
        self.set_flag(flag::RESEND, true);
    }
}
