//! The echo server, on kernel sockets and on fourwave: one program in two versions.
//!
//! It sends back what it reads, and closes after `size` bytes or at the peer's end of stream,
//! whichever comes first. With `size` 0 it closes only at the peer's end. One thread for each CPU
//! that it is given, epoll-like readiness, backlog [`BACKLOG`]; on kernel sockets also with
//! [io_uring](uring). And what no such server can surpass: [`reflector`].

mod engine;
pub mod fourwave;
pub mod kernel;
pub mod reflector;
mod session;
pub mod uring;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::machine;
use crate::stamps::Stamps;

/// The listen backlog of both servers.
pub const BACKLOG: i32 = 4096;

/// Events taken at once.
const EVENTS: usize = 256;

/// What a server prints when it is ready.
pub const READY: &str = "listening on ";

/// How to serve.
#[derive(Clone, Debug, Default)]
pub struct ServerConfig {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Bytes to echo before closing; 0: until the peer closes.
    pub size: usize,
    /// One thread on each of these CPUs, sharing the addresses by `SO_REUSEPORT`. Empty: one thread
    /// wherever it may run.
    pub cpus: Vec<usize>,
    /// Accept a connection only when its request is there (`TCP_DEFER_ACCEPT`).
    pub defer_accept: bool,
    /// Where to leave the times of accepts, see [`crate::stamps`].
    pub stamps: Option<PathBuf>,
}

impl ServerConfig {
    /// One thread, everything else as the systems have it.
    pub fn new(listen: Vec<SocketAddr>, size: usize) -> ServerConfig {
        ServerConfig { listen, size, ..ServerConfig::default() }
    }

    /// Whether several sockets share each address.
    fn shares_addresses(&self) -> bool {
        self.cpus.len() > 1
    }

    fn stamps(&self) -> io::Result<Option<Stamps>> {
        self.stamps.as_deref().map(Stamps::open).transpose()
    }
}

/// Says that the server is ready when all its threads listen.
struct Readiness<'a> {
    config: &'a ServerConfig,
    missing: AtomicUsize,
}

impl Readiness<'_> {
    /// The calling thread listens.
    fn listening(&self) -> io::Result<()> {
        // Relaxed: it only counts.
        match self.missing.fetch_sub(1, Ordering::Relaxed) {
            1 => announce(&self.config.listen),
            _ => Ok(()),
        }
    }
}

/// Runs `serve` on each CPU of the configuration, until the first one fails.
fn on_all_cpus(
    config: &ServerConfig,
    serve: impl Fn(&Readiness<'_>) -> io::Result<()> + Sync,
) -> io::Result<()> {
    let missing = AtomicUsize::new(config.cpus.len().max(1));
    let readiness = Readiness { config, missing };
    match config.cpus.as_slice() {
        [] => serve(&readiness),
        // The process itself was pinned: no thread is needed.
        &[cpu] => machine::pin(cpu).and_then(|()| serve(&readiness)),
        cpus => thread::scope(|scope| {
            let (ended, first) = std::sync::mpsc::channel();
            for &cpu in cpus {
                let (ended, serve, readiness) = (ended.clone(), &serve, &readiness);
                scope.spawn(move || {
                    let result = machine::pin(cpu).and_then(|()| serve(readiness));
                    let _ = ended.send(result);
                });
            }
            // One that has ended cannot serve its share: the whole process ends with the error.
            match first.recv() {
                Ok(Err(error)) => {
                    eprintln!("a thread of the server: {error}");
                    std::process::exit(1);
                }
                Ok(Ok(())) | Err(_) => Ok(()),
            }
        }),
    }
}

/// Says on standard output that the server is ready.
#[expect(clippy::print_stdout, reason = "whoever started the server waits for this line")]
fn announce(listen: &[SocketAddr]) -> io::Result<()> {
    use std::io::Write;
    let list: Vec<String> = listen.iter().map(ToString::to_string).collect();
    println!("{READY}{}", list.join(" "));
    io::stdout().flush()
}
