//! What to send next (RFC 9293 §3.8).

use core::ops::Range;

use fourwave_wire::{Flags, Options, SackBlocks, Timestamps};

use crate::config::{Config, MILLISECOND, Nanos};
use crate::options::timestamp;
use crate::state::State;
use crate::tcb::{NEVER, SYN_POSITION, Tcb, flag};

/// How long a cork holds a small segment back once nothing is in flight, as Linux.
const CORK_PATIENCE: Nanos = 200 * MILLISECOND;

/// One segment to send now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; 0 without [`Flags::ACK`].
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// Window field, scaled.
    pub window: u16,
    /// Options.
    pub options: Options,
    /// Stream offsets of the payload; empty if there is none.
    pub payload: Range<u64>,
    /// Whether it repeats something sent before.
    pub retransmission: bool,
    /// Routers may mark it instead of dropping it (ECT(0), RFC 3168 §6.1.2).
    pub markable: bool,
}

/// Positions of a segment to send: `end` counts the FIN.
struct Piece {
    start: i64,
    end: i64,
    fin: bool,
}

impl Tcb {
    /// The next segment that is due, `None` when nothing is. The connection goes on as if it was
    /// sent.
    #[inline]
    pub fn poll_transmit(&mut self, cfg: &Config, now: Nanos) -> Option<Transmit> {
        if self.is_all_sent() {
            self.set_flag(flag::LIMITED, false);
            return None;
        }
        let segment = self.next_segment(cfg, now);
        self.segments_out = self.segments_out.wrapping_add(u32::from(segment.is_some()));
        segment
    }

    /// Nothing is lost, asked for or waiting: nearly always so when a segment has just been sent.
    #[inline]
    fn is_all_sent(&self) -> bool {
        const DUE: u32 = flag::RST_DUE
            | flag::REPLY_RST
            | flag::SYN_DUE
            | flag::RESEND
            | flag::TAIL_PROBE
            | flag::PROBE
            | flag::KEEPALIVE
            | flag::ACK_NOW;
        !self.has(DUE)
            && self.snd_nxt == self.snd_max
            && !self.has_unsent()
            && self.scoreboard.is_empty()
            && !self.recovery.is_active()
    }

    #[inline]
    fn next_segment(&mut self, cfg: &Config, now: Nanos) -> Option<Transmit> {
        if self.has(flag::RST_DUE | flag::REPLY_RST | flag::SYN_DUE) {
            return self.control_segment(cfg, now);
        }
        if self.state().may_send() {
            let is_calm = !self.has(flag::RESEND | flag::TAIL_PROBE)
                && self.scoreboard.is_empty()
                && !self.recovery.is_active();
            let piece = match is_calm {
                true => self.next_piece(cfg, now),
                false => self.piece_in_trouble(cfg, now),
            };
            if let Some(piece) = piece {
                return Some(self.data_segment(cfg, now, &piece));
            }
            if self.take_flag(flag::PROBE) {
                // A number the peer has acknowledged: whatever it thinks of it, it answers with
                // its window (RFC 9293 §3.8.6.1, in Linux's form: no data is risked).
                return Some(self.probe_segment(now));
            }
            self.arm_probe(cfg, now);
        }
        if self.take_flag(flag::KEEPALIVE) && !self.is_outstanding() {
            // RFC 9293 §3.8.4: a number below the peer's window, and no data, must be answered.
            return Some(self.bare_segment(now, self.snd_max - 1));
        }
        if self.has(flag::ACK_NOW) {
            // The highest number sent: after a go-back `snd_nxt` may lie behind what the peer has.
            return Some(self.bare_segment(now, self.snd_max));
        }
        None
    }

    #[inline(never)]
    fn piece_in_trouble(&mut self, cfg: &Config, now: Nanos) -> Option<Piece> {
        self.resend_piece()
            .or_else(|| self.tail_piece())
            .or_else(|| self.lost_piece(cfg, false))
            .or_else(|| self.next_piece(cfg, now))
            .or_else(|| self.lost_piece(cfg, true))
    }

