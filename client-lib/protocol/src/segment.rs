//! A mapped segment: the one place where shared memory becomes references.

use crate::accept::{AcceptEntry, AcceptHeader, AcceptRing, ListenerBlock};
use crate::command::{COMMAND_WORDS, EVENT_WORDS, GRANT_WORDS};
use crate::conn::ConnBlock;
use crate::layout::{Layout, LayoutError, Params};
use crate::report::ReportBlock;
use crate::ring::{Entry, Ring, RingHeader};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::wake::Sleeper;
use crate::{EXTENT_BYTES, ExtentId, VERSION, page_of, slot_of};
use core::ptr::NonNull;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// "4WAVE\0\0\0" as a little-endian number.
const MAGIC: u64 = u64::from_le_bytes(*b"4WAVE\0\0\0");

/// A ring that was pushed to so often has touched a page or two.
const HARDLY_USED: u32 = 128;

/// First bytes of a segment.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Header {
    magic: AtomicU64,
    version: AtomicU32,
}

/// Why a segment could not be created or mapped.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The sizes do not make a segment.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The kernel refused; the text says which call.
    #[error("{0} for a shared segment of {1} bytes: {2}")]
    Kernel(&'static str, usize, rustix::io::Errno),
    /// The memory is not a segment of this version.
    #[error("not a fourwave segment of version {VERSION}: client library and daemon must match")]
    Foreign,
    /// The file is smaller than its layout, or could still shrink.
    #[error("the segment's memory is not sealed at the size of its layout")]
    Unsealed,
}

/// A segment, mapped until dropped. `Sync`: everything in it is atomic or copied.
#[derive(Debug)]
pub struct Segment {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the mapping is plain shared memory that stays mapped until drop; every access goes
// through atomics or raw copies, whichever thread makes it.
unsafe impl Send for Segment {}
// SAFETY: as for Send.
unsafe impl Sync for Segment {}

impl Segment {
    /// Daemon: makes a segment, sized, sealed and mapped, and the descriptor to send.
    ///
    /// # Errors
    /// [`SegmentError::Layout`] or [`SegmentError::Kernel`].
    pub fn create(name: &str, params: Params) -> Result<(Segment, OwnedFd), SegmentError> {
        let layout = Layout::new(params)?;
        let size = layout.total_bytes();
        let kernel = |call| move |errno| SegmentError::Kernel(call, size, errno);
        let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
        let fd = rustix::fs::memfd_create(name, flags).map_err(kernel("memfd_create"))?;
        rustix::fs::ftruncate(&fd, size as u64).map_err(kernel("ftruncate"))?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&fd, seals).map_err(kernel("sealing"))?;
        let segment = Segment::map_unchecked(&fd, layout)?;
        segment.header().version.store(VERSION, Ordering::Relaxed);
        // Release: pairs with the Acquire in map().
        segment.header().magic.store(MAGIC, Ordering::Release);
        Ok((segment, fd))
    }

    /// Client: maps a segment that the daemon sent, laid out for `params`.
    ///
    /// # Errors
    /// Any of [`SegmentError`].
    pub fn map(fd: impl AsFd, params: Params) -> Result<Segment, SegmentError> {
        let layout = Layout::new(params)?;
        let size = layout.total_bytes();
        let kernel = |call| move |errno| SegmentError::Kernel(call, size, errno);
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(kernel("reading seals"))?;
        let stat = rustix::fs::fstat(&fd).map_err(kernel("fstat"))?;
        // A mapping beyond the end of a file raises SIGBUS: the size must be right and stay so.
        if !seals.contains(SealFlags::SHRINK) || stat.st_size != size as i64 {
            return Err(SegmentError::Unsealed);
        }
        let segment = Segment::map_unchecked(&fd, layout)?;
        // Acquire: pairs with the Release in create().
        let magic = segment.header().magic.load(Ordering::Acquire);
        if magic != MAGIC || segment.header().version.load(Ordering::Relaxed) != VERSION {
            return Err(SegmentError::Foreign);
        }
        Ok(segment)
    }

    fn map_unchecked(fd: impl AsFd, layout: Layout) -> Result<Segment, SegmentError> {
        let size = layout.total_bytes();
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing. The file
        // is sealed against shrinking at `size` bytes (by create(), checked by map()).
        let address = unsafe {
            rustix::mm::mmap(
                core::ptr::null_mut(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                // NORESERVE: sparse by intention; quotas bound what is touched.
                MapFlags::SHARED | MapFlags::NORESERVE,
                fd,
                0,
            )
        }
        .map_err(|errno| SegmentError::Kernel("mmap", size, errno))?;
        let base = NonNull::new(address.cast()).expect("mmap never returns null on success");
        Ok(Segment { base, layout })
    }

    /// Where everything lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn header(&self) -> &Header {
        self.reference(0)
    }

