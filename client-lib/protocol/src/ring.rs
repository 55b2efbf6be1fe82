//! Bounded single-producer single-consumer rings in shared memory.
//!
//! A ring is a [`RingHeader`] with two indices and a power-of-two number of entries of `WORDS`
//! 64-bit words. The indices run freely and wrap; an index modulo the capacity is a position.
//! Each side keeps its **own** index privately ([`Producer`], [`Consumer`]) and only publishes
//! it; the other side's index is loaded once per call and checked, because the other side may
//! be hostile.

use crate::Corrupt;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// An index on a cache line of its own (two lines: adjacent-line prefetch).
#[repr(C, align(128))]
#[derive(Debug)]
struct Index(AtomicU32);

/// The two indices of a ring. Zeroed memory is an empty ring.
#[repr(C)]
#[derive(Debug)]
pub struct RingHeader {
    head: Index,
    tail: Index,
}

impl RingHeader {
    /// An empty ring's header, for tests and models; in a segment it is zeroed memory.
    pub fn new() -> RingHeader {
        RingHeader { head: Index(AtomicU32::new(0)), tail: Index(AtomicU32::new(0)) }
    }
}

impl RingHeader {
    /// Entries that were ever pushed, as the producer says, if the ring began with this header.
    pub(crate) fn pushed(&self) -> u32 {
        self.tail.0.load(Ordering::Relaxed)
    }

    /// Makes the ring an empty one. Nobody may be using it.
    pub(crate) fn reset(&self) {
        // Relaxed: whoever uses it next hears of it by a message.
        self.head.0.store(0, Ordering::Relaxed);
        self.tail.0.store(0, Ordering::Relaxed);
    }
}

impl Default for RingHeader {
    fn default() -> Self {
        RingHeader::new()
    }
}

/// One entry. Words are atomics because a hostile peer may write them at any time.
#[repr(C)]
#[derive(Debug)]
pub struct Entry<const WORDS: usize>([AtomicU64; WORDS]);

impl<const WORDS: usize> Entry<WORDS> {
    /// A zeroed entry, for tests and models.
    pub fn new() -> Self {
        Entry(core::array::from_fn(|_| AtomicU64::new(0)))
    }

    pub(crate) fn load(&self) -> [u64; WORDS] {
        core::array::from_fn(|i| self.0[i].load(Ordering::Relaxed))
    }

    pub(crate) fn store(&self, words: [u64; WORDS]) {
        for (cell, word) in self.0.iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
    }
}

impl<const WORDS: usize> Default for Entry<WORDS> {
    fn default() -> Self {
        Entry::new()
    }
}

/// Where a ring lies. Cheap to make anew for every access.
#[derive(Debug, Clone, Copy)]
pub struct Ring<'a, const WORDS: usize> {
    header: &'a RingHeader,
    entries: &'a [Entry<WORDS>],
}

impl<'a, const WORDS: usize> Ring<'a, WORDS> {
    /// A ring over these parts.
    ///
    /// # Panics
    /// If the number of entries is not a power of two below 2³¹.
    pub fn new(header: &'a RingHeader, entries: &'a [Entry<WORDS>]) -> Self {
        assert!(entries.len().is_power_of_two() && entries.len() < 1 << 31);
        Ring { header, entries }
    }

    /// Number of entries that fit.
    pub fn capacity(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Whether nothing waits, by the indices as they are published: for who only looks.
    pub fn is_empty(&self) -> bool {
        // Relaxed: who takes an entry loads the index anew.
        self.header.head.0.load(Ordering::Relaxed) == self.header.tail.0.load(Ordering::Relaxed)
    }

    fn entry(&self, index: u32) -> &'a Entry<WORDS> {
        &self.entries[index as usize & (self.entries.len() - 1)]
    }
}

/// The writing side's private state.
#[derive(Debug, Default, Clone)]
pub struct Producer {
    tail: u32,
    /// The consumer's index as last seen and checked; avoids touching its cache line.
    seen_head: u32,
    /// Entries pushed ever.
    pushed: u64,
}

impl Producer {
    /// State for a ring that nobody has used yet.
    pub fn new() -> Producer {
        Producer::default()
    }

