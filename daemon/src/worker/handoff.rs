//! Frames that arrived at a worker that does not own their connection.
//!
//! Each worker has a bounded ring of frames coming in and a pool of buffers for them, allocated
//! at start. A buffer goes from the owner's pool to its ring and back; nothing is allocated.

use super::bell::Bell;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;

/// Frames that may wait at one worker.
const FRAMES: usize = 1024;

/// A frame in a buffer of the exchange.
pub(super) struct Frame {
    len: usize,
    /// The worker that it arrived at.
    from: u32,
    bytes: Box<[u8]>,
}

impl Frame {
    pub(super) fn from(&self) -> u32 {
        self.from
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

struct Desk {
    arrived: ArrayQueue<Frame>,
    empty: ArrayQueue<Frame>,
    bell: Arc<Bell>,
}

/// The hand-off rings of all workers.
pub(super) struct Exchange {
    desks: Vec<Desk>,
}

impl Exchange {
    /// One ring and pool per bell; frames of up to `frame_bytes`. A single worker hands nothing
    /// off and needs none.
    pub(super) fn new(bells: Vec<Arc<Bell>>, frame_bytes: usize) -> Exchange {
        let frames = if bells.len() > 1 { FRAMES } else { 0 };
        let desk = |bell| {
            let empty = ArrayQueue::new(frames.max(1));
            for _ in 0..frames {
                let bytes = vec![0; frame_bytes].into_boxed_slice();
                // The queue was made for exactly this many.
                let _ = empty.push(Frame { len: 0, from: 0, bytes });
            }
            Desk { arrived: ArrayQueue::new(frames.max(1)), empty, bell }
        };
        Exchange { desks: bells.into_iter().map(desk).collect() }
    }

    /// Hands a frame that arrived at worker `from` to its owner. `false` when the owner's ring is full
    /// or the frame too large: to be counted.
    pub(super) fn hand(&self, owner: u32, from: u32, bytes: &[u8]) -> bool {
        let desk = &self.desks[owner as usize];
        let Some(mut frame) = desk.empty.pop() else { return false };
        if bytes.len() > frame.bytes.len() {
            // There is room: we have just taken this buffer out.
            let _ = desk.empty.push(frame);
            return false;
        }
        frame.bytes[..bytes.len()].copy_from_slice(bytes);
        frame.len = bytes.len();
        frame.from = from;
        let handed = desk.arrived.push(frame).is_ok();
        debug_assert!(handed, "as many places as buffers");
        handed
    }

    /// Wakes a worker that frames were handed to; once per batch.
    pub(super) fn ring(&self, owner: u32) {
        self.desks[owner as usize].bell.ring();
    }

    /// The next frame handed to `worker`; give it back with [`reuse`](Self::reuse).
    pub(super) fn take(&self, worker: u32) -> Option<Frame> {
        self.desks[worker as usize].arrived.pop()
    }

    /// Puts a buffer back into its pool.
    pub(super) fn reuse(&self, worker: u32, frame: Frame) {
        // There is room for every buffer of the pool.
        let _ = self.desks[worker as usize].empty.push(frame);
    }

    /// Whether a frame waits for `worker`.
    pub(super) fn waits(&self, worker: u32) -> bool {
        !self.desks[worker as usize].arrived.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> Exchange {
        let bells = vec![Arc::new(Bell::new().unwrap()), Arc::new(Bell::new().unwrap())];
        Exchange::new(bells, 64)
    }

    #[test]
    fn frames_arrive_in_order_and_buffers_return() {
        let exchange = exchange();
        for round in 0..3 {
            for n in 0..FRAMES {
                assert!(exchange.hand(1, 0, &[n as u8, round]));
            }
            assert!(!exchange.hand(1, 0, &[0]), "full");
            assert!(exchange.hand(0, 1, &[0]), "the other worker's ring is its own");
            exchange.reuse(0, exchange.take(0).unwrap());
            for n in 0..FRAMES {
                let frame = exchange.take(1).unwrap();
                assert_eq!(frame.bytes(), [n as u8, round]);
                exchange.reuse(1, frame);
            }
            assert!(!exchange.waits(1));
        }
    }

    #[test]
    fn a_frame_that_is_too_large_is_refused_and_costs_no_buffer() {
        let exchange = exchange();
        for _ in 0..2 * FRAMES {
            assert!(!exchange.hand(0, 1, &[0; 65]));
        }
        assert!(exchange.hand(0, 1, &[0; 64]));
    }
}
