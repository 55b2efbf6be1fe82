//! Accept queues: one bounded ring per listener and worker, one producer (the worker), any
//! number of consumers (threads of the group's processes).
//!
//! A consumer reads the entry first and then claims it by moving the head with one
//! compare-and-swap. Killed before it, nothing has happened; killed after it, the connection was
//! its own and closes with it. No state in between can block another consumer.
//!
//! Indices are 64 bits and never wrap in practice, so a consumer that was stopped between read
//! and claim for however long cannot claim a different entry by accident.

use crate::ring::Entry;
use crate::sync::{AtomicU64, Ordering};
use crate::{Corrupt, Handle};

/// Lanes that can wait on one listener at a time; also the most lanes in a segment.
pub const MAX_LANES: usize = 256;

const WAITER_WORDS: usize = MAX_LANES / 64;

/// What is shared about one listener besides its queues.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct ListenerBlock {
    /// One bit per lane that wants to be told about the next connection.
    waiters: [AtomicU64; WAITER_WORDS],
}

impl ListenerBlock {
    /// Nobody waits. For tests; in a segment it is zeroed memory.
    pub fn new() -> ListenerBlock {
        ListenerBlock { waiters: core::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Client: `lane` wants an event for the next connection. Follow it with a fence
    /// ([`crate::wake::publish_fence`]) and one more look at the queues.
    ///
    /// A wake-up stands for one connection. So who waits calls [`unwait`](Self::unwait) before
    /// it takes a connection, and before it waits again, and looks at the queues in between:
    /// then each wake-up is followed by a connection taken or the queues seen empty, and nobody
    /// sleeps beside a connection.
    pub fn wait(&self, lane: u16) {
        let (word, bit) = place(lane);
        // AcqRel: pairs with the same in take_waiter().
        self.waiters[word].fetch_or(bit, Ordering::AcqRel);
    }

    /// Client: `lane` no longer wants an event.
    pub fn unwait(&self, lane: u16) {
        let (word, bit) = place(lane);
        // AcqRel: pairs with the same in take_waiter().
        self.waiters[word].fetch_and(!bit, Ordering::AcqRel);
    }

    /// Client: whether `lane` is still to be told: it has asked and the daemon has not taken it.
    pub fn is_waiting(&self, lane: u16) -> bool {
        let (word, bit) = place(lane);
        // Acquire: pairs with the AcqRel in take_waiter().
        self.waiters[word].load(Ordering::Acquire) & bit != 0
    }

    /// Daemon, after publishing and a fence: takes one waiting lane off the set, beginning the
    /// search after lane `after` so that no lane is favoured.
    pub fn take_waiter(&self, after: u16) -> Option<u16> {
        let (first, start) = (usize::from(after) / 64, u32::from(after) % 64);
        // The word of `after` is looked at twice: first its later bits, at the end the rest.
        for step in 0..=WAITER_WORDS {
            let word = (first + step) % WAITER_WORDS;
            let mask = match step {
                0 => (!0u64).checked_shl(start + 1).unwrap_or(0),
                _ => !0,
            };
            let mut waiting = self.waiters[word].load(Ordering::Relaxed) & mask;
            while waiting != 0 {
                let bit = waiting & waiting.wrapping_neg();
                // AcqRel: pairs with the same in wait(); whoever clears the bit owns the wake.
                if self.waiters[word].fetch_and(!bit, Ordering::AcqRel) & bit != 0 {
                    return Some((word * 64) as u16 + bit.trailing_zeros() as u16);
                }
                waiting &= !bit;
            }
        }
        None
    }
}

impl Default for ListenerBlock {
    fn default() -> Self {
        ListenerBlock::new()
    }
}

fn place(lane: u16) -> (usize, u64) {
    assert!(usize::from(lane) < MAX_LANES);
    (usize::from(lane) / 64, 1 << (lane % 64))
}

#[repr(C, align(128))]
#[derive(Debug)]
struct Index(AtomicU64);

/// The indices of an accept ring. Zeroed memory is an empty ring.
#[repr(C)]
#[derive(Debug)]
pub struct AcceptHeader {
    head: Index,
    tail: Index,
}

impl AcceptHeader {
    /// An empty ring's header, for tests and models; in a segment it is zeroed memory.
    pub fn new() -> AcceptHeader {
        AcceptHeader { head: Index(AtomicU64::new(0)), tail: Index(AtomicU64::new(0)) }
    }
}

impl Default for AcceptHeader {
    fn default() -> Self {
        AcceptHeader::new()
    }
}

/// A connection that waits to be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Which connection.
    pub handle: Handle,
    /// When it was complete, nanoseconds of CLOCK_MONOTONIC: gives the order across workers.
    pub stamp: u64,
}

impl Waiting {
    fn words(self) -> [u64; 2] {
        [u64::from(self.handle.index) << 32 | u64::from(self.handle.generation), self.stamp]
    }

