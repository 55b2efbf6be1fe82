//! TIME_WAIT, and FIN_WAIT_2 of a connection that nobody holds any more: small records.

use fourwave_tcp::{Nanos, SeqNum, State, timestamp};
use fourwave_wire::{
    Addr, Flags, FourTuple, FrameHead, Link, Options, Segment, TcpFrame, Timestamps,
};

use crate::arena::Record;
use crate::config::Config;
use crate::counters::Dropped;
use crate::host::Host;
use crate::segment::overlaps;
use crate::shard::Shard;
use crate::table::{Flow, Ref};
use crate::wheel::{TICK_NANOS, Timer};

/// `acked` counts in units of four ticks: 4 ms, going round in 262 s.
const STAMP_SHIFT: u32 = 2;
/// Answers to old duplicates are at least this far apart: 500 ms, as Linux.
const REPEAT_STAMPS: u16 = 500 >> STAMP_SHIFT;
/// Above the last sequence number that was sent by the connection before (as Linux).
const ISS_STEP: u32 = 65_537;

const LIVE: u8 = 1;
const FIN_WAIT_2: u8 = 2;
const TIMESTAMPS: u8 = 4;
/// The local port is claimed for an active open, see [`crate::ports`].
const PORT_CLAIMED: u8 = 8;

/// A connection of which only its end has to be guarded.
///
/// 52 bytes, and 6.7 more in the flow table. The deadline is in `timer`; our timestamp offset is
/// computed again when needed, and the link header is that of the frame to be answered.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct TimeWait {
    pub(crate) remote: Addr,
    pub(crate) timer: Timer,
    snd_nxt: u32,
    rcv_nxt: u32,
    /// The peer's newest timestamp.
    ts_recent: u32,
    pub(crate) remote_port: u16,
    pub(crate) local_port: u16,
    /// Index into the table of our addresses.
    pub(crate) local: u16,
    /// As it goes into the header.
    window: u16,
    /// When an old duplicate was last answered.
    acked: u16,
    flags: u8,
    /// As it goes into the header of IPv4, or of IPv6: without ECN, as ACKs are never marked.
    tos: u8,
}

/// A record and its share of the flow table, rounded up.
const _: () = assert!(size_of::<TimeWait>() + 7 <= 64);

/// The generation is one bit: nobody outside names these records. A free one's timer is idle, and
/// lends its link.
impl Record for TimeWait {
    fn link(&self) -> u32 {
        self.timer.spare_link()
    }
    fn set_link(&mut self, link: u32) {
        self.timer.set_spare_link(link);
    }
    fn generation(&self) -> u32 {
        u32::from(self.flags & LIVE)
    }
    fn set_generation(&mut self, generation: u32) {
        self.flags = self.flags & !LIVE | generation as u8 & LIVE;
    }
}

/// What is being waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Substate {
    /// The peer's FIN; our side is closed and the application gone.
    FinWait2,
    /// Two maximum segment lifetimes.
    TimeWait,
}

/// A record that gives way to a new connection of its four-tuple, and where that one starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Takeover {
    pub(crate) index: u32,
    pub(crate) iss: u32,
}

/// What a segment means to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    Ignore,
    /// A plausible segment of the old connection: the time starts again.
    Restart,
    /// Say where we are. An answer that might be part of a loop is `limited` to one per 500 ms.
    Acknowledge { limited: bool, restart: bool },
    /// The peer's FIN, after FIN_WAIT_2.
    Finish,
    /// Data that nobody will read: reset the peer, end.
    Reset,
    /// The peer has reset: end.
    End,
    /// A new connection may start.
    Renew,
}

impl TimeWait {
    /// Whether the peer's FIN is still to come.
    pub(crate) fn is_fin_wait_2(&self) -> bool {
        self.flags & FIN_WAIT_2 != 0
    }

    /// What is being waited for, as a state.
    pub(crate) fn state(&self) -> State {
        if self.is_fin_wait_2() { State::FinWait2 } else { State::TimeWait }
    }

    /// PAWS (RFC 7323 §5.3), a RST excepted.
    fn is_stale(&self, segment: &Segment<'_>) -> bool {
        self.newer_by(segment).is_some_and(|step| step < 0) && !segment.flags.contains(Flags::RST)
    }

    /// How much newer the segment's timestamp is than the newest seen.
    fn newer_by(&self, segment: &Segment<'_>) -> Option<i32> {
        let times = segment.options.timestamps.filter(|_| self.flags & TIMESTAMPS != 0)?;
        Some(times.value.wrapping_sub(self.ts_recent) as i32)
    }