    /// The sleep flag of a worker.
    ///
    /// # Panics
    /// If there is no such worker; this and the other accessors below take the caller's own,
    /// checked numbers.
    pub fn worker_sleeper(&self, worker: u32) -> &Sleeper {
        self.reference(self.layout.worker_sleeper(worker))
    }

    /// The sleep flag of a lane.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn lane_sleeper(&self, lane: u16) -> &Sleeper {
        self.reference(self.layout.lane_sleeper(lane))
    }

    /// What is shared about a listener.
    ///
    /// # Panics
    /// If there is no such listener.
    pub fn listener(&self, listener: u32) -> &ListenerBlock {
        self.reference(self.layout.listener(listener))
    }

    /// The accept ring of a listener at a worker.
    ///
    /// # Panics
    /// If there is no such listener or worker.
    pub fn accept_ring(&self, listener: u32, worker: u32) -> AcceptRing<'_> {
        let offset = self.layout.accept_ring(listener, worker);
        let entries = self.layout.params().accept_entries;
        AcceptRing::new(
            self.reference::<AcceptHeader>(offset),
            self.slice(offset + size_of::<AcceptHeader>(), entries),
        )
    }

    /// The command ring of a lane at a worker.
    ///
    /// # Panics
    /// If there is no such lane or worker.
    pub fn command_ring(&self, lane: u16, worker: u32) -> Ring<'_, COMMAND_WORDS> {
        let offset = self.layout.command_ring(lane, worker);
        self.ring(offset, self.layout.params().command_entries)
    }

    /// The event ring of a lane at a worker.
    ///
    /// # Panics
    /// If there is no such lane or worker.
    pub fn event_ring(&self, lane: u16, worker: u32) -> Ring<'_, EVENT_WORDS> {
        let offset = self.layout.event_ring(lane, worker);
        self.ring(offset, self.layout.params().event_entries())
    }

    /// The grant ring of a lane at a worker.
    ///
    /// # Panics
    /// If there is no such lane or worker.
    pub fn grant_ring(&self, lane: u16, worker: u32) -> Ring<'_, GRANT_WORDS> {
        let offset = self.layout.grant_ring(lane, worker);
        self.ring(offset, self.layout.params().grant_entries)
    }

    /// Where a worker answers a lane.
    ///
    /// # Panics
    /// If there is no such lane or worker.
    pub fn report(&self, lane: u16, worker: u32) -> &ReportBlock {
        self.reference(self.layout.report(lane, worker))
    }

    /// A connection's block; `None` if the index is out of range.
    pub fn connection(&self, index: u32) -> Option<&ConnBlock> {
        self.layout.connection(index).map(|offset| self.reference(offset))
    }

    /// The slots of a table of receive extents; `None` if the index is out of range.
    pub fn table(&self, index: u32) -> Option<&[AtomicU32]> {
        let offset = self.layout.table(index)?;
        Some(self.words(offset, self.layout.params().table_slots))
    }

    /// The link of a send extent: the extent of the page before, as the client says.
    ///
    /// # Panics
    /// If the extent does not exist.
    pub fn link(&self, extent: ExtentId) -> &AtomicU32 {
        let offset = self.layout.link(extent.index()).expect("extent id was checked");
        &self.words(offset, 1)[0]
    }

    /// Client: the extent of received offset `offset`, which lies below the tail that was read
    /// from `block` before.
    pub fn receive_extent(&self, block: &ConnBlock, offset: u64) -> Option<ExtentId> {
        let page = page_of(offset);
        match block.receive_table() {
            None => block.receive_slot(slot_of(page)),
            Some(table) => {
                let slots = self.table(table)?;
                let slot = page as usize % slots.len();
                // Relaxed: ordered by the Acquire of the tail, or of the table's number.
                ExtentId::from_raw(slots[slot].load(Ordering::Relaxed))
            }
        }
    }

    /// Copies bytes into an extent, beginning at `position`.
    ///
    /// # Panics
    /// If the extent or the range in it does not exist.
    pub fn write_extent(&self, extent: ExtentId, position: usize, bytes: &[u8]) {
        let target = self.extent_at(extent, position, bytes.len());
        // SAFETY: extent_at() checked that the target lies in the mapping. `bytes` is memory of
        // this process and cannot overlap it. Another process may write there at the same time;
        // no reference to these bytes exists anywhere, so that at worst bytes are mixed.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), bytes.len()) }
    }

    /// Copies bytes out of an extent, beginning at `position`.
    ///
    /// # Panics
    /// If the extent or the range in it does not exist.
    pub fn read_extent(&self, extent: ExtentId, position: usize, out: &mut [u8]) {
        let source = self.extent_at(extent, position, out.len());
        // SAFETY: as in write_extent(), the other way round.
        unsafe { core::ptr::copy_nonoverlapping(source.as_ptr(), out.as_mut_ptr(), out.len()) }
    }

    fn extent_at(&self, extent: ExtentId, position: usize, len: usize) -> NonNull<u8> {
        assert!(position <= EXTENT_BYTES && len <= EXTENT_BYTES - position);
        let offset = self.layout.extent(extent.index()).expect("extent id was checked");
        self.pointer(offset + position, len)
    }

    /// Daemon: empties a lane's rings, for the next one. Those that were used much give their pages
    /// back; what a short-lived process leaves is less than taking new pages costs.
    ///
    /// # Errors
    /// The errno of `madvise`.
    pub fn clear_rings(&self, lane: u16, worker: u32) -> rustix::io::Result<()> {
        let rings = [
            self.layout.command_ring(lane, worker),
            self.layout.event_ring(lane, worker),
            self.layout.grant_ring(lane, worker),
        ]
        .map(|offset| self.reference::<RingHeader>(offset));
        // A client that says less than is true keeps pages that are its own.
        if rings.iter().all(|ring| ring.pushed() <= HARDLY_USED) {
            rings.iter().for_each(|ring| ring.reset());
            return Ok(());
        }
        let range = self.layout.ring_set_bytes(lane, worker);
        let start = self.pointer(range.start, range.len());
        // SAFETY: page-aligned (the layout aligns ring sets), inside the mapping; the content is
        // atomics, for which zero is a valid value.
        unsafe {
            rustix::mm::madvise(start.as_ptr().cast(), range.len(), rustix::mm::Advice::LinuxRemove)
        }
    }

    fn ring<const WORDS: usize>(&self, offset: usize, entries: u32) -> Ring<'_, WORDS> {
        Ring::new(
            self.reference::<RingHeader>(offset),
            self.slice(offset + size_of::<RingHeader>(), entries),
        )
    }

    fn slice<T: Shared>(&self, offset: usize, count: u32) -> &[T] {
        let start = self.pointer(offset, count as usize * size_of::<T>()).cast::<T>();
        assert!(start.is_aligned());
        // SAFETY: in bounds and aligned as just checked; `Shared` promises that T is made of
        // atomics only, valid for any bit pattern, and the mapping outlives `&self`.
        unsafe { core::slice::from_raw_parts(start.as_ptr(), count as usize) }
    }

    fn words(&self, offset: usize, count: u32) -> &[AtomicU32] {
        self.slice(offset, count)
    }

    /// A reference to one of this crate's all-atomic structures.
    fn reference<T: Shared>(&self, offset: usize) -> &T {
        let pointer = self.pointer(offset, size_of::<T>()).cast::<T>();
        assert!(pointer.is_aligned());
        // SAFETY: in bounds and aligned as just checked; `Shared` promises that T is made of
        // atomics only, valid for any bit pattern; the mapping outlives `&self`.
        unsafe { pointer.as_ref() }
    }

    fn pointer(&self, offset: usize, len: usize) -> NonNull<u8> {
        let total = self.layout.total_bytes();
        assert!(offset <= total && len <= total - offset);
        // SAFETY: the offset lies within the mapping, as just checked.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by map_unchecked() with this size, and every reference
        // into it borrowed `self`. A failure would leave it mapped, which harms nobody.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.layout.total_bytes()) };
    }
}

