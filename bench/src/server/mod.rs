//! The echo-and-close server, on kernel sockets and on fourwave: one program in two versions.
//!
//! It sends back what it reads, and closes after `size` bytes or at the peer's end of stream,
//! whichever comes first. With `size` 0 it closes only at the peer's end. One thread, epoll-like
//! readiness, backlog [`BACKLOG`]. And what no such server can surpass: [`reflector`].

mod engine;
pub mod fourwave;
pub mod kernel;
pub mod reflector;
mod session;

use std::io;
use std::net::SocketAddr;

/// The listen backlog of both servers.
pub const BACKLOG: i32 = 4096;

/// Events taken at once.
const EVENTS: usize = 256;

/// What a server prints when it is ready.
pub const READY: &str = "listening on ";

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Bytes to echo before closing; 0: until the peer closes.
    pub size: usize,
}

/// Says on standard output that the server is ready.
#[expect(clippy::print_stdout, reason = "whoever started the server waits for this line")]
fn announce(listen: &[SocketAddr]) -> io::Result<()> {
    use std::io::Write;
    let list: Vec<String> = listen.iter().map(ToString::to_string).collect();
    println!("{READY}{}", list.join(" "));
    io::stdout().flush()
}
