//! The data of a segment, and its FIN.

use fourwave_wire::Flags;

use super::Arrival;
use crate::assembler::Range;
use crate::reaction::{Buffers, DropReason, Events};
use crate::state::State;
use crate::tcb::{NEVER, Tcb, UNKNOWN, flag};

/// What of a segment lies in the window and is new.
struct Piece<'a> {
    start: i64,
    bytes: &'a [u8],
    /// The FIN follows `bytes`.
    fin: bool,
}

impl Piece<'_> {
    fn end(&self) -> i64 {
        self.start + self.bytes.len() as i64
    }
}

impl Tcb {
    /// RFC 9293 §3.10.7.4, seventh and eighth check.
    #[inline]
    pub(crate) fn receive_data(
        &mut self,
        arrival: &Arrival<'_>,
        buffers: &mut impl Buffers,
        events: &mut Events,
    ) -> Result<(), DropReason> {
        let fin = arrival.segment.flags.contains(Flags::FIN);
        if arrival.segment.payload.is_empty() && !fin {
            return Ok(());
        }
        if !self.state().may_receive() {
            return self.receive_after_fin(arrival);
        }
        let new_data = arrival.segment.payload.len() as i64 + data_start(arrival) > self.rcv_nxt;
        if self.is_orphan() && new_data {
            // RFC 9293 §3.6.1: nobody can read it, and the peer had better know.
            *events |= self.abort().events | Events::RESET;
            return Err(DropReason::OrphanData);
        }
        let piece = self.trim(arrival, fin)?;
        if piece.start > self.rcv_nxt {
            return self.keep_out_of_order(&piece, buffers);
        }
        if !piece.bytes.is_empty() && !buffers.store(self.rcv_nxt as u64, piece.bytes) {
            return Err(DropReason::NoMemory);
        }
        let fin_waited = self.rcv_fin != UNKNOWN;
        self.note_fin(&piece);
        self.advance(arrival, &piece, events);
        // RFC 5681 §4.2: what lay before the FIN was a hole too.
        if fin_waited {
            self.set_flag(flag::ACK_NOW, true);
        }
        if self.rcv_nxt == self.rcv_fin {
            self.take_fin(arrival, events);
        }
        Ok(())
    }

    /// The peer has finished: whatever comes is a repetition (RFC 9293 §3.10.7.4, eighth check).
    #[cold]
    fn receive_after_fin(&mut self, arrival: &Arrival<'_>) -> Result<(), DropReason> {
        let end = arrival.start + i64::from(arrival.segment.sequence_len());
        self.note_duplicate(arrival.start, end.min(self.rcv_nxt));
        self.set_flag(flag::ACK_NOW, self.state() != State::Closed);
        if self.state() == State::TimeWait && arrival.segment.flags.contains(Flags::FIN) {
            self.life_at = arrival.now + arrival.cfg.time_wait;
        }
        Err(DropReason::Duplicate)
    }

