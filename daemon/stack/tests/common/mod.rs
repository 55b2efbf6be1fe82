//! A host in memory and a scripted peer, for tests that drive one shard through its frames.
#![allow(dead_code, unreachable_pub, reason = "a module of several test programs")]

use std::collections::VecDeque;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use fourwave_stack::{
    Config, ConnId, Frame, Host, Keys, ListenerId, ListenerShared, Path, PathError, Payload,
    Refused, Shard, Update,
};
use fourwave_tcp::{Error, Events, Nanos};
use fourwave_wire::{
    Addr, ChecksumPolicy, Endpoint, Flags, FourTuple, FrameHead, IcmpQuote, Inbound, Link, Mac,
    Options, TcpFrame, build, parse,
};

pub const MILLIS: Nanos = 1_000_000;
pub const SECONDS: Nanos = 1_000 * MILLIS;

pub const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
pub const ROUTER_MAC: Mac = Mac([2, 0, 0, 0, 0, 3]);

/// `"10.0.0.1:80"` or `"[fd00::1]:80"`.
pub fn endpoint(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

/// One application's side of a connection.
#[derive(Default)]
pub struct App {
    pub listener: Option<ListenerId>,
    pub conn: Option<ConnId>,
    pub tuple: Option<FourTuple>,
    pub send: Vec<u8>,
    pub received: Vec<u8>,
    pub rcv_tail: u64,
    /// What tests have told the shard of reading.
    pub consumed: u64,
    pub snd_acked: u64,
    pub events: Events,
    pub error: Option<Error>,
    pub accepted: bool,
    pub closed: bool,
}

/// The send streams of all applications.
#[derive(Default)]
pub struct Apps(pub Vec<App>);

impl Payload for Apps {
    fn load(&self, app: u64, offset: u64, out: &mut [u8]) {
        let app = &self.0[app as usize];
        assert!(offset >= app.snd_acked, "acknowledged bytes are asked for again");
        out.copy_from_slice(&app.send[offset as usize..][..out.len()]);
    }
}

/// The environment of one shard under test.
pub struct MemHost {
    pub apps: Apps,
    pub sent: VecDeque<Vec<u8>>,
    room: Vec<u8>,
    /// Frames that may still be sent.
    pub tx_room: usize,
    pub path: Result<Path, PathError>,
    pub epoch: u32,
    pub refuse_open: bool,
    pub refuse_store: bool,
    pub locals: Vec<Addr>,
    random: u64,
}

impl MemHost {
    pub fn new(locals: &[Addr]) -> MemHost {
        MemHost {
            apps: Apps::default(),
            sent: VecDeque::new(),
            room: vec![0xee; 2048],
            tx_room: usize::MAX,
            path: Ok(Path { link: Link::new(ROUTER_MAC, OUR_MAC), source: locals[0], mtu: 1500 }),
            epoch: 1,
            refuse_open: false,
            refuse_store: false,
            locals: locals.to_vec(),
            random: 1,
        }
    }
}

impl Host for MemHost {
    type Payload = Apps;

    fn frame(&mut self) -> Option<Frame<'_, Apps>> {
        (self.tx_room > 0).then_some(Frame { room: &mut self.room, payload: &self.apps })
    }

    fn commit(&mut self, len: usize) {
        self.tx_room -= 1;
        self.sent.push_back(self.room[..len].to_vec());
    }

    fn path(&mut self, _: Option<Addr>, peer: Addr) -> Result<Path, PathError> {
        let same_family = |addr: &&Addr| addr.is_v4() == peer.is_v4();
        let source = self.locals.iter().find(same_family).copied();
        let source = source.ok_or(PathError::NoRoute)?;
        match self.path {
            Ok(path) => Ok(Path { source, ..path }),
            Err(PathError::Unresolved { mtu, .. }) => Err(PathError::Unresolved { source, mtu }),
            Err(PathError::NoRoute) => Err(PathError::NoRoute),
        }
    }

    fn path_epoch(&self) -> u32 {
        self.epoch
    }

    fn is_local(&self, addr: Addr) -> bool {
        self.locals.contains(&addr)
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        self.random
    }

    fn open(
        &mut self,
        listener: ListenerId,
        conn: ConnId,
        tuple: &FourTuple,
    ) -> Result<u64, Refused> {
        if self.refuse_open {
            return Err(Refused);
        }
        self.apps.0.push(App {
            listener: Some(listener),
            conn: Some(conn),
            tuple: Some(*tuple),
            ..App::default()
        });
        Ok(self.apps.0.len() as u64 - 1)
    }

    fn store(&mut self, app: u64, offset: u64, bytes: &[u8]) -> bool {
        if self.refuse_store {
            return false;
        }
        let app = &mut self.apps.0[app as usize];
        let end = offset as usize + bytes.len();
        if app.received.len() < end {
            app.received.resize(end, 0);
        }
        app.received[offset as usize..end].copy_from_slice(bytes);
        true
    }

    fn update(&mut self, app: u64, update: &Update) {
        let app = &mut self.apps.0[app as usize];
        assert!(!app.closed && update.rcv_tail >= app.rcv_tail);
        app.rcv_tail = update.rcv_tail;
        app.snd_acked = update.snd_acked;
        app.events |= update.events;
        app.error = update.error.or(app.error);
    }

    fn accept(&mut self, listener: ListenerId, conn: ConnId, app: u64) {
        let app = &mut self.apps.0[app as usize];
        assert_eq!((app.listener, app.conn), (Some(listener), Some(conn)));
        assert!(!app.accepted && !app.closed);
        app.accepted = true;
    }

    fn closed(&mut self, app: u64) {
        let app = &mut self.apps.0[app as usize];
        assert!(!app.closed);
        app.closed = true;
    }
}

