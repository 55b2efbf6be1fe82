//! Keepalive (RFC 9293 §3.8.4): whether a silent peer is still there.

use crate::config::{Config, Nanos, SECOND};
use crate::reaction::Reaction;
use crate::state::State;
use crate::tcb::{NEVER, Tcb, flag};

impl Tcb {
    /// Sets the timer by when the peer was last heard, if keepalive is wanted: it is off by default
    /// (MUST-25).
    pub(crate) fn plan_keepalive(&mut self, cfg: &Config) {
        let lives = self.state().is_synchronized() && self.state() != State::TimeWait;
        self.keepalive_at = if self.settings.keepalive() && lives {
            self.heard_at + Nanos::from(self.settings.keepalive_time(cfg)) * SECOND
        } else {
            NEVER
        };
    }

    /// The peer has said something acceptable. The timer is left to find out.
    #[inline]
    pub(crate) fn heard(&mut self, now: Nanos) {
        self.heard_at = now;
        self.keepalive_probes = 0;
    }

    pub(crate) fn handle_keepalive_timer(&mut self, cfg: &Config, now: Nanos) -> Reaction {
        let time = Nanos::from(self.settings.keepalive_time(cfg)) * SECOND;
        let silence = now.saturating_sub(self.heard_at);
        if self.is_outstanding() || self.has_unsent() {
            // Retransmissions and window probes find out sooner.
            self.keepalive_at = now + time;
            return Reaction::default();
        }
        if silence < time {
            self.keepalive_at = self.heard_at + time;
            return Reaction::default();
        }
        // RFC 5482 §4.2, as Linux: the user timeout takes the place of the number of probes.
        let probes = self.keepalive_probes;
        let is_over = match self.settings.user_timeout() {
            Some(timeout) => probes > 0 && silence >= timeout,
            None => probes >= self.settings.keepalive_probes(cfg),
        };
        if is_over {
            self.set_flag(flag::RST_DUE, true);
            return self.give_up().into();
        }
        self.keepalive_probes = probes.saturating_add(1);
        self.set_flag(flag::KEEPALIVE, true);
        let interval = Nanos::from(self.settings.keepalive_interval(cfg)) * SECOND;
        self.keepalive_at = now + interval;
        Reaction::default()
    }
}
