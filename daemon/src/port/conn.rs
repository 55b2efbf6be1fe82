//! The private half of a connection's shared block: extents held, offsets checked.

use super::Evict;
use super::extents::ExtentPool;
use super::notify::Pending;
use fourwave_protocol::conn::ConnBlock;
use fourwave_protocol::{
    EXTENT_BYTES, EXTENT_SLOTS, ExtentId, STREAM_WINDOW, Segment, position_of, slot_of,
};

const PAGE: u64 = EXTENT_BYTES as u64;

/// Who still needs the connection's slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Nobody: on the free list.
    Free,
    /// Stack and application.
    Open,
    /// The application only: the stack is done with it, its last bytes may still be read.
    Ended,
    /// The stack only: the handle is gone.
    Orphan,
}

/// What the worker keeps of a connection of a group. The block in shared memory repeats some of
/// it for the client; only this copy is believed.
#[derive(Debug, Clone)]
pub struct Conn {
    /// Who needs it.
    pub life: Life,
    /// Moves on with every use of the slot.
    pub generation: u32,
    /// The stack's name for it.
    pub stack: u64,
    /// Listener of the segment that it came through; `None` for active opens.
    pub listener: Option<u32>,
    /// Status bits as published last.
    pub(super) status: u32,
    receive_tail: u64,
    receive_head: u64,
    /// What [`take_new_base`](Self::take_new_base) gave last.
    told_base: u64,
    /// One past the highest byte stored, in order or not.
    stored_end: u64,
    receive: [Option<ExtentId>; EXTENT_SLOTS],
    send_tail: u64,
    send_acked: u64,
    send: [Option<ExtentId>; EXTENT_SLOTS],
    /// Extents held in both tables, so that releasing a short connection's is quick.
    held: u8,
    pub(super) pending: Pending,
    /// Next free slot while free.
    pub(super) next_free: u32,
}

impl Conn {
    pub(super) fn free(next_free: u32) -> Conn {
        Conn {
            life: Life::Free,
            generation: 0,
            stack: 0,
            listener: None,
            status: 0,
            receive_tail: 0,
            receive_head: 0,
            told_base: 0,
            stored_end: 0,
            receive: [None; EXTENT_SLOTS],
            send_tail: 0,
            send_acked: 0,
            send: [None; EXTENT_SLOTS],
            held: 0,
            pending: Pending::default(),
            next_free,
        }
    }

    /// Begins a new use of a free slot.
    pub(super) fn begin(&mut self, stack: u64, listener: Option<u32>) {
        assert_eq!((self.life, self.held), (Life::Free, 0));
        self.life = Life::Open;
        self.generation = self.generation.wrapping_add(1);
        self.stack = stack;
        self.listener = listener;
        self.status = 0;
        (self.receive_tail, self.receive_head, self.stored_end) = (0, 0, 0);
        self.told_base = 0;
        (self.send_tail, self.send_acked) = (0, 0);
        // An event of the slot's former use may still lie in a ring; it names the old generation,
        // so that it does not stand in for one about this use.
        self.pending.last = None;
        self.pending.changed = 0;
    }

    /// Offset up to which the client may write now.
    pub(super) fn send_limit(&self) -> u64 {
        self.send_acked / PAGE * PAGE + STREAM_WINDOW
    }

    /// Where the receive window may begin: the table has slots from this page on.
    pub fn receive_base(&self) -> u64 {
        self.receive_head / PAGE * PAGE
    }

    /// [`receive_base`](Self::receive_base), if the stack was not told of it yet. Storing bytes
    /// moves it too, when nobody can tell the stack.
    pub(super) fn take_new_base(&mut self) -> Option<u64> {
        let base = self.receive_base();
        let told = std::mem::replace(&mut self.told_base, base);
        (base != told).then_some(base)
    }

    /// Offset up to which bytes were delivered to the client.
    pub(super) fn receive_tail(&self) -> u64 {
        self.receive_tail
    }

    /// Offset up to which the client has read, as checked last.
    pub fn receive_head(&self) -> u64 {
        self.receive_head
    }

    /// Offset up to which the client has written, as checked last.
    pub fn send_tail(&self) -> u64 {
        self.send_tail
    }

    /// Keeps received bytes; `false` if there is no extent for them or no slot.
    pub(super) fn store(
        &mut self,
        segment: &Segment,
        block: &ConnBlock,
        pool: &mut ExtentPool,
        mut offset: u64,
        mut bytes: &[u8],
    ) -> bool {
        let end = offset + bytes.len() as u64;
        if offset < self.receive_base() || end > self.receive_base() + STREAM_WINDOW {
            return false;
        }
        let next = offset <= self.receive_tail;
        while !bytes.is_empty() {
            let (slot, position) = (slot_of(offset), position_of(offset));
            let extent = match self.receive[slot] {
                Some(extent) => extent,
                None => {
                    let Some(extent) = pool.take_for_receive(next) else { return false };
                    self.receive[slot] = Some(extent);
                    self.held += 1;
                    // Relaxed: published by the Release store of receive_tail.
                    block.receive_slots[slot]
                        .store(extent.raw(), core::sync::atomic::Ordering::Relaxed);
                    extent
                }
            };
            let here = bytes.len().min(EXTENT_BYTES - position);
            segment.write_extent(extent, position, &bytes[..here]);
            bytes = &bytes[here..];
            offset += here as u64;
        }
        self.stored_end = self.stored_end.max(end);
        true
    }

