//! The private half of a connection's shared block: extents held, offsets checked.

use super::Evict;
use super::chain::Chain;
use super::extents::ExtentPool;
use super::notify::Pending;
use super::tables::{Pages, Tables};
use fourwave_protocol::conn::ConnBlock;
use fourwave_protocol::{
    EXTENT_BYTES, EXTENT_SLOTS, ExtentId, FIRST_WINDOW, Process, Segment, page_of, position_of,
};
use fourwave_tcp::Settings;

const PAGE: u64 = EXTENT_BYTES as u64;

/// Receive extents that no promise is needed for: the first window's.
const UNPROMISED: u32 = EXTENT_SLOTS as u32;

/// What the connections of a group share at one worker.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) pool: ExtentPool,
    pub(super) tables: Tables,
}

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
    /// Processes that hold it: none until it is accepted.
    pub(super) holders: u16,
    /// What the application has chosen; the stack is told.
    pub settings: Settings,
    /// Status bits as published last.
    pub(super) status: u32,
    receive_tail: u64,
    receive_head: u64,
    /// What [`take_new_base`](Self::take_new_base) gave last.
    told_base: u64,
    /// One past the highest byte stored, in order or not.
    stored_end: u64,
    pages: Pages,
    /// Extents of received bytes.
    receiving: u32,
    /// Extents promised to the receive window besides the first ones.
    promised: u32,
    send_tail: u64,
    send_acked: u64,
    /// Offset up to which the client may write. It never goes back.
    send_limit: u64,
    chain: Chain,
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
            holders: 0,
            settings: Settings::default(),
            status: 0,
            receive_tail: 0,
            receive_head: 0,
            told_base: 0,
            stored_end: 0,
            pages: Pages::NONE,
            receiving: 0,
            promised: 0,
            send_tail: 0,
            send_acked: 0,
            send_limit: 0,
            chain: Chain::default(),
            pending: Pending::default(),
            next_free,
        }
    }

    /// Begins a new use of a free slot.
    pub(super) fn begin(&mut self, stack: u64, listener: Option<u32>, settings: &Settings) {
        assert_eq!((self.life, self.held(), self.promised), (Life::Free, 0, 0));
        self.life = Life::Open;
        self.generation = self.generation.wrapping_add(1);
        self.stack = stack;
        self.listener = listener;
        self.holders = 0;
        self.status = 0;
        (self.receive_tail, self.receive_head, self.stored_end) = (0, 0, 0);
        self.told_base = 0;
        (self.send_tail, self.send_acked) = (0, 0);
        self.begin_with(settings);
        // An event of the slot's former use may still lie in a ring; it names the old generation,
        // so that it does not stand in for one about this use.
        self.pending.last = [None; 2];
        self.pending.changed = 0;
    }

    /// Choices that were made before a connection which has just begun.
    pub(super) fn begin_with(&mut self, settings: &Settings) {
        self.settings = *settings;
        self.send_limit = self.end_of(FIRST_WINDOW);
    }

    /// `SO_SNDBUF` was set: what may be written at once. It never goes back, because the client may
    /// have used it.
    pub(super) fn resize_send_buffer(&mut self) {
        self.send_limit = self.send_limit.max(self.end_of(FIRST_WINDOW));
    }

    /// Where a buffer of `space` bytes ends: what `SO_SNDBUF` allows of it, else whole pages.
    fn end_of(&self, space: u64) -> u64 {
        match self.settings.send_buffer {
            0 => page_of(self.send_acked) * PAGE + space,
            chosen => self.send_acked + space.min(u64::from(chosen)),
        }
    }

    /// Offset up to which the client may write now.
    pub(super) fn send_limit(&self) -> u64 {
        self.send_limit
    }

    /// Where the receive window may begin: pages from this one on have slots.
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

    /// Keeps received bytes; `false` if there is no extent or no slot for them.
    pub(super) fn store(
        &mut self,
        segment: &Segment,
        block: &ConnBlock,
        memory: &mut Memory,
        mut offset: u64,
        mut bytes: &[u8],
    ) -> bool {
        let end = offset + bytes.len() as u64;
        let base = self.receive_base();
        if offset < base || end > base + memory.tables.slots() * PAGE {
            return false;
        }
        let span = (page_of(base), page_of(end.max(base + 1) - 1));
        if !self.pages.reach(segment, block, &mut memory.tables, span) {
            return false;
        }
        let next = offset <= self.receive_tail;
        while !bytes.is_empty() {
            let (page, position) = (page_of(offset), position_of(offset));
            let extent = match self.pages.get(&memory.tables, page) {
                Some(extent) => extent,
                None => {
                    let Some(extent) = self.take_extent(&mut memory.pool, next) else {
                        return false;
                    };
                    self.pages.set(segment, block, &mut memory.tables, page, extent);
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

    fn take_extent(&mut self, pool: &mut ExtentPool, next: bool) -> Option<ExtentId> {
        let extent = match self.is_promised(self.receiving) {
            true => pool.take_promised(),
            false => pool.take_for_receive(next)?,
        };
        self.receiving += 1;
        Some(extent)
    }

    /// Whether one more extent than `others` is promised.
    fn is_promised(&self, others: u32) -> bool {
        (UNPROMISED..UNPROMISED + self.promised).contains(&others)
    }

    fn free_receive(&mut self, memory: &mut Memory, page: u64) {
        let Some(extent) = self.pages.take(&mut memory.tables, page) else { return };
        self.receiving -= 1;
        match self.is_promised(self.receiving) {
            true => memory.pool.release_promised(extent),
            false => memory.pool.release(extent),
        }
    }

    /// The stack wants a receive window of `bytes`: promises what is beyond the first window, as
    /// far as the group's memory goes. Returns the window that it may offer.
    pub(super) fn back_window(&mut self, memory: &mut Memory, bytes: u32) -> u32 {
        let Memory { pool, tables } = memory;
        // A table has 2^18 slots at the most.
        let pages = bytes.div_ceil(EXTENT_BYTES as u32).min(tables.slots() as u32);
        let wanted = pages.saturating_sub(UNPROMISED);
        let share = pool.share(self.promised).max(self.promised);
        let promised = match wanted > 0 && !self.pages.promise(tables) {
            true => self.promised.min(wanted),
            false => wanted.min(share),
        };
        pool.promise(self.promised, promised, self.receiving.saturating_sub(UNPROMISED));
        self.promised = promised;
        if promised == 0 {
            self.pages.take_promise_back(tables);
        }
        // What lies within the first window needs no promise.
        bytes.min((UNPROMISED + promised) * EXTENT_BYTES as u32)
    }

    /// Whether extents are promised to it.
    pub fn is_backed(&self) -> bool {
        self.promised > 0
    }

    /// Whether its client has read or written, which nobody may before accepting.
    pub(super) fn is_used(&self) -> bool {
        self.receive_head > 0 || self.send_tail > 0
    }

    /// Takes over what `theirs`, which nobody has used, has received; `false` if there are not
    /// enough extents.
    pub(super) fn copy_received(
        &mut self,
        (segment, block, memory): (&Segment, &ConnBlock, &mut Memory),
        theirs: &Conn,
        (their_segment, their_memory): (&Segment, &Memory),
    ) -> bool {
        let mut bytes = [0; EXTENT_BYTES];
        for page in 0..theirs.stored_end.div_ceil(PAGE) {
            // Where bytes are missing yet, whole pages can be.
            let Some(extent) = theirs.pages.get(&their_memory.tables, page) else { continue };
            let offset = page * PAGE;
            let bytes = &mut bytes[..(theirs.stored_end - offset).min(PAGE) as usize];
            their_segment.read_extent(extent, 0, bytes);
            if !self.store(segment, block, memory, offset, bytes) {
                return false;
            }
        }
        self.deliver(block, theirs.receive_tail);
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
        memory: &mut Memory,
    ) -> Result<(), Evict> {
        let head = block.receive_head();
        if head < self.receive_head || head > self.receive_tail {
            return Err(Evict::ReceiveHead);
        }
        for page in page_of(self.receive_head)..page_of(head) {
            self.free_receive(memory, page);
        }
        self.receive_head = head;
        // Drained: the client looks at slots again only after the next deliver(), and nothing
        // out of order lies in this extent.
        if head == self.receive_tail && self.stored_end <= head {
            self.free_receive(memory, page_of(head));
            self.pages.settle(block, &mut memory.tables);
        }
        Ok(())
    }

    /// The client says that it has written up to `tail`, and that `last` is the extent of the
    /// last byte: checks it and takes the extents over. Calls `claimed` with the lane that each
    /// had been granted to.
    pub(super) fn take_written(
        &mut self,
        segment: &Segment,
        pool: &mut ExtentPool,
        tail: u64,
        last: Option<ExtentId>,
        claimed: impl FnMut(u16),
    ) -> Result<(), Evict> {
        if tail > self.send_limit {
            return Err(Evict::SendTail);
        }
        // Commands of two lanes can overtake each other: a smaller tail is old news.
        if tail <= self.send_tail {
            return Ok(());
        }
        let end = page_of(tail - 1);
        let first = match self.chain.last() {
            // Appended to the extent that is ours already, and no more.
            Some((page, extent)) if page == end && last == Some(extent) => {
                self.send_tail = tail;
                return Ok(());
            }
            Some((page, _)) if page == end => return Err(Evict::SendExtent),
            Some((page, _)) => page + 1,
            None => page_of(self.send_tail),
        };
        self.chain.claim(segment, pool, (first, end), last, claimed)?;
        self.send_tail = tail;
        Ok(())
    }

    /// Copies bytes to send; they lie between what is acknowledged and what was written.
    pub(super) fn load(
        &self,
        segment: &Segment,
        pool: &ExtentPool,
        mut offset: u64,
        mut out: &mut [u8],
    ) {
        assert!(offset >= self.send_acked && offset + out.len() as u64 <= self.send_tail);
        while !out.is_empty() {
            let position = position_of(offset);
            let here = out.len().min(EXTENT_BYTES - position);
            let (now, rest) = out.split_at_mut(here);
            segment.read_extent(self.chain.find(pool, page_of(offset)), position, now);
            out = rest;
            offset += here as u64;
        }
    }

    /// The peer has acknowledged up to `acked`: frees what is no longer needed. From there on the
    /// client may have `space` bytes written, as far as the group's memory goes.
    pub(super) fn acknowledge(
        &mut self,
        block: &ConnBlock,
        pool: &mut ExtentPool,
        acked: u64,
        space: u32,
    ) {
        assert!(acked >= self.send_acked && acked <= self.send_tail);
        self.send_acked = acked;
        self.chain.release_before(pool, page_of(acked));
        let drained = acked == self.send_tail && !acked.is_multiple_of(PAGE);
        if drained && block.release_open_extent(acked) {
            self.chain.clear(pool);
        }
        let space = match self.settings.send_buffer {
            0 => space,
            chosen => chosen,
        };
        let space = match u64::from(space) > FIRST_WINDOW {
            true => {
                let share = u64::from(pool.send_share(self.chain.len())) * PAGE;
                u64::from(space).min(share.max(FIRST_WINDOW))
            }
            false => u64::from(space),
        };
        self.send_limit = self.send_limit.max(self.end_of(space));
        use core::sync::atomic::Ordering::{Relaxed, Release};
        block.daemon.send_acked.store(acked, Relaxed);
        // Release: pairs with the client's Acquire load of send_limit.
        block.daemon.send_limit.store(self.send_limit, Release);
    }

    /// A process that may have been writing is dead: see [`ConnBlock::put_right`]. Every command
    /// that others had posted before has been worked on.
    pub(super) fn put_right(&mut self, block: &ConnBlock, pool: &mut ExtentPool, dead: Process) {
        let last = self.chain.last().map(|(_, extent)| extent);
        block.put_right(dead, self.send_tail, last);
        // While the dead process was appending, nothing could be released.
        if self.life == Life::Ended {
            return self.drop_unsent(block, pool);
        }
        let drained = self.send_acked == self.send_tail && !self.send_tail.is_multiple_of(PAGE);
        if drained && block.release_open_extent(self.send_tail) {
            self.chain.clear(pool);
        }
    }

    /// The stack needs no bytes to send any more, but the client may not know yet: it may be
    /// appending to the last extent, or have posted that it has. That one stays until its command
    /// comes, or nobody can send one.
    pub(super) fn drop_unsent(&mut self, block: &ConnBlock, pool: &mut ExtentPool) {
        let whole = self.send_tail.is_multiple_of(PAGE);
        if whole || block.release_open_extent(self.send_tail) {
            self.chain.clear(pool);
        } else {
            self.chain.release_before(pool, page_of(self.send_tail));
        }
    }

    /// Neither the stack nor the client needs bytes to send any more.
    pub(super) fn release_send(&mut self, pool: &mut ExtentPool) {
        self.chain.clear(pool);
    }

    /// The client reads no more.
    pub(super) fn release_receive(&mut self, block: &ConnBlock, memory: &mut Memory) {
        let mut page = page_of(self.receive_head);
        while self.receiving > 0 {
            self.free_receive(memory, page);
            page += 1;
        }
        self.back_window(memory, 0);
        self.pages.settle(block, &mut memory.tables);
    }

    /// Payload extents that it holds.
    pub fn held(&self) -> u32 {
        self.receiving + self.chain.len()
    }
}
