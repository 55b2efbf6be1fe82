//! SYN_RCVD: a small record until the handshake's last ACK comes.

use fourwave_tcp::{Nanos, Passive, SeqNum, timestamp};
use fourwave_wire::{
    Flags, FourTuple, FrameHead, IcmpKind, IcmpQuote, Link, Options, Segment, TcpFrame, Timestamps,
};

use crate::arena::{Arena, Record};
use crate::config::SynCookies;
use crate::counters::Dropped;
use crate::host::{Host, ListenerId};
use crate::list::{Links, Nodes};
use crate::passive::{Handshake, Opened};
use crate::segment::overlaps;
use crate::shard::Shard;
use crate::table::{Flow, Ref};
use crate::timewait::Takeover;
use crate::wheel::Timer;

/// Repeated answers to one peer are at least this far apart, microseconds (500 ms, as Linux).
const REPEAT_MICROS: u32 = 500_000;

const TIMESTAMPS: u8 = 1;
const SCALED: u8 = 2;
const PEER_MSS: u8 = 4;
/// The SYN-ACK went out more than once, so its ACK says nothing about the round trip.
const RESENT: u8 = 8;
/// `repeated` holds a time.
const REPEATED: u8 = 16;
const SACK_PERMITTED: u8 = 32;
/// Explicit congestion notification was asked for and granted.
const ECN: u8 = 64;

/// A handshake under way. Times are the low 32 bits of microseconds; a record lives about a minute.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Request {
    pub(crate) tuple: FourTuple,
    link: u32,
    generation: u32,
    pub(crate) listener: ListenerId,
    pub(crate) timer: Timer,
    queue: Links,
    iss: u32,
    irs: u32,
    ts_offset: u32,
    /// The peer's newest timestamp.
    ts_recent: u32,
    /// When the SYN-ACK was first sent.
    sent: u32,
    /// When a stray segment was last answered.
    repeated: u32,
    epoch: u32,
    route: Link,
    mss: u16,
    peer_mss: u16,
    peer_window: u16,
    peer_scale: u8,
    flags: u8,
    /// How often the SYN-ACK's time ran out. It was sent again each time, but for what its
    /// listener defers.
    timeouts: u8,
    /// The last ACK has come and was not taken: it brought no data and the listener waits for
    /// some, or the accept queue was full.
    acked: bool,
}

const _: () = assert!(size_of::<Request>() <= 128);

/// Which list: a listener's requests, oldest first.
pub(crate) struct Requests;

impl Nodes<Requests> for Arena<Request> {
    fn links(&mut self, id: u32) -> &mut Links {
        &mut self[id].queue
    }
}

impl Record for Request {
    fn link(&self) -> u32 {
        self.link
    }
    fn set_link(&mut self, link: u32) {
        self.link = link;
    }
    fn generation(&self) -> u32 {
        self.generation
    }
    fn set_generation(&mut self, generation: u32) {
        self.generation = generation;
    }
}

/// What a segment means to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    Ignore,
    /// The peer has not seen the SYN-ACK.
    Repeat,
    /// Out of place: say where we are.
    Acknowledge,
    /// It acknowledges what was never sent.
    Reset,
    /// The peer takes its SYN back.
    Forget,
    /// The handshake is complete.
    Complete,
}

/// What becomes of a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Record,
    Cookie,
    Drop,
}

impl Request {
    /// Whether its SYN-ACK has not timed out yet.
    pub(crate) fn is_young(&self) -> bool {
        self.timeouts == 0
    }

    /// How often its SYN-ACK was sent again.
    pub(crate) fn retransmits(&self) -> u8 {
        if self.flags & RESENT == 0 { 0 } else { self.timeouts }
    }

    /// What the peer's SYN offered, of the options that were taken up.
    fn peer_options(&self) -> Options {
        let has = |flag| self.flags & flag != 0;
        Options {
            mss: has(PEER_MSS).then_some(self.peer_mss),
            window_scale: has(SCALED).then_some(self.peer_scale),
            sack_permitted: has(SACK_PERMITTED),
            timestamps: has(TIMESTAMPS).then_some(Timestamps { value: self.ts_recent, echo: 0 }),
            ..Options::default()
        }
    }

