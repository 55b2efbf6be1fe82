//! A handle to one daemon: the segment, the control socket, and the lanes of this process.

use crate::aside::OwnDescriptor;
use crate::control::{Control, unexpected};
use crate::error::gone;
use crate::fork::{self, Mutex, MutexGuard};
use crate::lane::{Gift, Lane, Loan};
use crate::poller::Core;
use fourwave_protocol::control::{Reply, Request};
use fourwave_protocol::{ExtentId, Handle, Params, Process, Segment, VERSION};
use rustix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Where a daemon listens when nothing else is said.
const DEFAULT_SOCKET: &str = "/run/fourwave/control.sock";

/// How often operations that find nothing to do ask the kernel whether the daemon lives.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// Spinning before sleep, unless changed: less than what waking an idle core costs (~70 µs).
const DEFAULT_SPIN: Duration = Duration::from_micros(50);

/// Lanes that wait for a new thread after their own has ended; more are given back.
const IDLE_LANES: usize = 16;

/// A connection to one `fourwaved`. Cheap to clone; all clones are the same application group.
///
/// Sockets made without one use [`Runtime::default_instance`].
///
/// When the daemon goes away, every operation on a socket made through this handle gives
/// `ENETDOWN`, blocked threads included. A new handle finds the daemon that comes back.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) shared: Arc<Shared>,
}

/// No call leaves it half changed, whatever panics around it.
impl UnwindSafe for Runtime {}
impl RefUnwindSafe for Runtime {}

impl Runtime {
    /// Connects to the daemon whose control socket lies at `path`.
    ///
    /// # Errors
    /// `ENETDOWN` with an explanation when no daemon answers there, what the daemon says when
    /// it refuses, `InvalidData` when library and daemon are of different versions.
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Runtime> {
        let shared = Arc::new(Shared::connect(path.as_ref())?);
        fork::enroll(&shared);
        Ok(Runtime { shared })
    }

    /// The daemon of this process: the one named by the environment variable `FOURWAVE_SOCKET`,
    /// or that at `/run/fourwave/control.sock`. Connected on first use, and anew when the
    /// connection was lost.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn default_instance() -> io::Result<Runtime> {
        static INSTANCE: Mutex<Option<Runtime>> = Mutex::new(None);
        let mut instance = INSTANCE.lock();
        if let Some(runtime) = &*instance
            && runtime.shared.probe().is_ok()
        {
            return Ok(runtime.clone());
        }
        let runtime = Runtime::connect(socket_path(std::env::var_os("FOURWAVE_SOCKET")))?;
        *instance = Some(runtime.clone());
        Ok(runtime)
    }

    /// How long a blocked thread looks for work before it sleeps (50 µs unless changed). The
    /// library shortens this by itself where it does not pay; while it looks, the thread hands
    /// its core to whoever else can run on it.
    pub fn set_spin(&self, spin: Duration) {
        let micros = u32::try_from(spin.as_micros()).unwrap_or(u32::MAX);
        self.shared.spin_micros.store(micros, Ordering::Relaxed);
    }

    /// The daemon's counters, one `name value` per line.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone, or what it says when it refuses.
    pub fn stats(&self) -> io::Result<String> {
        self.shared.noticing(self.shared.control.text(&Request::Stats))
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let params = self.shared.params();
        f.debug_struct("Runtime").field("params", params).finish_non_exhaustive()
    }
}

fn socket_path(variable: Option<OsString>) -> PathBuf {
    match variable {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        Some(_) | None => PathBuf::from(DEFAULT_SOCKET),
    }
}

/// What all sockets of a group share in this process.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) segment: Segment,
    pub(crate) control: Control,
    /// This process's name in the group.
    process: AtomicU32,
    /// Set once, by whoever notices first.
    gone: AtomicBool,
    /// When to ask the kernel again whether the daemon lives, nanoseconds of CLOCK_MONOTONIC.
    next_probe: AtomicU64,
    next_worker: AtomicU32,
    spin_micros: AtomicU32,
    lanes: Mutex<Lanes>,
    /// By number: which lanes are this process's. To be asked without a lock.
    own: Box<[AtomicBool]>,
}

