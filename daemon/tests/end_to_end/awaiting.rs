//! Servers and clients on tokio, with the kernel as the peer.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use fourwave::SocketOptions;
use fourwave::tokio::{TcpListener, TcpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};

use crate::support::{Bed, FAMILIES};

/// Connections that the kernel makes, from several threads.
const CONNECTIONS: usize = 400;
const THREADS: usize = 4;

/// Waits for readiness apart from reading and writing.
async fn echo_when_ready(stream: &TcpStream) -> std::io::Result<()> {
    let mut bytes = [0; 1024];
    loop {
        stream.readable().await?;
        let count = stream.async_io(Interest::READABLE, || stream.try_read(&mut bytes)).await?;
        if count == 0 {
            return Ok(());
        }
        let mut rest = &bytes[..count];
        while !rest.is_empty() {
            stream.writable().await?;
            rest = &rest[stream.try_write(rest)?..];
        }
    }
}

#[test]
fn an_echo_server_and_a_client_on_tokio() {
    let Some(bed) = Bed::new("tokio") else { return };
    let runtime = bed.runtime();
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for v6 in FAMILIES {
        let address = bed.server_address(v6, 7777);
        let options = SocketOptions::new().runtime(&runtime);
        let listener = options.bind(address).expect("it can be bound");
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for number in 0..CONNECTIONS / THREADS {
                        let mut stream = bed.kernel_connect(address);
                        let request = [number as u8; 64];
                        stream.write_all(&request).expect("it is connected");
                        stream.shutdown(Shutdown::Write).expect("it is connected");
                        let mut reply = Vec::new();
                        stream.read_to_end(&mut reply).expect("an orderly end");
                        assert_eq!(reply, request);
                    }
                });
            }
            tokio.block_on(async {
                let listener = TcpListener::from_std(listener).expect("in a runtime");
                let mut echoes = Vec::new();
                for number in 0..CONNECTIONS {
                    let (stream, _) = listener.accept().await.expect("a connection comes");
                    echoes.push(tokio::spawn(async move {
                        if number % 2 == 0 {
                            return echo_when_ready(&stream).await.expect("it is echoed");
                        }
                        let (mut read, mut write) = stream.into_split();
                        tokio::io::copy(&mut read, &mut write).await.expect("it is echoed");
                    }));
                }
                for echo in echoes {
                    echo.await.expect("no panic");
                }
            });
        });

        let kernel = bed.kernel_listen(bed.client_address(v6, 0));
        let to = kernel.local_addr().expect("it listens");
        let echo = thread::spawn(move || {
            let (mut stream, _) = kernel.accept().expect("it comes");
            let mut request = [0; 5];
            stream.read_exact(&mut request).expect("it is connected");
            stream.write_all(&request).expect("it is connected");
        });
        tokio.block_on(async {
            let connected = TcpStream::connect_with(&options, to).await;
            let mut stream = connected.expect("somebody listens");
            stream.write_all(b"hello").await.expect("it is connected");
            let mut reply = Vec::new();
            stream.read_to_end(&mut reply).await.expect("an orderly end");
            assert_eq!(reply, b"hello");
        });
        echo.join().expect("no panic");
    }
    drop(tokio);
    drop(runtime);
    bed.wait_until_empty();
}
