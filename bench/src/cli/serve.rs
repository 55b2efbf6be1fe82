//! `serve-kernel` and `serve-fourwave`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use fourwave_bench::machine;
use fourwave_bench::server::{ServerConfig, fourwave, kernel, uring};

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
    /// Run on this CPU only; given several times: one thread on each, with SO_REUSEPORT
    #[arg(long)]
    cpu: Vec<usize>,
    /// Accept a connection only when its request is there (TCP_DEFER_ACCEPT)
    #[arg(long)]
    defer_accept: bool,
    /// On kernel sockets: how to wait for them and use them
    #[arg(long, default_value = "epoll")]
    io: Io,
    /// Leave the times of some accepts in this file, for `load --stamps`
    #[arg(long)]
    stamps: Option<PathBuf>,
}

/// How a program uses the kernel's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Io {
    Epoll,
    Uring,
}

impl Args {
    pub(crate) fn run(self, sockets: Sockets) -> anyhow::Result<ExitCode> {
        if let &[cpu] = self.cpu.as_slice() {
            machine::pin(cpu).with_context(|| format!("pinning to CPU {cpu}"))?;
        }
        machine::raise_open_files().context("raising the limit of open files")?;
        let config = ServerConfig {
            listen: self.listen,
            size: self.size,
            cpus: self.cpu,
            defer_accept: self.defer_accept,
            stamps: self.stamps,
        };
        match sockets {
            Sockets::Kernel if self.io == Io::Uring => {
                uring::check().map_err(anyhow::Error::msg)?;
                uring::serve(&config)
            }
            Sockets::Kernel => kernel::serve(&config),
            Sockets::Fourwave => fourwave::serve(&config),
        }
        .with_context(|| format!("serving {:?}", config.listen))?;
        Ok(ExitCode::SUCCESS)
    }
}