    /// RST, or SYN with or without ACK.
    #[cold]
    fn control_segment(&mut self, cfg: &Config, now: Nanos) -> Option<Transmit> {
        if self.take_flag(flag::RST_DUE) {
            let mut reset = self.bare_segment(now, self.snd_max);
            reset.flags = Flags::RST | Flags::ACK;
            reset.options.sack = SackBlocks::default();
            return Some(reset);
        }
        if self.take_flag(flag::REPLY_RST) {
            // RFC 9293 §3.10.7.3: <SEQ=SEG.ACK><CTL=RST>.
            return Some(Transmit {
                seq: self.reply_rst_seq,
                ack: 0,
                flags: Flags::RST,
                window: 0,
                options: Options::default(),
                payload: 0..0,
                retransmission: false,
                markable: false,
            });
        }
        self.set_flag(flag::SYN_DUE, false);
        Some(self.syn_segment(cfg, now))
    }

    fn syn_segment(&mut self, cfg: &Config, now: Nanos) -> Transmit {
        if self.snd_max == SYN_POSITION {
            self.rtt.start(0, now);
        } else {
            self.rtt.cancel();
        }
        self.snd_nxt = 0;
        self.snd_max = 0;
        // The first SYN-ACK of a simultaneous open repeats a number, not a segment.
        let retransmission = self.retries > 0;
        self.retransmits = self.retransmits.wrapping_add(u32::from(retransmission));
        if self.rtx_at == NEVER {
            self.rtx_at = now + self.rtt.backed_off(cfg, self.backoff);
        }
        let answers = self.state() == State::SynReceived;
        let tsval = timestamp(now, self.ts_offset);
        let mut options = cfg.syn_options(self.local_mss, tsval);
        if answers {
            options.window_scale = self.has(flag::SCALING).then_some(self.rcv_scale);
            options.timestamps = self.timestamps(now);
            options.sack_permitted = self.has(flag::SACK);
            self.acknowledged();
        }
        let flags = if answers { Flags::SYN | Flags::ACK } else { Flags::SYN };
        Transmit {
            seq: self.iss,
            ack: if answers { self.rcv_seq(self.rcv_nxt) } else { 0 },
            flags: flags | self.ecn_of_syn(answers),
            window: self.settings.syn_window(cfg),
            options,
            payload: 0..0,
            retransmission,
            markable: false,
        }
    }

    /// The oldest segment again: by fast retransmit, timeout or a smaller path MTU. The windows do
    /// not hold it back: it is what everything waits for.
    #[inline]
    fn resend_piece(&mut self) -> Option<Piece> {
        if !self.take_flag(flag::RESEND) || !self.is_outstanding() {
            return None;
        }
        Some(self.sent_piece(self.unheld(self.snd_una)))
    }

    /// A probe that makes the peer tell of a lost tail: new data beyond the congestion window if the
    /// peer's takes it, else the last segment again (RFC 8985 §7.3).
    #[inline]
    fn tail_piece(&mut self) -> Option<Piece> {
        if !self.take_flag(flag::TAIL_PROBE) || !self.is_outstanding() {
            return None;
        }
        let room = i64::from(self.segment_limit());
        let offered = self.snd_una + i64::from(self.snd_wnd) - self.snd_max;
        let len = (self.snd_tail - self.snd_max).min(room);
        let piece = if 0 < len && len <= offered {
            Piece { start: self.snd_max, end: self.snd_max + len, fin: false }
        } else {
            let start = (self.snd_max.min(self.snd_tail) - room).max(self.snd_una);
            self.sent_piece(start..self.snd_max)
        };
        self.rack.note_probe(self.snd_max, piece.end);
        Some(piece)
    }

    /// Lost data again, as far as the congestion window goes (RFC 6675 §5, step C).
    #[inline]
    fn lost_piece(&self, cfg: &Config, all: bool) -> Option<Piece> {
        self.next_lost(cfg, all).map(|lost| self.sent_piece(lost))
    }

    /// The first segment's worth of positions that were sent before; the FIN may be one of them.
    fn sent_piece(&self, span: Range<i64>) -> Piece {
        let room = i64::from(self.segment_limit());
        let end = span.end.min(self.snd_tail).min(span.start + room);
        let fin = end == self.snd_tail && span.end > self.snd_tail;
        Piece { start: span.start, end: end + i64::from(fin), fin }
    }

