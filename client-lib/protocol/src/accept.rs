//! Accept queues: one bounded ring per listener and worker, one producer (the worker), any
//! number of consumers (threads of the group's processes).
//!
//! A consumer reads the entry at the head, claims it by writing its process's name into it with
//! one compare-and-swap, and moves the head on. Killed before the claim, nothing has happened;
//! killed after it, the connection was its own and closes with it, and whoever looks next moves
//! the head. No state in between can block another consumer, and the daemon can tell who has taken
//! what.
//!
//! Indices are 64 bits and never wrap in practice, and the word that is swapped says how often the
//! ring has gone round, so a consumer that was stopped between read and claim for however long
//! cannot claim a different entry by accident.

use crate::process::Process;
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

/// One place of an accept ring.
#[repr(C, align(32))]
#[derive(Debug)]
pub struct AcceptEntry {
    waiting: [AtomicU64; 2],
    /// How often the ring had gone round when the entry was written, in the upper half; who has
    /// taken it, in the lower.
    claim: AtomicU64,
}

/// Stands in a claim for the daemon, which has taken the entry back. No process's name.
const TAKEN_BACK: u32 = u32::MAX;

impl AcceptEntry {
    /// A zeroed entry, for tests and models.
    pub fn new() -> AcceptEntry {
        AcceptEntry {
            waiting: core::array::from_fn(|_| AtomicU64::new(0)),
            claim: AtomicU64::new(0),
        }
    }

    /// Claims the entry for `name`, if it is still what `unclaimed` says.
    fn claim(&self, unclaimed: u64, name: u32) -> Result<(), u64> {
        // AcqRel: of several who try this one wins; the daemon takes the name with an Acquire.
        // Acquire on failure: what is found is looked at.
        let claimed = unclaimed | u64::from(name);
        let swap =
            self.claim.compare_exchange(unclaimed, claimed, Ordering::AcqRel, Ordering::Acquire);
        swap.map(|_| ())
    }
}

impl Default for AcceptEntry {
    fn default() -> Self {
        AcceptEntry::new()
    }
}

/// Where an accept ring lies.
#[derive(Debug, Clone, Copy)]
pub struct AcceptRing<'a> {
    header: &'a AcceptHeader,
    entries: &'a [AcceptEntry],
}

impl<'a> AcceptRing<'a> {
    /// A ring over these parts.
    ///
    /// # Panics
    /// If the number of entries is not a power of two.
    pub fn new(header: &'a AcceptHeader, entries: &'a [AcceptEntry]) -> Self {
        assert!(entries.len().is_power_of_two());
        AcceptRing { header, entries }
    }

    /// Client: the oldest waiting connection, left where it is.
    pub fn peek(&self) -> Option<Waiting> {
        self.oldest().map(|(_, waiting)| waiting)
    }

    /// Client: takes the oldest waiting connection for a process. Any thread may call this at any
    /// time.
    pub fn pop(&self, process: Process) -> Option<Waiting> {
        loop {
            let (head, waiting) = self.oldest()?;
            let claim = self.entry(head).claim(self.unclaimed(head), process.raw());
            self.advance(head);
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

    /// The head, and what waits there. Moves the head past what is claimed: who did may have been
    /// killed before it could.
    fn oldest(&self) -> Option<(u64, Waiting)> {
        loop {
            // Acquire: pairs with the AcqRel in advance(), so that tail is not older than head.
            let head = self.header.head.0.load(Ordering::Acquire);
            // Acquire: pairs with the Release in AcceptProducer::push(); the entry is written.
            let tail = self.header.tail.0.load(Ordering::Acquire);
            if head >= tail {
                return None;
            }
            if tail - head > self.entries.len() as u64 {
                // Others have moved the head since, or somebody has spoilt an index: then nothing
                // that is there can be believed.
                if self.header.head.0.load(Ordering::Acquire) == head {
                    return None;
                }
                continue;
            }
            let entry = self.entry(head);
            let words = core::array::from_fn(|i| entry.waiting[i].load(Ordering::Relaxed));
            // Acquire: whoever claimed it has read the words before; and pairs with the store in
            // AcceptProducer::push(), which writes it before them when the ring has gone round.
            if entry.claim.load(Ordering::Acquire) == self.unclaimed(head) {
                return Some((head, Waiting::from_words(words)));
            }
            self.advance(head);
        }
    }

    /// Moves the head past `head`, unless somebody has. The entry there is claimed.
    fn advance(&self, head: u64) {
        // AcqRel: pairs with the Acquire in AcceptProducer; the claim is seen there, and our read
        // of the entry is done before the place is given back.
        let index = &self.header.head.0;
        let _ = index.compare_exchange(head, head + 1, Ordering::AcqRel, Ordering::Relaxed);
    }

    fn entry(&self, index: u64) -> &'a AcceptEntry {
        &self.entries[index as usize & (self.entries.len() - 1)]
    }

    /// The claim of the entry with this index while nobody has taken it.
    fn unclaimed(&self, index: u64) -> u64 {
        (index / self.entries.len() as u64) << 32
    }
}

/// The worker's private state for one accept ring.
#[derive(Debug, Default, Clone)]
pub struct AcceptProducer {
    tail: u64,
    /// The consumers' index as last seen and checked.
    seen_head: u64,
    /// Entries below were given out by [`taken`](Self::taken), or taken back.
    collected: u64,
}

impl AcceptProducer {
    /// State for a ring that nobody has used yet.
    pub fn new() -> AcceptProducer {
        AcceptProducer::default()
    }

