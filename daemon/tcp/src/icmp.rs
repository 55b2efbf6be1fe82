//! ICMP errors about our segments (RFC 9293 §3.9.2.2, RFC 5927, RFC 1191, RFC 8201).

use fourwave_wire::{IcmpKind, max_payload};

use crate::config::{Config, Nanos};
use crate::reaction::{DropReason, Error, Events, Reaction};
use crate::state::State;
use crate::tcb::{MIN_MSS, Tcb, flag};

/// Smaller claims are not believed: Linux's `min_pmtu`, and IPv6's minimum (RFC 8201 §4).
const MIN_PATH_MTU_V4: u32 = 552;
const MIN_PATH_MTU_V6: u32 = 1280;
/// For routers that do not say (RFC 1191 §7.1): what nearly every link takes.
const PATH_MTU_UNTOLD: u32 = 576;

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
                self.shrink_to(cfg, now, mtu);
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

    /// The path takes packets of `mtu` bytes. That is no sign of congestion: the window stays.
    fn shrink_to(&mut self, cfg: &Config, now: Nanos, mtu: u32) {
        let v4 = self.has(flag::V4);
        let least = if v4 { MIN_PATH_MTU_V4 } else { MIN_PATH_MTU_V6 };
        let mtu = if mtu == 0 { PATH_MTU_UNTOLD } else { mtu }.max(least);
        let mss = max_payload(u16::try_from(mtu).unwrap_or(u16::MAX), v4, 0).max(MIN_MSS);
        if mss >= self.mss {
            return;
        }
        self.mss = mss;
        if self.state().is_synchronized() {
            self.rtt.cancel();
            self.recovery.give_way(self.snd_max);
            self.rack.give_way();
            self.snd_nxt = self.snd_una;
            self.set_flag(flag::RESEND, true);
            self.restart_rtx(cfg, now);
        }
    }
}
