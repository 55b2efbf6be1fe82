//! `matrix`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use fourwave_bench::compare::Progress;
use fourwave_bench::lab;
use fourwave_bench::matrix::{self, MatrixConfig, Scope};

use super::{ReportFile, cpu, duration, interruptible};

/// What the progress bar takes a run for.
const STANDARD: Duration = Duration::from_secs(25 * 60);
const FULL: Duration = Duration::from_secs(58 * 60);
const QUICK: Duration = Duration::from_secs(40);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Everything once and very shortly: to see that it works, not for figures
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Also the series over idle connections, TIME_WAIT, workers, threads, listeners and programs
    #[arg(long)]
    full: bool,
    /// Only those series
    #[arg(long, conflicts_with_all = ["quick", "full"])]
    series: bool,
    /// Let what is measured go before everything else on the machine (SCHED_FIFO): for a look on
    /// one that others use, who will notice. What shares a CPU with a thread that polls starves
    /// then, so that overload, bulk, and servers on both CPUs say nothing
    #[arg(long)]
    realtime: bool,
    /// Rounds
    #[arg(long)]
    rounds: Option<usize>,
    /// Length of one load
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// Connections in flight, where a load does not say otherwise
    #[arg(long)]
    concurrency: Option<usize>,
    /// CPU of the servers and the daemon; default: the second one
    #[arg(long)]
    server_cpu: Option<usize>,
    /// CPU of the load; default: the first one
    #[arg(long)]
    client_cpu: Option<usize>,
    /// The labs are called this and a letter
    #[arg(long, default_value = "fw-mx-")]
    lab: String,
    /// Write everything to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the page for people to this file
    #[arg(long)]
    html: Option<PathBuf>,
}

impl Args {
    #[expect(clippy::print_stdout, reason = "the result of the command")]
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let scope = match (self.quick, self.full) {
            (true, _) => Scope::Quick,
            (false, true) => Scope::Full,
            (false, false) if self.series => Scope::Series,
            (false, false) => Scope::Standard,
        };
        let cpus = (cpu(self.server_cpu, 1)?, cpu(self.client_cpu, 0)?);
        let mut config = MatrixConfig::new(scope, self.lab, cpus.0, cpus.1);
        config.rounds = self.rounds.unwrap_or(config.rounds);
        config.length = self.duration.unwrap_or(config.length);
        config.realtime = self.realtime;
        config.concurrency = self.concurrency.unwrap_or(config.concurrency);
        ensure!(config.rounds > 0, "--rounds must be above 0");
        ensure!(!config.length.is_zero(), "--duration must be above 0");
        ensure!(config.concurrency > 0, "--concurrency must be above 0");
        ensure!(cpus.0 != cpus.1, "servers and load need a CPU each");
        lab::daemon_binary()?;
        let json = ReportFile::open(self.json.as_deref())?;
        let html = self.html.as_deref();
        if let Some(path) = html {
            // Before the run: a path that cannot be written costs nobody half an hour.
            let opened = fs::File::options().append(true).create(true).open(path);
            opened.with_context(|| format!("cannot write {}", path.display()))?;
        }
        let cancelled = interruptible()?;
        let begun = Instant::now();
        let expected = match scope {
            Scope::Quick => QUICK,
            Scope::Standard => STANDARD,
            Scope::Full => FULL,
            Scope::Series => FULL - STANDARD,
        };
        let progress = Progress::visible(expected);
        let report = matrix::run(&config, &cancelled, &progress);
        progress.finish();
        let report = report?;
        println!("{}", matrix::render(&report).trim_end());
        println!("Took {:.0} s.", begun.elapsed().as_secs_f64());
        if let Some(path) = html {
            let written = fs::write(path, matrix::page(&report));
            written.with_context(|| format!("cannot write {}", path.display()))?;
            println!("For a browser: {}", path.display());
        }
        json.write(&report)?;
        match report.failures().as_slice() {
            [] => Ok(ExitCode::SUCCESS),
            failures => bail!("figures with failures are no result:\n  {}", failures.join("\n  ")),
        }
    }
}
