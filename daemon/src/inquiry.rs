//! A tool's question to all workers, and the bounded way back of their answers.
//!
//! ```text
//!  tool ◀─ replies ─ control ◀─ one bounded queue per worker ◀─ a slice of work per turn
//! ```
//! A worker whose queue is full goes on with its other work until control has taken something
//! out; so a tool that reads slowly slows down its own answers and nothing else.

use crate::messages::GroupId;
use crossbeam::queue::ArrayQueue;
use fourwave_protocol::Process;
use fourwave_protocol::query::{SocketFilter, SocketKind, SocketState, SocketTimer};
use fourwave_stack::{Reason, Sample};
use fourwave_wire::FourTuple;
use rustix::event::EventfdFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Answers of one worker that may wait for control.
const ANSWERS: usize = 256;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Which flows there are.
    Sockets(SocketFilter),
    /// What was refused or dropped last.
    Drops,
}

/// What a worker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A flow.
    Socket(Row),
    /// Something that was refused or dropped, and how long ago in nanoseconds.
    Drop(Reason, Sample, u64),
    /// This was all.
    End,
}

/// A flow as its worker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Both ends.
    pub tuple: FourTuple,
    /// Its state.
    pub state: SocketState,
    /// Whose it is, unless nobody's.
    pub group: Option<GroupId>,
    /// The process that holds it; of several, the one that was forked last.
    pub holder: Option<Process>,
    /// Bytes that the application has not read.
    pub receive_queue: u32,
    /// Bytes that the peer has not acknowledged.
    pub send_queue: u32,
    /// The timer that runs.
    pub timer: Option<SocketTimer>,
    /// How long somebody has been waited for, milliseconds.
    pub waiting: Option<u32>,
    /// What kind of flow.
    pub kind: SocketKind,
}

/// A question under way, shared by control and the workers.
#[derive(Debug)]
pub struct Inquiry {
    question: Question,
    queues: Box<[ArrayQueue<Answer>]>,
    withdrawn: AtomicBool,
    bell: OwnedFd,
}

impl Inquiry {
    /// A question to so many workers.
    ///
    /// # Errors
    /// When no descriptor can be had.
    pub fn new(question: Question, workers: usize) -> io::Result<Arc<Inquiry>> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Arc::new(Inquiry {
            question,
            queues: (0..workers).map(|_| ArrayQueue::new(ANSWERS)).collect(),
            withdrawn: AtomicBool::new(false),
            bell: rustix::event::eventfd(0, flags)?,
        }))
    }

    /// What is asked.
    pub fn question(&self) -> Question {
        self.question
    }

    /// Worker: answers. `false` when its queue is full.
    pub fn answer(&self, worker: u32, answer: Answer) -> bool {
        self.queues[worker as usize].push(answer).is_ok()
    }

    /// Worker: whether its queue has room.
    pub fn has_room(&self, worker: u32) -> bool {
        !self.queues[worker as usize].is_full()
    }

    /// Worker: tells control of answers.
    pub fn ring(&self) {
        // Fails only when 2⁶⁴ - 2 rings wait: then it is readable, which is all we want.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Worker: whether nobody waits for the answers any more.
    pub fn is_withdrawn(&self) -> bool {
        // Relaxed: nothing is published with it; seen late, it costs some answers too many.
        self.withdrawn.load(Ordering::Relaxed)
    }

    /// Control: nobody waits any more.
    pub fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Relaxed);
    }

    /// Control: a worker's next answer.
    pub fn take(&self, worker: usize) -> Option<Answer> {
        self.queues[worker].pop()
    }
}

impl AsFd for Inquiry {
    /// Readable after [`Inquiry::ring`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
