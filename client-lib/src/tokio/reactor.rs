//! Readiness of all sockets of one tokio runtime: a poller, and a task that wakes other tasks.

use crate::fork::Mutex;
use crate::poller::{Events, Interest, Poller, Source, Trigger};
use crate::runtime::{Runtime, Shared};
use ::tokio::io::Interest as Wanted;
use ::tokio::net::UnixStream;
use ::tokio::runtime::{Handle, Id};
use ::tokio::task::{AbortHandle, coop};
use rustix::fd::AsFd;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, LazyLock, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Events taken at once.
const EVENTS: usize = 256;

/// A direction of a socket; accepting is reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

/// One poller, and whom to wake for each of its sources.
#[derive(Debug)]
struct Reactor {
    poller: Poller,
    slots: Mutex<Slots>,
    driver: Mutex<Option<AbortHandle>>,
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

/// A source. A late event for a slot's former source makes a task look once too often.
#[derive(Debug, Default)]
struct Slot {
    read: Side,
    write: Side,
}

#[derive(Debug, Default)]
struct Side {
    /// An event came since the last attempt began.
    ready: bool,
    /// Tasks that wait; several may accept on one listener.
    waiting: Vec<Waker>,
}

impl Slot {
    fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }
}

impl Side {
    /// Something happened: whom to wake.
    fn mark(&mut self, wake: &mut Vec<Waker>) {
        self.ready = true;
        wake.append(&mut self.waiting);
    }
}

/// Reactors by daemon (the address of its handle, which a living reactor keeps) and tokio runtime.
type Reactors = HashMap<(usize, Id), Weak<Reactor>>;

/// The reactors of this process.
static REACTORS: LazyLock<Mutex<Reactors>> = LazyLock::new(Mutex::default);

impl Reactor {
    /// The one for sockets of `shared` in the tokio runtime of the calling task.
    fn current(shared: &Arc<Shared>) -> io::Result<Arc<Reactor>> {
        let handle = Handle::try_current().map_err(io::Error::other)?;
        let mut reactors = REACTORS.lock();
        let key = (Arc::as_ptr(shared) as usize, handle.id());
        if let Some(reactor) = reactors.get(&key).and_then(Weak::upgrade) {
            return Ok(reactor);
        }
        let poller = Poller::with_runtime(&Runtime { shared: Arc::clone(shared) })?;
        // The readiness descriptor is one end of a socket pair, which tokio knows how to wait for.
        let bell: std::os::unix::net::UnixStream = poller.as_fd().try_clone_to_owned()?.into();
        bell.set_nonblocking(true)?;
        let bell = UnixStream::from_std(bell)?;
        let (slots, driver) = (Mutex::default(), Mutex::default());
        let reactor = Arc::new(Reactor { poller, slots, driver });
        let driver = handle.spawn(drive(Arc::downgrade(&reactor), bell)).abort_handle();
        *reactor.driver.lock() = Some(driver);
        reactors.retain(|_, reactor| reactor.strong_count() > 0);
        reactors.insert(key, Arc::downgrade(&reactor));
        Ok(reactor)
    }

    /// Passes on what happened. `true`: there may be more.
    fn turn(&self, events: &mut Events) -> io::Result<bool> {
        match self.poller.wait(events, Some(Duration::ZERO)) {
            Ok(0) => return self.poller.arm(),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        }
        let mut wake = Vec::new();
        {
            let mut slots = self.slots.lock();
            for event in events.iter() {
                let Some(slot) = slots.slots.get_mut(event.key()) else { continue };
                if event.is_readable() || event.is_error() || event.is_read_closed() {
                    slot.read.mark(&mut wake);
                }
                if event.is_writable() || event.is_error() {
                    slot.write.mark(&mut wake);
                }
            }
        }
        wake.into_iter().for_each(Waker::wake);
        Ok(true)
    }

    /// Nothing comes any more: every operation says why.
    fn wake_all(&self) {
        let mut wake = Vec::new();
        for slot in &mut self.slots.lock().slots {
            slot.read.mark(&mut wake);
            slot.write.mark(&mut wake);
        }
        wake.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.get_mut().take() {
            driver.abort();
        }
    }
}

