//! The sending half: TX ring and completion ring.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::slice;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{CompQueue, TxQueue, Umem};

use super::{BATCH, XskStats};

/// Frames that the kernel takes in one `sendto` unless it is told otherwise (`TX_BATCH_SIZE`).
const KERNEL_BATCH: u32 = 32;

/// The sending half of a [`Queue`](super::Queue).
///
/// A frame goes round: free, written ([`frame`](Self::frame), [`commit`](Self::commit)), handed
/// over ([`flush`](Self::flush)), given back by the kernel, free.
pub struct Sender {
    umem: Umem,
    tx: TxQueue,
    completion: CompQueue,
    /// Never shorter of capacity than all frames.
    free: Vec<FrameDesc>,
    /// Written and not in the TX ring yet; at most [`BATCH`].
    batch: Vec<FrameDesc>,
    /// In the TX ring, in the kernel's hands or in the completion ring.
    in_flight: u32,
    frames: u32,
    capacity: usize,
    zero_copy: bool,
    need_wakeup: bool,
    /// Frames that the device dropped.
    dropped: u64,
}

impl Sender {
    /// # Safety
    /// The descriptors are of `umem`, to which the rings belong, and nobody else uses them.
    pub(super) unsafe fn new(
        umem: Umem,
        tx: TxQueue,
        completion: CompQueue,
        free: Vec<FrameDesc>,
    ) -> Self {
        let mut sender = Self {
            umem,
            tx,
            completion,
            frames: free.len() as u32,
            free,
            batch: Vec::with_capacity(BATCH),
            in_flight: 0,
            capacity: 0,
            zero_copy: false,
            need_wakeup: true,
            dropped: 0,
        };
        sender.capacity = sender.frame().map_or(0, |frame| frame.len());
        sender
    }

    pub(super) fn set_mode(&mut self, zero_copy: bool, need_wakeup: bool) {
        self.zero_copy = zero_copy;
        self.need_wakeup = need_wakeup;
    }

    /// Room for one frame, [`capacity`](Self::capacity) bytes with what was last in them. `None`
    /// when all frames are on their way, even after asking the kernel for those that it has sent.
    ///
    /// The frame counts only once it is [committed](Self::commit); until then the same room is
    /// given out again.
    #[inline]
    pub fn frame(&mut self) -> Option<&mut [u8]> {
        if self.free.is_empty() {
            self.make_room();
        }
        let frame = self.free.last_mut()?;
        // SAFETY: a frame of this UMEM. It is in `free`, so neither the kernel nor anything here
        // has a reference to it.
        let mut data = unsafe { self.umem.data_mut(frame) };
        data.cursor().set_pos(usize::MAX);
        let room = data.contents_mut();
        let (start, length) = (room.as_mut_ptr(), room.len());
        // SAFETY: the very slice that was just borrowed, which xsk-rs ties to a local variable.
        // It stays valid as long as `self` is borrowed: the UMEM is mapped, and the frame cannot
        // leave `free` without `&mut self`.
        Some(unsafe { slice::from_raw_parts_mut(start, length) })
    }

    /// Sends the first `length` bytes of the room that [`frame`](Self::frame) gave last, with
    /// the next [`flush`](Self::flush), or right away when a batch is full.
    ///
    /// # Panics
    /// When there was no such room, or less than that.
    #[inline]
    pub fn commit(&mut self, length: usize) {
        let mut frame = self.free.pop().expect("commit() follows frame()");
        assert!(length <= self.capacity, "a frame as long as its room");
        {
            // SAFETY: as in `frame`; the caller's borrow of the room has ended.
            let mut data = unsafe { self.umem.data_mut(&mut frame) };
            data.cursor().set_pos(length);
        }
        self.batch.push(frame);
        if self.batch.len() == BATCH {
            self.flush();
        }
    }

