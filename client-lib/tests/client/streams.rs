//! Streams: bytes, limits, ends.

use crate::fake::{CLOSED_PORT, Closed, Fake, LAST_WORKER_PORT, NO_ROUTE_PORT, SILENT_PORT, World};
use crate::{errno_of, listener, pair, pattern};
use fourwave::TcpStream;
use fourwave_protocol::option::ConnOption;
use fourwave_protocol::{EXTENT_BYTES, EXTENT_SLOTS, FIRST_WINDOW, Handle};
use rustix::io::Errno;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const WINDOW: usize = FIRST_WINDOW as usize;
/// What a connection's directions buffer after they have grown.
const GROWN: usize = 1 << 20;

/// A stream of which the test plays the peer.
fn accepted(fake: &Fake) -> (TcpStream, Handle) {
    let listener = listener(fake);
    let handle = fake.with(|world| world.arrive(80, world.params().workers - 1, 1));
    (listener.accept().unwrap().0, handle)
}

fn read_to_end(mut stream: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn bytes_go_there_and_back() {
    let fake = Fake::start(2);
    let (mut client, mut server) = pair(&fake);
    client.write_all(b"four waves").unwrap();
    let mut buffer = [0; 64];
    assert_eq!(server.read(&mut buffer).unwrap(), 10);
    server.write_all(&buffer[..10]).unwrap();
    drop(server);
    assert_eq!(read_to_end(&client), b"four waves");
    assert_eq!(client.read(&mut buffer).unwrap(), 0, "the end stays the end");
}

/// Far more than any window, both ways at once, each half in a thread of its own.
#[test]
fn megabytes_go_both_ways() {
    let fake = Fake::start(1);
    let (client, server) = pair(&fake);
    let (there, back) = (pattern(3 << 20), pattern((2 << 20) + 12_345));
    thread::scope(|scope| {
        for (stream, bytes) in [(&client, &there), (&server, &back)] {
            scope.spawn(move || {
                // Odd pieces, so that writes begin and end anywhere in an extent.
                for piece in bytes.chunks(70_001) {
                    (&mut &*stream).write_all(piece).unwrap();
                }
                stream.shutdown(Shutdown::Write).unwrap();
            });
        }
        let got_there = scope.spawn(|| read_to_end(&server));
        let got_back = scope.spawn(|| read_to_end(&client));
        assert!(got_there.join().unwrap() == there);
        assert!(got_back.join().unwrap() == back);
    });
}

#[test]
fn a_write_stops_at_the_window() {
    let fake = Fake::start(2);
    let (mut stream, handle) = accepted(&fake);
    stream.set_nonblocking(true).unwrap();
    fake.with(|world| world.hold_acks(handle, true));
    let bytes = pattern(100_000);
    assert_eq!(write_some(&mut stream, &fake, &bytes), WINDOW);
    assert_eq!(stream.write(&bytes[WINDOW..]).unwrap_err().kind(), ErrorKind::WouldBlock);

    fake.with(|world| world.hold_acks(handle, false));
    let rest = write_some(&mut stream, &fake, &bytes[WINDOW..]);
    assert_eq!(WINDOW + rest, bytes.len());
    fake.until(|world| (world.sent(handle).len() == bytes.len()).then_some(()));
    assert!(fake.with(|world| world.sent(handle)) == bytes);
}

/// Writes until all is written or the window is closed, waiting for extents in between.
fn write_some(stream: &mut TcpStream, fake: &Fake, bytes: &[u8]) -> usize {
    let mut done = 0;
    while done < bytes.len().min(WINDOW) {
        match stream.write(&bytes[done..]) {
            Ok(count) => done += count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        fake.with(World::turn);
    }
    done
}

#[test]
fn small_writes_share_an_extent_and_a_drained_stream_holds_none() {
    let fake = Fake::start(1);
    let (mut stream, handle) = accepted(&fake);
    fake.with(|world| world.hold_acks(handle, true));
    for n in 0..10 {
        stream.write_all(&[n; 100]).unwrap();
    }
    fake.until(|world| (world.sent(handle).len() == 1000).then_some(()));
    assert_eq!(fake.with(|world| world.held(handle)), 1);

    fake.with(|world| world.hold_acks(handle, false));
    assert_eq!(fake.with(|world| world.held(handle)), 0);

    // The next byte goes to a fresh extent, at the place where the old one ended.
    let more = pattern(EXTENT_BYTES);
    stream.write_all(&more).unwrap();
    fake.until(|world| (world.sent(handle).len() == 1000 + more.len()).then_some(()));
    assert!(fake.with(|world| world.sent(handle))[1000..] == more);
}

/// The daemon releases the open extent while the client appends, over and over.
#[test]
fn appending_and_releasing_do_not_collide() {
    let fake = Fake::start(1);
    let (mut stream, handle) = accepted(&fake);
    let bytes = pattern(200_000);
    for piece in bytes.chunks(77) {
        stream.write_all(piece).unwrap();
    }
    fake.until(|world| (world.sent(handle).len() == bytes.len()).then_some(()));
    assert!(fake.with(|world| world.sent(handle)) == bytes);
    assert_eq!(fake.with(|world| world.held(handle)), 0);
}

#[test]
fn a_writer_without_extents_waits_for_them() {
    let fake = Fake::start(1);
    // Before the thread has a lane.
    fake.with(|world| world.granting = false);
    let (mut stream, handle) = accepted(&fake);
    let bytes = pattern(WINDOW);
    stream.set_nonblocking(true).unwrap();
    let mut done = 0;
    while let Ok(count) = stream.write(&bytes[done..]) {
        done += count;
    }
    assert!(done < bytes.len(), "there were more extents than one lane's grants");

    stream.set_nonblocking(false).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| stream.write_all(&bytes[done..]).unwrap());
        thread::sleep(Duration::from_millis(2));
        fake.with(|world| world.granting = true);
    });
    fake.until(|world| (world.sent(handle).len() == bytes.len()).then_some(()));
    assert!(fake.with(|world| world.sent(handle)) == bytes);
}

