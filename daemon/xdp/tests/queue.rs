//! AF_XDP sockets at both ends of a veth pair.

mod support;

#[path = "../../../ebpf/common/tests/support/mod.rs"]
mod kinds;

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fourwave_xdp::{
    AttachedMode, BATCH, Census, Channels, CopyMode, HugePages, Queue, QueueConfig, QueueError,
    Steering, SteeringConfig, XdpMode, XskStats, channels,
};
use kinds::frames::{Ipv4, TCP, tcp};
use kinds::{HOST4, PORT};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::CapabilitySet;
use support::{FAR, Lab, NEAR, Veth};

/// One end of the veth: a steered interface with a socket for each queue.
struct End {
    steering: Steering,
    queues: Vec<Queue>,
}

impl End {
    fn open(config: &SteeringConfig, sizes: &QueueConfig, queues: u32) -> Self {
        let mut steering = Steering::attach(config).expect("nothing is in the way");
        let any = Ipv4Addr::UNSPECIFIED.into();
        steering.serve(any, PORT).expect("there is room");
        let queues = (0..queues).map(|queue| {
            let sizes = QueueConfig { queue, ..sizes.clone() };
            let socket = Queue::open(&sizes).expect("the queue is free");
            steering.set_xsk(queue, &socket).expect("the slot exists");
            socket
        });
        let queues = queues.collect();
        Self { steering, queues }
    }

    /// Detaches first, as a daemon does.
    fn close(self) {
        self.steering.detach().expect("it is attached");
    }
}

/// Both ends, in namespaces of their own.
struct Wire {
    near: End,
    far: End,
    _lab: Lab,
}

impl Wire {
    fn new(mode: XdpMode, queues: u32, rx_frames: u32, tx_frames: u32) -> Option<Self> {
        let lab = Lab::new(Veth { queues, ..Veth::default() })?;
        let open = |interface: &str| {
            let steering = SteeringConfig { mode, ..lab.steering(interface, interface) };
            let sizes = QueueConfig { rx_frames, tx_frames, ..QueueConfig::new(interface, 0) };
            End::open(&steering, &sizes, queues)
        };
        lab.enter_far();
        let far = open(FAR);
        lab.enter_near();
        let near = open(NEAR);
        Some(Self { near, far, _lab: lab })
    }

    fn close(self) {
        self.near.close();
        self.far.close();
    }
}

/// A frame for the served port with `number` at its end.
fn numbered(number: u64) -> Vec<u8> {
    let mut segment = tcp(40_000, PORT);
    segment.extend(number.to_be_bytes());
    Ipv4::new(TCP, segment).frame()
}

fn number_of(frame: &[u8]) -> u64 {
    let end = frame.last_chunk().expect("frames here end in a number");
    u64::from_be_bytes(*end)
}

/// Sends one frame, or says that there is no room.
fn send(queue: &mut Queue, frame: &[u8]) -> bool {
    let Some(room) = queue.tx.frame() else {
        return false;
    };
    room[..frame.len()].copy_from_slice(frame);
    queue.tx.commit(frame.len());
    true
}

/// Receives until nothing comes any more; returns the numbers.
fn drain(queue: &mut Queue) -> Vec<u64> {
    let mut numbers = Vec::new();
    while wait_readable(queue) {
        queue.rx.receive(BATCH, |frame| numbers.push(number_of(frame)));
    }
    numbers
}

/// Waits for a frame; a timeout says that no more is under way.
fn wait_readable(queue: &Queue) -> bool {
    let mut wanted = [PollFd::new(queue, PollFlags::IN)];
    let timeout = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    poll(&mut wanted, Some(&timeout)).expect("poll works on AF_XDP sockets") > 0
}

/// What a census must say when nothing is under way.
fn at_rest(rx_frames: u32, tx_frames: u32) -> Census {
    Census {
        rx_filled: rx_frames,
        rx_waiting: 0,
        tx_free: tx_frames,
        tx_queued: 0,
        tx_in_flight: 0,
    }
}

