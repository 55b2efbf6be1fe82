//! A daemon that goes away, lanes that run out.

use crate::fake::Fake;
use crate::{errno_of, listener, pair};
use fourwave::{Events, Interest, Poller, Runtime, SocketOptions, Trigger};
use fourwave_protocol::Params;
use rustix::io::Errno;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

const GONE: i32 = Errno::NETDOWN.raw_os_error();

#[test]
fn every_sleeper_wakes_when_the_daemon_goes() {
    let mut fake = Fake::start(2);
    let runtime = fake.runtime();
    let options = SocketOptions::new().runtime(&runtime);
    let listener = options.bind("10.99.0.2:80").unwrap();
    let client = options.connect(listener.local_addr().unwrap()).unwrap();
    let _unread = options.connect(listener.local_addr().unwrap()).unwrap();
    let (_silent, _) = listener.accept().unwrap();
    let (server, _) = listener.accept().unwrap();
    let poller = Poller::with_runtime(&runtime).unwrap();
    thread::scope(|scope| {
        let accepting = scope.spawn(|| errno_of(listener.accept()));
        let reading = scope.spawn(|| errno_of((&client).read(&mut [0])));
        // The peer does not read, so this one stops at some point.
        let writing = scope.spawn(|| errno_of((&server).write_all(&vec![0; 1 << 20])));
        let polling = scope.spawn(|| errno_of(poller.wait(&mut Events::with_capacity(1), None)));
        thread::sleep(Duration::from_millis(5));
        fake.vanish();
        for thread in [accepting, reading, writing, polling] {
            assert_eq!(thread.join().unwrap(), GONE);
        }
    });
    // And from now on everything says so.
    assert_eq!(errno_of(listener.accept()), GONE);
    assert_eq!(errno_of(listener.local_addr()), GONE);
    assert_eq!(errno_of(listener.set_backlog(1)), GONE);
    assert_eq!(errno_of((&client).read(&mut [0])), GONE);
    assert_eq!(errno_of((&client).write(&[0])), GONE);
    assert_eq!(errno_of(client.shutdown(Shutdown::Both)), GONE);
    assert_eq!(errno_of(client.take_error()), GONE);
    assert_eq!(errno_of(poller.notify()), GONE);
    assert_eq!(errno_of(poller.add(&client, 1, Interest::BOTH, Trigger::Edge)), GONE);
    assert_eq!(errno_of(options.connect("10.99.0.1:80")), GONE);
    assert_eq!(errno_of(options.bind("10.99.0.1:81")), GONE);
    assert_eq!(errno_of(runtime.stats()), GONE);
}

/// Threads that never sleep notice too.
#[test]
fn non_blocking_operations_notice_that_the_daemon_is_gone() {
    let mut fake = Fake::start(1);
    let (mut client, mut server) = pair(&fake);
    client.set_nonblocking(true).unwrap();
    server.set_nonblocking(true).unwrap();
    fake.vanish();
    let error = loop {
        match server.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            other => break other.unwrap_err(),
        }
    };
    assert_eq!(error.kind(), ErrorKind::NetworkDown);
    let error = loop {
        match client.write(&[0; 100]) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => break error,
            _ => thread::yield_now(),
        }
    };
    assert_eq!(error.kind(), ErrorKind::NetworkDown);
}

#[test]
fn a_command_ring_without_a_reader_does_not_hang() {
    let mut fake = Fake::start(1);
    let (client, _server) = pair(&fake);
    fake.vanish();
    // More than the ring holds: sooner or later somebody looks whether the daemon lives.
    let failed = (0..100_000).find_map(|_| client.set_nodelay(true).err());
    assert_eq!(failed.unwrap().kind(), ErrorKind::NetworkDown);
}

#[test]
fn a_full_command_ring_waits_for_the_daemon() {
    let fake = Fake::start(1);
    let (client, _server) = pair(&fake);
    let quiet = fake.pause();
    thread::scope(|scope| {
        let poster = scope.spawn(|| (0..1000).for_each(|_| client.set_nodelay(true).unwrap()));
        thread::sleep(Duration::from_millis(2));
        drop(quiet);
        poster.join().unwrap();
    });
}

#[test]
fn an_ended_threads_lane_goes_to_the_next() {
    let fake = Fake::start(2);
    let listener = listener(&fake);
    for stamp in 0..50 {
        fake.with(|world| world.arrive(80, 0, stamp));
        let (mut stream, _) = listener.accept().unwrap();
        // Joined: a scope does not wait for what is thread-local.
        thread::spawn(move || stream.write_all(b"x").unwrap()).join().unwrap();
    }
    assert!(fake.with(|world| world.lanes()) <= 2);
}

#[test]
fn more_threads_than_lanes_is_an_error() {
    let fake = Fake::start(1);
    let runtime = fake.runtime();
    let pollers: Vec<_> = (0..32).map(|_| Poller::with_runtime(&runtime)).collect();
    assert!(pollers.iter().all(Result::is_ok));
    let error = Poller::with_runtime(&runtime).unwrap_err();
    assert_eq!(fourwave::errno(&error), Some(Errno::NOBUFS.raw_os_error()));
    // Some of the lanes are kept for the next, the others were given back.
    drop(pollers);
    assert!(Poller::with_runtime(&runtime).is_ok());
    fake.until(|world| (world.lanes() < 32).then_some(()));
}

#[test]
fn counters_come_as_text() {
    let fake = Fake::start(1);
    assert_eq!(fake.runtime().stats().unwrap(), "one 1\ntwo 2\n");
}

#[test]
fn a_socket_without_a_daemon_explains_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let error = Runtime::connect(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkDown);
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert!(error.to_string().contains("start fourwaved"), "{error}");
}

/// A thread for which no lane is left can still do all that does not wait.
#[test]
fn a_thread_without_a_lane_borrows_one() {
    let fake = Fake::with_params(Params { lanes: 1, ..Fake::params(2) });
    let listener = listener(&fake);
    let handles = fake.with(|world| [world.arrive(80, 0, 1), world.arrive(80, 1, 2)]);
    let streams = [listener.accept().unwrap().0, listener.accept().unwrap().0];
    // This thread takes the only one.
    streams[0].set_nodelay(true).unwrap();
    let written = thread::spawn(move || {
        let [first, second] = streams;
        (&first).write_all(b"one").unwrap();
        drop(first);
        (&second).write_all(b"two").unwrap();
        errno_of((&second).read(&mut [0]))
    });
    assert_eq!(written.join().unwrap(), Errno::NOBUFS.raw_os_error(), "it cannot wait");
    assert_eq!(fake.until_closed(handles[0]).sent, b"one");
    assert_eq!(fake.until_closed(handles[1]).sent, b"two");
}
