//! A client that writes what no correct client writes. It is evicted; nobody else notices.

use std::io::{IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fourwave_bench::lab::Side;
use fourwave_protocol::command::{Command, decode_grant};
use fourwave_protocol::control::{BindOptions, MAX_MESSAGE, Reply, Request, decode, encode};
use fourwave_protocol::ring::{Consumer, Producer};
use fourwave_protocol::{EXTENT_BYTES, ExtentId, Handle, Params, Process, Segment, VERSION};
use rustix::fd::OwnedFd;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketType,
};

use crate::support::bytes::Pattern;
use crate::support::{Bed, FAMILIES, PATIENCE, Stopped, eventually, soaking};

const PORT: u16 = 6666;

type Attack = fn(&mut Attacker);

/// What the hostile client does, and the reason that the daemon gives for evicting it.
const ATTACKS: [(&str, Attack); 12] = [
    ("ring_index", Attacker::scribble_on_its_rings),
    ("accept_index", Attacker::scribble_on_its_accept_queue),
    ("unknown_command", |attacker| attacker.post_words([u64::MAX; 4])),
    ("connection_index", |attacker| {
        let handle = Handle { index: u32::MAX, generation: attacker.handle.generation };
        attacker.post(Command::Consumed { handle });
    }),
    ("send_tail", |attacker| {
        attacker.post(Command::Send { handle: attacker.handle, tail: u64::MAX, last: None });
    }),
    ("send_tail", |attacker| {
        let handle = attacker.handle;
        attacker.post(Command::Close { handle, tail: 1 << 40, last: None, abort: false });
    }),
    ("send_extent", |attacker| {
        attacker.post(Command::Send { handle: attacker.handle, tail: 100, last: None });
    }),
    ("send_extent", |attacker| {
        let last = ExtentId::from_raw(u32::MAX);
        attacker.post(Command::ShutdownWrite { handle: attacker.handle, tail: 100, last });
    }),
    ("send_extent", |attacker| {
        // A chain that goes round in a circle.
        let extent = attacker.grant();
        attacker.segment.link(extent).store(extent.raw(), Ordering::Relaxed);
        let (handle, tail) = (attacker.handle, 2 * EXTENT_BYTES as u64);
        attacker.post(Command::Send { handle, tail, last: Some(extent) });
    }),
    ("send_extent", |attacker| {
        // One that leads out of the segment.
        let extent = attacker.grant();
        attacker.segment.link(extent).store(u32::MAX, Ordering::Relaxed);
        let (handle, tail) = (attacker.handle, 2 * EXTENT_BYTES as u64);
        attacker.post(Command::Send { handle, tail, last: Some(extent) });
    }),
    ("receive_head", |attacker| {
        attacker.publish_head(u64::MAX);
        attacker.post(Command::Consumed { handle: attacker.handle });
    }),
    ("receive_head", |attacker| {
        attacker.publish_head(1 << 20);
        attacker.post(Command::Close {
            handle: attacker.handle,
            tail: 0,
            last: None,
            abort: false,
        });
    }),
];

/// A client that speaks the protocol itself, as far as it wants to.
struct Attacker {
    control: OwnedFd,
    memory: OwnedFd,
    segment: Segment,
    lane: u16,
    doorbells: Vec<OwnedFd>,
    commands: Producer,
    /// Its one connection, accepted.
    handle: Handle,
    /// The other end of it.
    peer: TcpStream,
    /// One that waits to be accepted.
    waiting: TcpStream,
    listener: u32,
}

impl Attacker {
    /// A client with a lane, a listener and one accepted connection: so far as it should be.
    fn new(bed: &Bed, address: SocketAddr) -> Attacker {
        let socket = SocketAddrUnix::new(bed.control_socket(Side::Server)).expect("a short path");
        let control = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)
            .expect("a socket can be had");
        set_socket_timeout(&control, Timeout::Recv, Some(PATIENCE)).expect("not zero");
        rustix::net::connect(&control, &socket).expect("the daemon takes clients");

        let hello = Request::Hello { version: VERSION, name: "attacker".into() };
        let (reply, mut descriptors) = request(&control, &hello).expect("it is welcome");
        let Reply::Welcome { params, process } = reply else { panic!("{reply:?}") };
        let memory = descriptors.pop().expect("the segment comes with it");
        let segment = Segment::map(&memory, params).expect("it is as the protocol says");
        let (reply, doorbells) = request(&control, &Request::AttachLane).expect("it may");
        let Reply::Attached { lane } = reply else { panic!("{reply:?}") };
        let bind = Request::Bind { address, options: BindOptions::default() };
        let (reply, _) = request(&control, &bind).expect("it may");
        let Reply::Bound { listener, .. } = reply else { panic!("{reply:?}") };
        let (reply, _) = request(&control, &Request::Listen { listener, backlog: 8 }).expect("may");
        assert_eq!(reply, Reply::Done);