/// A thousand frames there and back, each byte compared.
fn round_trip(mode: XdpMode, attached: AttachedMode) {
    let Some(mut wire) = Wire::new(mode, 1, 256, 256) else {
        return;
    };
    assert_eq!(wire.near.steering.attached_mode(), attached);
    let near = &mut wire.near.queues[0];
    let far = &mut wire.far.queues[0];
    assert!(!near.is_zero_copy(), "a veth has none");
    assert!(!near.rx.ready());
    let mut next = 0;
    while next < 1000 {
        let burst = [1, 7, 64, 100][(next % 4) as usize];
        for number in next..next + burst {
            assert!(send(far, &numbered(number)), "256 frames are enough");
        }
        assert!(far.tx.flush());
        assert!(far.tx.is_flushed());
        let mut seen = next;
        while seen < next + burst {
            assert!(wait_readable(near), "frame {seen} does not arrive");
            assert!(near.rx.ready());
            let (rx, tx) = (&mut near.rx, &mut near.tx);
            let count = rx.receive(32, |frame| {
                assert_eq!(frame, numbered(seen));
                let reply = tx.frame().expect("256 frames are enough");
                reply[..frame.len()].copy_from_slice(frame);
                tx.commit(frame.len());
                seen += 1;
            });
            assert!(count <= 32);
            assert!(tx.flush());
        }
        let expected: Vec<_> = (next..next + burst).collect();
        let mut back = Vec::new();
        while back.len() < expected.len() {
            assert!(wait_readable(far), "a reply does not arrive");
            far.rx.receive(usize::MAX, |frame| back.push(number_of(frame)));
        }
        assert_eq!(back, expected);
        next += burst;
    }
    for queue in [&mut wire.near.queues[0], &mut wire.far.queues[0]] {
        queue.tx.flush();
        assert_eq!(queue.census(), at_rest(256, 256));
        let expected = XskStats {
            tx_ring_empty_descs: queue.statistics().expect("readable").tx_ring_empty_descs,
            ..XskStats::default()
        };
        assert_eq!(queue.statistics().expect("readable"), expected);
    }
    wire.close();
}

#[test]
fn frames_go_round_in_native_mode() {
    round_trip(XdpMode::Native, AttachedMode::Native);
}

#[test]
fn frames_go_round_in_generic_mode() {
    round_trip(XdpMode::Generic, AttachedMode::Generic);
}

/// A million frames with sender and receiver out of step, so that each side runs out of frames
/// again and again: in the end every frame is back where it was.
#[test]
fn no_frame_leaks() {
    const FRAMES: u64 = 1_000_000;
    let Some(mut wire) = Wire::new(XdpMode::Generic, 1, 256, 128) else {
        return;
    };
    let near = &mut wire.near.queues[0];
    let far = &mut wire.far.queues[0];
    let mut frame = numbered(0);
    let numbers_at = frame.len() - 8;
    let (mut sent, mut received, mut returned) = (0u64, 0u64, 0u64);
    let mut last = None;
    while sent < FRAMES {
        // Between one frame and twice what the receiver can hold.
        for _ in 0..1 + sent % 509 {
            frame[numbers_at..].copy_from_slice(&sent.to_be_bytes());
            if !send(far, &frame) {
                break;
            }
            sent += 1;
        }
        far.tx.flush();
        let (rx, tx) = (&mut near.rx, &mut near.tx);
        loop {
            let count = rx.receive(BATCH, |frame| {
                let number = number_of(frame);
                assert!(last < Some(number), "{number} after {last:?}");
                last = Some(number);
                if let Some(reply) = tx.frame() {
                    reply[..frame.len()].copy_from_slice(frame);
                    tx.commit(frame.len());
                }
            });
            received += count as u64;
            if count == 0 {
                break;
            }
        }
        tx.flush();
        while far.rx.receive(BATCH, |_| returned += 1) > 0 {}
    }
    returned += drain(far).len() as u64;
    received += drain(near).len() as u64;
    assert!(received > FRAMES / 4 && received <= sent, "{received} of {sent}");
    assert!(returned > FRAMES / 8 && returned <= received, "{returned} of {received}");
    for queue in [near, far] {
        while !queue.tx.flush() {}
        let stats = queue.statistics().expect("readable");
        assert_eq!(stats.rx_ring_full, 0, "the RX ring has room for all frames");
        assert_eq!(stats.rx_invalid_descs + stats.tx_invalid_descs, 0);
        let census = queue.census();
        // The kernel keeps a frame in hand that it took from the fill ring and did not need.
        let in_hand = 256 - census.rx_filled;
        assert!(in_hand <= 1, "{census:?}");
        let expected = Census { rx_filled: census.rx_filled, ..at_rest(256, 128) };
        assert_eq!(census, expected);
    }
    let lost = sent - received;
    let near = wire.near.queues[0].statistics().expect("readable");
    assert_eq!((near.rx_dropped, near.rx_fill_ring_empty_descs), (lost, lost));
    wire.close();
}