#[derive(Debug, Default)]
struct Lanes {
    /// By number, to wake one of them.
    all: Vec<Weak<Lane>>,
    idle: Vec<Arc<Lane>>,
    pollers: Vec<Weak<Core>>,
    /// What this process, a child, was given at its beginning and has not made use of.
    gift: Option<Gift>,
}

/// The lock on a process's lanes is held: no fork comes in between.
pub(crate) struct LanesGuard<'a>(MutexGuard<'a, Lanes>);

impl LanesGuard<'_> {
    /// A lane that nobody has to ask for.
    pub(crate) fn take_gift(&mut self) -> Option<Gift> {
        self.0.gift.take()
    }
}

impl Shared {
    fn connect(path: &Path) -> io::Result<Shared> {
        let control = Control::connect(path)?;
        let program = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (reply, descriptors) = control.request(&Request::Hello { version: VERSION, name })?;
        let (Reply::Welcome { params, process }, [memory]) = (&reply, &descriptors[..]) else {
            return Err(unexpected(&reply));
        };
        let segment = Segment::map(memory, *params)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Shared {
            segment,
            control,
            process: AtomicU32::new(process.raw()),
            gone: AtomicBool::new(false),
            next_probe: AtomicU64::new(0),
            next_worker: AtomicU32::new(0),
            spin_micros: AtomicU32::new(DEFAULT_SPIN.as_micros() as u32),
            lanes: Mutex::default(),
            own: (0..params.lanes).map(|_| AtomicBool::new(false)).collect(),
        })
    }

    pub(crate) fn params(&self) -> &Params {
        self.segment.layout().params()
    }

    /// This process's name in the group.
    pub(crate) fn process(&self) -> Process {
        // Relaxed: changes only in a process that has one thread.
        Process::from_raw(self.process.load(Ordering::Relaxed)).expect("the daemon gave it")
    }

    /// The worker that owns a connection.
    pub(crate) fn worker_of(&self, handle: Handle) -> u32 {
        handle.index / self.params().connections
    }

    /// The worker that opens the next connection.
    pub(crate) fn next_worker(&self) -> u32 {
        self.next_worker.fetch_add(1, Ordering::Relaxed) % self.params().workers
    }

    pub(crate) fn spin(&self) -> Duration {
        Duration::from_micros(u64::from(self.spin_micros.load(Ordering::Relaxed)))
    }

    /// `ENETDOWN` once somebody has noticed that the daemon is gone.
    pub(crate) fn check(&self) -> io::Result<()> {
        // Relaxed: the flag publishes nothing but itself.
        if self.gone.load(Ordering::Relaxed) { Err(gone()) } else { Ok(()) }
    }

    /// Like [`check`](Self::check), for operations that found nothing to do or post something:
    /// now and then asks the kernel, so that a thread that never sleeps notices too.
    pub(crate) fn probe(&self) -> io::Result<()> {
        let time = clock_gettime(ClockId::MonotonicCoarse);
        let now = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
        if now >= self.next_probe.load(Ordering::Relaxed) {
            let next = now + PROBE_INTERVAL.as_nanos() as u64;
            self.next_probe.store(next, Ordering::Relaxed);
            if self.control.is_hung_up() {
                self.set_gone();
            }
        }
        self.check()
    }

    /// Remembers that the daemon is gone; returns the error to give.
    pub(crate) fn set_gone(&self) -> io::Error {
        self.gone.store(true, Ordering::Relaxed);
        gone()
    }

    /// Passes a result of the control socket on, remembering a lost daemon.
    pub(crate) fn noticing<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() == io::ErrorKind::NetworkDown
        {
            self.set_gone();
        }
        result
    }

    /// Sends a request whose answer is `Done`.
    pub(crate) fn command(&self, request: &Request) -> io::Result<()> {
        match self.request(request)? {
            (Reply::Done, _) => Ok(()),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Sends a request whose answer nobody needs.
    pub(crate) fn announce(&self, request: &Request) -> io::Result<()> {
        self.check()?;
        self.noticing(self.control.announce(request))
    }

    /// Sends a request.
    pub(crate) fn request(&self, request: &Request) -> io::Result<(Reply, Vec<OwnDescriptor>)> {
        self.check()?;
        self.noticing(self.control.request(request))
    }

    /// A lane for a thread or a poller: one that waits for use, or a new one.
    pub(crate) fn take_lane(&self) -> io::Result<Arc<Lane>> {
        let gift = {
            let mut lanes = self.lanes.lock();
            if let Some(lane) = lanes.idle.pop() {
                return Ok(lane);
            }
            lanes.gift.take()
        };
        let lane = Arc::new(Lane::attach(self, gift)?);
        self.note_lane(&mut self.lanes(), &lane);
        Ok(lane)
    }

    /// Locks the lanes of this process. Taken before a poller's lock, and a lane's.
    pub(crate) fn lanes(&self) -> LanesGuard<'_> {
        LanesGuard(self.lanes.lock())
    }

    /// A lane has a number of its own.
    pub(crate) fn note_lane(&self, lanes: &mut LanesGuard<'_>, lane: &Arc<Lane>) {
        let index = usize::from(lane.index());
        let all = &mut lanes.0.all;
        if all.len() <= index {
            all.resize(index + 1, Weak::new());
        }
        all[index] = Arc::downgrade(lane);
        self.own[index].store(true, Ordering::Relaxed);
    }

    /// Whether a lane of this process has an extent of this worker's to write into.
    pub(crate) fn has_grant(&self, worker: u32) -> bool {
        // Relaxed: who takes one looks again, with the lanes' locks.
        let own = |lane: &usize| self.own[*lane].load(Ordering::Relaxed);
        (0..self.own.len())
            .filter(own)
            .any(|lane| !self.segment.grant_ring(lane as u16, worker).is_empty())
    }

    /// An extent that another thread's lane has: whoever writes uses what the process was given.
    pub(crate) fn borrow_grant(&self, worker: u32) -> io::Result<Option<(ExtentId, Loan)>> {
        if !self.has_grant(worker) {
            return Ok(None);
        }
        let all: Vec<_> = self.lanes.lock().all.iter().filter_map(Weak::upgrade).collect();
        for lane in all.iter().filter(|lane| !lane.is_inherited()) {
            if let Some(lent) = lane.lend_grant(self, worker)? {
                return Ok(Some(lent));
            }
        }
        Ok(None)
    }

    /// A poller begins.
    pub(crate) fn note_poller(&self, core: &Arc<Core>) {
        let mut lanes = self.lanes.lock();
        lanes.pollers.retain(|poller| poller.strong_count() > 0);
        lanes.pollers.push(Arc::downgrade(core));
    }

    /// Whether a lane is one of this process.
    pub(crate) fn has_lane(&self, lane: u16) -> bool {
        let lanes = self.lanes.lock();
        lanes.all.get(usize::from(lane)).is_some_and(|lane| lane.strong_count() > 0)
    }

    /// Takes back a lane that its thread or poller no longer needs.
    pub(crate) fn return_lane(&self, lane: Arc<Lane>) {
        if lane.is_inherited() {
            return;
        }
        let mut lanes = self.lanes.lock();
        if lanes.idle.len() < IDLE_LANES {
            lanes.idle.push(lane);
            return;
        }
        let index = usize::from(lane.index());
        lanes.all[index] = Weak::new();
        self.own[index].store(false, Ordering::Relaxed);
        drop(lanes);
        lane.retire();
        // A daemon that does not answer takes everything back by itself when we are gone.
        let _ = self.command(&Request::DetachLane { lane: lane.index() });
    }

    /// Makes whoever sleeps on this lane look again, if it is one of this process.
    pub(crate) fn wake_lane(&self, lane: u16) {
        let lane = self.lanes.lock().all.get(usize::from(lane)).and_then(Weak::upgrade);
        if let Some(lane) = lane {
            lane.kick();
        }
    }

    /// Makes all sleepers of this process look again.
    pub(crate) fn wake_all_lanes(&self) {
        let all: Vec<_> = self.lanes.lock().all.iter().filter_map(Weak::upgrade).collect();
        all.iter().for_each(|lane| lane.kick());
    }

    /// Runs `f` with the calling thread's lane, which is attached on first use: for waiting.
    ///
    /// `f` must not call this again for another daemon.
    pub(crate) fn with_own_lane<R>(
        self: &Arc<Self>,
        f: impl FnOnce(&Lane) -> io::Result<R>,
    ) -> io::Result<R> {
        self.on_thread_lane(f).unwrap_or_else(|(error, _)| Err(error))
    }

    /// The same for posting, which does not need a lane of one's own: when the group has none
    /// left, another thread's serves.
    pub(crate) fn with_lane<R>(
        self: &Arc<Self>,
        f: impl FnOnce(&Lane) -> io::Result<R>,
    ) -> io::Result<R> {
        self.on_thread_lane(f).unwrap_or_else(|(error, f)| {
            let any = self.lanes.lock().all.iter().find_map(Weak::upgrade);
            any.map_or(Err(error), |lane| f(&lane))
        })
    }

    /// Runs `f` with the thread's lane, or gives it back with the reason why there is none.
    fn on_thread_lane<R, F>(self: &Arc<Self>, f: F) -> Result<io::Result<R>, (io::Error, F)>
    where
        F: FnOnce(&Lane) -> io::Result<R>,
    {
        thread_local! {
            static LANES: RefCell<Vec<ThreadLane>> = const { RefCell::new(Vec::new()) };
        }
        let mut f = Some(f);
        let used = LANES.try_with(|lanes| {
            let mine = |entry: &ThreadLane| {
                std::ptr::eq(entry.shared.as_ptr(), &**self) && !entry.is_inherited()
            };
            if !lanes.borrow().iter().any(mine) {
                let lane = self.take_lane()?;
                let mut lanes = lanes.borrow_mut();
                lanes.retain(|entry| entry.shared.strong_count() > 0 && !entry.is_inherited());
                lanes.push(ThreadLane { shared: Arc::downgrade(self), lane: Some(lane) });
            }
            let lanes = lanes.borrow();
            let entry = lanes.iter().find(|entry| mine(entry)).expect("just attached");
            let f = f.take().expect("taken here only");
            Ok(f(entry.lane.as_deref().expect("present until dropped")))
        });
        match (used, f) {
            (Ok(Ok(result)), _) => Ok(result),
            (Ok(Err(error)), Some(f)) => Err((error, f)),
            // The thread is ending and its lane is gone already: a socket kept by another
            // thread-local value is being dropped.
            (Err(_), Some(f)) => match self.take_lane() {
                Ok(lane) => {
                    let result = f(&lane);
                    self.return_lane(lane);
                    Ok(result)
                }
                Err(error) => Err((error, f)),
            },
            (_, None) => unreachable!("f is taken only to be called"),
        }
    }
}

