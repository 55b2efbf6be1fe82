//! The answer to our SYN (RFC 9293 §3.10.7.3).

use fourwave_wire::{Flags, Segment};

use crate::config::{Config, Nanos};
use crate::reaction::{Buffers, DropReason, Error, Events};
use crate::receive::Arrival;
use crate::state::State;
use crate::tcb::{SYN_POSITION, Tcb, flag};

impl Tcb {
    pub(crate) fn receive_in_syn_sent(
        &mut self,
        cfg: &Config,
        now: Nanos,
        segment: &Segment<'_>,
        buffers: &mut impl Buffers,
        events: &mut Events,
    ) -> Result<(), DropReason> {
        let acks = segment.flags.contains(Flags::ACK);
        // Only the SYN can be acknowledged, once it was sent.
        if acks && (self.snd_max == SYN_POSITION || segment.ack != self.snd_seq(self.snd_max)) {
            if !segment.flags.contains(Flags::RST) {
                self.reply_rst_seq = segment.ack;
                self.set_flag(flag::REPLY_RST, true);
            }
            return Err(DropReason::AckOfUnsent);
        }
        if segment.flags.contains(Flags::RST) {
            if !acks {
                return Err(DropReason::OutOfWindow);
            }
            *events |= self.finish(Some(Error::Refused), Events::REFUSED);
            return Ok(());
        }
        if !segment.flags.contains(Flags::SYN) {
            return Err(DropReason::NoAck);
        }
        self.take_syn(cfg, now, segment);
        if !acks {
            // Both sides open at once (RFC 9293 §3.5, MUST-10); our SYN-ACK repeats our SYN.
            self.transition(State::SynReceived);
            self.set_flag(flag::SYN_DUE, true);
            self.retries = 0;
            self.backoff = 0;
            return Ok(());
        }
        if let Some(sample) = self.rtt.acknowledged(0, now) {
            self.rtt.sample(cfg, sample);
        }
        self.snd_una = 0;
        self.transition(State::Established);
        self.open(cfg);
        self.restart_rtx(cfg, now);
        self.set_flag(flag::ACK_NOW, true);
        *events |= Events::ESTABLISHED;
        let arrival = Arrival { cfg, now, segment, start: SYN_POSITION };
        self.receive_data(&arrival, buffers, events)
    }

    /// The peer's SYN: its numbers, window and options.
    fn take_syn(&mut self, cfg: &Config, now: Nanos, segment: &Segment<'_>) {
        self.heard(now);
        self.irs = segment.seq;
        self.agree_on_scale(cfg, segment.options.window_scale);
        let timestamps = segment.options.timestamps.filter(|_| self.has(flag::TIMESTAMPS));
        self.set_flag(flag::TIMESTAMPS, timestamps.is_some());
        self.set_flag(flag::SACK, self.has(flag::SACK) && segment.options.sack_permitted);
        self.agree_on_ecn(segment.flags);
        if let Some(timestamps) = timestamps {
            self.ts_recent = timestamps.value;
            self.ts_recent_at = now;
        }
        self.agree_on_mss(segment.options.mss);
        // RFC 7323 §2.2: the window of a SYN is not scaled.
        self.snd_wnd = u32::from(segment.window);
        self.snd_wnd_max = self.snd_wnd;
        self.snd_wl1 = SYN_POSITION;
        self.snd_wl2 = self.snd_max;
    }
}