    /// Hands what was committed to the kernel and wakes it, once a batch as far as it allows.
    ///
    /// Returns whether nothing is left for a later call: `false` when the kernel or the device
    /// would not take everything now.
    #[inline]
    pub fn flush(&mut self) -> bool {
        self.reap();
        self.submit();
        self.in_flight == 0 || self.wake()
    }

    /// Bytes of one frame.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Frames of this half.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Whether everything that was committed has been handed over.
    #[inline]
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.batch.is_empty()
    }

    /// Frames that the kernel took and the device dropped, as far as the kernel says so.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The kernel's counters of this socket, of both directions.
    ///
    /// # Errors
    /// Only what should not happen.
    pub fn statistics(&self) -> io::Result<XskStats> {
        let counted = self.tx.fd().xdp_statistics()?;
        Ok(XskStats {
            rx_dropped: counted.rx_dropped(),
            rx_invalid_descs: counted.rx_invalid_descs(),
            tx_invalid_descs: counted.tx_invalid_descs(),
            rx_ring_full: counted.rx_ring_full(),
            rx_fill_ring_empty_descs: counted.rx_fill_ring_empty_descs(),
            tx_ring_empty_descs: counted.tx_ring_empty_descs(),
        })
    }

    /// Moves the batch into the TX ring.
    fn submit(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        // SAFETY: frames of this UMEM, written and no longer referred to.
        let taken = unsafe { self.tx.produce(&self.batch) };
        assert_eq!(taken, self.batch.len(), "the TX ring has room for all frames");
        self.in_flight += taken as u32;
        self.batch.clear();
    }

    /// Takes back what the kernel has sent.
    fn reap(&mut self) {
        while self.in_flight > 0 {
            let mut sent = [FrameDesc::default(); BATCH];
            // SAFETY: the completion ring holds frames of this UMEM only: those that we sent.
            let count = unsafe { self.completion.consume(&mut sent) };
            self.free.extend_from_slice(&sent[..count]);
            self.in_flight -= count as u32;
            if count < BATCH {
                break;
            }
        }
        debug_assert_eq!(
            self.free.len() + self.batch.len() + self.in_flight as usize,
            self.frames as usize,
            "every frame is somewhere"
        );
    }

    #[cold]
    fn make_room(&mut self) {
        self.reap();
        if self.free.is_empty() {
            self.flush();
            self.reap();
        }
    }

    /// Tells the kernel to send, if it has to be told; returns whether it has taken everything.
    fn wake(&mut self) -> bool {
        if self.need_wakeup && !self.tx.needs_wakeup() {
            // The driver is at it by itself.
            return true;
        }
        let mut left = self.unsent();
        // In copy mode a call sends part of the ring only, where the kernel does not know the
        // option that raises it.
        let mut calls = left / KERNEL_BATCH + 1;
        while left > 0 && calls > 0 {
            let answer = send(self.as_fd(), &[], SendFlags::DONTWAIT);
            if self.zero_copy {
                return answer.is_ok();
            }
            let now = self.unsent();
            match answer {
                Ok(_) | Err(Errno::AGAIN) if now < left => {}
                // The device dropped a frame, and the ones behind it wait.
                Err(Errno::BUSY | Errno::NOBUFS) if now < left => self.dropped += 1,
                // No progress: the device is full, or down. A later call tries again.
                _ => return now == 0,
            }
            left = now;
            calls -= 1;
        }
        left == 0
    }

    /// Frames in the TX ring that the kernel has not looked at.
    fn unsent(&mut self) -> u32 {
        self.frames - self.tx.nb_free_exact()
    }

    pub(super) fn free(&self) -> u32 {
        self.free.len() as u32
    }

    pub(super) fn queued(&self) -> u32 {
        self.batch.len() as u32
    }

    /// After taking back what is sent.
    pub(super) fn in_flight(&mut self) -> u32 {
        self.in_flight
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket lives as long as the TX queue, which `self` owns.
        unsafe { BorrowedFd::borrow_raw(self.tx.fd().as_raw_fd()) }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("frames", &self.frames)
            .field("free", &self.free.len())
            .field("batch", &self.batch.len())
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}