    /// RFC 6191 §2: timestamps set the connection and a next one of its four-tuple apart.
    fn is_told_apart(&self, config: &Config) -> bool {
        self.flags & (TIMESTAMPS | FIN_WAIT_2) == TIMESTAMPS && config.tcp.timestamps
    }

    /// How long, from `tick` on, until an active open may have the four-tuple unasked: when the
    /// record is older than `tw_reuse_delay` (as Linux); `None` is never. A repeated FIN starts its
    /// time again; that makes it seem no older than it is.
    pub(crate) fn reusable_in(&self, config: &Config, tick: u64) -> Option<Nanos> {
        if !self.is_told_apart(config) {
            return None;
        }
        let left = self.timer.deadline().wrapping_sub(tick as u32) as i32;
        // Not negative.
        let left = Nanos::from(left.max(0) as u32) * TICK_NANOS;
        let age = config.tcp.time_wait.saturating_sub(left);
        // Older, not as old.
        Some((config.tw_reuse_delay + TICK_NANOS).saturating_sub(age))
    }

    fn judge(&self, segment: &Segment<'_>, window: u32, rfc1337: bool) -> Verdict {
        if self.flags & FIN_WAIT_2 != 0 {
            self.judge_fin_wait_2(segment, window)
        } else {
            self.judge_time_wait(segment, rfc1337)
        }
    }

    /// RFC 9293 §3.10.7.4 for FIN-WAIT-2, of a connection without an application.
    fn judge_fin_wait_2(&self, segment: &Segment<'_>, window: u32) -> Verdict {
        let flags = segment.flags;
        let end = segment.seq.wrapping_add(segment.sequence_len());
        if self.is_stale(segment) || !overlaps(segment, self.rcv_nxt, window) {
            return match flags.contains(Flags::RST) {
                true => Verdict::Ignore,
                false => Verdict::Acknowledge { limited: is_bare(segment), restart: false },
            };
        }
        if flags.contains(Flags::RST) {
            // RFC 5961 §3.2.
            return match segment.seq == self.rcv_nxt {
                true => Verdict::End,
                false => Verdict::Acknowledge { limited: true, restart: false },
            };
        }
        if flags.contains(Flags::SYN) {
            // RFC 5961 §4.2.
            return Verdict::Acknowledge { limited: true, restart: false };
        }
        if !flags.contains(Flags::ACK) || segment.sequence_len() == 0 {
            return Verdict::Ignore;
        }
        // Only the FIN may come now (RFC 9293 §3.6.1, MUST-13).
        if flags.contains(Flags::FIN) && end == self.rcv_nxt.wrapping_add(1) {
            return Verdict::Finish;
        }
        Verdict::Reset
    }

    /// RFC 9293 §3.10.7.4 for TIME-WAIT, RFC 1337 and RFC 6191.
    fn judge_time_wait(&self, segment: &Segment<'_>, rfc1337: bool) -> Verdict {
        let flags = segment.flags;
        let stale = self.is_stale(segment);
        if flags.contains(Flags::RST) {
            let exact = segment.seq == self.rcv_nxt;
            return if exact && !rfc1337 { Verdict::End } else { Verdict::Ignore };
        }
        if !stale && segment.seq == self.rcv_nxt && segment.sequence_len() == 0 {
            return Verdict::Restart;
        }
        let opens = flags.contains(Flags::SYN) && !flags.intersects(Flags::ACK.union(Flags::FIN));
        if opens && !stale {
            // RFC 6191 §2: a newer timestamp, or a sequence number above all that were used.
            let above = SeqNum(segment.seq).after(SeqNum(self.rcv_nxt));
            if above || self.newer_by(segment).is_some_and(|step| step > 0) {
                return Verdict::Renew;
            }
        }
        // A SYN may be a new one whose number happens to be low: that does not keep us waiting.
        Verdict::Acknowledge { limited: is_bare(segment), restart: !opens || stale }
    }
}