    /// Free places, looking at the consumer's index only when `wanted` are not known to be free.
    ///
    /// # Errors
    /// [`Corrupt`] if the consumer claims to have taken what was never written.
    pub fn room<const W: usize>(
        &mut self,
        ring: &Ring<'_, W>,
        wanted: u32,
    ) -> Result<u32, Corrupt> {
        let known = ring.capacity() - self.tail.wrapping_sub(self.seen_head);
        if known >= wanted {
            return Ok(known);
        }
        // Acquire: pairs with the Release in Consumer::pop(); the entry is no longer being read.
        let head = ring.header.head.0.load(Ordering::Acquire);
        // The consumer may only move forward, from what it had to what we wrote.
        if head.wrapping_sub(self.seen_head) > self.tail.wrapping_sub(self.seen_head) {
            return Err(Corrupt);
        }
        self.seen_head = head;
        Ok(ring.capacity() - self.tail.wrapping_sub(head))
    }

    /// Writes one entry. `Ok(false)` when the ring is full.
    ///
    /// # Errors
    /// As [`room`](Self::room).
    pub fn push<const W: usize>(
        &mut self,
        ring: &Ring<'_, W>,
        words: [u64; W],
    ) -> Result<bool, Corrupt> {
        if self.room(ring, 1)? == 0 {
            return Ok(false);
        }
        ring.entry(self.tail).store(words);
        self.tail = self.tail.wrapping_add(1);
        self.pushed += 1;
        // Release: pairs with the Acquire in Consumer::available(); publishes the entry.
        ring.header.tail.0.store(self.tail, Ordering::Release);
        Ok(true)
    }

    /// Ordinal of the next entry, counted from the first ever pushed; it does not wrap.
    /// Remember it to ask [`taken`](Self::taken) later.
    pub fn next_ordinal(&self) -> u64 {
        self.pushed
    }

    /// Whether the consumer has taken the entry with this ordinal.
    ///
    /// # Errors
    /// As [`room`](Self::room).
    pub fn taken<const W: usize>(
        &mut self,
        ring: &Ring<'_, W>,
        ordinal: u64,
    ) -> Result<bool, Corrupt> {
        if self.seen_taken() > ordinal {
            return Ok(true);
        }
        // More than the capacity, so that the consumer's index is looked at.
        self.room(ring, u32::MAX)?;
        Ok(self.seen_taken() > ordinal)
    }

    /// Entries that the consumer had taken when its index was last looked at.
    fn seen_taken(&self) -> u64 {
        self.pushed - u64::from(self.tail.wrapping_sub(self.seen_head))
    }
}

/// The reading side's private state.
#[derive(Debug, Default, Clone)]
pub struct Consumer {
    head: u32,
    /// The producer's index as last seen and checked.
    seen_tail: u32,
}

impl Consumer {
    /// State for a ring that nobody has used yet.
    pub fn new() -> Consumer {
        Consumer::default()
    }

    /// Entries waiting.
    ///
    /// # Errors
    /// [`Corrupt`] if the producer claims more entries than fit.
    pub fn available<const W: usize>(&mut self, ring: &Ring<'_, W>) -> Result<u32, Corrupt> {
        let known = self.seen_tail.wrapping_sub(self.head);
        if known > 0 {
            return Ok(known);
        }
        // Acquire: pairs with the Release in Producer::push(); the entries are written.
        let tail = ring.header.tail.0.load(Ordering::Acquire);
        let waiting = tail.wrapping_sub(self.head);
        if waiting > ring.capacity() {
            return Err(Corrupt);
        }
        self.seen_tail = tail;
        Ok(waiting)
    }

