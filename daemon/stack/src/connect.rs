//! Active opens.

use fourwave_tcp::{Active, Nanos, Settings, Tcb};
use fourwave_wire::{Addr, Endpoint, FourTuple, max_payload};

use crate::conn::Conn;
use crate::counters::Dropped;
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
    /// No local port is free for this peer, or so few that none was found in a bounded search.
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

impl ConnectError {
    fn dropped(self) -> Dropped {
        match self {
            ConnectError::BadAddress => Dropped::ConnectBadAddress,
            ConnectError::NoRoute => Dropped::ConnectNoRoute,
            ConnectError::NoPort => Dropped::NoLocalPort,
            ConnectError::InUse => Dropped::ConnectInUse,
            ConnectError::NotOwner => Dropped::ConnectNotOwner,
            ConnectError::Full => Dropped::ConnectFull,
        }
    }
}

/// Most ports that one active open looks at: nearly exhausted ports must not hold a worker up. The
/// next one to such a peer goes on behind them, so a port that is free is found before long.
const PORT_PROBES: u32 = 256;

/// Whether a four-tuple can be had.
enum Seat {
    Free,
    /// In place of this record.
    TimeWait(u32),
    Taken,
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
        self.connect_with(now, app, local, remote, &Settings::default(), host)
    }

    /// As [`Shard::connect`], with settings that the handshake has to know.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing has happened then.
    pub fn connect_with(
        &mut self,
        now: Nanos,
        app: u64,
        local: Option<Endpoint>,
        remote: Endpoint,
        settings: &Settings,
        host: &mut impl Host,
    ) -> Result<(ConnId, FourTuple), ConnectError> {
        let opened = self.open_active(now, app, local, remote, settings, host);
        if let Err(error) = opened {
            let tuple = FourTuple { local: local.unwrap_or_default(), remote };
            self.dropped(now, error.dropped(), tuple);
        }
        opened
    }

    fn open_active(
        &mut self,
        now: Nanos,
        app: u64,
        local: Option<Endpoint>,
        remote: Endpoint,
        settings: &Settings,
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
        let (tuple, old) = self.choose_port(now, source, local.port, remote, host.random())?;
        let hash = self.keys.flow_hash(&tuple);
        let initial = self.keys.initial(&tuple, now);
        let is_v4 = tuple.is_v4();
        let active = Active {
            iss: old.map_or(initial.sequence, |old| self.iss_after(old)),
            is_v4,
            mss: settings.limit_mss(max_payload(mtu, is_v4, 0)),
            ts_offset: initial.ts_offset,
        };
        let mut tcb = Tcb::active(&self.config.tcp, now, &active);
        tcb.begin(&self.config.tcp, now, settings);
        // The lower half chooses the bucket.
        let mut conn = Conn::new(tuple, hash as u32, tcb);
        conn.app = app;
        if let Some(link) = link {
            conn.set_route(link, host.path_epoch());
        }
        let conns = &mut self.flows.records.conns;
        let index = conns.insert(conn).ok_or(ConnectError::Full)?;
        let id = conns[index].id(index);
        match old {
            Some(old) => {
                self.counters.time_wait_takeovers += 1;
                self.flows.replace(hash, Flow::TimeWait(old), Flow::Conn(index));
                self.release_time_wait(old);
            }
            None => self.flows.insert(hash, Flow::Conn(index), tuple.local.port),
        }
        self.counters.active_opens += 1;
        self.count(index);
        self.mark_dirty(index);
        Ok((id, tuple))
    }

    /// The local port asked for, or one that is free for this peer and makes the flow ours; and the
    /// TIME_WAIT record whose place is taken.
    fn choose_port(
        &mut self,
        now: Nanos,
        source: Addr,
        port: u16,
        remote: Endpoint,
        random: u64,
    ) -> Result<(FourTuple, Option<u32>), ConnectError> {
        let tuple = |port| FourTuple { local: Endpoint { addr: source, port }, remote };
        if port != 0 {
            let tuple = tuple(port);
            if !self.owns(&tuple) {
                return Err(ConnectError::NotOwner);
            }
            return match self.seat(now, &tuple, true) {
                Seat::Free => Ok((tuple, None)),
                Seat::TimeWait(old) => Ok((tuple, Some(old))),
                Seat::Taken => Err(ConnectError::InUse),
            };
        }
        let hash = self.keys.port_hash(&source, &remote.addr, remote.port);
        let mut search = self.ports.search(hash, random);
        let mut probes = 0;
        while probes < PORT_PROBES
            && let Some(port) = search.next()
        {
            let tuple = tuple(port);
            if !self.owns(&tuple) {
                continue;
            }
            probes += 1;
            let old = match self.seat(now, &tuple, false) {
                Seat::Free => None,
                Seat::TimeWait(old) => Some(old),
                Seat::Taken => continue,
            };
            self.ports.advance(&search);
            return Ok((tuple, old));
        }
        self.ports.advance(&search);
        Err(ConnectError::NoPort)
    }

    fn owns(&self, tuple: &FourTuple) -> bool {
        owner(&self.keys, tuple, self.config.workers) == self.config.worker
    }

    fn seat(&self, now: Nanos, tuple: &FourTuple, asked_for: bool) -> Seat {
        match self.flows.find(self.keys.flow_hash(tuple), tuple) {
            None => Seat::Free,
            Some(Flow::TimeWait(old)) if self.is_reusable(now, old, asked_for) => {
                Seat::TimeWait(old)
            }
            Some(Flow::TimeWait(_) | Flow::Conn(_) | Flow::Request(_)) => Seat::Taken,
        }
    }
}
