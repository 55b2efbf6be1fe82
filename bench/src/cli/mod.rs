//! Arguments and what they do.

mod compare;
mod lab;
mod load;
mod serve;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

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
    /// Two network namespaces with a veth pair, to try programs in
    Lab(lab::Args),
    /// Make short connections to a server, from kernel sockets
    Load(load::Args),
    /// The echo-and-close server on kernel sockets
    ServeKernel(serve::Args),
    /// The same server on fourwave, through the daemon that FOURWAVE_SOCKET names
    ServeFourwave(serve::Args),
}

impl Cli {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Compare(args) => args.run(),
            Command::Lab(args) => args.run(),
            Command::Load(args) => args.run(),
            Command::ServeKernel(args) => args.run(serve::Sockets::Kernel),
            Command::ServeFourwave(args) => args.run(serve::Sockets::Fourwave),
        }
    }
}

/// `3`, `0.5`, `3s`, `500ms` or `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let cut = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(cut);
    let unit = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        other => return Err(format!("unknown unit `{other}`: use ms, s or m")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{number}` is no number"))?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
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
    fn rates() {
        assert_eq!(rate("1e3"), Ok(1000.0));
        for bad in ["0", "-5", "inf", "x"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