    /// Cuts off what arrived before, what lies beyond the window, and what comes after the FIN.
    #[inline]
    fn trim<'a>(&mut self, arrival: &Arrival<'a>, fin: bool) -> Result<Piece<'a>, DropReason> {
        let mut bytes = arrival.segment.payload;
        let mut start = data_start(arrival);
        let mut fin = fin;
        if !bytes.is_empty() {
            self.data_segments_in = self.data_segments_in.wrapping_add(1);
            self.note_echo(arrival);
            self.received_at = arrival.now;
        }
        let limit = self.rcv_edge.min(self.rcv_fin);
        let room = (limit - start).max(0) as usize;
        if bytes.len() > room {
            bytes = &bytes[..room];
            fin = false;
        }
        if start < self.rcv_nxt {
            let known = ((self.rcv_nxt - start) as usize).min(bytes.len());
            self.note_duplicate(start, start + known as i64);
            bytes = &bytes[known..];
            start += known as i64;
        }
        // A FIN before the edge is a repetition too.
        if bytes.is_empty() && (!fin || start < self.rcv_nxt) {
            self.set_flag(flag::ACK_NOW, true);
            let beyond = data_start(arrival) >= self.rcv_edge;
            return Err(if beyond { DropReason::ZeroWindow } else { DropReason::Duplicate });
        }
        Ok(Piece { start, bytes, fin })
    }

    /// RFC 9293 §3.10.7.4, SHLD-31: out-of-order data is kept; the ACK tells the peer of the hole
    /// at once (RFC 5681 §4.2).
    #[cold]
    fn keep_out_of_order(
        &mut self,
        piece: &Piece<'_>,
        buffers: &mut impl Buffers,
    ) -> Result<(), DropReason> {
        self.set_flag(flag::ACK_NOW, true);
        if !piece.bytes.is_empty() {
            // Within the window, hence 30 bits.
            let range = Range {
                start: (piece.start - self.rcv_nxt) as u32,
                end: (piece.end() - self.rcv_nxt) as u32,
            };
            if !self.assembler.fits(range) {
                return Err(DropReason::TooManyHoles);
            }
            if !buffers.store(piece.start as u64, piece.bytes) {
                return Err(DropReason::NoMemory);
            }
            self.note_overlap(range);
            self.assembler.insert(range);
        }
        self.note_fin(piece);
        Ok(())
    }

    /// Of `range`, which arrives, something beyond the in-order edge had arrived before.
    fn note_overlap(&mut self, range: Range) {
        if let Some(known) = self.assembler.overlap(range) {
            let edge = self.rcv_nxt;
            self.note_duplicate(edge + i64::from(known.start), edge + i64::from(known.end));
        }
    }

    /// Remembers where the stream ends. The first word counts, and one that contradicts data which
    /// is here already does not.
    #[inline]
    fn note_fin(&mut self, piece: &Piece<'_>) {
        let known_end = self.rcv_nxt + i64::from(self.assembler.end());
        if piece.fin && self.rcv_fin == UNKNOWN && piece.end() >= known_end {
            self.rcv_fin = piece.end();
        }
    }

    /// Moves the in-order edge over `piece` and what it joins, and plans the ACK.
    #[inline]
    fn advance(&mut self, arrival: &Arrival<'_>, piece: &Piece<'_>, events: &mut Events) {
        let len = piece.bytes.len() as u32;
        if len == 0 {
            return;
        }
        *events |= Events::READABLE;
        if self.assembler.is_empty() {
            self.rcv_nxt += i64::from(len);
            self.schedule_ack(arrival.cfg, arrival.now, piece.bytes.len());
            return;
        }
        self.note_overlap(Range { start: 0, end: len });
        self.rcv_nxt += i64::from(self.assembler.advance(len));
        // RFC 5681 §4.2: a hole was filled, wholly or in part.
        self.set_flag(flag::ACK_NOW, true);
    }

    /// All data is here: the FIN counts (RFC 9293 §3.10.7.4, eighth check).
    fn take_fin(&mut self, arrival: &Arrival<'_>, events: &mut Events) {
        self.rcv_nxt += 1;
        self.fin_at = arrival.now;
        *events |= Events::PEER_FIN;
        match self.state() {
            State::Established => {
                self.transition(State::CloseWait);
                // The application is about to answer, with data or its own FIN: the ACK rides.
                if self.ack_at == NEVER {
                    self.ack_at = arrival.now + arrival.cfg.delayed_ack;
                }
            }
            State::FinWait1 => {
                self.transition(State::Closing);
                self.set_flag(flag::ACK_NOW, true);
            }
            State::FinWait2 => {
                self.set_flag(flag::ACK_NOW, true);
                *events |= self.enter_time_wait(arrival.cfg, arrival.now);
            }
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => unreachable!("no data is taken in {}", self.state()),
        }
    }
}

/// Position of the first data byte: a SYN comes before it.
fn data_start(arrival: &Arrival<'_>) -> i64 {
    arrival.start + i64::from(arrival.segment.flags.contains(Flags::SYN))
}
