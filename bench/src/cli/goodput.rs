//! `goodput`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure};
use fourwave_bench::compare::Progress;
use fourwave_bench::goodput::{self, Direction, Goodput, GoodputConfig, Row};
use fourwave_bench::lab::{self, LabConfig};
use fourwave_bench::relay::Impairment;

use super::{ReportFile, bytes, cpu, duration, interruptible};

/// Each kind of harm by itself, then some of all.
const PATHS: [&str; 7] = [
    "clean",
    "loss=0.1",
    "loss=1",
    "loss=5",
    "reorder=2",
    "duplicate=1",
    "loss=1,duplicate=1,reorder=2",
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A path: `clean`, or some of loss=P,duplicate=P,reorder=P (per cent) and delay=Nus;
    /// may be given several times [default: each of these by itself, and together]
    #[arg(long = "path", value_name = "PATH")]
    paths: Vec<Impairment>,
    /// Length of a stream
    #[arg(long, default_value = "100MiB", value_parser = bytes)]
    bytes: usize,
    /// Streams of each kind on each server
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Which ways the streams go: down is from the server
    #[arg(long, value_delimiter = ',', default_value = "down,up")]
    directions: Vec<Direction>,
    /// Address families
    #[arg(long, value_delimiter = ',', default_value = "4,6", value_parser = ["4", "6"])]
    ip: Vec<String>,
    /// A stream that takes longer has failed
    #[arg(long, default_value = "2m", value_parser = duration)]
    patience: Duration,
    /// CPU of the servers and the daemon; default: the second one
    #[arg(long)]
    server_cpu: Option<usize>,
    /// CPU of the clients and the relay; default: the first one
    #[arg(long)]
    client_cpu: Option<usize>,
    /// Where the fates of the frames begin
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write figures and settings to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Args {
    #[expect(clippy::print_stdout, reason = "the result of the command")]
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.config()?;
        let json = ReportFile::open(self.json.as_deref())?;
        let cancelled = interruptible()?;
        // A millisecond of the bar stands for one stream.
        let progress = Progress::visible(Duration::from_millis(config.transfers() as u64));
        let goodput = goodput::run(&config, &cancelled, &progress);
        progress.finish();
        let goodput = goodput?;
        println!("{}", goodput::render(&goodput).trim_end());
        json.write(&goodput)?;
        verdict(&goodput)
    }

    fn config(&self) -> anyhow::Result<GoodputConfig> {
        ensure!(self.rounds > 0, "--rounds must be above 0");
        ensure!(self.bytes > 0, "--bytes must be above 0");
        lab::daemon_binary()?;
        let default = || PATHS.iter().map(|path| path.parse().map_err(anyhow::Error::msg));
        let paths = match self.paths.as_slice() {
            [] => default().collect::<anyhow::Result<_>>()?,
            given => given.to_vec(),
        };
        Ok(GoodputConfig {
            lab: LabConfig::named("fw-good").relayed(),
            paths,
            directions: self.directions.clone(),
            families: self.ip.iter().map(|version| version == "6").collect(),
            rounds: self.rounds,
            bytes: self.bytes,
            patience: self.patience,
            server_cpu: cpu(self.server_cpu, 1)?,
            client_cpu: cpu(self.client_cpu, 0)?,
            seed: self.seed,
            daemon_keys: Default::default(),
        })
    }
}

/// Streams that did not arrive are no result.
fn verdict(goodput: &Goodput) -> anyhow::Result<ExitCode> {
    let errors: usize =
        goodput.rows.iter().flat_map(Row::figures).map(|figures| figures.errors).sum();
    if errors > 0 {
        bail!("{errors} streams did not arrive whole");
    }
    Ok(ExitCode::SUCCESS)
}
