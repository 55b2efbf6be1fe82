//! What a segment does to a connection (RFC 9293 §3.10.7.4).

mod ack;
mod data;

use fourwave_wire::{Flags, Segment};

use crate::config::{Config, Nanos};
use crate::reaction::{Buffers, DropReason, Error, Events, Reaction};
use crate::state::State;
use crate::tcb::{NEVER, Tcb, flag};

/// Timestamps older than this say nothing: the peer's clock may have wrapped (RFC 7323 §5.5).
const TIMESTAMP_LIFE: Nanos = 24 * 24 * 3600 * crate::config::SECOND;

/// One segment on its way through the connection.
pub(crate) struct Arrival<'a> {
    pub(crate) cfg: &'a Config,
    pub(crate) now: Nanos,
    pub(crate) segment: &'a Segment<'a>,
    /// Receive position of the segment's first byte.
    pub(crate) start: i64,
}

impl Tcb {
    /// Takes one segment of this connection.
    pub fn handle_segment(
        &mut self,
        cfg: &Config,
        now: Nanos,
        segment: &Segment<'_>,
        buffers: &mut impl Buffers,
    ) -> Reaction {
        let mut events = Events::NONE;
        self.segments_in = self.segments_in.wrapping_add(1);
        let taken = match self.state() {
            State::Closed | State::Listen => Err(DropReason::Closed),
            State::SynSent => self.receive_in_syn_sent(cfg, now, segment, buffers, &mut events),
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => {
                let start = self.rcv_position(segment.seq);
                let arrival = Arrival { cfg, now, segment, start };
                self.receive(&arrival, buffers, &mut events)
            }
        };
        if self.state() == State::FinWait2 && self.is_orphan() && self.life_at == NEVER {
            events |= self.orphaned_in_fin_wait_2(cfg, now);
        }
        Reaction { events, drop: taken.err() }
    }

    /// The checks of RFC 9293 §3.10.7.4 with RFC 5961's and RFC 7323's, then the segment's effects.
    ///
    /// RST and SYN come before the sequence check here: each has a rule of its own for every place
    /// it can be at.
    fn receive(
        &mut self,
        arrival: &Arrival<'_>,
        buffers: &mut impl Buffers,
        events: &mut Events,
    ) -> Result<(), DropReason> {
        let segment = arrival.segment;
        if segment.flags.contains(Flags::RST) {
            return self.receive_reset(arrival, events);
        }
        self.check_timestamp(arrival)?;
        if segment.flags.contains(Flags::SYN) && !self.completes_simultaneous_open(arrival) {
            // RFC 5961 §4.2: a peer that has restarted answers the ACK with RST.
            self.challenge(arrival);
            return Err(DropReason::UnexpectedSyn);
        }
        self.check_sequence(arrival)?;
        if !segment.flags.contains(Flags::ACK) {
            return Err(DropReason::NoAck);
        }
        let ack = self.check_ack(arrival)?;
        self.heard(arrival.now);
        self.note_timestamp(arrival);
        if self.state() == State::SynReceived {
            self.open_from_syn_received(arrival, events);
        }
        self.receive_ack(arrival, ack, events);
        self.note_mark(arrival);
        self.receive_data(arrival, buffers, events)
    }

    /// RFC 5961 §3.2: a RST counts at the left edge of the window; elsewhere inside it is
    /// challenged, so that a blind one has to hit a single number.
    #[cold]
    fn receive_reset(
        &mut self,
        arrival: &Arrival<'_>,
        events: &mut Events,
    ) -> Result<(), DropReason> {
        let start = arrival.start;
        // As Linux: a peer whose FIN we have counted may reset from before it, one whose SACK blocks
        // we report from the highest edge.
        let over = self.state() == State::TimeWait;
        let before_fin = self.fin_received() && !over && start == self.rcv_nxt - 1;
        let held = i64::from(self.assembler.end());
        let behind_hole = self.has(flag::SACK) && held > 0 && start == self.rcv_nxt + held;
        if start == self.rcv_nxt || before_fin || behind_hole {
            *events |= self.reset_by_peer();
            return Ok(());
        }
        if start > self.rcv_nxt && start <= self.rcv_edge {
            self.challenge(arrival);
            return Err(DropReason::InexactReset);
        }
        Err(DropReason::OutOfWindow)
    }

    fn reset_by_peer(&mut self) -> Events {
        match self.state() {
            // Both opened at once and the peer thought better of it: RFC 9293 §3.10.7.4.
            State::SynReceived => self.finish(Some(Error::Refused), Events::REFUSED),
            State::CloseWait => self.finish(Some(Error::BrokenPipe), Events::RESET),
            State::Closing | State::LastAck | State::TimeWait => self.finish(None, Events::NONE),
            State::Closed
            | State::Listen
            | State::SynSent
            | State::Established
            | State::FinWait1
            | State::FinWait2 => self.finish(Some(Error::Reset), Events::RESET),
        }
    }

    /// Both SYNs crossed; the peer's SYN-ACK repeats its SYN and acknowledges ours. By the letter
    /// it lies outside the window and only the ACK that answers it would end the handshake.
    fn completes_simultaneous_open(&self, arrival: &Arrival<'_>) -> bool {
        self.state() == State::SynReceived
            && arrival.segment.flags.contains(Flags::ACK)
            && arrival.segment.seq == self.irs
            && arrival.segment.ack == self.snd_seq(self.snd_max)
    }

