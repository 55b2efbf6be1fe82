//! Streams that several pollers watch.

use super::Core;
use super::registry::Stream;
use crate::connection::Connection;
use crate::fork::Mutex;
use fourwave_protocol::Handle;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Those of one poller. Nearly always none.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    streams: Mutex<Vec<Weak<Connection>>>,
    /// Their number, to be asked without the lock.
    number: AtomicUsize,
}

impl Sharing {
    pub(super) fn is_any(&self) -> bool {
        // Relaxed: who shares a stream wakes its pollers afterwards.
        self.number.load(Ordering::Relaxed) > 0
    }

    /// Those that still live.
    fn streams(&self) -> Vec<Arc<Connection>> {
        if self.is_any() {
            self.streams.lock().iter().filter_map(Weak::upgrade).collect()
        } else {
            Vec::new()
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Weak<Connection>>)) {
        let mut streams = self.streams.lock();
        streams.retain(|stream| stream.strong_count() > 0);
        change(&mut streams);
        self.number.store(streams.len(), Ordering::Relaxed);
    }
}

impl Core {
    /// Another poller watches the stream too.
    pub(crate) fn share(&self, stream: &Arc<Connection>) {
        self.sharing.change(|streams| {
            if !streams.iter().any(|other| std::ptr::eq(other.as_ptr(), &**stream)) {
                streams.push(Arc::downgrade(stream));
            }
        });
    }

    /// No other does any more.
    pub(crate) fn unshare(&self, handle: Handle) {
        if self.sharing.is_any() {
            self.sharing.change(|streams| {
                streams.retain(|other| other.upgrade().is_some_and(|one| one.handle != handle));
            });
        }
    }

    /// The daemon may have told another poller.
    pub(super) fn look_at_shared(&self) {
        for stream in self.sharing.streams() {
            self.registry.lock().nudge(stream.handle);
        }
    }

    /// Before the fence of sleeping.
    pub(super) fn claim_shared(&self) {
        for stream in self.sharing.streams() {
            stream.claim(self);
        }
    }

    /// After sleep.
    pub(super) fn hand_over_shared(&self) {
        for stream in self.sharing.streams() {
            stream.hand_over(self);
        }
    }

    /// What this poller has heard of, the others hear too.
    pub(super) fn pass_on(&self, heard: &[Handle]) {
        if heard.is_empty() {
            return;
        }
        for stream in self.sharing.streams() {
            if heard.contains(&stream.handle) {
                stream.tell_others(self);
            }
        }
    }

    /// A write found no room: when there is some, that is an edge.
    pub(crate) fn no_room(&self, handle: Handle) {
        if self.sharing.is_any() {
            self.registry.lock().streams(handle).for_each(Stream::see_no_room);
        }
    }

    /// Something may have happened to a stream: it is looked at, and an edge-triggered one is told
    /// only if it is not as it was told last.
    pub(crate) fn nudge(&self, handle: Handle) {
        self.registry.lock().nudge(handle);
        self.kick();
    }
}
