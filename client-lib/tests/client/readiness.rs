//! Waiting until a stream is ready, on tokio.

use crate::awaiting::{connect, listen, poll_once, run};
use crate::fake::Fake;
use fourwave::tokio::TcpStream;
use fourwave_protocol::{FIRST_WINDOW, Handle};
use rustix::io::Errno;
use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read};
use std::task::Context;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest, ReadBuf};

const WINDOW: usize = FIRST_WINDOW as usize;

/// A stream whose peer the test plays.
async fn accepted(fake: &Fake) -> (TcpStream, Handle) {
    let listener = listen(fake);
    let handle = fake.with(|world| world.arrive(80, 0, 1));
    (listener.accept().await.unwrap().0, handle)
}

/// What the two ends of a connection say. The same on sockets of tokio's own.
macro_rules! transcript {
    ($one:ident, $two:ident, $peek:expr, $is_ours:expr) => {{
        let mut lines = Vec::new();
        let mut say = |what: &str, said: String| lines.push(format!("{what}: {said}"));
        let both = Interest::READABLE | Interest::WRITABLE;
        let mut buffer = [0; 16];
        $one.writable().await.unwrap();
        // tokio's believes that everything is ready until it has tried.
        say("nothing", format!("{:?}", $one.try_read(&mut buffer).map_err(|e| e.kind())));
        say("fresh", format!("{:?}", $one.ready(both).await));
        let not_called = $one
            .try_io(Interest::READABLE, || -> std::io::Result<()> { panic!("it is not ready") });
        say("no try", format!("{:?}", not_called.map_err(|e| e.kind())));
        // tokio's may be told late of what was there before.
        if $is_ours {
            poll_once($one.readable()).await;
            poll_once($one.ready(Interest::READABLE)).await;
        }
        say("written", format!("{:?}", $two.try_write(b"four").ok()));
        let parts = [IoSlice::new(b" wa"), IoSlice::new(b"ves")];
        say("vectors", format!("{:?}", $two.try_write_vectored(&parts).ok()));
        $one.readable().await.unwrap();
        // They may come one by one.
        while $one.peek(&mut buffer).await.unwrap() < 10 {
            tokio::task::yield_now().await;
        }
        let ready = poll_fn(|context| $one.poll_read_ready(context)).await;
        say("polled", format!("{ready:?}"));
        let mut room = ReadBuf::new(&mut buffer[..2]);
        let peeked = poll_fn(|context| $peek(&$one, context, &mut room)).await;
        say("peeked", format!("{:?} {:?}", peeked.unwrap(), room.filled()));
        say("ready", format!("{:?}", $one.ready(Interest::READABLE).await));
        let tried = $one.try_io(Interest::READABLE, || Ok(7));
        say("tried", format!("{tried:?}"));
        let count = $one.try_read(&mut buffer[..3]).unwrap();
        say("read", format!("{:?}", &buffer[..count]));
        let (first, rest) = buffer.split_at_mut(2);
        let mut parts = [IoSliceMut::new(first), IoSliceMut::new(rest)];
        say("vectors", format!("{:?}", $one.try_read_vectored(&mut parts).ok()));
        say("none left", format!("{:?}", $one.try_read(&mut buffer).map_err(|e| e.kind())));
        if $is_ours {
            poll_once($one.readable()).await;
        }
        {
            let (read, mut write) = $two.split();
            write.write_all(b"half").await.unwrap();
            write.writable().await.unwrap();
            say("half", format!("{:?}", write.try_write(b"!").ok()));
            if $is_ours {
                poll_once(read.readable()).await;
            }
            let addresses = (read.peer_addr().ok(), write.local_addr().ok());
            say("halves", format!("{:?}", (addresses.0.is_some(), addresses.1.is_some())));
            write.shutdown().await.unwrap();
        }
        let mut calls = 0;
        let length = $one
            .async_io(Interest::READABLE, || {
                calls += 1;
                let count = $one.try_read(&mut buffer)?;
                Ok(count)
            })
            .await;
        say("some of it", format!("{:?}", length.is_ok_and(|count| count > 0)));
        // The rest may come in parts.
        loop {
            $one.readable().await.unwrap();
            if $one.try_read(&mut buffer).is_ok_and(|count| count == 0) {
                break;
            }
        }
        say("end", format!("{:?}", $one.try_read(&mut buffer).ok()));
        // tokio's need not have heard yet that it is closed.
        let ready = $one.ready(Interest::READABLE).await.unwrap();
        say("end", format!("{}", ready.is_readable()));
        let (read, write) = $one.into_split();
        write.writable().await.unwrap();
        say("owned", format!("{:?} {:?}", write.try_write(b"x").ok(), read.try_read(&mut buffer)));
        let ready = write.ready(Interest::WRITABLE).await.unwrap();
        say("owned", format!("{} {}", ready.is_writable(), ready.is_write_closed()));
        drop(write.reunite(read).unwrap());
        lines
    }};
}

