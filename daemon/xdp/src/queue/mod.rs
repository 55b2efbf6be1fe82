//! One AF_XDP socket with memory of its own, bound to one NIC queue.

mod config;
mod error;
mod open;
mod receive;
mod send;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

pub use config::{CopyMode, HugePages, QueueConfig};
pub use error::QueueError;
pub use receive::Receiver;
pub use send::Sender;

/// Most frames that one call moves between the rings and us.
pub const BATCH: usize = 64;

/// An AF_XDP socket: a receiving and a sending half, each with frames of its own, so that
/// neither can starve the other.
///
/// The halves are two fields so that a frame can be answered while it is being looked at:
///
/// ```no_run
/// # fn answer(_: &[u8], _: &mut [u8]) -> usize { 0 }
/// # let config = fourwave_xdp::QueueConfig::new("eth1", 0);
/// let mut queue = fourwave_xdp::Queue::open(&config)?;
/// let (rx, tx) = (&mut queue.rx, &mut queue.tx);
/// rx.receive(64, |frame| {
///     if let Some(reply) = tx.frame() {
///         let length = answer(frame, reply);
///         tx.commit(length);
///     }
/// });
/// tx.flush();
/// # Ok::<(), fourwave_xdp::QueueError>(())
/// ```
///
/// No frame arrives before the program steers the queue to this socket, see
/// [`Steering::set_xsk`](crate::Steering::set_xsk).
#[derive(Debug)]
pub struct Queue {
    /// Frames from the NIC.
    pub rx: Receiver,
    /// Frames to the NIC.
    pub tx: Sender,
    zero_copy: bool,
    huge_pages: bool,
}

impl Queue {
    /// Allocates the memory, creates the socket and binds it to the NIC queue.
    ///
    /// The queue of a socket that has just been closed stays busy for a moment: it is tried
    /// again for up to five seconds.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub fn open(config: &QueueConfig) -> Result<Self, QueueError> {
        open::open(config)
    }

    /// Whether the NIC reads and writes our memory itself.
    #[must_use]
    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Whether the memory is in huge pages.
    #[must_use]
    pub fn has_huge_pages(&self) -> bool {
        self.huge_pages
    }

    /// The kernel's counters of this socket.
    ///
    /// # Errors
    /// Only what should not happen.
    pub fn statistics(&self) -> io::Result<XskStats> {
        self.tx.statistics()
    }

    /// Where all frames are.
    #[must_use]
    pub fn census(&mut self) -> Census {
        Census {
            rx_filled: self.rx.filled(),
            rx_waiting: self.rx.waiting(),
            tx_free: self.tx.free(),
            tx_queued: self.tx.queued(),
            tx_in_flight: self.tx.in_flight(),
        }
    }
}

impl AsFd for Queue {
    /// The socket: to poll it for received frames, and for
    /// [`Steering::set_xsk`](crate::Steering::set_xsk).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tx.as_fd()
    }
}

/// The kernel's counters of one AF_XDP socket, under their names in `struct xdp_statistics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XskStats {
    /// Received frames dropped for want of a frame to put them in, or because they are longer
    /// than one. With copies this counts what `rx_fill_ring_empty_descs` counts, too.
    pub rx_dropped: u64,
    /// Descriptors of ours for received frames that the kernel refused.
    pub rx_invalid_descs: u64,
    /// Descriptors of ours for frames to send that the kernel refused.
    pub tx_invalid_descs: u64,
    /// Received frames dropped because the RX ring was full. Stays 0: that ring has room for all
    /// frames.
    pub rx_ring_full: u64,
    /// Received frames dropped because the kernel had no frame to put them in: the worker did
    /// not keep up.
    pub rx_fill_ring_empty_descs: u64,
    /// Times that the kernel found nothing to send; says nothing bad.
    pub tx_ring_empty_descs: u64,
}

/// Where a queue's frames are. The `rx_*` add up to
/// [`rx_frames`](QueueConfig::rx_frames), less what the kernel holds in its hands; the `tx_*` to
/// [`tx_frames`](QueueConfig::tx_frames).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// In the fill ring.
    pub rx_filled: u32,
    /// Received and not yet looked at.
    pub rx_waiting: u32,
    /// Free to be written.
    pub tx_free: u32,
    /// Written and not yet handed over.
    pub tx_queued: u32,
    /// Handed over and not yet given back.
    pub tx_in_flight: u32,
}