/// Types that may be seen through shared memory.
///
/// # Safety
/// Every field is an atomic (or an array or struct of them), so that any bit pattern is valid
/// and concurrent writes by another process are defined.
unsafe trait Shared {}
// SAFETY: two atomics.
unsafe impl Shared for Header {}
// SAFETY: one atomic.
unsafe impl Shared for Sleeper {}
// SAFETY: atomics only.
unsafe impl Shared for ListenerBlock {}
// SAFETY: two atomics.
unsafe impl Shared for AcceptHeader {}
// SAFETY: two atomics.
unsafe impl Shared for RingHeader {}
// SAFETY: atomics only.
unsafe impl Shared for ReportBlock {}
// SAFETY: atomics only, and locks, which are one each.
unsafe impl Shared for ConnBlock {}
// SAFETY: atomics only.
unsafe impl Shared for AcceptEntry {}
// SAFETY: atomics only.
unsafe impl<const WORDS: usize> Shared for Entry<WORDS> {}
// SAFETY: it is one.
unsafe impl Shared for AtomicU32 {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::ring::{Consumer, Producer};

    fn params() -> Params {
        let sizes = Params::for_quota(2, 8, 0, 128 << 10);
        Params { lanes: 2, listeners: 1, connections: 4, extents: 4, ..sizes }
    }