    /// Connections pushed and not yet given out by [`taken`](Self::taken).
    pub fn len(&self) -> u64 {
        self.tail - self.collected
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn look(&mut self, ring: &AcceptRing<'_>) -> Result<(), Corrupt> {
        // Acquire: pairs with the AcqRel in AcceptRing::advance(); entries were read and claimed.
        let head = ring.header.head.0.load(Ordering::Acquire);
        if head < self.seen_head || head > self.tail {
            return Err(Corrupt);
        }
        self.seen_head = head;
        Ok(())
    }

    /// Who has taken the next entry, oldest first; `None` when no more have been taken.
    ///
    /// # Errors
    /// [`Corrupt`] if the consumers' index went backwards or ahead of what was pushed, or the entry
    /// has been passed and nobody has signed.
    pub fn taken(&mut self, ring: &AcceptRing<'_>) -> Result<Option<Process>, Corrupt> {
        if self.collected == self.seen_head {
            self.look(ring)?;
            if self.collected == self.seen_head {
                return Ok(None);
            }
        }
        // Acquire: pairs with the AcqRel in AcceptEntry::claim().
        let word = ring.entry(self.collected).claim.load(Ordering::Acquire);
        let process = claimant(ring, self.collected, word)?;
        self.collected += 1;
        Ok(Some(process))
    }

    /// Adds a connection. `false` when the ring is full.
    pub fn push(&mut self, ring: &AcceptRing<'_>, waiting: Waiting) -> bool {
        if self.len() >= ring.entries.len() as u64 {
            return false;
        }
        let entry = ring.entry(self.tail);
        // Before the words: a consumer that was stopped since the last round and reads them now
        // must not find its own round's claim after them.
        entry.claim.store(ring.unclaimed(self.tail), Ordering::Relaxed);
        for (cell, word) in entry.waiting.iter().zip(waiting.words()) {
            // Release: pairs with nothing that is believed; keeps the claim's store before it.
            cell.store(word, Ordering::Release);
        }
        self.tail += 1;
        // Release: pairs with the Acquire in AcceptRing::oldest(); publishes the entry.
        ring.header.tail.0.store(self.tail, Ordering::Release);
        true
    }

    /// Moves the head past what is claimed, for a consumer that may have been killed before it
    /// did. Looks at as many entries as there are at the most.
    ///
    /// # Errors
    /// [`Corrupt`] as for [`taken`](Self::taken).
    pub fn pass_claimed(&mut self, ring: &AcceptRing<'_>) -> Result<(), Corrupt> {
        for _ in 0..ring.entries.len() {
            self.look(ring)?;
            let head = self.seen_head;
            // Acquire: as in taken().
            if head == self.tail
                || ring.entry(head).claim.load(Ordering::Acquire) == ring.unclaimed(head)
            {
                return Ok(());
            }
            ring.advance(head);
        }
        Ok(())
    }

    /// Takes back what nobody has accepted; the queue is empty then. Calls `each` for every entry
    /// that [`taken`](Self::taken) has not given out, oldest first, with who has taken it, or
    /// `None` for what was taken back.
    ///
    /// # Errors
    /// [`Corrupt`] as for [`taken`](Self::taken), or when the head does not hold still.
    pub fn take_back(
        &mut self,
        ring: &AcceptRing<'_>,
        mut each: impl FnMut(Option<Process>),
    ) -> Result<(), Corrupt> {
        while self.collected < self.tail {
            let entry = ring.entry(self.collected);
            match entry.claim(ring.unclaimed(self.collected), TAKEN_BACK) {
                Ok(()) => each(None),
                Err(word) => each(Some(claimant(ring, self.collected, word)?)),
            }
            self.collected += 1;
        }
        // All are claimed: consumers only move the head, each time by one.
        for _ in 0..=ring.entries.len() {
            self.look(ring)?;
            if self.seen_head == self.tail {
                return Ok(());
            }
            // AcqRel, Relaxed on failure: as in AcceptRing::advance(), its competitor.
            let head = &ring.header.head.0;
            let (from, to) = (self.seen_head, self.tail);
            let _ = head.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
        }
        Err(Corrupt)
    }
}

/// Who has signed the entry with this index.
fn claimant(ring: &AcceptRing<'_>, index: u64, word: u64) -> Result<Process, Corrupt> {
    let name = word ^ ring.unclaimed(index);
    u32::try_from(name).ok().and_then(Process::from_raw).ok_or(Corrupt)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn parts() -> (AcceptHeader, Vec<AcceptEntry>) {
        (AcceptHeader::new(), (0..4).map(|_| AcceptEntry::new()).collect())
    }

    fn waiting(n: u32) -> Waiting {
        Waiting { handle: Handle { index: n, generation: n + 7 }, stamp: u64::from(n) * 10 }
    }

    const ONE: Process = Process::FIRST;

    #[test]
    fn first_in_first_out_until_full() {
        let (header, entries) = parts();
        let ring = AcceptRing::new(&header, &entries);
        let mut producer = AcceptProducer::new();
        for n in 0..4 {
            assert!(producer.push(&ring, waiting(n)));
        }
        assert!(!producer.push(&ring, waiting(4)));
        assert_eq!(ring.peek(), Some(waiting(0)));
        assert_eq!(ring.pop(ONE), Some(waiting(0)));
        assert!(!producer.push(&ring, waiting(4)), "nobody has looked who took it");
        assert_eq!(producer.taken(&ring), Ok(Some(ONE)));
        assert_eq!((producer.taken(&ring), producer.len()), (Ok(None), 3));
        assert!(producer.push(&ring, waiting(4)));
        let two = Process::first(1);
        for n in 1..5 {
            assert_eq!(ring.pop(two), Some(waiting(n)));
            assert_eq!(producer.taken(&ring), Ok(Some(two)));
        }
        assert_eq!(ring.pop(ONE), None);
    }

    #[test]
    fn impossible_indices_and_claims_are_caught() {
        let (header, entries) = parts();
        let ring = AcceptRing::new(&header, &entries);
        let mut producer = AcceptProducer::new();
        assert!(producer.push(&ring, waiting(1)));
        header.head.0.store(2, Ordering::Relaxed);
        assert_eq!(producer.taken(&ring), Err(Corrupt));
        header.head.0.store(1, Ordering::Relaxed);
        for unsigned in [0, 1, 1 << 31, 1 << 32 | 256, u64::from(TAKEN_BACK), u64::MAX] {
            entries[0].claim.store(unsigned, Ordering::Relaxed);
            assert_eq!(producer.clone().taken(&ring), Err(Corrupt), "{unsigned:#x}");
        }
    }

    #[test]
    fn what_nobody_accepted_is_taken_back() {
        let (header, entries) = parts();
        let ring = AcceptRing::new(&header, &entries);
        let mut producer = AcceptProducer::new();
        for n in 0..3 {
            assert!(producer.push(&ring, waiting(n)));
        }
        assert_eq!(ring.pop(ONE), Some(waiting(0)));
        let mut seen = Vec::new();
        assert_eq!(producer.take_back(&ring, |who| seen.push(who)), Ok(()));
        assert_eq!(seen, [Some(ONE), None, None]);
        assert_eq!(ring.pop(ONE), None);
        assert_eq!(producer.take_back(&ring, |_| panic!("empty")), Ok(()));
        assert!(producer.push(&ring, waiting(3)));
        assert_eq!(ring.pop(ONE), Some(waiting(3)));
        header.head.0.store(9, Ordering::Relaxed);
        assert_eq!(producer.take_back(&ring, |_| ()), Err(Corrupt));
    }

    #[test]
    fn a_consumer_killed_after_its_claim_holds_up_nobody() {
        let (header, entries) = parts();
        let ring = AcceptRing::new(&header, &entries);
        let mut producer = AcceptProducer::new();
        let two = Process::first(1);
        for n in 0..2 {
            assert!(producer.push(&ring, waiting(n)));
        }
        entries[0].claim(ring.unclaimed(0), ONE.raw()).unwrap();
        assert_eq!(producer.taken(&ring), Ok(None));
        assert_eq!(ring.pop(two), Some(waiting(1)));
        assert_eq!(producer.taken(&ring), Ok(Some(ONE)));
        assert_eq!(producer.taken(&ring), Ok(Some(two)));
        // And with nobody left who would look.
        assert!(producer.push(&ring, waiting(2)));
        entries[2].claim(ring.unclaimed(2), two.raw()).unwrap();
        assert_eq!(producer.pass_claimed(&ring), Ok(()));
        assert_eq!(producer.taken(&ring), Ok(Some(two)));
    }

    #[test]
    fn who_was_stopped_for_a_round_claims_nothing() {
        let (header, entries) = parts();
        let ring = AcceptRing::new(&header, &entries);
        let mut producer = AcceptProducer::new();
        assert!(producer.push(&ring, waiting(0)));
        let (head, _) = ring.oldest().unwrap();
        for n in 1..5 {
            assert_eq!(ring.pop(ONE).map(|waiting| waiting.handle.index), Some(n - 1));
            assert_eq!(producer.taken(&ring), Ok(Some(ONE)));
            assert!(producer.push(&ring, waiting(n)));
        }
        assert!(ring.entry(head).claim(ring.unclaimed(head), ONE.raw()).is_err());
        assert_eq!(ring.peek(), Some(waiting(4)));
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

    const ONE: Process = Process::FIRST;
    const HANDLE: Handle = Handle { index: 1, generation: 1 };

    type Parts = (AcceptHeader, [AcceptEntry; 2]);

    fn parts() -> Arc<Parts> {
        Arc::new((AcceptHeader::new(), [AcceptEntry::new(), AcceptEntry::new()]))
    }

    fn pop(shared: &Parts, process: Process) -> Option<u64> {
        AcceptRing::new(&shared.0, &shared.1).pop(process).map(|waiting| waiting.stamp)
    }

    /// Two consumers: each connection is accepted exactly once, and by whom is known.
    #[test]
    fn each_connection_is_claimed_once() {
        loom::model(|| {
            let shared = parts();
            let two = Process::first(1);
            let ring = AcceptRing::new(&shared.0, &shared.1);
            let mut producer = AcceptProducer::new();
            assert!(producer.push(&ring, Waiting { handle: HANDLE, stamp: 1 }));
            let theirs = Arc::clone(&shared);
            let other = thread::spawn(move || pop(&theirs, two));
            assert!(producer.push(&ring, Waiting { handle: HANDLE, stamp: 2 }));
            let mut got = vec![(pop(&shared, ONE), ONE), (other.join().unwrap(), two)];
            while let Some(rest) = pop(&shared, ONE) {
                got.push((Some(rest), ONE));
            }
            got.retain(|(stamp, _)| stamp.is_some());
            got.sort_unstable();
            assert_eq!(got.iter().map(|(stamp, _)| stamp.unwrap()).collect::<Vec<_>>(), [1, 2]);
            for (_, process) in got {
                assert_eq!(producer.taken(&ring), Ok(Some(process)));
            }
        });
    }

    /// A consumer that dies between claim and head, beside one that lives.
    #[test]
    fn a_killed_consumer_holds_up_nobody() {
        loom::model(|| {
            let shared = parts();
            let dead = Process::first(1);
            let ring = AcceptRing::new(&shared.0, &shared.1);
            let mut producer = AcceptProducer::new();
            for stamp in [1, 2] {
                assert!(producer.push(&ring, Waiting { handle: HANDLE, stamp }));
            }
            let theirs = Arc::clone(&shared);
            let killed = thread::spawn(move || {
                let ring = AcceptRing::new(&theirs.0, &theirs.1);
                let Some((head, waiting)) = ring.oldest() else { return None };
                let claim = ring.entry(head).claim(ring.unclaimed(head), dead.raw());
                claim.is_ok().then_some(waiting.stamp)
            });
            let mine = pop(&shared, ONE);
            let lost = killed.join().unwrap();
            let rest = pop(&shared, ONE);
            let mut all: Vec<u64> = [mine, lost, rest].into_iter().flatten().collect();
            all.sort_unstable();
            assert_eq!(all, [1, 2]);
            producer.pass_claimed(&ring).unwrap();
            assert!(producer.taken(&ring).unwrap().is_some());
            assert!(producer.taken(&ring).unwrap().is_some());
        });
    }

    /// A consumer against the producer that takes back: each connection goes one of the two ways.
    #[test]
    fn a_connection_is_accepted_or_taken_back() {
        loom::model(|| {
            let shared = parts();
            let ring = AcceptRing::new(&shared.0, &shared.1);
            let mut producer = AcceptProducer::new();
            for stamp in [1, 2] {
                assert!(producer.push(&ring, Waiting { handle: HANDLE, stamp }));
            }
            let other = Arc::clone(&shared);
            let consumer = thread::spawn(move || pop(&other, ONE));
            let mut back = Vec::new();
            producer.take_back(&ring, |who| back.push(who)).unwrap();
            match consumer.join().unwrap() {
                Some(1) => assert_eq!(back, [Some(ONE), None]),
                // The first was taken back already.
                Some(2) => assert_eq!(back, [None, Some(ONE)]),
                None => assert_eq!(back, [None, None]),
                Some(other) => panic!("took {other}"),
            }
            assert_eq!(pop(&shared, ONE), None);
        });
    }
}
