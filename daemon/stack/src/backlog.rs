//! The lengths of a listener's queues over all workers, and the options that go with them.

use std::sync::Arc;

use fourwave_tcp::{Config, Nanos};

use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// No overflow yet.
const NEVER: Nanos = Nanos::MAX;
/// An overflow is noted at most once in this time (1 s, as Linux): workers share the note.
const NOTE_INTERVAL: Nanos = 1_000_000_000;

/// The queue lengths of one listener over all workers, so that its backlog is exact.
///
/// All accesses are Relaxed: they carry a count and publish nothing else. Entries of the accept
/// queue are published by the queue itself.
#[derive(Debug)]
pub struct ListenerShared {
    backlog: AtomicU32,
    accept_len: AtomicU32,
    syn_len: AtomicU32,
    /// Of those, the ones whose SYN-ACK has not timed out.
    young: AtomicU32,
    /// When a cookie was last sent, to within [`NOTE_INTERVAL`].
    overflow: AtomicU64,
    /// `SO_REUSEPORT`.
    reuse_port: AtomicBool,
    /// `TCP_DEFER_ACCEPT`, seconds; 0 is off.
    defer_accept: AtomicU32,
}

impl ListenerShared {
    /// Empty queues. The accept queue holds `backlog` + 1 connections, as Linux's does, and so does
    /// the SYN queue.
    pub fn new(backlog: u32) -> Arc<ListenerShared> {
        Arc::new(ListenerShared {
            backlog: AtomicU32::new(backlog),
            accept_len: AtomicU32::new(0),
            syn_len: AtomicU32::new(0),
            young: AtomicU32::new(0),
            overflow: AtomicU64::new(NEVER),
            reuse_port: AtomicBool::new(false),
            defer_accept: AtomicU32::new(0),
        })
    }

    /// The limit now.
    pub fn backlog(&self) -> u32 {
        self.backlog.load(Ordering::Relaxed)
    }

    /// `listen()` again with another backlog. What is queued stays.
    pub fn set_backlog(&self, backlog: u32) {
        self.backlog.store(backlog, Ordering::Relaxed);
    }

    /// `SO_REUSEPORT`: whether others may listen at the same address and port, which must have it
    /// too. Looked at when another one begins to listen.
    pub fn set_reuse_port(&self, reuse_port: bool) {
        self.reuse_port.store(reuse_port, Ordering::Relaxed);
    }

    /// `TCP_DEFER_ACCEPT`: a handshake's last ACK without data is not enough for about so many
    /// seconds; 0 is off.
    pub fn set_defer_accept(&self, seconds: u32) {
        self.defer_accept.store(seconds, Ordering::Relaxed);
    }

    /// Connections that wait to be accepted.
    pub fn accept_len(&self) -> u32 {
        self.accept_len.load(Ordering::Relaxed)
    }

    /// Connections whose handshake is under way.
    pub fn syn_len(&self) -> u32 {
        self.syn_len.load(Ordering::Relaxed)
    }

    pub(crate) fn accept_queue_is_full(&self) -> bool {
        self.accept_len() > self.backlog()
    }

    /// Takes a place on the accept queue, unless it is full.
    pub(crate) fn claim_accept(&self) -> bool {
        claim(&self.accept_len, self.backlog())
    }

    /// Gives a place on the accept queue back.
    pub(crate) fn release_accept(&self) {
        let before = self.accept_len.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a place was given back twice");
    }

    /// Takes a place on the SYN queue, unless it is full, for a young handshake.
    pub(crate) fn claim_syn(&self) -> bool {
        let claimed = claim(&self.syn_len, self.backlog());
        if claimed {
            self.young.fetch_add(1, Ordering::Relaxed);
        }
        claimed
    }

