//! Where everything lies in a segment: a pure function of [`Params`], the same on both sides.

use crate::accept::{AcceptEntry, AcceptHeader, ListenerBlock, MAX_LANES};
use crate::command::{COMMAND_WORDS, EVENT_WORDS, GRANT_WORDS};
use crate::conn::ConnBlock;
use crate::report::ReportBlock;
use crate::ring::{Entry, RingHeader};
use crate::segment::Header;
use crate::sync::AtomicU32;
use crate::wake::Sleeper;
use crate::{EXTENT_BYTES, EXTENT_SLOTS};
use serde::{Deserialize, Serialize};

/// Most workers of a daemon.
pub const MAX_WORKERS: u32 = 64;
/// Most listeners of a group.
pub const MAX_LISTENERS: u32 = 1024;
/// Most slots of a table: one direction of a connection then buffers 1 GiB, the most that TCP's
/// window can say (RFC 7323 §2.3).
pub const MAX_TABLE_SLOTS: u32 = 1 << 18;
/// Most bytes of a segment's address space: far below what `mmap` can do, far above any quota.
pub const MAX_SEGMENT_BYTES: u64 = 1 << 42;

/// Extents of a group for each table.
const EXTENTS_PER_TABLE: u32 = 4 * EXTENT_SLOTS as u32;

/// Sizes that fix a segment's layout. All counts are at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Params {
    /// Workers of the daemon.
    pub workers: u32,
    /// Lanes (threads and pollers) that can be attached at a time.
    pub lanes: u32,
    /// Listeners that can be open at a time.
    pub listeners: u32,
    /// Entries of each accept ring; a power of two, more than the largest backlog.
    pub accept_entries: u32,
    /// Connections per worker.
    pub connections: u32,
    /// Payload extents per worker.
    pub extents: u32,
    /// Tables of receive extents per worker.
    pub tables: u32,
    /// Slots of each table; a power of two, not fewer than a connection's block has.
    pub table_slots: u32,
    /// Entries of each command ring; a power of two.
    pub command_entries: u32,
    /// Entries of each grant ring; a power of two.
    pub grant_entries: u32,
}

impl Params {
    /// Sizes for a group that may have `connections` connections and `bytes` bytes of payload
    /// at a time, over `workers` workers, of which a connection receives `window` at a time at the
    /// most.
    pub fn for_quota(workers: u32, connections: u32, bytes: u64, window: u32) -> Params {
        let extents = bytes.div_ceil(EXTENT_BYTES as u64).div_ceil(u64::from(workers.max(1)));
        let extents = u32::try_from(extents).unwrap_or(u32::MAX).max(2 * EXTENT_SLOTS as u32);
        let pages = window.div_ceil(EXTENT_BYTES as u32).max(EXTENT_SLOTS as u32);
        Params {
            workers,
            // Some for each process that may be.
            lanes: MAX_LANES as u32,
            listeners: 64,
            accept_entries: 8192,
            connections: connections.div_ceil(workers.max(1)).max(1),
            extents,
            // A connection needs one when it holds more than its block has slots for.
            tables: extents / EXTENTS_PER_TABLE + 1,
            table_slots: pages.next_power_of_two().min(MAX_TABLE_SLOTS),
            command_entries: 1024,
            grant_entries: 1024,
        }
    }

    /// Whether a segment can be laid out so.
    ///
    /// # Errors
    /// [`LayoutError`] names the first parameter that is out of range.
    pub fn check(&self) -> Result<(), LayoutError> {
        let range = |name, value: u32, max: u32| {
            if (1..=max).contains(&value) { Ok(()) } else { Err(LayoutError { name, value, max }) }
        };
        let power = |name, value: u32, max: u32| {
            if value.is_power_of_two() {
                range(name, value, max)
            } else {
                Err(LayoutError { name, value, max })
            }
        };
        range("workers", self.workers, MAX_WORKERS)?;
        range("lanes", self.lanes, MAX_LANES as u32)?;
        range("listeners", self.listeners, MAX_LISTENERS)?;
        power("accept_entries", self.accept_entries, 1 << 20)?;
        range("connections", self.connections, 1 << 24)?;
        range("extents", self.extents, 1 << 24)?;
        range("tables", self.tables, 1 << 24)?;
        power("table_slots", self.table_slots, MAX_TABLE_SLOTS)?;
        if self.table_slots < EXTENT_SLOTS as u32 {
            let (value, max) = (self.table_slots, MAX_TABLE_SLOTS);
            return Err(LayoutError { name: "table_slots", value, max });
        }
        power("command_entries", self.command_entries, 1 << 16)?;
        power("grant_entries", self.grant_entries, 1 << 16)
    }

    /// Entries of each event ring. It cannot overflow in correct use: at most one pending entry
    /// per connection and listener, one `Granted`, and answers to the commands that fit a ring.
    pub fn event_entries(&self) -> u32 {
        (self.connections + self.listeners + self.command_entries + 1).next_power_of_two()
    }
}

/// A parameter that no segment can be laid out with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("segment parameter {name} is {value}; it must be 1 to {max}, ring sizes powers of two")]
pub struct LayoutError {
    name: &'static str,
    value: u32,
    max: u32,
}

