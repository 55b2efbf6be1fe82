//! Listeners: order, waiting, threads.

use crate::fake::Fake;
use crate::{errno_of, listener};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

const PORT: u16 = 80;

#[test]
fn binding_and_listening_reach_the_daemon() {
    let fake = Fake::start(1);
    let listener = fake.options().backlog(17).bind("10.99.0.2:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(fake.with(|world| world.listener(port)), Some((0, Some(17))));
    listener.set_backlog(3).unwrap();
    assert_eq!(fake.with(|world| world.listener(port)), Some((0, Some(3))));
    assert!(listener.take_error().unwrap().is_none());

    let clone = listener.try_clone().unwrap();
    drop(listener);
    assert!(fake.with(|world| world.listener(port)).is_some(), "a clone keeps it open");
    drop(clone);
    assert_eq!(fake.with(|world| world.listener(port)), None);
}

#[test]
fn the_daemons_refusal_is_passed_on_in_its_words() {
    let fake = Fake::start(1);
    let options = fake.options();
    let _first = options.bind("10.99.0.2:80").unwrap();
    let error = options.bind("10.99.0.2:80").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().starts_with("the port is taken"), "{error}");
    assert_eq!(fourwave::errno(&error), Some(Errno::ADDRINUSE.raw_os_error()));
}

#[test]
fn the_oldest_connection_of_all_workers_comes_first() {
    let fake = Fake::start(3);
    let listener = listener(&fake);
    fake.with(|world| {
        for (worker, stamp) in [(1, 10), (0, 20), (2, 15), (0, 21), (1, 22), (2, 16)] {
            world.arrive(PORT, worker, stamp);
        }
    });
    let ports = [(); 6].map(|()| listener.accept().unwrap().1.port() - 1024);
    assert_eq!(ports, [10, 15, 16, 20, 21, 22]);
}

#[test]
fn an_accepted_stream_knows_its_ends() {
    let fake = Fake::start(2);
    let listener = fake.options().nodelay(true).bind("10.99.0.2:80").unwrap();
    let handle = fake.with(|world| world.arrive(PORT, 1, 5));
    let (stream, peer) = listener.accept().unwrap();
    assert_eq!(peer, "10.99.0.1:1029".parse().unwrap());
    assert_eq!(stream.peer_addr().unwrap(), peer);
    assert_eq!(stream.local_addr().unwrap(), "10.99.0.2:80".parse().unwrap());
    assert_eq!(fake.until(|world| world.nodelay(handle)), 1);
    assert!(stream.nodelay().unwrap());
}

#[test]
fn a_non_blocking_listener_does_not_wait() {
    let fake = Fake::start(2);
    let listener = listener(&fake);
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    fake.with(|world| world.arrive(PORT, 0, 1));
    listener.accept().unwrap();
    assert_eq!(errno_of(listener.accept()), Errno::AGAIN.raw_os_error());
}

/// One thread sleeps in accept each time a connection comes.
#[test]
fn a_sleeping_acceptor_is_woken() {
    for spin in [Duration::ZERO, Duration::from_micros(50)] {
        let fake = Fake::start(2);
        let runtime = fake.runtime();
        runtime.set_spin(spin);
        let options = fourwave::SocketOptions::new().runtime(&runtime);
        let listener = options.bind("10.99.0.2:80").unwrap();
        let ready = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                for stamp in 0..300u16 {
                    ready.wait();
                    assert_eq!(listener.accept().unwrap().1.port(), 1024 + stamp);
                }
            });
            for stamp in 0..300u16 {
                ready.wait();
                if stamp % 3 == 0 {
                    // Long enough for it to fall asleep, mostly; the test holds either way.
                    thread::sleep(Duration::from_micros(300));
                }
                fake.with(|world| world.arrive(PORT, u32::from(stamp % 2), stamp.into()));
            }
        });
        if spin.is_zero() {
            assert!(fake.with(|world| world.rings) > 0, "it never slept");
        }
    }
}

/// Each connection is accepted once, whoever sleeps and whoever is busy.
#[test]
fn many_threads_share_a_listener() {
    const THREADS: usize = 4;
    const CONNECTIONS: u32 = 2000;
    /// Stamp of the connections that end a thread each.
    const LAST: u16 = 50_000;
    let fake = Fake::start(2);
    let listener = listener(&fake);
    let left = AtomicU32::new(CONNECTIONS);
    let mut all = BTreeSet::new();
    thread::scope(|scope| {
        let accept = || {
            let mut mine = Vec::new();
            loop {
                let peer = listener.accept().unwrap().1;
                if peer.port() == 1024 + LAST {
                    return mine;
                }
                mine.push(peer.port());
                left.fetch_sub(1, Ordering::SeqCst);
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(accept)).collect();
        for stamp in 0..CONNECTIONS {
            // Not more than the accept ring and the connection table hold.
            while stamp - (CONNECTIONS - left.load(Ordering::SeqCst)) >= 24 {
                thread::yield_now();
            }
            fake.until(|world| (world.open_connections() < 48).then_some(()));
            fake.with(|world| world.arrive(PORT, stamp % 2, stamp.into()));
        }
        fake.until(|_| (left.load(Ordering::SeqCst) == 0).then_some(()));
        for _ in 0..THREADS {
            fake.with(|world| world.arrive(PORT, 0, LAST.into()));
        }
        for thread in threads {
            for port in thread.join().unwrap() {
                assert!(all.insert(port), "accepted twice");
            }
        }
    });
    assert_eq!(all.len(), CONNECTIONS as usize);
}

#[test]
fn incoming_accepts_without_end() {
    let fake = Fake::start(1);
    let listener = listener(&fake);
    fake.with(|world| world.arrive_all(PORT, 0, 0..3));
    let ports: Vec<_> = (listener.incoming().take(3))
        .map(|stream| stream.unwrap().peer_addr().unwrap().port())
        .collect();
    assert_eq!(ports, [1024, 1025, 1026]);
}