/// A segment that a shard sent, or one that a test wants to send.
#[derive(Clone, Debug)]
pub struct Seg {
    pub head: FrameHead,
    pub payload: Vec<u8>,
}

impl Seg {
    /// As tcpdump would write it: `S. seq 5 ack 7 len 0`.
    pub fn show(&self) -> String {
        let FrameHead { seq, ack, flags, .. } = self.head;
        let mut text = format!("{flags} seq {seq} ack {ack}");
        if !self.payload.is_empty() {
            write!(text, " len {}", self.payload.len()).unwrap();
        }
        text
    }
}

/// One shard, its host and the time.
pub struct World {
    pub shard: Shard,
    pub host: MemHost,
    pub now: Nanos,
}

/// The shard's own addresses in these tests.
pub fn our_addresses() -> [Addr; 2] {
    [endpoint("10.0.0.1:0").addr, endpoint("[fd00::1]:0").addr]
}

/// Small tables, no timestamps on by default settings changed.
pub fn small() -> Config {
    Config {
        connections: 64,
        syn_received: 64,
        time_wait: 64,
        listeners: 8,
        local_addresses: 4,
        local_ports: 20_000..=20_063,
        ..Config::default()
    }
}

impl World {
    pub fn new(config: Config) -> World {
        let now = 5 * SECONDS;
        let mut seed = 77u64;
        let keys = Keys::generate(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed
        });
        World {
            shard: Shard::new(config, keys, now).unwrap(),
            host: MemHost::new(&our_addresses()),
            now,
        }
    }

    /// Listens as listener 0 on port 80 of every address.
    pub fn listen(&mut self, backlog: u32) -> Arc<ListenerShared> {
        let shared = ListenerShared::new(backlog);
        self.shard.listen(0, endpoint("[::]:80"), false, shared.clone()).unwrap();
        shared
    }

    /// Hands a segment to the shard.
    pub fn inject(&mut self, seg: &Seg) {
        let mut frame = vec![0; 2048];
        let len = build(&mut frame, &seg.head, seg.payload.len(), |out| {
            out.copy_from_slice(&seg.payload);
        })
        .unwrap();
        self.shard.handle_frame(self.now, &frame[..len], &mut self.host);
    }

    /// Timers and output; what was sent since the last call.
    pub fn round(&mut self) -> Vec<Seg> {
        while self.shard.next_deadline().is_some_and(|at| at <= self.now) {
            self.shard.advance(self.now, &mut self.host);
        }
        self.shard.flush(self.now, &mut self.host);
        self.drain()
    }

    /// What was sent and not looked at, without a flush.
    pub fn drain(&mut self) -> Vec<Seg> {
        self.host.sent.drain(..).map(|frame| decode(&frame)).collect()
    }

    /// Injects, then runs a round.
    pub fn exchange(&mut self, seg: &Seg) -> Vec<Seg> {
        self.inject(seg);
        self.round()
    }

    /// Lets the time pass, waking when a deadline asks for it; everything that was sent, with the
    /// milliseconds since the call.
    pub fn pass(&mut self, span: Nanos) -> Vec<(Nanos, Seg)> {
        let start = self.now;
        let end = start + span;
        let mut sent: Vec<_> = self.round().into_iter().map(|seg| (0, seg)).collect();
        loop {
            let at = self.shard.next_deadline().unwrap_or(end).clamp(self.now, end);
            self.now = at;
            for seg in self.round() {
                sent.push(((self.now - start) / MILLIS, seg));
            }
            if at == end {
                return sent;
            }
        }
    }

    pub fn app(&self, index: usize) -> &App {
        &self.host.apps.0[index]
    }

    /// The newest application's connection.
    pub fn conn(&self, index: usize) -> ConnId {
        self.app(index).conn.unwrap()
    }

    /// Writes to a connection's stream.
    pub fn write(&mut self, index: usize, bytes: &[u8]) {
        let app = &mut self.host.apps.0[index];
        app.send.extend_from_slice(bytes);
        let (conn, tail) = (app.conn.unwrap(), app.send.len() as u64);
        self.shard.send(conn, tail).unwrap();
    }

    /// Nothing is left but what listens.
    pub fn assert_empty(&self) {
        assert!(self.shard.is_empty(), "{:?}", self.shard.gauges());
        assert!(!self.shard.has_output());
        assert_eq!(self.shard.next_deadline(), None);
        assert!(self.host.apps.0.iter().all(|app| app.closed));
    }
}