#[test]
fn streams_say_what_tokios_say() {
    let fake = Fake::start(2);
    run(2, async {
        let listener = listen(&fake);
        let mut two = connect(&fake, 80).await.unwrap();
        let (one, _) = listener.accept().await.unwrap();
        let peek = |one: &TcpStream, context: &mut Context<'_>, room: &mut ReadBuf<'_>| {
            one.poll_peek(context, room)
        };
        let ours = transcript!(one, two, peek, true);

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut two = tokio::net::TcpStream::connect(address).await.unwrap();
        let (one, _) = listener.accept().await.unwrap();
        let peek = |one: &tokio::net::TcpStream,
                    context: &mut Context<'_>,
                    room: &mut ReadBuf<'_>| one.poll_peek(context, room);
        let theirs = transcript!(one, two, peek, false);
        assert_eq!(ours, theirs);
    });
}

/// No write has failed that could have asked for room.
#[test]
fn a_window_that_is_filled_exactly_is_waited_for() {
    for threads in [1, 2] {
        let fake = Fake::start(1);
        run(threads, async {
            let (stream, handle) = accepted(&fake).await;
            fake.with(|world| world.hold_acks(handle, true));
            for _ in 0..20 {
                assert_eq!(stream.try_write(&vec![1; WINDOW]).unwrap(), WINDOW);
                // Dropped ones, and those that come after, are told all the same.
                poll_once(stream.writable()).await;
                fake.with(|world| world.hold_acks(handle, false));
                stream.writable().await.unwrap();
                fake.with(|world| world.hold_acks(handle, true));
                while stream.try_write(&[1]).is_ok() {}
                fake.with(|world| world.hold_acks(handle, false));
                // Whatever was written last is acknowledged.
                fake.until(|world| (world.held(handle) == 0).then_some(()));
                fake.with(|world| world.hold_acks(handle, true));
            }
        });
    }
}

#[test]
fn extents_are_waited_for() {
    let fake = Fake::start(1);
    run(1, async {
        let listener = listen(&fake);
        fake.with(|world| world.arrive_all(80, 0, 1..3));
        let (stream, _) = listener.accept().await.unwrap();
        let (other, _) = listener.accept().await.unwrap();
        fake.with(|world| world.granting = false);
        while other.try_write(&[1; 5000]).is_ok() {
            fake.with(crate::fake::World::turn);
        }
        poll_once(stream.writable()).await;
        let (granted, ready) = tokio::join!(
            async {
                tokio::time::sleep(Duration::from_millis(2)).await;
                fake.with(|world| world.granting = true);
            },
            stream.ready(Interest::WRITABLE),
        );
        assert!(matches!((granted, ready), ((), Ok(ready)) if ready.is_writable()));
        assert_eq!(stream.try_write(b"x").unwrap(), 1);
    });
}

#[test]
fn a_failure_is_told_to_whoever_waits() {
    let fake = Fake::start(1);
    run(2, async {
        let (stream, handle) = accepted(&fake).await;
        let stream = std::sync::Arc::new(stream);
        let waiter = std::sync::Arc::clone(&stream);
        let waiting = tokio::spawn(async move {
            (waiter.readable().await, waiter.ready(Interest::READABLE | Interest::ERROR).await)
        });
        tokio::time::sleep(Duration::from_millis(2)).await;
        fake.with(|world| world.fail(handle, Errno::CONNRESET));
        let (readable, ready) = waiting.await.unwrap();
        readable.unwrap();
        assert!(ready.unwrap().is_error());
        let error = stream.async_io(Interest::WRITABLE, || stream.get_ref().read(&mut [0])).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionReset);
        drop(fake);
        let gone = stream.readable().await;
        assert_eq!(gone.unwrap_err().kind(), ErrorKind::NetworkDown);
    });
}

/// Each of two tasks waits for a direction of its own.
#[test]
fn two_directions_are_waited_for_apart() {
    let fake = Fake::start(1);
    run(2, async {
        let listener = listen(&fake);
        let client = connect(&fake, 80).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let echo = tokio::spawn(async move {
            let (mut read, mut write) = server.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let bytes = crate::pattern(300_000);
        let (mut sent, mut received) = (0, Vec::new());
        let mut buffer = [0; 4096];
        while received.len() < bytes.len() {
            let wanted = match sent < bytes.len() {
                true => Interest::READABLE | Interest::WRITABLE,
                false => Interest::READABLE,
            };
            let ready = client.ready(wanted).await.unwrap();
            if ready.is_writable() {
                match client.try_write(&bytes[sent..]) {
                    Ok(count) => sent += count,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            if ready.is_readable() {
                let count = client.try_read(&mut buffer).unwrap();
                received.extend_from_slice(&buffer[..count]);
            }
        }
        assert!(received == bytes);
        let mut client = TcpStream::try_from(client.into_std().unwrap()).unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(client.read(&mut buffer).await.unwrap(), 0);
        assert!(client.ready(Interest::READABLE).await.unwrap().is_read_closed());
        echo.await.unwrap();
    });
}