        let (peer, handle) = accept(bed, address, (&segment, listener, process));
        let waiting = bed.kernel_connect(address);
        let commands = Producer::new();
        Attacker {
            control,
            memory,
            segment,
            lane,
            doorbells,
            commands,
            handle,
            peer,
            waiting,
            listener,
        }
    }

    fn params(&self) -> Params {
        *self.segment.layout().params()
    }

    fn worker(&self) -> u32 {
        self.handle.index / self.params().connections
    }

    fn post(&mut self, command: Command) {
        self.post_words(command.encode());
    }

    fn post_words(&mut self, words: [u64; 4]) {
        let ring = self.segment.command_ring(self.lane, self.worker());
        assert_eq!(self.commands.push(&ring, words), Ok(true));
        self.ring();
    }

    fn ring(&self) {
        // Fails when the daemon has thrown us out already.
        for doorbell in &self.doorbells {
            let _ = rustix::net::send(doorbell, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }

    /// A send extent that it was granted.
    fn grant(&mut self) -> ExtentId {
        let ring = self.segment.grant_ring(self.lane, self.worker());
        let words = Consumer::new().pop(&ring).expect("the daemon plays by the rules");
        decode_grant(words.expect("granted with the lane")).expect("an extent")
    }

    fn publish_head(&self, head: u64) {
        let block = self.segment.connection(self.handle.index).expect("it is ours");
        block.publish_receive_head(head);
    }

    fn scribble_on_its_rings(&mut self) {
        let range = self.segment.layout().ring_set_bytes(self.lane, self.worker());
        self.scribble(range, &mut Pattern::new(1));
        self.ring();
    }

    fn scribble_on_its_accept_queue(&mut self) {
        let begin = self.segment.layout().accept_ring_bytes(self.listener, self.worker()).start;
        self.scribble(begin..begin + 8, &mut Pattern::new(1));
        self.ring();
    }

    /// Overwrites a part of the segment, behind the back of everything that guards it.
    fn scribble(&self, range: std::ops::Range<usize>, pattern: &mut Pattern) {
        let mut bytes = vec![0; range.len()];
        pattern.fill(&mut bytes);
        let size = self.segment.layout().total_bytes();
        assert!(range.end <= size);
        let (protection, flags) = (ProtFlags::WRITE, MapFlags::SHARED | MapFlags::NORESERVE);
        // SAFETY: a fresh mapping at an address of the kernel's choice, of a file that is sealed
        // at this size.
        let base = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), size, protection, flags, &self.memory, 0)
        };
        let base = base.expect("it can be mapped").cast::<u8>();
        // SAFETY: the range lies inside the mapping, as just checked; nobody has a reference
        // into it, since others see these bytes through mappings of their own.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), base.add(range.start), bytes.len());
        };
        // SAFETY: the mapping just made; nothing points into it any more.
        unsafe { rustix::mm::munmap(base.cast(), size) }.expect("it is mapped");
    }

    /// A process more, which holds what this one holds; and its connection to the daemon.
    fn fork(&self) -> (Process, OwnedFd) {
        let (reply, mut descriptors) = request(&self.control, &Request::Fork).expect("it may");
        let Reply::Forked { process, .. } = reply else { panic!("{reply:?}") };
        (process, descriptors.swap_remove(0))
    }

    /// Whether the daemon has hung up.
    fn is_thrown_out(&self) -> bool {
        request(&self.control, &Request::Stats).is_none()
    }
}

/// Connects, and takes that connection off the accept queue of a listener.
fn accept(
    bed: &Bed,
    address: SocketAddr,
    (segment, listener, process): (&Segment, u32, Process),
) -> (TcpStream, Handle) {
    let peer = bed.kernel_connect(address);
    let workers = segment.layout().params().workers;
    let mut accepted = None;
    eventually("a connection to accept", || {
        accepted = (0..workers).find_map(|w| segment.accept_ring(listener, w).pop(process));
        accepted.is_some()
    });
    (peer, accepted.expect("just seen").handle)
}