    fn passive(&self, now: Nanos) -> Passive {
        let peer = self.peer_options();
        let rtt = micros(now).wrapping_sub(self.sent);
        Passive {
            iss: self.iss,
            irs: self.irs,
            is_v4: self.tuple.is_v4(),
            mss: self.mss,
            peer_mss: peer.mss,
            peer_window_scale: peer.window_scale,
            peer_timestamp: peer.timestamps.map(|times| times.value),
            sack_permitted: peer.sack_permitted,
            ecn: self.flags & ECN != 0,
            ts_offset: self.ts_offset,
            peer_window: self.peer_window,
            // An ACK that was not taken had the time of the round trip; this one has not.
            rtt: (self.flags & RESENT == 0 && !self.acked).then_some(Nanos::from(rtt) * 1_000),
            syn_retransmits: self.retransmits(),
        }
    }

    /// RFC 9293 §3.10.7.4 for SYN-RECEIVED, with RFC 5961's stricter RST and SYN.
    fn judge(&self, segment: &Segment<'_>, window: u32) -> Verdict {
        let flags = segment.flags;
        if flags.contains(Flags::SYN)
            && !flags.intersects(Flags::ACK.union(Flags::RST).union(Flags::FIN))
            && segment.seq == self.irs
        {
            return Verdict::Repeat;
        }
        let reset = flags.contains(Flags::RST);
        // RFC 7323 §5.3; a RST is not judged by its timestamp. An ACK without timestamps is taken
        // though they were negotiated: some peers send the handshake's last one so.
        let stale = segment
            .options
            .timestamps
            .filter(|_| self.flags & TIMESTAMPS != 0 && !reset)
            .is_some_and(|times| SeqNum(times.value).before(SeqNum(self.ts_recent)));
        let next = self.irs.wrapping_add(1);
        if stale || !overlaps(segment, next, window) {
            return if reset { Verdict::Ignore } else { Verdict::Acknowledge };
        }
        if reset {
            // RFC 5961 §3.2: only the very next sequence number resets.
            return if segment.seq == next { Verdict::Forget } else { Verdict::Acknowledge };
        }
        if flags.contains(Flags::SYN) {
            // RFC 5961 §4.2: if the peer has started anew it answers this with a RST.
            return Verdict::Acknowledge;
        }
        if !flags.contains(Flags::ACK) {
            return Verdict::Ignore;
        }
        if segment.ack != self.iss.wrapping_add(1) {
            return Verdict::Reset;
        }
        Verdict::Complete
    }
}

impl Shard {
    /// Takes up a SYN that a listener is there for. `takeover` names the TIME_WAIT record whose
    /// four-tuple it has.
    pub(crate) fn handle_syn(
        &mut self,
        now: Nanos,
        frame: &TcpFrame<'_>,
        hash: u64,
        id: ListenerId,
        takeover: Option<Takeover>,
        host: &mut impl Host,
    ) {
        match self.admit_syn(now, id, frame, takeover.is_some()) {
            Admission::Drop => {
                self.counters.listen_drops += 1;
                return;
            }
            Admission::Cookie => return self.send_cookie(now, frame, id, host),
            Admission::Record => {}
        }
        let request = self.new_request(now, frame, id, takeover.map(|old| old.iss), host);
        let records = &mut self.flows.records;
        let Some(index) = records.requests.insert(request) else {
            self.listeners.get(id).shared.release_syn(true);
            self.counters.syn_records_full += 1;
            // While the TIME_WAIT record stays, a cookie could not be returned.
            if takeover.is_none() && self.config.syncookies != SynCookies::Off {
                self.send_cookie(now, frame, id, host);
            } else {
                self.keep(now, Dropped::SynRecordsFull, frame);
                self.counters.listen_drops += 1;
            }
            return;
        };
        self.listeners.get(id).requests.push_back(&mut records.requests, index);
        match takeover {
            Some(old) => {
                self.counters.time_wait_takeovers += 1;
                self.flows.replace(hash, Flow::TimeWait(old.index), Flow::Request(index));
                self.release_time_wait(old.index);
            }
            None => self.flows.insert(hash, Flow::Request(index), frame.tuple.local.port),
        }
        self.arm_request(now, index);
        // To where the SYN came from, at once: the next hop may still have to be resolved.
        self.send_syn_ack(now, index, frame.link.reply(), host);
    }

