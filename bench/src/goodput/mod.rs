//! Long streams over bad paths: kernel to kernel, and kernel to fourwave, over the same relay.
//!
//! A kernel client exchanges one stream after the other with a kernel server and with a fourwave
//! server, in interleaved rounds; every byte is compared. The figure is goodput: bytes of the
//! stream over the time from the first write until the last byte was read. Both sides use CUBIC.

mod report;
mod table;
mod transfer;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fourwave::{Runtime, SocketOptions};
use serde::Serialize;

use crate::compare::{CompareError, Contender, Progress};
use crate::lab::{DaemonOptions, Lab, LabConfig, LabError, Side};
use crate::machine::{self, NetCounters};
use crate::relay::{Impairment, Relay};

pub use report::{Goodput, Row, Settings};
pub use table::render;
pub(crate) use transfer::{Listener, Transfer, pattern, use_cubic};

/// Which way a stream goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The server sends.
    Down,
    /// The client, which uses kernel sockets, sends.
    Up,
}

impl Direction {
    /// Both.
    pub const ALL: [Direction; 2] = [Direction::Down, Direction::Up];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Down => "from the server",
            Direction::Up => "to the server",
        }
    }
}

/// What to compare and how.
#[derive(Clone, Debug)]
pub struct GoodputConfig {
    /// Where; must be [`LabConfig::relayed`].
    pub lab: LabConfig,
    /// How bad the paths are.
    pub paths: Vec<Impairment>,
    /// Which ways the streams go.
    pub directions: Vec<Direction>,
    /// Address families: whether IPv6.
    pub families: Vec<bool>,
    /// Streams of each kind.
    pub rounds: usize,
    /// Length of a stream.
    pub bytes: usize,
    /// A stream that takes longer has failed.
    pub patience: Duration,
    /// The CPU of the servers and the daemon.
    pub server_cpu: usize,
    /// The CPU of the clients and the relay.
    pub client_cpu: usize,
    /// Where the fates of the frames begin.
    pub seed: u64,
    /// Keys of the daemon's configuration, with their values in TOML, that are not as by default.
    pub daemon_keys: BTreeMap<String, String>,
}

impl GoodputConfig {
    /// Streams in all.
    pub fn transfers(&self) -> usize {
        let cells = self.paths.len() * self.directions.len() * self.families.len();
        cells * self.rounds * CONTENDERS.len()
    }
}

const CONTENDERS: [Contender; 2] = [Contender::Kernel, Contender::Fourwave];

/// One kind of stream.
#[derive(Clone, Copy, Debug)]
struct Cell {
    path: Impairment,
    direction: Direction,
    v6: bool,
}

/// Builds the lab, runs everything, and removes the lab, also after an error and when `cancelled`
/// becomes true.
///
/// # Errors
/// See [`CompareError`]. A stream that fails is no error of the comparison: it is in its row.
pub fn run(
    config: &GoodputConfig,
    cancelled: &AtomicBool,
    progress: &Progress,
) -> Result<Goodput, CompareError> {
    progress.step("building the lab");
    let load_average = machine::load_average().map_err(CompareError::io("the load average"))?;
    let mut lab = Lab::up(config.lab.clone())?;
    let result = in_lab(config, &mut lab, cancelled, progress, load_average);
    progress.step("removing the lab");
    let removed = lab.down();
    let goodput = result?;
    removed?;
    Ok(goodput)
}

