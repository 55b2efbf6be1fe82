//! `flood`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure};
use fourwave_bench::compare::Progress;
use fourwave_bench::flood::{self, Config};
use fourwave_bench::lab::{self, LabConfig};

use super::{ReportFile, cpu, duration, interruptible, rate, setting};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Spoofed SYNs
    #[arg(long, default_value_t = 1_000_000)]
    syns: u64,
    /// Spoofed SYNs per second
    #[arg(long, default_value = "100000", value_parser = rate)]
    syn_rate: f64,
    /// Honest connections per second
    #[arg(long, default_value = "1000", value_parser = rate)]
    rate: f64,
    /// How long to make them without a flood, for comparison [default: as long as with it]
    #[arg(long, value_parser = duration)]
    quiet: Option<Duration>,
    /// An honest connection that takes longer has failed
    #[arg(long, default_value = "30s", value_parser = duration)]
    patience: Duration,
    /// Over IPv6
    #[arg(long)]
    ipv6: bool,
    /// CPU of the daemon and the server; default: the second one
    #[arg(long)]
    server_cpu: Option<usize>,
    /// CPU of the client and the flood; default: the first one
    #[arg(long)]
    client_cpu: Option<usize>,
    /// A key of the daemon's configuration with its value in TOML, such as umem_frames=16384; may be
    /// given several times
    #[arg(long, value_parser = setting)]
    set: Vec<(String, String)>,
    /// Write the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Args {
    #[expect(clippy::print_stdout, reason = "the result of the command")]
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let json = ReportFile::open(self.json.as_deref())?;
        ensure!(self.syns > 0, "--syns must be above 0");
        lab::daemon_binary()?;
        let flood = Duration::from_secs_f64(self.syns as f64 / self.syn_rate);
        let quiet = self.quiet.unwrap_or(flood);
        let config = Config {
            lab: LabConfig::named("fw-flood"),
            v6: self.ipv6,
            syns: self.syns,
            syn_rate: self.syn_rate,
            rate: self.rate,
            quiet,
            patience: self.patience,
            server_cpu: cpu(self.server_cpu, 1)?,
            client_cpu: cpu(self.client_cpu, 0)?,
            daemon_keys: self.set.into_iter().collect(),
        };
        let cancelled = interruptible()?;
        let progress = Progress::visible(quiet + flood);
        let flooded = flood::run(&config, &cancelled, &progress);
        progress.finish();
        let flooded = flooded?;
        println!("{}", flooded.text().trim_end());
        json.write(&flooded)?;
        if flooded.success_rate < 1.0 {
            bail!("some of the honest connections did not succeed");
        }
        Ok(ExitCode::SUCCESS)
    }
}
