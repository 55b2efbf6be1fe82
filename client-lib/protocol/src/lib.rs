//! The contract between `fourwaved` and its clients: one shared-memory segment per application
//! group, and a control socket.
//!
//! Both sides depend on this crate and on nothing else of each other. The daemon creates the
//! segment ([`Segment::create`]), sizes it once, seals it and sends it over the control socket;
//! a client maps it ([`Segment::map`]). Everything in it is reached through atomics
//! ([`conn::ConnBlock`], [`ring`], [`accept`]) or copied through raw pointers (payload
//! *extents*), so no `&[u8]` is ever formed over bytes that the other side can still write.
//!
//! # Who trusts whom
//! A client trusts the daemon. **The daemon trusts nothing that a client can write**: its own
//! cursors ([`ring::Producer`], [`ring::Consumer`], [`accept::AcceptProducer`]) are private, a
//! foreign index is loaded once, checked, and only the local copy is used; an impossible value
//! is [`Corrupt`], and the client that caused it is evicted.
//!
//! # Shape of a segment
//! | section | one per | written by |
//! |---|---|---|
//! | [`Header`] | segment | daemon, once |
//! | [`wake::Sleeper`] | worker, and lane | its owner |
//! | [`accept::ListenerBlock`] | listener | both |
//! | accept ring | listener × worker | worker in, any client thread out |
//! | command, event and grant rings | lane × worker | one side each |
//! | [`conn::ConnBlock`] | connection | both, in separate cache lines |
//! | link | extent | client, for what it sends |
//! | table of receive extents | connection that outgrew its block, while it holds bytes | daemon |
//! | extents of [`EXTENT_BYTES`] | as bytes need them | receive: daemon; send: client |
//!
//! A **lane** is a set of rings, one per worker, with a socket pair per worker as doorbell. Each
//! client thread has one of its own, and so has each poller.
//!
//! # Processes
//! All processes of a group map the same segment: a [`Process`] begins with a `Hello`, or as a fork
//! of another one. A fork holds what the asking process held, has a control connection of its own,
//! whose end is the end of its holds, and no lane yet. What two processes do to one connection is
//! ordered by the [locks](lock) in its block.
//!
//! # A stream's bytes
//! Bytes are addressed by their offset in the stream (0 is the first byte after the SYN). The
//! byte at offset `o` belongs to page `o / EXTENT_BYTES` and lies in that page's extent, at
//! position `o % EXTENT_BYTES`. Bytes never move.
//!
//! **Received** pages are found by slot, [`Segment::receive_extent`]: in the connection's block
//! (page modulo [`EXTENT_SLOTS`]) while they span no more than that, else in a table that the
//! daemon lends to the connection until it is drained (page modulo [`Params::table_slots`]). A
//! table starts as a copy of the block's slots, so that a client that still looks there is right.
//!
//! **Sent** pages are a chain: a command that posts bytes names the extent of the last page, and
//! the link of each extent the one of the page before. The client writes links of extents only
//! that were granted to it, so that none can point to what became another's meanwhile; how far
//! back the daemon follows them is for it to know.

#![warn(missing_docs)]

pub mod accept;
pub mod capture;
pub mod command;
pub mod conn;
pub mod control;
pub mod layout;
pub mod lock;
#[cfg(all(test, loom))]
mod model;
pub mod option;
pub mod process;
pub mod query;
pub mod report;
pub mod ring;
pub mod segment;
mod sync;
pub mod wake;

pub use layout::{Layout, Params};
pub use process::Process;
pub use segment::{Header, Segment, SegmentError};

/// Version of everything in this crate. Client and daemon must agree on it exactly.
pub const VERSION: u32 = 4;

/// Bytes in one payload extent: a page, so that returned extents can be punched out.
pub const EXTENT_BYTES: usize = 4096;

/// Receive extents that a connection's block has slots for.
pub const EXTENT_SLOTS: usize = 16;

/// Bytes that each direction of a connection can buffer from the beginning, before it has grown.
pub const FIRST_WINDOW: u64 = (EXTENT_BYTES * EXTENT_SLOTS) as u64;

/// The other side of a shared structure holds a value that no correct peer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer wrote an impossible value into shared memory")]
pub struct Corrupt;

/// Names an extent: its index in the segment plus one, so that zeroed memory means "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExtentId(core::num::NonZeroU32);

impl ExtentId {
    /// The extent with this index, counted over the whole segment.
    ///
    /// # Panics
    /// If `index` is `u32::MAX`; [`Params::check`] keeps segments far smaller.
    pub const fn from_index(index: u32) -> ExtentId {
        match core::num::NonZeroU32::new(index.wrapping_add(1)) {
            Some(id) => ExtentId(id),
            None => panic!("extent index out of range"),
        }
    }

    /// What a slot holds: `None` for an empty slot.
    pub const fn from_raw(raw: u32) -> Option<ExtentId> {
        match core::num::NonZeroU32::new(raw) {
            Some(id) => Some(ExtentId(id)),
            None => None,
        }
    }

    /// The value that a slot or a grant ring carries.
    pub const fn raw(self) -> u32 {
        self.0.get()
    }

    /// Index in the segment, from 0.
    pub const fn index(self) -> u32 {
        self.0.get() - 1
    }
}

/// Names a connection of a group: index of its block and the block's generation.
///
/// A handle whose generation is not the block's is stale: the connection that it named is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle {
    /// Index of the [`conn::ConnBlock`] in the segment.
    pub index: u32,
    /// The block's generation when the connection was made.
    pub generation: u32,
}

/// Page of stream offset `offset`.
pub const fn page_of(offset: u64) -> u64 {
    offset / EXTENT_BYTES as u64
}

/// Slot of the connection's block for page `page`.
pub const fn slot_of(page: u64) -> usize {
    page as usize % EXTENT_SLOTS
}

/// Position in its extent of stream offset `offset`.
pub const fn position_of(offset: u64) -> usize {
    (offset % EXTENT_BYTES as u64) as usize
}
