//! `fourwaved`: the daemon.

use clap::Parser;
use fourwaved::config::{Config, ConfigError, DEFAULT_PATH};
use fourwaved::start::{self, StartError};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// The tables of connections are large and read at random.
#[global_allocator]
static ALLOCATOR: fourwave_xdp::LargePages = fourwave_xdp::LargePages;

/// A TCP host stack on AF_XDP: serves the TCP ports of applications that use fourwave on one
/// network interface, and leaves everything else to the kernel.
#[derive(Debug, Parser)]
#[command(name = "fourwaved", version)]
struct Options {
    /// Configuration file [default: /etc/fourwave/fourwave.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Network interface, instead of the configuration's
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Folder of the control socket, instead of the configuration's
    #[arg(long, value_name = "FOLDER")]
    runtime_dir: Option<PathBuf>,
    /// BPF file system for the pins, instead of the configuration's
    #[arg(long, value_name = "FOLDER")]
    bpffs: Option<PathBuf>,
    /// Check the configuration and exit
    #[arg(long)]
    check_config: bool,
    /// Remove what a crashed daemon has left on the interface, and exit
    #[arg(long, conflicts_with = "check_config")]
    release: bool,
}

/// What `main` says when it fails.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("`log`: {0}")]
    Log(#[from] tracing_subscriber::filter::ParseError),
    #[error(transparent)]
    Start(#[from] StartError),
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fourwaved: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let config = load(options)?;
    let filter = EnvFilter::try_new(&config.log)?;
    if options.check_config {
        return Ok(());
    }
    log_to_stderr(filter);
    abort_on_panic();
    match options.release {
        true => start::release(&config)?,
        false => start::run(&config)?,
    }
    Ok(())
}

/// The configuration file with what the command line says instead.
fn load(options: &Options) -> Result<Config, ConfigError> {
    let default = Path::new(DEFAULT_PATH);
    let mut config = match &options.config {
        Some(path) => Config::load(path)?,
        None if default.exists() => Config::load(default)?,
        None => Config::default(),
    };
    if let Some(interface) = &options.interface {
        config.interface = Some(interface.clone());
    }
    if let Some(folder) = &options.runtime_dir {
        config.runtime_dir.clone_from(folder);
    }
    if let Some(folder) = &options.bpffs {
        config.bpffs.clone_from(folder);
    }
    config.check()?;
    Ok(config)
}

fn log_to_stderr(filter: EnvFilter) {
    let stderr = std::io::stderr;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(false);
    // The journal has a clock of its own.
    match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => log.without_time().init(),
        None => log.init(),
    }
}

/// A thread that panics takes the process with it, in every build: half a daemon would keep its
/// ports from the kernel without serving them. The service manager then runs `--release`.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}
