//! Which extent holds each received page: in a connection's own slots while they span few pages,
//! else in a table of the group.
//!
//! Each table is there twice, under the same number: here, where it is believed, and in the
//! segment, for the client.

use core::sync::atomic::Ordering;
use fourwave_protocol::conn::ConnBlock;
use fourwave_protocol::{EXTENT_SLOTS, ExtentId, Segment, slot_of};

/// The tables of a group at one worker.
#[derive(Debug)]
pub(super) struct Tables {
    /// Number in the segment of our first table.
    base: u32,
    slots: usize,
    /// Raw extents, table after table. Zeroed memory that takes pages only where it is used.
    entries: Vec<u32>,
    free: Vec<u32>,
    /// Tables that are promised to connections and not taken yet.
    promised: usize,
}

impl Tables {
    /// `count` free tables of `slots` slots each, the first with number `base` in the segment.
    pub(super) fn new(base: u32, count: u32, slots: u32) -> Tables {
        let slots = slots as usize;
        Tables {
            base,
            slots,
            entries: vec![0; count as usize * slots],
            free: (0..count).rev().collect(),
            promised: 0,
        }
    }

    /// Pages that a table names.
    pub(super) fn slots(&self) -> u64 {
        self.slots as u64
    }

    /// Whether every table is free.
    pub(super) fn is_whole(&self) -> bool {
        self.promised == 0 && self.free.len() * self.slots == self.entries.len()
    }

    fn is_left(&self) -> bool {
        self.free.len() > self.promised
    }

    fn slot(&mut self, table: u32, page: u64) -> &mut u32 {
        let slot = page as usize % self.slots;
        &mut self.entries[table as usize * self.slots + slot]
    }
}

/// The received pages of a connection.
#[derive(Debug, Clone)]
pub(super) struct Pages {
    inline: [Option<ExtentId>; EXTENT_SLOTS],
    table: Option<u32>,
    /// A table is promised to it, or was taken by that promise.
    promised: bool,
}

impl Pages {
    pub(super) const NONE: Pages =
        Pages { inline: [None; EXTENT_SLOTS], table: None, promised: false };

    /// Promises it a table; `false` when none is left.
    pub(super) fn promise(&mut self, tables: &mut Tables) -> bool {
        if self.promised {
            return true;
        }
        if self.table.is_none() {
            if !tables.is_left() {
                return false;
            }
            tables.promised += 1;
        }
        self.promised = true;
        true
    }

    /// It will need no table.
    pub(super) fn take_promise_back(&mut self, tables: &mut Tables) {
        if core::mem::take(&mut self.promised) && self.table.is_none() {
            tables.promised -= 1;
        }
    }

    /// The extent of `page`.
    pub(super) fn get(&self, tables: &Tables, page: u64) -> Option<ExtentId> {
        match self.table {
            None => self.inline[slot_of(page)],
            Some(table) => {
                let slot = table as usize * tables.slots + page as usize % tables.slots;
                ExtentId::from_raw(tables.entries[slot])
            }
        }
    }

    /// Makes sure that `page` has a slot, all pages from `first` on being in use; `false` when
    /// that needs a table and none is left.
    pub(super) fn reach(
        &mut self,
        segment: &Segment,
        block: &ConnBlock,
        tables: &mut Tables,
        (first, page): (u64, u64),
    ) -> bool {
        if self.table.is_some() || page - first < EXTENT_SLOTS as u64 {
            return true;
        }
        let table = match self.promised || tables.is_left() {
            true => tables.free.pop(),
            false => None,
        };
        let Some(table) = table else { return false };
        tables.promised -= usize::from(self.promised);
        // A client that looks into the block's slots still finds the same there.
        for page in first..first + EXTENT_SLOTS as u64 {
            if let Some(extent) = self.inline[slot_of(page)].take() {
                *tables.slot(table, page) = extent.raw();
                tell(segment, tables.base + table, page, extent);
            }
        }
        self.table = Some(table);
        block.publish_receive_table(Some(tables.base + table));
        true
    }

    /// Gives `page`, which has a slot and no extent yet, an extent, and tells the client.
    pub(super) fn set(
        &mut self,
        segment: &Segment,
        block: &ConnBlock,
        tables: &mut Tables,
        page: u64,
        extent: ExtentId,
    ) {
        match self.table {
            None => {
                self.inline[slot_of(page)] = Some(extent);
                // Relaxed: published by the Release store of receive_tail.
                block.receive_slots[slot_of(page)].store(extent.raw(), Ordering::Relaxed);
            }
            Some(table) => {
                *tables.slot(table, page) = extent.raw();
                tell(segment, tables.base + table, page, extent);
            }
        }
    }

    /// Takes the extent of `page`.
    pub(super) fn take(&mut self, tables: &mut Tables, page: u64) -> Option<ExtentId> {
        match self.table {
            None => self.inline[slot_of(page)].take(),
            Some(table) => ExtentId::from_raw(core::mem::take(tables.slot(table, page))),
        }
    }

    /// No page has an extent, and the client has read all: its table is free again.
    pub(super) fn settle(&mut self, block: &ConnBlock, tables: &mut Tables) {
        if let Some(table) = self.table.take() {
            tables.free.push(table);
            tables.promised += usize::from(self.promised);
            block.publish_receive_table(None);
        }
    }
}

/// Names an extent to the client. Relaxed: published by the Release store of receive_tail, or of the
/// table's number.
fn tell(segment: &Segment, table: u32, page: u64, extent: ExtentId) {
    let slots = segment.table(table).expect("one of this worker's tables");
    slots[page as usize % slots.len()].store(extent.raw(), Ordering::Relaxed);
}