    fn from_words([id, stamp]: [u64; 2]) -> Waiting {
        Waiting { handle: Handle { index: (id >> 32) as u32, generation: id as u32 }, stamp }
    }
}

/// Where an accept ring lies.
#[derive(Debug, Clone, Copy)]
pub struct AcceptRing<'a> {
    header: &'a AcceptHeader,
    entries: &'a [Entry<2>],
}

impl<'a> AcceptRing<'a> {
    /// A ring over these parts.
    ///
    /// # Panics
    /// If the number of entries is not a power of two.
    pub fn new(header: &'a AcceptHeader, entries: &'a [Entry<2>]) -> Self {
        assert!(entries.len().is_power_of_two());
        AcceptRing { header, entries }
    }

    /// Client: the oldest waiting connection, left where it is.
    pub fn peek(&self) -> Option<Waiting> {
        self.oldest().map(|(_, waiting)| waiting)
    }

    /// Client: takes the oldest waiting connection. Any thread may call this at any time.
    pub fn pop(&self) -> Option<Waiting> {
        loop {
            let (head, waiting) = self.oldest()?;
            let next = head.wrapping_add(1);
            // AcqRel: pairs with the Acquire in AcceptProducer::len(); our read of the entry
            // is done before the place is given back. Acquire on failure: look again.
            let claim = self.header.head.0.compare_exchange_weak(
                head,
                next,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            if claim.is_ok() {
                return Some(waiting);
            }
            core::hint::spin_loop();
        }
    }

    /// Client: whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.oldest().is_none()
    }

    /// Client: connections ever pushed; tells that something came since it was last asked.
    pub fn pushed(&self) -> u64 {
        // Acquire: pairs with the Release in AcceptProducer::push().
        self.header.tail.0.load(Ordering::Acquire)
    }

    fn oldest(&self) -> Option<(u64, Waiting)> {
        // Acquire: pairs with the AcqRel in pop(), so that tail is not older than head.
        let head = self.header.head.0.load(Ordering::Acquire);
        // Acquire: pairs with the Release in AcceptProducer::push(); the entry is written.
        let tail = self.header.tail.0.load(Ordering::Acquire);
        if head == tail {
            return None;
        }
        let entry = &self.entries[head as usize & (self.entries.len() - 1)];
        Some((head, Waiting::from_words(entry.load())))
    }
}

/// The worker's private state for one accept ring.
#[derive(Debug, Default, Clone)]
pub struct AcceptProducer {
    tail: u64,
    seen_head: u64,
}

impl AcceptProducer {
    /// State for a ring that nobody has used yet.
    pub fn new() -> AcceptProducer {
        AcceptProducer::default()
    }

    /// Connections that wait, by the consumers' index as checked just now.
    ///
    /// # Errors
    /// [`Corrupt`] if the consumers' index went backwards or ahead of what was pushed.
    pub fn len(&mut self, ring: &AcceptRing<'_>) -> Result<u64, Corrupt> {
        // Acquire: pairs with the AcqRel in AcceptRing::pop(); the entries were read.
        let head = ring.header.head.0.load(Ordering::Acquire);
        if head.wrapping_sub(self.seen_head) > self.tail.wrapping_sub(self.seen_head) {
            return Err(Corrupt);
        }
        self.seen_head = head;
        Ok(self.tail.wrapping_sub(head))
    }