#[test]
fn extents_of_other_threads_are_used() {
    let fake = Fake::start(1);
    let (mut stream, handle) = accepted(&fake);
    let second = stream.try_clone().unwrap();
    let bytes = pattern(GROWN);
    stream.set_nonblocking(true).unwrap();
    let done = thread::scope(|scope| {
        // It has a lane from here on, with as many extents as the writer's.
        let idle = scope.spawn(move || {
            second.tcp_info().unwrap();
            thread::park();
        });
        fake.until(|world| (world.lanes() > 1).then_some(()));
        fake.with(|world| {
            // Both lanes are given theirs, and no more.
            world.deliver();
            world.granting = false;
        });
        let mut done = 0;
        while let Ok(count) = stream.write(&bytes[done..bytes.len().min(done + 5000)]) {
            done += count;
            fake.with(World::turn);
        }
        idle.thread().unpark();
        done
    });
    assert!(done > 16 * 4096, "one lane's grants alone are 16 extents");
    fake.until(|world| (world.sent(handle).len() == done).then_some(()));
    assert!(fake.with(|world| world.sent(handle)) == bytes[..done]);
}

#[test]
fn a_read_opens_the_window_again() {
    let fake = Fake::start(2);
    let (mut stream, handle) = accepted(&fake);
    let bytes = pattern(300_000);
    fake.with(|world| {
        world.peer_sends(handle, &bytes);
        world.peer_closes(handle);
    });
    // Half of a window is reported at once.
    let mut first = [0; WINDOW / 2];
    stream.read_exact(&mut first).unwrap();
    fake.until(|world| (world.consumed(handle) == 1).then_some(()));
    let rest = read_to_end(&stream);
    assert!(first == bytes[..first.len()] && rest == bytes[first.len()..]);
}