    /// As much from `snd_nxt` on as one segment takes and both windows allow.
    #[inline]
    fn next_piece(&mut self, cfg: &Config, now: Nanos) -> Option<Piece> {
        let fin_queued = self.has(flag::FIN_QUEUED);
        if self.snd_nxt < self.snd_max && !self.scoreboard.is_empty() {
            // Going back, past what the peer holds.
            let unheld = self.unheld(self.snd_nxt);
            self.snd_nxt = unheld.start;
            if !unheld.is_empty() {
                let piece = self.sent_piece(unheld);
                return (piece.end - piece.start <= self.usable(cfg)).then_some(piece);
            }
        }
        let waiting = self.snd_tail - self.snd_nxt;
        self.set_flag(flag::LIMITED, false);
        if waiting < 0 || (waiting == 0 && !fin_queued) {
            return None;
        }
        self.restart_after_idle(cfg, now);
        let usable = self.usable(cfg);
        if let Some(len) = self.next_probe(now, waiting, usable) {
            return Some(Piece { start: self.snd_nxt, end: self.snd_nxt + len, fin: false });
        }
        let mss = i64::from(self.segment_limit());
        let len = waiting.min(mss).min(usable.max(0));
        if len < waiting.min(mss) {
            let offered = self.snd_una + i64::from(self.snd_wnd) - self.snd_nxt;
            self.set_flag(flag::LIMITED, len < offered.min(mss));
        }
        let end = self.snd_nxt + len;
        // The FIN takes a number, so it needs room in the peer's window too.
        let window_end = self.snd_una + i64::from(self.snd_wnd);
        let fin = fin_queued && end == self.snd_tail && end < window_end;
        if len == 0 && !fin {
            return None;
        }
        if len > 0 && len < mss && !fin && !self.small_segment_may_go(cfg, len, waiting) {
            return None;
        }
        Some(Piece { start: self.snd_nxt, end: end + i64::from(fin), fin })
    }

    /// Whether `len` bytes, less than a full segment, may go (RFC 9293 §3.8.6.2.1, §3.7.4).
    fn small_segment_may_go(&self, cfg: &Config, len: i64, waiting: i64) -> bool {
        if self.has(flag::PROBE) || self.snd_nxt < self.snd_max {
            // The override timeout is over, or it was sent before.
            return true;
        }
        if self.is_corked() {
            return false;
        }
        if len == waiting {
            // All there is. Nagle, in Minshall's form: one small segment in flight at most.
            let nagle = cfg.nagle && !self.settings.nodelay();
            return !nagle || self.snd_small <= self.snd_una;
        }
        // The windows cut it short: silly, unless it fills a good part of the peer's buffer.
        len >= i64::from(self.snd_wnd_max / 2)
    }

    /// Most payload bytes of the next segment.
    #[inline]
    fn segment_limit(&self) -> u32 {
        self.payload_limit() - u32::from(self.sack_len())
    }

    /// Bytes that may go from `snd_nxt` on; not positive when none may.
    #[inline]
    fn usable(&self, cfg: &Config) -> i64 {
        let offered = self.snd_una + i64::from(self.snd_wnd) - self.snd_nxt;
        offered.min(self.congestion_limit() - i64::from(self.pipe(cfg)))
    }

    /// The congestion window; the first duplicate ACKs each let one more segment go (limited
    /// transmit, RFC 3042). With SACK they do so by what they report as held.
    #[inline]
    fn congestion_limit(&self) -> i64 {
        let window = i64::from(self.congestion.window());
        // After a timeout what goes is no new data, and the loss window holds (RFC 5681 §3.1).
        let goes_back = self.snd_nxt < self.snd_max;
        let others = goes_back || self.has(flag::SACK) || self.recovery.is_active();
        if self.duplicate_acks == 0 || others {
            return window;
        }
        window + i64::from(self.duplicate_acks.min(2)) * i64::from(self.payload_limit())
    }

    fn restart_after_idle(&mut self, cfg: &Config, now: Nanos) {
        let idle = now.saturating_sub(self.sent_at);
        if cfg.slow_start_after_idle && !self.is_outstanding() && idle > self.rtt.rto() {
            let mss = self.payload_limit();
            self.congestion.restart_after_idle(mss, cfg.initial_window);
        }
    }

