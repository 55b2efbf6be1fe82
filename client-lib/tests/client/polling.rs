//! The poller: edge and level, room and extents, descriptors, threads.

use crate::fake::{CLOSED_PORT, Fake, SILENT_PORT, World};
use crate::{errno_of, listener};
use fourwave::{Event, Events, Interest, Poller, TcpListener, TcpStream, Trigger};
use fourwave_protocol::{FIRST_WINDOW, Handle};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

const WINDOW: usize = FIRST_WINDOW as usize;

/// A daemon, a poller for its sockets, and a listener on port 80.
struct Bench {
    fake: Fake,
    listener: TcpListener,
    poller: Poller,
}

impl Bench {
    fn new(workers: u32) -> Bench {
        let fake = Fake::start(workers);
        let runtime = fake.runtime();
        let options = fourwave::SocketOptions::new().runtime(&runtime).nonblocking(true);
        let listener = options.bind("10.99.0.2:80").unwrap();
        let poller = Poller::with_runtime(&runtime).unwrap();
        Bench { fake, listener, poller }
    }

    /// A non-blocking stream, played by the test on the other side.
    fn stream(&self) -> (TcpStream, Handle) {
        let handle = self.fake.with(|world| world.arrive(80, world.params().workers - 1, 1));
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (stream, handle)
    }

    /// What is ready now.
    fn now(&self) -> Vec<Event> {
        self.wait(Some(Duration::ZERO))
    }

    fn wait(&self, timeout: Option<Duration>) -> Vec<Event> {
        let mut events = Events::with_capacity(16);
        let count = self.poller.wait(&mut events, timeout).unwrap();
        assert_eq!((count, count == 0), (events.len(), events.is_empty()));
        events.iter().collect()
    }

    fn keys(&self) -> Vec<usize> {
        self.now().iter().map(Event::key).collect()
    }
}

#[test]
fn level_is_told_until_it_is_read() {
    let bench = Bench::new(2);
    let (mut stream, handle) = bench.stream();
    bench.poller.add(&stream, 7, Interest::READABLE, Trigger::Level).unwrap();
    assert!(bench.now().is_empty());
    bench.fake.with(|world| world.peer_sends(handle, b"ab"));
    for _ in 0..3 {
        let events = bench.now();
        assert_eq!(events.len(), 1);
        assert!(events[0].key() == 7 && events[0].is_readable() && !events[0].is_writable());
    }
    stream.read_exact(&mut [0; 2]).unwrap();
    assert!(bench.now().is_empty());
    bench.fake.with(|world| world.peer_closes(handle));
    assert!(bench.now()[0].is_read_closed());
}

#[test]
fn edge_is_told_when_something_comes() {
    let bench = Bench::new(2);
    let (mut stream, handle) = bench.stream();
    bench.poller.add(&stream, 7, Interest::READABLE, Trigger::Edge).unwrap();
    bench.fake.with(|world| world.peer_sends(handle, b"ab"));
    assert_eq!(bench.keys(), [7]);
    assert_eq!(bench.keys(), [], "not again without news");
    bench.fake.with(|world| world.peer_sends(handle, b"c"));
    assert_eq!(bench.keys(), [7], "more has come, read or not");
    stream.read_exact(&mut [0; 3]).unwrap();
    bench.fake.with(|world| world.fail(handle, Errno::CONNRESET));
    let events = bench.now();
    assert!(events[0].is_error() && events[0].is_readable());
    assert_eq!(bench.keys(), []);
}

#[test]
fn what_is_there_already_is_an_event() {
    let bench = Bench::new(1);
    for trigger in [Trigger::Level, Trigger::Edge] {
        let (stream, handle) = bench.stream();
        bench.fake.with(|world| world.peer_sends(handle, b"early"));
        bench.poller.add(&stream, 1, Interest::BOTH, trigger).unwrap();
        let events = bench.now();
        assert!(events.len() == 1 && events[0].is_readable() && events[0].is_writable());
    }
    assert_eq!(bench.keys(), [], "dropped streams have left");
}

