//! The way out: what connections have to send.

use fourwave_tcp::{Nanos, State};
use fourwave_wire::{ECN_ECT_0, Flags, FrameHead, build};

use crate::counters::Dropped;
use crate::host::{Frame, Host, Payload};
use crate::shard::Shard;

impl Shard {
    /// Sends what is due of every connection on the dirty list, and frees those that are done.
    /// `false` when the room for frames ran out first: to be called again when there is some.
    pub fn flush(&mut self, now: Nanos, host: &mut impl Host) -> bool {
        self.path_mtus.expire(now);
        let epoch = host.path_epoch();
        if epoch != self.epoch {
            self.epoch = epoch;
            while let Some(index) = self.stranded.front() {
                self.mark_dirty(index);
            }
        }
        while let Some(index) = self.dirty.front() {
            if !self.transmit(now, index, host) {
                return false;
            }
        }
        true
    }

    /// Sends all that one connection has due, then takes it off the dirty list and sees to what its
    /// state calls for. `false`, the connection staying where it is, when room ran out.
    pub(crate) fn transmit(&mut self, now: Nanos, index: u32, host: &mut impl Host) -> bool {
        if self.has_route(now, index, host) {
            while let Some(Frame { room, payload }) = host.frame() {
                let route = self.route(index);
                let conn = &mut self.flows.records.conns[index];
                let Some(segment) = conn.tcb.poll_transmit(&self.config.tcp, now) else {
                    self.unlist(index);
                    self.settle(now, index, host);
                    return true;
                };
                let head = FrameHead {
                    link: route,
                    tuple: conn.tuple,
                    tos: conn.tcb.settings().ip_tos(conn.tuple.is_v4())
                        | if segment.markable { ECN_ECT_0 } else { 0 },
                    ttl: conn.tcb.settings().ip_ttl(conn.tuple.is_v4(), &self.config.tcp),
                    seq: segment.seq,
                    ack: segment.ack,
                    flags: segment.flags,
                    window: segment.window,
                    options: segment.options,
                    ..FrameHead::default()
                };
                let (app, data) = (conn.app, segment.payload);
                // A segment's payload fits an IP packet.
                let len = (data.end - data.start) as usize;
                let built = build(room, &head, len, |out| {
                    if !out.is_empty() {
                        payload.load(app, data.start, out);
                    }
                });
                match built {
                    Ok(len) => host.commit(len),
                    Err(_) => {
                        let tuple = head.tuple;
                        self.dropped(now, Dropped::TxTooSmall, tuple);
                        continue;
                    }
                }
                self.counters.out_segs += 1;
                self.counters.retrans_segs += u64::from(segment.retransmission);
                self.counters.out_rsts += u64::from(segment.flags.contains(Flags::RST));
            }
            return false;
        }
        self.unlist(index);
        if self.flows.records.conns[index].tcb.state() == State::Closed {
            self.settle(now, index, host);
        } else {
            self.strand(now, index);
        }
        true
    }
}
