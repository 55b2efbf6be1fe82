//! Active opens.

use fourwave_tcp::{Active, Nanos, Tcb};
use fourwave_wire::{Addr, Endpoint, FourTuple, max_payload};

use crate::conn::Conn;
use crate::host::{ConnId, Host, PathError};
use crate::keys::owner;
use crate::shard::Shard;
use crate::table::Flow;

/// Why [`Shard::connect`] refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The peer's address or port is none that one can connect to.
    #[error("not an address to connect to")]
    BadAddress,
    /// No route leads to the peer.
    #[error("no route to the peer")]
    NoRoute,
    /// No local port is free for this peer.
    #[error("no local port is free")]
    NoPort,
    /// The local port given is in use for this peer.
    #[error("the connection exists already")]
    InUse,
    /// The local port given makes the flow another worker's, see [`owner`].
    #[error("another worker owns this flow")]
    NotOwner,
    /// No connection record is free.
    #[error("no connection record is free")]
    Full,
}

impl Shard {
    /// Opens a connection; its SYN goes out in [`Shard::flush`], once the next hop is known.
    /// The host hears of it by `app`. An unspecified local address means the route's, local port 0
    /// an ephemeral one that makes the flow this worker's.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing has happened then.
    pub fn connect(
        &mut self,
        now: Nanos,
        app: u64,
        local: Option<Endpoint>,
        remote: Endpoint,
        host: &mut impl Host,
    ) -> Result<(ConnId, FourTuple), ConnectError> {
        if !remote.addr.is_unicast() || remote.port == 0 {
            return Err(ConnectError::BadAddress);
        }
        let local = local.unwrap_or_default();
        let bound = Some(local.addr).filter(|addr| !addr.is_unspecified());
        let (source, mtu, link) = match host.path(bound, remote.addr) {
            Ok(path) => (path.source, path.mtu, Some(path.link)),
            Err(PathError::Unresolved { source, mtu }) => (source, mtu, None),
            Err(PathError::NoRoute) => return Err(ConnectError::NoRoute),
        };
        let source = bound.unwrap_or(source);
        if source.is_v4() != remote.addr.is_v4() {
            return Err(ConnectError::BadAddress);
        }
        if self.flows.records.conns.is_full() {
            return Err(ConnectError::Full);
        }
        let tuple = self.choose_port(source, local.port, remote, host.random())?;
        let hash = self.keys.flow_hash(&tuple);
        let initial = self.keys.initial(&tuple, now);
        let is_v4 = tuple.is_v4();
        let active = Active {
            iss: initial.sequence,
            is_v4,
            mss: max_payload(mtu, is_v4, 0),
            ts_offset: initial.ts_offset,
        };
        let tcb = Tcb::active(&self.config.tcp, now, &active);
        // The lower half chooses the bucket.
        let mut conn = Conn::new(tuple, hash as u32, tcb);
        conn.app = app;
        if let Some(link) = link {
            conn.set_route(link, host.path_epoch());
        }
        let conns = &mut self.flows.records.conns;
        let index = conns.insert(conn).ok_or(ConnectError::Full)?;
        let id = conns[index].id(index);
        self.flows.insert(hash, Flow::Conn(index), tuple.local.port);
        self.counters.active_opens += 1;
        self.mark_dirty(index);
        Ok((id, tuple))
    }

    /// The local port asked for, or one that is free for this peer and makes the flow ours.
    fn choose_port(
        &mut self,
        source: Addr,
        port: u16,
        remote: Endpoint,
        random: u64,
    ) -> Result<FourTuple, ConnectError> {
        let tuple = |port| FourTuple { local: Endpoint { addr: source, port }, remote };
        if port != 0 {
            let tuple = tuple(port);
            if !self.owns(&tuple) {
                return Err(ConnectError::NotOwner);
            }
            return if self.is_free(&tuple) { Ok(tuple) } else { Err(ConnectError::InUse) };
        }
        let hash = self.keys.port_hash(&source, &remote.addr, remote.port);
        let mut search = self.ports.search(hash, random);
        while let Some(port) = search.next() {
            let tuple = tuple(port);
            if self.owns(&tuple) && self.is_free(&tuple) {
                self.ports.taken(&search);
                return Ok(tuple);
            }
        }
        self.counters.no_local_port += 1;
        Err(ConnectError::NoPort)
    }

    fn owns(&self, tuple: &FourTuple) -> bool {
        owner(&self.keys, tuple, self.config.workers) == self.config.worker
    }

    fn is_free(&self, tuple: &FourTuple) -> bool {
        self.flows.find(self.keys.flow_hash(tuple), tuple).is_none()
    }
}
