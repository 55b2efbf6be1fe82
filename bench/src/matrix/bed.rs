//! One lab with the servers of one subject.

use std::net::SocketAddr;
use std::time::Duration;

use super::measure::Bench;
use crate::compare::{CompareError, Contender, Counters};
use crate::lab::{DaemonOptions, Lab, LabConfig, ProcessRef, Ready, Side, bench_binary};
use crate::machine;
use crate::server;

/// How long a server may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// Client addresses beside those of every lab, so that no address and port comes back within its
/// TIME_WAIT: 302 × 64,512 are enough for 300 k connections/s.
const MORE_ADDRESSES: u8 = 250;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Kernel,
    Fourwave,
    /// A responder without state.
    Limit,
}

impl Subject {
    pub(super) fn name(self) -> &'static str {
        match self {
            Subject::Kernel => "kernel",
            Subject::Fourwave => "fourwave",
            Subject::Limit => "limit",
        }
    }

    fn contender(self) -> Option<Contender> {
        match self {
            Subject::Kernel => Some(Contender::Kernel),
            Subject::Fourwave => Some(Contender::Fourwave),
            Subject::Limit => None,
        }
    }
}

/// Who processes what arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// Either end on its own CPU: all of the server's work is on one, the generator on the other.
    ServerBound,
    /// The CPU that sent it, as veth does by itself: the work is spread over both.
    Free,
}

impl Placement {
    pub(super) fn name(self) -> &'static str {
        match self {
            Placement::ServerBound => "server-bound",
            Placement::Free => "free",
        }
    }
}

/// How a server does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Io {
    Epoll,
    Uring,
    /// fourwave's poller.
    Library,
}

/// A server to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerSpec {
    pub(super) io: Io,
    pub(super) defer_accept: bool,
    pub(super) cpus: Vec<usize>,
    /// Bytes after which it closes; 0: when the client does.
    pub(super) size: usize,
    /// Addresses and ports that it listens on.
    pub(super) listeners: u16,
}

impl ServerSpec {
    pub(super) fn describe(&self) -> String {
        let io = match self.io {
            Io::Epoll => "epoll",
            Io::Uring => "io_uring",
            Io::Library => "fourwave::Poller",
        };
        let mut text = format!("{io}, {} thread(s) on CPU {:?}", self.cpus.len(), self.cpus);
        if self.cpus.len() > 1 {
            text.push_str(", SO_REUSEPORT");
        }
        if self.defer_accept {
            text.push_str(", TCP_DEFER_ACCEPT");
        }
        if self.listeners > 1 {
            text.push_str(&format!(", {} listeners", self.listeners));
        }
        text
    }
}

/// A server that runs.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) spec: ServerSpec,
    /// The first of its addresses.
    pub(super) address: SocketAddr,
    role: String,
    process: ProcessRef,
}

/// A lab, and what runs in it.
pub(super) struct Bed {
    subject: Subject,
    lab: Lab,
    /// Where the next load's client addresses and ports begin.
    pub(super) next_source: u64,
    daemon: Option<ProcessRef>,
    next_port: u16,
    before: Option<Counters>,
}

impl Bed {
    pub(super) fn up(bench: &Bench<'_>, subject: Subject) -> Result<Bed, CompareError> {
        Bed::with(bench, subject, "", 1, &[])
    }

    /// With so many queues (and workers), and lines of the daemon's configuration. The suffix keeps
    /// labs of one subject apart.
    pub(super) fn with(
        bench: &Bench<'_>,
        subject: Subject,
        suffix: &str,
        queues: u32,
        keys: &[(&str, String)],
    ) -> Result<Bed, CompareError> {
        let config = bench.config;
        let name = format!("{}{}{suffix}", config.lab, &subject.name()[..1]);
        let lab = Lab::up(LabConfig::named(&name).queues(queues).more_client_v4(MORE_ADDRESSES))?;
        let mut bed =
            Bed { subject, lab, next_source: 0, daemon: None, next_port: 7000, before: None };
        match subject {
            Subject::Kernel => {}
            Subject::Fourwave => {
                // All on the server's CPU: the generator, which polls, has the other one to itself.
                let cpus = vec![config.server_cpu; queues as usize];
                let mut options = DaemonOptions { cpus, ..DaemonOptions::default() };
                // In the driver, veth's XDP programs run where the sender is: the server's work
                // would be on the generator's CPU.
                options.keys.insert("xdp_mode".to_owned(), "\"generic\"".to_owned());
                for (key, value) in keys {
                    options.keys.insert((*key).to_owned(), value.clone());
                }
                let text = bed.lab.daemon_config(Side::Server, &options);
                // All of it, not the workers alone: a server-bound server has one CPU.
                let started =
                    machine::pinned(&options.cpus, || bed.lab.start_daemon(Side::Server, &text));
                bed.daemon = Some(started.map_err(CompareError::io("pinning the daemon"))??);
            }
            Subject::Limit => {
                let mut command = bed.lab.server().command(bench_binary()?);
                command
                    .arg("serve-reflector")
                    .arg(format!("--interface={}", bed.lab.server().interface()))
                    .arg(format!("--listen={}", bed.limit_address()))
                    .arg("--xdp-mode=generic")
                    .arg(format!("--cpu={}", config.server_cpu));
                bed.daemon =
                    Some(bed.lab.spawn("reflector", command, Ready::Prints(server::READY))?);
            }
        }
        bed.before = bed.counters()?;
        Ok(bed)
    }

