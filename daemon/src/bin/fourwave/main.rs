//! `fourwave`: looks at a running daemon.

mod capture;
mod daemon;
mod doctor;
mod drops;
mod ss;
mod stats;
mod top;

use clap::{Parser, Subcommand};
use daemon::{Daemon, Failure};
use std::path::PathBuf;
use std::process::ExitCode;

/// Looks at a running fourwaved.
#[derive(Debug, Parser)]
#[command(name = "fourwave", version)]
struct Options {
    /// Folder of the daemon's control socket, its `runtime_dir` [default: the socket that
    /// `FOURWAVE_SOCKET` names, else in /run/fourwave]
    #[arg(long, value_name = "FOLDER", global = true)]
    runtime_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says what is wrong, why, and what helps
    Doctor(doctor::Arguments),
    /// Prints counters and gauges, with explanations on a terminal
    Stats(stats::Arguments),
    /// Prints the last cases of what was refused or dropped
    Drops(drops::Arguments),
    /// Lists listeners and connections, as ss(8) does
    Ss(ss::Arguments),
    /// Shows frames, and what became of them
    Capture(capture::Arguments),
    /// Shows rates, states and queues, again and again
    Top(top::Arguments),
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        // Whoever reads our output has seen enough.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fourwave: {error}");
            match options.command {
                // 1 says that something is wrong with what it looked at.
                Command::Doctor(_) => ExitCode::from(2),
                Command::Stats(_)
                | Command::Drops(_)
                | Command::Ss(_)
                | Command::Capture(_)
                | Command::Top(_) => ExitCode::FAILURE,
            }
        }
        Ok(code) => code,
    }
}

fn run(options: &Options) -> Result<ExitCode, Failure> {
    let connect = || Daemon::connect(options.runtime_dir.as_deref());
    match &options.command {
        Command::Doctor(arguments) => return doctor::run(arguments, connect),
        Command::Capture(arguments) => return capture::run(arguments, connect),
        Command::Stats(arguments) if arguments.samples => {
            drops::run(&arguments.drops(), &mut connect()?)
        }
        Command::Stats(arguments) => stats::run(arguments, &mut connect()?),
        Command::Drops(arguments) => drops::run(arguments, &mut connect()?),
        Command::Ss(arguments) => ss::run(arguments, connect),
        Command::Top(arguments) => top::run(arguments, &mut connect()?),
    }?;
    Ok(ExitCode::SUCCESS)
}
