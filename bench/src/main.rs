//! `fourwave-bench`: lab, servers, load and comparison on the command line.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fourwave-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
