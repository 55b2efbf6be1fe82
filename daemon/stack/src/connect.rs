//! Active opens.

use fourwave_tcp::{Active, Nanos, Settings, Tcb};
use fourwave_wire::{Endpoint, FourTuple, max_payload};

use crate::conn::Conn;
use crate::counters::Dropped;
use crate::host::{ConnId, Host, PathError};
use crate::ports::{Answer, Chosen, Way};
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
    /// The local port given makes the flow another worker's, see [`Owners`](crate::Owners).
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

/// The four-tuple of a connection to be opened.
struct Seat {
    tuple: FourTuple,
    /// The TIME_WAIT record whose place it takes.
    old: Option<u32>,
    /// The port is claimed in [`Shard::ports`].
    claimed: bool,
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
        let way = Way { source, remote };
        let Seat { tuple, old, claimed } = match local.port {
            0 => self.choose_seat(now, &way, host.random())?,
            port => self.given_seat(&way, port)?,
        };
        let hash = self.keys.flow_hash(&tuple);
        let initial = self.keys.initial(&tuple, now);
        let is_v4 = tuple.is_v4();
        let active = Active {
            iss: old.map_or(initial.sequence, |old| self.iss_after(old)),
            is_v4,
            mss: settings.limit_mss(max_payload(mtu, is_v4, 0)),
            ts_offset: initial.ts_offset,
        };
        let (learned, epoch) = (self.path_mtu(&remote.addr), self.route_epoch(host));
        let tcp = &self.config.tcp;
        let conns = &mut self.flows.records.conns;
        let index = conns.insert_with(Conn::blank, |conn| {
            // The lower half chooses the bucket.
            conn.begin(tuple, hash as u32);
            conn.tcb = Tcb::active(tcp, now, &active);
            conn.start(tcp, now, settings, learned);
            conn.app = app;
            conn.port_claimed = claimed;
            if let Some(link) = link {
                conn.set_route(link, epoch);
            }
        });
        let index = index.expect("a record was free a moment ago");
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

    /// The seat with a local port that was asked for.
    fn given_seat(&mut self, way: &Way, port: u16) -> Result<Seat, ConnectError> {
        let tuple = way.with_port(port);
        if !self.owns(&tuple) {
            return Err(ConnectError::NotOwner);
        }
        match self.flows.find(self.keys.flow_hash(&tuple), &tuple) {
            None => Ok(Seat { tuple, old: None, claimed: self.ports.claim(&tuple) }),
            Some(Flow::TimeWait(old)) if self.is_reusable(old) => {
                let claimed = self.inherit_port(old);
                Ok(Seat { tuple, old: Some(old), claimed })
            }
            Some(Flow::TimeWait(_) | Flow::Conn(_) | Flow::Request(_)) => Err(ConnectError::InUse),
        }
    }

    /// A seat with a local port that is free for this peer and makes the flow ours; else, if the
    /// settings allow, with one in TIME_WAIT.
    fn choose_seat(&mut self, now: Nanos, way: &Way, random: u64) -> Result<Seat, ConnectError> {
        let (config, keys, flows) = (&self.config, &self.keys, &self.flows);
        let chosen = self.ports.choose(way, random, |port| {
            let tuple = way.with_port(port);
            if config.owners.owner(keys, &tuple, config.workers) != config.worker {
                Answer::Foreign
            } else if flows.find(keys.flow_hash(&tuple), &tuple).is_some() {
                // Opened to us, by a listener with a port of the range.
                Answer::Busy
            } else {
                Answer::Take
            }
        });
        if let Some(Chosen { port, claimed }) = chosen {
            return Ok(Seat { tuple: way.with_port(port), old: None, claimed });
        }
        self.choose_time_wait(now, way).ok_or(ConnectError::NoPort)
    }

    fn choose_time_wait(&mut self, now: Nanos, way: &Way) -> Option<Seat> {
        if !self.config.tw_reuse {
            return None;
        }
        let tick = self.tick_of(now);
        let (config, keys, flows) = (&self.config, &self.keys, &self.flows);
        let find = |port| {
            let tuple = way.with_port(port);
            match flows.find(keys.flow_hash(&tuple), &tuple)? {
                Flow::TimeWait(old) => Some(old),
                Flow::Conn(_) | Flow::Request(_) => None,
            }
        };
        let wait = |port| flows.records.time_waits[find(port)?].reusable_in(config, tick);
        let port = self.ports.choose_reusable(way, (now, config.tw_reuse_delay), wait)?;
        let old = find(port)?;
        let claimed = self.inherit_port(old);
        Some(Seat { tuple: way.with_port(port), old: Some(old), claimed })
    }

    fn owns(&self, tuple: &FourTuple) -> bool {
        let config = &self.config;
        config.owners.owner(&self.keys, tuple, config.workers) == config.worker
    }
}