impl Shard {
    /// Turns a connection whose last segment has been sent into a record.
    pub(crate) fn retire(
        &mut self,
        now: Nanos,
        conn: u32,
        substate: Substate,
        host: &mut impl Host,
    ) {
        let Some(index) = self.insert_time_wait(now, conn, substate) else {
            let tuple = self.flows.records.conns[conn].tuple;
            self.dropped(now, Dropped::TimeWaitOverflow, tuple);
            self.free(conn, host);
            return;
        };
        let record = &mut self.flows.records.conns[conn];
        let (hash, settings) = (record.hash, *record.tcb.settings());
        if std::mem::take(&mut record.port_claimed) {
            self.ports.enter_time_wait(&record.tuple);
            self.flows.records.time_waits[index].flags |= PORT_CLAIMED;
        }
        self.flows.replace(u64::from(hash), Flow::Conn(conn), Flow::TimeWait(index));
        self.release(conn, host);
        self.fin_wait_2 += u32::from(substate == Substate::FinWait2);
        let tcp = &self.config.tcp;
        let wait = match substate {
            Substate::TimeWait => tcp.time_wait,
            // An orphan that does not wait at all never comes here.
            Substate::FinWait2 => settings.fin_timeout(tcp).unwrap_or(tcp.fin_timeout),
        };
        self.arm_for(now, index, wait);
    }

    /// A segment for a record.
    pub(crate) fn handle_time_wait(
        &mut self,
        now: Nanos,
        index: u32,
        frame: &TcpFrame<'_>,
        hash: u64,
        host: &mut impl Host,
    ) {
        let segment = &frame.segment;
        let record = &self.flows.records.time_waits[index];
        let verdict = record.judge(segment, self.config.tcp.recv_window_max, self.config.rfc1337);
        if record.is_stale(segment) {
            self.dropped(now, Dropped::PawsTimeWait, frame);
        }
        match verdict {
            Verdict::Ignore => self.dropped(now, Dropped::TimeWaitIgnored, frame),
            Verdict::Restart => {
                self.note_timestamp(index, segment);
                self.arm_time_wait(now, index);
            }
            Verdict::Acknowledge { limited, restart } => {
                if restart {
                    self.arm_time_wait(now, index);
                }
                if !limited || self.may_acknowledge(now, index, frame) {
                    self.dropped(now, Dropped::TimeWaitDuplicate, frame);
                    self.acknowledge_time_wait(now, index, &frame.tuple, frame.link.reply(), host);
                }
            }
            Verdict::Finish => {
                self.note_timestamp(index, segment);
                let record = &mut self.flows.records.time_waits[index];
                record.flags &= !FIN_WAIT_2;
                record.rcv_nxt = record.rcv_nxt.wrapping_add(1);
                self.fin_wait_2 -= 1;
                self.arm_time_wait(now, index);
                self.acknowledge_time_wait(now, index, &frame.tuple, frame.link.reply(), host);
            }
            Verdict::Reset => {
                self.dropped(now, Dropped::AbortOnData, frame);
                self.send_reset(now, frame, host);
                self.end_time_wait(index);
            }
            Verdict::End => self.end_time_wait(index),
            Verdict::Renew => self.renew(now, index, frame, hash, host),
        }
    }

    /// The time is over, or was cut short.
    pub(crate) fn end_time_wait(&mut self, index: u32) {
        let tuple = self.flows.records.time_wait_tuple(index);
        let hash = self.keys.flow_hash(&tuple);
        self.counters.time_waits += 1;
        self.flows.remove(hash, Flow::TimeWait(index), tuple.local.port);
        self.release_time_wait(index);
    }

    /// Frees a record that is in the flow table no more.
    pub(crate) fn release_time_wait(&mut self, index: u32) {
        if self.inherit_port(index) {
            let tuple = self.flows.records.time_wait_tuple(index);
            self.ports.give_back(&tuple);
        }
        let id = Ref::from(Flow::TimeWait(index)).raw();
        self.wheel.cancel(&mut self.flows.records, id);
        let records = &mut self.flows.records;
        records.locals.release(records.time_waits[index].local);
        self.fin_wait_2 -= u32::from(records.time_waits[index].is_fin_wait_2());
        records.time_waits.remove(index);
    }

    fn insert_time_wait(&mut self, now: Nanos, conn: u32, substate: Substate) -> Option<u32> {
        let stamp = self.stamp(now);
        let records = &mut self.flows.records;
        if records.time_waits.is_full() {
            return None;
        }
        let conn = &records.conns[conn];
        let rest = conn.tcb.time_wait();
        let local = records.locals.acquire(&conn.tuple.local.addr)?;
        let waits = if substate == Substate::FinWait2 { FIN_WAIT_2 } else { 0 };
        let stamped = if rest.ts_recent.is_some() { TIMESTAMPS } else { 0 };
        records.time_waits.insert(TimeWait {
            remote: conn.tuple.remote.addr,
            timer: Timer::IDLE,
            snd_nxt: rest.snd_nxt,
            rcv_nxt: rest.rcv_nxt,
            ts_recent: rest.ts_recent.unwrap_or(0),
            remote_port: conn.tuple.remote.port,
            local_port: conn.tuple.local.port,
            local,
            window: rest.scaled_window,
            acked: stamp.wrapping_sub(REPEAT_STAMPS),
            flags: waits | stamped,
            tos: conn.tcb.settings().ip_tos(conn.tuple.is_v4()),
        })
    }

