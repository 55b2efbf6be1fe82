//! A stream in several pollers, waits beside other descriptors, one-shot events.

use crate::fake::Fake;
use crate::listener;
use fourwave::{Events, Interest, Patience, Poller, Slept, TcpListener, TcpStream, Trigger};
use fourwave_protocol::Handle;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

struct Bench {
    fake: Fake,
    listener: TcpListener,
    pollers: [Poller; 2],
    stream: TcpStream,
    handle: Handle,
}

impl Bench {
    /// A stream that both pollers watch.
    fn new(interest: Interest, trigger: Trigger) -> Bench {
        let fake = Fake::start(1);
        let listener = listener(&fake);
        let handle = fake.with(|world| world.arrive(80, 0, 1));
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let pollers = [1, 2].map(|key| {
            let poller = Poller::with_runtime(&fake.runtime()).unwrap();
            poller.add(&stream, key, interest, trigger).unwrap();
            poller
        });
        Bench { fake, listener, pollers, stream, handle }
    }

    fn send(&self, bytes: &[u8]) {
        self.fake.with(|world| world.peer_sends(self.handle, bytes));
    }

    /// Which of the pollers has something now.
    fn told(&self) -> [bool; 2] {
        [0, 1].map(|index| wait(&self.pollers[index], Some(Duration::ZERO)) > 0)
    }
}

fn wait(poller: &Poller, timeout: Option<Duration>) -> usize {
    poller.wait(&mut Events::with_capacity(8), timeout).unwrap()
}

#[test]
fn each_poller_tells_levels() {
    let mut bench = Bench::new(Interest::READABLE, Trigger::Level);
    assert_eq!(bench.told(), [false; 2]);
    bench.send(b"ab");
    assert_eq!([bench.told(), bench.told()], [[true; 2]; 2]);
    bench.stream.read_exact(&mut [0; 2]).unwrap();
    assert_eq!(bench.told(), [false; 2]);
    bench.pollers[0].delete(&bench.stream).unwrap();
    bench.send(b"c");
    assert_eq!(bench.told(), [false, true]);
}

#[test]
fn each_poller_tells_edges_once() {
    let bench = Bench::new(Interest::BOTH, Trigger::Edge);
    assert_eq!([bench.told(), bench.told()], [[true; 2], [false; 2]], "it can be written");
    for _ in 0..3 {
        bench.send(b"x");
        assert_eq!([bench.told(), bench.told()], [[true; 2], [false; 2]]);
    }
    // Also when a poller that sleeps takes the stream over.
    let short = Some(Duration::from_millis(2));
    assert_eq!((wait(&bench.pollers[0], short), wait(&bench.pollers[1], short)), (0, 0));
    bench.fake.with(|world| world.fail(bench.handle, Errno::CONNRESET));
    assert_eq!([bench.told(), bench.told()], [[true; 2], [false; 2]]);
}

#[test]
fn who_sleeps_is_woken() {
    let bench = Bench::new(Interest::READABLE, Trigger::Edge);
    let (tell, heard) = mpsc::channel();
    thread::scope(|scope| {
        for (index, poller) in bench.pollers.iter().enumerate() {
            let tell = tell.clone();
            // They sleep in turn or together, as it happens.
            scope.spawn(move || {
                for _ in 0..50 {
                    assert_eq!(wait(poller, None), 1);
                    tell.send(index).unwrap();
                }
            });
        }
        for _ in 0..50 {
            bench.send(b"x");
            let mut both = [heard.recv().unwrap(), heard.recv().unwrap()];
            both.sort_unstable();
            assert_eq!(both, [0, 1], "each hears of it once");
        }
    });
}

#[test]
fn a_poller_that_nobody_waits_for_keeps_nothing_back() {
    let bench = Bench::new(Interest::READABLE, Trigger::Level);
    thread::scope(|scope| {
        // The second poller was added last: the daemon tells it.
        let sleeper = scope.spawn(|| wait(&bench.pollers[0], None));
        thread::sleep(Duration::from_millis(5));
        let third = Poller::with_runtime(&bench.fake.runtime()).unwrap();
        third.add(&bench.stream, 3, Interest::READABLE, Trigger::Level).unwrap();
        bench.send(b"x");
        assert_eq!(sleeper.join().unwrap(), 1);
        assert_eq!(wait(&third, Some(Duration::ZERO)), 1);
    });
}

