//! After its start a shard allocates nothing, whatever comes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use fourwave_stack::{
    Config, ConnId, Frame, Host, Keys, ListenerId, ListenerShared, Path, PathError, Payload,
    Refused, Shard, Update,
};
use fourwave_tcp::{Events, Nanos};
use fourwave_wire::{
    Addr, ChecksumPolicy, Endpoint, Flags, FourTuple, FrameHead, Inbound, Link, Mac, Options,
    Timestamps, build, parse,
};

/// Counts what the current thread asks for.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    CALLS.set(CALLS.get() + 1);
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches only a
// thread-local cell that needs no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps GlobalAlloc's contract, which is System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above; `block` came from System, since every block does.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SLOTS: usize = 512;
const MILLIS: Nanos = 1_000_000;
const OURS: Addr = Addr::from_v4([10, 0, 0, 1]);
const THEIRS: Addr = Addr::from_v4([10, 0, 0, 2]);

#[derive(Clone, Copy)]
struct Slot {
    conn: Option<ConnId>,
    rcv_tail: u64,
    eof: bool,
}

struct Zeros;

impl Payload for Zeros {
    fn load(&self, _: u64, _: u64, out: &mut [u8]) {
        out.fill(0);
    }
}

/// A host of fixed size: frames go into a ring of 64.
struct Fixed {
    apps: [Slot; SLOTS],
    opened: usize,
    frames: Box<[[u8; 2048]; 64]>,
    lengths: [usize; 64],
    count: usize,
    closed: usize,
}

impl Host for Fixed {
    type Payload = Zeros;

    fn frame(&mut self) -> Option<Frame<'_, Zeros>> {
        let room = self.frames.get_mut(self.count)?;
        Some(Frame { room, payload: &Zeros })
    }

    fn commit(&mut self, len: usize) {
        self.lengths[self.count] = len;
        self.count += 1;
    }

    fn path(&mut self, _: Option<Addr>, _: Addr) -> Result<Path, PathError> {
        let link = Link::new(Mac([2; 6]), Mac([4; 6]));
        Ok(Path { link, source: OURS, mtu: 1500 })
    }

    fn path_epoch(&self) -> u32 {
        0
    }

    fn is_local(&self, addr: Addr) -> bool {
        addr == OURS
    }

    fn random(&mut self) -> u64 {
        4
    }

    fn open(&mut self, _: ListenerId, conn: ConnId, _: &FourTuple) -> Result<u64, Refused> {
        let app = self.opened % SLOTS;
        self.opened += 1;
        self.apps[app] = Slot { conn: Some(conn), rcv_tail: 0, eof: false };
        Ok(app as u64)
    }

    fn store(&mut self, _: u64, _: u64, _: &[u8]) -> bool {
        true
    }

    fn update(&mut self, app: u64, update: &Update) {
        let slot = &mut self.apps[app as usize];
        slot.rcv_tail = update.rcv_tail;
        slot.eof |= update.events.contains(Events::PEER_FIN);
    }

    fn accept(&mut self, _: ListenerId, _: ConnId, _: u64) {}

    fn closed(&mut self, app: u64) {
        self.apps[app as usize].conn = None;
        self.closed += 1;
    }
}

/// One client that walks through a connection, out of phase with the others.
#[derive(Clone, Copy)]
struct Client {
    port: u16,
    seq: u32,
    ack: u32,
    echo: u32,
}

struct Bed {
    shard: Shard,
    host: Fixed,
    now: Nanos,
}

impl Bed {
    fn inject(&mut self, client: &Client, flags: Flags, len: usize) {
        let mut frame = [0; 2048];
        let syn = flags.contains(Flags::SYN);
        let value = (self.now / MILLIS) as u32;
        let head = FrameHead {
            link: Link::new(Mac([4; 6]), Mac([2; 6])),
            tuple: FourTuple {
                local: Endpoint { addr: THEIRS, port: client.port },
                remote: Endpoint { addr: OURS, port: 80 },
            },
            ttl: 64,
            seq: client.seq,
            ack: client.ack,
            flags,
            window: 65_535,
            options: Options {
                mss: syn.then_some(1460),
                window_scale: syn.then_some(7),
                timestamps: Some(Timestamps { value, echo: client.echo }),
                ..Options::default()
            },
            ..FrameHead::default()
        };
        let len = build(&mut frame, &head, len, |out| out.fill(7)).unwrap();
        self.shard.handle_frame(self.now, &frame[..len], &mut self.host);
    }