/// The kernel publishes received frames before it says that it has taken their places in the fill
/// ring; a receiver on another CPU that gives frames back in between must still find room.
#[test]
fn frames_are_given_back_while_the_kernel_receives() {
    const FRAMES: u64 = 100_000;
    for mode in [XdpMode::Native, XdpMode::Generic] {
        let Some(mut wire) = Wire::new(mode, 1, 64, 64) else {
            return;
        };
        let near = &mut wire.near.queues[0];
        let far = &mut wire.far.queues[0];
        let done = AtomicBool::new(false);
        let received = thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                let mut received = 0u64;
                while !done.load(Ordering::Relaxed) {
                    // One at a time: as many chances as there are frames.
                    received += near.rx.receive(1, |_| {}) as u64;
                }
                received
            });
            for number in 0..FRAMES {
                while !send(far, &numbered(number)) {}
                far.tx.flush();
            }
            done.store(true, Ordering::Relaxed);
            receiver.join().expect("the receiver finds room for every frame")
        });
        let received = received + drain(near).len() as u64;
        let lost = near.statistics().expect("readable").rx_dropped;
        assert_eq!(received + lost, FRAMES);
        wire.close();
    }
}

#[test]
fn a_receiver_that_sleeps_loses_frames_and_counts_them() {
    let Some(mut wire) = Wire::new(XdpMode::Generic, 1, 64, 256) else {
        return;
    };
    let far = &mut wire.far.queues[0];
    for number in 0..100 {
        assert!(send(far, &numbered(number)));
    }
    while !far.tx.flush() {}
    let near = &mut wire.near.queues[0];
    assert_eq!(drain(near), (0..64).collect::<Vec<_>>());
    let stats = near.statistics().expect("readable");
    assert_eq!((stats.rx_dropped, stats.rx_fill_ring_empty_descs), (36, 36));
    // And it goes on as if nothing had been.
    assert!(send(&mut wire.far.queues[0], &numbered(100)));
    assert!(wire.far.queues[0].tx.flush());
    assert_eq!(drain(near), [100]);
    wire.close();
}

#[test]
fn room_runs_out_and_comes_back() {
    let Some(mut wire) = Wire::new(XdpMode::Generic, 1, 256, 64) else {
        return;
    };
    let far = &mut wire.far.queues[0];
    assert_eq!(far.tx.capacity(), 2048 - QueueConfig::HEADROOM as usize);
    // The same room until it is committed.
    far.tx.frame().expect("64 are free")[0] = 0x77;
    assert_eq!(far.tx.frame().expect("64 are free")[0], 0x77);
    assert_eq!(far.census(), at_rest(256, 64));
    for number in 0..1000 {
        assert!(send(far, &numbered(number)), "the kernel gives frames back in time");
    }
    assert!(far.tx.flush());
    assert_eq!(far.tx.frames(), 64);
    wire.close();
}

#[test]
fn the_longest_frame_fits() {
    let Some(mut wire) = Wire::new(XdpMode::Native, 1, 64, 64) else {
        return;
    };
    let mut frame = numbered(1);
    let number = frame.split_off(frame.len() - 8);
    frame.resize(1514 - 8, 0xab);
    frame.extend(number);
    assert!(send(&mut wire.far.queues[0], &frame));
    assert!(wire.far.queues[0].tx.flush());
    let near = &mut wire.near.queues[0];
    assert!(wait_readable(near));
    let mut received = Vec::new();
    near.rx.receive(1, |frame| received.push(frame.to_vec()));
    assert_eq!(received, [frame]);
    wire.close();
}

/// In native mode: a veth without NAPI, as it is in generic mode, calls every queue 0.
#[test]
fn each_of_two_queues_has_its_own_frames() {
    let Some(mut wire) = Wire::new(XdpMode::Native, 2, 64, 64) else {
        return;
    };
    let both = Channels { rx: 2, tx: 2 };
    assert_eq!(channels(NEAR).expect("it exists"), Some(both));
    for (queue, numbers) in [(0, 0..30), (1, 100..120)] {
        let far = &mut wire.far.queues[queue];
        for number in numbers {
            assert!(send(far, &numbered(number)));
        }
        assert!(far.tx.flush());
    }
    // A veth receives on the queue that the sender sent on.
    let (first, second) = wire.near.queues.split_at_mut(1);
    assert_eq!(drain(&mut first[0]), (0..30).collect::<Vec<_>>());
    assert_eq!(drain(&mut second[0]), (100..120).collect::<Vec<_>>());
    wire.close();
}