    /// What a SYN gets: for a record its place in the SYN queue is claimed. A SYN that takes a
    /// TIME_WAIT record over comes from a real peer and needs no place (as Linux).
    fn admit_syn(
        &mut self,
        now: Nanos,
        id: ListenerId,
        frame: &TcpFrame<'_>,
        takeover: bool,
    ) -> Admission {
        let shared = &self.listeners.get(id).shared;
        let admission = match self.config.syncookies {
            SynCookies::Off | SynCookies::OnOverflow | SynCookies::Always if takeover => {
                shared.force_syn();
                Admission::Record
            }
            SynCookies::Always => Admission::Cookie,
            SynCookies::OnOverflow | SynCookies::Off if shared.claim_syn() => Admission::Record,
            SynCookies::OnOverflow => Admission::Cookie,
            SynCookies::Off => {
                self.dropped(now, Dropped::SynQueueFull, frame);
                return Admission::Drop;
            }
        };
        if admission == Admission::Cookie {
            self.counters.syn_queue_full_cookies += 1;
        }
        if shared.accept_queue_is_full() {
            if admission == Admission::Record {
                shared.release_syn(true);
            }
            self.dropped(now, Dropped::ListenOverflows, frame);
            return Admission::Drop;
        }
        if self.config.syncookies == SynCookies::Off
            && !takeover
            && shared.syn_len() > self.config.syn_backlog_for_all()
            && !self.proven.contains(&self.keys, &frame.tuple.remote.addr)
        {
            shared.release_syn(true);
            self.dropped(now, Dropped::SynPeerNotProven, frame);
            return Admission::Drop;
        }
        admission
    }

    /// A segment for a request.
    pub(crate) fn handle_request(
        &mut self,
        now: Nanos,
        index: u32,
        frame: &TcpFrame<'_>,
        hash: u64,
        host: &mut impl Host,
    ) {
        let request = &self.flows.records.requests[index];
        let settings = &self.listeners.get(request.listener).settings;
        let window = u32::from(settings.syn_window(&self.config.tcp));
        match request.judge(&frame.segment, window) {
            Verdict::Ignore => self.dropped(now, Dropped::RequestIgnored, frame),
            Verdict::Repeat => {
                if self.may_repeat(now, index) {
                    self.flows.records.requests[index].flags |= RESENT;
                    self.arm_request(now, index);
                    self.send_syn_ack(now, index, frame.link.reply(), host);
                }
            }
            Verdict::Acknowledge => {
                if self.may_repeat(now, index) {
                    self.dropped(now, Dropped::RequestOutOfPlace, frame);
                    self.acknowledge_request(now, index, frame.link.reply(), host);
                }
            }
            Verdict::Reset => {
                self.dropped(now, Dropped::RequestBadAck, frame);
                self.send_reset(now, frame, host);
            }
            Verdict::Forget => {
                self.counters.attempt_fails += 1;
                self.dropped(now, Dropped::EmbryonicRsts, frame);
                self.drop_request(index);
            }
            Verdict::Complete if self.is_deferred(index, &frame.segment) => {
                self.flows.records.requests[index].acked = true;
                self.dropped(now, Dropped::DeferAcceptDrop, frame);
            }
            Verdict::Complete => self.complete(now, index, frame, hash, host),
        }
    }

    /// Whether a segment that would complete a handshake does not, because its listener waits for
    /// data.
    fn is_deferred(&mut self, index: u32, segment: &Segment<'_>) -> bool {
        let request = &self.flows.records.requests[index];
        let shared = &self.listeners.get(request.listener).shared;
        segment.sequence_len() == 0
            && segment.seq == request.irs.wrapping_add(1)
            && request.timeouts < shared.defer_timeouts(&self.config.tcp)
    }

    /// An ICMP error about our SYN-ACK. RFC 5927 §4.1: it must quote what was sent.
    pub(crate) fn handle_request_icmp(&mut self, now: Nanos, index: u32, quote: &IcmpQuote) {
        if quote.seq != self.flows.records.requests[index].iss {
            self.dropped(now, Dropped::IcmpOutOfWindow, quote.tuple);
            return;
        }
        match quote.kind {
            IcmpKind::NetUnreachable
            | IcmpKind::HostUnreachable
            | IcmpKind::TimeExceeded
            | IcmpKind::ParameterProblem => {
                self.counters.attempt_fails += 1;
                self.dropped(now, Dropped::RequestUnreachable, quote.tuple);
                self.drop_request(index);
            }
            // As Linux: these leave a handshake alone.
            IcmpKind::ProtocolUnreachable
            | IcmpKind::PortUnreachable
            | IcmpKind::Prohibited
            | IcmpKind::PacketTooBig { .. } => {
                self.dropped(now, Dropped::IcmpLeftAlone, quote.tuple);
            }
        }
    }