/// Sends a request and waits for its reply; `None` when the daemon has hung up.
fn request(control: &OwnedFd, request: &Request) -> Option<(Reply, Vec<OwnedFd>)> {
    let mut buffer = [0; MAX_MESSAGE];
    let packet = encode(request, &mut buffer).expect("it is short");
    rustix::net::send(control, packet, SendFlags::NOSIGNAL).ok()?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut buffer)];
    let received =
        rustix::net::recvmsg(control, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?;
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    (received.bytes > 0).then(|| {
        (decode(&buffer[..received.bytes]).expect("the daemon speaks the protocol"), descriptors)
    })
}

/// Another client's connections, busy for as long as `work` takes.
fn beside_a_busy_client(bed: &Bed, work: impl FnOnce()) {
    let runtime = bed.runtime();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for v6 in FAMILIES {
            let listener = bed.listen(&runtime, bed.server_address(v6, 7777));
            let (mut fourwave, mut kernel) = bed.connected_pair(&listener);
            let done = &done;
            scope.spawn(move || {
                let mut tag = 0u8;
                while !done.load(Ordering::Relaxed) {
                    tag = tag.wrapping_add(1);
                    let (request, mut bytes) = ([tag; 5000], [0; 5000]);
                    kernel.write_all(&request).expect("it is connected");
                    fourwave.read_exact(&mut bytes).expect("it comes");
                    fourwave.write_all(&bytes).expect("it is connected");
                    kernel.read_exact(&mut bytes).expect("it comes");
                    assert_eq!(bytes, request);
                }
                drop(listener);
            });
        }
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn each_lie_is_found_out() {
    let Some(bed) = Bed::new("lies") else { return };
    beside_a_busy_client(&bed, || {
        for v6 in FAMILIES {
            for (reason, attack) in ATTACKS {
                let counter = format!("clients_evicted{{reason=\"{reason}\"}}");
                let before = bed.stats().get(&counter);
                let mut attacker = Attacker::new(&bed, bed.server_address(v6, PORT));
                attack(&mut attacker);
                eventually(format!("{reason} is found out"), || attacker.is_thrown_out());
                let counted = || bed.stats().get(&counter) == before + 1;
                eventually(format!("{reason} is counted"), counted);
                for mut peer in [&attacker.peer, &attacker.waiting] {
                    let error = peer.read(&mut [0; 1]).expect_err("it was reset");
                    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{reason}: {error}");
                }
            }
        }
    });
    bed.wait_until_empty();
}

/// Several processes that go while the daemon looks elsewhere, so that it hears of all of them at
/// once: what they held is let go once.
#[test]
fn a_family_may_go_at_once() {
    let Some(mut bed) = Bed::without_daemon("family", |lab| lab, &[]) else { return };
    let daemon = bed.start_daemon();
    // Several times, for the worker must not hear of the first before the last has gone too.
    for v6 in FAMILIES.repeat(5) {
        let address = bed.server_address(v6, PORT);
        let attacker = Attacker::new(&bed, address);
        let children: Vec<_> = (0..20).map(|_| attacker.fork()).collect();
        let (segment, listener) = (&attacker.segment, attacker.listener);
        drop(attacker.waiting);
        let peers =
            children.iter().map(|(child, _)| accept(&bed, address, (segment, listener, *child)).0);
        let peers: Vec<_> = peers.collect();
        let stopped = Stopped::new(daemon.pid);
        drop((attacker.control, children));
        drop(stopped);
        for mut peer in peers.into_iter().chain([attacker.peer]) {
            // Nothing was sent, so that a close is an orderly end if it is no reset.
            let end = peer.read(&mut [0; 1]).map_err(|error| error.raw_os_error());
            assert!(matches!(end, Ok(0) | Err(Some(libc::ECONNRESET))), "{end:?}");
        }
    }
    bed.wait_until_empty();
}

/// Noise over everything that the daemon reads, without a plan.
#[test]
fn noise_harms_nobody_else() {
    let Some(bed) = Bed::new("noise") else { return };
    let rounds = if soaking() { 500 } else { 20 };
    beside_a_busy_client(&bed, || {
        for seed in 0..rounds {
            let v6 = seed % 2 == 1;
            let attacker = Attacker::new(&bed, bed.server_address(v6, PORT));
            let mut pattern = Pattern::new(seed);
            // Headers, sleep flags, listeners and accept rings; then the lane's own rings.
            let rings = attacker.segment.layout().ring_set_bytes(0, 0).start;
            let own = attacker.segment.layout().ring_set_bytes(attacker.lane, attacker.worker());
            for _ in 0..8 {
                attacker.scribble(0..rings.min(1 << 20), &mut pattern);
                if seed % 3 == 0 {
                    attacker.scribble(own.clone(), &mut pattern);
                }
                attacker.ring();
                thread::yield_now();
            }
        }
    });
    bed.wait_until_empty();
}
