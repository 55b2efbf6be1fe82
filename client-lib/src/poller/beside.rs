//! Waiting for sockets and for something else at once.

use super::{Core, Events, Poller};
use crate::park::Spin;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What ended a sleep in [`Poller::wait_beside`]; both can be, and neither, when it was over in
/// time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slept {
    /// The poller's descriptor is readable.
    pub rung: bool,
    /// There is something of the caller's own: the wait is over.
    pub own: bool,
}

impl Poller {
    /// As [`wait`](Self::wait), but sleeps in `sleep`, which blocks on this poller's descriptor
    /// and on whatever else the caller waits for, for the time that it is given at the most
    /// (`None`: for ever). Any number of threads can wait like this at once, but none at the same
    /// time in `wait` or between [`arm`](Self::arm) and its end.
    ///
    /// Returns the number of events. 0 when the time is over, or when `sleep` said that the caller
    /// has something of its own.
    ///
    /// # Errors
    /// Those of `sleep`, when there are no events; `ENETDOWN` when the daemon is gone.
    pub fn wait_beside(
        &self,
        events: &mut Events,
        timeout: Option<Duration>,
        sleep: &mut dyn FnMut(Option<Duration>) -> io::Result<Slept>,
    ) -> io::Result<usize> {
        events.clear();
        self.core.wait_beside(events, timeout, sleep)
    }

    /// Whether [`wait`](Self::wait) would have something now. Takes old rings off the descriptor.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn has_events(&self) -> io::Result<bool> {
        self.core.settle()?;
        self.core.lane.quieten(&self.core.shared)?;
        self.core.look()
    }

    /// Announces that a thread is going to sleep on the descriptor: after `false` it becomes
    /// readable as soon as there is something. `true`: that is so already. Any number of threads
    /// can announce themselves, beside others in [`wait_beside`](Self::wait_beside); each calls
    /// [`retract`](Self::retract) when it is awake, after an error too.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn announce(&self) -> io::Result<bool> {
        let settled = self.core.settle();
        self.core.lie_down();
        settled.and_then(|()| self.core.look())
    }

    /// Ends what [`announce`](Self::announce) began. Events are not taken.
    pub fn retract(&self) {
        self.core.get_up();
    }

    /// Makes the descriptor readable until the next wait that sleeps: for threads that sleep on it
    /// without having announced themselves.
    ///
    /// # Errors
    /// `ENETDOWN` when the daemon is gone.
    pub fn ring(&self) -> io::Result<()> {
        self.core.shared.check()?;
        self.core.settle()?;
        self.core.lane.ring_bell();
        Ok(())
    }
}

impl Core {
    fn wait_beside(
        &self,
        events: &mut Events,
        timeout: Option<Duration>,
        sleep: &mut dyn FnMut(Option<Duration>) -> io::Result<Slept>,
    ) -> io::Result<usize> {
        self.settle()?;
        if self.collect(events)? {
            return Ok(events.len());
        }
        if timeout == Some(Duration::ZERO) {
            self.shared.probe()?;
            return Ok(0);
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let spin = Spin::begin(&self.shared, &self.lane);
        if spin.look(|| Ok(self.collect(events)?.then_some(())))?.is_some() {
            return Ok(events.len());
        }
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            self.lie_down();
            let slept = match self.collect(events) {
                Ok(false) => sleep(left),
                Ok(true) => Ok(Slept::default()),
                Err(gone) => Err(gone),
            };
            let quiet = match &slept {
                Ok(Slept { rung: true, .. }) => self.lane.quieten(&self.shared),
                Ok(_) | Err(_) => Ok(()),
            };
            let over = events.is_empty() && self.collect(events).unwrap_or(false);
            self.get_up();
            spin.slept();
            if over || !events.is_empty() {
                self.shared.check()?;
                // Whatever ended the sleep, a signal too: what was taken is not told again.
                return Ok(events.len());
            }
            let slept = slept?;
            quiet?;
            if slept.own || slept == Slept::default() {
                self.shared.check()?;
                return Ok(0);
            }
        }
    }

    /// Whether a wait would have something.
    pub(super) fn look(&self) -> io::Result<bool> {
        self.shared.check()?;
        self.look_at_shared();
        let mut registry = self.registry.lock();
        let heard = self.drain(&mut registry)?;
        let is_ready = registry.is_ready(&self.shared, &self.lane);
        drop(registry);
        self.pass_on(&heard);
        Ok(self.notified.load(Ordering::Relaxed) || is_ready)
    }

    /// Announces the sleep of one more thread.
    fn lie_down(&self) {
        self.claim_shared();
        let registry = self.registry.lock();
        self.asleep_beside.fetch_add(1, Ordering::Relaxed);
        registry.arm_listeners(&self.shared, &self.lane);
        self.lane.prepare(&self.shared);
    }

    /// One thread is awake. The announcement stays for the others; if the thread has taken their
    /// ring with it and something is left, they are woken.
    fn get_up(&self) {
        let registry = self.registry.lock();
        if self.asleep_beside.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.lane.awake(&self.shared);
            registry.disarm_listeners(&self.shared, &self.lane);
            drop(registry);
            self.hand_over_shared();
            return;
        }
        registry.arm_listeners(&self.shared, &self.lane);
        self.lane.prepare(&self.shared);
        drop(registry);
        // A lost daemon is noticed by everybody for himself.
        if self.look().unwrap_or(true) {
            self.lane.kick();
        }
    }
}
