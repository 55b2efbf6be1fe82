//! ICMP errors about our segments (RFC 9293 §3.9.2.2, RFC 5927, RFC 1191, RFC 8201).

use fourwave_wire::IcmpKind;

use crate::config::{Config, Nanos};
use crate::pmtu::believed_mtu;
use crate::reaction::{DropReason, Error, Events, Reaction};
use crate::state::State;
use crate::tcb::{Tcb, flag};

impl Tcb {
    /// The network complains about our segment with sequence number `seq`.
    ///
    /// While connecting, "unreachable" ends the attempt; afterwards it only explains a timeout that
    /// may follow. "Too big" makes segments smaller and sends what is in flight again.
    pub fn handle_icmp(&mut self, cfg: &Config, now: Nanos, seq: u32, kind: IcmpKind) -> Reaction {
        // RFC 5927 §4.1: who cannot see the connection cannot guess this.
        let position = self.snd_position(seq);
        if !(self.snd_una..self.snd_max).contains(&position) {
            return Reaction { events: Events::NONE, drop: Some(DropReason::IcmpOutOfWindow) };
        }
        let error = match kind {
            IcmpKind::PacketTooBig { mtu } => {
                let mtu = believed_mtu(mtu, self.has(flag::V4));
                // Routers cannot make segments larger.
                if fourwave_wire::max_payload(mtu, self.has(flag::V4), 0) < self.mss {
                    self.set_path_mtu(cfg, now, mtu);
                }
                return Reaction::default();
            }
            IcmpKind::PortUnreachable => Error::Refused,
            IcmpKind::ProtocolUnreachable => Error::ProtocolUnreachable,
            IcmpKind::NetUnreachable => Error::NetUnreachable,
            IcmpKind::HostUnreachable | IcmpKind::Prohibited | IcmpKind::TimeExceeded => {
                Error::HostUnreachable
            }
            IcmpKind::ParameterProblem => Error::Protocol,
        };
        match self.state() {
            State::SynSent | State::SynReceived => {
                let refused = error == Error::Refused;
                let event = if refused { Events::REFUSED } else { Events::UNREACHABLE };
                self.finish(Some(error), event).into()
            }
            State::Closed
            | State::Listen
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => {
                // RFC 5927 §5.2: hard errors are soft on a connection that works.
                self.soft_error = error as u8;
                Reaction::default()
            }
        }
    }
}