    /// Takes one entry, copied out of shared memory before anybody looks at it.
    ///
    /// # Errors
    /// As [`available`](Self::available).
    pub fn pop<const W: usize>(&mut self, ring: &Ring<'_, W>) -> Result<Option<[u64; W]>, Corrupt> {
        if self.available(ring)? == 0 {
            return Ok(None);
        }
        let words = ring.entry(self.head).load();
        self.head = self.head.wrapping_add(1);
        // Release: pairs with the Acquire in Producer::room(); our read of the entry is done.
        ring.header.head.0.store(self.head, Ordering::Release);
        Ok(Some(words))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn parts<const W: usize>(capacity: usize) -> (RingHeader, Vec<Entry<W>>) {
        (RingHeader::new(), (0..capacity).map(|_| Entry::new()).collect())
    }

    proptest! {
        /// Any sequence of pushes and pops behaves as a bounded queue, across index wrap.
        #[test]
        fn behaves_as_a_bounded_queue(ops in prop::collection::vec(any::<bool>(), 0..400), start in any::<u32>()) {
            let (header, entries) = parts::<2>(8);
            header.head.0.store(start, Ordering::Relaxed);
            header.tail.0.store(start, Ordering::Relaxed);
            let ring = Ring::new(&header, &entries);
            let mut producer = Producer { tail: start, seen_head: start, pushed: 0 };
            let mut consumer = Consumer { head: start, seen_tail: start };
            let mut model = VecDeque::new();
            let mut next = 0u64;
            for push in ops {
                if push {
                    let done = producer.push(&ring, [next, !next]).unwrap();
                    prop_assert_eq!(done, model.len() < 8);
                    if done { model.push_back(next); }
                    next += 1;
                } else {
                    let got = consumer.pop(&ring).unwrap();
                    prop_assert_eq!(got, model.pop_front().map(|n| [n, !n]));
                }
            }
        }
    }

    #[test]
    fn a_consumer_that_runs_ahead_is_caught() {
        let (header, entries) = parts::<1>(4);
        let ring = Ring::new(&header, &entries);
        let mut producer = Producer::new();
        for n in 0..4 {
            assert!(producer.push(&ring, [n]).unwrap());
        }
        header.head.0.store(5, Ordering::Relaxed);
        assert_eq!(producer.push(&ring, [9]), Err(Corrupt));
    }

    #[test]
    fn a_consumer_that_runs_back_is_caught() {
        let (header, entries) = parts::<1>(4);
        let ring = Ring::new(&header, &entries);
        let mut producer = Producer::new();
        for n in 0..4 {
            assert!(producer.push(&ring, [n]).unwrap());
        }
        header.head.0.store(4, Ordering::Relaxed);
        assert!(producer.push(&ring, [4]).unwrap());
        header.head.0.store(2, Ordering::Relaxed);
        assert_eq!(producer.room(&ring, 4), Err(Corrupt));
    }

    #[test]
    fn a_producer_that_claims_too_much_is_caught() {
        let (header, entries) = parts::<1>(4);
        let ring = Ring::new(&header, &entries);
        let mut consumer = Consumer::new();
        header.tail.0.store(5, Ordering::Relaxed);
        assert_eq!(consumer.pop(&ring), Err(Corrupt));
        header.tail.0.store(u32::MAX, Ordering::Relaxed);
        assert_eq!(consumer.pop(&ring), Err(Corrupt));
    }

    #[test]
    fn taken_follows_the_consumer() {
        let (header, entries) = parts::<1>(4);
        let ring = Ring::new(&header, &entries);
        let (mut producer, mut consumer) = (Producer::new(), Consumer::new());
        let index = producer.next_ordinal();
        assert!(producer.push(&ring, [1]).unwrap());
        assert!(!producer.taken(&ring, index).unwrap());
        assert_eq!(consumer.pop(&ring).unwrap(), Some([1]));
        assert!(producer.taken(&ring, index).unwrap());
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Everything pushed is popped once, in order, whole.
    #[test]
    fn spsc_delivers_in_order() {
        loom::model(|| {
            let shared = Arc::new((RingHeader::new(), [Entry::<2>::new(), Entry::new()]));
            let writer = Arc::clone(&shared);
            let producer = thread::spawn(move || {
                let ring = Ring::new(&writer.0, &writer.1);
                let mut producer = Producer::new();
                let mut n = 0;
                while n < 3 {
                    if producer.push(&ring, [n, n + 100]).unwrap() {
                        n += 1;
                    } else {
                        thread::yield_now();
                    }
                }
            });
            let ring = Ring::new(&shared.0, &shared.1);
            let mut consumer = Consumer::new();
            let mut expected = 0;
            while expected < 3 {
                match consumer.pop(&ring).unwrap() {
                    Some(words) => {
                        assert_eq!(words, [expected, expected + 100]);
                        expected += 1;
                    }
                    None => thread::yield_now(),
                }
            }
            producer.join().unwrap();
        });
    }
}