#[test]
fn sources_come_and_go() {
    let bench = Bench::new(1);
    let (stream, handle) = bench.stream();
    let other = Poller::with_runtime(&bench.fake.runtime()).unwrap();
    let elsewhere = Fake::start(1);
    let foreign = Poller::with_runtime(&elsewhere.runtime()).unwrap();
    let (read, edge) = (Interest::READABLE, Trigger::Edge);
    bench.poller.add(&stream, 1, read, edge).unwrap();
    let twice = bench.poller.add(&stream, 2, read, edge);
    assert_eq!(errno_of(twice), Errno::EXIST.raw_os_error());
    other.add(&stream, 2, read, edge).unwrap();
    other.delete(&stream).unwrap();
    let elsewhere = foreign.add(&stream, 2, read, edge);
    assert_eq!(errno_of(elsewhere), Errno::INVAL.raw_os_error(), "another daemon's");

    bench.fake.with(|world| world.peer_sends(handle, b"x"));
    bench.poller.modify(&stream, 3, read, edge).unwrap();
    assert_eq!(bench.keys(), [3]);
    bench.poller.modify(&stream, 4, Interest::WRITABLE, edge).unwrap();
    let events = bench.now();
    assert!(events[0].is_writable() && !events[0].is_readable());
    bench.poller.delete(&stream).unwrap();
    bench.fake.with(|world| world.peer_sends(handle, b"y"));
    assert_eq!(bench.keys(), []);
    assert_eq!(errno_of(bench.poller.delete(&stream)), Errno::NOENT.raw_os_error());
    let modified = bench.poller.modify(&stream, 3, read, edge);
    assert_eq!(errno_of(modified), Errno::NOENT.raw_os_error());

    bench.poller.add(&bench.listener, 9, read, edge).unwrap();
    let twice = bench.poller.add(&bench.listener, 9, read, edge);
    assert_eq!(errno_of(twice), Errno::EXIST.raw_os_error());
    bench.poller.delete(&bench.listener).unwrap();
    assert_eq!(errno_of(bench.poller.delete(&bench.listener)), Errno::NOENT.raw_os_error());
}

/// A connection number is used again while events of its former use are on their way.
#[test]
fn events_of_a_former_connection_are_ignored() {
    let bench = Bench::new(1);
    for round in 0..20 {
        let (stream, handle) = bench.stream();
        bench.poller.add(&stream, round, Interest::READABLE, Trigger::Level).unwrap();
        bench.fake.with(|world| world.peer_sends(handle, b"x"));
        if round % 2 == 0 {
            assert_eq!(bench.keys(), [round]);
        }
        drop(stream);
        bench.fake.until_closed(handle);
        let (stream, _) = bench.stream();
        bench.poller.add(&stream, 1000, Interest::READABLE, Trigger::Level).unwrap();
        assert_eq!(bench.keys(), []);
        drop(stream);
        bench.fake.until(|world| (world.open_connections() == 0).then_some(()));
    }
}

