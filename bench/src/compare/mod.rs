//! The same load on a kernel server and on a fourwave server, in interleaved rounds.
//!
//! Both servers are up for the whole run and are warmed once; only the load alternates. Which of
//! them goes first changes from round to round, so that drift of the machine cancels.

mod contender;
mod daemon;
mod progress;
mod result;
mod rounds;
mod settings;
mod table;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::lab::{Lab, LabConfig, LabError};
use crate::load::Via;

pub use contender::Contender;
pub(crate) use contender::Counters;
pub use progress::Progress;
pub(crate) use result::median;
pub use result::{Comparison, ConnectLatency, Ratio, Row};
pub(crate) use rounds::wait_for;
pub use settings::Settings;
pub use table::render;

/// Who processes what an interface receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rps {
    /// The CPU that sent it, as veth does by itself.
    Off,
    /// The receiving side's own CPU.
    Pin,
}

/// What to compare and how.
#[derive(Clone, Debug)]
pub struct CompareConfig {
    /// Where.
    pub lab: LabConfig,
    /// Which load generator.
    pub via: Via,
    /// Which servers.
    pub contenders: Vec<Contender>,
    /// Rounds; in each, every server gets the load once.
    pub rounds: usize,
    /// Length of one load.
    pub duration: Duration,
    /// Length of each server's warm-up load.
    pub warm_up: Duration,
    /// Connections in flight.
    pub concurrency: usize,
    /// Connections per second, for an open loop.
    pub rate: Option<f64>,
    /// Bytes of the echo.
    pub size: usize,
    /// IPv6 instead of IPv4.
    pub v6: bool,
    /// The CPU of the servers and the daemon.
    pub server_cpu: usize,
    /// The CPU of the load.
    pub client_cpu: usize,
    /// Receive packet steering of both ends.
    pub rps: Rps,
    /// Keys of the daemon's configuration, with their values in TOML, that are not as by default.
    pub daemon_keys: BTreeMap<String, String>,
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The lab or a program in it.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// `/proc` or a file of the lab.
    #[error("{what}: {source}")]
    Io {
        /// What was read or written.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The load generator failed as a program.
    #[error("the load generator ended with {status}: {stderr}")]
    Load {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// Its report cannot be read.
    #[error("the report at {}: {source}", path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The daemon is of another version than this program.
    #[error("the daemon does not count `{name}`")]
    NoCounter {
        /// The counter's name.
        name: &'static str,
    },
    /// The user wants to stop.
    #[error("interrupted")]
    Cancelled,
}

impl CompareError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> CompareError {
        move |source| CompareError::Io { what, source }
    }
}

/// Builds the lab, runs all rounds, and removes the lab, also after an error and when `cancelled`
/// becomes true.
///
/// # Errors
/// See [`CompareError`]. Failed connections are no error of the comparison: they are in its rows.
pub fn run(
    config: &CompareConfig,
    cancelled: &AtomicBool,
    progress: &Progress,
) -> Result<Comparison, CompareError> {
    progress.step("building the lab");
    let mut lab = Lab::up(config.lab.clone())?;
    let result = rounds::in_lab(config, &mut lab, cancelled, progress);
    progress.step("removing the lab");
    let removed = lab.down();
    let comparison = result?;
    removed?;
    Ok(comparison)
}

fn check(cancelled: &AtomicBool) -> Result<(), CompareError> {
    // Relaxed: the flag is all that the signal handler tells us.
    if cancelled.load(Ordering::Relaxed) { Err(CompareError::Cancelled) } else { Ok(()) }
}