    /// A round of timers and output; tells the client what was sent to it.
    fn round(&mut self, client: &mut Client) {
        while self.shard.next_deadline().is_some_and(|at| at <= self.now) {
            self.shard.advance(self.now, &mut self.host);
        }
        assert!(self.shard.flush(self.now, &mut self.host));
        let count = std::mem::take(&mut self.host.count);
        for at in 0..count {
            let frame = &self.host.frames[at][..self.host.lengths[at]];
            let Ok(Inbound::Tcp(frame)) = parse(frame, ChecksumPolicy::Verify) else {
                panic!("sent what cannot be read")
            };
            if frame.tuple.local.port != client.port {
                continue;
            }
            client.ack = frame.segment.seq.wrapping_add(frame.segment.sequence_len());
            client.echo = frame.segment.options.timestamps.map_or(0, |times| times.value);
        }
    }

    /// A whole short connection. `style` varies what goes wrong in it.
    fn lifecycle(&mut self, style: u32, port: u16) {
        let mut client = Client { port, seq: (self.now / 64) as u32, ack: 0, echo: 0 };
        let ack = Flags::ACK;
        self.inject(&client, Flags::SYN, 0);
        self.round(&mut client);
        if style % 7 == 1 {
            self.inject(&client, Flags::SYN, 0);
        }
        client.seq = client.seq.wrapping_add(1);
        self.inject(&client, ack, 0);
        self.round(&mut client);
        let app = (self.host.opened - 1) % SLOTS;
        let conn = self.host.apps[app].conn.unwrap();
        self.shard.accepted(0, conn);
        // The request, at times with a hole in front of it first.
        if style % 3 == 1 {
            let ahead = Client { seq: client.seq.wrapping_add(64), ..client };
            self.inject(&ahead, ack, 64);
        }
        self.inject(&client, ack, 64);
        client.seq = client.seq.wrapping_add(if style % 3 == 1 { 128 } else { 64 });
        self.shard.consumed(conn, self.host.apps[app].rcv_tail).unwrap();
        let reply = if style.is_multiple_of(5) { 9_000 } else { 64 };
        self.shard.send(conn, reply).unwrap();
        match style % 4 {
            0 => self.shard.abort(conn).unwrap(),
            _ => self.shard.close(self.now, conn).unwrap(),
        }
        self.round(&mut client);
        if style % 4 == 1 {
            // The reply is lost.
            self.now += 300 * MILLIS;
            self.round(&mut client);
        }
        self.inject(&client, ack, 0);
        self.round(&mut client);
        self.inject(&client, ack | Flags::FIN, 0);
        self.round(&mut client);
        self.inject(&client, ack | Flags::FIN, 0);
        self.round(&mut client);
    }
}

#[test]
fn connections_come_and_go_without_an_allocation() {
    let config = Config {
        connections: 256,
        syn_received: 256,
        time_wait: 100,
        listeners: 4,
        local_addresses: 4,
        ..Config::default()
    };
    let mut seed = 0;
    let keys = Keys::generate(|| {
        seed += 1;
        seed
    });
    let mut bed = Bed {
        shard: Shard::new(config, keys, 0).unwrap(),
        host: Fixed {
            apps: [Slot { conn: None, rcv_tail: 0, eof: false }; SLOTS],
            opened: 0,
            frames: Box::new([[0; 2048]; 64]),
            lengths: [0; 64],
            count: 0,
            closed: 0,
        },
        now: 1_000 * MILLIS,
    };
    let any = Endpoint { addr: Addr::UNSPECIFIED, port: 80 };
    bed.shard.listen(0, any, false, ListenerShared::new(64)).unwrap();

    let before = CALLS.get();
    drop(std::hint::black_box(Box::new(7)));
    assert!(CALLS.get() >= before + 2, "the counter counts nothing");

    let before = CALLS.get();
    for style in 0..2_000 {
        bed.lifecycle(style, 1_024 + (style % 300) as u16);
        bed.now += 7 * MILLIS;
        let remote = Endpoint { addr: THEIRS, port: 443 };
        let conn = bed.shard.connect(bed.now, 511, None, remote, &mut bed.host);
        let mut nobody = Client { port: 0, seq: 0, ack: 0, echo: 0 };
        bed.round(&mut nobody);
        bed.shard.abort(conn.unwrap().0).unwrap();
        bed.round(&mut nobody);
    }
    bed.now += 200_000 * MILLIS;
    bed.round(&mut Client { port: 0, seq: 0, ack: 0, echo: 0 });
    assert_eq!(CALLS.get(), before, "the shard allocated");

    assert!(bed.shard.is_empty(), "{:?}", bed.shard.gauges());
    let counters = bed.shard.counters();
    assert_eq!(counters.passive_opens, 2_000);
    // The paths meant to be walked were walked.
    for walked in [
        counters.time_waits,
        counters.time_wait_overflow,
        counters.time_wait_takeovers,
        counters.retrans_segs,
        counters.out_rsts,
        counters.active_opens,
    ] {
        assert!(walked > 50, "{counters:?}");
    }
    assert_eq!(bed.host.closed, 4_000);
}
