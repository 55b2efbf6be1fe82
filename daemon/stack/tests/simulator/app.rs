//! One end of a conversation, as its application sees it.

use std::ops::Range;

use fourwave_stack::{ConnId, Update};
use fourwave_tcp::{Error, Events, Nanos};

use crate::pattern;

/// Whose bytes are not known: a stranger may send anything.
pub(crate) const STRANGER: usize = usize::MAX;

pub(crate) struct App {
    pub(crate) conversation: usize,
    pub(crate) end: usize,
    pub(crate) conn: ConnId,
    pub(crate) born: Nanos,
    /// The application holds the handle.
    pub(crate) open: bool,
    /// It may be used: accepted, or connected.
    pub(crate) usable: bool,
    pub(crate) queued: bool,
    pub(crate) closed: bool,
    pub(crate) written: u64,
    pub(crate) shut: bool,
    pub(crate) consumed: u64,
    pub(crate) next_read: Nanos,
    pub(crate) rcv_tail: u64,
    pub(crate) snd_acked: u64,
    pub(crate) eof: bool,
    pub(crate) error: Option<Error>,
    /// The application lost patience.
    pub(crate) gave_up: bool,
    /// It was opened where SYN cookies are sent.
    pub(crate) may_be_ghost: bool,
    /// Conversations that were between these ports before: a handshake of one of them may be
    /// completed when its other end has begun the next already.
    pub(crate) earlier: Vec<usize>,
    /// Bytes that the host may have to hold for it.
    pub(crate) window: u64,
    /// Stretches that have arrived beyond `rcv_tail`, apart and in order.
    ahead: Vec<Range<u64>>,
}

impl App {
    pub(crate) fn new(conversation: usize, end: usize, conn: ConnId, born: Nanos) -> App {
        App {
            conversation,
            end,
            conn,
            born,
            open: true,
            usable: false,
            queued: false,
            closed: false,
            written: 0,
            shut: false,
            consumed: 0,
            next_read: 0,
            rcv_tail: 0,
            snd_acked: 0,
            eof: false,
            error: None,
            gave_up: false,
            may_be_ghost: false,
            earlier: Vec::new(),
            window: 0,
            ahead: Vec::new(),
        }
    }

    /// Gives bytes of its stream to be sent.
    pub(crate) fn load(&self, offset: u64, out: &mut [u8]) {
        assert!(!self.closed && offset + out.len() as u64 <= self.written, "never written");
        assert!(offset >= self.snd_acked, "acknowledged bytes are asked for again");
        pattern::write(self.conversation, self.end, offset, out);
    }

    /// Takes received bytes.
    pub(crate) fn store(&mut self, offset: u64, bytes: &[u8]) {
        assert!(!self.closed && !bytes.is_empty());
        let end = offset + bytes.len() as u64;
        assert!(end <= self.consumed + self.window, "more than the window to hold");
        if let Some(earlier) = self.earlier_one(offset, bytes) {
            self.conversation = earlier;
        } else if self.is_ghost(offset, bytes) {
            self.conversation = STRANGER;
        }
        if self.conversation != STRANGER {
            let right = pattern::is(self.conversation, 1 - self.end, offset, bytes);
            assert!(right, "{} wrong bytes at {offset}: {}", bytes.len(), self.describe());
        }
        let met = |range: &Range<u64>| range.start <= end && range.end >= offset;
        let mut merged = offset..end;
        for range in self.ahead.iter().filter(|range| met(range)) {
            merged = merged.start.min(range.start)..merged.end.max(range.end);
        }
        self.ahead.retain(|range| !met(range));
        let place = self.ahead.partition_point(|range| range.start < merged.start);
        self.ahead.insert(place, merged);
    }

    /// The conversation of before that these first bytes are of, if they are not of the last one.
    fn earlier_one(&self, offset: u64, bytes: &[u8]) -> Option<usize> {
        let is_first = self.rcv_tail == 0 && self.ahead.is_empty();
        let is_of = |conversation: usize| pattern::is(conversation, 1 - self.end, offset, bytes);
        let others = self.earlier.iter().copied().filter(|_| is_first && !is_of(self.conversation));
        others.rev().find(|conversation| is_of(*conversation))
    }

    /// A SYN cookie can be used again: by a late duplicate of a segment of the last connection
    /// between these ports.
    fn is_ghost(&self, offset: u64, bytes: &[u8]) -> bool {
        self.may_be_ghost
            && self.rcv_tail == 0
            && self.ahead.is_empty()
            && !pattern::is(self.conversation, 1 - self.end, offset, bytes)
    }

    pub(crate) fn update(&mut self, update: &Update) {
        assert!(!self.closed && update.rcv_tail >= self.rcv_tail);
        assert!(update.snd_acked >= self.snd_acked && update.snd_acked <= self.written);
        if update.rcv_tail > self.rcv_tail {
            let first = self.ahead.first().cloned().unwrap_or_default();
            let here = first.start <= self.rcv_tail && first.end >= update.rcv_tail;
            assert!(here, "a byte that never came is in order: {}", self.describe());
            if first.end == update.rcv_tail {
                self.ahead.remove(0);
            }
        }
        self.rcv_tail = update.rcv_tail;
        self.snd_acked = update.snd_acked;
        self.usable |= update.events.contains(Events::ESTABLISHED);
        self.eof |= update.events.contains(Events::PEER_FIN);
        self.error = update.error.or(self.error);
    }

    /// Without an error and as long as it took.
    pub(crate) fn is_clean(&self) -> bool {
        self.error.is_none() && !self.gave_up
    }

    /// For a failure's message.
    pub(crate) fn describe(&self) -> String {
        let App { usable, queued, eof, error, written, snd_acked, rcv_tail, born, .. } = self;
        format!(
            "born {born} usable {usable} queued {queued} eof {eof} error {error:?} \
             written {written} acknowledged {snd_acked} received {rcv_tail}"
        )
    }
}
