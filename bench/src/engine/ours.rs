//! fourwave's engine in memory: one shard, and a host that keeps nothing but what a short
//! connection needs.

use fourwave_stack::{
    Config, ConnId, Frame, Host, Keys, ListenerId, ListenerShared, NoMemory, Path, PathError,
    Payload, Refused, Shard, Update,
};
use fourwave_tcp::{Events, Nanos};
use fourwave_wire::{Addr, Endpoint, FourTuple, Link};

use super::client::{CLIENT_MAC, Inbox, PAYLOAD, PORT, SERVER, SERVER_MAC};
use super::life::Engine;

/// Room for one outgoing frame: as much as the trait asks for at this MTU.
const ROOM: usize = MTU as usize + 22;
const MTU: u16 = 1500;
/// Applications whose received bytes are kept apart.
const BUFFERS: usize = 4096;

/// One shard and all around it.
pub(super) struct Fourwave {
    pub(super) shard: Shard,
    pub(super) host: Memory,
}

/// Buffers of the applications, and the frames that were sent.
pub(super) struct Memory {
    rooms: Vec<[u8; ROOM]>,
    lens: Vec<usize>,
    reply: Reply,
    received: Vec<[u8; PAYLOAD]>,
    /// By [`ConnId::index`], which is also the host's number for a connection.
    generations: Vec<u32>,
    accepted: Vec<ConnId>,
    /// Connections that have a request to be answered.
    readable: Vec<ConnId>,
    random: u64,
}

/// What every application answers.
pub(super) struct Reply([u8; PAYLOAD]);

impl Payload for Reply {
    fn load(&self, _: u64, offset: u64, out: &mut [u8]) {
        out.copy_from_slice(&self.0[offset as usize..][..out.len()]);
    }
}

impl Host for Memory {
    type Payload = Reply;

    fn frame(&mut self) -> Option<Frame<'_, Reply>> {
        let room = self.rooms.get_mut(self.lens.len())?;
        Some(Frame { room, payload: &self.reply })
    }

    fn commit(&mut self, len: usize) {
        self.lens.push(len);
    }

    fn path(&mut self, _: Option<Addr>, _: Addr) -> Result<Path, PathError> {
        let link = Link::new(CLIENT_MAC, SERVER_MAC);
        Ok(Path { link, source: Addr::from_v4(SERVER), mtu: MTU })
    }

    fn path_epoch(&self) -> u32 {
        1
    }

    fn is_local(&self, addr: Addr) -> bool {
        addr == Addr::from_v4(SERVER)
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        self.random
    }

    fn open(&mut self, _: ListenerId, conn: ConnId, _: &FourTuple) -> Result<u64, Refused> {
        self.generations[conn.index as usize] = conn.generation;
        Ok(u64::from(conn.index))
    }

    fn store(&mut self, app: u64, offset: u64, bytes: &[u8]) -> bool {
        self.received[app as usize % BUFFERS][offset as usize..][..bytes.len()]
            .copy_from_slice(bytes);
        true
    }

    fn update(&mut self, app: u64, update: &Update) {
        if update.events.contains(Events::READABLE) {
            assert_eq!(update.rcv_tail, PAYLOAD as u64, "a request is one segment");
            let generation = self.generations[app as usize];
            self.readable.push(ConnId { index: app as u32, generation });
        }
    }

    fn accept(&mut self, _: ListenerId, conn: ConnId, _: u64) {
        self.accepted.push(conn);
    }

    fn closed(&mut self, _: u64) {}
}

impl Fourwave {
    /// A shard with room for so many records, and a listener. `in_flight` connections at most have
    /// something to send at a time.
    pub(super) fn new(
        connections: u32,
        time_wait: u32,
        in_flight: usize,
    ) -> Result<Self, NoMemory> {
        let mut seed = 77u64;
        let keys = Keys::generate(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed
        });
        // They are opened in whole batches.
        let batch = in_flight as u32;
        let connections = connections.next_multiple_of(batch) + batch;
        let config = Config {
            connections,
            // A takeover of a TIME_WAIT record needs one; a life has it only between two frames.
            syn_received: 16_384,
            time_wait,
            ..Config::default()
        };
        let mut shard = Shard::new(config, keys, 0)?;
        let local = Endpoint { addr: Addr::from_v4(SERVER), port: PORT };
        let shared = ListenerShared::new(in_flight as u32);
        shard.listen(0, local, false, shared).expect("the first listener");
        let host = Memory {
            rooms: vec![[0; ROOM]; in_flight + 1],
            lens: Vec::with_capacity(in_flight + 1),
            reply: Reply([b'a'; PAYLOAD]),
            received: vec![[0; PAYLOAD]; BUFFERS],
            generations: vec![0; connections as usize],
            accepted: Vec::with_capacity(in_flight),
            readable: Vec::with_capacity(in_flight),
            random: 1,
        };
        Ok(Fourwave { shard, host })
    }

    /// Lets the time come to `now`: what is due by then ends.
    pub(super) fn advance(&mut self, now: Nanos) {
        while self.shard.next_deadline().is_some_and(|due| due <= now) {
            self.shard.advance(now, &mut self.host);
        }
    }
}

impl Engine for Fourwave {
    /// As a worker's turn: a batch of frames, the applications' commands, timers, transmission.
    fn round(&mut self, now: Nanos, inbox: &Inbox) {
        let Fourwave { shard, host } = self;
        host.lens.clear();
        for frame in inbox.frames() {
            shard.handle_frame(now, frame, host);
        }
        for conn in host.accepted.drain(..) {
            shard.accepted(0, conn);
        }
        for conn in host.readable.drain(..) {
            let served = shard
                .consumed(conn, PAYLOAD as u64)
                .and_then(|()| shard.send(conn, PAYLOAD as u64))
                .and_then(|()| shard.close(now, conn));
            served.expect("the connection is open");
        }
        if shard.next_deadline().is_some_and(|due| due <= now) {
            shard.advance(now, host);
        }
        shard.flush(now, host);
    }

    fn sent(&self) -> impl Iterator<Item = &[u8]> {
        self.host.rooms.iter().zip(&self.host.lens).map(|(room, len)| &room[..*len])
    }
}
