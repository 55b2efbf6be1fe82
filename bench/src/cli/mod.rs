//! Arguments and what they do.

mod compare;
mod engine;
mod flood;
mod goodput;
mod lab;
mod limit;
mod load;
mod matrix;
mod serve;

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use fourwave_bench::lab::remove_orphans;
use fourwave_bench::machine;
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Short TCP connections on fourwave and on the kernel: a lab to try, servers, load, comparison.
#[derive(Debug, Parser)]
#[command(name = "fourwave-bench", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare fourwave with kernel sockets, in a lab of its own
    Compare(compare::Args),
    /// Measure the protocol engine alone, in memory; needs no privilege
    Engine(engine::Args),
    /// Connect to a fourwave server through a flood of spoofed SYNs
    Flood(flood::Args),
    /// Compare long streams of fourwave and kernel sockets over paths that lose and reorder
    Goodput(goodput::Args),
    /// Two network namespaces with a veth pair, to try programs in
    Lab(lab::Args),
    /// Measure what AF_XDP itself can do: the load against a responder without state
    Limit(limit::Args),
    /// Make short connections to a server, from kernel sockets or from AF_XDP
    Load(load::Args),
    /// The whole comparison: clients, servers, workloads and loads crossed, with its report
    Matrix(matrix::Args),
    /// The echo-and-close server on kernel sockets
    ServeKernel(serve::Args),
    /// A responder without state on AF_XDP, the limit of any TCP there
    ServeReflector(limit::ReflectorArgs),
    /// The same server on fourwave, through the daemon that FOURWAVE_SOCKET names
    ServeFourwave(serve::Args),
}

impl Cli {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Compare(args) => args.run(),
            Command::Engine(args) => args.run(),
            Command::Flood(args) => args.run(),
            Command::Goodput(args) => args.run(),
            Command::Lab(args) => args.run(),
            Command::Limit(args) => args.run(),
            Command::Load(args) => args.run(),
            Command::Matrix(args) => args.run(),
            Command::ServeReflector(args) => args.run(),
            Command::ServeKernel(args) => args.run(serve::Sockets::Kernel),
            Command::ServeFourwave(args) => args.run(serve::Sockets::Fourwave),
        }
    }
}

/// A flag that becomes true when somebody wants the command to end; and labs that crashed runs left
/// are removed.
fn interruptible() -> anyhow::Result<Arc<AtomicBool>> {
    let cancelled = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&cancelled))?;
    }
    for name in remove_orphans()? {
        eprintln!("removed what a crashed run left: lab `{name}`");
    }
    Ok(cancelled)
}

/// The CPU `wanted`, or the one at `place` of those that may be used.
fn cpu(wanted: Option<usize>, place: usize) -> anyhow::Result<usize> {
    let cpus = machine::cpus().context("reading the CPU set")?;
    match wanted {
        Some(cpu) if !cpus.contains(&cpu) => bail!("CPU {cpu} may not be used; {cpus:?} may"),
        Some(cpu) => Ok(cpu),
        None => Ok(cpus.get(place).or(cpus.first()).copied().unwrap_or(0)),
    }
}

/// `KEY=VALUE`, a line of the daemon's configuration.
fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is wanted")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// Where a report is to be written, opened before the run: a path that cannot be written costs nobody
/// minutes.
struct ReportFile(Option<File>);

impl ReportFile {
    fn open(path: Option<&Path>) -> anyhow::Result<ReportFile> {
        let open = |path: &Path| {
            let opened = File::options().write(true).create(true).truncate(false).open(path);
            opened.with_context(|| format!("cannot write {}", path.display()))
        };
        path.map(open).transpose().map(ReportFile)
    }

    fn write(self, report: &impl Serialize) -> anyhow::Result<()> {
        let Some(file) = self.0 else { return Ok(()) };
        file.set_len(0)?;
        serde_json::to_writer_pretty(BufWriter::new(file), report).context("writing the report")
    }
}

/// `3`, `0.5`, `3s`, `500ms`, `20us` or `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let cut = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(cut);
    let unit = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "us" => 0.000_001,
        "m" => 60.0,
        other => return Err(format!("unknown unit `{other}`: use us, ms, s or m")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{number}` is no number"))?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

/// `4096`, `64KiB`, `100MiB` or `1GiB`.
fn bytes(text: &str) -> Result<usize, String> {
    let cut = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(cut);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        other => return Err(format!("unknown unit `{other}`: use B, KiB, MiB or GiB")),
    };
    let number: usize = number.parse().map_err(|_| format!("`{number}` is no number"))?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

/// A number of things per second, above zero.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("expected a number above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(duration("3"), Ok(Duration::from_secs(3)));
        assert_eq!(duration("0.25s"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "s", "3h", "-1", "1e400"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("12"), Ok(12));
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("1GiB"), Ok(1 << 30));
        for bad in ["", "MiB", "-1", "1.5MiB", "3MB", "99999999999GiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates() {
        assert_eq!(rate("1e3"), Ok(1000.0));
        for bad in ["0", "-5", "inf", "x"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
