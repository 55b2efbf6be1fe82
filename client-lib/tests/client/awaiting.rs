//! Sockets on tokio.

use crate::fake::{CLOSED_PORT, Fake, SILENT_PORT};
use crate::pattern;
use fourwave::tokio::{TcpListener, TcpStream};
use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Runs a test on two threads, or on one; longer than this hangs.
pub(crate) fn run(threads: usize, test: impl Future<Output = ()>) {
    let runtime = match threads {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        _ => {
            tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
        }
    };
    let bounded = async { tokio::time::timeout(Duration::from_secs(60), test).await };
    runtime.unwrap().block_on(bounded).expect("it hangs");
}

pub(crate) fn listen(fake: &Fake) -> TcpListener {
    TcpListener::from_std(fake.options().bind("10.99.0.2:80").unwrap()).unwrap()
}

pub(crate) async fn connect(fake: &Fake, port: u16) -> std::io::Result<TcpStream> {
    TcpStream::connect_with(&fake.options(), ([10, 99, 0, 2], port).into()).await
}

#[test]
fn an_echo_server_and_many_clients() {
    for threads in [1, 2] {
        let fake = Fake::start(2);
        run(threads, async {
            let listener = listen(&fake);
            let server = tokio::spawn(async move {
                for _ in 0..24 {
                    let (stream, peer) = listener.accept().await.unwrap();
                    assert_eq!(stream.peer_addr().unwrap(), peer);
                    tokio::spawn(async move {
                        let (mut read, mut write) = stream.into_split();
                        tokio::io::copy(&mut read, &mut write).await.unwrap();
                    });
                }
            });
            let mut clients = Vec::new();
            for number in 0..24 {
                let (mut read, mut write) = connect(&fake, 80).await.unwrap().into_split();
                clients.push(tokio::spawn(async move {
                    // More than a window: both directions have to wait for each other.
                    let sent = pattern(100_000 + number);
                    let expected = sent.clone();
                    let writing = tokio::spawn(async move {
                        write.write_all(&sent).await.unwrap();
                        write.shutdown().await.unwrap();
                        write
                    });
                    let mut received = Vec::new();
                    read.read_to_end(&mut received).await.unwrap();
                    assert!(received == expected, "client {number}");
                    read.reunite(writing.await.unwrap()).unwrap()
                }));
            }
            for client in clients {
                client.await.unwrap();
            }
            server.await.unwrap();
        });
    }
}

#[test]
fn connects_fail_as_they_should() {
    let fake = Fake::start(1);
    run(2, async {
        let error = connect(&fake, CLOSED_PORT).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let silent = connect(&fake, SILENT_PORT);
        assert!(tokio::time::timeout(Duration::from_millis(50), silent).await.is_err());
    });
}

#[test]
fn a_dropped_future_has_taken_nothing() {
    let fake = Fake::start(1);
    run(1, async {
        let listener = listen(&fake);
        let short = Duration::from_millis(20);
        assert!(tokio::time::timeout(short, listener.accept()).await.is_err());
        let mut client = connect(&fake, 80).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 8];
        assert!(tokio::time::timeout(short, server.read(&mut buffer)).await.is_err());
        client.write_all(b"late").await.unwrap();
        assert_eq!(server.peek(&mut buffer).await.unwrap(), 4);
        assert_eq!(server.read(&mut buffer).await.unwrap(), 4);
        assert_eq!(&buffer[..4], b"late");
        drop(client);
        assert_eq!(server.read(&mut buffer).await.unwrap(), 0);
    });
}

/// Polls a future once, as `select!` does with the branches that lose; it must not be done.
pub(crate) async fn poll_once(future: impl Future<Output = impl std::fmt::Debug>) {
    tokio::select! {
        biased;
        output = future => panic!("done too early: {output:?}"),
        () = std::future::ready(()) => {}
    }
}

#[test]
fn a_woken_future_that_is_dropped_has_taken_nothing() {
    let fake = Fake::start(1);
    run(1, async {
        let listener = listen(&fake);
        let mut buffer = [0; 8];
        for round in 0..50 {
            // Each future is dropped when its task was woken, and never polled again.
            let mut accepting = Box::pin(listener.accept());
            poll_once(&mut accepting).await;
            let handle = fake.with(|world| world.arrive(80, 0, round));
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(accepting);
            let (mut server, _) = listener.accept().await.unwrap();

            let mut reading = Box::pin(server.read(&mut buffer));
            poll_once(&mut reading).await;
            fake.with(|world| world.peer_sends(handle, b"late"));
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(reading);
            let count = server.read(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..count], b"late", "round {round}");
        }
    });
}

