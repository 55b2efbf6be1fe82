//! The acknowledgement, the peer's window, and what both set free.

use fourwave_wire::Flags;

use super::Arrival;
use crate::config::{MILLISECOND, Nanos};
use crate::options::timestamp;
use crate::reaction::Events;
use crate::state::State;
use crate::tcb::{NEVER, Tcb, flag};

impl Tcb {
    /// Takes the acknowledgement `ack`, which is in range, and the window beside it.
    #[inline]
    pub(super) fn receive_ack(&mut self, arrival: &Arrival<'_>, ack: i64, events: &mut Events) {
        if ack < self.snd_una {
            return;
        }
        let same_window = !self.update_window(arrival, ack);
        if ack == self.snd_max && ack == self.snd_una && self.has_nothing_to_learn(arrival) {
            return;
        }
        let before = self.before_ack(arrival);
        let is_new = ack > self.snd_una;
        if is_new {
            self.receive_new_ack(arrival, ack, events);
        }
        if self.is_echo(arrival) {
            self.receive_echo(before.flight);
        }
        self.undo_if_spurious(arrival, is_new);
        if self.has(flag::SACK) {
            self.learn_from_sack(arrival, before);
        } else if is_new {
            self.learn_from_ack(arrival, before);
        } else if same_window && is_bare(arrival) && self.is_outstanding() {
            self.learn_from_duplicate(arrival.cfg, arrival.now);
        }
        if is_new {
            self.plan_probe(arrival.cfg, arrival.now);
        }
        if !self.is_outstanding() || self.snd_wnd == 0 {
            // The peer lives: probes, or segments for a window that shrank, go on as long as it
            // answers (RFC 9293 §3.8.6.1, MUST-36). Nobody waits that long for an orphan.
            if !self.is_orphan() {
                self.retries = 0;
            }
        }
    }

    /// Whether an acknowledgement of what was acknowledged before, with nothing under way, changes
    /// nothing at all: so it is with most segments that bring data.
    #[inline]
    fn has_nothing_to_learn(&self, arrival: &Arrival<'_>) -> bool {
        self.is_calm(arrival)
            && self.retries == 0
            && !self.has(flag::UNDO | flag::EIFEL | flag::ECN)
    }

    /// RFC 9293 §3.10.7.4: the window of the newest segment counts. Returns whether it changed.
    ///
    /// As in Linux, an acknowledgement of something new is new, wherever its segment lies: after a
    /// retransmission it may lie before the last. The old window, counted from the new
    /// acknowledgement, would reach further than the peer ever said.
    #[inline]
    fn update_window(&mut self, arrival: &Arrival<'_>, ack: i64) -> bool {
        let newer = ack > self.snd_una || (self.snd_wl1, self.snd_wl2) <= (arrival.start, ack);
        // RFC 7323 §2.2: the window of a SYN is not scaled.
        let syn = arrival.segment.flags.contains(Flags::SYN);
        let scale = if syn { 0 } else { self.snd_scale };
        let window = u32::from(arrival.segment.window) << scale;
        if !newer {
            return false;
        }
        let changed = window != self.snd_wnd;
        self.snd_wl1 = arrival.start;
        self.snd_wl2 = ack;
        self.snd_wnd = window;
        self.snd_wnd_max = self.snd_wnd_max.max(window);
        if changed && !self.is_outstanding() {
            // No probe has to ask any more, or it asks afresh.
            self.rtx_at = NEVER;
            self.backoff = 0;
        }
        if window > 0 && !self.is_outstanding() {
            self.stalled_at = NEVER;
        }
        changed
    }

    fn receive_new_ack(&mut self, arrival: &Arrival<'_>, ack: i64, events: &mut Events) {
        let data_before = self.snd_acked();
        // A window has 30 bits at most, and a FIN adds one.
        self.scoreboard.advance((ack - self.snd_una) as u32);
        self.snd_una = ack;
        self.judge_mtu_probe(arrival.cfg, arrival.now);
        self.snd_nxt = self.snd_nxt.max(ack);
        self.duplicate_acks = 0;
        if let Some(sample) = self.round_trip(arrival, ack) {
            self.rtt.sample(arrival.cfg, sample);
            self.backoff = 0;
        }
        self.retries = 0;
        self.stalled_at = NEVER;
        // What was to be resent is acknowledged; the rest of a go-back follows in turn.
        self.set_flag(flag::RESEND, false);
        self.restart_rtx(arrival.cfg, arrival.now);
        if self.snd_acked() > data_before {
            *events |= Events::WRITABLE;
        }
        if self.fin_is_acked() {
            *events |= self.our_fin_acked(arrival);
            if !self.is_orphan() {
                *events |= Events::ALL_ACKED;
            }
        }
    }

    /// The segment timed, or, where a retransmission made that ambiguous, the timestamp echoed
    /// (RFC 7323 §4.1): its clock is coarse, so it is the second choice.
    fn round_trip(&mut self, arrival: &Arrival<'_>, ack: i64) -> Option<Nanos> {
        if let Some(measured) = self.rtt.acknowledged(ack, arrival.now) {
            return Some(measured);
        }
        if self.retries == 0 && !self.recovery.is_active() {
            return None;
        }
        self.echoed(arrival).map(|elapsed| Nanos::from(elapsed) * MILLISECOND)
    }

    /// Milliseconds since the timestamp that is echoed, at least one.
    #[inline]
    pub(crate) fn echoed(&self, arrival: &Arrival<'_>) -> Option<u32> {
        let timestamps = arrival.segment.options.timestamps?;
        let clock = timestamp(arrival.now, self.ts_offset);
        let elapsed = clock.wrapping_sub(timestamps.echo);
        // A peer that echoes the future, or nothing, is not believed.
        let is_plausible = elapsed <= i32::MAX as u32 && timestamps.echo != 0;
        (self.has(flag::TIMESTAMPS) && is_plausible).then_some(elapsed.max(1))
    }

    /// The peer has all that we sent and will send.
    fn our_fin_acked(&mut self, arrival: &Arrival<'_>) -> Events {
        match self.state() {
            State::FinWait1 => {
                self.transition(State::FinWait2);
                Events::NONE
            }
            State::Closing => self.enter_time_wait(arrival.cfg, arrival.now),
            State::LastAck => self.finish(None, Events::NONE),
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait2
            | State::CloseWait
            | State::TimeWait => Events::NONE,
        }
    }
}

/// An ACK with nothing else in it.
fn is_bare(arrival: &Arrival<'_>) -> bool {
    arrival.segment.sequence_len() == 0
}
