//! Explicit congestion notification (RFC 3168): routers mark packets instead of dropping them, the
//! receiver of a mark echoes it, and the sender reacts as to a loss, once a window.
//!
//! Only new data is marked as able to be marked: a mark on anything else could be forged to no good
//! (RFC 3168 §6.1.4, §6.1.5), and nobody would react to it.

use fourwave_wire::Flags;

use crate::config::Ecn;
use crate::receive::Arrival;
use crate::tcb::{Tcb, flag};

/// What a SYN says that asks for it, and what a SYN-ACK says that agrees (RFC 3168 §6.1.1).
const ASKS: Flags = Flags::ECE.union(Flags::CWR);

impl Ecn {
    /// Whether a SYN with these control bits, in a packet with this `tos`, is to be granted its wish.
    pub fn grants(self, flags: Flags, tos: u8) -> bool {
        // As Linux: a SYN in a packet that can be marked is not by RFC 3168's book.
        self != Ecn::Off && flags.contains(ASKS) && tos & fourwave_wire::ECN_BITS == 0
    }
}

impl Tcb {
    /// The bits of our SYN, or of the SYN-ACK of a simultaneous open. One that is sent again does
    /// without: something on the way may drop what it does not know (RFC 3168 §6.1.1.1).
    pub(crate) fn ecn_of_syn(&self, answers: bool) -> Flags {
        match (self.has(flag::ECN), answers) {
            (true, true) => Flags::ECE,
            (true, false) if self.retries == 0 => ASKS,
            (true | false, _) => Flags::EMPTY,
        }
    }

    /// The peer's SYN or SYN-ACK.
    pub(crate) fn agree_on_ecn(&mut self, flags: Flags) {
        let agrees = if flags.contains(Flags::ACK) {
            flags.contains(Flags::ECE) && !flags.contains(Flags::CWR)
        } else {
            flags.contains(ASKS)
        };
        let on = self.has(flag::ECN) && agrees;
        self.set_flag(flag::ECN, on);
    }

    /// A segment whose data counts: whether it brings a mark, or word that our echo was heard
    /// (RFC 3168 §6.1.3).
    #[inline]
    pub(crate) fn note_mark(&mut self, arrival: &Arrival<'_>) {
        let segment = arrival.segment;
        if !self.has(flag::ECN) || segment.payload.is_empty() {
            return;
        }
        if segment.flags.contains(Flags::CWR) && self.take_flag(flag::ECHO) {
            // As Linux: its window may be a single segment now, which must not wait.
            self.set_flag(flag::ACK_NOW, true);
        }
        if segment.congested && !self.has(flag::ECHO) {
            self.set_flag(flag::ECHO | flag::ACK_NOW, true);
        }
    }

    /// Whether an acknowledgement echoes a mark.
    #[inline]
    pub(crate) fn is_echo(&self, arrival: &Arrival<'_>) -> bool {
        self.has(flag::ECN) && arrival.segment.flags.contains(Flags::ECE)
    }

    /// A mark is echoed, `flight` bytes were in the network: less is sent, once a window
    /// (RFC 3168 §6.1.2). That ends when something is acknowledged that was sent after it: until
    /// then the peer may not have heard of the reaction.
    pub(crate) fn receive_echo(&mut self, flight: u32) {
        // There was congestion, whatever becomes of the loss (RFC 4015 §3.2).
        self.set_flag(flag::UNDO | flag::EIFEL, false);
        if flight > 0 && self.snd_una > self.ecn_point && !self.recovery.is_active() {
            self.react(flight);
            self.congestion.settle();
        }
    }

    /// Whether the window has shrunk already for what is outstanding.
    pub(crate) fn has_reacted(&self) -> bool {
        self.has(flag::ECN) && self.snd_una < self.ecn_point
    }

    /// Congestion with `flight` bytes in the network: where the window will settle, and what the
    /// peer is told of it.
    pub(crate) fn react(&mut self, flight: u32) {
        // Limited transmit went beyond the window and does not count (RFC 5681 §3.2 step 2).
        let window = self.congestion.window();
        let flight = self.last_flight(flight).min(window);
        self.congestion.reduce(flight, self.payload_limit());
        self.note_reaction();
    }

    /// The window has shrunk: the next new data says so (RFC 3168 §6.1.2).
    pub(crate) fn note_reaction(&mut self) {
        if self.has(flag::ECN) {
            self.ecn_point = self.snd_max;
            self.set_flag(flag::CWR_DUE, true);
        }
    }
}
