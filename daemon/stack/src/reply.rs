//! Frames without payload that answer a frame at once: resets, SYN-ACKs, ACKs for records.

use fourwave_tcp::Nanos;
use fourwave_wire::{Flags, FrameHead, TcpFrame, build};

use crate::counters::Dropped;
use crate::drops::Sample;
use crate::host::{Frame, Host};
use crate::shard::Shard;

impl Shard {
    /// Sends a frame without payload. Without room it is lost, counted: whatever it answers will be
    /// sent again.
    pub(crate) fn emit(&mut self, now: Nanos, head: &FrameHead, host: &mut impl Host) {
        let unsent = || {
            let FrameHead { tuple, seq, ack, flags, .. } = *head;
            Sample { tuple, seq, ack, flags, ..Sample::default() }
        };
        let Some(Frame { room, .. }) = host.frame() else {
            self.dropped(now, Dropped::TxRingFull, unsent());
            return;
        };
        match build(room, head, 0, |_| {}) {
            Ok(len) => {
                host.commit(len);
                self.counters.out_segs += 1;
            }
            Err(_) => self.dropped(now, Dropped::TxTooSmall, unsent()),
        }
    }

    /// RFC 9293 §3.10.7.1: a reset that the sender of `frame` will believe. A RST is never answered.
    pub(crate) fn send_reset(&mut self, now: Nanos, frame: &TcpFrame<'_>, host: &mut impl Host) {
        let segment = &frame.segment;
        if segment.flags.contains(Flags::RST) {
            return;
        }
        let (seq, ack, flags) = if segment.flags.contains(Flags::ACK) {
            (segment.ack, 0, Flags::RST)
        } else {
            let end = segment.seq.wrapping_add(segment.sequence_len());
            (0, end, Flags::RST | Flags::ACK)
        };
        let head = FrameHead {
            link: frame.link.reply(),
            tuple: frame.tuple,
            ttl: self.config.tcp.hop_limit,
            seq,
            ack,
            flags,
            ..FrameHead::default()
        };
        self.counters.out_rsts += 1;
        self.emit(now, &head, host);
    }
}