#[test]
fn listeners_by_level_and_by_edge() {
    let bench = Bench::new(2);
    let read = Interest::READABLE;
    bench.poller.add(&bench.listener, 1, read, Trigger::Level).unwrap();
    assert_eq!(bench.keys(), []);
    bench.fake.with(|world| world.arrive_all(80, 1, 0..2));
    assert_eq!(bench.keys(), [1]);
    bench.listener.accept().unwrap();
    assert_eq!(bench.keys(), [1], "one is left");
    bench.poller.modify(&bench.listener, 2, read, Trigger::Edge).unwrap();
    assert_eq!(bench.keys(), [2]);
    assert_eq!(bench.keys(), []);
    bench.fake.with(|world| world.arrive(80, 0, 3));
    assert_eq!(bench.keys(), [2]);
    bench.listener.accept().unwrap();
    bench.listener.accept().unwrap();
    assert_eq!(bench.listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(bench.keys(), []);
}

#[test]
fn room_to_write_is_told() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        let bench = Bench::new(1);
        let (mut stream, handle) = bench.stream();
        bench.fake.with(|world| world.hold_acks(handle, true));
        bench.poller.add(&stream, 5, Interest::WRITABLE, trigger).unwrap();
        assert_eq!(bench.keys(), [5]);
        let bytes = vec![1; WINDOW];
        let mut done = 0;
        while done < WINDOW {
            match stream.write(&bytes[done..]) {
                Ok(count) => done += count,
                // Out of extents, not of room: those come.
                Err(_) => assert_eq!(bench.wait(None).len(), 1),
            }
        }
        assert_eq!(stream.write(&[1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        bench.now();
        assert_eq!(bench.keys(), []);
        bench.fake.with(|world| world.hold_acks(handle, false));
        assert!(bench.wait(None)[0].is_writable());
        stream.write_all(&[1]).unwrap();
    }
}

#[test]
fn extents_to_write_to_are_told() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        let bench = Bench::new(2);
        let (mut stream, handle) = bench.stream();
        bench.poller.add(&stream, 5, Interest::WRITABLE, trigger).unwrap();
        assert_eq!(bench.keys(), [5]);
        bench.fake.with(|world| world.granting = false);
        let mut done = 0;
        loop {
            match stream.write(&[2; 5000]) {
                Ok(count) => done += count,
                Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            bench.fake.with(World::turn);
        }
        bench.now();
        assert_eq!(bench.keys(), [], "out of extents, {done} bytes written");
        bench.fake.with(|world| world.granting = true);
        assert!(bench.wait(None)[0].is_writable());
        assert!(stream.write(&[2; 5000]).unwrap() > 0);
        bench.fake.until(|world| (world.sent(handle).len() > done).then_some(()));
    }
}

/// Takes all extents there are; from now on the daemon gives none.
fn use_up_extents(bench: &Bench) {
    bench.fake.with(|world| world.granting = false);
    let (mut other, _) = bench.stream();
    while let Ok(count) = other.write(&[3; 5000]) {
        assert!(count > 0);
        bench.fake.with(World::turn);
    }
}

#[test]
fn without_extents_nothing_is_writable() {
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::Once] {
        let bench = Bench::new(1);
        let (mut stream, handle) = bench.stream();
        assert!(stream.readiness().unwrap().is_writable());
        use_up_extents(&bench);
        assert!(!stream.readiness().unwrap().is_writable());
        bench.poller.add(&stream, 5, Interest::BOTH, trigger).unwrap();
        assert_eq!(bench.keys(), [], "there was no write that could have found out");
        bench.fake.with(|world| world.granting = true);
        assert!(bench.wait(None)[0].is_writable());
        // A last extent that can be appended to is as good as one.
        bench.fake.with(|world| world.hold_acks(handle, true));
        stream.write_all(&[1]).unwrap();
        use_up_extents(&bench);
        assert!(stream.readiness().unwrap().is_writable());
        stream.write_all(&[2]).unwrap();
    }
}

