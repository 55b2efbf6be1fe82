//! The environment that the stack's shard runs in: transmit ring, paths, clients.

use super::control::Outbox;
use super::listeners::Place;
use super::taps::Taps;
use crate::messages::FromWorker;
use crate::path::{PathMiss, PathTable};
use crate::port::{AppId, Change, Clients, Notices};
use fourwave_protocol::conn::status;
use fourwave_stack::{ConnId, Frame, Host, ListenerId, Path, PathError, Payload, Refused, Update};
use fourwave_tcp::{Error, Events};
use fourwave_wire::{Addr, FourTuple};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;
use std::sync::Arc;

/// Everything of a worker but the shard itself and the receive ring.
pub(super) struct Environment {
    /// The turn's time, nanoseconds of CLOCK_MONOTONIC.
    pub(super) now: u64,
    pub(super) tx: fourwave_xdp::Sender,
    pub(super) clients: Clients,
    pub(super) notices: Notices,
    /// By the stack's number.
    pub(super) listeners: Vec<Option<Place>>,
    pub(super) paths: Arc<PathTable>,
    pub(super) random: Random,
    pub(super) outbox: Outbox,
    pub(super) taps: Taps,
}

/// A connection's name as one number, for [`crate::port`].
pub(super) fn conn_to_raw(conn: ConnId) -> u64 {
    u64::from(conn.index) << 32 | u64::from(conn.generation)
}

/// Back from [`conn_to_raw`].
pub(super) fn conn_from_raw(raw: u64) -> ConnId {
    ConnId { index: (raw >> 32) as u32, generation: raw as u32 }
}

impl Payload for Clients {
    fn load(&self, app: u64, offset: u64, out: &mut [u8]) {
        let app = AppId::from_raw(app);
        let group = self.find(app.group).expect("a group outlives its connections");
        group.load(app.conn, offset, out);
    }
}

impl Host for Environment {
    type Payload = Clients;

    fn frame(&mut self) -> Option<Frame<'_, Clients>> {
        let room = self.tx.frame()?;
        Some(Frame { room, payload: &self.clients })
    }

    fn commit(&mut self, len: usize) {
        if !self.taps.is_empty()
            && let Some(room) = self.tx.frame()
        {
            // The room that the frame was written to.
            self.taps.sent(&room[..len]);
        }
        self.tx.commit(len);
    }

    fn path(&mut self, local: Option<Addr>, peer: Addr) -> Result<Path, PathError> {
        match self.paths.lookup(peer, local) {
            Ok(entry) => Ok(Path { link: entry.link, source: entry.source, mtu: entry.mtu }),
            Err(PathMiss::NoRoute) => Err(PathError::NoRoute),
            Err(PathMiss::Unresolved { next_hop, source, mtu }) => {
                self.outbox.offer(FromWorker::Resolve { address: next_hop });
                Err(PathError::Unresolved { source, mtu })
            }
        }
    }

    fn path_epoch(&self) -> u32 {
        self.paths.epoch()
    }

    fn is_local(&self, addr: Addr) -> bool {
        self.paths.is_local(addr)
    }

    fn random(&mut self) -> u64 {
        self.random.next()
    }

    fn open(
        &mut self,
        listener: ListenerId,
        conn: ConnId,
        tuple: &FourTuple,
    ) -> Result<u64, Refused> {
        let Place { slot, index } = self.listeners[listener as usize].ok_or(Refused)?;
        let target = self.clients.group(slot).ok_or(Refused)?;
        let (local, peer) = (tuple.local.into(), tuple.remote.into());
        let conn = target.open(conn_to_raw(conn), Some(index), local, peer).ok_or(Refused)?;
        Ok(AppId { group: slot, conn }.to_raw())
    }

    fn store(&mut self, app: u64, offset: u64, bytes: &[u8]) -> bool {
        let app = AppId::from_raw(app);
        self.clients.of(app).store(app.conn, offset, bytes)
    }

    fn update(&mut self, app: u64, update: &Update) {
        let app = AppId::from_raw(app);
        let change = Change {
            receive_tail: update.rcv_tail,
            send_acked: update.snd_acked,
            send_space: update.send_space,
            status: status_bits(update),
            error: update.error.map_or(0, |error| errno(error).raw_os_error() as u32),
        };
        self.clients.of(app).change(app, &change, &mut self.notices);
    }

    fn accept(&mut self, _listener: ListenerId, _conn: ConnId, app: u64) {
        let app = AppId::from_raw(app);
        let now = self.now;
        // A full ring or a corrupted one evicts the group, whose connections are then reset.
        self.clients.of(app).push_accept(app, now, &mut self.notices);
    }

    fn closed(&mut self, app: u64) {
        let app = AppId::from_raw(app);
        self.clients.of(app).ended(app.conn);
    }
}

fn status_bits(update: &Update) -> u32 {
    let mut bits = 0;
    for (event, bit) in [
        (Events::ESTABLISHED, status::CONNECTED),
        (Events::PEER_FIN, status::PEER_CLOSED),
        (Events::ALL_ACKED, status::ALL_ACKED),
    ] {
        if update.events.contains(event) {
            bits |= bit;
        }
    }
    if update.error.is_some() {
        bits |= status::FAILED;
    }
    bits
}

/// The errno that a socket call gives for a failed connection.
fn errno(error: Error) -> Errno {
    match error {
        Error::Refused => Errno::CONNREFUSED,
        Error::Reset => Errno::CONNRESET,
        Error::BrokenPipe => Errno::PIPE,
        Error::TimedOut => Errno::TIMEDOUT,
        Error::HostUnreachable => Errno::HOSTUNREACH,
        Error::NetUnreachable => Errno::NETUNREACH,
        Error::ProtocolUnreachable => Errno::NOPROTOOPT,
        Error::Protocol => Errno::PROTO,
    }
}

/// Unpredictable numbers: ChaCha through the operating system's seed.
pub(super) struct Random(rand::rngs::StdRng);

impl Random {
    pub(super) fn from_os() -> io::Result<Random> {
        use rand::SeedableRng;
        let mut seed = [0u8; 32];
        let mut filled = 0;
        while filled < seed.len() {
            filled += getrandom(&mut seed[filled..], GetRandomFlags::empty())?;
        }
        Ok(Random(rand::rngs::StdRng::from_seed(seed)))
    }

    pub(super) fn next(&mut self) -> u64 {
        use rand::RngCore;
        self.0.next_u64()
    }
}
