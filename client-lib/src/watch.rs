//! A connection that pollers watch.
//!
//! The daemon tells one lane of each direction. With several pollers that is the one that went to
//! sleep last: it claims the connection before it sleeps, and hands it over when it is awake, to
//! one that sleeps. Whoever hears of something tells the others.

use crate::connection::Connection;
use crate::error::os;
use crate::poller::{Core, Entry, Interest, Trigger};
use fourwave_protocol::wake::publish_fence;
use rustix::io::Errno;
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Weak};

/// A poller that watches.
#[derive(Debug)]
pub(crate) struct Watcher {
    core: Weak<Core>,
    interest: Interest,
}

impl Watcher {
    /// The poller, if it still lives.
    pub(crate) fn core(&self) -> Option<Arc<Core>> {
        self.core.upgrade()
    }

    fn is(&self, core: &Arc<Core>) -> bool {
        std::ptr::eq(self.core.as_ptr(), &**core)
    }
}

impl Connection {
    /// Those that watch.
    pub(crate) fn watchers(&self) -> Vec<(Arc<Core>, Interest)> {
        let watchers = self.watchers.lock();
        watchers.iter().filter_map(|own| Some((own.core()?, own.interest))).collect()
    }

    /// Those that are to be told when there is room to write again.
    pub(crate) fn write_watchers(&self) -> Vec<Arc<Core>> {
        let wants =
            |(core, interest): (Arc<Core>, Interest)| interest.is_writable().then_some(core);
        self.watchers().into_iter().filter_map(wants).collect()
    }

    /// After a blocking call: a poller is told again, and all look at what came meanwhile.
    pub(crate) fn give_back(&self, lane: u16, word: &AtomicU16, wants: impl Fn(Interest) -> bool) {
        let mut watchers = self.watchers();
        watchers.retain(|(_, interest)| wants(*interest));
        let Some(next) = next(&watchers) else {
            // Unless another process has asked meanwhile.
            let (own, order) = (lane + 1, Ordering::Relaxed);
            let _ = word.compare_exchange(own, 0, order, order);
            return;
        };
        word.store(next.lane().index() + 1, Ordering::Relaxed);
        publish_fence();
        for (core, _) in watchers {
            core.changed(self.handle);
        }
    }

    /// Enters a poller, or changes what it looks for.
    pub(crate) fn watch(
        self: &Arc<Self>,
        core: &Arc<Core>,
        key: usize,
        wanted: (Interest, Trigger),
        entry: Entry,
    ) -> io::Result<()> {
        let mut watchers = self.watchers.lock();
        match (watchers.iter().any(|own| own.is(core)), entry) {
            (true, Entry::New) => return Err(os(Errno::EXIST)),
            (false, Entry::Change) => return Err(os(Errno::NOENT)),
            (true, Entry::Change) | (false, Entry::New) | (_, Entry::Beside) => {}
        }
        core.quietly(|| {
            watchers.retain(|own| own.core.strong_count() > 0 && !own.is(core));
            watchers.push(Watcher { core: Arc::downgrade(core), interest: wanted.0 });
        });
        let all = core.set_stream(self.handle, key, wanted, entry);
        if let Some(own) = watchers.last_mut() {
            own.interest = all;
        }
        if watchers.len() > 1 {
            for own in watchers.iter().filter_map(Watcher::core) {
                own.share(self);
            }
        }
        let client = &self.block().client;
        let lane = core.lane().index();
        // Whatever is asked for: failures are told always.
        self.set_waker(&client.wake_reader, lane);
        // The writer's side is armed by whoever finds no room.
        self.clear_waker(&client.wake_writer);
        publish_fence();
        let others: Vec<_> =
            watchers.iter().filter(|own| !own.is(core)).filter_map(Watcher::core).collect();
        drop(watchers);
        core.changed(self.handle);
        for other in others {
            other.nudge(self.handle);
        }
        Ok(())
    }

    /// Leaves a poller under this key, and altogether if that was the only one.
    pub(crate) fn unwatch_key(&self, core: &Arc<Core>, key: usize) -> io::Result<()> {
        {
            let mut watchers = self.watchers.lock();
            let own = watchers.iter_mut().find(|own| own.is(core));
            let own = own.ok_or_else(|| os(Errno::NOENT))?;
            if let Some(left) = core.forget_key(self.handle, key) {
                own.interest = left;
                return Ok(());
            }
        }
        self.unwatch(core)
    }

    /// Leaves a poller.
    pub(crate) fn unwatch(&self, core: &Arc<Core>) -> io::Result<()> {
        let mut watchers = self.watchers.lock();
        let at = watchers.iter().position(|own| own.is(core)).ok_or_else(|| os(Errno::NOENT))?;
        core.quietly(|| {
            watchers.swap_remove(at);
        });
        let left: Vec<_> =
            watchers.iter().filter_map(|own| Some((own.core()?, own.interest))).collect();
        core.unshare(self.handle);
        if let [(only, _)] = &left[..] {
            only.unshare(self.handle);
        }
        let client = &self.block().client;
        match next(&left) {
            Some(core) => self.set_waker(&client.wake_reader, core.lane().index()),
            None => self.clear_waker(&client.wake_reader),
        }
        self.clear_waker(&client.wake_writer);
        publish_fence();
        core.forget_stream(self.handle);
        drop(watchers);
        for (other, _) in left {
            other.nudge(self.handle);
        }
        Ok(())
    }
}

/// With several pollers.
impl Connection {
    /// A poller is going to sleep: the daemon tells it from now on, unless a thread waits. The
    /// caller makes the fence and looks.
    pub(crate) fn claim(&self, core: &Core) {
        let own = core.lane().index() + 1;
        let watchers = self.watchers();
        let client = &self.block().client;
        for word in [&client.wake_reader, &client.wake_writer] {
            let told = word.load(Ordering::Relaxed);
            if watchers.iter().any(|(other, _)| other.lane().index() + 1 == told) {
                // Relaxed: ordered by the fence. It fails if a thread begins to wait.
                let _ = word.compare_exchange(told, own, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// It is awake: one that sleeps is told instead, and looks at what came meanwhile.
    pub(crate) fn hand_over(&self, core: &Core) {
        let own = core.lane().index() + 1;
        let sleeps = |(other, _): &(Arc<Core>, Interest)| {
            other.lane().is_asleep() && other.lane().index() + 1 != own
        };
        let Some((other, _)) = self.watchers().into_iter().find(sleeps) else { return };
        let new = other.lane().index() + 1;
        let client = &self.block().client;
        let mut handed = false;
        for word in [&client.wake_reader, &client.wake_writer] {
            handed |= word.compare_exchange(own, new, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        }
        if handed {
            publish_fence();
            other.nudge(self.handle);
        }
    }

    /// A poller has heard of something.
    pub(crate) fn tell_others(&self, core: &Core) {
        for (other, _) in self.watchers() {
            if !std::ptr::eq(&*other, core) {
                other.nudge(self.handle);
            }
        }
    }
}

/// Whom the daemon tells, if it can tell one: one that sleeps.
fn next(watchers: &[(Arc<Core>, Interest)]) -> Option<&Arc<Core>> {
    let asleep = watchers.iter().find(|(core, _)| core.lane().is_asleep());
    asleep.or(watchers.first()).map(|(core, _)| core)
}
