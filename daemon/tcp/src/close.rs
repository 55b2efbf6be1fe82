//! Our side of the end: half-close, close, abort (RFC 9293 §3.6, §3.10.4, §3.10.5).

use crate::config::{Config, Nanos};
use crate::reaction::{Events, Reaction};
use crate::state::State;
use crate::tcb::{NEVER, Tcb, flag};

impl Tcb {
    /// The application will write no more: a FIN follows what is queued. Reading goes on.
    pub fn shutdown_write(&mut self) -> Reaction {
        let next = match self.state() {
            // Nothing was exchanged: nobody is told (RFC 9293 §3.10.4).
            State::SynSent => return self.finish(None, Events::NONE).into(),
            State::SynReceived => {
                // Queued until ESTABLISHED; see `open_from_syn_received`.
                self.set_flag(flag::FIN_QUEUED, true);
                return Reaction::default();
            }
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            State::Closed
            | State::Listen
            | State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck
            | State::TimeWait => return Reaction::default(),
        };
        self.set_flag(flag::FIN_QUEUED, true);
        self.transition(next);
        Reaction::default()
    }

    /// The application's handle is gone. What is queued is still sent, unless data that it never
    /// read is lost with it, or it lingers for no time: then the peer is told by RST
    /// (RFC 9293 §3.6.1, RFC 2525 §2.17).
    ///
    /// The last [`Tcb::set_consumed`] comes before this call.
    pub fn close(&mut self, cfg: &Config, now: Nanos) -> Reaction {
        self.set_flag(flag::ORPHAN, true);
        let unread = self.rcv_data_end() > self.rcv_head;
        if (unread || self.settings.resets_on_close()) && self.state() != State::TimeWait {
            return self.abort();
        }
        let reaction = self.shutdown_write();
        // Nobody is left to be told of a late answer: an orphan's retries count from here.
        self.retries = 0;
        if self.state() != State::FinWait2 {
            return reaction;
        }
        if self.settings.fin_timeout(cfg).is_none() {
            return self.abort();
        }
        self.orphaned_in_fin_wait_2(cfg, now).into()
    }

    /// Ends the connection at once; a RST is due where the peer knows of it.
    pub fn abort(&mut self) -> Reaction {
        match self.state() {
            State::Closed | State::Listen => Reaction::default(),
            State::SynSent | State::TimeWait => self.finish(None, Events::NONE).into(),
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => {
                self.set_flag(flag::RST_DUE, true);
                self.finish(None, Events::NONE).into()
            }
        }
    }

    /// `fin_timeout` bounds the wait for a FIN that nobody reads up to.
    pub(crate) fn orphaned_in_fin_wait_2(&mut self, cfg: &Config, now: Nanos) -> Events {
        self.keepalive_at = NEVER;
        match self.settings.fin_timeout(cfg) {
            Some(timeout) => {
                self.life_at = now + timeout;
                Events::FIN_WAIT2_ORPHAN
            }
            None => self.finish(None, Events::NONE),
        }
    }

    /// Both FINs are acknowledged, ours first: old duplicates are waited out.
    pub(crate) fn enter_time_wait(&mut self, cfg: &Config, now: Nanos) -> Events {
        self.transition(State::TimeWait);
        self.keepalive_at = NEVER;
        self.life_at = now + cfg.time_wait;
        Events::TIME_WAIT
    }
}