#[test]
fn reads_are_reported_as_often_as_the_daemon_asks() {
    let fake = Fake::start(1);
    let (mut stream, handle) = accepted(&fake);
    fake.with(|world| {
        world.report_at(handle, 1000);
        world.peer_sends(handle, &[7; 5000]);
    });
    for count in 1..=4 {
        stream.read_exact(&mut [0; 1000]).unwrap();
        fake.until(|world| (world.consumed(handle) == count).then_some(()));
    }
}

/// More than the connection's block has slots for, so that a table names the extents; then
/// little again.
#[test]
fn a_grown_connection_reads_out_of_its_table() {
    let fake = Fake::start(2);
    let (mut stream, handle) = accepted(&fake);
    let bytes = pattern(GROWN + 100);
    fake.with(|world| world.peer_sends(handle, &bytes[..100]));
    let mut first = [0; 100];
    stream.read_exact(&mut first).unwrap();
    fake.with(|world| {
        world.grow(handle, GROWN as u64);
        world.peer_sends(handle, &bytes[100..]);
        world.peer_closes(handle);
        assert!(world.held(handle) > EXTENT_SLOTS);
    });
    let rest = read_to_end(&stream);
    assert!(first == bytes[..100] && rest == bytes[100..]);
}

#[test]
fn a_grown_connection_is_drained_and_starts_again() {
    let fake = Fake::start(2);
    let (mut stream, handle) = accepted(&fake);
    fake.with(|world| world.grow(handle, GROWN as u64));
    let bytes = pattern(GROWN);
    let mut read = vec![0; GROWN];
    for length in [GROWN, 300, GROWN - 77, 3] {
        fake.with(|world| world.peer_sends(handle, &bytes[..length]));
        stream.read_exact(&mut read[..length]).unwrap();
        assert!(read[..length] == bytes[..length]);
    }
}

#[test]
fn a_grown_connection_writes_more_than_the_first_window() {
    let fake = Fake::start(2);
    let (stream, handle) = accepted(&fake);
    fake.with(|world| {
        world.grow(handle, GROWN as u64);
        world.hold_acks(handle, true);
    });
    let bytes = pattern(3 * GROWN);
    thread::scope(|scope| {
        let writer = scope.spawn(|| (&stream).write_all(&bytes));
        fake.until(|world| (world.sent(handle).len() == GROWN).then_some(()));
        assert_eq!(fake.with(|world| world.held(handle)), GROWN / EXTENT_BYTES);
        fake.with(|world| world.hold_acks(handle, false));
        writer.join().unwrap().unwrap();
    });
    drop(stream);
    assert!(fake.until_closed(handle).sent == bytes);
}

#[test]
fn small_reads_are_not_reported() {
    let fake = Fake::start(1);
    let (mut stream, handle) = accepted(&fake);
    for _ in 0..10 {
        fake.with(|world| world.peer_sends(handle, &[7; 300]));
        stream.read_exact(&mut [0; 300]).unwrap();
    }
    // This is worked on after anything that the reads have posted.
    stream.set_nodelay(true).unwrap();
    fake.until(|world| (world.option(handle, ConnOption::NoDelay) == 1).then_some(()));
    assert_eq!(fake.with(|world| world.consumed(handle)), 0);
}

#[test]
fn peeking_and_vectors() {
    let fake = Fake::start(1);
    let (mut client, mut server) = pair(&fake);
    let parts = [&b"one "[..], b"", b"two ", b"three"];
    let sent = client.write_vectored(&parts.map(IoSlice::new)).unwrap();
    assert_eq!(sent, 13);
    let mut buffer = [0; 6];
    assert_eq!(server.peek(&mut buffer).unwrap(), 6);
    assert_eq!(&buffer, b"one tw");
    let (mut a, mut b) = ([0; 5], [0; 20]);
    let got = server.read_vectored(&mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)]);
    assert_eq!((got.unwrap(), &a, &b[..8]), (13, b"one t", &b"wo three"[..]));
    assert_eq!(server.read(&mut []).unwrap(), 0);
}