#[test]
fn a_stream_has_several_keys() {
    let bench = Bench::new(1);
    let (mut stream, handle) = bench.stream();
    bench.poller.set(&stream, 1, Interest::READABLE, Trigger::Level).unwrap();
    bench.poller.set(&stream, 2, Interest::WRITABLE, Trigger::Once).unwrap();
    bench.poller.set(&stream, 3, Interest::READABLE, Trigger::Edge).unwrap();
    let twice = bench.poller.add(&stream, 4, Interest::BOTH, Trigger::Level);
    assert_eq!(errno_of(twice), Errno::EXIST.raw_os_error());
    assert_eq!(bench.keys(), [2]);
    bench.fake.with(|world| world.peer_sends(handle, b"x"));
    let mut told = bench.keys();
    told.sort_unstable();
    assert_eq!(told, [1, 3]);
    assert_eq!(bench.keys(), [1]);
    bench.poller.set(&stream, 1, Interest::WRITABLE, Trigger::Edge).unwrap();
    bench.now();
    assert_eq!(bench.keys(), []);
    bench.poller.unset(&stream, 3).unwrap();
    bench.poller.unset(&stream, 2).unwrap();
    bench.fake.with(|world| world.hold_acks(handle, true));
    while stream.write(&[1; 4096]).is_ok() {}
    bench.now();
    bench.fake.with(|world| world.hold_acks(handle, false));
    let told = bench.wait(None);
    assert_eq!((told.len(), told[0].key(), told[0].is_writable()), (1, 1, true));
    bench.poller.unset(&stream, 1).unwrap();
    assert_eq!(errno_of(bench.poller.unset(&stream, 1)), Errno::NOENT.raw_os_error());
    // One call takes all of them away.
    for key in [7, 8] {
        bench.poller.set(&stream, key, Interest::READABLE, Trigger::Level).unwrap();
    }
    bench.poller.modify(&stream, 9, Interest::READABLE, Trigger::Level).unwrap();
    assert_eq!(bench.keys(), [9]);
    bench.poller.delete(&stream).unwrap();
    assert_eq!(bench.keys(), []);
    for key in [1, 2] {
        bench.poller.set(&bench.listener, key, Interest::READABLE, Trigger::Level).unwrap();
    }
    bench.fake.with(|world| world.arrive(80, 0, 2));
    assert_eq!(bench.keys(), [1, 2]);
    bench.poller.unset(&bench.listener, 1).unwrap();
    assert_eq!(bench.keys(), [2]);
    bench.poller.unset(&bench.listener, 2).unwrap();
    assert_eq!(errno_of(bench.poller.unset(&bench.listener, 2)), Errno::NOENT.raw_os_error());
}

#[test]
fn a_change_of_interest_does_not_make_extents() {
    let bench = Bench::new(1);
    let (stream, _) = bench.stream();
    bench.poller.add(&stream, 5, Interest::READABLE, Trigger::Level).unwrap();
    use_up_extents(&bench);
    for interest in [Interest::BOTH, Interest::READABLE, Interest::WRITABLE] {
        bench.poller.modify(&stream, 5, interest, Trigger::Level).unwrap();
        assert_eq!(bench.keys(), []);
    }
    bench.fake.with(|world| world.granting = true);
    assert!(bench.wait(None)[0].is_writable());
}

#[test]
fn a_connect_ends_in_an_event() {
    let fake = Fake::start(1);
    let options = fake.options().nonblocking(true);
    let poller = Poller::with_runtime(&fake.runtime()).unwrap();
    let mut events = Events::with_capacity(4);
    let silent = options.connect(("10.99.0.1", SILENT_PORT)).unwrap();
    poller.add(&silent, 1, Interest::BOTH, Trigger::Edge).unwrap();
    assert_eq!(poller.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0);
    let handle = fake.with(|world| world.only_open().unwrap());
    fake.with(|world| world.complete(handle));
    poller.wait(&mut events, None).unwrap();
    let event = events.iter().next().unwrap();
    assert!(event.is_writable() && !event.is_readable() && !event.is_error());

    let refused = options.connect(("10.99.0.1", CLOSED_PORT)).unwrap();
    poller.add(&refused, 2, Interest::WRITABLE, Trigger::Level).unwrap();
    poller.wait(&mut events, None).unwrap();
    let event = events.iter().next().unwrap();
    assert!(event.key() == 2 && event.is_error() && event.is_writable());
}

/// More is ready than fits: everybody gets a turn.
#[test]
fn a_full_list_starves_nobody() {
    let bench = Bench::new(1);
    let streams: Vec<_> = (0..10).map(|_| bench.stream()).collect();
    for (key, (stream, handle)) in streams.iter().enumerate() {
        bench.poller.add(stream, key, Interest::READABLE, Trigger::Level).unwrap();
        bench.fake.with(|world| world.peer_sends(*handle, b"x"));
    }
    let mut events = Events::with_capacity(4);
    let mut seen = [0; 10];
    for _ in 0..5 {
        assert_eq!(bench.poller.wait(&mut events, None).unwrap(), 4);
        events.iter().for_each(|event| seen[event.key()] += 1);
    }
    assert_eq!(seen, [2; 10]);
}

