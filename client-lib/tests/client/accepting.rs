//! Listeners: order, waiting, threads.

use crate::fake::Fake;
use crate::{errno_of, listener};
use fourwave::{TcpListener, TcpStream};
use fourwave_protocol::option::ConnOption;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::{Arc, Barrier, mpsc};
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
    assert_eq!(fake.with(|world| world.option(handle, ConnOption::NoDelay)), 1);
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
                fake.arrive(PORT, u32::from(stamp % 2), stamp.into());
            }
        });
        if spin.is_zero() {
            assert!(fake.with(|world| world.rings) > 0, "it never slept");
        }
    }
}

/// Patience with a thread that should have accepted.
const PATIENCE: Duration = Duration::from_secs(20);

/// Threads that accept on one listener and tell the peers' ports.
struct Acceptors {
    threads: Vec<thread::JoinHandle<()>>,
    ports: mpsc::Receiver<u16>,
}

impl Acceptors {
    /// Stamp of the connections that end a thread each.
    const LAST: u16 = 50_000;

    fn start(fake: &Fake, count: usize) -> Acceptors {
        let listener = Arc::new(listener(fake));
        let (tell, ports) = mpsc::channel();
        let accept = |(listener, tell): (Arc<TcpListener>, mpsc::Sender<u16>)| {
            move || {
                loop {
                    let port = listener.accept().unwrap().1.port();
                    if port == 1024 + Acceptors::LAST {
                        return;
                    }
                    tell.send(port).unwrap();
                }
            }
        };
        let start = |_| thread::spawn(accept((Arc::clone(&listener), tell.clone())));
        Acceptors { threads: (0..count).map(start).collect(), ports }
    }

    /// The next connection that one of them has accepted.
    fn next(&self) -> u16 {
        self.ports.recv_timeout(PATIENCE).expect("a connection waits and all of them sleep")
    }

    fn end(self, fake: &Fake) {
        for _ in 0..self.threads.len() {
            fake.arrive(PORT, 0, Acceptors::LAST.into());
        }
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(self.ports.try_recv().is_err(), "accepted more than came");
    }
}

/// Each connection is accepted once, whoever sleeps and whoever is busy.
#[test]
fn many_threads_share_a_listener() {
    const CONNECTIONS: u16 = 2000;
    let fake = Fake::start(2);
    let acceptors = Acceptors::start(&fake, 4);
    let mut accepted = BTreeSet::new();
    for stamp in 0..CONNECTIONS {
        // Not more than the accept ring and the connection table hold.
        if stamp >= 24 {
            assert!(accepted.insert(acceptors.next()), "accepted twice");
        }
        fake.arrive(PORT, u32::from(stamp % 2), stamp.into());
    }
    while accepted.len() < usize::from(CONNECTIONS) {
        assert!(accepted.insert(acceptors.next()), "accepted twice");
    }
    acceptors.end(&fake);
}

/// As many connections come as threads wait, and each thread takes only one: if one of them
/// used up two wake-ups, another would sleep beside a connection.
#[test]
fn a_wake_up_is_worth_one_connection() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 400;
    let fake = Fake::start(1);
    fake.runtime().set_spin(Duration::ZERO);
    let listener = Arc::new(listener(&fake));
    let (tell, accepted) = mpsc::channel();
    let round_ends = Arc::new(Barrier::new(THREADS as usize + 1));
    for _ in 0..THREADS {
        let (listener, tell) = (Arc::clone(&listener), tell.clone());
        let round_ends = Arc::clone(&round_ends);
        thread::spawn(move || {
            for _ in 0..ROUNDS {
                tell.send(listener.accept().unwrap().1.port()).unwrap();
                round_ends.wait();
            }
        });
    }
    for round in 0..ROUNDS {
        for n in 0..THREADS {
            fake.arrive(PORT, 0, round * THREADS + n);
            // From at once to after the time that a thread takes to wake up.
            for _ in 0..round % 64 * 64 {
                std::hint::spin_loop();
            }
        }
        for _ in 0..THREADS {
            accepted.recv_timeout(PATIENCE).expect("one sleeps beside a connection");
        }
        round_ends.wait();
    }
}

#[test]
fn incoming_accepts_without_end() {
    let fake = Fake::start(1);
    let listener = listener(&fake);
    fake.with(|world| world.arrive_all(PORT, 0, 0..5));
    let port = |stream: std::io::Result<TcpStream>| stream.unwrap().peer_addr().unwrap().port();
    let ports: Vec<_> = listener.incoming().take(3).map(port).collect();
    assert_eq!(ports, [1024, 1025, 1026]);
    let ports: Vec<_> = listener.into_incoming().take(2).map(port).collect();
    assert_eq!(ports, [1027, 1028]);
}

#[test]
fn a_listener_that_is_stopped_accepts_no_more() {
    let fake = Fake::start(2);
    let listener = listener(&fake);
    thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..3).map(|_| scope.spawn(|| errno_of(listener.accept().map(drop)))).collect();
        thread::sleep(Duration::from_millis(2));
        listener.stop();
        for waiter in waiting {
            assert_eq!(waiter.join().unwrap(), Errno::INVAL.raw_os_error());
        }
    });
    fake.with(|world| world.arrive(80, 0, 1));
    assert_eq!(errno_of(listener.accept().map(drop)), Errno::INVAL.raw_os_error());
    assert!(fake.with(|world| world.listener(80)).is_some(), "it has its address to the end");
    drop(listener);
    fake.until(|world| world.listener(80).is_none().then_some(()));
}
