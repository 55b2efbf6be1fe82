//! Readiness of many sockets, at a cost in proportion to what is ready.
//!
//! A poller has a lane of its own. The daemon posts an event on it when something happens to a
//! watched stream; [`Poller::wait`] looks only at streams with an event, at those that were
//! ready the last time and are level-triggered, and at the queues of its listeners.
//!
//! # Listeners and wake-ups
//! A poller asks to be told about new connections only while it sleeps: the daemon takes one
//! sleeper off a listener's set for each connection it queues. Nothing is lost, because a
//! poller looks at the queues each time it is asked, and so does a thread in `accept` before it
//! sleeps: who is awake needs no telling. A poller that was told and leaves the listener
//! without having emptied its queue passes the word on.

mod beside;
mod event;
mod registry;
mod sharing;
mod source;

pub use beside::Slept;
pub use event::{Event, Events, Interest, Readiness, Trigger};
#[cfg(feature = "tokio")]
pub(crate) use registry::has_room;
pub(crate) use registry::watch_room;
pub use source::Source;
pub(crate) use source::{Entry, sealed};

use crate::fork::{self, Mutex, MutexGuard};
use crate::lane::{Lane, Woken};
use crate::park::Spin;
use crate::runtime::{Runtime, Shared};
use fourwave_protocol::Handle;
use fourwave_protocol::command::Event as Word;
use fourwave_protocol::wake::publish_fence;
use registry::Registry;
use rustix::fd::{AsFd, BorrowedFd};
use sharing::Sharing;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Watches sockets and says which are ready.
///
/// A socket can be in any number of pollers; a stream is best in one. A dropped socket leaves its
/// pollers by itself. All methods can be called from any thread; of several threads in
/// [`wait`](Self::wait), one waits and the others queue behind it.
///
/// # As part of another event loop
/// The poller is a file descriptor ([`AsFd`]) that can be put into epoll, mio or tokio. Ringing
/// it costs the daemon a system call, so it is rung only when asked for, with
/// [`arm`](Self::arm):
/// ```no_run
/// # use fourwave::{Events, Poller};
/// # fn block_on_fd(_: &Poller) {}
/// # fn main() -> std::io::Result<()> {
/// let poller = Poller::new()?;
/// let mut events = Events::with_capacity(64);
/// loop {
///     while poller.wait(&mut events, Some(std::time::Duration::ZERO))? > 0 {
///         // handle them
///     }
///     if !poller.arm()? {
///         block_on_fd(&poller); // readable as soon as wait() has something
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Poller {
    pub(crate) core: Arc<Core>,
}

impl Poller {
    /// A poller for sockets of the process's [default daemon](Runtime::default_instance).
    ///
    /// # Errors
    /// `ENETDOWN` without a daemon, `ENOBUFS` when the group has no lane left.
    pub fn new() -> io::Result<Poller> {
        Poller::with_runtime(&Runtime::default_instance()?)
    }

    /// A poller for sockets of this daemon.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_runtime(runtime: &Runtime) -> io::Result<Poller> {
        let shared = Arc::clone(&runtime.shared);
        let lane = shared.take_lane()?;
        let registry = Mutex::new(Registry::new(shared.params().workers));
        let core = Arc::new(Core {
            shared,
            lane,
            registry,
            turn: Mutex::new(()),
            armed: AtomicBool::new(false),
            asleep_beside: AtomicU32::new(0),
            sharing: Sharing::default(),
            notified: AtomicBool::new(false),
        });
        core.shared.note_poller(&core);
        Ok(Poller { core })
    }

    /// Watches `source`; its events carry `key`. If it is ready already, that is an event.
    ///
    /// # Errors
    /// `EEXIST` if the source is in this poller, `EINVAL` if it belongs to another daemon.
    pub fn add(
        &self,
        source: &impl Source,
        key: usize,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        source.enter(self, key, (interest, trigger), Entry::New)
    }

    /// Watches `source` under this key beside those under which it is watched, or changes what it is
    /// watched for under this key: as in epoll two descriptors of one socket. Its events are told
    /// under each key, with the interest and the trigger of that one.
    ///
    /// # Errors
    /// `EINVAL` if the source belongs to another daemon.
    pub fn set(
        &self,
        source: &impl Source,
        key: usize,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        source.enter(self, key, (interest, trigger), Entry::Beside)
    }

    /// Watches `source` no longer under this key; under others it is watched on.
    ///
    /// # Errors
    /// `ENOENT` if it is not in this poller.
    pub fn unset(&self, source: &impl Source, key: usize) -> io::Result<()> {
        source.leave(self, Some(key))
    }

    /// Changes key, interest or trigger of a source; of several keys that it was [set](Self::set)
    /// under this is the only one from then on. If it is ready, that is an event.
    ///
    /// # Errors
    /// `ENOENT` if the source is not in this poller.
    pub fn modify(
        &self,
        source: &impl Source,
        key: usize,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        source.enter(self, key, (interest, trigger), Entry::Change)
    }

    /// Watches `source` no longer, under any key.
    ///
    /// # Errors
    /// `ENOENT` if it is not in this poller.
    pub fn delete(&self, source: &impl Source) -> io::Result<()> {
        source.leave(self, None)
    }

    /// Waits until something is ready, for at most `timeout` (`None`: for ever), and puts it in
    /// `events`, whose old content is dropped. Returns the number of events; 0 after
    /// [`notify`](Self::notify) or when the time is over.
    ///
    /// # Errors
    /// `EINTR` when a signal was handled, `ENETDOWN` when the daemon is gone.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        events.clear();
        self.core.wait(events, timeout)
    }

    /// Ends a [`wait`](Self::wait) of another thread, or the next one.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn notify(&self) -> io::Result<()> {
        self.core.shared.check()?;
        self.core.settle()?;
        // Relaxed: kick() has the fence that orders this before its look at the sleeper.
        self.core.notified.store(true, Ordering::Relaxed);
        self.core.lane.kick();
        Ok(())
    }

    /// How many sockets it has looked at since it was made: its work, for those who measure. A look
    /// at an idle socket is not among them, however many there are.
    pub fn examined(&self) -> u64 {
        self.core.registry.lock().examined
    }

    /// Prepares to wait on the descriptor: after `false` it becomes readable as soon as
    /// [`wait`](Self::wait) would have something; after `true` that is so already, and the
    /// descriptor says nothing. The next call of `wait` ends this state.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn arm(&self) -> io::Result<bool> {
        self.core.arm()
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // Without a daemon the descriptor says nothing, and wait() says why.
        let _ = self.core.settle();
        self.core.lane.readiness()
    }
}

