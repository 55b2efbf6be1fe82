//! A daemon in the test's own process: the daemon's side of the contract over a network of
//! bytes in memory. What `fourwaved` does with packets, this does with `VecDeque<u8>`; rings,
//! extents, wake-ups and the control socket are real.
//!
//! It is also the shortest complete reading of what a daemon owes its clients.

mod connection;
mod control;
mod world;

pub(crate) use connection::Closed;
use fourwave::{Runtime, SocketOptions};
use fourwave_protocol::{Handle, Params};
use parking_lot::{Mutex, MutexGuard};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use rustix::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
pub(crate) use world::World;

/// Connecting to this port is answered by a reset.
pub(crate) const CLOSED_PORT: u16 = 1;
/// Connecting to this port finds no local port.
pub(crate) const NO_ROUTE_PORT: u16 = 2;
/// Connecting to this port finds a local port at the last worker only.
pub(crate) const LAST_WORKER_PORT: u16 = 4;
/// Connecting to this port is never answered.
pub(crate) const SILENT_PORT: u16 = 3;

/// Patience of a test with something that happens in another thread; only for failing.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running daemon.
pub(crate) struct Fake {
    directory: tempfile::TempDir,
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
    runtime: OnceLock<Runtime>,
}

struct Inner {
    world: Mutex<World>,
    stop: AtomicBool,
    busy: AtomicBool,
    /// Wakes both threads.
    bell: OwnedFd,
}

impl Fake {
    /// A daemon with this many workers.
    pub(crate) fn start(workers: u32) -> Fake {
        Fake::with_params(Fake::params(workers))
    }

    /// The small segment that tests use.
    pub(crate) fn params(workers: u32) -> Params {
        Params {
            lanes: 32,
            listeners: 4,
            accept_entries: 64,
            connections: 64,
            extents: 1024,
            tables: 64,
            table_slots: 256,
            command_entries: 64,
            grant_entries: 16,
            workers,
        }
    }

    pub(crate) fn with_params(params: Params) -> Fake {
        let directory = tempfile::tempdir().unwrap();
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let world = Mutex::new(World::new(params));
        let inner = Arc::new(Inner {
            world,
            stop: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            bell,
        });
        let listener = control::listen(&directory.path().join("control.sock"));
        let (for_control, for_worker) = (Arc::clone(&inner), Arc::clone(&inner));
        let threads = vec![
            std::thread::spawn(move || control::serve(&for_control, &listener)),
            std::thread::spawn(move || for_worker.work()),
        ];
        Fake { directory, inner, threads, runtime: OnceLock::new() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    /// The one client of this daemon.
    pub(crate) fn runtime(&self) -> Runtime {
        self.runtime.get_or_init(|| Runtime::connect(self.path()).unwrap()).clone()
    }

    /// Options for sockets of this daemon.
    pub(crate) fn options(&self) -> SocketOptions {
        SocketOptions::new().runtime(&self.runtime())
    }

    /// Never sleeps from now on, as under load.
    pub(crate) fn keep_awake(&self) {
        self.inner.busy.store(true, Ordering::SeqCst);
        self.inner.ring();
        self.with(|world| world.awake());
    }

    /// Ends as if killed: every descriptor of the daemon is closed.
    pub(crate) fn vanish(&mut self) {
        self.inner.stop.store(true, Ordering::SeqCst);
        self.inner.ring();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        self.inner.world.lock().forget_client();
    }

    /// Does something in the daemon, as its worker would, and wakes whoever it concerns.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut World) -> R) -> R {
        let mut world = self.inner.world.lock();
        let result = f(&mut world);
        world.deliver();
        result
    }

    /// The daemon looks at nothing until the guard is dropped.
    pub(crate) fn pause(&self) -> impl Drop + '_ {
        self.inner.world.lock()
    }

    /// Waits until `condition` gives something.
    pub(crate) fn until<R>(&self, mut condition: impl FnMut(&mut World) -> Option<R>) -> R {
        let start = Instant::now();
        loop {
            if let Some(result) = condition(&mut self.inner.world.lock()) {
                return result;
            }
            assert!(start.elapsed() < PATIENCE, "the client did not do it");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// A peer connects, when the client has closed enough of the former ones.
    pub(crate) fn arrive(&self, port: u16, worker: u32, stamp: u64) -> Handle {
        self.until(|world| (world.open_connections() < 48).then_some(()));
        self.with(|world| world.arrive(port, worker, stamp))
    }

    /// Waits until the client has closed a connection.
    pub(crate) fn until_closed(&self, handle: Handle) -> Closed {
        self.until(|world| world.closed(handle))
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.vanish();
    }
}

impl Inner {
    fn ring(&self) {
        rustix::io::write(&self.bell, &1u64.to_ne_bytes()).unwrap();
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// The loop of all workers in one thread: work, and sleep by the rules when there is none.
    fn work(&self) {
        while !self.stopped() {
            let mut world = self.world.lock();
            let worked = world.turn();
            // A test that wants to do something gets its turn.
            MutexGuard::unlock_fair(world);
            if worked || self.busy.load(Ordering::SeqCst) {
                std::thread::yield_now();
                continue;
            }
            let doorbells = {
                let mut world = self.world.lock();
                world.prepare_sleep();
                // The second look, after the flags are up.
                if world.turn() {
                    world.awake();
                    continue;
                }
                world.doorbells()
            };
            let mut fds = vec![PollFd::new(&self.bell, PollFlags::IN)];
            fds.extend(
                doorbells.iter().map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)),
            );
            rustix::event::poll(&mut fds, None).unwrap();
            if !self.stopped() {
                let _ = rustix::io::read(&self.bell, &mut [0; 8]);
            }
            self.world.lock().awake();
        }
    }
}
