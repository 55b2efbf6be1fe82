//! The daemon's private half of one connection.

use fourwave_protocol::conn::{ConnBlock, status};
use fourwave_protocol::option::ConnOption;
use fourwave_protocol::{
    EXTENT_BYTES, EXTENT_SLOTS, ExtentId, FIRST_WINDOW, Segment, page_of, position_of, slot_of,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;

const PAGE: u64 = EXTENT_BYTES as u64;

/// How the client closed, and all that it had sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) abort: bool,
    pub(crate) sent: Vec<u8>,
}

#[derive(Debug)]
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
    /// Bytes of each direction that may be buffered.
    pub(crate) window: u64,
    /// The table lent to it: there is one for each connection, with its number.
    pub(crate) table: Option<u32>,
    /// By page.
    pub(crate) receive: BTreeMap<u64, ExtentId>,
    pub(crate) receive_head: u64,
    pub(crate) receive_tail: u64,
    pub(crate) send: BTreeMap<u64, ExtentId>,
    pub(crate) send_tail: u64,
    /// Copied out of the extents.
    pub(crate) send_taken: u64,
    pub(crate) send_acked: u64,
    /// Lane and ordinal of the last event.
    pub(crate) event: Option<(u16, u64)>,
    /// The client is to be told.
    pub(crate) changed_read: bool,
    pub(crate) changed_write: bool,
    /// By `ConnOption::index`.
    pub(crate) options: [u32; ConnOption::ALL.len()],
    /// `Consumed` commands seen.
    pub(crate) consumed: u32,
}

impl Default for Connection {
    fn default() -> Connection {
        Connection {
            open: false,
            generation: 0,
            status: 0,
            partner: None,
            sent: Vec::new(),
            inbox: VecDeque::new(),
            fin: false,
            hold_acks: false,
            fin_sent: false,
            window: FIRST_WINDOW,
            table: None,
            receive: BTreeMap::new(),
            receive_head: 0,
            receive_tail: 0,
            send: BTreeMap::new(),
            send_tail: 0,
            send_taken: 0,
            send_acked: 0,
            event: None,
            changed_read: false,
            changed_write: false,
            options: [0; ConnOption::ALL.len()],
            consumed: 0,
        }
    }
}

impl Connection {
    /// Looks at the head, frees what was read, and delivers what fits.
    pub(crate) fn deliver(&mut self, segment: &Segment, index: u32, free: &mut Vec<ExtentId>) {
        let block = segment.connection(index).unwrap();
        let head = block.receive_head();
        assert!((self.receive_head..=self.receive_tail).contains(&head), "a mad receive head");
        for page in self.receive_head / PAGE..head / PAGE {
            free.extend(self.receive.remove(&page));
        }
        self.receive_head = head;
        if head == self.receive_tail {
            free.extend(self.receive.remove(&page_of(head)));
            self.table = None;
            block.publish_receive_table(None);
        }
        let limit = head / PAGE * PAGE + self.window;
        let before = self.receive_tail;
        while !self.inbox.is_empty() && self.receive_tail < limit {
            let (page, position) = (page_of(self.receive_tail), position_of(self.receive_tail));
            let Some(extent) = self.receive.get(&page).copied().or_else(|| free.pop()) else {
                break;
            };
            self.receive.insert(page, extent);
            self.name(segment, index, page);
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

    /// Tells the client the extent of `page`, by the block's slot or by the table's.
    fn name(&mut self, segment: &Segment, index: u32, page: u64) {
        let block = segment.connection(index).unwrap();
        if self.table.is_none() && page - page_of(self.receive_head) < EXTENT_SLOTS as u64 {
            let raw = self.receive[&page].raw();
            block.receive_slots[slot_of(page)].store(raw, Ordering::Relaxed);
            return;
        }
        let slots = segment.table(index).expect("as many tables as connections");
        for (&page, extent) in &self.receive {
            slots[page as usize % slots.len()].store(extent.raw(), Ordering::Relaxed);
        }
        self.table = Some(index);
        block.publish_receive_table(self.table);
    }

    pub(crate) fn add_status(&mut self, block: &ConnBlock, bits: u32) {
        self.status |= bits;
        block.publish_status(self.status);
        self.changed_read = true;
        self.changed_write = true;
    }

    /// Takes over what the client says it has written, from the last page back to what is known.
    pub(crate) fn written(
        &mut self,
        segment: &Segment,
        tail: u64,
        last: Option<ExtentId>,
        mut claim: impl FnMut(ExtentId),
    ) {
        assert!(tail <= self.send_limit(), "wrote beyond the limit");
        if tail <= self.send_tail {
            return;
        }
        let mut named = last;
        for page in (page_of(self.send_tail)..=page_of(tail - 1)).rev() {
            let extent = named.expect("an extent for each page");
            if let Some(ours) = self.send.insert(page, extent) {
                assert_eq!(ours, extent, "changed an extent that is ours");
                break;
            }
            claim(extent);
            named = ExtentId::from_raw(segment.link(extent).load(Ordering::Relaxed));
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
            let extent = self.send[&page_of(self.send_taken)];
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
            free.extend(self.send.remove(&page));
        }
        self.send_acked = acked;
        let inside = position_of(acked) != 0;
        if inside && acked == self.send_tail && block.release_open_extent(acked) {
            free.extend(self.send.remove(&page_of(acked)));
        }
        block.daemon.send_acked.store(acked, Ordering::Relaxed);
        block.daemon.send_limit.store(self.send_limit(), Ordering::Release);
        self.changed_write = true;
    }

    pub(crate) fn send_limit(&self) -> u64 {
        self.send_acked / PAGE * PAGE + self.window
    }

    /// All extents, at the end.
    pub(crate) fn release(&mut self, free: &mut Vec<ExtentId>) {
        free.extend(std::mem::take(&mut self.receive).into_values());
        free.extend(std::mem::take(&mut self.send).into_values());
    }
}