/// What poller and watched sockets share.
#[derive(Debug)]
pub(crate) struct Core {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    registry: Mutex<Registry>,
    /// Held by the thread that waits.
    turn: Mutex<()>,
    /// `arm()` has announced sleep.
    armed: AtomicBool,
    /// Threads that sleep elsewhere ([`Poller::wait_beside`]). Changed under the registry's lock.
    asleep_beside: AtomicU32,
    /// Streams that other pollers watch too.
    sharing: Sharing,
    notified: AtomicBool,
}

impl Core {
    pub(crate) fn lane(&self) -> &Lane {
        // Without a daemon nobody is told anything, and whatever is tried next says so.
        let _ = self.settle();
        &self.lane
    }

    /// In a child: the poller of its parent gets a lane of its own, and asks anew to be told about
    /// what it watches.
    pub(crate) fn settle(&self) -> io::Result<()> {
        if !self.lane.is_inherited() {
            return Ok(());
        }
        // In this order, as before a fork.
        let mut lanes = self.shared.lanes();
        let mut registry = self.registry.lock();
        if self.lane.is_inherited() {
            self.lane.renew(&self.shared, &mut lanes)?;
            self.shared.note_lane(&mut lanes, &self.lane);
            self.armed.store(false, Ordering::Relaxed);
            // Other threads are not here.
            self.asleep_beside.store(0, Ordering::Relaxed);
            registry.begin_anew(&self.shared, &self.lane);
            publish_fence();
        }
        Ok(())
    }

    /// Changes what a child must not see half changed: no fork comes in between.
    pub(crate) fn quietly(&self, change: impl FnOnce()) {
        let _registry = self.registry.lock();
        change();
    }

    /// Before a fork: nothing is registered until [`release`](Self::release).
    pub(crate) fn hold(&self) {
        std::mem::forget::<MutexGuard<'_, Registry>>(self.registry.lock());
    }

    /// In the parent, after a fork.
    pub(crate) fn release(&self) {
        fork::unlock(&self.registry);
    }

    pub(crate) fn belongs_to(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let _turn = self.turn.lock();
        self.settle()?;
        if self.armed.swap(false, Ordering::Relaxed) {
            self.end_sleep();
            self.lane.quieten(&self.shared)?;
        }
        if self.collect(events)? {
            return Ok(events.len());
        }
        if timeout == Some(Duration::ZERO) {
            self.shared.probe()?;
            return Ok(0);
        }
        let spin = Spin::begin(&self.shared, &self.lane);
        if spin.look(|| Ok(self.collect(events)?.then_some(())))?.is_some() {
            return Ok(events.len());
        }
        let result = self.sleep(events, deadline);
        spin.slept();
        result
    }

    fn sleep(&self, events: &mut Events, deadline: Option<Instant>) -> io::Result<usize> {
        loop {
            self.begin_sleep();
            let found = self.collect(events);
            let slept = match found {
                Ok(false) => self.lane.sleep(&self.shared, deadline),
                Ok(true) | Err(_) => Ok(Woken::Rung),
            };
            self.end_sleep();
            if found? {
                return Ok(events.len());
            }
            match slept? {
                Woken::Rung if self.collect(events)? => return Ok(events.len()),
                Woken::Rung => {}
                Woken::TimedOut => {
                    self.collect(events)?;
                    return Ok(events.len());
                }
                Woken::Interrupted => return Err(io::ErrorKind::Interrupted.into()),
            }
        }
    }