#[test]
fn a_notification_ends_a_wait() {
    let bench = Bench::new(1);
    bench.poller.notify().unwrap();
    bench.poller.notify().unwrap();
    assert!(bench.wait(None).is_empty(), "one from before counts, once");
    thread::scope(|scope| {
        let waiter = scope.spawn(|| bench.wait(None));
        thread::sleep(Duration::from_millis(2));
        bench.poller.notify().unwrap();
        assert!(waiter.join().unwrap().is_empty());
    });
    assert!(bench.wait(Some(Duration::from_millis(1))).is_empty());
}

/// What another thread does while one sleeps in the poller.
#[test]
fn a_sleeping_poller_notices_changes() {
    let bench = Bench::new(2);
    let (stream, handle) = bench.stream();
    bench.fake.with(|world| world.peer_sends(handle, b"x"));
    let pause = || thread::sleep(Duration::from_millis(2));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| bench.wait(None));
        pause();
        bench.poller.add(&stream, 1, Interest::READABLE, Trigger::Edge).unwrap();
        assert_eq!(waiter.join().unwrap()[0].key(), 1);

        let waiter = scope.spawn(|| bench.wait(None));
        pause();
        bench.poller.add(&bench.listener, 2, Interest::READABLE, Trigger::Level).unwrap();
        pause();
        bench.fake.with(|world| world.arrive(80, 0, 1));
        assert_eq!(waiter.join().unwrap()[0].key(), 2);
        bench.listener.accept().unwrap();

        let waiter = scope.spawn(|| bench.wait(None));
        pause();
        stream.shutdown(Shutdown::Read).unwrap();
        assert!(waiter.join().unwrap()[0].is_read_closed());
    });
}

/// The descriptor becomes readable when `wait` would have something, if asked for.
#[test]
fn the_descriptor_follows_arm() {
    let bench = Bench::new(2);
    let (stream, handle) = bench.stream();
    bench.poller.add(&stream, 1, Interest::READABLE, Trigger::Level).unwrap();
    bench.poller.add(&bench.listener, 2, Interest::READABLE, Trigger::Level).unwrap();
    for round in 0..20 {
        assert!(!bench.poller.arm().unwrap());
        assert!(!is_readable(&bench.poller, 0));
        if round % 2 == 0 {
            bench.fake.with(|world| world.peer_sends(handle, b"x"));
        } else {
            bench.fake.with(|world| world.arrive(80, round % 4 / 2, round.into()));
        }
        assert!(is_readable(&bench.poller, 10_000));
        assert_eq!(bench.keys(), [if round % 2 == 0 { 1 } else { 2 }]);
        assert!(bench.poller.arm().unwrap(), "still ready");
        if round % 2 == 0 {
            (&stream).read_exact(&mut [0]).unwrap();
        } else {
            bench.listener.accept().unwrap();
        }
    }
    assert!(!bench.poller.arm().unwrap());
    bench.poller.notify().unwrap();
    assert!(is_readable(&bench.poller, 10_000));
    assert_eq!(bench.keys(), []);
    assert!(!bench.poller.arm().unwrap());
    assert!(!is_readable(&bench.poller, 0), "old rings are gone");
}

fn is_readable(poller: &Poller, millis: i64) -> bool {
    let mut fds = [PollFd::new(poller, PollFlags::IN)];
    let timeout = Timespec { tv_sec: 0, tv_nsec: millis.min(900) * 1_000_000 };
    rustix::event::poll(&mut fds, Some(&timeout)).unwrap() > 0
}

/// A thread blocks on a stream that a poller watches, and the poller gets it back.
#[test]
fn a_blocking_read_gives_the_stream_back() {
    let bench = Bench::new(1);
    let (stream, handle) = bench.stream();
    bench.poller.add(&stream, 1, Interest::READABLE, Trigger::Edge).unwrap();
    stream.set_nonblocking(false).unwrap();
    thread::scope(|scope| {
        let reader = scope.spawn(|| (&stream).read(&mut [0; 1]));
        thread::sleep(Duration::from_millis(2));
        bench.fake.with(|world| world.peer_sends(handle, b"xy"));
        assert_eq!(reader.join().unwrap().unwrap(), 1);
    });
    assert_eq!(bench.keys(), [1], "one byte is left");
    bench.fake.with(|world| world.peer_sends(handle, b"z"));
    assert_eq!(bench.keys(), [1]);
}

