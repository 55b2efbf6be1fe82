//! The servers that are compared, and how they run in the lab.

use std::net::SocketAddr;

use super::daemon::{self, DaemonCounters};
use super::{CompareConfig, CompareError};
use crate::lab::{Lab, Ready, Side, bench_binary};
use crate::machine::NetCounters;
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
    pub(crate) fn address(self, lab: &Lab, v6: bool) -> SocketAddr {
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
        match self {
            Contender::Kernel => {}
            Contender::Fourwave => {
                lab.start_daemon(Side::Server, &daemon::configuration(config, lab))?;
                command.env("FOURWAVE_SOCKET", lab.control_socket(Side::Server));
            }
        }
        lab.spawn(&format!("serve-{}", self.name()), command, Ready::Prints(server::READY))?;
        Ok(())
    }

    /// What its TCP has counted so far.
    pub(crate) fn counters(self, lab: &Lab) -> Result<Counters, CompareError> {
        match self {
            Contender::Kernel => {
                let counters = lab.server().run(NetCounters::read)?;
                Ok(Counters::Kernel(counters.map_err(CompareError::io("TCP counters"))?))
            }
            Contender::Fourwave => Ok(Counters::Fourwave(DaemonCounters::read(lab)?)),
        }
    }
}

/// Counters of one server's TCP.
#[derive(Clone, Debug)]
pub(crate) enum Counters {
    Kernel(NetCounters),
    Fourwave(DaemonCounters),
}

impl Counters {
    /// Segments sent again since `earlier`.
    pub(crate) fn retransmits_since(&self, earlier: &Counters) -> Result<u64, CompareError> {
        self.since(earlier, "TcpRetransSegs", "RetransSegs")
    }

    /// TIME_WAIT records that could not be kept since `earlier`.
    pub(crate) fn overflow_since(&self, earlier: &Counters) -> Result<u64, CompareError> {
        self.since(earlier, "TcpExtTCPTimeWaitOverflow", "TCPTimeWaitOverflow")
    }

    fn since(
        &self,
        earlier: &Counters,
        kernel: &'static str,
        fourwave: &'static str,
    ) -> Result<u64, CompareError> {
        match (self, earlier) {
            (Counters::Kernel(now), Counters::Kernel(then)) => Ok(now.since(then, kernel)),
            (Counters::Fourwave(now), Counters::Fourwave(then)) => now.since(then, fourwave),
            (Counters::Kernel(_), Counters::Fourwave(_))
            | (Counters::Fourwave(_), Counters::Kernel(_)) => {
                unreachable!("counters are compared with earlier ones of the same server")
            }
        }
    }
}
