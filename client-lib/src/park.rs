//! Waiting: look for a while, then sleep.
//!
//! Waking a thread on an idle core costs about 70 µs, handing a shared core over about 1 µs. So
//! a waiting thread first looks again and again, giving its core away between two looks to
//! whoever can run there (the worker, if the two share it). How long it does so follows what it
//! found the last times, as a halting virtual CPU's polling does: it doubles when a sleep was so
//! short that looking longer would have caught it, and halves when it was longer.

use crate::lane::{Lane, Woken};
use crate::patience::Limit;
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
    /// Whether `lane` is still to be told. `false` after something was told.
    fn is_armed(&self, lane: u16) -> bool;
    /// How long to sleep at the most before asking again, where others can take the question back.
    fn nap(&self) -> Option<Duration> {
        None
    }
}

/// For what is answered on the lane's rings anyhow.
pub(crate) struct Unasked;

impl Interest for Unasked {
    fn arm(&self, _: u16) {}
    fn disarm(&self, _: u16) {}
    fn is_armed(&self, _: u16) -> bool {
        true
    }
}

/// Waits until `attempt` has a result, at most until the limit's deadline; `None` when that has
/// come.
pub(crate) fn block_on<T>(
    shared: &Shared,
    lane: &Lane,
    limit: Limit,
    interest: &impl Interest,
    mut attempt: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let spin = Spin::begin(shared, lane);
    if let Some(result) = spin.look(&mut attempt)? {
        return Ok(Some(result));
    }
    let bed = LaneBed { shared, lane };
    let result = sleep_until(&bed, lane.index(), limit, interest, attempt);
    interest.disarm(lane.index());
    spin.slept();
    result
}

/// What sleeping needs of a lane; tests play one.
trait Bed {
    /// Announces sleep.
    fn prepare(&self);
    /// Takes in what was posted before that.
    fn drain(&self) -> io::Result<()>;
    fn sleep(&self, deadline: Option<Instant>) -> io::Result<Woken>;
    fn awake(&self);
}

struct LaneBed<'a> {
    shared: &'a Shared,
    lane: &'a Lane,
}

impl Bed for LaneBed<'_> {
    fn prepare(&self) {
        self.lane.prepare(self.shared);
    }

    fn drain(&self) -> io::Result<()> {
        self.shared.check()?;
        self.lane.drain(self.shared, |_, _| {})
    }

    fn sleep(&self, deadline: Option<Instant>) -> io::Result<Woken> {
        self.lane.sleep(self.shared, deadline)
    }

    fn awake(&self) {
        self.lane.awake(self.shared);
    }
}

/// Asks to be woken, looks, sleeps, takes the question back, looks, and again.
///
/// A wake-up can be meant for one waiter of many. So each is followed by a look before the next
/// can come: who asks again, or leaves, with a wake-up not looked after would leave another
/// waiter asleep beside what it was for.
fn sleep_until<T>(
    bed: &impl Bed,
    lane: u16,
    limit: Limit,
    interest: &impl Interest,
    mut attempt: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    loop {
        interest.arm(lane);
        bed.prepare();
        let nap = interest.nap().and_then(|nap| Instant::now().checked_add(nap));
        let until = [limit.deadline, nap].into_iter().flatten().min();
        let slept = match bed.drain().and_then(|()| attempt()) {
            Ok(None) if interest.is_armed(lane) => bed.sleep(until),
            // Told already, or the attempt took the question back and then met with a race.
            Ok(None) => Ok(Woken::Rung),
            found => {
                bed.awake();
                return found;
            }
        };
        bed.awake();
        interest.disarm(lane);
        let slept = match slept? {
            // Time to ask again.
            Woken::TimedOut if until != limit.deadline => Woken::Rung,
            slept => slept,
        };
        let found = attempt()?;
        match slept {
            _ if found.is_some() => return Ok(found),
            Woken::TimedOut => return Ok(None),
            Woken::Interrupted if limit.interruptible => {
                return Err(io::ErrorKind::Interrupted.into());
            }
            // A handled signal does not end the wait, as with SA_RESTART.
            Woken::Interrupted | Woken::Rung => {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Writes down what happens; sleeps end as scripted.
    #[derive(Default)]
    struct Diary {
        lines: RefCell<Vec<&'static str>>,
        sleeps: RefCell<Vec<Woken>>,
    }

    impl Diary {
        fn write(&self, line: &'static str) {
            self.lines.borrow_mut().push(line);
        }
    }

    impl Bed for Diary {
        fn prepare(&self) {
            self.write("prepare");
        }

        fn drain(&self) -> io::Result<()> {
            Ok(())
        }

        fn sleep(&self, _: Option<Instant>) -> io::Result<Woken> {
            self.write("sleep");
            Ok(self.sleeps.borrow_mut().remove(0))
        }

        fn awake(&self) {
            self.write("awake");
        }
    }

    impl Interest for Diary {
        fn arm(&self, _: u16) {
            self.write("arm");
        }

        fn disarm(&self, _: u16) {
            self.write("disarm");
        }

        fn is_armed(&self, _: u16) -> bool {
            !self.sleeps.borrow().is_empty()
        }
    }

    /// The diary of a wait whose looks find something at the `found`th.
    fn diary(sleeps: &[Woken], found: usize) -> (Vec<&'static str>, bool) {
        let diary = Diary { sleeps: sleeps.to_vec().into(), ..Diary::default() };
        let mut looks = 0;
        let result = sleep_until(&diary, 0, Limit::NEVER, &diary, || {
            diary.write("look");
            looks += 1;
            Ok((looks == found).then_some(()))
        });
        (diary.lines.into_inner(), result.unwrap().is_some())
    }

    #[test]
    fn the_second_look_saves_a_sleep() {
        assert_eq!(diary(&[], 1), (vec!["arm", "prepare", "look", "awake"], true));
    }

    #[test]
    fn a_wake_up_is_used_before_another_is_asked_for() {
        let once = ["arm", "prepare", "look", "sleep", "awake", "disarm", "look"];
        assert_eq!(diary(&[Woken::Rung], 2), (once.to_vec(), true));
        let twice = [once, once].concat();
        assert_eq!(diary(&[Woken::Interrupted, Woken::Rung], 4), (twice, true));
    }

    #[test]
    fn a_signal_ends_a_wait_that_allows_it() {
        let diary = Diary { sleeps: vec![Woken::Interrupted; 2].into(), ..Diary::default() };
        let limit = Limit { interruptible: true, ..Limit::NEVER };
        let look = |found| sleep_until(&diary, 0, limit, &diary, || Ok(found));
        assert_eq!(look(None::<()>).unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(diary.lines.borrow()[..], ["arm", "prepare", "sleep", "awake", "disarm"]);
        // What is there counts for more.
        assert_eq!(look(Some(())).unwrap(), Some(()));
    }

    #[test]
    fn who_was_told_already_does_not_sleep() {
        let lines = vec!["arm", "prepare", "look", "awake", "disarm", "look"];
        assert_eq!(diary(&[], 2), (lines, true));
    }

    #[test]
    fn the_end_of_patience_is_a_last_look() {
        let lines = vec!["arm", "prepare", "look", "sleep", "awake", "disarm", "look"];
        assert_eq!(diary(&[Woken::TimedOut], 2), (lines.clone(), true));
        assert_eq!(diary(&[Woken::TimedOut], 3), (lines, false));
    }
}
