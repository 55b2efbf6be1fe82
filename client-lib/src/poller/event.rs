//! What a poller is asked for and what it answers.

use std::ops::BitOr;

/// What to be told about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    readable: bool,
    writable: bool,
    read_closed: bool,
}

impl Interest {
    /// Bytes, the end of the stream or an error to read; for listeners a connection to accept.
    pub const READABLE: Interest = Interest { readable: true, ..Interest::NONE };
    /// Room to write, or the connection attempt is over.
    pub const WRITABLE: Interest = Interest { writable: true, ..Interest::NONE };
    /// Either.
    pub const BOTH: Interest = Interest { writable: true, ..Interest::READABLE };
    /// The end of what the peer sends, without the bytes before it (`EPOLLRDHUP`). Part of
    /// reading.
    pub const READ_CLOSED: Interest = Interest { read_closed: true, ..Interest::NONE };
    /// Nothing but errors, as with epoll.
    pub const NONE: Interest = Interest { readable: false, writable: false, read_closed: false };

    /// Whether reading is asked for.
    pub const fn is_readable(self) -> bool {
        self.readable
    }

    /// Whether writing is asked for.
    pub const fn is_writable(self) -> bool {
        self.writable
    }

    /// Whether anything that the peer sends is asked for.
    pub(crate) const fn is_incoming(self) -> bool {
        self.readable || self.read_closed
    }
}

impl BitOr for Interest {
    type Output = Interest;

    fn bitor(self, other: Interest) -> Interest {
        Interest {
            readable: self.readable | other.readable,
            writable: self.writable | other.writable,
            read_closed: self.read_closed | other.read_closed,
        }
    }
}

/// When to be told again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// As long as the source is ready.
    Level,
    /// When something happened that can have made it ready: read, write or accept until
    /// `WouldBlock` before waiting for the next event.
    Edge,
    /// Once, and nothing more (no errors either) until [`Poller::modify`](super::Poller::modify);
    /// also when several threads wait.
    Once,
}

/// One source that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub(super) key: usize,
    pub(super) ready: Readiness,
}

impl Event {
    /// The key that the source was added with.
    pub fn key(&self) -> usize {
        self.key
    }

    /// See [`Readiness::is_readable`].
    pub fn is_readable(&self) -> bool {
        self.ready.readable
    }

    /// See [`Readiness::is_writable`].
    pub fn is_writable(&self) -> bool {
        self.ready.writable
    }

    /// See [`Readiness::is_error`].
    pub fn is_error(&self) -> bool {
        self.ready.error
    }

    /// See [`Readiness::is_read_closed`].
    pub fn is_read_closed(&self) -> bool {
        self.ready.read_closed
    }

    /// See [`Readiness::is_closed`].
    pub fn is_closed(&self) -> bool {
        self.ready.closed
    }

    /// All of it, as far as it was asked for.
    pub fn readiness(&self) -> Readiness {
        self.ready
    }
}

/// What a source is ready for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Readiness {
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) error: bool,
    pub(super) read_closed: bool,
    pub(super) closed: bool,
}

impl Readiness {
    /// `read` or `accept` does not block: there are bytes, an end, an error or a connection.
    pub fn is_readable(&self) -> bool {
        self.readable
    }

    /// `write` does not block: there is room, or an error.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// The connection has failed, or could not be made; `take_error` says why.
    pub fn is_error(&self) -> bool {
        self.error
    }

    /// The peer sends no more: after what is there comes the end of the stream.
    pub fn is_read_closed(&self) -> bool {
        self.read_closed
    }

    /// Both directions have ended, or the connection has failed (`EPOLLHUP`).
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn of_listener(readable: bool) -> Readiness {
        Readiness { readable, ..Readiness::default() }
    }

    /// The part that `interest` asks for, if any. Errors are always told.
    pub(super) fn wanted(self, interest: Interest) -> Option<Readiness> {
        let ready = Readiness {
            readable: self.readable && interest.readable,
            writable: self.writable && interest.writable,
            error: self.error,
            read_closed: self.read_closed && interest.is_incoming(),
            closed: self.closed,
        };
        let told = ready.readable || ready.writable || ready.error || ready.read_closed;
        (told || ready.closed).then_some(ready)
    }
}

/// Room for what [`Poller::wait`](super::Poller::wait) answers.
#[derive(Debug)]
pub struct Events {
    list: Vec<Event>,
    capacity: usize,
}

impl Events {
    /// Room for `capacity` events (at least one); more that are ready wait for the next call.
    pub fn with_capacity(capacity: usize) -> Events {
        let capacity = capacity.max(1);
        Events { list: Vec::with_capacity(capacity), capacity }
    }

    /// The events of the last wait.
    pub fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.list.iter().copied()
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether the last wait ended without an event.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= self.capacity
    }

    pub(super) fn push(&mut self, event: Event) {
        self.list.push(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_told() {
        let ready = Readiness { readable: true, read_closed: true, ..Readiness::default() };
        assert_eq!(ready.wanted(Interest::READABLE), Some(ready));
        assert_eq!(ready.wanted(Interest::WRITABLE), None);
        assert_eq!(ready.wanted(Interest::WRITABLE | Interest::READABLE), Some(ready));
        let failed = Readiness { error: true, ..ready };
        assert!(failed.wanted(Interest::NONE).is_some_and(|told| told.error && !told.readable));
        let end = Readiness { read_closed: true, ..Readiness::default() };
        assert_eq!(ready.wanted(Interest::READ_CLOSED), Some(end));
        assert_eq!(Readiness { read_closed: false, ..ready }.wanted(Interest::READ_CLOSED), None);
    }
}