/// Drives a reactor until nobody has it, or the daemon is gone.
async fn drive(reactor: Weak<Reactor>, bell: UnixStream) {
    let mut events = Events::with_capacity(EVENTS);
    loop {
        let turned = match reactor.upgrade() {
            Some(reactor) => reactor.turn(&mut events).inspect_err(|_| reactor.wake_all()),
            None => return,
        };
        match turned {
            Ok(true) => ::tokio::task::yield_now().await,
            Ok(false) => match bell.readable().await {
                Ok(()) => forget_readiness(&bell),
                Err(_shutting_down) => return,
            },
            Err(_gone) => return,
        }
    }
}

/// The next `readable` waits for the next ring; the poller reads what has been rung.
fn forget_readiness(bell: &UnixStream) {
    // The attempt that "would block" is what makes tokio forget.
    let blocked = || -> io::Result<()> { Err(io::ErrorKind::WouldBlock.into()) };
    let _ = bell.try_io(Wanted::READABLE, blocked);
}

/// A socket's place in its reactor.
#[derive(Debug)]
pub(super) struct Registration {
    reactor: Arc<Reactor>,
    key: usize,
}

impl Registration {
    /// Watches `source`, which is non-blocking and belongs to `shared`, from the tokio runtime of
    /// the calling task. It must be dropped before this is.
    pub(super) fn new(shared: &Arc<Shared>, source: &impl Source) -> io::Result<Registration> {
        let reactor = Reactor::current(shared)?;
        let key = {
            let mut slots = reactor.slots.lock();
            let key = slots.free.pop().unwrap_or(slots.slots.len());
            if key == slots.slots.len() {
                slots.slots.push(Slot::default());
            }
            key
        };
        // From here on, dropping it frees the slot.
        let registration = Registration { reactor, key };
        registration.reactor.poller.add(source, key, Interest::BOTH, Trigger::Edge)?;
        Ok(registration)
    }

    /// Stops watching `source`, which lives on.
    pub(super) fn release(self, source: &impl Source) -> io::Result<()> {
        self.reactor.poller.delete(source)
    }

    /// Does `attempt`, which does not block, now or as soon as the socket is ready for it.
    pub(super) fn poll<T>(
        &self,
        context: &mut Context<'_>,
        direction: Direction,
        attempt: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        self.poll_any(context, &[direction], attempt)
    }

    /// As [`poll`](Self::poll), for whichever of these directions is ready first.
    pub(super) fn poll_any<T>(
        &self,
        context: &mut Context<'_>,
        directions: &[Direction],
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        // A task that always finds something to do lets others run, as with tokio's own sockets.
        let progress = std::task::ready!(coop::poll_proceed(context));
        loop {
            for direction in directions {
                self.with_side(*direction, |side| side.ready = false);
            }
            match attempt() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let waits = |direction: &Direction| self.wait(context, *direction);
                    if directions.iter().all(waits) {
                        return Poll::Pending;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    progress.made_progress();
                    return Poll::Ready(result);
                }
            }
        }
    }

    /// As [`poll_any`](Self::poll_any), to be awaited.
    pub(super) async fn perform_any<T>(
        &self,
        directions: &[Direction],
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        poll_fn(|context| self.poll_any(context, directions, &mut attempt)).await
    }

    /// As [`poll`](Self::poll), to be awaited.
    pub(super) async fn perform<T>(
        &self,
        direction: Direction,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        poll_fn(|context| self.poll(context, direction, &mut attempt)).await
    }

    /// Waits for the next event, unless one has come since the attempt began.
    fn wait(&self, context: &Context<'_>, direction: Direction) -> bool {
        self.with_side(direction, |side| {
            if !side.ready && !side.waiting.iter().any(|other| other.will_wake(context.waker())) {
                side.waiting.push(context.waker().clone());
            }
            !side.ready
        })
    }

    fn with_side<T>(&self, direction: Direction, work: impl FnOnce(&mut Side) -> T) -> T {
        let mut slots = self.reactor.slots.lock();
        work(slots.slots[self.key].side(direction))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut slots = self.reactor.slots.lock();
        slots.slots[self.key] = Slot::default();
        slots.free.push(self.key);
    }
}
