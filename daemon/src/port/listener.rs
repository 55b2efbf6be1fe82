//! One listener of a group at this worker: the accept ring's writing side.

use super::Evict;
use fourwave_protocol::accept::{AcceptProducer, Waiting};
use fourwave_protocol::{Process, Segment};
use fourwave_tcp::Settings;
use std::collections::VecDeque;

/// A connection on the accept queue, as the daemon names it.
#[derive(Debug, Clone, Copy)]
pub struct Unaccepted {
    /// The stack's name.
    pub stack: u64,
    /// Index among the group's connections of this worker.
    pub index: u32,
    /// When it was complete.
    pub stamp: u64,
}

/// What a listener that ends leaves behind.
#[derive(Debug)]
pub struct Ended {
    /// The stack's name for the listener.
    pub stack: u32,
    /// What nobody has accepted and nobody can any more, oldest first.
    pub waiting: Vec<Unaccepted>,
    /// What its connections began with.
    pub settings: Settings,
}

/// What the worker keeps of a listener.
#[derive(Debug)]
pub(super) struct Listener {
    index: u32,
    worker: u32,
    producer: AcceptProducer,
    /// The connections in the ring, oldest first: our own copy.
    waiting: VecDeque<Unaccepted>,
    /// The lane woken last, so that waiting lanes take turns.
    pub(super) last_woken: u16,
    /// The stack's name for this listener.
    pub(super) stack: Option<u32>,
    /// Connections pushed since waiters were last told.
    pub(super) pushed: u32,
    /// What its connections begin with.
    pub(super) settings: Settings,
}

impl Listener {
    pub(super) fn new(segment: &Segment, index: u32, worker: u32) -> Listener {
        Listener {
            index,
            worker,
            producer: AcceptProducer::new(),
            waiting: VecDeque::with_capacity(segment.layout().params().accept_entries as usize),
            last_woken: 0,
            stack: None,
            pushed: 0,
            settings: Settings::default(),
        }
    }

    /// Puts a complete connection on the accept queue. `false` when the ring is full, which
    /// the exact backlog (far smaller than the ring) prevents.
    pub(super) fn push(
        &mut self,
        segment: &Segment,
        waiting: Waiting,
        unaccepted: Unaccepted,
    ) -> bool {
        let ring = segment.accept_ring(self.index, self.worker);
        let pushed = self.producer.push(&ring, waiting);
        if pushed {
            self.waiting.push_back(unaccepted);
            self.pushed += 1;
        }
        pushed
    }

    /// Calls `each` with every connection that was accepted since last time, and who did.
    pub(super) fn accepted(
        &mut self,
        segment: &Segment,
        mut each: impl FnMut(Unaccepted, Process),
    ) -> Result<(), Evict> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let ring = segment.accept_ring(self.index, self.worker);
        while let Some(process) = self.producer.taken(&ring).map_err(|_| Evict::AcceptIndex)? {
            each(self.waiting.pop_front().expect("one for each in the ring"), process);
        }
        Ok(())
    }

    /// A consumer is gone: what it had claimed and not passed is passed.
    pub(super) fn pass_claimed(&mut self, segment: &Segment) -> Result<(), Evict> {
        let ring = segment.accept_ring(self.index, self.worker);
        self.producer.pass_claimed(&ring).map_err(|_| Evict::AcceptIndex)
    }

    /// Empties the queue for good. Calls `each` as [`accepted`](Self::accepted) does for what the
    /// clients have taken; returns what they have not and never will. All of it, and why, if the
    /// queue's index cannot be believed.
    pub(super) fn close(
        &mut self,
        segment: &Segment,
        mut each: impl FnMut(Unaccepted, Process),
    ) -> (Vec<Unaccepted>, Option<Evict>) {
        self.pushed = 0;
        let ring = segment.accept_ring(self.index, self.worker);
        let (mut back, waiting) = (Vec::new(), &mut self.waiting);
        let result = self.producer.take_back(&ring, |who| {
            let connection = waiting.pop_front().expect("one for each in the ring");
            match who {
                Some(process) => each(connection, process),
                None => back.push(connection),
            }
        });
        back.extend(waiting.drain(..));
        (back, result.err().map(|_| Evict::AcceptIndex))
    }

    /// Whether connections wait that the group has not accepted yet.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.len() as u32
    }
}
