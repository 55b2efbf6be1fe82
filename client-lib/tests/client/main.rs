//! The client library against a daemon in the same process. No privilege needed.

mod accepting;
#[cfg(feature = "tokio")]
mod awaiting;
mod failing;
#[allow(dead_code, reason = "the tests of forks use the rest")]
mod fake;
mod options;
mod polling;
mod quiet;
#[cfg(feature = "tokio")]
mod readiness;
mod scale;
mod several;
mod streams;

use fake::Fake;
use fourwave::{TcpListener, TcpStream};
use std::io;

/// A listener on port 80 of this daemon.
fn listener(fake: &Fake) -> TcpListener {
    fake.options().bind("10.99.0.2:80").unwrap()
}

/// Two ends of one connection, both of this process.
fn pair(fake: &Fake) -> (TcpStream, TcpStream) {
    let options = fake.options();
    let listener = options.bind("10.99.0.2:0").unwrap();
    let client = options.connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

/// Bytes that do not repeat where extents do.
fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i * 7 + i / 4096 * 13 + i / 251) as u8).collect()
}

/// The errno of a result that must be an error.
fn errno_of<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    fourwave::errno(&result.unwrap_err()).expect("an errno")
}
