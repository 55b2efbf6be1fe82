//! `serve-kernel` and `serve-fourwave`.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use fourwave_bench::machine;
use fourwave_bench::server::{ServerConfig, fourwave, kernel};

/// Whose sockets a server uses.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sockets {
    Kernel,
    Fourwave,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address and port to listen on; may be given several times
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// Bytes to echo before the server closes; 0: until the client closes
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Run on this CPU only
    #[arg(long)]
    cpu: Option<usize>,
}

impl Args {
    pub(crate) fn run(self, sockets: Sockets) -> anyhow::Result<ExitCode> {
        if let Some(cpu) = self.cpu {
            machine::pin(cpu).with_context(|| format!("pinning to CPU {cpu}"))?;
        }
        machine::raise_open_files().context("raising the limit of open files")?;
        let config = ServerConfig { listen: self.listen, size: self.size };
        match sockets {
            Sockets::Kernel => kernel::serve(&config),
            Sockets::Fourwave => fourwave::serve(&config),
        }
        .with_context(|| format!("serving {:?}", config.listen))?;
        Ok(ExitCode::SUCCESS)
    }
}
