//! A worker: one pinned thread that owns one NIC queue and one shard of the stack.
//!
//! ```text
//!  AF_XDP rx ─▶ mine? ─▶ shard.handle_frame ─▶ port (blocks, extents, accept queues)
//!                 │ no                              │ after the batch: events, doorbells
//!                 ▼                                 ▼
//!        hand-off ring of the owner        command rings of the clients' lanes
//!                                                   │
//!  AF_XDP tx ◀── shard.flush ◀── timers ◀───────────┘
//! ```
//! One [`turn`](turn) takes a batch from each source, and only then transmits, so that an ACK
//! rides on the data and the FIN that came with it, and so that one system call sends all.
//! A worker takes no lock and allocates nothing on this path.

mod bell;
mod commands;
mod control;
mod counters;
mod handoff;
mod host;
mod inquiries;
mod listeners;
mod options;
mod processes;
mod sleep;
mod taps;
mod turn;

pub use counters::{Name, Published};
pub use inquiries::MOST_INQUIRIES;
pub use taps::MOST_TAPS;

use crate::messages::{FromWorker, ToWorker};
use crate::path::PathTable;
use crate::port::{Clients, Notices};
use bell::Bell;
use core::time::Duration;
use crossbeam::queue::ArrayQueue;
use fourwave_stack::{Keys, Owners, Shard};
use handoff::Exchange;
use host::Environment;
use rustix::fd::{AsFd, BorrowedFd};
use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

/// Messages that may wait in either direction between control and a worker.
const MESSAGES: usize = 1024;

/// When a worker gives its CPU up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polling {
    /// Never.
    Busy,
    /// After it has found nothing to do for this long.
    Adaptive(Duration),
    /// As soon as there is nothing to do.
    Interrupt,
}

/// How the kernel schedules a worker's thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduling {
    /// As it schedules any thread.
    Normal,
    /// With this nice value.
    Nice(i32),
    /// `SCHED_FIFO` with this priority.
    Fifo(i32),
}

/// What one worker is made of.
pub struct Setup {
    /// CPU to pin it to.
    pub cpu: Option<usize>,
    /// Its NIC queue.
    pub queue: fourwave_xdp::Queue,
    /// What bounds the SYNs that wait in it.
    pub gate: fourwave_xdp::Gate,
    /// Its shard's limits and protocol settings; `worker`, `workers` and `owners` are filled in.
    pub stack: fourwave_stack::Config,
}

/// What all workers have in common.
pub struct Common {
    /// The same for all shards of a daemon.
    pub keys: Keys,
    /// Whose flow is whose.
    pub owners: Owners,
    /// When to sleep.
    pub polling: Polling,
    /// How to be scheduled.
    pub scheduling: Scheduling,
    /// The way to everywhere, as known at start.
    pub paths: Arc<PathTable>,
    /// Bytes of the largest frame that can be handed from worker to worker.
    pub frame_bytes: usize,
}

/// Control's end of a worker.
pub struct WorkerHandle {
    to: Arc<ArrayQueue<ToWorker>>,
    from: Arc<ArrayQueue<FromWorker>>,
    worker_bell: Arc<Bell>,
    control_bell: Arc<Bell>,
    published: Arc<Published>,
    thread: Option<JoinHandle<()>>,
}

/// Starts all workers of a daemon, one per set-up, and waits until they are ready to work.
///
/// # Errors
/// When a thread, an event descriptor or the shards' memory cannot be had.
pub fn spawn(setups: Vec<Setup>, common: &Common) -> io::Result<Vec<WorkerHandle>> {
    let workers = setups.len() as u32;
    let mut bells = Vec::new();
    for _ in 0..workers {
        bells.push(Arc::new(Bell::new()?));
    }
    let exchange = Arc::new(Exchange::new(bells.clone(), common.frame_bytes));
    let (working, ready) = mpsc::channel();
    let shared = Shared { workers, exchange, working };
    let mut handles = Vec::new();
    for (index, (setup, bell)) in setups.into_iter().zip(bells).enumerate() {
        handles.push(start(index as u32, setup, common, bell, &shared)?);
    }
    drop(shared);
    // Ends when the last worker has given its end back.
    ready.iter().for_each(drop);
    Ok(handles)
}

/// What starting workers share.
struct Shared {
    workers: u32,
    exchange: Arc<Exchange>,
    /// Given back by a worker that is ready to work.
    working: mpsc::Sender<()>,
}