    /// PAWS (RFC 7323 §5.3 R1). A segment that lacks the option is taken, as Linux takes it.
    #[inline]
    fn check_timestamp(&mut self, arrival: &Arrival<'_>) -> Result<(), DropReason> {
        if !self.has(flag::TIMESTAMPS) {
            return Ok(());
        }
        let Some(timestamps) = arrival.segment.options.timestamps else {
            return Ok(());
        };
        let age = timestamps.value.wrapping_sub(self.ts_recent) as i32;
        let recent_is_valid = arrival.now.saturating_sub(self.ts_recent_at) < TIMESTAMP_LIFE;
        if age >= 0 || !recent_is_valid {
            return Ok(());
        }
        self.answer_unacceptable(arrival);
        Err(DropReason::OldTimestamp)
    }

    /// RFC 7323 §4.3: the newest timestamp of a segment that spans the last ACK's edge is echoed.
    #[inline]
    fn note_timestamp(&mut self, arrival: &Arrival<'_>) {
        if !self.has(flag::TIMESTAMPS) || arrival.start > self.rcv_acked {
            return;
        }
        if let Some(timestamps) = arrival.segment.options.timestamps {
            self.ts_recent = timestamps.value;
            self.ts_recent_at = arrival.now;
        }
    }

    /// RFC 9293 §3.10.7.4, first check. Like Linux, a segment that ends exactly at RCV.NXT or
    /// starts at the right edge passes: its acknowledgement counts, its data is trimmed to nothing.
    #[inline]
    fn check_sequence(&mut self, arrival: &Arrival<'_>) -> Result<(), DropReason> {
        let end = arrival.start + i64::from(arrival.segment.sequence_len());
        if end >= self.rcv_nxt && arrival.start <= self.rcv_edge {
            return Ok(());
        }
        self.answer_unacceptable(arrival);
        Err(DropReason::OutOfWindow)
    }

    /// The ACK that an unacceptable segment asks for. One without data could be such an ACK itself,
    /// and two peers that disagree would go on for ever: those are limited.
    #[cold]
    fn answer_unacceptable(&mut self, arrival: &Arrival<'_>) {
        if arrival.segment.payload.is_empty() {
            if self.may_answer(arrival) {
                self.set_flag(flag::ACK_NOW, true);
            }
        } else {
            let end = arrival.start + i64::from(arrival.segment.sequence_len());
            self.note_duplicate(arrival.start, end.min(self.rcv_nxt));
            self.set_flag(flag::ACK_NOW, true);
        }
        if self.state() == State::TimeWait && arrival.segment.flags.contains(Flags::FIN) {
            self.life_at = arrival.now + arrival.cfg.time_wait;
        }
    }

    /// Asks the peer where it stands (RFC 5961 §7): at most one ACK in a while. The limit here is
    /// per connection; one for all of them is the caller's, see [`Tcb::take_challenge`].
    #[cold]
    pub(crate) fn challenge(&mut self, arrival: &Arrival<'_>) {
        if self.may_answer(arrival) && !self.has(flag::ACK_NOW) {
            self.set_flag(flag::ACK_NOW | flag::CHALLENGED, true);
        }
    }

    fn may_answer(&mut self, arrival: &Arrival<'_>) -> bool {
        let may = arrival.now >= self.challenge_at;
        if may {
            self.challenge_at = arrival.now + arrival.cfg.challenge_interval;
        }
        may
    }

    /// Whether the segment handled last, which was dropped, made a challenge ACK due. To be asked
    /// right after it, once; [`Tcb::withdraw_challenge`] may follow.
    pub fn take_challenge(&mut self) -> bool {
        self.take_flag(flag::CHALLENGED)
    }

    /// No challenge ACK after all: too many are sent (RFC 5961 §7).
    pub fn withdraw_challenge(&mut self) {
        self.set_flag(flag::ACK_NOW, false);
    }

    /// RFC 9293 §3.10.7.4, fifth check with RFC 5961 §5.2: the acknowledged position, if it can be
    /// meant for what we sent.
    #[inline]
    fn check_ack(&mut self, arrival: &Arrival<'_>) -> Result<i64, DropReason> {
        let ack = self.snd_position(arrival.segment.ack);
        if self.state() == State::SynReceived {
            if ack > self.snd_una && ack <= self.snd_max {
                return Ok(ack);
            }
            self.reply_rst_seq = arrival.segment.ack;
            self.set_flag(flag::REPLY_RST, true);
            return Err(DropReason::AckOfUnsent);
        }
        if ack > self.snd_max {
            self.challenge(arrival);
            return Err(DropReason::AckOfUnsent);
        }
        if ack < self.snd_una - i64::from(self.snd_wnd_max) {
            self.challenge(arrival);
            return Err(DropReason::AckTooOld);
        }
        Ok(ack)
    }

    /// Our SYN is acknowledged: both sides have opened at once.
    #[cold]
    fn open_from_syn_received(&mut self, arrival: &Arrival<'_>, events: &mut Events) {
        self.transition(State::Established);
        self.open(arrival.cfg);
        *events |= Events::ESTABLISHED;
        // RFC 9293 §3.10.4: a FIN asked for in SYN_RCVD was queued until now.
        if self.has(flag::FIN_QUEUED) {
            self.transition(State::FinWait1);
        }
    }
}