/// A fork is under way: no thread of this process takes, closes or registers a socket.
pub(crate) struct Quiet {
    shared: Arc<Shared>,
    lanes: Vec<Arc<Lane>>,
    pollers: Vec<Arc<Core>>,
    /// What the daemon has made for the child.
    child: Option<Child>,
}

/// What a child begins with.
struct Child {
    connection: OwnDescriptor,
    process: Process,
    lane: Option<Gift>,
}

impl Child {
    fn new(shared: &Shared, reply: &Reply, mut descriptors: Vec<OwnDescriptor>) -> Option<Child> {
        let &Reply::Forked { process, lane } = reply else { return None };
        if descriptors.is_empty() {
            return None;
        }
        let doorbells = descriptors.split_off(1);
        let connection = descriptors.pop()?;
        let lane = lane.and_then(|index| Gift::new(shared, index, doorbells));
        Some(Child { connection, process, lane })
    }
}

impl Shared {
    /// Before a fork: makes everything quiet, and asks the daemon for a process that holds what
    /// this one holds.
    pub(crate) fn prepare_fork(self: Arc<Shared>) -> Quiet {
        let mut lanes = self.lanes.lock();
        lanes.pollers.retain(|poller| poller.strong_count() > 0);
        // In the order in which they are taken elsewhere.
        let pollers: Vec<_> = lanes.pollers.iter().filter_map(Weak::upgrade).collect();
        pollers.iter().for_each(|poller| poller.hold());
        let all: Vec<_> = lanes.all.iter().filter_map(Weak::upgrade).collect();
        all.iter().for_each(|lane| lane.hold());
        // Without one the child hears of it when it wants something.
        let forked = self.request(&Request::Fork).ok();
        let child = forked.and_then(|(reply, fds)| Child::new(&self, &reply, fds));
        std::mem::forget(lanes);
        Quiet { shared: self, lanes: all, pollers, child }
    }
}