    /// Takes a place on the SYN queue whether or not it is full, for a young handshake.
    pub(crate) fn force_syn(&self) {
        self.syn_len.fetch_add(1, Ordering::Relaxed);
        self.young.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives the place of a handshake, `young` or not, back.
    pub(crate) fn release_syn(&self, young: bool) {
        self.syn_len.fetch_sub(1, Ordering::Relaxed);
        if young {
            self.age_syn();
        }
    }

    /// A handshake is young no longer: its SYN-ACK has timed out.
    pub(crate) fn age_syn(&self) {
        self.young.fetch_sub(1, Ordering::Relaxed);
    }

    /// How often a SYN-ACK may be sent again now, at most `most` times: half of the queue is kept
    /// for young handshakes, so when more is taken, the old ones have the fewer retries the more of
    /// them there are (as Linux, `reqsk_timer_handler`).
    pub(crate) fn syn_ack_retries(&self, most: u8) -> u8 {
        let len = u64::from(self.syn_len());
        if len * 2 <= u64::from(self.backlog().max(8)) {
            return most;
        }
        let mut young = u64::from(self.young.load(Ordering::Relaxed)) * 2;
        let mut retries = most;
        while retries > 2 && len >= young {
            retries -= 1;
            young *= 2;
        }
        retries
    }

    pub(crate) fn reuse_port(&self) -> bool {
        self.reuse_port.load(Ordering::Relaxed)
    }

    /// How many SYN-ACKs must have timed out before a bare ACK completes a handshake: the first
    /// that times out when the seconds are over (as Linux, `secs_to_retrans`). 0 is off.
    pub(crate) fn defer_timeouts(&self, tcp: &Config) -> u8 {
        let seconds = self.defer_accept.load(Ordering::Relaxed);
        if seconds == 0 {
            return 0;
        }
        let wanted = Nanos::from(seconds) * 1_000_000_000;
        let (mut timeouts, mut wait, mut passed) = (1, tcp.rto_initial, tcp.rto_initial);
        while passed < wanted && timeouts < u8::MAX {
            timeouts += 1;
            wait = (wait * 2).min(tcp.rto_max);
            passed += wait;
        }
        timeouts
    }

    /// A SYN is answered by a cookie.
    pub(crate) fn note_overflow(&self, now: Nanos) {
        // Workers' clocks are read at slightly different moments: `now` may be before the note.
        let noted = self.overflow.load(Ordering::Relaxed);
        if noted == NEVER || now.saturating_sub(noted) >= NOTE_INTERVAL {
            self.overflow.store(now, Ordering::Relaxed);
        }
    }

    /// Whether a cookie was sent in the last `span`.
    pub(crate) fn overflowed_within(&self, span: Nanos, now: Nanos) -> bool {
        let noted = self.overflow.load(Ordering::Relaxed);
        noted != NEVER && now.saturating_sub(noted) <= span
    }
}

/// Adds one to `len` unless it exceeds `limit`.
fn claim(len: &AtomicU32, limit: u32) -> bool {
    let step = |len: u32| (len <= limit).then_some(len + 1);
    len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_holds_backlog_plus_one() {
        let shared = ListenerShared::new(2);
        assert!((0..3).all(|_| shared.claim_accept()));
        assert!(shared.accept_queue_is_full());
        assert!(!shared.claim_accept());
        shared.release_accept();
        assert!(shared.claim_accept());
        assert!((0..3).all(|_| shared.claim_syn()));
        assert!(!shared.claim_syn());
        shared.set_backlog(3);
        assert!(shared.claim_syn() && shared.claim_accept());
        assert_eq!((shared.accept_len(), shared.syn_len()), (4, 4));
    }

    #[test]
    fn old_handshakes_have_fewer_retries_once_the_queue_is_half_full() {
        let shared = ListenerShared::new(16);
        let retries = |young, old, most| {
            shared.young.store(young, Ordering::Relaxed);
            shared.syn_len.store(young + old, Ordering::Relaxed);
            shared.syn_ack_retries(most)
        };
        // Half full is not over half full.
        assert_eq!(retries(0, 8, 5), 5);
        assert_eq!(retries(0, 9, 5), 2);
        assert_eq!(retries(5, 4, 5), 5);
        assert_eq!(retries(4, 5, 5), 4);
        assert_eq!(retries(2, 8, 5), 3);
        assert_eq!(retries(1, 14, 5), 2);
        assert_eq!(retries(0, 16, 1), 1);
        assert_eq!(retries(16, 0, 5), 5);
        // A small backlog counts as 8.
        shared.set_backlog(1);
        assert_eq!(retries(0, 4, 5), 5);
        assert_eq!(retries(0, 5, 5), 2);
    }

    #[test]
    fn seconds_to_defer_are_rounded_up_to_timeouts() {
        let (tcp, shared) = (Config::default(), ListenerShared::new(1));
        // 1, 1 + 2, 1 + 2 + 4, … s, each wait 120 s at most.
        let table = [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (127, 7), (128, 8)];
        for (seconds, timeouts) in table {
            shared.set_defer_accept(seconds);
            assert_eq!(shared.defer_timeouts(&tcp), timeouts, "{seconds} s");
        }
        shared.set_defer_accept(u32::MAX);
        assert_eq!(shared.defer_timeouts(&tcp), u8::MAX);
    }
}
