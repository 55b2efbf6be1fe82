//! Load: very many short connections, each of them timed and its echo checked.

pub mod kernel;
mod pace;
mod report;
mod sources;
pub mod xdp;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

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
    /// Connections in flight at once (closed loop); an open loop has its own limit,
    /// [`OPEN_LOOP_IN_FLIGHT`].
    pub concurrency: usize,
    /// Connections to start per second (open loop), at equal distances. A start that comes late
    /// counts from when it was due.
    pub rate: Option<f64>,
    /// When to stop.
    pub until: Until,
    /// A connection that takes longer is an error.
    pub timeout: Duration,
}

/// Connections that an open loop may have in flight; further ones wait, and their waiting counts.
pub const OPEN_LOOP_IN_FLIGHT: usize = 8192;