    /// The SYN-ACK has not been answered in time, or not with the data that its listener waits
    /// for (as Linux, `syn_ack_recalc`).
    pub(crate) fn handle_request_timer(&mut self, now: Nanos, index: u32, host: &mut impl Host) {
        let tcp = &self.config.tcp;
        let request = &mut self.flows.records.requests[index];
        let shared = &self.listeners.get(request.listener).shared;
        let deferred = shared.defer_timeouts(tcp);
        let waits_for_data = request.acked && request.timeouts < deferred;
        if request.timeouts >= shared.syn_ack_retries(tcp.synack_retries) && !waits_for_data {
            let tuple = request.tuple;
            self.counters.attempt_fails += 1;
            self.dropped(now, Dropped::SynAckTimeouts, tuple);
            self.drop_request(index);
            return;
        }
        // A peer that has the SYN-ACK is left in peace, until one more makes it send its ACK again:
        // then that is enough, data or not.
        let resend = !waits_for_data || request.timeouts + 1 == deferred;
        if request.is_young() {
            shared.age_syn();
        }
        request.timeouts += 1;
        let route = request.route;
        self.arm_request(now, index);
        if resend {
            self.flows.records.requests[index].flags |= RESENT;
            self.counters.retrans_segs += 1;
            self.send_syn_ack(now, index, route, host);
        }
    }

    /// Frees a request and its place in the SYN queue.
    pub(crate) fn drop_request(&mut self, index: u32) {
        let request = &self.flows.records.requests[index];
        let (hash, port) = (self.keys.flow_hash(&request.tuple), request.tuple.local.port);
        self.flows.remove(hash, Flow::Request(index), port);
        self.release_request(index);
    }

    /// Frees a request that is in the flow table no more.
    fn release_request(&mut self, index: u32) {
        let id = Ref::from(Flow::Request(index)).raw();
        self.wheel.cancel(&mut self.flows.records, id);
        let requests = &mut self.flows.records.requests;
        let listener = requests[index].listener;
        self.listeners.forget_request(listener, requests, index);
        requests.remove(index);
    }

    fn new_request(
        &mut self,
        now: Nanos,
        frame: &TcpFrame<'_>,
        listener: ListenerId,
        iss: Option<u32>,
        host: &mut impl Host,
    ) -> Request {
        let tuple = frame.tuple;
        let initial = self.keys.initial(&tuple, now);
        let settings = self.listeners.get(listener).settings;
        let way = self.way_back(frame, &settings, host);
        let peer = &frame.segment.options;
        let times = peer.timestamps.filter(|_| self.config.tcp.timestamps);
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        Request {
            tuple,
            link: 0,
            generation: 0,
            listener,
            timer: Timer::IDLE,
            queue: Links::APART,
            iss: iss.unwrap_or(initial.sequence),
            irs: frame.segment.seq,
            ts_offset: initial.ts_offset,
            ts_recent: times.map_or(0, |times| times.value),
            sent: micros(now),
            repeated: 0,
            epoch: host.path_epoch(),
            route: way.link,
            mss: way.mss,
            peer_mss: peer.mss.unwrap_or(0),
            peer_window: frame.segment.window,
            peer_scale: peer.window_scale.unwrap_or(0),
            flags: flag(times.is_some(), TIMESTAMPS)
                | flag(peer.window_scale.is_some() && self.config.tcp.window_scaling, SCALED)
                | flag(peer.sack_permitted && self.config.tcp.sack, SACK_PERMITTED)
                | flag(peer.mss.is_some(), PEER_MSS)
                | flag(self.grants_ecn(frame), ECN),
            timeouts: 0,
            acked: false,
        }
    }

    /// Whether a SYN gets the explicit congestion notification that it asks for (RFC 3168 §6.1.1).
    pub(crate) fn grants_ecn(&self, frame: &TcpFrame<'_>) -> bool {
        self.config.tcp.ecn.grants(frame.segment.flags, frame.tos)
    }

