//! The way in: from a frame to the record it concerns.

use fourwave_tcp::{DropReason, Nanos, State, believed_mtu};
use fourwave_wire::{
    ECN_BITS, ECN_ECT_0, Flags, IcmpKind, IcmpQuote, Inbound, Segment, TcpFrame, parse,
};

use crate::counters::Dropped;
use crate::drops::Sample;
use crate::host::{Host, Stream};
use crate::shard::Shard;
use crate::table::Flow;

impl Shard {
    /// Takes one received frame. Answers that no connection stands behind (SYN-ACK, RST, ACK in
    /// TIME_WAIT) are written at once; connections send in [`Shard::flush`]. Nothing that a frame
    /// holds is an error: what is wrong with it is counted.
    pub fn handle_frame(&mut self, now: Nanos, frame: &[u8], host: &mut impl Host) {
        match &parse(frame, self.config.checksum) {
            Ok(Inbound::Tcp(frame)) => {
                self.counters.in_segs += 1;
                self.counters.in_ect_0 += u64::from(frame.tos & ECN_BITS == ECN_ECT_0);
                self.counters.in_ce += u64::from(frame.segment.congested);
                self.handle_tcp(now, frame, host);
            }
            Ok(Inbound::IcmpError(quote)) => self.handle_icmp(now, quote, host),
            Err(error) => self.refuse_frame(now, frame, *error),
        }
    }

    fn handle_tcp(&mut self, now: Nanos, frame: &TcpFrame<'_>, host: &mut impl Host) {
        let hash = self.keys.flow_hash(&frame.tuple);
        let mut flow = self.flows.find(hash, &frame.tuple);
        if let Some(Flow::Conn(index)) = flow
            && self.is_over(index)
        {
            // Its end waits for the next flush, but the segment may already be the next
            // connection's.
            self.transmit(now, index, host);
            flow = self.flows.find(hash, &frame.tuple);
        }
        match flow {
            Some(Flow::Conn(index)) => self.handle_conn(now, index, frame, host),
            Some(Flow::Request(index)) => self.handle_request(now, index, frame, hash, host),
            Some(Flow::TimeWait(index)) => self.handle_time_wait(now, index, frame, hash, host),
            None => self.handle_unknown(now, frame, hash, host),
        }
    }

    fn is_over(&self, index: u32) -> bool {
        matches!(self.flows.records.conns[index].tcb.state(), State::TimeWait | State::Closed)
    }

    fn handle_conn(&mut self, now: Nanos, index: u32, frame: &TcpFrame<'_>, host: &mut impl Host) {
        self.deliver(now, index, &frame.segment, host);
        self.mark_dirty(index);
    }

    /// Gives a segment to its connection and tells the host what came of it.
    pub(crate) fn deliver(
        &mut self,
        now: Nanos,
        index: u32,
        segment: &Segment<'_>,
        host: &mut impl Host,
    ) {
        let conn = &mut self.flows.records.conns[index];
        let mut stream = Stream { host, app: conn.app };
        let reaction = conn.tcb.handle_segment(&self.config.tcp, now, segment, &mut stream);
        if reaction.drop.is_some() && conn.tcb.take_challenge() {
            self.limit_challenge(now, index, host);
        }
        if let Some(reason) = reaction.drop {
            let tuple = self.flows.records.conns[index].tuple;
            if reason == DropReason::OrphanData {
                self.counters.abort_on_data += 1;
            }
            self.drop_segment(now, reason, Sample::of(tuple, segment));
        }
        self.report(now, index, reaction.events, host);
    }

    /// A challenge ACK is due: counted, or taken back if there have been too many.
    fn limit_challenge(&mut self, now: Nanos, index: u32, host: &mut impl Host) {
        let allowed = match self.config.challenge_ack_limit {
            Some(limit) => self.challenges.allow(now, limit, || host.random()),
            None => true,
        };
        if allowed {
            self.counters.challenge_acks += 1;
        } else {
            let conn = &mut self.flows.records.conns[index];
            conn.tcb.withdraw_challenge();
            let tuple = conn.tuple;
            self.dropped(now, Dropped::ChallengeAcksLimited, tuple);
        }
    }

    /// RFC 9293 §3.10.7.1 and §3.10.7.2: CLOSED and LISTEN.
    fn handle_unknown(
        &mut self,
        now: Nanos,
        frame: &TcpFrame<'_>,
        hash: u64,
        host: &mut impl Host,
    ) {
        if !host.is_local(frame.tuple.local.addr) {
            self.dropped(now, Dropped::ForeignAddress, frame);
            return;
        }
        let flags = frame.segment.flags;
        if flags.contains(Flags::RST) {
            self.dropped(now, Dropped::NoConnectionIgnored, frame);
            return;
        }
        let listener = self.listeners.find(&frame.tuple.local, hash);
        if flags.contains(Flags::ACK) {
            let taken = !flags.contains(Flags::SYN)
                && listener.is_some_and(|id| self.handle_cookie(now, frame, hash, id, host));
            if !taken {
                self.dropped(now, Dropped::NoConnection, frame);
                self.send_reset(now, frame, host);
            }
            return;
        }
        match listener.filter(|_| !self.draining) {
            None => {
                self.dropped(now, Dropped::NoConnection, frame);
                self.send_reset(now, frame, host);
            }
            // As Linux: a SYN with a FIN opens nothing.
            Some(_) if !flags.contains(Flags::SYN) || flags.contains(Flags::FIN) => {
                self.dropped(now, Dropped::NoConnectionIgnored, frame);
            }
            Some(id) => self.handle_syn(now, frame, hash, id, None, host),
        }
    }

    fn handle_icmp(&mut self, now: Nanos, quote: &IcmpQuote, host: &mut impl Host) {
        let hash = self.keys.flow_hash(&quote.tuple);
        match self.flows.find(hash, &quote.tuple) {
            Some(Flow::Conn(index)) => {
                let tcb = &mut self.flows.records.conns[index].tcb;
                let mss = tcb.mss();
                let reaction = tcb.handle_icmp(&self.config.tcp, now, quote.seq, quote.kind);
                let shrank = tcb.mss() < mss;
                if let IcmpKind::PacketTooBig { mtu } = quote.kind
                    && shrank
                {
                    let peer = quote.tuple.remote.addr;
                    self.learn_path_mtu(now, peer, believed_mtu(mtu, peer.is_v4()));
                }
                if let Some(reason) = reaction.drop {
                    self.counters.icmp_out_of_window += 1;
                    let what = Sample { seq: quote.seq, ..Sample::from(quote.tuple) };
                    self.drop_segment(now, reason, what);
                }
                self.report(now, index, reaction.events, host);
                self.mark_dirty(index);
            }
            Some(Flow::Request(index)) => self.handle_request_icmp(now, index, quote),
            Some(Flow::TimeWait(_)) | None => {
                self.dropped(now, Dropped::IcmpNoConnection, quote.tuple);
            }
        }
    }
}