fn in_lab(
    config: &GoodputConfig,
    lab: &mut Lab,
    cancelled: &AtomicBool,
    progress: &Progress,
    load_average: f64,
) -> Result<Goodput, CompareError> {
    let options = DaemonOptions {
        ports: Vec::new(),
        cpus: vec![config.server_cpu; config.lab.queues as usize],
        keys: config.daemon_keys.clone(),
    };
    let text = lab.daemon_config(Side::Server, &options);
    lab.start_daemon(Side::Server, &text)?;
    let runtime = Runtime::connect(lab.control_socket(Side::Server))
        .map_err(CompareError::io("the daemon's control socket"))?;
    let bed = Bed { config, lab, runtime: &runtime, data: pattern(config.bytes) };
    let mut rows = Vec::new();
    for &path in &config.paths {
        for &v6 in &config.families {
            let listeners = bed.listen(v6)?;
            for &direction in &config.directions {
                let cell = Cell { path, direction, v6 };
                let family = if v6 { "IPv6" } else { "IPv4" };
                progress.step(&format!("{family}, {}, {path}", direction.name()));
                let mut samples: [Vec<Sample>; 2] = [Vec::new(), Vec::new()];
                for round in 0..config.rounds {
                    let mut order = [0, 1];
                    order.rotate_left(round % 2);
                    for place in order {
                        if cancelled.load(Ordering::Relaxed) {
                            return Err(CompareError::Cancelled);
                        }
                        let seed = config.seed.wrapping_add((rows.len() * 64 + round) as u64);
                        let contender = CONTENDERS[place];
                        let sample = bed.sample(cell, contender, &listeners[place], seed)?;
                        if let Some(error) = &sample.error {
                            progress.note(&format!("{} server: {error}", contender.name()));
                        }
                        samples[place].push(sample);
                        progress.advance(Duration::from_millis(1));
                    }
                }
                rows.push(Row::of(cell, &samples[0], &samples[1], config.bytes));
            }
        }
    }
    let settings = Settings::of(config, lab, load_average)?;
    Ok(Goodput { settings, rows })
}

/// One stream.
#[derive(Clone, Debug)]
struct Sample {
    /// Time from the first write to the last byte read; meaningless with an error.
    elapsed: Duration,
    error: Option<String>,
    relay: crate::relay::Counters,
    /// Segments sent again by either side.
    retransmits: u64,
}

/// Everything that stays for the whole run.
struct Bed<'a> {
    config: &'a GoodputConfig,
    lab: &'a Lab,
    runtime: &'a Runtime,
    data: Vec<u8>,
}

impl Bed<'_> {
    /// The servers, in the order of [`CONTENDERS`].
    fn listen(&self, v6: bool) -> Result<[Listener; 2], CompareError> {
        let address = |contender: Contender| contender.address(self.lab, v6);
        let kernel = self.lab.server().run(|| {
            let listener = std::net::TcpListener::bind(address(Contender::Kernel))?;
            listener.set_nonblocking(true)?;
            // What it accepts inherits that.
            use_cubic(&listener)?;
            Ok(listener)
        })?;
        let fourwave = SocketOptions::new()
            .runtime(self.runtime)
            .bind(address(Contender::Fourwave))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        let failed = |error: io::Error| CompareError::io("listening")(error);
        Ok([
            Listener::Kernel(kernel.map_err(failed)?),
            Listener::Fourwave(fourwave.map_err(failed)?),
        ])
    }

    fn sample(
        &self,
        cell: Cell,
        contender: Contender,
        listener: &Listener,
        seed: u64,
    ) -> Result<Sample, CompareError> {
        let client = || -> Result<NetCounters, CompareError> {
            let counters = self.lab.client().run(NetCounters::read)?;
            counters.map_err(CompareError::io("TCP counters"))
        };
        let before = (client()?, contender.counters(self.lab)?);
        let relay = Relay::start(self.lab, cell.path, seed, Some(self.config.client_cpu))?;
        let transfer = Transfer {
            config: self.config,
            lab: self.lab,
            listener,
            address: self.address(cell, contender),
            direction: cell.direction,
            data: &self.data,
        };
        let outcome = transfer.run();
        let relay = relay.stop().map_err(LabError::Relay)?;
        let after = (client()?, contender.counters(self.lab)?);
        let retransmits =
            after.0.since(&before.0, "TcpRetransSegs") + after.1.retransmits_since(&before.1)?;
        let (elapsed, error) = match outcome {
            Ok(elapsed) => (elapsed, None),
            Err(error) => (Duration::ZERO, Some(error.to_string())),
        };
        Ok(Sample { elapsed, error, relay, retransmits })
    }

    fn address(&self, cell: Cell, contender: Contender) -> SocketAddr {
        contender.address(self.lab, cell.v6)
    }
}