#[test]
fn room_to_write_is_told_to_all() {
    let mut bench = Bench::new(Interest::WRITABLE, Trigger::Level);
    bench.fake.with(|world| world.hold_acks(bench.handle, true));
    while bench.stream.write(&[0; 8192]).is_ok() {}
    assert_eq!(bench.told(), [false; 2]);
    thread::scope(|scope| {
        let sleepers = bench.pollers.each_ref().map(|poller| scope.spawn(|| wait(poller, None)));
        thread::sleep(Duration::from_millis(2));
        bench.fake.with(|world| world.hold_acks(bench.handle, false));
        assert_eq!(sleepers.map(|sleeper| sleeper.join().unwrap()), [1, 1]);
    });
}

#[test]
fn once_means_once_until_asked_again() {
    let bench = Bench::new(Interest::READABLE, Trigger::Once);
    bench.pollers[0].add(&bench.listener, 9, Interest::READABLE, Trigger::Once).unwrap();
    bench.fake.with(|world| world.arrive(80, 0, 2));
    bench.send(b"x");
    assert_eq!(wait(&bench.pollers[0], Some(Duration::ZERO)), 2);
    bench.fake.with(|world| world.arrive(80, 0, 3));
    bench.fake.with(|world| world.fail(bench.handle, Errno::CONNRESET));
    assert_eq!(bench.told(), [false, true], "not even a failure");
    let (read, once) = (Interest::READABLE, Trigger::Once);
    bench.pollers[0].modify(&bench.stream, 1, read, once).unwrap();
    assert_eq!(bench.told(), [true, false]);
    bench.pollers[0].modify(&bench.listener, 9, read, once).unwrap();
    assert_eq!(bench.told(), [true, false]);
}

#[test]
fn the_peers_end_is_told_alone() {
    let bench = Bench::new(Interest::READ_CLOSED, Trigger::Level);
    bench.send(b"bytes");
    assert_eq!(bench.told(), [false; 2]);
    bench.fake.with(|world| world.peer_closes(bench.handle));
    let mut events = Events::with_capacity(1);
    bench.pollers[0].wait(&mut events, None).unwrap();
    let event = events.iter().next().unwrap();
    assert!(event.is_read_closed() && !event.is_readable() && !event.is_closed());
    let ready = bench.stream.readiness().unwrap();
    assert!(ready.is_readable() && ready.is_read_closed() && ready.is_writable());
    bench.stream.shutdown(std::net::Shutdown::Write).unwrap();
    bench.fake.until(|_| bench.stream.readiness().unwrap().is_closed().then_some(()));
}

/// Sleeps on a poller's descriptor alone, as an event loop of the caller's would.
fn sleep_on(poller: &Poller, left: Option<Duration>) -> std::io::Result<Slept> {
    let mut fds = [PollFd::new(poller, PollFlags::IN)];
    let left = left.map(|left| Timespec::try_from(left).unwrap());
    let count = rustix::event::poll(&mut fds, left.as_ref())?;
    Ok(Slept { rung: count > 0, own: false })
}

#[test]
fn threads_wait_beside_each_other() {
    let bench = Bench::new(Interest::READABLE, Trigger::Edge);
    let poller = &bench.pollers[0];
    let (tell, heard) = mpsc::channel();
    let ended = &AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            let tell = tell.clone();
            scope.spawn(move || {
                let mut events = Events::with_capacity(1);
                loop {
                    let mut sleep = |left| sleep_on(poller, left);
                    match poller.wait_beside(&mut events, None, &mut sleep).unwrap() {
                        0 => {
                            ended.fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                        count => tell.send(count).unwrap(),
                    }
                }
            });
        }
        for _ in 0..50 {
            bench.send(b"x");
            assert_eq!(heard.recv().unwrap(), 1);
            assert!(heard.try_recv().is_err(), "one thread is told of an edge");
        }
        // Each notification ends one wait.
        while ended.load(Ordering::SeqCst) < 3 {
            poller.notify().unwrap();
            thread::yield_now();
        }
    });
}

/// An edge is taken once: a signal that comes with it must not swallow it.
#[test]
fn what_was_taken_is_told_whatever_ended_the_sleep() {
    for trigger in [Trigger::Edge, Trigger::Once] {
        let bench = Bench::new(Interest::READABLE, trigger);
        let (poller, mut events) = (&bench.pollers[0], Events::with_capacity(4));
        let mut interrupted = |_| {
            bench.send(b"x");
            Err(std::io::ErrorKind::Interrupted.into())
        };
        assert_eq!(poller.wait_beside(&mut events, None, &mut interrupted).unwrap(), 1);
        assert_eq!(wait(poller, Some(Duration::ZERO)), 0);
    }
}