    pub(super) fn subject(&self) -> Subject {
        self.subject
    }

    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(super) fn down(self) -> Result<(), CompareError> {
        Ok(self.lab.down()?)
    }

    pub(super) fn limit_address(&self) -> SocketAddr {
        SocketAddr::new(self.lab.server().v4(), 7000)
    }

    /// The daemon, or the responder.
    pub(super) fn daemon(&self) -> Option<i32> {
        self.daemon.map(|process| process.pid)
    }

    /// What does the server's work: the server, and the daemon if there is one.
    pub(super) fn processes(&self, server: Option<&Server>) -> Vec<i32> {
        self.daemon().into_iter().chain(server.map(|server| server.process.pid)).collect()
    }

    pub(super) fn serve(&mut self, spec: &ServerSpec) -> Result<Server, CompareError> {
        let first = self.next_port;
        self.next_port += spec.listeners;
        let address = SocketAddr::new(self.lab.server().v4(), first);
        let (role, subcommand) = match self.subject {
            Subject::Fourwave => (format!("fourwave-{first}"), "serve-fourwave"),
            Subject::Kernel | Subject::Limit => (format!("kernel-{first}"), "serve-kernel"),
        };
        let mut command = self.lab.server().command(bench_binary()?);
        command
            .arg(subcommand)
            .arg(format!("--size={}", spec.size))
            .arg(format!("--stamps={}", self.stamps().display()));
        for port in first..self.next_port {
            command.arg(format!("--listen={}", SocketAddr::new(address.ip(), port)));
        }
        for cpu in &spec.cpus {
            command.arg(format!("--cpu={cpu}"));
        }
        if spec.defer_accept {
            command.arg("--defer-accept");
        }
        match spec.io {
            Io::Epoll => {}
            Io::Uring => {
                command.arg("--io=uring");
            }
            Io::Library => {
                command.env("FOURWAVE_SOCKET", self.lab.control_socket(Side::Server));
            }
        }
        let process = self.lab.spawn(&role, command, Ready::Prints(server::READY))?;
        Ok(Server { spec: spec.clone(), address, role, process })
    }

    pub(super) fn stop(&mut self, server: &Server) -> Result<(), CompareError> {
        Ok(self.lab.stop(&server.role, GRACE)?)
    }

    /// Where servers tell when they accepted.
    pub(super) fn stamps(&self) -> std::path::PathBuf {
        self.lab.folder().join("stamps")
    }

    pub(super) fn place(
        &self,
        bench: &Bench<'_>,
        placement: Placement,
    ) -> Result<(), CompareError> {
        let mask = |cpu: usize| match placement {
            Placement::ServerBound => 1 << cpu,
            Placement::Free => 0,
        };
        self.lab.server().set_rps(mask(bench.config.server_cpu))?;
        self.lab.client().set_rps(mask(bench.config.client_cpu))?;
        Ok(())
    }

    /// What its TCP has counted; the responder counts nothing.
    pub(super) fn counters(&self) -> Result<Option<Counters>, CompareError> {
        self.subject.contender().map(|contender| contender.counters(&self.lab)).transpose()
    }

    /// TIME_WAIT records that could not be kept since the bed is up.
    pub(super) fn time_wait_overflow(&self) -> Result<u64, CompareError> {
        match (self.counters()?, &self.before) {
            (Some(now), Some(before)) => now.overflow_since(before),
            _ => Ok(0),
        }
    }
}