/// Reads a frame that a shard has sent; as its receiver sees it.
pub fn decode(frame: &[u8]) -> Seg {
    match parse(frame, ChecksumPolicy::Verify) {
        Ok(Inbound::Tcp(TcpFrame { link, tuple, tos, ttl, segment })) => Seg {
            head: FrameHead {
                link,
                tuple,
                tos,
                ttl,
                ip_id: 0,
                seq: segment.seq,
                ack: segment.ack,
                flags: segment.flags,
                window: segment.window,
                urgent: segment.urgent,
                options: segment.options,
            },
            payload: segment.payload.to_vec(),
        },
        Ok(Inbound::IcmpError(IcmpQuote { kind, .. })) => panic!("sent an ICMP error: {kind:?}"),
        Err(error) => panic!("sent what cannot be read: {error}"),
    }
}

/// A peer by hand: it knows both sequence numbers and nothing else.
#[derive(Clone)]
pub struct Peer {
    pub tuple: FourTuple,
    pub link: Link,
    pub seq: u32,
    pub ack: u32,
    pub options: Options,
}

impl Peer {
    /// From 10.0.0.2 or fd00::2 to port 80 of the shard.
    pub fn new(v6: bool, port: u16) -> Peer {
        let [v4_addr, v6_addr] = our_addresses();
        let from = if v6 { "[fd00::2]:0" } else { "10.0.0.2:0" };
        let local = Endpoint { addr: endpoint(from).addr, port };
        let remote = Endpoint { addr: if v6 { v6_addr } else { v4_addr }, port: 80 };
        Peer {
            tuple: FourTuple { local, remote },
            link: Link::new(OUR_MAC, PEER_MAC),
            seq: 1_000,
            ack: 0,
            options: Options::default(),
        }
    }

    pub fn seg(&self, flags: Flags, payload: &[u8]) -> Seg {
        let acks = flags.contains(Flags::ACK);
        Seg {
            head: FrameHead {
                link: self.link,
                tuple: self.tuple,
                ttl: 64,
                seq: self.seq,
                ack: if acks { self.ack } else { 0 },
                flags,
                window: 65_535,
                options: self.options,
                ..FrameHead::default()
            },
            payload: payload.to_vec(),
        }
    }

    pub fn syn(&self) -> Seg {
        let mut seg = self.seg(Flags::SYN, &[]);
        seg.head.options.mss = Some(1460);
        seg
    }

    pub fn ack(&self) -> Seg {
        self.seg(Flags::ACK, &[])
    }

    pub fn fin(&self) -> Seg {
        self.seg(Flags::FIN | Flags::ACK, &[])
    }

    pub fn rst(&self) -> Seg {
        self.seg(Flags::RST, &[])
    }

    pub fn data(&self, payload: &[u8]) -> Seg {
        self.seg(Flags::ACK | Flags::PSH, payload)
    }

    /// SYN and SYN-ACK; the last ACK is left to the caller.
    pub fn half_open(&mut self, world: &mut World) {
        let sent = world.exchange(&self.syn());
        let [syn_ack] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(syn_ack.head.flags, Flags::SYN | Flags::ACK);
        assert_eq!(syn_ack.head.ack, self.seq.wrapping_add(1));
        self.take(syn_ack);
        self.seq = self.seq.wrapping_add(1);
    }

    /// The whole handshake; the newest application is the connection's.
    pub fn open(&mut self, world: &mut World) -> usize {
        self.half_open(world);
        assert!(world.exchange(&self.ack()).is_empty());
        world.host.apps.0.len() - 1
    }

    /// Takes note of what a segment to this peer acknowledges next.
    pub fn take(&mut self, seg: &Seg) {
        let flags = seg.head.flags;
        let len = seg.payload.len() as u32
            + u32::from(flags.contains(Flags::SYN))
            + u32::from(flags.contains(Flags::FIN));
        self.ack = seg.head.seq.wrapping_add(len);
        if let (Some(ours), Some(theirs)) =
            (&mut self.options.timestamps, seg.head.options.timestamps)
        {
            ours.echo = theirs.value;
        }
    }
}

/// `show` of each.
pub fn shown(sent: &[Seg]) -> Vec<String> {
    sent.iter().map(Seg::show).collect()
}
