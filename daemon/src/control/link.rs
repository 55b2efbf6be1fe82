//! Control's side of the queues to the workers.

use crate::messages::{FromWorker, ToWorker};
use crate::path::PathTable;
use crate::worker::{Name, WorkerHandle};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// A worker, as control sees it.
pub trait WorkerLink {
    /// Sends a message, or gives it back when the queue is full.
    ///
    /// # Errors
    /// The message.
    fn send(&self, message: ToWorker) -> Result<(), ToWorker>;
    /// Wakes the worker: something that it waits for has changed.
    fn wake(&self);
    /// The worker's next message.
    fn receive(&self) -> Option<FromWorker>;
    /// Readable when the worker may have sent something.
    fn notify_fd(&self) -> BorrowedFd<'_>;
    /// Makes [`notify_fd`](Self::notify_fd) unreadable; called before receiving.
    fn clear(&self);
    /// What it has counted.
    fn counters(&self) -> Vec<(Name, u64)>;
}

impl WorkerLink for Rc<WorkerHandle> {
    fn send(&self, message: ToWorker) -> Result<(), ToWorker> {
        WorkerHandle::send(self, message)
    }

    fn wake(&self) {
        WorkerHandle::wake(self);
    }

    fn receive(&self) -> Option<FromWorker> {
        WorkerHandle::receive(self)
    }

    fn notify_fd(&self) -> BorrowedFd<'_> {
        WorkerHandle::notify_fd(self)
    }

    fn clear(&self) {
        WorkerHandle::clear(self);
    }

    fn counters(&self) -> Vec<(Name, u64)> {
        WorkerHandle::counters(self)
    }
}

/// All workers.
pub type Links = Rc<Vec<Box<dyn WorkerLink>>>;

/// Messages to the workers that found their queue full. Clients are made to wait while there are
/// many of them (see [`Outboxes::is_crowded`]), which bounds them.
pub(super) struct Outboxes {
    links: Links,
    waiting: Vec<VecDeque<ToWorker>>,
    /// The newest table that a worker has not got yet; older ones are of no use to it.
    paths: Vec<Option<Arc<PathTable>>>,
    /// Told when a message has to wait.
    pub(super) blocked: Rc<Notify>,
}

/// Waiting messages beyond which clients have to wait.
const CROWDED: usize = 256;

impl Outboxes {
    pub(super) fn new(links: Links) -> Outboxes {
        let count = links.len();
        Outboxes {
            links,
            waiting: (0..count).map(|_| VecDeque::new()).collect(),
            paths: vec![None; count],
            blocked: Rc::new(Notify::new()),
        }
    }

    /// Sends to one worker, in order.
    pub(super) fn send(&mut self, worker: usize, message: ToWorker) {
        let waiting = &mut self.waiting[worker];
        if !waiting.is_empty() {
            waiting.push_back(message);
            return;
        }
        if let Err(message) = self.links[worker].send(message) {
            waiting.push_back(message);
            self.blocked.notify_one();
        }
    }

    /// Sends to every worker; `message` makes one for each.
    pub(super) fn broadcast(&mut self, mut message: impl FnMut(u32) -> ToWorker) {
        for worker in 0..self.links.len() {
            self.send(worker, message(worker as u32));
        }
    }

    /// Gives every worker a new table.
    pub(super) fn publish(&mut self, table: &Arc<PathTable>) {
        self.paths.fill(Some(Arc::clone(table)));
        self.flush();
    }

    /// Tries again what found its queue full; whether anything still waits.
    pub(super) fn flush(&mut self) -> bool {
        let mut left = false;
        for (worker, link) in self.links.iter().enumerate() {
            let waiting = &mut self.waiting[worker];
            while let Some(message) = waiting.pop_front() {
                if let Err(message) = link.send(message) {
                    waiting.push_front(message);
                    break;
                }
            }
            if let Some(table) = self.paths[worker].take()
                && let Err(ToWorker::Paths(table)) = link.send(ToWorker::Paths(table))
            {
                self.paths[worker] = Some(table);
            }
            left |= !waiting.is_empty() || self.paths[worker].is_some();
        }
        if left {
            self.blocked.notify_one();
        }
        left
    }

    /// Whether clients should wait before they ask for more.
    pub(super) fn is_crowded(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.len() > CROWDED)
    }
}
