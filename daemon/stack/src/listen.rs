//! Listeners: where SYNs are taken, how long their queues are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use fourwave_tcp::{Nanos, Settings};
use fourwave_wire::{Addr, Endpoint};

use crate::NoMemory;
use crate::arena::{Arena, NIL};
use crate::conn::{Conn, Waiting};
use crate::host::{ConnId, ListenerId};
use crate::list::List;
use crate::shard::Shard;
use crate::siphash::spread;
use crate::synrcvd::{Request, Requests};

const ANY_V4: Addr = Addr::from_v4([0; 4]);
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

/// Why [`Shard::listen`] refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// Another listener has this address and port.
    #[error("another listener has this address and port")]
    InUse,
    /// The identifier is taken, or not below [`Config::listeners`](crate::Config::listeners).
    #[error("the listener's number is taken or too large")]
    BadId,
}

/// One listener in this shard.
pub(crate) struct Listener {
    local: Endpoint,
    v6_only: bool,
    /// Next of the same bucket.
    next: u32,
    pub(crate) shared: Arc<ListenerShared>,
    /// What its connections begin with.
    pub(crate) settings: Settings,
    pub(crate) requests: List<Requests>,
    pub(crate) waiting: List<Waiting>,
}

/// All listeners, by number and by local endpoint.
pub(crate) struct Listeners {
    slots: Vec<Option<Listener>>,
    heads: Box<[u32]>,
}

impl Listeners {
    pub(crate) fn new(count: u32) -> Result<Listeners, NoMemory> {
        let mut slots = Vec::new();
        slots.try_reserve_exact(count as usize).map_err(|_| NoMemory)?;
        slots.resize_with(count as usize, || None);
        Ok(Listeners { slots, heads: vec![NIL; count.max(1) as usize].into_boxed_slice() })
    }

    /// The listener of this number; it must exist.
    pub(crate) fn get(&mut self, id: ListenerId) -> &mut Listener {
        self.slots[id as usize].as_mut().expect("records name only listeners that exist")
    }

    /// The listener that takes a SYN to `local`: the one of just this address, else the one of
    /// every IPv4 address, else the one of every address.
    pub(crate) fn find(&self, local: &Endpoint) -> Option<ListenerId> {
        let any = |addr| Endpoint { addr, port: local.port };
        let v4 = local.addr.is_v4();
        self.find_exact(local, |_| true)
            .or_else(|| if v4 { self.find_exact(&any(ANY_V4), |_| true) } else { None })
            .or_else(|| {
                self.find_exact(&any(Addr::UNSPECIFIED), |listener| !(v4 && listener.v6_only))
            })
    }

    /// Whether a listener has this port; O(listeners).
    pub(crate) fn uses_port(&self, port: u16) -> bool {
        self.slots.iter().flatten().any(|listener| listener.local.port == port)
    }

    /// A connection that was waiting to be accepted waits no more.
    pub(crate) fn forget(&mut self, id: ListenerId, conns: &mut Arena<Conn>, index: u32) {
        self.get(id).waiting.remove(conns, index);
        conns[index].listener = NIL;
    }

    /// A request is no longer in the SYN queue.
    pub(crate) fn forget_request(
        &mut self,
        id: ListenerId,
        requests: &mut Arena<Request>,
        index: u32,
    ) {
        let listener = self.get(id);
        listener.requests.remove(requests, index);
        listener.shared.release_syn(requests[index].is_young());
    }

    fn find_exact(&self, local: &Endpoint, fits: impl Fn(&Listener) -> bool) -> Option<ListenerId> {
        let mut at = self.heads[self.bucket(local)];
        while at != NIL {
            let listener = self.slots[at as usize].as_ref()?;
            if listener.local == *local && fits(listener) {
                return Some(at);
            }
            at = listener.next;
        }
        None
    }

    /// Not keyed: only we choose what is in here.
    fn bucket(&self, local: &Endpoint) -> usize {
        let bits = u128::from_be_bytes(local.addr.0);
        let mixed = (bits >> 64) as u64 ^ bits as u64 ^ u64::from(local.port) << 48;
        let hash = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        spread(hash as u32, self.heads.len())
    }

    fn insert(&mut self, id: ListenerId, mut listener: Listener) {
        let bucket = self.bucket(&listener.local);
        listener.next = std::mem::replace(&mut self.heads[bucket], id);
        self.slots[id as usize] = Some(listener);
    }