fn start(
    index: u32,
    setup: Setup,
    common: &Common,
    worker_bell: Arc<Bell>,
    shared: &Shared,
) -> io::Result<WorkerHandle> {
    let (workers, exchange) = (shared.workers, Arc::clone(&shared.exchange));
    let owners = common.owners.clone();
    let by_rss = matches!(owners, Owners::Rss(_));
    let config =
        fourwave_stack::Config { worker: index, workers, owners: owners.clone(), ..setup.stack };
    let connections = config.connections as usize;
    let listeners = config.listeners as usize;
    let now = turn::clock();
    let shard = Shard::new(config, common.keys, now).map_err(|_| {
        io::Error::new(io::ErrorKind::OutOfMemory, "no memory for the shard's tables")
    })?;
    let (to, from) = (Arc::new(ArrayQueue::new(MESSAGES)), Arc::new(ArrayQueue::new(MESSAGES)));
    let control_bell = Arc::new(Bell::new()?);
    let published = Arc::new(Published::new(&shard));
    let fourwave_xdp::Queue { rx, tx, .. } = setup.queue;
    let outbox = control::Outbox::new(Arc::clone(&from), Arc::clone(&control_bell));
    let sleeper = sleep::Sleep::new(tx.as_fd(), worker_bell.as_fd())?;
    let mut worker = Worker {
        index,
        workers,
        keys: common.keys,
        owners,
        shard,
        rx,
        gate: setup.gate,
        env: Environment {
            now,
            tx,
            clients: Clients::new(),
            notices: Notices::with_capacity(connections),
            listeners: vec![None; listeners],
            paths: Arc::clone(&common.paths),
            random: host::Random::from_os()?,
            outbox,
            taps: taps::Taps::new(index),
        },
        exchange,
        inbox: Arc::clone(&to),
        sleep: sleeper,
        bell: Arc::clone(&worker_bell),
        polling: common.polling,
        published: Arc::clone(&published),
        counters: counters::Counters::new(by_rss),
        idle_ports: Vec::new(),
        leaving: Vec::new(),
        departing: Vec::new(),
        forsaken: Vec::new(),
        inquiries: inquiries::Inquiries::new(),
        draining: false,
        stopping: false,
        tx_behind: false,
        changed: false,
        published_at: 0,
        owners_doubted: false,
    };
    let (cpu, scheduling) = (setup.cpu, common.scheduling);
    let working = shared.working.clone();
    let thread =
        std::thread::Builder::new().name(format!("fw-worker-{index}")).spawn(move || {
            sleep::place_thread(cpu, scheduling);
            // Here and not by who starts us: memory lies near the CPU that touches it first.
            worker.shard.touch();
            drop(working);
            worker.run();
        })?;
    Ok(WorkerHandle { to, from, worker_bell, control_bell, published, thread: Some(thread) })
}

impl WorkerHandle {
    /// Sends a message. Gives it back when too many wait already: try again later.
    ///
    /// # Errors
    /// The message.
    pub fn send(&self, message: ToWorker) -> Result<(), ToWorker> {
        self.to.push(message)?;
        self.worker_bell.ring();
        Ok(())
    }

    /// Wakes the worker if it sleeps: something that it waits for has changed.
    pub fn wake(&self) {
        self.worker_bell.ring();
    }

    /// The next message from the worker.
    pub fn receive(&self) -> Option<FromWorker> {
        self.from.pop()
    }

    /// Readable when messages may wait; [`clear`](Self::clear) it before receiving them.
    pub fn notify_fd(&self) -> BorrowedFd<'_> {
        self.control_bell.as_fd()
    }

    /// Makes [`notify_fd`](Self::notify_fd) unreadable until the next message.
    pub fn clear(&self) {
        self.control_bell.clear();
    }

    /// The worker's counters and gauges as it published them last, a moment ago at most while it
    /// is busy.
    pub fn counters(&self) -> Vec<(Name, u64)> {
        self.published.read()
    }

    /// Waits for the thread, which [`ToWorker::Stop`] ends.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic aborts the process; there is nothing to hand on.
            let _ = thread.join();
        }
    }
}

/// The thread's whole state.
struct Worker {
    index: u32,
    workers: u32,
    keys: Keys,
    owners: Owners,
    shard: Shard,
    rx: fourwave_xdp::Receiver,
    gate: fourwave_xdp::Gate,
    env: Environment,
    exchange: Arc<Exchange>,
    inbox: Arc<ArrayQueue<ToWorker>>,
    sleep: sleep::Sleep,
    bell: Arc<Bell>,
    polling: Polling,
    published: Arc<Published>,
    counters: counters::Counters,
    /// Ports that control waits to see unused.
    idle_ports: Vec<u16>,
    /// Groups that are being closed: slot, and the connection to go on with.
    leaving: Vec<control::Leaving>,
    /// Processes that are gone while others of their group are not.
    departing: Vec<processes::Departing>,
    /// Connections just accepted by a process that is gone, of one group; empty between turns.
    forsaken: Vec<u32>,
    inquiries: inquiries::Inquiries,
    draining: bool,
    stopping: bool,
    /// The kernel has not taken everything that was handed to it.
    tx_behind: bool,
    /// There was work since counters were published.
    changed: bool,
    published_at: u64,
    /// It was said that the NIC does not deal frames out as it told.
    owners_doubted: bool,
}