    /// Connections that waited when [`len`](Self::len) was last asked, plus those pushed since.
    pub fn known_len(&self) -> u64 {
        self.tail.wrapping_sub(self.seen_head)
    }

    /// Adds a connection. `Ok(false)` when the ring is full.
    ///
    /// # Errors
    /// As [`len`](Self::len).
    pub fn push(&mut self, ring: &AcceptRing<'_>, waiting: Waiting) -> Result<bool, Corrupt> {
        let capacity = ring.entries.len() as u64;
        if self.known_len() >= capacity && self.len(ring)? >= capacity {
            return Ok(false);
        }
        ring.entries[self.tail as usize & (ring.entries.len() - 1)].store(waiting.words());
        self.tail = self.tail.wrapping_add(1);
        // Release: pairs with the Acquire in AcceptRing::oldest(); publishes the entry.
        ring.header.tail.0.store(self.tail, Ordering::Release);
        Ok(true)
    }

    /// Takes back what nobody has accepted; the queue is empty then. Gives the number of entries
    /// taken back: they are the ones pushed last, all before them were accepted.
    ///
    /// # Errors
    /// [`Corrupt`] as for [`len`](Self::len), or when the head does not hold still.
    pub fn take_back(&mut self, ring: &AcceptRing<'_>) -> Result<u64, Corrupt> {
        // A failed attempt means that a consumer took an entry: there are not more than these.
        for _ in 0..=ring.entries.len() {
            let left = self.len(ring)?;
            // AcqRel, Relaxed on failure: as the claim in AcceptRing::pop(), its competitor.
            let claim = ring.header.head.0.compare_exchange(
                self.seen_head,
                self.tail,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            if claim.is_ok() {
                self.seen_head = self.tail;
                return Ok(left);
            }
        }
        Err(Corrupt)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn parts() -> (AcceptHeader, Vec<Entry<2>>) {
        (AcceptHeader::new(), (0..4).map(|_| Entry::new()).collect())
    }

    fn waiting(n: u32) -> Waiting {
        Waiting { handle: Handle { index: n, generation: n + 7 }, stamp: u64::from(n) * 10 }
    }

    #[test]
    fn first_in_first_out_until_full() {
        let (header, entries) = parts();
        let ring = AcceptRing::new(&header, &entries);
        let mut producer = AcceptProducer::new();
        for n in 0..4 {
            assert!(producer.push(&ring, waiting(n)).unwrap());
        }
        assert!(!producer.push(&ring, waiting(4)).unwrap());
        assert_eq!(ring.peek(), Some(waiting(0)));
        assert_eq!(ring.pop(), Some(waiting(0)));
        assert_eq!(producer.known_len(), 4);
        assert_eq!(producer.len(&ring), Ok(3));
        assert!(producer.push(&ring, waiting(4)).unwrap());
        for n in 1..5 {
            assert_eq!(ring.pop(), Some(waiting(n)));
        }
        assert_eq!(ring.pop(), None);
    }

    #[test]
    fn an_impossible_head_is_caught() {
        let (header, entries) = parts();
        let ring = AcceptRing::new(&header, &entries);
        let mut producer = AcceptProducer::new();
        assert!(producer.push(&ring, waiting(1)).unwrap());
        header.head.0.store(2, Ordering::Relaxed);
        assert_eq!(producer.len(&ring), Err(Corrupt));
    }

    #[test]
    fn what_nobody_accepted_is_taken_back() {
        let (header, entries) = parts();
        let ring = AcceptRing::new(&header, &entries);
        let mut producer = AcceptProducer::new();
        for n in 0..3 {
            assert!(producer.push(&ring, waiting(n)).unwrap());
        }
        assert_eq!(ring.pop(), Some(waiting(0)));
        assert_eq!(producer.take_back(&ring), Ok(2));
        assert_eq!((ring.pop(), producer.take_back(&ring)), (None, Ok(0)));
        assert!(producer.push(&ring, waiting(3)).unwrap());
        assert_eq!(ring.pop(), Some(waiting(3)));
        header.head.0.store(9, Ordering::Relaxed);
        assert_eq!(producer.take_back(&ring), Err(Corrupt));
    }

    #[test]
    fn waiters_are_taken_in_turn() {
        let block = ListenerBlock::new();
        for lane in [3, 64, 255] {
            block.wait(lane);
        }
        assert_eq!(block.take_waiter(3), Some(64));
        assert_eq!(block.take_waiter(64), Some(255));
        assert_eq!(block.take_waiter(255), Some(3));
        assert_eq!(block.take_waiter(3), None);
        block.wait(5);
        block.unwait(5);
        assert_eq!(block.take_waiter(0), None);
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Two consumers: each connection is accepted exactly once.
    #[test]
    fn each_connection_is_claimed_once() {
        loom::model(|| {
            let shared = Arc::new((AcceptHeader::new(), [Entry::<2>::new(), Entry::new()]));
            let take = |shared: Arc<(AcceptHeader, [Entry<2>; 2])>| {
                move || AcceptRing::new(&shared.0, &shared.1).pop().map(|w| w.stamp)
            };
            let ring = AcceptRing::new(&shared.0, &shared.1);
            let mut producer = AcceptProducer::new();
            let handle = Handle { index: 1, generation: 1 };
            assert!(producer.push(&ring, Waiting { handle, stamp: 1 }).unwrap());
            let other = thread::spawn(take(Arc::clone(&shared)));
            assert!(producer.push(&ring, Waiting { handle, stamp: 2 }).unwrap());
            let mine = ring.pop().map(|w| w.stamp);
            let theirs = other.join().unwrap();
            let mut got: Vec<u64> = [mine, theirs].into_iter().flatten().collect();
            while let Some(rest) = ring.pop() {
                got.push(rest.stamp);
            }
            got.sort_unstable();
            assert_eq!(got, [1, 2]);
        });
    }

    /// A consumer against the producer that takes back: each connection goes one of the two ways.
    #[test]
    fn a_connection_is_accepted_or_taken_back() {
        loom::model(|| {
            let shared = Arc::new((AcceptHeader::new(), [Entry::<2>::new(), Entry::new()]));
            let ring = AcceptRing::new(&shared.0, &shared.1);
            let mut producer = AcceptProducer::new();
            let handle = Handle { index: 1, generation: 1 };
            for stamp in [1, 2] {
                assert!(producer.push(&ring, Waiting { handle, stamp }).unwrap());
            }
            let other = Arc::clone(&shared);
            let consumer = thread::spawn(move || {
                AcceptRing::new(&other.0, &other.1).pop().map(|waiting| waiting.stamp)
            });
            let back = producer.take_back(&ring).unwrap();
            match consumer.join().unwrap() {
                Some(stamp) => assert_eq!((stamp, back), (1, 1)),
                None => assert_eq!(back, 2),
            }
        });
    }

    /// Whoever goes to sleep without having seen the connection is taken off the waiting set.
    #[test]
    fn no_sleeping_acceptor_is_forgotten() {
        loom::model(|| {
            let shared = Arc::new((ListenerBlock::new(), AcceptHeader::new(), [Entry::<2>::new()]));
            let other = Arc::clone(&shared);
            let worker = thread::spawn(move || {
                let ring = AcceptRing::new(&other.1, &other.2);
                let handle = Handle { index: 1, generation: 1 };
                let waiting = Waiting { handle, stamp: 1 };
                assert!(AcceptProducer::new().push(&ring, waiting).unwrap());
                crate::wake::publish_fence();
                other.0.take_waiter(0)
            });
            shared.0.wait(65);
            crate::wake::publish_fence();
            let seen = !AcceptRing::new(&shared.1, &shared.2).is_empty();
            let woken = worker.join().unwrap();
            assert!(seen || woken == Some(65));
        });
    }
}