/// The classical server: each thread with a poller of its own, all on one listener.
#[test]
fn several_pollers_share_a_listener() {
    const CONNECTIONS: u32 = 400;
    let fake = Fake::start(2);
    let runtime = fake.runtime();
    let options = fourwave::SocketOptions::new().runtime(&runtime).nonblocking(true);
    let listener = options.bind("10.99.0.2:80").unwrap();
    let served = AtomicU32::new(0);
    let pollers = [(); 3].map(|()| Poller::with_runtime(&runtime).unwrap());
    thread::scope(|scope| {
        for poller in &pollers {
            scope.spawn(|| serve(poller, &listener, &served, CONNECTIONS));
        }
        for stamp in 0..CONNECTIONS {
            let handle = fake.arrive(80, stamp % 2, stamp.into());
            fake.with(|world| world.peer_sends(handle, &stamp.to_ne_bytes()));
            if stamp % 10 == 0 {
                assert_eq!(fake.until_closed(handle).sent, stamp.to_ne_bytes());
            }
        }
        fake.until(|_| (served.load(Ordering::SeqCst) == CONNECTIONS).then_some(()));
        pollers.iter().for_each(|poller| poller.notify().unwrap());
    });
}

/// Echoes four bytes on each connection and closes it, until `all` are served.
fn serve(poller: &Poller, listener: &TcpListener, served: &AtomicU32, all: u32) {
    poller.add(listener, usize::MAX, Interest::READABLE, Trigger::Level).unwrap();
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut events = Events::with_capacity(8);
    while served.load(Ordering::SeqCst) < all {
        poller.wait(&mut events, None).unwrap();
        for event in events.iter() {
            if event.key() == usize::MAX {
                if let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).unwrap();
                    poller.add(&stream, streams.len(), Interest::READABLE, Trigger::Edge).unwrap();
                    streams.push(Some(stream));
                }
            } else if let Some(mut stream) = streams[event.key()].take() {
                let mut bytes = [0; 4];
                stream.read_exact(&mut bytes).unwrap();
                stream.write_all(&bytes).unwrap();
                served.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// A poller that was woken for a connection and goes away leaves it to a sleeping acceptor.
#[test]
fn a_poller_that_leaves_passes_the_word_on() {
    let bench = Bench::new(1);
    bench.listener.set_nonblocking(false).unwrap();
    bench.poller.add(&bench.listener, 1, Interest::READABLE, Trigger::Level).unwrap();
    assert!(!bench.poller.arm().unwrap());
    // Takes the poller's bit, the only one.
    bench.fake.with(|world| world.arrive(80, 0, 1));
    let Bench { fake, listener, poller } = bench;
    thread::scope(|scope| {
        // Accepts that one, and sleeps for the next.
        let acceptor = scope.spawn(|| {
            drop(listener.accept().unwrap());
            drop(listener.accept().unwrap());
        });
        fake.until(|world| (world.open_connections() == 0).then_some(()));
        thread::sleep(Duration::from_millis(2));
        assert!(!poller.arm().unwrap());
        // Two wait now; whichever is told, nobody must sleep beside a full queue.
        fake.with(|world| world.arrive(80, 0, 2));
        drop(poller);
        acceptor.join().unwrap();
    });
}

#[test]
fn a_listener_that_closes_leaves_its_pollers() {
    let fake = Fake::start(1);
    let listener = listener(&fake);
    drop(listener);
    assert!(fake.with(|world| world.listener(80)).is_none());
    let bench = Bench::new(1);
    bench.poller.add(&bench.listener, 1, Interest::READABLE, Trigger::Level).unwrap();
    bench.fake.with(|world| world.arrive(80, 0, 1));
    let Bench { fake: _fake, listener, poller } = bench;
    drop(listener);
    let mut events = Events::with_capacity(4);
    assert_eq!(poller.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0);
}
