//! Everything that must be known to judge a comparison's figures.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{CompareConfig, CompareError, Contender, Rps, daemon};
use crate::lab::Lab;
use crate::machine;
use crate::server::BACKLOG;

/// A comparison shorter than this has no steady TIME_WAIT population, in seconds.
const TIME_WAIT_S: u64 = 60;

/// The settings of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// Kernel release.
    pub kernel: String,
    /// CPUs that may be used.
    pub cpus: usize,
    /// Load average over a minute, before the run.
    pub load_average: f64,
    /// CPU of the servers and the daemon.
    pub server_cpu: usize,
    /// CPU of the load generator.
    pub client_cpu: usize,
    /// `closed` or `open`.
    pub loop_kind: &'static str,
    /// Connections in flight (closed loop).
    pub concurrency: usize,
    /// Connections per second (open loop).
    pub rate: Option<f64>,
    /// Rounds.
    pub rounds: usize,
    /// Length of one load in seconds.
    pub duration_s: f64,
    /// Length of each warm-up in seconds.
    pub warm_up_s: f64,
    /// Echoed bytes.
    pub size: usize,
    /// `ipv4` or `ipv6`.
    pub network: &'static str,
    /// Which side closes first.
    pub closes_first: &'static str,
    /// TIME_WAIT of every side, in seconds.
    pub time_wait_s: u64,
    /// Whether all loads on one server are shorter than TIME_WAIT.
    pub shorter_than_time_wait: bool,
    /// TIME_WAIT records that could not be kept (`TCPTimeWaitOverflow`) by the client's kernel and
    /// by each server; all 0, or the figures flatter.
    pub time_wait_overflow: BTreeMap<&'static str, u64>,
    /// The kernel's congestion control: the server's end, the client's end.
    pub congestion_control: [String; 2],
    /// Listen backlog.
    pub backlog: i32,
    /// Client addresses; each has the ports from 1024 to 65535.
    pub client_addresses: usize,
    /// Queues of each veth end.
    pub queues: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Offloads that are on: the server's end, the client's end.
    pub offloads_on: [Vec<&'static str>; 2],
    /// `off` or `pin`.
    pub rps: &'static str,
    /// Receive packet steering masks: the server's end, the client's end.
    pub rps_cpus: [String; 2],
    /// The fourwave server, when it takes part.
    pub fourwave: Option<FourwaveSettings>,
    /// The kernel server.
    pub kernel_server: &'static str,
    /// Connections per second of each server, round by round.
    pub connections_per_second_by_round: Vec<(&'static str, Vec<f64>)>,
}

/// What is special about the fourwave server.
#[derive(Clone, Debug, Serialize)]
pub struct FourwaveSettings {
    /// Where the XDP program runs: `native` or `generic`.
    pub xdp_mode: &'static str,
    /// The daemon's configuration file.
    pub daemon_config: String,
}

impl Settings {
    /// Whether others used so much of the machine that the figures are disturbed.
    pub fn is_busy(&self) -> bool {
        self.load_average > 0.25 * self.cpus as f64
    }

    pub(super) fn read(config: &CompareConfig, lab: &Lab) -> Result<Settings, CompareError> {
        let status = lab.status()?;
        let load_s = config.duration.as_secs_f64() * config.rounds as f64;
        Ok(Settings {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cpus: machine::cpus().map_err(CompareError::io("CPU set"))?.len(),
            load_average: machine::load_average().map_err(CompareError::io("load average"))?,
            server_cpu: config.server_cpu,
            client_cpu: config.client_cpu,
            loop_kind: if config.rate.is_some() { "open" } else { "closed" },
            concurrency: config.concurrency,
            rate: config.rate,
            rounds: config.rounds,
            duration_s: config.duration.as_secs_f64(),
            warm_up_s: config.warm_up.as_secs_f64(),
            size: config.size,
            network: if config.v6 { "ipv6" } else { "ipv4" },
            closes_first: "server",
            time_wait_s: TIME_WAIT_S,
            shorter_than_time_wait: load_s < TIME_WAIT_S as f64,
            time_wait_overflow: BTreeMap::new(),
            congestion_control: [
                status.server.congestion_control,
                status.client.congestion_control,
            ],
            backlog: BACKLOG,
            client_addresses: lab.client().addresses(config.v6).len(),
            queues: config.lab.queues,
            mtu: config.lab.mtu,
            offloads_on: [status.server.offloads_on, status.client.offloads_on],
            rps: match config.rps {
                Rps::Off => "off",
                Rps::Pin => "pin",
            },
            rps_cpus: [status.server.rps, status.client.rps],
            fourwave: config.contenders.contains(&Contender::Fourwave).then(|| FourwaveSettings {
                xdp_mode: status.server.xdp.unwrap_or("none"),
                daemon_config: daemon::configuration(config, lab),
            }),
            kernel_server: "epoll, accept4, one thread, no SO_REUSEPORT",
            connections_per_second_by_round: Vec::new(),
        })
    }
}
