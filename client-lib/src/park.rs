//! Waiting: look for a while, then sleep.
//!
//! Waking a thread on an idle core costs about 70 µs, handing a shared core over about 1 µs. So
//! a waiting thread first looks again and again, giving its core away between two looks to
//! whoever can run there (the worker, if the two share it). How long it does so follows what it
//! found the last times, as a halting virtual CPU's polling does: it doubles when a sleep was so
//! short that looking longer would have caught it, and halves when it was longer.

use crate::lane::{Lane, Woken};
use crate::runtime::Shared;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Looks before the first yield: a reply that comes from a spinning worker on another core.
const EAGER_LOOKS: u32 = 16;

/// Where looking begins again after it had been given up.
const LEAST_SPIN_MICROS: u32 = 4;

/// Something that can tell a lane when it is worth looking again.
pub(crate) trait Interest {
    /// Tell `lane` from now on. The caller makes the fence and looks again.
    fn arm(&self, lane: u16);
    /// Tell it no longer.
    fn disarm(&self, lane: u16);
}

/// For what is answered on the lane's rings anyhow.
pub(crate) struct Unasked;

impl Interest for Unasked {
    fn arm(&self, _: u16) {}
    fn disarm(&self, _: u16) {}
}

/// Waits until `attempt` has a result, at most until `deadline`; `None` when that has come.
pub(crate) fn block_on<T>(
    shared: &Shared,
    lane: &Lane,
    deadline: Option<Instant>,
    interest: &impl Interest,
    mut attempt: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let spin = Spin::begin(shared, lane);
    if let Some(result) = spin.look(&mut attempt)? {
        return Ok(Some(result));
    }
    let result = sleep_until(shared, lane, deadline, interest, attempt);
    interest.disarm(lane.index());
    spin.slept();
    result
}

fn sleep_until<T>(
    shared: &Shared,
    lane: &Lane,
    deadline: Option<Instant>,
    interest: &impl Interest,
    mut attempt: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    loop {
        interest.arm(lane.index());
        lane.prepare(shared);
        let second_look =
            shared.check().and_then(|()| lane.drain(shared, |_, _| {})).and_then(|()| attempt());
        let slept = match second_look {
            Ok(None) => lane.sleep(shared, deadline),
            Ok(Some(_)) | Err(_) => {
                lane.awake(shared);
                return second_look;
            }
        };
        lane.awake(shared);
        match slept? {
            Woken::TimedOut => return attempt(),
            // A handled signal does not end a wait, as with SA_RESTART.
            Woken::Rung | Woken::Interrupted => {}
        }
    }
}

/// One spell of looking.
pub(crate) struct Spin<'a> {
    lane: &'a Lane,
    start: Instant,
    most: u32,
    budget: u32,
}

impl<'a> Spin<'a> {
    pub(crate) fn begin(shared: &Shared, lane: &'a Lane) -> Spin<'a> {
        let most = u32::try_from(shared.spin().as_micros()).unwrap_or(u32::MAX);
        let budget = lane.spin_micros.load(Ordering::Relaxed).min(most);
        Spin { lane, start: Instant::now(), most, budget }
    }

    /// Looks until something is there or the budget is spent.
    pub(crate) fn look<T>(
        &self,
        mut attempt: impl FnMut() -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        let budget = Duration::from_micros(u64::from(self.budget));
        let mut looks = 0;
        while self.start.elapsed() < budget {
            if let Some(result) = attempt()? {
                return Ok(Some(result));
            }
            if looks < EAGER_LOOKS {
                looks += 1;
                std::hint::spin_loop();
            } else {
                rustix::thread::sched_yield();
            }
        }
        Ok(None)
    }

    /// To be called after the sleep that followed: adapts the budget of the next spell.
    pub(crate) fn slept(&self) {
        let waited = self.start.elapsed();
        let next = if waited <= Duration::from_micros(u64::from(self.most)) {
            self.budget.saturating_mul(2).max(LEAST_SPIN_MICROS).min(self.most)
        } else if self.budget <= LEAST_SPIN_MICROS {
            0
        } else {
            self.budget / 2
        };
        self.lane.spin_micros.store(next, Ordering::Relaxed);
    }
}
