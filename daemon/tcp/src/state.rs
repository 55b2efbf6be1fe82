//! The states of RFC 9293 §3.3.2, and which may follow which.

use core::fmt;

/// A connection's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// No connection.
    Closed = 0,
    /// Waiting for a SYN: the stack's, never a `Tcb`'s.
    Listen = 1,
    /// SYN sent.
    SynSent = 2,
    /// SYN sent and received, ours not acknowledged yet.
    SynReceived = 3,
    /// Data flows both ways.
    Established = 4,
    /// Our FIN is on its way or queued.
    FinWait1 = 5,
    /// Our FIN is acknowledged, the peer's has not come.
    FinWait2 = 6,
    /// The peer's FIN came, ours is not asked for yet.
    CloseWait = 7,
    /// Both FINs crossed, ours is not acknowledged.
    Closing = 8,
    /// The peer's FIN came first, ours is on its way or queued.
    LastAck = 9,
    /// Over; old duplicates may still be about.
    TimeWait = 10,
}

/// Every transition there is, in state order. A passive open passes through LISTEN and SYN_RCVD as
/// the stack's records; FIN_WAIT_1 with an ACK of our FIN passes through FIN_WAIT_2 within one
/// segment.
pub const TRANSITIONS: &[(State, State)] = &[
    (State::Closed, State::Listen),
    (State::Closed, State::SynSent),
    (State::Listen, State::SynReceived),
    (State::Listen, State::Closed),
    (State::SynSent, State::SynReceived),
    (State::SynSent, State::Established),
    (State::SynSent, State::Closed),
    (State::SynReceived, State::Established),
    (State::SynReceived, State::Closed),
    (State::Established, State::FinWait1),
    (State::Established, State::CloseWait),
    (State::Established, State::Closed),
    (State::FinWait1, State::FinWait2),
    (State::FinWait1, State::Closing),
    (State::FinWait1, State::Closed),
    (State::FinWait2, State::TimeWait),
    (State::FinWait2, State::Closed),
    (State::CloseWait, State::LastAck),
    (State::CloseWait, State::Closed),
    (State::Closing, State::TimeWait),
    (State::Closing, State::Closed),
    (State::LastAck, State::Closed),
    (State::TimeWait, State::Closed),
];

impl State {
    /// Every state, by its byte.
    pub const ALL: [State; 11] = [
        State::Closed,
        State::Listen,
        State::SynSent,
        State::SynReceived,
        State::Established,
        State::FinWait1,
        State::FinWait2,
        State::CloseWait,
        State::Closing,
        State::LastAck,
        State::TimeWait,
    ];

    /// The state that a record's byte stands for; `None` for a byte that is none.
    #[inline]
    pub const fn from_byte(byte: u8) -> Option<State> {
        // Written out, it is a comparison and no look-up.
        Some(match byte {
            0 => State::Closed,
            1 => State::Listen,
            2 => State::SynSent,
            3 => State::SynReceived,
            4 => State::Established,
            5 => State::FinWait1,
            6 => State::FinWait2,
            7 => State::CloseWait,
            8 => State::Closing,
            9 => State::LastAck,
            10 => State::TimeWait,
            _ => return None,
        })
    }

    /// Whether `next` may follow.
    #[inline]
    pub const fn may_become(self, next: State) -> bool {
        SUCCESSORS[self as usize] & (1 << next as u16) != 0
    }

    /// Whether both SYNs are acknowledged: data can flow, or could.
    #[inline]
    pub const fn is_synchronized(self) -> bool {
        !matches!(self, State::Closed | State::Listen | State::SynSent | State::SynReceived)
    }

    /// Whether queued data and our FIN may (still) need sending.
    #[inline]
    pub(crate) const fn may_send(self) -> bool {
        matches!(
            self,
            State::Established
                | State::CloseWait
                | State::FinWait1
                | State::Closing
                | State::LastAck
        )
    }

    /// Whether the peer has not finished sending.
    #[inline]
    pub(crate) const fn may_receive(self) -> bool {
        matches!(self, State::Established | State::FinWait1 | State::FinWait2)
    }

    /// The name that `ss` and RFC 9293 use.
    pub const fn name(self) -> &'static str {
        match self {
            State::Closed => "CLOSED",
            State::Listen => "LISTEN",
            State::SynSent => "SYN-SENT",
            State::SynReceived => "SYN-RECEIVED",
            State::Established => "ESTABLISHED",
            State::FinWait1 => "FIN-WAIT-1",
            State::FinWait2 => "FIN-WAIT-2",
            State::CloseWait => "CLOSE-WAIT",
            State::Closing => "CLOSING",
            State::LastAck => "LAST-ACK",
            State::TimeWait => "TIME-WAIT",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// [`TRANSITIONS`] as one bit set a state.
const SUCCESSORS: [u16; State::ALL.len()] = {
    let mut sets = [0; State::ALL.len()];
    let mut i = 0;
    while i < TRANSITIONS.len() {
        let (from, to) = TRANSITIONS[i];
        sets[from as usize] |= 1 << to as u16;
        i += 1;
    }
    sets
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn bytes_and_states_match() {
        for state in State::ALL {
            assert_eq!(State::from_byte(state as u8), Some(state));
        }
        assert_eq!(State::from_byte(11), None);
    }

    #[test]
    fn the_table_reads_as_drawn() {
        let mut drawn = String::new();
        for from in State::ALL {
            write!(drawn, "{from}:").unwrap();
            for to in State::ALL.into_iter().filter(|to| from.may_become(*to)) {
                write!(drawn, " {to}").unwrap();
            }
            drawn.push('\n');
        }
        assert_eq!(
            drawn,
            "CLOSED: LISTEN SYN-SENT\n\
             LISTEN: CLOSED SYN-RECEIVED\n\
             SYN-SENT: CLOSED SYN-RECEIVED ESTABLISHED\n\
             SYN-RECEIVED: CLOSED ESTABLISHED\n\
             ESTABLISHED: CLOSED FIN-WAIT-1 CLOSE-WAIT\n\
             FIN-WAIT-1: CLOSED FIN-WAIT-2 CLOSING\n\
             FIN-WAIT-2: CLOSED TIME-WAIT\n\
             CLOSE-WAIT: CLOSED LAST-ACK\n\
             CLOSING: CLOSED TIME-WAIT\n\
             LAST-ACK: CLOSED\n\
             TIME-WAIT: CLOSED\n"
        );
    }
}