impl Quiet {
    pub(crate) fn end_in_parent(self) {
        self.lanes.iter().for_each(|lane| lane.release());
        self.pollers.iter().for_each(|poller| poller.release());
        fork::unlock(&self.shared.lanes);
        // Who sleeps beside a connection that is shared from now on sleeps less deeply.
        self.lanes.iter().for_each(|lane| lane.kick());
    }

    /// What was locked is free by itself.
    pub(crate) fn end_in_child(self) {
        let shared = &self.shared;
        let (replaced, gift) = match self.child {
            Some(Child { connection, process, lane }) => {
                shared.process.store(process.raw(), Ordering::Relaxed);
                (shared.control.replace(connection), lane)
            }
            None => (shared.control.hang_up().and(Err(gone())), None),
        };
        if replaced.is_err() || shared.control.announce(&Request::Arrived).is_err() {
            shared.set_gone();
        }
        let mut lanes = shared.lanes.lock();
        lanes.all.clear();
        lanes.idle.clear();
        shared.own.iter().for_each(|own| own.store(false, Ordering::Relaxed));
        // One that the parent had been given is the parent's.
        lanes.gift = gift;
    }
}

/// A thread's lane at one daemon; goes back when the thread ends.
struct ThreadLane {
    /// Weak: a thread that once used a socket does not keep the connection to the daemon.
    shared: Weak<Shared>,
    lane: Option<Arc<Lane>>,
}

impl ThreadLane {
    fn is_inherited(&self) -> bool {
        self.lane.as_ref().is_some_and(|lane| lane.is_inherited())
    }
}

impl Drop for ThreadLane {
    fn drop(&mut self) {
        if let (Some(shared), Some(lane)) = (self.shared.upgrade(), self.lane.take()) {
            shared.return_lane(lane);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_found() {
        assert_eq!(socket_path(None), Path::new(DEFAULT_SOCKET));
        assert_eq!(socket_path(Some(OsString::new())), Path::new(DEFAULT_SOCKET));
        assert_eq!(socket_path(Some("/x/y.sock".into())), Path::new("/x/y.sock"));
    }

    #[test]
    fn an_absent_daemon_is_explained() {
        let error = Runtime::connect("/nonexistent/control.sock").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NetworkDown);
        let text = error.to_string();
        assert!(text.contains("/nonexistent/control.sock"), "{text}");
        assert!(text.contains("FOURWAVE_SOCKET"), "{text}");
    }
}
