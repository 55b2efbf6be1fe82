//! The outcome, in the form that `--json` writes.

use serde::Serialize;

use super::{Cell, Direction, GoodputConfig, Sample};
use crate::compare::{CompareError, Ratio, median};
use crate::lab::Lab;
use crate::relay::{Counters, Impairment};

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Goodput {
    /// All that must be known to judge the figures.
    pub settings: Settings,
    /// One for each kind of stream.
    pub rows: Vec<Row>,
}

/// How it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// Length of a stream.
    pub bytes: usize,
    /// Streams of each kind on each server.
    pub rounds: usize,
    /// The CPU of the servers and the daemon.
    pub server_cpu: usize,
    /// The CPU of the clients and the relay.
    pub client_cpu: usize,
    /// MTU of the links.
    pub mtu: u32,
    /// Offloads of the server's and the client's end that are on.
    pub offloads_on: [Vec<&'static str>; 2],
    /// The kernel sockets' congestion control.
    pub congestion_control: &'static str,
    /// Over one minute, before the run.
    pub load_average: f64,
}

impl Settings {
    pub(super) fn of(
        config: &GoodputConfig,
        lab: &Lab,
        load_average: f64,
    ) -> Result<Settings, CompareError> {
        let status = lab.status()?;
        Ok(Settings {
            bytes: config.bytes,
            rounds: config.rounds,
            server_cpu: config.server_cpu,
            client_cpu: config.client_cpu,
            mtu: config.lab.mtu,
            offloads_on: [status.server.offloads_on, status.client.offloads_on],
            congestion_control: "cubic",
            load_average,
        })
    }
}

/// One kind of stream, on both servers.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// 4 or 6.
    pub ip_version: u8,
    /// Which way.
    pub direction: Direction,
    /// How bad the path was.
    pub path: Impairment,
    /// Kernel to kernel.
    pub kernel: Figures,
    /// With fourwave as the server.
    pub fourwave: Figures,
    /// Goodput with fourwave divided by the kernel's of the same round.
    pub goodput_ratio: Option<Ratio>,
}

/// What one server did.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Median, megabits per second; 0 when all failed.
    pub goodput_mbps: f64,
    /// Streams that did not arrive whole.
    pub errors: usize,
    /// Segments sent again by either side in all rounds.
    pub retransmits: u64,
    /// What the relay did in all rounds.
    pub relay: Counters,
}

impl Row {
    pub(super) fn of(cell: Cell, kernel: &[Sample], fourwave: &[Sample], bytes: usize) -> Row {
        let rate = |sample: &Sample| sample.mbps(bytes);
        let pairs = fourwave.iter().map(rate).zip(kernel.iter().map(rate));
        Row {
            ip_version: if cell.v6 { 6 } else { 4 },
            direction: cell.direction,
            path: cell.path,
            kernel: Figures::of(kernel, bytes),
            fourwave: Figures::of(fourwave, bytes),
            goodput_ratio: Ratio::over(pairs),
        }
    }

    /// Both servers', the kernel's first.
    pub fn figures(&self) -> [&Figures; 2] {
        [&self.kernel, &self.fourwave]
    }
}

impl Figures {
    fn of(samples: &[Sample], bytes: usize) -> Figures {
        let good = samples.iter().filter(|sample| sample.error.is_none());
        let rates: Vec<f64> = good.map(|sample| sample.mbps(bytes)).collect();
        let relay = samples.iter().map(|sample| sample.relay);
        Figures {
            goodput_mbps: median(&rates).unwrap_or(0.0),
            errors: samples.len() - rates.len(),
            retransmits: samples.iter().map(|sample| sample.retransmits).sum(),
            relay: relay.fold(Counters::default(), |sum, counters| sum + counters),
        }
    }
}

impl Sample {
    /// Megabits per second; 0 for a stream that failed.
    fn mbps(&self, bytes: usize) -> f64 {
        match self.error {
            None => bytes as f64 * 8.0 / 1e6 / self.elapsed.as_secs_f64().max(1e-9),
            Some(_) => 0.0,
        }
    }
}