    #[test]
    fn two_mappings_see_each_other() {
        let (daemon, fd) = Segment::create("test", params()).unwrap();
        let client = Segment::map(&fd, params()).unwrap();
        let command = Command::WantGrants.encode();
        assert!(Producer::new().push(&client.command_ring(1, 1), command).unwrap());
        assert_eq!(Consumer::new().pop(&daemon.command_ring(1, 1)).unwrap(), Some(command));

        let extent = ExtentId::from_index(7);
        client.write_extent(extent, 4090, b"fourwa");
        let mut out = [0; 6];
        daemon.read_extent(extent, 4090, &mut out);
        assert_eq!(&out, b"fourwa");
        assert!(daemon.connection(8).is_none());
    }

    #[test]
    fn receive_extents_are_named_by_the_block_or_a_table() {
        let (segment, _fd) = Segment::create("test", params()).unwrap();
        let block = segment.connection(0).unwrap();
        let (inline, tabled) = (ExtentId::from_index(2), ExtentId::from_index(3));
        let offset = 17 * EXTENT_BYTES as u64 + 5;
        block.receive_slots[1].store(inline.raw(), Ordering::Relaxed);
        segment.table(1).unwrap()[17].store(tabled.raw(), Ordering::Relaxed);
        assert_eq!(segment.receive_extent(block, offset), Some(inline));
        block.publish_receive_table(Some(1));
        assert_eq!(segment.receive_extent(block, offset), Some(tabled));
        block.publish_receive_table(Some(segment.layout().table_count()));
        assert_eq!(segment.receive_extent(block, offset), None, "there is no such table");
        block.publish_receive_table(None);
        assert_eq!(segment.receive_extent(block, offset), Some(inline));
    }

    #[test]
    fn cleared_rings_are_empty_again() {
        let (segment, _fd) = Segment::create("test", params()).unwrap();
        let ring = segment.event_ring(0, 0);
        // Hardly used, and so much that pages are given back.
        for pushes in [1, HARDLY_USED + 1] {
            let (mut producer, mut consumer) = (Producer::new(), Consumer::new());
            for _ in 0..pushes {
                assert!(producer.push(&ring, [1, 2]).unwrap());
            }
            assert_eq!(consumer.pop(&ring).unwrap(), Some([1, 2]));
            segment.clear_rings(0, 0).unwrap();
            assert_eq!(Consumer::new().pop(&ring).unwrap(), None);
            assert_eq!(Producer::new().room(&ring, u32::MAX).unwrap(), ring.capacity());
        }
    }

    #[test]
    fn a_file_of_another_size_is_refused() {
        let (_segment, fd) = Segment::create("test", params()).unwrap();
        let other = Params { extents: 5, ..params() };
        assert!(matches!(Segment::map(&fd, other), Err(SegmentError::Unsealed)));
    }

    #[test]
    fn memory_that_is_no_segment_is_refused() {
        let size = Layout::new(params()).unwrap().total_bytes() as u64;
        let fd = rustix::fs::memfd_create("x", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, size).unwrap();
        assert!(matches!(Segment::map(&fd, params()), Err(SegmentError::Unsealed)));
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
        assert!(matches!(Segment::map(&fd, params()), Err(SegmentError::Foreign)));
    }

    #[test]
    #[should_panic(expected = "position <= EXTENT_BYTES")]
    fn extents_do_not_overlap() {
        let (segment, _fd) = Segment::create("test", params()).unwrap();
        segment.write_extent(ExtentId::from_index(0), 4000, &[0; 97]);
    }
}
