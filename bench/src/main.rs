//! `fourwave-bench`: lab, servers, load and comparison on the command line.

mod cli;

use std::process::ExitCode;

use clap::Parser;

/// As the daemon, whose tables are large.
#[global_allocator]
static ALLOCATOR: fourwave_xdp::LargePages = fourwave_xdp::LargePages;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fourwave-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