/// Byte offsets of the sections of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    params: Params,
    worker_sleepers: usize,
    lane_sleepers: usize,
    listeners: usize,
    accept: usize,
    accept_stride: usize,
    rings: usize,
    ring_stride: usize,
    event_offset: usize,
    grant_offset: usize,
    report_offset: usize,
    connections: usize,
    links: usize,
    tables: usize,
    extents: usize,
    total: usize,
}

impl Layout {
    /// Lays a segment out.
    ///
    /// # Errors
    /// As [`Params::check`], or when the whole exceeds [`MAX_SEGMENT_BYTES`].
    pub fn new(params: Params) -> Result<Layout, LayoutError> {
        params.check()?;
        // Every factor is bounded by check(), so that none of these products overflows 64 bits.
        let count = |n: u32| n as usize;
        let align = |n: usize| n.next_multiple_of(EXTENT_BYTES);
        let worker_sleepers = align(size_of::<Header>());
        let lane_sleepers = worker_sleepers + align(count(params.workers) * size_of::<Sleeper>());
        let listeners = lane_sleepers + align(count(params.lanes) * size_of::<Sleeper>());
        let accept = listeners + align(count(params.listeners) * size_of::<ListenerBlock>());
        let accept_stride = align(
            size_of::<AcceptHeader>() + count(params.accept_entries) * size_of::<AcceptEntry>(),
        );
        let rings = accept + count(params.listeners) * count(params.workers) * accept_stride;
        let command_bytes = ring_bytes::<COMMAND_WORDS>(params.command_entries);
        let event_bytes = ring_bytes::<EVENT_WORDS>(params.event_entries());
        let grant_bytes = ring_bytes::<GRANT_WORDS>(params.grant_entries);
        let event_offset = command_bytes;
        let grant_offset = event_offset + event_bytes;
        let report_offset = grant_offset + grant_bytes;
        let ring_stride = align(report_offset + size_of::<ReportBlock>());
        let connections = rings + count(params.lanes) * count(params.workers) * ring_stride;
        let blocks = count(params.workers) * count(params.connections);
        let links = connections + align(blocks * size_of::<ConnBlock>());
        let extent_count = count(params.workers) * count(params.extents);
        let tables = links + align(extent_count * size_of::<AtomicU32>());
        let slots = count(params.workers) * count(params.tables) * count(params.table_slots);
        let extents = tables + align(slots * size_of::<AtomicU32>());
        let total = extents + extent_count * EXTENT_BYTES;
        if total as u64 > MAX_SEGMENT_BYTES {
            return Err(LayoutError {
                name: "extents",
                value: params.extents,
                max: params.extents,
            });
        }
        Ok(Layout {
            params,
            worker_sleepers,
            lane_sleepers,
            listeners,
            accept,
            accept_stride,
            rings,
            ring_stride,
            event_offset,
            grant_offset,
            report_offset,
            connections,
            links,
            tables,
            extents,
            total,
        })
    }

    /// What it was laid out for.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Bytes of address space (pages are taken only where they are touched).
    pub fn total_bytes(&self) -> usize {
        self.total
    }

    /// Connections of all workers.
    pub fn connection_count(&self) -> u32 {
        self.params.workers * self.params.connections
    }

    /// Extents of all workers.
    pub fn extent_count(&self) -> u32 {
        self.params.workers * self.params.extents
    }

    /// Tables of all workers.
    pub fn table_count(&self) -> u32 {
        self.params.workers * self.params.tables
    }

    pub(crate) fn worker_sleeper(&self, worker: u32) -> usize {
        assert!(worker < self.params.workers);
        self.worker_sleepers + worker as usize * size_of::<Sleeper>()
    }

    pub(crate) fn lane_sleeper(&self, lane: u16) -> usize {
        assert!(u32::from(lane) < self.params.lanes);
        self.lane_sleepers + usize::from(lane) * size_of::<Sleeper>()
    }

    pub(crate) fn listener(&self, listener: u32) -> usize {
        assert!(listener < self.params.listeners);
        self.listeners + listener as usize * size_of::<ListenerBlock>()
    }

    pub(crate) fn accept_ring(&self, listener: u32, worker: u32) -> usize {
        assert!(listener < self.params.listeners && worker < self.params.workers);
        let index = listener as usize * self.params.workers as usize + worker as usize;
        self.accept + index * self.accept_stride
    }

    /// Byte range of one listener's accept ring with one worker; the consumers' index comes first.
    pub fn accept_ring_bytes(&self, listener: u32, worker: u32) -> core::ops::Range<usize> {
        let start = self.accept_ring(listener, worker);
        start..start + self.accept_stride
    }

    fn ring_set(&self, lane: u16, worker: u32) -> usize {
        assert!(u32::from(lane) < self.params.lanes && worker < self.params.workers);
        let index = usize::from(lane) * self.params.workers as usize + worker as usize;
        self.rings + index * self.ring_stride
    }

    pub(crate) fn command_ring(&self, lane: u16, worker: u32) -> usize {
        self.ring_set(lane, worker)
    }