    fn remove(&mut self, id: ListenerId) -> Option<Listener> {
        let listener = self.slots.get_mut(id as usize)?.take()?;
        let bucket = self.bucket(&listener.local);
        if self.heads[bucket] == id {
            self.heads[bucket] = listener.next;
            return Some(listener);
        }
        let mut at = self.heads[bucket];
        while at != NIL {
            let other = self.get(at);
            if other.next == id {
                other.next = listener.next;
                break;
            }
            at = other.next;
        }
        Some(listener)
    }
}

impl Shard {
    /// Takes SYNs to `local`: `::` is every address of both families, or of IPv6 alone with
    /// `v6_only`; `0.0.0.0` (mapped) every IPv4 address. The more specific listener wins.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn listen(
        &mut self,
        id: ListenerId,
        local: Endpoint,
        v6_only: bool,
        shared: Arc<ListenerShared>,
    ) -> Result<(), ListenError> {
        if !matches!(self.listeners.slots.get(id as usize), Some(None)) {
            return Err(ListenError::BadId);
        }
        if self.listeners.find_exact(&local, |_| true).is_some() {
            return Err(ListenError::InUse);
        }
        let (requests, waiting) = (List::new(), List::new());
        let settings = Settings::default();
        let listener = Listener { local, v6_only, next: NIL, shared, settings, requests, waiting };
        self.listeners.insert(id, listener);
        Ok(())
    }

    /// What connections of a listener begin with from now on, if there is such a listener. Those
    /// that it has opened already keep what they have.
    pub fn configure_listener(&mut self, id: ListenerId, settings: &Settings) {
        if let Some(listener) = self.listener(id) {
            listener.settings = *settings;
        }
    }

    /// Ends a listener, if there is one. Handshakes under way are forgotten, so that their last ACK
    /// finds nothing and is reset; connections not yet accepted are reset at the next
    /// [`Shard::flush`].
    pub fn unlisten(&mut self, id: ListenerId) {
        while let Some(index) = self.listener(id).and_then(|listener| listener.requests.front()) {
            self.counters.listener_closed += 1;
            self.drop_request(index);
        }
        while let Some(index) = self.listener(id).and_then(|listener| listener.waiting.front()) {
            self.listeners.forget(id, &mut self.flows.records.conns, index);
            self.reset(index);
        }
        self.listeners.remove(id);
    }

    /// The application has taken a connection off the accept queue: its place there is free again.
    /// Also to be called for a connection that has died while it waited, once the application has
    /// taken its entry. Not for what an earlier listener of this number left behind.
    pub fn accepted(&mut self, id: ListenerId, conn: ConnId) {
        let Some(listener) = self.listener(id) else { return };
        listener.shared.release_accept();
        let conns = &mut self.flows.records.conns;
        let waits = conns
            .get(conn.index, conn.generation)
            .is_some_and(|record| record.waiting.is_linked() && record.listener == id);
        if waits {
            self.listeners.forget(id, conns, conn.index);
        }
    }

    fn listener(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.listeners.slots.get_mut(id as usize)?.as_mut()
    }
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

    fn endpoint(text: &str) -> Endpoint {
        text.parse::<std::net::SocketAddr>().unwrap().into()
    }

    #[test]
    fn the_most_specific_listener_wins() {
        let mut listeners = Listeners::new(8).unwrap();
        let add = |listeners: &mut Listeners, id, local: &str, v6_only| {
            let listener = Listener {
                local: endpoint(local),
                v6_only,
                next: NIL,
                shared: ListenerShared::new(1),
                settings: Settings::default(),
                requests: List::new(),
                waiting: List::new(),
            };
            listeners.insert(id, listener);
        };
        add(&mut listeners, 0, "[::]:80", false);
        add(&mut listeners, 1, "0.0.0.0:80", false);
        add(&mut listeners, 2, "10.0.0.1:80", false);
        add(&mut listeners, 3, "[::]:81", true);
        add(&mut listeners, 4, "[fd00::1]:81", false);
        let find = |listeners: &Listeners, local: &str| listeners.find(&endpoint(local));
        assert_eq!(find(&listeners, "10.0.0.1:80"), Some(2));
        assert_eq!(find(&listeners, "10.0.0.2:80"), Some(1));
        assert_eq!(find(&listeners, "[fd00::1]:80"), Some(0));
        assert_eq!(find(&listeners, "10.0.0.1:81"), None);
        assert_eq!(find(&listeners, "[fd00::1]:81"), Some(4));
        assert_eq!(find(&listeners, "[fd00::2]:81"), Some(3));
        assert_eq!(find(&listeners, "10.0.0.1:82"), None);
        listeners.remove(1);
        assert_eq!(find(&listeners, "10.0.0.2:80"), Some(0));
        assert!(listeners.uses_port(81) && !listeners.uses_port(82));
    }
}