    /// 1, 2, 4, … s after what was sent last.
    fn arm_request(&mut self, now: Nanos, index: u32) {
        let tcp = &self.config.tcp;
        let backoff = self.flows.records.requests[index].timeouts.min(32);
        let wait = (tcp.rto_initial << backoff).min(tcp.rto_max);
        let tick = self.tick_at(now + wait);
        let id = Ref::from(Flow::Request(index)).raw();
        self.wheel.arm(&mut self.flows.records, id, tick);
    }

    /// Whether a stray segment may be answered yet.
    fn may_repeat(&mut self, now: Nanos, index: u32) -> bool {
        let request = &mut self.flows.records.requests[index];
        let micros = micros(now);
        if request.flags & REPEATED != 0 && micros.wrapping_sub(request.repeated) < REPEAT_MICROS {
            let tuple = request.tuple;
            self.dropped(now, Dropped::AckSkippedSynRecv, tuple);
            return false;
        }
        request.flags |= REPEATED;
        request.repeated = micros;
        true
    }

    fn send_syn_ack(&mut self, now: Nanos, index: u32, link: Link, host: &mut impl Host) {
        let request = &self.flows.records.requests[index];
        let settings = &self.listeners.get(request.listener).settings;
        let tcp = &self.config.tcp;
        let value = timestamp(now, request.ts_offset);
        let echo = if request.flags & ECN != 0 { Flags::ECE } else { Flags::EMPTY };
        let head = FrameHead {
            link,
            tuple: request.tuple,
            tos: settings.ip_tos(request.tuple.is_v4()),
            ttl: settings.ip_ttl(request.tuple.is_v4(), &self.config.tcp),
            seq: request.iss,
            ack: request.irs.wrapping_add(1),
            flags: Flags::SYN | Flags::ACK | echo,
            window: settings.syn_window(tcp),
            options: tcp.syn_ack_options(request.mss, &request.peer_options(), value),
            ..FrameHead::default()
        };
        self.emit(now, &head, host);
    }

    fn acknowledge_request(&mut self, now: Nanos, index: u32, link: Link, host: &mut impl Host) {
        let request = &self.flows.records.requests[index];
        let timestamps = (request.flags & TIMESTAMPS != 0).then(|| Timestamps {
            value: timestamp(now, request.ts_offset),
            echo: request.ts_recent,
        });
        let settings = &self.listeners.get(request.listener).settings;
        let shift = match request.flags & SCALED {
            0 => 0,
            _ => self.config.tcp.window_scale,
        };
        let head = FrameHead {
            link,
            tuple: request.tuple,
            tos: settings.ip_tos(request.tuple.is_v4()),
            ttl: settings.ip_ttl(request.tuple.is_v4(), &self.config.tcp),
            seq: request.iss.wrapping_add(1),
            ack: request.irs.wrapping_add(1),
            flags: Flags::ACK,
            window: settings.syn_window(&self.config.tcp) >> shift,
            options: Options { timestamps, ..Options::default() },
            ..FrameHead::default()
        };
        self.emit(now, &head, host);
    }

    /// The last ACK of a handshake: a full control block, a place on the accept queue, and what
    /// the segment brought besides.
    fn complete(
        &mut self,
        now: Nanos,
        index: u32,
        frame: &TcpFrame<'_>,
        hash: u64,
        host: &mut impl Host,
    ) {
        let request = &self.flows.records.requests[index];
        let handshake = Handshake {
            tuple: request.tuple,
            listener: request.listener,
            route: request.route,
            epoch: request.epoch,
            passive: request.passive(now),
        };
        match self.open_passive(now, &handshake, hash, host) {
            Opened::Conn(conn) => {
                self.flows.replace(hash, Flow::Request(index), Flow::Conn(conn));
                self.release_request(index);
                self.start_passive(now, conn, handshake.listener, frame, host);
            }
            Opened::QueueFull if self.config.abort_on_overflow => {
                self.counters.attempt_fails += 1;
                self.dropped(now, Dropped::EmbryonicRsts, frame);
                self.send_reset(now, frame, host);
                self.drop_request(index);
            }
            // The request stays and its SYN-ACK is sent again in time: the peer's answer, or its
            // data, may find room then.
            Opened::QueueFull | Opened::NoRoom => {
                self.flows.records.requests[index].acked = true;
            }
        }
    }
}

/// The low 32 bits of microseconds.
fn micros(now: Nanos) -> u32 {
    (now / 1_000) as u32
}
