//! The end of a listener, and where what waits in its queues goes.
//!
//! Handshakes and connections that nobody has accepted need not die with their listener: others
//! that share its address take them over, as with Linux's `tcp_migrate_req`. The accept queues are
//! the host's, so it is the host that moves connections; handshakes move by themselves.

use fourwave_tcp::Nanos;

use crate::counters::Dropped;
use crate::host::{ConnId, ListenerId};
use crate::shard::Shard;
use crate::synrcvd::Request;

impl Shard {
    /// Ends a listener, if there is one. Its handshakes go on at those that share its address;
    /// without one they are forgotten, so that their last ACK finds nothing and is reset.
    /// Connections not yet accepted, and not moved with [`Shard::move_waiting`], are reset at the
    /// next [`Shard::flush`].
    pub fn unlisten(&mut self, now: Nanos, id: ListenerId) {
        while let Some(index) = self.listener(id).and_then(|listener| listener.requests.front()) {
            let tuple = self.flows.records.requests[index].tuple;
            let hash = self.keys.flow_hash(&tuple);
            match self.listeners.partner(id, hash) {
                Some(partner) => self.move_request(index, id, partner),
                None => {
                    self.dropped(now, Dropped::ListenerClosed, tuple);
                    self.drop_request(index);
                }
            }
        }
        while let Some(index) = self.listener(id).and_then(|listener| listener.waiting.front()) {
            self.listeners.forget(id, &mut self.flows.records.conns, index);
            let tuple = self.flows.records.conns[index].tuple;
            self.dropped(now, Dropped::UnacceptedResets, tuple);
            self.reset(index);
        }
        self.listeners.remove(id);
    }

    /// Another listener that shares the address of `id`, to which a connection that waits there
    /// can be moved. `None` if there is none, or the connection is gone.
    pub fn partner(&self, id: ListenerId, conn: ConnId) -> Option<ListenerId> {
        let record = self.flows.records.conns.get(conn.index, conn.generation)?;
        self.listeners.partner(id, self.keys.flow_hash(&record.tuple))
    }

    /// A connection that waits to be accepted waits at `to` from now on, and the host calls it
    /// `app`. `false`, and nothing has changed, if it waits no more or `to` has no place for it.
    pub fn move_waiting(&mut self, now: Nanos, conn: ConnId, to: ListenerId, app: u64) -> bool {
        let conns = &mut self.flows.records.conns;
        let Some(record) = conns.get(conn.index, conn.generation) else { return false };
        let (from, tuple) = (record.listener, record.tuple);
        if !record.waiting.is_linked() {
            return false;
        }
        if from != to {
            if !self.listeners.get(to).shared.claim_accept() {
                self.dropped(now, Dropped::MigrateReqFailure, tuple);
                return false;
            }
            self.listeners.forget(from, conns, conn.index);
            self.listeners.get(from).shared.release_accept();
            self.listeners.get(to).waiting.push_back(conns, conn.index);
            conns[conn.index].listener = to;
            self.counters.migrations += 1;
        }
        conns[conn.index].app = app;
        true
    }

    /// Whether one of those that `fits` shares the address of a listener.
    pub fn has_partner(&self, id: ListenerId, fits: impl Fn(ListenerId) -> bool) -> bool {
        self.listeners.partners(id).any(fits)
    }

    /// Resets a connection that waits to be accepted, or gives the place of a dead one back.
    pub fn refuse_waiting(&mut self, now: Nanos, id: ListenerId, conn: ConnId) {
        self.accepted(id, conn);
        let Ok(tuple) = self.tuple(conn) else { return };
        if self.abort(conn).is_ok() {
            self.dropped(now, Dropped::UnacceptedResets, tuple);
        }
    }

    /// It takes a place in the other SYN queue whether or not there is one: as with a record that
    /// gives way to a new connection, there is a real peer behind it.
    fn move_request(&mut self, index: u32, from: ListenerId, to: ListenerId) {
        let requests = &mut self.flows.records.requests;
        self.listeners.forget_request(from, requests, index);
        let listener = self.listeners.get(to);
        listener.shared.force_syn();
        if !Request::is_young(&requests[index]) {
            listener.shared.age_syn();
        }
        listener.requests.push_back(requests, index);
        requests[index].listener = to;
        self.counters.migrations += 1;
    }
}