    /// Takes what is ready. `true`: the wait is over, perhaps because of a notification.
    fn collect(&self, events: &mut Events) -> io::Result<bool> {
        self.shared.check()?;
        self.look_at_shared();
        let mut registry = self.registry.lock();
        let heard = self.drain(&mut registry)?;
        registry.collect(&self.shared, &self.lane, events);
        drop(registry);
        self.pass_on(&heard);
        // Relaxed: after a sleep, the look is ordered by the fence of begin_sleep().
        let notified =
            self.notified.load(Ordering::Relaxed) && self.notified.swap(false, Ordering::Relaxed);
        Ok(notified || !events.is_empty())
    }

    /// Takes in what was posted; returns the streams that other pollers are to hear of too.
    fn drain(&self, registry: &mut Registry) -> io::Result<Vec<Handle>> {
        let (mut heard, shares) = (Vec::new(), self.sharing.is_any());
        self.lane.drain(&self.shared, |worker, word| match word {
            Word::Ready { handle } => {
                registry.mark(handle);
                if shares {
                    heard.push(handle);
                }
            }
            Word::Granted => registry.feed(worker),
            // The queues themselves are looked at.
            Word::Acceptable { .. } => {}
            // Connects and questions are made on the lanes of threads.
            Word::Opened { .. } | Word::Refused { .. } | Word::Reported { .. } => {}
        })?;
        Ok(heard)
    }

    fn arm(&self) -> io::Result<bool> {
        let _turn = self.turn.lock();
        self.settle()?;
        if self.armed.load(Ordering::Relaxed) {
            self.lane.quieten(&self.shared)?;
        }
        self.armed.store(true, Ordering::Relaxed);
        self.begin_sleep();
        self.look()
    }

    fn begin_sleep(&self) {
        self.claim_shared();
        self.registry.lock().arm_listeners(&self.shared, &self.lane);
        self.lane.prepare(&self.shared);
    }

    fn end_sleep(&self) {
        self.lane.awake(&self.shared);
        self.registry.lock().disarm_listeners(&self.shared, &self.lane);
        self.hand_over_shared();
    }

    /// Something about a watched stream changed in this process.
    pub(crate) fn changed(&self, handle: Handle) {
        let mut registry = self.registry.lock();
        if registry.streams(handle).next().is_some() {
            registry.mark(handle);
            drop(registry);
            self.kick();
        }
    }

    fn kick(&self) {
        // The parent's needs none.
        if !self.lane.is_inherited() {
            self.lane.kick();
        }
    }

    /// A write found no extents, neither on its thread's lane nor on ours.
    pub(crate) fn want_grants(&self, handle: Handle, worker: u32) -> io::Result<()> {
        self.settle()?;
        self.registry.lock().starve(handle, worker);
        self.lane.want_grants(&self.shared, worker)
    }

    /// Watches a stream under a key; returns what it is watched for under all of them.
    pub(crate) fn set_stream(
        &self,
        handle: Handle,
        key: usize,
        wanted: (Interest, Trigger),
        entry: Entry,
    ) -> Interest {
        let mut registry = self.registry.lock();
        registry.set_stream(handle, key, wanted, entry == Entry::Beside);
        registry.interest(handle)
    }

    /// Takes a key of a stream away; what it is watched for under those that are left, if any are.
    pub(crate) fn forget_key(&self, handle: Handle, key: usize) -> Option<Interest> {
        let mut registry = self.registry.lock();
        registry.remove_key(handle, key).then(|| registry.interest(handle))
    }

    pub(crate) fn forget_stream(&self, handle: Handle) {
        self.registry.lock().remove_stream(handle);
    }

    pub(crate) fn has_listener(&self, index: u32) -> bool {
        self.registry.lock().has_listener(index)
    }

    /// Takes a key of a listener away, if it has others.
    pub(crate) fn forget_listener_key(&self, index: u32, key: usize) -> bool {
        self.registry.lock().remove_listener_key(index, key)
    }

    pub(crate) fn set_listener(
        &self,
        index: u32,
        key: usize,
        wanted: (Interest, Trigger),
        entry: Entry,
    ) {
        self.registry.lock().set_listener(index, key, wanted, entry == Entry::Beside);
        // A sleeping poller has to ask for this listener's connections too.
        self.kick();
    }

    /// Watches a listener no longer. A connection that this poller may have been woken for and
    /// that still waits wakes somebody else.
    pub(crate) fn forget_listener(&self, index: u32) {
        self.registry.lock().remove_listener(index);
        if self.lane.is_inherited() {
            return;
        }
        let block = self.shared.segment.listener(index);
        block.unwait(self.lane.index());
        let mut workers = 0..self.shared.params().workers;
        if workers.any(|worker| !self.shared.segment.accept_ring(index, worker).is_empty())
            && let Some(other) = block.take_waiter(self.lane.index())
        {
            self.shared.wake_lane(other);
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let listeners = self.registry.lock().listener_numbers();
        for index in listeners {
            self.forget_listener(index);
        }
        if !self.lane.is_inherited() {
            self.lane.awake(&self.shared);
            self.shared.return_lane(Arc::clone(&self.lane));
        }
    }
}
