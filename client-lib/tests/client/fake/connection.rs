//! The daemon's private half of one connection.

use fourwave_protocol::conn::{ConnBlock, status};
use fourwave_protocol::{
    EXTENT_BYTES, EXTENT_SLOTS, ExtentId, STREAM_WINDOW, Segment, position_of, slot_of,
};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

const PAGE: u64 = EXTENT_BYTES as u64;

/// How the client closed, and all that it had sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) abort: bool,
    pub(crate) sent: Vec<u8>,
}

#[derive(Debug, Default)]
pub(crate) struct Connection {
    pub(crate) open: bool,
    pub(crate) generation: u32,
    pub(crate) status: u32,
    /// Where sent bytes go: another connection, or `sent`.
    pub(crate) partner: Option<usize>,
    /// All that the client sent, when a test plays the peer.
    pub(crate) sent: Vec<u8>,
    /// Bytes on their way to the client, and what comes after them.
    pub(crate) inbox: VecDeque<u8>,
    pub(crate) fin: bool,
    /// Bytes that the peer does not acknowledge for now.
    pub(crate) hold_acks: bool,
    pub(crate) fin_sent: bool,
    pub(crate) receive: [Option<ExtentId>; EXTENT_SLOTS],
    pub(crate) receive_head: u64,
    pub(crate) receive_tail: u64,
    pub(crate) send: [Option<ExtentId>; EXTENT_SLOTS],
    pub(crate) send_tail: u64,
    /// Copied out of the extents.
    pub(crate) send_taken: u64,
    pub(crate) send_acked: u64,
    /// Lane and ordinal of the last event.
    pub(crate) event: Option<(u16, u64)>,
    /// The client is to be told.
    pub(crate) changed_read: bool,
    pub(crate) changed_write: bool,
    /// `Consumed` commands seen.
    pub(crate) consumed: u32,
}

impl Connection {
    /// Looks at the head, frees what was read, and delivers what fits.
    pub(crate) fn deliver(
        &mut self,
        segment: &Segment,
        block: &ConnBlock,
        free: &mut Vec<ExtentId>,
    ) {
        let head = block.receive_head();
        assert!((self.receive_head..=self.receive_tail).contains(&head), "a mad receive head");
        for page in self.receive_head / PAGE..head / PAGE {
            free.extend(self.receive[slot_of(page * PAGE)].take());
        }
        self.receive_head = head;
        if head == self.receive_tail {
            free.extend(self.receive[slot_of(head)].take());
        }
        let limit = head / PAGE * PAGE + STREAM_WINDOW;
        let before = self.receive_tail;
        while !self.inbox.is_empty() && self.receive_tail < limit {
            let (slot, position) = (slot_of(self.receive_tail), position_of(self.receive_tail));
            let extent = match self.receive[slot] {
                Some(extent) => extent,
                None => match free.pop() {
                    Some(extent) => extent,
                    None => break,
                },
            };
            self.receive[slot] = Some(extent);
            block.receive_slots[slot].store(extent.raw(), Ordering::Relaxed);
            let room = (EXTENT_BYTES - position).min((limit - self.receive_tail) as usize);
            let count = self.inbox.len().min(room);
            let bytes: Vec<u8> = self.inbox.drain(..count).collect();
            segment.write_extent(extent, position, &bytes);
            self.receive_tail += count as u64;
        }
        if self.receive_tail != before {
            block.publish_receive_tail(self.receive_tail);
            self.changed_read = true;
        }
        if self.fin && self.inbox.is_empty() && self.status & status::PEER_CLOSED == 0 {
            self.add_status(block, status::PEER_CLOSED);
        }
    }

    pub(crate) fn add_status(&mut self, block: &ConnBlock, bits: u32) {
        self.status |= bits;
        block.publish_status(self.status);
        self.changed_read = true;
        self.changed_write = true;
    }

    /// Takes over what the client says it has written.
    pub(crate) fn written(
        &mut self,
        block: &ConnBlock,
        tail: u64,
        mut claim: impl FnMut(ExtentId),
    ) {
        assert!(tail <= self.send_limit(), "wrote beyond the limit");
        if tail <= self.send_tail {
            return;
        }
        for page in self.send_tail / PAGE..=(tail - 1) / PAGE {
            let slot = slot_of(page * PAGE);
            let named = block.send_slot(slot).expect("an extent for each page");
            match self.send[slot] {
                Some(ours) => assert_eq!(ours, named, "changed an extent that is ours"),
                None => {
                    claim(named);
                    self.send[slot] = Some(named);
                }
            }
        }
        self.send_tail = tail;
    }

    /// Bytes that were written and not yet taken, at most `most`.
    pub(crate) fn take_sent(&mut self, segment: &Segment, most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.send_taken < self.send_tail && bytes.len() < most {
            let position = position_of(self.send_taken);
            let here = (EXTENT_BYTES - position)
                .min((self.send_tail - self.send_taken) as usize)
                .min(most - bytes.len());
            let start = bytes.len();
            bytes.resize(start + here, 0);
            let extent = self.send[slot_of(self.send_taken)].expect("held until acknowledged");
            segment.read_extent(extent, position, &mut bytes[start..]);
            self.send_taken += here as u64;
        }
        bytes
    }

    /// The peer acknowledges all that was taken.
    pub(crate) fn acknowledge(&mut self, block: &ConnBlock, free: &mut Vec<ExtentId>) {
        if self.hold_acks || self.send_acked == self.send_taken {
            return;
        }
        let acked = self.send_taken;
        for page in self.send_acked / PAGE..acked / PAGE {
            free.extend(self.send[slot_of(page * PAGE)].take());
        }
        self.send_acked = acked;
        let inside = position_of(acked) != 0;
        if inside && acked == self.send_tail && block.release_open_extent(acked) {
            free.extend(self.send[slot_of(acked)].take());
        }
        block.daemon.send_acked.store(acked, Ordering::Relaxed);
        block.daemon.send_limit.store(self.send_limit(), Ordering::Release);
        self.changed_write = true;
    }

    pub(crate) fn send_limit(&self) -> u64 {
        self.send_acked / PAGE * PAGE + STREAM_WINDOW
    }

    /// All extents, at the end.
    pub(crate) fn release(&mut self, free: &mut Vec<ExtentId>) {
        free.extend(self.receive.iter_mut().filter_map(Option::take));
        free.extend(self.send.iter_mut().filter_map(Option::take));
    }
}
