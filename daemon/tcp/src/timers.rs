//! The timers: retransmission, loss by time, zero-window probe, delayed ACK, and the ends of life.

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
    /// Ends FIN_WAIT_2.
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
        } else {
            return None;
        };
        Some(Timer { kind, at, retries: self.retries })
    }

    /// When [`Tcb::handle_timer`] is due; `None` when no timer runs.
    #[inline]
    pub fn deadline(&self) -> Option<Nanos> {
        let earliest = self.rtx_at.min(self.ack_at).min(self.life_at).min(self.rack.at);
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
        if self.rtx_at > now {
            if self.rack.at <= now {
                self.handle_rack_timer(cfg, now);
            }
            return Reaction::default();
        }
        if self.retries >= self.retry_limit(cfg) {
            return self.give_up().into();
        }
        self.retries += 1;
        if self.state() != State::SynSent || self.retries > cfg.syn_linear_timeouts {
            self.backoff = self.backoff.saturating_add(1);
        }
        if !self.state().is_synchronized() {
            self.resend_syn();
        } else if self.is_outstanding() {
            self.go_back();
        } else {
            self.set_flag(flag::PROBE, true);
        }
        self.rtx_at = now + self.rtt.backed_off(cfg, self.backoff);
        Reaction::default()
    }

    /// Starts the retransmission timer afresh, or stops it when nothing is outstanding
    /// (RFC 6298 §5.2, §5.3).
    #[inline]
    pub(crate) fn restart_rtx(&mut self, cfg: &Config, now: Nanos) {
        self.rtx_at = if self.is_outstanding() {
            now + self.rtt.backed_off(cfg, self.backoff)
        } else {
            NEVER
        };
    }

    /// Timeouts in a row that are allowed (RFC 9293 §3.8.3).
    fn retry_limit(&self, cfg: &Config) -> u8 {
        let state = self.state();
        if state == State::SynSent {
            cfg.syn_retries.saturating_add(cfg.syn_linear_timeouts)
        } else if state == State::SynReceived {
            cfg.synack_retries
        } else if self.is_orphan() {
            cfg.orphan_retries
        } else {
            cfg.retries2
        }
    }

    fn give_up(&mut self) -> Events {
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
    fn go_back(&mut self) {
        let first = self.retries == 1;
        if first {
            self.prepare_undo();
        }
        let (flight, mss) = (self.flight(), self.payload_limit());
        self.congestion.handle_timeout(flight, mss, first);
        self.recovery.give_way(self.snd_max);
        self.rack.give_way();
        self.rtt.cancel();
        self.duplicate_acks = 0;
        self.snd_nxt = self.snd_una;
        self.set_flag(flag::TAIL_PROBE, false);
        self.set_flag(flag::RESEND, true);
    }
}