    /// A new connection of the same four-tuple, if a listener takes it.
    fn renew(
        &mut self,
        now: Nanos,
        index: u32,
        frame: &TcpFrame<'_>,
        hash: u64,
        host: &mut impl Host,
    ) {
        let iss = self.iss_after(index);
        match self.listeners.find(&frame.tuple.local, hash) {
            Some(id) if !self.draining => {
                self.handle_syn(now, frame, hash, id, Some(Takeover { index, iss }), host);
            }
            Some(_) | None => {
                if self.may_acknowledge(now, index, frame) {
                    self.dropped(now, Dropped::TimeWaitDuplicate, frame);
                    self.acknowledge_time_wait(now, index, &frame.tuple, frame.link.reply(), host);
                }
            }
        }
    }

    /// Whether an active open that asks for the record's port may have its four-tuple, whatever
    /// `tw_reuse` says.
    pub(crate) fn is_reusable(&self, index: u32) -> bool {
        self.flows.records.time_waits[index].is_told_apart(&self.config)
    }

    /// Takes the claim of a port from a record, if it has one: whoever calls this has it now.
    pub(crate) fn inherit_port(&mut self, index: u32) -> bool {
        let record = &mut self.flows.records.time_waits[index];
        let claimed = record.flags & PORT_CLAIMED != 0;
        record.flags &= !PORT_CLAIMED;
        if claimed {
            let tuple = self.flows.records.time_wait_tuple(index);
            self.ports.leave_time_wait(&tuple);
        }
        claimed
    }

    /// Where a connection that follows the record's starts.
    pub(crate) fn iss_after(&self, index: u32) -> u32 {
        self.flows.records.time_waits[index].snd_nxt.wrapping_add(ISS_STEP)
    }

    /// 60 s from now on.
    fn arm_time_wait(&mut self, now: Nanos, index: u32) {
        self.arm_for(now, index, self.config.tcp.time_wait);
    }

    fn arm_for(&mut self, now: Nanos, index: u32, wait: Nanos) {
        let tick = self.tick_at(now + wait);
        let id = Ref::from(Flow::TimeWait(index)).raw();
        self.wheel.arm(&mut self.flows.records, id, tick);
    }

    fn note_timestamp(&mut self, index: u32, segment: &Segment<'_>) {
        let record = &mut self.flows.records.time_waits[index];
        if let (Some(times), Some(0..)) = (segment.options.timestamps, record.newer_by(segment)) {
            record.ts_recent = times.value;
        }
    }

    fn may_acknowledge(&mut self, now: Nanos, index: u32, frame: &TcpFrame<'_>) -> bool {
        let stamp = self.stamp(now);
        let record = &mut self.flows.records.time_waits[index];
        if stamp.wrapping_sub(record.acked) < REPEAT_STAMPS {
            let skipped = match record.is_fin_wait_2() {
                false => Dropped::AckSkippedTimeWait,
                true => Dropped::AckSkippedFinWait2,
            };
            self.dropped(now, skipped, frame);
            return false;
        }
        record.acked = stamp;
        true
    }

    fn acknowledge_time_wait(
        &mut self,
        now: Nanos,
        index: u32,
        tuple: &FourTuple,
        link: Link,
        host: &mut impl Host,
    ) {
        let record = &self.flows.records.time_waits[index];
        let timestamps = (record.flags & TIMESTAMPS != 0).then(|| Timestamps {
            value: timestamp(now, self.keys.initial(tuple, now).ts_offset),
            echo: record.ts_recent,
        });
        let head = FrameHead {
            link,
            tuple: *tuple,
            tos: record.tos,
            ttl: self.config.tcp.hop_limit,
            seq: record.snd_nxt,
            ack: record.rcv_nxt,
            flags: Flags::ACK,
            window: record.window,
            options: Options { timestamps, ..Options::default() },
            ..FrameHead::default()
        };
        self.emit(now, &head, host);
    }

    fn stamp(&self, now: Nanos) -> u16 {
        (self.tick_of(now) >> STAMP_SHIFT) as u16
    }
}

/// Whether two stacks could answer such segments to each other for ever: they carry nothing that is
/// sent again by itself. A repeated FIN is no such thing.
fn is_bare(segment: &Segment<'_>) -> bool {
    segment.sequence_len() == 0 || segment.flags.contains(Flags::SYN)
}
