//! How long one call waits, and what ends the wait.

use std::time::Instant;

/// How long one call may wait, whatever its socket is set to.
///
/// The calls of [`TcpStream`](crate::TcpStream) and [`TcpListener`](crate::TcpListener) whose names
/// end in `_with` take it. They are for layers that bring their own rules, as `recv(2)` brings
/// `MSG_DONTWAIT` and signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    waits: bool,
    limit: Limit,
}

impl Patience {
    /// Does not wait: `EAGAIN` instead.
    pub const NONE: Patience = Patience { waits: false, limit: Limit::NEVER };

    /// Waits for ever.
    pub const FOREVER: Patience = Patience { waits: true, limit: Limit::NEVER };

    /// Waits until `deadline`, and gives `EAGAIN` then; `None` is for ever.
    pub const fn until(deadline: Option<Instant>) -> Patience {
        Patience { waits: true, limit: Limit { deadline, interruptible: false } }
    }

    /// A signal that was handled ends the wait with `EINTR`. Without this it goes on, as with
    /// `SA_RESTART`.
    #[must_use]
    pub const fn interruptible(mut self) -> Patience {
        self.limit.interruptible = true;
        self
    }

    /// What ends the wait; `None`: there is none.
    pub(crate) fn limit(self) -> Option<Limit> {
        self.waits.then_some(self.limit)
    }
}

/// What ends a wait besides that for which one waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) deadline: Option<Instant>,
    /// `EINTR` when a signal was handled.
    pub(crate) interruptible: bool,
}

impl Limit {
    /// Nothing.
    pub(crate) const NEVER: Limit = Limit { deadline: None, interruptible: false };
}

/// A deadline alone.
impl From<Option<Instant>> for Limit {
    fn from(deadline: Option<Instant>) -> Limit {
        Limit { deadline, interruptible: false }
    }
}