#[test]
fn a_wake_up_that_is_dropped_keeps_nobody_else_waiting() {
    let fake = Fake::start(1);
    run(1, async {
        let listener = listen(&fake);
        let mut first = Box::pin(listener.accept());
        poll_once(&mut first).await;
        let mut second = Box::pin(listener.accept());
        poll_once(&mut second).await;
        fake.with(|world| world.arrive(80, 0, 1));
        drop(first);
        second.await.unwrap();
    });
}

/// A stream is copied while every future is dropped again and again, ready or not.
#[test]
fn a_stream_survives_futures_that_are_dropped() {
    let fake = Fake::start(1);
    run(2, async {
        let listener = listen(&fake);
        let mut client = connect(&fake, 80).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let bytes = pattern(1_000_000);
        let expected = bytes.clone();
        let writing = tokio::spawn(async move {
            let (mut done, mut turn) = (0, 0u32);
            while done < bytes.len() {
                turn += 1;
                tokio::select! {
                    biased;
                    () = tokio::task::yield_now(), if turn % 3 == 0 => {}
                    count = client.write(&bytes[done..]) => done += count.unwrap(),
                    () = tokio::task::yield_now() => {}
                }
            }
            client.shutdown().await.unwrap();
        });
        let (mut received, mut buffer, mut turn) = (Vec::<u8>::new(), [0; 3000], 0u32);
        loop {
            turn += 1;
            tokio::select! {
                biased;
                () = tokio::task::yield_now(), if turn % 3 == 0 => {}
                count = server.read(&mut buffer) => match count.unwrap() {
                    0 => break,
                    count => received.extend(&buffer[..count]),
                },
                () = tokio::task::yield_now() => {}
            }
        }
        writing.await.unwrap();
        assert!(received == expected);
    });
}

#[test]
fn sockets_leave_the_runtime() {
    let fake = Fake::start(1);
    run(1, async {
        let listener = listen(&fake);
        let client = connect(&fake, 80).await.unwrap();
        assert!(!client.nodelay().unwrap());
        client.set_nodelay(true).unwrap();
        client.set_linger(Some(Duration::from_secs(2))).unwrap();
        assert_eq!(client.linger().unwrap(), Some(Duration::from_secs(2)));
        assert!(client.nodelay().unwrap() && client.take_error().unwrap().is_none());
        let (server, _) = listener.accept().await.unwrap();
        let client = client.into_std().unwrap();
        client.set_linger(None).unwrap();
        client.set_nonblocking(false).unwrap();
        std::io::Write::write_all(&mut &client, b"blocking").unwrap();
        let mut server = TcpStream::from_std(server.into_std().unwrap()).unwrap();
        let mut buffer = [0; 8];
        server.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"blocking");

        let listener = listener.into_std().unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        let listener = TcpListener::from_std(listener).unwrap();
        let client = connect(&fake, 80).await.unwrap();
        let (mut read, write) = listener.accept().await.unwrap().0.into_split();
        std::io::Write::write_all(&mut client.get_ref(), b"x").unwrap();
        assert_eq!(read.peek(&mut buffer).await.unwrap(), 1);
        assert_eq!(read.read(&mut buffer).await.unwrap(), 1);
        drop((client, write));
        assert_eq!(read.read(&mut buffer).await.unwrap(), 0);
    });
}

#[test]
fn a_connect_that_is_dropped_leaves_no_connection() {
    let fake = Fake::start(1);
    run(1, async {
        poll_once(Box::pin(connect(&fake, SILENT_PORT))).await;
        fake.until(|world| (world.open_connections() == 0).then_some(()));
    });
}

#[test]
fn several_tasks_accept_on_one_listener() {
    let fake = Fake::start(2);
    run(2, async {
        let listener = std::sync::Arc::new(listen(&fake));
        let acceptors: Vec<_> = (0..4)
            .map(|_| {
                let listener = std::sync::Arc::clone(&listener);
                tokio::spawn(async move { listener.accept().await.unwrap().1.port() })
            })
            .collect();
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(connect(&fake, 80).await.unwrap());
        }
        let mut accepted = Vec::new();
        for acceptor in acceptors {
            accepted.push(acceptor.await.unwrap());
        }
        let mut ports: Vec<u16> =
            clients.iter().map(|client| client.local_addr().unwrap().port()).collect();
        accepted.sort_unstable();
        ports.sort_unstable();
        assert_eq!(accepted, ports);
    });
}

#[test]
fn a_daemon_that_goes_wakes_whoever_waits() {
    let fake = Fake::start(1);
    run(2, async {
        let listener = listen(&fake);
        let waiting = tokio::spawn(async move { listener.accept().await.map(drop) });
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(fake);
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NetworkDown);
    });
}

#[test]
fn outside_of_a_runtime_it_says_so() {
    let fake = Fake::start(1);
    let listener = fake.options().bind("10.99.0.2:80").unwrap();
    let error = TcpListener::from_std(listener).unwrap_err();
    assert!(error.to_string().contains("no reactor running"), "{error}");
}
