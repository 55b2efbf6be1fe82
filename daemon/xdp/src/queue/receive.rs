//! The receiving half: fill ring and RX ring.

use std::fmt;

use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{FillQueue, RxQueue, Umem};

use super::BATCH;

/// The receiving half of a [`Queue`](super::Queue).
///
/// All of its frames are in the fill ring, in the kernel's hands or in the RX ring, except for
/// those of the batch that [`receive`](Self::receive) is working on.
pub struct Receiver {
    umem: Umem,
    rx: RxQueue,
    fill: FillQueue,
    frames: u32,
    batch: [FrameDesc; BATCH],
}

impl Receiver {
    /// Hands all `frames` to the kernel.
    ///
    /// # Safety
    /// The descriptors are of `umem`, to which the rings belong, and nobody else uses them.
    pub(super) unsafe fn new(
        umem: Umem,
        rx: RxQueue,
        mut fill: FillQueue,
        frames: &[FrameDesc],
    ) -> Self {
        // SAFETY: by this function's contract.
        let filled = unsafe { fill.produce(frames) };
        assert_eq!(filled, frames.len(), "the fill ring has room for all frames");
        Self { umem, rx, fill, frames: frames.len() as u32, batch: [FrameDesc::default(); BATCH] }
    }

    /// Calls `f` with each of the next received frames, from the Ethernet header on: at most
    /// `max` and at most [`BATCH`]. Gives the frames back to the kernel and returns their number.
    #[inline]
    pub fn receive(&mut self, max: usize, mut f: impl FnMut(&[u8])) -> usize {
        let wanted = max.min(BATCH);
        // SAFETY: the RX ring holds frames of this UMEM only: those that we put in the fill ring.
        let count = unsafe { self.rx.consume(&mut self.batch[..wanted]) };
        if count == 0 {
            return 0;
        }
        let batch = &self.batch[..count];
        for frame in batch {
            // SAFETY: a frame of this UMEM, which the kernel left to us when it put it in the RX
            // ring, and takes back only below. Nobody else has it, so nobody writes to it.
            let data = unsafe { self.umem.data(frame) };
            f(data.contents());
        }
        // SAFETY: frames of this UMEM, to which no reference is left.
        let filled = unsafe { self.fill.produce(batch) };
        assert_eq!(filled, count, "the fill ring has room for all frames");
        if self.fill.needs_wakeup() {
            self.wake_fill();
        }
        count
    }

    /// Whether a received frame is waiting.
    #[inline]
    #[must_use]
    pub fn ready(&mut self) -> bool {
        self.rx.nb_avail(1) > 0
    }

    /// Whether the driver ran out of frames and waits to be told of new ones. `receive` does so
    /// by itself; this is for a worker about to sleep.
    #[inline]
    #[must_use]
    pub fn needs_fill_wakeup(&self) -> bool {
        self.fill.needs_wakeup()
    }

    /// Tells the driver that there are frames in the fill ring.
    pub fn wake_fill(&mut self) {
        // An error would be one of poll(2): there is nothing to do about it, and the next call
        // tries again.
        let _ = self.fill.wakeup(self.rx.fd_mut(), 0);
    }

    /// Frames of this half.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Frames in the fill ring, which has two places per frame.
    pub(super) fn filled(&mut self) -> u32 {
        2 * self.frames - self.fill.nb_free_exact()
    }

    /// Frames in the RX ring.
    #[inline]
    #[must_use]
    pub fn waiting(&mut self) -> u32 {
        self.rx.nb_avail_exact()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("frames", &self.frames).finish_non_exhaustive()
    }
}
