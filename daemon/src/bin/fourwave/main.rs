//! `fourwave`: looks at a running daemon.

mod daemon;
mod doctor;
mod ss;

use clap::{Parser, Subcommand};
use daemon::{Daemon, Failure};
use fourwave_protocol::control::{Reply, Request};
use std::io::{self, Write};
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
    /// Prints all counters as `name value` lines, over all workers
    Stats,
    /// Says what is wrong, why, and what helps
    Doctor(doctor::Arguments),
    /// Lists listeners and connections, as ss(8) does
    Ss(ss::Arguments),
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
                Command::Stats | Command::Ss(_) => ExitCode::FAILURE,
            }
        }
        Ok(code) => code,
    }
}

fn run(options: &Options) -> Result<ExitCode, Failure> {
    let connect = || Daemon::connect(options.runtime_dir.as_deref());
    match &options.command {
        Command::Doctor(arguments) => return doctor::run(arguments, connect),
        Command::Stats => print_text(&mut connect()?, &Request::Stats),
        Command::Ss(arguments) => ss::run(arguments, connect),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Sends a request that is answered by text, and prints it as it comes.
fn print_text(daemon: &mut Daemon, request: &Request) -> Result<(), Failure> {
    daemon.ask(request)?;
    let mut out = io::stdout().lock();
    loop {
        match daemon.reply()? {
            Reply::Text { text, more } => {
                out.write_all(text.as_bytes()).map_err(Failure::Output)?;
                if !more {
                    return out.flush().map_err(Failure::Output);
                }
            }
            other => return Err(Failure::unexpected(&other)),
        }
    }
}
