//! Load: very many short connections, each of them timed and its echo checked.

pub mod kernel;
mod pace;
mod report;
mod sources;
pub mod xdp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::stamps::Stamps;

pub use report::{Latency, LoadReport, Outcome};
pub use sources::{AddressRange, BadRange, Sources};

/// Whose TCP makes the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Via {
    /// The kernel's sockets.
    Kernel,
    /// This program itself, on AF_XDP.
    Xdp,
}

impl Via {
    /// Its name in tables and arguments.
    pub fn name(self) -> &'static str {
        match self {
            Via::Kernel => "kernel",
            Via::Xdp => "xdp",
        }
    }
}

/// When a load ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Until {
    /// No connection starts after this time.
    Elapsed(Duration),
    /// This many connections are started.
    Connections(u64),
}

/// What load to make.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// The server.
    pub target: SocketAddr,
    /// Client addresses; none: the kernel chooses address and port.
    pub sources: Vec<IpAddr>,
    /// Number of the (address, port) pair to begin with, so that one load goes on where another
    /// stopped, and no pair comes back within its TIME_WAIT.
    pub first_source: u64,
    /// Bytes to send, and to get back, on each connection.
    pub size: usize,
    /// Connections in flight at once (closed loop).
    pub concurrency: usize,
    /// Connections to start per second (open loop), at equal distances. A start that comes late
    /// counts from when it was due.
    pub rate: Option<f64>,
    /// When to stop.
    pub until: Until,
    /// A connection that takes longer is an error.
    pub timeout: Duration,
    /// Each connection makes one request after another until no more may start, and closes first:
    /// for servers that close only then.
    pub keep_alive: bool,
    /// From AF_XDP only: a connection ends for its client when it is open, and stays open for its
    /// server.
    pub hold: bool,
    /// So many ports of the server, from the target's on, in turn.
    pub ports: u16,
    /// Most connections that an open loop may have in flight.
    pub in_flight_limit: usize,
    /// A start of an open loop that finds no room is left out and counted, instead of waiting.
    pub shed: bool,
    /// From AF_XDP only: frames may be held back so long to be sent together, as a NIC's interrupt
    /// moderation does.
    pub coalesce: Duration,
    /// Where the server leaves the times of its accepts, see [`crate::stamps`].
    pub stamps: Option<PathBuf>,
}

impl LoadConfig {
    /// Short connections with 64 bytes each from any address, 64 at once, for three seconds.
    pub fn new(target: SocketAddr) -> LoadConfig {
        LoadConfig {
            target,
            sources: Vec::new(),
            first_source: 0,
            size: 64,
            concurrency: 64,
            rate: None,
            until: Until::Elapsed(Duration::from_secs(3)),
            timeout: Duration::from_secs(10),
            keep_alive: false,
            hold: false,
            ports: 1,
            in_flight_limit: OPEN_LOOP_IN_FLIGHT,
            shed: false,
            coalesce: Duration::ZERO,
            stamps: None,
        }
    }

    fn open_stamps(&self) -> io::Result<Option<Stamps>> {
        self.stamps.as_deref().map(Stamps::open).transpose()
    }
}

/// Connections that an open loop may have in flight unless told otherwise; further ones wait, and
/// their waiting counts.
pub const OPEN_LOOP_IN_FLIGHT: usize = 8192;