#[test]
fn own_news_and_time_end_a_wait_beside() {
    let bench = Bench::new(Interest::READABLE, Trigger::Level);
    let (poller, mut events) = (&bench.pollers[0], Events::with_capacity(4));
    let mut own = |_| Ok(Slept { own: true, rung: false });
    assert_eq!(poller.wait_beside(&mut events, None, &mut own).unwrap(), 0);
    let start = Instant::now();
    let short = Duration::from_millis(5);
    let mut sleep = |left| sleep_on(poller, left);
    assert_eq!(poller.wait_beside(&mut events, Some(short), &mut sleep).unwrap(), 0);
    assert!(start.elapsed() >= short);
    let mut fails = |_| Err(std::io::ErrorKind::Interrupted.into());
    assert!(poller.wait_beside(&mut events, None, &mut fails).is_err());
    poller.ring().unwrap();
    assert!(sleep_on(poller, Some(Duration::ZERO)).unwrap().rung);
    assert!(!poller.has_events().unwrap());
    assert!(!sleep_on(poller, Some(Duration::ZERO)).unwrap().rung, "the ring was taken off");
    assert!(!poller.announce().unwrap());
    bench.send(b"x");
    assert!(sleep_on(poller, None).unwrap().rung);
    poller.retract();
    assert!(poller.has_events().unwrap());
}

#[test]
fn calls_say_how_long_they_wait() {
    let fake = Fake::start(1);
    let listener = listener(&fake);
    let soon = || Patience::until(Instant::now().checked_add(Duration::from_millis(2)));
    let again = Errno::AGAIN.raw_os_error();
    for patience in [Patience::NONE, soon()] {
        assert_eq!(crate::errno_of(listener.accept_with(patience)), again);
    }
    assert!(!listener.readiness().unwrap().is_readable());
    let handle = fake.with(|world| world.arrive(80, 0, 1));
    assert!(listener.readiness().unwrap().is_readable());
    let (stream, _) = listener.accept_with(Patience::FOREVER).unwrap();
    let mut buf = [0; 4];
    for patience in [Patience::NONE, soon()] {
        let got = stream.recv_with(&mut [IoSliceMut::new(&mut buf)], false, patience);
        assert_eq!(crate::errno_of(got), again);
    }
    fake.with(|world| world.peer_sends(handle, b"abc"));
    assert_eq!(stream.unread().unwrap(), 3);
    for (peek, left) in [(true, 3), (false, 0)] {
        let got = stream.recv_with(&mut [IoSliceMut::new(&mut buf)], peek, Patience::FOREVER);
        assert_eq!((got.unwrap(), &buf[..3], stream.unread().unwrap()), (3, &b"abc"[..], left));
    }
    fake.with(|world| world.hold_acks(handle, true));
    let bytes = vec![0; 1 << 20];
    let part = stream.send_with(&[IoSlice::new(&bytes)], soon()).unwrap();
    assert!(part > 0 && part < bytes.len());
    let none = stream.send_with(&[IoSlice::new(&bytes)], Patience::NONE);
    assert_eq!(crate::errno_of(none), again);
}

#[test]
fn an_address_is_had_before_it_is_listened_on() {
    let fake = Fake::start(1);
    let address = "10.99.0.2:80".parse().unwrap();
    let mut options = fake.options();
    options.setsockopt(6, 1, &1i32.to_ne_bytes()).unwrap();
    options.setsockopt(1, 15, &1i32.to_ne_bytes()).unwrap();
    let unknown = options.setsockopt(1, 36, &1i32.to_ne_bytes());
    assert_eq!(crate::errno_of(unknown), Errno::NOPROTOOPT.raw_os_error());
    let short = options.setsockopt(6, 1, &[1]);
    assert_eq!(crate::errno_of(short), Errno::INVAL.raw_os_error());
    let listener = options.reserve(address).unwrap();
    assert_eq!(fake.with(|world| world.listener(80)).map(|(_, backlog)| backlog), Some(None));
    assert_eq!(listener.local_addr().unwrap(), address);
    assert!(listener.nodelay().unwrap());
    listener.set_backlog(7).unwrap();
    assert_eq!(fake.with(|world| world.listener(80)).map(|(_, backlog)| backlog), Some(Some(7)));
}
