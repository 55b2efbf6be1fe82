//! The end of a handshake: from its last ACK to a connection on the accept queue.

use fourwave_tcp::{Nanos, Passive, Settings};
use fourwave_wire::{FourTuple, Link, TcpFrame, max_payload};

use crate::conn::Conn;
use crate::counters::Dropped;
use crate::host::{Host, ListenerId, PathError, Refused};
use crate::shard::Shard;

/// For the MSS when no route leads back to the peer: the least that IPv6 allows (RFC 8200 §5).
const FALLBACK_MTU: u16 = 1280;

/// How a SYN is answered.
pub(crate) struct WayBack {
    /// Link header to send with.
    pub(crate) link: Link,
    /// The largest segment that we can receive.
    pub(crate) mss: u16,
}

/// A handshake that is complete.
pub(crate) struct Handshake {
    pub(crate) tuple: FourTuple,
    pub(crate) listener: ListenerId,
    pub(crate) route: Link,
    /// [`Host::path_epoch`] when `route` was looked up.
    pub(crate) epoch: u32,
    pub(crate) passive: Passive,
}

/// What became of a complete handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// A connection, not yet in the flow table.
    Conn(u32),
    /// The accept queue is full; counted.
    QueueFull,
    /// There is no room for another connection; counted.
    NoRoom,
}

impl Shard {
    /// The way to where a frame came from, for a connection with these settings.
    pub(crate) fn way_back(
        &self,
        frame: &TcpFrame<'_>,
        settings: &Settings,
        host: &mut impl Host,
    ) -> WayBack {
        let tuple = &frame.tuple;
        let (link, mtu) = match host.path(Some(tuple.local.addr), tuple.remote.addr) {
            Ok(path) => (path.link, path.mtu),
            Err(PathError::Unresolved { mtu, .. }) => (frame.link.reply(), mtu),
            Err(PathError::NoRoute) => (frame.link.reply(), FALLBACK_MTU),
        };
        WayBack { link, mss: settings.limit_mss(max_payload(mtu, tuple.is_v4(), 0)) }
    }

    /// A place on the accept queue and a record for the connection, if there is room for it there,
    /// here and at the host's.
    pub(crate) fn open_passive(
        &mut self,
        now: Nanos,
        handshake: &Handshake,
        hash: u64,
        host: &mut impl Host,
    ) -> Opened {
        let id = handshake.listener;
        let listener = self.listeners.get(id);
        let settings = listener.settings;
        if !listener.shared.claim_accept() {
            self.dropped(now, Dropped::ListenOverflows, handshake.tuple);
            self.counters.listen_drops += 1;
            return Opened::QueueFull;
        }
        let learned = self.path_mtu(&handshake.tuple.remote.addr);
        let epoch = handshake.epoch.wrapping_add(self.path_mtus.epoch());
        let tcp = &self.config.tcp;
        let conns = &mut self.flows.records.conns;
        let index = conns.insert_with(Conn::blank, |conn| {
            // The lower half chooses the bucket.
            conn.begin(handshake.tuple, hash as u32);
            conn.tcb.become_passive(tcp, now, &handshake.passive);
            conn.start(tcp, now, &settings, learned);
            conn.set_route(handshake.route, epoch);
        });
        let Some(index) = index else {
            self.dropped(now, Dropped::ConnectionsFull, handshake.tuple);
            return self.no_room(id);
        };
        match host.open(id, conns[index].id(index), &handshake.tuple) {
            Ok(app) => {
                conns[index].app = app;
                Opened::Conn(index)
            }
            Err(Refused) => {
                conns.remove(index);
                self.dropped(now, Dropped::OpenRefused, handshake.tuple);
                self.no_room(id)
            }
        }
    }

    fn no_room(&mut self, id: ListenerId) -> Opened {
        self.listeners.get(id).shared.release_accept();
        self.counters.listen_drops += 1;
        Opened::NoRoom
    }

    /// A connection is in the flow table: it goes on the accept queue, with what the segment that
    /// completed its handshake brought besides.
    pub(crate) fn start_passive(
        &mut self,
        now: Nanos,
        conn: u32,
        id: ListenerId,
        frame: &TcpFrame<'_>,
        host: &mut impl Host,
    ) {
        self.counters.passive_opens += 1;
        self.count(conn);
        self.proven.insert(&self.keys, &frame.tuple.remote.addr);
        let conns = &mut self.flows.records.conns;
        self.listeners.get(id).waiting.push_back(conns, conn);
        let record = &mut conns[conn];
        record.listener = id;
        let (app, conn_id) = (record.app, record.id(conn));
        self.deliver(now, conn, &frame.segment, host);
        host.accept(id, conn_id, app);
        self.mark_dirty(conn);
    }
}
