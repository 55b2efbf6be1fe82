//! The servers that are compared, and how they run in the lab.

use std::net::SocketAddr;

use super::{CompareConfig, CompareError};
use crate::lab::{Lab, Ready, bench_binary};
use crate::server;

/// A server under comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Contender {
    /// Kernel sockets.
    Kernel,
    /// The fourwave client library and daemon.
    Fourwave,
}

impl Contender {
    /// Its name in tables and reports.
    pub fn name(self) -> &'static str {
        match self {
            Contender::Kernel => "kernel",
            Contender::Fourwave => "fourwave",
        }
    }

    /// Where it listens in the lab. Both may be up at once.
    pub(super) fn address(self, lab: &Lab, v6: bool) -> SocketAddr {
        let node = lab.server();
        let port = match self {
            Contender::Kernel => 7778,
            Contender::Fourwave => 7777,
        };
        SocketAddr::new(if v6 { node.v6() } else { node.v4() }, port)
    }

    /// Starts it, on the server's CPU, and waits until it listens.
    pub(super) fn start(self, config: &CompareConfig, lab: &mut Lab) -> Result<(), CompareError> {
        let mut command = lab.server().command(bench_binary()?);
        command
            .arg(format!("serve-{}", self.name()))
            .arg(format!("--listen={}", self.address(lab, config.v6)))
            .arg(format!("--size={}", config.size))
            .arg(format!("--cpu={}", config.server_cpu));
        lab.spawn(&format!("serve-{}", self.name()), command, Ready::Prints(server::READY))?;
        Ok(())
    }
}
