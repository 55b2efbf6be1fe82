//! Listeners: where SYNs are taken, how long their queues are.

use std::iter::successors;
use std::sync::Arc;

use fourwave_tcp::{Nanos, Settings};
use fourwave_wire::{Addr, Endpoint};

use crate::NoMemory;
use crate::arena::{Arena, NIL};
use crate::backlog::ListenerShared;
use crate::conn::{Conn, Waiting};
use crate::host::{ConnId, ListenerId};
use crate::list::List;
use crate::shard::Shard;
use crate::siphash::spread;
use crate::synrcvd::{Request, Requests};

const ANY_V4: Addr = Addr::from_v4([0; 4]);
/// Why [`Shard::listen`] refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// Another listener has this address and port, and not both have `SO_REUSEPORT`.
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
    /// every IPv4 address, else the one of every address. `hash`, the flow's, chooses among those
    /// that share an address.
    pub(crate) fn find(&self, local: &Endpoint, hash: u64) -> Option<ListenerId> {
        let any = |addr| Endpoint { addr, port: local.port };
        let v4 = local.addr.is_v4();
        self.find_exact(local, hash, |_| true)
            .or_else(|| if v4 { self.find_exact(&any(ANY_V4), hash, |_| true) } else { None })
            .or_else(|| self.find_exact(&any(Addr::UNSPECIFIED), hash, |it| !(v4 && it.v6_only)))
    }

    /// Another listener of the same address, for a flow of the listener `id`.
    pub(crate) fn partner(&self, id: ListenerId, hash: u64) -> Option<ListenerId> {
        let count = self.partners(id).count();
        self.partners(id).nth(spread(hash as u32, count))
    }

    /// All others of the same address.
    pub(crate) fn partners(&self, id: ListenerId) -> impl Iterator<Item = ListenerId> {
        let this = self.slots.get(id as usize).and_then(Option::as_ref);
        this.into_iter().flat_map(move |this| {
            let others = self.at(&this.local);
            let others =
                others.filter(move |(other, it)| *other != id && it.v6_only == this.v6_only);
            others.map(|(other, _)| other)
        })
    }

    /// Whether a cookie was sent in the last `span` by the listener `id`, or one that shares its
    /// address: the returning ACK's listener need not be the SYN's.
    pub(crate) fn overflowed_within(&self, id: ListenerId, span: Nanos, now: Nanos) -> bool {
        let Some(Some(listener)) = self.slots.get(id as usize) else { return false };
        self.at(&listener.local).any(|(_, it)| it.shared.overflowed_within(span, now))
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

    fn find_exact(
        &self,
        local: &Endpoint,
        hash: u64,
        fits: impl Fn(&Listener) -> bool + Copy,
    ) -> Option<ListenerId> {
        choose(self.at(local).filter(move |(_, listener)| fits(listener)), hash)
    }

    /// The listeners of just this address and port.
    fn at<'a>(
        &'a self,
        local: &'a Endpoint,
    ) -> impl Iterator<Item = (ListenerId, &'a Listener)> + Clone {
        let get = |id: u32| Some((id, self.slots.get(id as usize)?.as_ref()?));
        let chain = successors(get(self.heads[self.bucket(local)]), move |(_, it)| get(it.next));
        chain.filter(move |(_, listener)| listener.local == *local)
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

    pub(crate) fn remove(&mut self, id: ListenerId) -> Option<Listener> {
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

/// One of several listeners of an address, the same for all segments of a flow.
fn choose<'a>(
    listeners: impl Iterator<Item = (ListenerId, &'a Listener)> + Clone,
    hash: u64,
) -> Option<ListenerId> {
    // The lower half: the upper one chose the worker.
    let chosen = spread(hash as u32, listeners.clone().count());
    listeners.map(|(id, _)| id).nth(chosen)
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
        let shares = |it: &Listener| it.shared.reuse_port() && shared.reuse_port();
        if !self.listeners.at(&local).all(|(_, listener)| shares(listener)) {
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

    pub(crate) fn listener(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.listeners.slots.get_mut(id as usize)?.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let find = |listeners: &Listeners, local: &str| listeners.find(&endpoint(local), 0);
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