#[test]
fn what_is_not_served_goes_to_the_kernel() {
    let Some(mut wire) = Wire::new(XdpMode::Native, 1, 64, 64) else {
        return;
    };
    let near = &mut wire.near;
    near.steering.unserve(Ipv4Addr::UNSPECIFIED.into(), PORT).expect("it is served");
    assert!(send(&mut wire.far.queues[0], &numbered(1)));
    assert!(wire.far.queues[0].tx.flush());
    assert_eq!(drain(&mut near.queues[0]), []);
    near.steering.serve(HOST4.into(), PORT).expect("there is room");
    assert!(send(&mut wire.far.queues[0], &numbered(2)));
    assert!(wire.far.queues[0].tx.flush());
    assert_eq!(drain(&mut near.queues[0]), [2]);
    wire.close();
}

#[test]
fn a_queue_can_be_opened_again_at_once() {
    let Some(_lab) = Lab::new(Veth::default()) else {
        return;
    };
    for _ in 0..20 {
        let queue = Queue::open(&QueueConfig::new(NEAR, 0)).expect("the last one is closed");
        drop(queue);
    }
}

#[test]
fn errors_say_what_to_do() {
    let Some(_lab) = Lab::new(Veth::default()) else {
        return;
    };
    let good = QueueConfig::new(NEAR, 0);
    let refused = |config: &QueueConfig| Queue::open(config).expect_err("it cannot be opened");

    let error = refused(&QueueConfig::new("fwx-none", 0));
    assert!(matches!(error, QueueError::NoSuchInterface { .. }), "{error:?}");
    let error = refused(&QueueConfig::new(NEAR, 1));
    let expected = matches!(error, QueueError::NoSuchQueue { queue: 1, rx: 1, tx: 1, .. });
    assert!(expected, "{error:?}");
    let error = refused(&QueueConfig { copy_mode: CopyMode::ZeroCopy, ..good.clone() });
    assert!(matches!(error, QueueError::NoZeroCopy { .. }), "{error:?}");
    let error = refused(&QueueConfig { frame_size: 1000, ..good.clone() });
    assert!(matches!(error, QueueError::InvalidConfig { .. }), "{error:?}");

    let holder = Queue::open(&good).expect("it is free");
    let error = refused(&good);
    assert!(matches!(error, QueueError::QueueBusy { queue: 0, .. }), "{error:?}");
    drop(holder);
}

#[test]
fn huge_pages_are_tried_or_required() {
    let Some(_lab) = Lab::new(Veth::default()) else {
        return;
    };
    let with = |huge_pages| QueueConfig { huge_pages, ..QueueConfig::new(NEAR, 0) };
    // Whether the machine has any is not for this test to say: both answers are checked.
    match Queue::open(&with(HugePages::Require)) {
        Ok(queue) => assert!(queue.has_huge_pages()),
        Err(error) => assert!(matches!(error, QueueError::NoHugePages { .. }), "{error:?}"),
    }
    Queue::open(&with(HugePages::Try)).expect("it does without");
    let queue = Queue::open(&with(HugePages::Off)).expect("the queue is free");
    assert!(!queue.has_huge_pages());
}

#[test]
fn missing_privileges_are_named() {
    let Some(_lab) = Lab::new(Veth::default()) else {
        return;
    };
    let config = QueueConfig::new(NEAR, 0);
    support::without_capabilities(|| {
        let error = Queue::open(&config).expect_err("not allowed");
        assert!(matches!(error, QueueError::NoPrivilege), "{error:?}");
    });
    // The limit is the whole process', but the other tests have the capability to ignore it.
    let limit = Rlimit { current: Some(64 << 10), maximum: Some(64 << 10) };
    setrlimit(Resource::Memlock, limit).expect("a limit can be lowered");
    support::without(CapabilitySet::IPC_LOCK, || {
        let error = Queue::open(&config).expect_err("8 MiB are not 64 KiB");
        let expected = matches!(error, QueueError::LockedMemory { bytes } if bytes == 8 << 20);
        assert!(expected, "{error:?}");
    });
}

#[test]
fn a_queue_can_move_to_its_worker() {
    fn assert_send<T: Send>() {}
    assert_send::<Queue>();
    assert_send::<Steering>();
    let Some(_lab) = Lab::new(Veth::default()) else {
        return;
    };
    let queue = Queue::open(&QueueConfig::new(NEAR, 0)).expect("the queue is free");
    assert!(queue.as_fd().try_clone_to_owned().is_ok());
}