#[test]
fn reads_and_writes_give_up_in_time() {
    let fake = Fake::start(1);
    let (mut stream, handle) = accepted(&fake);
    let soon = Some(Duration::from_millis(3));
    stream.set_read_timeout(soon).unwrap();
    stream.set_write_timeout(soon).unwrap();
    assert_eq!((stream.read_timeout().unwrap(), stream.write_timeout().unwrap()), (soon, soon));
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    fake.with(|world| world.hold_acks(handle, true));
    assert_eq!(stream.write(&vec![0; 2 * WINDOW]).unwrap(), WINDOW, "what fits, then the end");
    assert_eq!(stream.write(&[0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let zero = stream.set_read_timeout(Some(Duration::ZERO));
    assert_eq!(zero.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_reset_is_told_once_and_after_the_bytes() {
    let fake = Fake::start(1);
    let (mut stream, handle) = accepted(&fake);
    fake.with(|world| {
        world.peer_sends(handle, b"last words");
        world.fail(handle, Errno::CONNRESET);
    });
    let mut buffer = [0; 64];
    assert_eq!(stream.read(&mut buffer).unwrap(), 10);
    assert_eq!(stream.read(&mut buffer).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(stream.read(&mut buffer).unwrap(), 0);
    assert_eq!(errno_of(stream.write(&[1])), Errno::PIPE.raw_os_error());
    assert!(stream.take_error().unwrap().is_none());
    assert_eq!(errno_of(stream.shutdown(Shutdown::Both)), Errno::NOTCONN.raw_os_error());
}

#[test]
fn a_reset_wakes_a_blocked_reader() {
    let fake = Fake::start(1);
    let (mut stream, handle) = accepted(&fake);
    thread::scope(|scope| {
        let reader = scope.spawn(|| stream.read(&mut [0; 8]));
        thread::sleep(Duration::from_millis(2));
        fake.with(|world| world.fail(handle, Errno::TIMEDOUT));
        assert_eq!(reader.join().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn half_close() {
    let fake = Fake::start(1);
    let (mut client, mut server) = pair(&fake);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(errno_of(client.write(b"more")), Errno::PIPE.raw_os_error());
    assert_eq!(read_to_end(&server), b"question");
    server.write_all(b"answer").unwrap();
    drop(server);
    assert_eq!(read_to_end(&client), b"answer");
}

/// To Linux a connection that both sides have closed is as good as none.
#[test]
fn closed_both_ways_there_is_no_peer() {
    let fake = Fake::start(1);
    let (mut stream, handle) = accepted(&fake);
    fake.with(|world| world.peer_closes(handle));
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    assert!(stream.peer_addr().is_ok());
    stream.shutdown(Shutdown::Write).unwrap();
    while stream.peer_addr().is_ok() {
        thread::sleep(Duration::from_millis(1));
    }
    let not_connected = Errno::NOTCONN.raw_os_error();
    assert_eq!(errno_of(stream.peer_addr()), not_connected);
    assert_eq!(errno_of(stream.shutdown(Shutdown::Both)), not_connected);
    assert_eq!(errno_of(stream.write(&[1])), Errno::PIPE.raw_os_error());
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn halves_have_owners_of_their_own() {
    let fake = Fake::start(1);
    let (client, server) = pair(&fake);
    let (mut read, mut write) = client.into_split();
    let writer = thread::spawn(move || {
        let slices = [IoSlice::new(b"que"), IoSlice::new(b"stion")];
        assert_eq!(write.write_vectored(&slices).unwrap(), 8);
        write.flush().unwrap();
        write
    });
    let write = writer.join().unwrap();
    let peek = || write.as_ref().peek(&mut [0; 8]);
    write.as_ref().set_nonblocking(true).unwrap();
    assert_eq!(peek().unwrap_err().kind(), ErrorKind::WouldBlock);
    read.as_ref().set_nonblocking(false).unwrap();
    drop(write);
    assert_eq!(read_to_end(&server), b"question", "a dropped half sends a FIN");
    (&server).write_all(b"answer").unwrap();
    let mut parts = ([0; 2], [0; 8]);
    let slices = &mut [IoSliceMut::new(&mut parts.0), IoSliceMut::new(&mut parts.1)];
    assert_eq!(read.read_vectored(slices).unwrap(), 6);
    assert_eq!((&parts.0, &parts.1[..4]), (b"an", &b"swer"[..]));

    let (fake, another) = (Fake::start(1), Fake::start(1));
    let ((client, server), (other, _other_server)) = (pair(&fake), pair(&another));
    let ((read, write), (other_read, _other_write)) = (client.into_split(), other.into_split());
    let fourwave::ReuniteError(_, write) = other_read.reunite(write).unwrap_err();
    let client = read.reunite(write).unwrap();
    (&client).write_all(b"whole again").unwrap();
    drop(client);
    assert_eq!(read_to_end(server), b"whole again");
}

#[test]
fn shutdown_of_reading_wakes_the_reader() {
    let fake = Fake::start(1);
    let (stream, handle) = accepted(&fake);
    thread::scope(|scope| {
        let reader = scope.spawn(|| (&stream).read(&mut [0; 8]));
        thread::sleep(Duration::from_millis(2));
        stream.shutdown(Shutdown::Read).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 0);
    });
    assert!(!fake.with(|world| world.is_fin_sent(handle)), "the peer does not notice");
    stream.shutdown(Shutdown::Both).unwrap();
    fake.until(|world| world.is_fin_sent(handle).then_some(()));
}

#[test]
fn shutdown_of_writing_wakes_the_writer() {
    let fake = Fake::start(1);
    let (stream, handle) = accepted(&fake);
    fake.with(|world| world.hold_acks(handle, true));
    thread::scope(|scope| {
        let writer = scope.spawn(|| (&stream).write_all(&vec![0; 2 * WINDOW]));
        fake.until(|world| (world.sent(handle).len() == WINDOW).then_some(()));
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(writer.join().unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn closing_sends_what_was_written() {
    let fake = Fake::start(1);
    let (mut stream, handle) = accepted(&fake);
    let clone = stream.try_clone().unwrap();
    stream.write_all(b"bye").unwrap();
    drop(stream);
    assert_eq!(fake.with(|world| world.closed(handle)), None, "a clone keeps it open");
    drop(clone);
    assert_eq!(fake.until_closed(handle), Closed { abort: false, sent: b"bye".to_vec() });
}

/// Written by one thread, dropped by another: the close overtakes the write on its way to the
/// daemon, the bytes are sent all the same.
#[test]
fn a_close_from_another_thread_loses_nothing() {
    let fake = Fake::start(1);
    // This thread's lane is attached first, so that its commands are looked at first.
    let listener = listener(&fake);
    drop(fake.options().nonblocking(true).connect(address(SILENT_PORT)).unwrap());
    let (give, take) = mpsc::channel::<TcpStream>();
    let (give_back, take_back) = mpsc::channel();
    let writer = thread::spawn(move || {
        for mut stream in take {
            stream.write_all(b"words").unwrap();
            give_back.send(stream).unwrap();
        }
    });
    for stamp in 0..50 {
        let handle = fake.with(|world| world.arrive(80, 0, stamp));
        let (stream, _) = listener.accept().unwrap();
        // In the first round the other thread attaches its lane, which needs the daemon.
        let quiet = (stamp > 0).then(|| fake.pause());
        give.send(stream).unwrap();
        drop(take_back.recv().unwrap());
        drop(quiet);
        assert_eq!(fake.until_closed(handle).sent, b"words");
    }
    drop(give);
    writer.join().unwrap();
}

#[test]
fn a_ttl_has_limits() {
    let fake = Fake::start(1);
    let (stream, handle) = accepted(&fake);
    stream.set_ttl(3).unwrap();
    assert_eq!(stream.ttl().unwrap(), 3);
    let options = [ConnOption::Ttl, ConnOption::HopLimit];
    assert_eq!(fake.with(|world| options.map(|option| world.option(handle, option))), [3, 3]);
    for wrong in [0, 256, u32::MAX] {
        assert_eq!(errno_of(stream.set_ttl(wrong)), Errno::INVAL.raw_os_error());
    }
    let set = |level, name, value: i32| stream.setsockopt(level, name, &value.to_ne_bytes());
    for (level, name) in [(0, 2), (41, 16)] {
        for wrong in [0, 256, -2] {
            assert_eq!(errno_of(set(level, name, wrong)), Errno::INVAL.raw_os_error());
        }
        set(level, name, -1).unwrap();
    }
    let all = |world: &mut World| options.map(|option| world.option(handle, option));
    fake.until(|world| (all(world) == [0, 0]).then_some(()));
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::new([10, 99, 0, 1].into(), port)
}

#[test]
fn connecting_fails_as_it_does_in_linux() {
    let fake = Fake::start(2);
    let options = fake.options();
    let refused = options.connect(address(CLOSED_PORT)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let none = options.connect(address(NO_ROUTE_PORT)).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::AddrNotAvailable);
    let ports = [address(CLOSED_PORT), address(NO_ROUTE_PORT)];
    let last = options.connect(&ports[..]).unwrap_err();
    assert_eq!(last.kind(), ErrorKind::AddrNotAvailable, "the last address's error");
}

#[test]
fn a_worker_without_a_port_sends_us_to_the_next() {
    let fake = Fake::start(3);
    let _listener = fake.options().bind(address(LAST_WORKER_PORT)).unwrap();
    let options = fake.options().nodelay(true);
    // Whichever worker is asked first.
    for _ in 0..3 {
        let stream = options.connect(address(LAST_WORKER_PORT)).unwrap();
        assert!(stream.nodelay().unwrap(), "each worker is told the options");
    }
}

#[test]
fn a_connect_that_is_not_awaited() {
    let fake = Fake::start(1);
    let options = fake.options().nonblocking(true);
    let mut stream = options.connect(address(SILENT_PORT)).unwrap();
    let handle = fake.with(|world| world.only_open().unwrap());
    assert_eq!(errno_of(stream.peer_addr()), Errno::NOTCONN.raw_os_error());
    assert_eq!(stream.write(b"x").unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(stream.take_error().unwrap().is_none());
    fake.with(|world| world.complete(handle));
    assert_eq!(stream.peer_addr().unwrap(), address(SILENT_PORT));
    assert_eq!(stream.write(b"x").unwrap(), 1);

    let refused = options.connect(address(CLOSED_PORT)).unwrap();
    let error = refused.take_error().unwrap().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(refused.take_error().unwrap().is_none(), "told once");
}

#[test]
fn several_streams_are_spread_over_the_workers() {
    let fake = Fake::start(3);
    let options = fake.options().nonblocking(true);
    let streams = [(); 6].map(|()| options.connect(address(SILENT_PORT)).unwrap());
    let counts = fake.with(|world| world.open_by_worker());
    assert_eq!(counts, [2, 2, 2]);
    drop(streams);
    fake.until(|world| (world.open_by_worker() == [0, 0, 0]).then_some(()));
}

#[test]
fn connecting_gives_up_in_time() {
    let fake = Fake::start(1);
    let options = fake.options();
    let soon = Duration::from_millis(5);
    let error = options.connect_timeout(&address(SILENT_PORT), soon).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    // Whether the daemon had answered by then or not: what uses the lane next sees to it.
    options.connect(address(CLOSED_PORT)).unwrap_err();
    fake.until(|world| (world.open_by_worker() == [0]).then_some(()));

    // The daemon answers only when nobody waits any more: it is told to close.
    let quiet = fake.pause();
    let error = options.connect_timeout(&address(SILENT_PORT), soon).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    drop(quiet);
    fake.until(|world| (world.open_by_worker() == [1]).then_some(()));
    options.connect(address(CLOSED_PORT)).unwrap_err();
    fake.until(|world| (world.open_by_worker() == [0]).then_some(()));
}
