//! `engine`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use fourwave_bench::engine::{self, EngineConfig};
use fourwave_bench::machine;

use super::ReportFile;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds
    #[arg(long)]
    rounds: Option<usize>,
    /// A hundredth of the records and lives: for a look, not for figures
    #[arg(long)]
    quick: bool,
    /// CPU to run on; default: the last one that may be used
    #[arg(long)]
    cpu: Option<usize>,
    /// Write figures and settings to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Args {
    #[expect(clippy::print_stdout, reason = "the result of the command")]
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let json = ReportFile::open(self.json.as_deref())?;
        let mut config = if self.quick { EngineConfig::quick() } else { EngineConfig::full() };
        config.rounds = self.rounds.unwrap_or(config.rounds).max(1);
        let cpus = machine::cpus().context("reading the CPU set")?;
        let cpu = self.cpu.or(cpus.last().copied()).unwrap_or(0);
        machine::pin(cpu).with_context(|| format!("CPU {cpu} may not be used; {cpus:?} may"))?;
        let report = engine::run(&config, |step| eprintln!("{step} …"))?;
        println!("{}", engine::render(&report).trim_end());
        json.write(&report)?;
        Ok(ExitCode::SUCCESS)
    }
}
