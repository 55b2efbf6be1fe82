//! smoltcp in memory, for comparison: the same frames, options, checksums and application.
//!
//! One socket serves the lives; others may be there, established and idle. smoltcp finds a frame's
//! socket, and those with something to send, by looking at each: that is what idle ones show.

use std::ops::Range;
use std::time::Instant as Clock;

use fourwave_tcp::Nanos;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address};

use super::client::{CLIENT_MAC, Inbox, PAYLOAD, PORT, SERVER, SERVER_MAC};
use super::life::{Engine, Lives};

/// Clients that come and go: all of one address, which is resolved once.
pub(super) const CLIENTS: Range<u32> = 0..40_000;
/// Clients of idle connections.
const IDLE_CLIENTS: Range<u32> = 40_000..50_000;
const CLIENT: [u8; 4] = [10, 1, 0, 0];

const ROOM: usize = 1514;
/// Longer than smoltcp's TIME_WAIT.
const TIME_WAIT: Nanos = 10_500_000_000;

/// An interface, its sockets and its wire.
pub(super) struct Smoltcp {
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    /// The socket that serves.
    server: SocketHandle,
    /// Nanoseconds that reading the clock takes.
    clock: u64,
    /// How far smoltcp's time is ahead, because sockets had to wait.
    ahead: Nanos,
}

/// A device: one frame comes in at a time, those that go out are kept.
struct Wire {
    incoming: [u8; ROOM],
    incoming_len: usize,
    rooms: Vec<[u8; ROOM]>,
    lens: Vec<usize>,
}

impl Smoltcp {
    /// With `idle` established connections, half of them before the server's socket.
    pub(super) fn new(idle: usize) -> Smoltcp {
        let mut wire = Wire {
            incoming: [0; ROOM],
            incoming_len: 0,
            rooms: vec![[0; ROOM]; 4],
            lens: Vec::with_capacity(4),
        };
        let config = Config::new(EthernetAddress(SERVER_MAC.0).into());
        let mut interface = Interface::new(config, &mut wire, Instant::from_secs(1));
        interface.update_ip_addrs(|addrs| {
            let address = IpCidr::new(Ipv4Address::from(SERVER).into(), 8);
            addrs.push(address).expect("room for one address");
        });
        let mut sockets = SocketSet::new(Vec::new());
        let mut handles: Vec<_> = (0..=idle).map(|_| sockets.add(socket())).collect();
        let server = handles.remove(idle / 2);
        let mut engine =
            Smoltcp { interface, sockets, wire, server, clock: clock_nanos(), ahead: 0 };
        engine.resolve_client();
        let mut lives = Lives::new(IDLE_CLIENTS);
        for handle in handles {
            engine.server = handle;
            engine.listen();
            lives.open(&mut engine, 1);
        }
        engine.server = server;
        engine.listen();
        engine
    }

    fn listen(&mut self) {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.server);
        socket.listen(PORT).expect("a closed socket can listen");
    }

    /// An ARP request of the client's tells its address.
    fn resolve_client(&mut self) {
        let mut frame = [0; 42];
        frame[..6].fill(0xff);
        frame[6..12].copy_from_slice(&CLIENT_MAC.0);
        frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame[22..28].copy_from_slice(&CLIENT_MAC.0);
        frame[28..32].copy_from_slice(&CLIENT);
        frame[38..42].copy_from_slice(&SERVER);
        self.take(Instant::from_secs(1), &frame);
        assert_eq!(self.wire.lens.pop(), Some(frame.len()), "the ARP request was not answered");
    }

    fn take(&mut self, now: Instant, frame: &[u8]) {
        self.wire.incoming[..frame.len()].copy_from_slice(frame);
        self.wire.incoming_len = frame.len();
        self.interface.poll_ingress_single(now, &mut self.wire, &mut self.sockets);
    }

    fn time(&self, now: Nanos) -> Instant {
        // Far from 2^63.
        Instant::from_micros(((now + self.ahead) / 1_000) as i64)
    }
}

impl Engine for Smoltcp {
    fn round(&mut self, now: Nanos, inbox: &Inbox) {
        self.wire.lens.clear();
        let now = self.time(now);
        for frame in inbox.frames() {
            self.take(now, frame);
        }
        let socket = self.sockets.get_mut::<Socket<'_>>(self.server);
        if socket.can_recv() {
            let mut request = [0; PAYLOAD];
            assert_eq!(socket.recv_slice(&mut request), Ok(PAYLOAD), "a request is one segment");
            assert_eq!(socket.send_slice(&[b'a'; PAYLOAD]), Ok(PAYLOAD), "the buffer is empty");
            socket.close();
        }
        self.interface.poll_egress(now, &mut self.wire, &mut self.sockets);
    }

    fn sent(&self) -> impl Iterator<Item = &[u8]> {
        self.wire.rooms.iter().zip(&self.wire.lens).map(|(room, len)| &room[..*len])
    }

    /// The socket itself is in TIME_WAIT, and serves again when that is over.
    fn recycle(&mut self, now: Nanos) -> u64 {
        let start = Clock::now();
        self.ahead += TIME_WAIT;
        let now = self.time(now);
        self.interface.poll_egress(now, &mut self.wire, &mut self.sockets);
        let socket = self.sockets.get::<Socket<'_>>(self.server);
        assert_eq!(socket.state(), State::Closed, "TIME_WAIT is over");
        self.listen();
        start.elapsed().as_nanos() as u64 + self.clock
    }
}

/// With buffers for a few requests, timestamps as Linux has them, and SACK, which smoltcp always
/// takes up.
fn socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; 4096]);
    let mut socket = Socket::new(buffer(), buffer());
    // The value does not matter to these clients, and reading a clock would cost.
    socket.set_tsval_generator(Some(|| 1));
    socket
}

/// What reading the clock adds to a time that is measured, the least of many tries.
fn clock_nanos() -> u64 {
    let pair = |_| {
        let start = Clock::now();
        start.elapsed().as_nanos() as u64
    };
    (0..1_000).map(pair).min().unwrap_or(0)
}

impl Device for Wire {
    type RxToken<'a> = Incoming<'a>;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let len = std::mem::take(&mut self.incoming_len);
        if len == 0 {
            return None;
        }
        let Wire { incoming, rooms, lens, .. } = self;
        Some((Incoming(&incoming[..len]), Outgoing { rooms, lens }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        let Wire { rooms, lens, .. } = self;
        (lens.len() < rooms.len()).then_some(Outgoing { rooms, lens })
    }

    /// Every checksum is computed and verified, as is smoltcp's default.
    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = ROOM;
        capabilities
    }
}

struct Incoming<'a>(&'a [u8]);

impl phy::RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

struct Outgoing<'a> {
    rooms: &'a mut [[u8; ROOM]],
    lens: &'a mut Vec<usize>,
}

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let room = &mut self.rooms[self.lens.len()][..len];
        self.lens.push(len);
        f(room)
    }
}