    fn data_segment(&mut self, cfg: &Config, now: Nanos, piece: &Piece) -> Transmit {
        let Piece { start, end, fin } = *piece;
        let data_end = end - i64::from(fin);
        let retransmission = start < self.snd_max;
        self.data_segments_out = self.data_segments_out.wrapping_add(u32::from(data_end > start));
        if retransmission {
            // Positions in order, of data: not negative.
            self.bytes_resent += (data_end - start) as u64;
            self.retransmits = self.retransmits.wrapping_add(1);
            self.rtt.cancel();
            self.note_repetition((end - start) as u32, timestamp(now, self.ts_offset));
        } else {
            self.rtt.start(end, now);
            if data_end - start < i64::from(self.segment_limit()) {
                self.snd_small = end;
            }
        }
        if retransmission {
            self.recovery.handle_resent(start..end, self.snd_max);
            self.forget_probe_in(&(start..end));
        } else {
            // A segment takes 16 bits of positions at most, and a FIN adds one.
            self.recovery.handle_sent((end - start) as u32);
        }
        let was_idle = !self.is_outstanding();
        self.snd_nxt = self.snd_nxt.max(end);
        self.snd_max = self.snd_max.max(end);
        self.sent_at = now;
        self.set_flag(flag::PROBE, false);
        let repairs = retransmission && start == self.snd_una && self.recovery.is_active();
        if was_idle || self.rtx_at == NEVER || repairs {
            // RFC 6298 §5.1; a probe's timer gives way. As Linux, a repair gets its time too.
            self.rtx_at = self.timeout_from(cfg, now);
        }
        if !retransmission {
            self.plan_probe(cfg, now);
        }
        let mut segment = self.bare_segment(now, start);
        if fin {
            segment.flags |= Flags::FIN;
        }
        if data_end == self.snd_tail && data_end > start {
            // RFC 9293 §3.9.1.2, MUST-61: the last of what is queued is pushed.
            segment.flags |= Flags::PSH;
        }
        // Data positions are not negative.
        segment.payload = start as u64..data_end as u64;
        segment.retransmission = retransmission;
        if self.has(flag::ECN) && !retransmission && data_end > start {
            segment.markable = true;
            if self.take_flag(flag::CWR_DUE) {
                segment.flags |= Flags::CWR;
            }
        }
        segment
    }

    /// An empty ACK with the number of position `at`; what it acknowledges is acknowledged.
    fn bare_segment(&mut self, now: Nanos, at: i64) -> Transmit {
        let window = self.advertise_window();
        let (timestamps, sack) = (self.timestamps(now), self.sack_blocks());
        self.acknowledged();
        let echo = if self.has(flag::ECHO) { Flags::ECE } else { Flags::EMPTY };
        Transmit {
            seq: self.snd_seq(at),
            ack: self.rcv_seq(self.rcv_nxt),
            flags: Flags::ACK | echo,
            window,
            options: Options { timestamps, sack, ..Options::default() },
            payload: 0..0,
            retransmission: false,
            markable: false,
        }
    }

    /// The peer may throw away all of a segment whose number is no longer acceptable: an
    /// acknowledgement that was due stays due.
    fn probe_segment(&mut self, now: Nanos) -> Transmit {
        let (acked, ack_at, flags) = (self.rcv_acked, self.ack_at, self.flags);
        let probe = self.bare_segment(now, self.snd_una - 1);
        (self.rcv_acked, self.ack_at) = (acked, ack_at);
        self.set_flag(flag::ACK_NOW, flags & flag::ACK_NOW != 0);
        probe
    }

    /// An acknowledgement goes out: none is due any more.
    #[inline]
    fn acknowledged(&mut self) {
        self.rcv_acked = self.rcv_nxt;
        self.ack_at = NEVER;
        self.set_flag(flag::ACK_NOW | flag::DUPLICATE, false);
    }

    fn timestamps(&self, now: Nanos) -> Option<Timestamps> {
        let value = timestamp(now, self.ts_offset);
        self.has(flag::TIMESTAMPS).then_some(Timestamps { value, echo: self.ts_recent })
    }

    /// Something waits, nothing is in flight whose ACK could tell of a larger window: that has to
    /// be asked for (RFC 9293 §3.8.6.1, MUST-36).
    #[inline]
    fn arm_probe(&mut self, cfg: &Config, now: Nanos) {
        let end = self.snd_tail + i64::from(self.has(flag::FIN_QUEUED));
        if self.snd_nxt < end && !self.is_outstanding() && self.rtx_at == NEVER {
            let timeout = self.timeout_from(cfg, now);
            self.rtx_at = if self.is_corked() { timeout.min(now + CORK_PATIENCE) } else { timeout };
        }
    }

    /// Whether what waits waits for more, and not for a window.
    #[inline]
    pub(crate) fn is_corked(&self) -> bool {
        self.settings.cork() && self.snd_wnd > 0
    }
}