    pub(crate) fn event_ring(&self, lane: u16, worker: u32) -> usize {
        self.ring_set(lane, worker) + self.event_offset
    }

    pub(crate) fn grant_ring(&self, lane: u16, worker: u32) -> usize {
        self.ring_set(lane, worker) + self.grant_offset
    }

    pub(crate) fn report(&self, lane: u16, worker: u32) -> usize {
        self.ring_set(lane, worker) + self.report_offset
    }

    /// Byte range of one lane's rings with one worker, for giving their pages back.
    pub fn ring_set_bytes(&self, lane: u16, worker: u32) -> core::ops::Range<usize> {
        let start = self.ring_set(lane, worker);
        start..start + self.ring_stride
    }

    pub(crate) fn connection(&self, index: u32) -> Option<usize> {
        (index < self.connection_count())
            .then(|| self.connections + index as usize * size_of::<ConnBlock>())
    }

    pub(crate) fn link(&self, extent: u32) -> Option<usize> {
        (extent < self.extent_count())
            .then(|| self.links + extent as usize * size_of::<AtomicU32>())
    }

    pub(crate) fn table(&self, index: u32) -> Option<usize> {
        let bytes = self.params.table_slots as usize * size_of::<AtomicU32>();
        (index < self.table_count()).then(|| self.tables + index as usize * bytes)
    }

    pub(crate) fn extent(&self, index: u32) -> Option<usize> {
        (index < self.extent_count()).then(|| self.extents + index as usize * EXTENT_BYTES)
    }
}

fn ring_bytes<const WORDS: usize>(entries: u32) -> usize {
    (size_of::<RingHeader>() + entries as usize * size_of::<Entry<WORDS>>()).next_multiple_of(128)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn small() -> Params {
        Params {
            workers: 2,
            lanes: 3,
            listeners: 2,
            accept_entries: 8,
            connections: 5,
            extents: 7,
            tables: 3,
            table_slots: 32,
            command_entries: 4,
            grant_entries: 4,
        }
    }

    #[test]
    fn sections_do_not_overlap() {
        let p = small();
        let l = Layout::new(p).unwrap();
        let mut spans = vec![(0, size_of::<Header>())];
        for w in 0..p.workers {
            spans.push((l.worker_sleeper(w), size_of::<Sleeper>()));
            for n in 0..p.listeners {
                let bytes = size_of::<AcceptHeader>() + 8 * size_of::<AcceptEntry>();
                spans.push((l.accept_ring(n, w), bytes));
            }
            for t in 0..p.lanes as u16 {
                spans.push((l.command_ring(t, w), ring_bytes::<COMMAND_WORDS>(4)));
                spans.push((l.event_ring(t, w), ring_bytes::<EVENT_WORDS>(p.event_entries())));
                spans.push((l.grant_ring(t, w), ring_bytes::<GRANT_WORDS>(4)));
            }
        }
        for t in 0..p.lanes as u16 {
            spans.push((l.lane_sleeper(t), size_of::<Sleeper>()));
        }
        for n in 0..p.listeners {
            spans.push((l.listener(n), size_of::<ListenerBlock>()));
        }
        for c in 0..l.connection_count() {
            spans.push((l.connection(c).unwrap(), size_of::<ConnBlock>()));
        }
        for table in 0..l.table_count() {
            spans.push((l.table(table).unwrap(), 32 * size_of::<AtomicU32>()));
        }
        for x in 0..l.extent_count() {
            spans.push((l.link(x).unwrap(), size_of::<AtomicU32>()));
            spans.push((l.extent(x).unwrap(), EXTENT_BYTES));
        }
        spans.sort_unstable();
        for pair in spans.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?}");
        }
        let last = spans.last().unwrap();
        assert!(last.0 + last.1 <= l.total_bytes());
        assert_eq!(l.connection(l.connection_count()), None);
        assert_eq!(l.extent(l.extent_count()), None);
        assert_eq!(l.link(l.extent_count()), None);
        assert_eq!(l.table(l.table_count()), None);
    }

    #[test]
    fn bad_parameters_are_named() {
        let bad = Params { command_entries: 3, ..small() };
        assert!(Layout::new(bad).unwrap_err().to_string().contains("command_entries is 3"));
        let bad = Params { workers: 0, ..small() };
        assert!(Layout::new(bad).unwrap_err().to_string().contains("workers is 0"));
        for table_slots in [8, 48, 2 * MAX_TABLE_SLOTS] {
            let error = Layout::new(Params { table_slots, ..small() }).unwrap_err().to_string();
            assert!(error.contains(&format!("table_slots is {table_slots}")), "{error}");
        }
    }

    #[test]
    fn a_quota_gives_a_layout() {
        for workers in [1, 2, 8] {
            let params = Params::for_quota(workers, 65_536, 1 << 30, 3 << 20);
            let layout = Layout::new(params).unwrap();
            assert_eq!(params.table_slots, 1024);
            assert!(layout.connection_count() >= 65_536);
            assert!(u64::from(layout.extent_count()) * EXTENT_BYTES as u64 >= 1 << 30);
        }
    }
}