    /// Everything up to `tail` is in order: the client may read it.
    pub(super) fn deliver(&mut self, block: &ConnBlock, tail: u64) {
        assert!(tail >= self.receive_tail);
        self.receive_tail = tail;
        block.publish_receive_tail(tail);
    }

    /// Looks how far the client has read, and frees what it has.
    pub(super) fn look_at_head(
        &mut self,
        block: &ConnBlock,
        pool: &mut ExtentPool,
    ) -> Result<(), Evict> {
        let head = block.receive_head();
        if head < self.receive_head || head > self.receive_tail {
            return Err(Evict::ReceiveHead);
        }
        let mut page = self.receive_head / PAGE;
        self.receive_head = head;
        while page < head / PAGE {
            self.free_receive(pool, slot_of(page * PAGE));
            page += 1;
        }
        // Drained: the client looks at slots again only after the next deliver(), and nothing
        // out of order lies in this extent.
        if head == self.receive_tail && self.stored_end <= head {
            self.free_receive(pool, slot_of(head));
        }
        Ok(())
    }

    fn free_receive(&mut self, pool: &mut ExtentPool, slot: usize) {
        if let Some(extent) = self.receive[slot].take() {
            self.held -= 1;
            pool.release(extent);
        }
    }

    /// The client says that it has written up to `tail`: checks it and takes the extents over.
    /// Calls `claimed` with the lane that each had been granted to.
    pub(super) fn take_written(
        &mut self,
        block: &ConnBlock,
        pool: &mut ExtentPool,
        tail: u64,
        mut claimed: impl FnMut(u16),
    ) -> Result<(), Evict> {
        if tail > self.send_limit() {
            return Err(Evict::SendTail);
        }
        // Commands of two lanes can overtake each other: a smaller tail is old news.
        if tail <= self.send_tail {
            return Ok(());
        }
        for page in self.send_tail / PAGE..=(tail - 1) / PAGE {
            let slot = slot_of(page * PAGE);
            let named = block.send_slot(slot).ok_or(Evict::SendExtent)?;
            match self.send[slot] {
                // Appended to the extent that is ours already: only possible for the first page.
                Some(ours) if ours == named => {}
                Some(_) => return Err(Evict::SendExtent),
                None => {
                    claimed(pool.claim_for_send(named)?);
                    self.send[slot] = Some(named);
                    self.held += 1;
                }
            }
        }
        self.send_tail = tail;
        Ok(())
    }

    /// Copies bytes to send; they lie between what is acknowledged and what was written.
    pub(super) fn load(&self, segment: &Segment, mut offset: u64, mut out: &mut [u8]) {
        assert!(offset >= self.send_acked && offset + out.len() as u64 <= self.send_tail);
        while !out.is_empty() {
            let position = position_of(offset);
            let here = out.len().min(EXTENT_BYTES - position);
            let (now, rest) = out.split_at_mut(here);
            let extent = self.send[slot_of(offset)].expect("written bytes have an extent");
            segment.read_extent(extent, position, now);
            out = rest;
            offset += here as u64;
        }
    }

    /// The peer has acknowledged up to `acked`: frees what is no longer needed.
    pub(super) fn acknowledge(&mut self, block: &ConnBlock, pool: &mut ExtentPool, acked: u64) {
        assert!(acked >= self.send_acked && acked <= self.send_tail);
        let mut page = self.send_acked / PAGE;
        self.send_acked = acked;
        while page < acked / PAGE {
            self.free_send(pool, slot_of(page * PAGE));
            page += 1;
        }
        let drained = acked == self.send_tail && !acked.is_multiple_of(PAGE);
        if drained && block.release_open_extent(acked) {
            self.free_send(pool, slot_of(acked));
        }
        use core::sync::atomic::Ordering::{Relaxed, Release};
        block.daemon.send_acked.store(acked, Relaxed);
        // Release: pairs with the client's Acquire load of send_limit; slots below are free.
        block.daemon.send_limit.store(self.send_limit(), Release);
    }

    fn free_send(&mut self, pool: &mut ExtentPool, slot: usize) {
        if let Some(extent) = self.send[slot].take() {
            self.held -= 1;
            pool.release(extent);
        }
    }

    /// The stack needs no bytes to send any more.
    pub(super) fn release_send(&mut self, pool: &mut ExtentPool) {
        for slot in 0..EXTENT_SLOTS {
            if self.held == 0 {
                break;
            }
            self.free_send(pool, slot);
        }
    }

    /// The client reads no more.
    pub(super) fn release_receive(&mut self, pool: &mut ExtentPool) {
        for slot in 0..EXTENT_SLOTS {
            if self.held == 0 {
                break;
            }
            self.free_receive(pool, slot);
        }
    }

    /// Payload extents that it holds.
    pub fn held(&self) -> u8 {
        self.held
    }
}
