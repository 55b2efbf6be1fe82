//! A flood of spoofed SYNs beside honest connections.
//!
//! A kernel client connects at a steady rate to a fourwave echo server, first by itself and then
//! while SYNs of many made-up peers come, none of which ever answers. What counts is that every
//! honest connection succeeds, how long connecting takes, and that the daemon takes no memory.
//!
//! Daemon and server have one CPU, client and flood another, which also pays for the client side's
//! receiving: on a shared one, a flood would be measured by how the kernel shares it out.

mod send;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::compare::{CompareError, Progress};
use crate::lab::{DaemonOptions, Lab, LabConfig, ProcessRef, Ready, Side, bench_binary};
use crate::load::{self, LoadConfig, LoadReport, Until};
use crate::{machine, server};

pub use send::{FloodConfig, send};

/// The port of the server.
const PORT: u16 = 7777;
/// Connections under way at a time are few at the rates that are meant.
const CONCURRENCY: usize = 64;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where.
    pub lab: LabConfig,
    /// Whether over IPv6.
    pub v6: bool,
    /// SYNs of the flood.
    pub syns: u64,
    /// SYNs a second.
    pub syn_rate: f64,
    /// Honest connections a second.
    pub rate: f64,
    /// How long the part without a flood takes.
    pub quiet: Duration,
    /// A connection that takes longer has failed.
    pub patience: Duration,
    /// CPU of the daemon's worker and of the server.
    pub server_cpu: usize,
    /// CPU of the honest client, of the flood, and of what the client's interface receives.
    pub client_cpu: usize,
    /// Keys of the daemon's configuration, with their values in TOML, that are not as by default.
    pub daemon_keys: BTreeMap<String, String>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Flooded {
    /// SYNs that were sent.
    pub syns: u64,
    /// In so long.
    pub flood_seconds: f64,
    /// CPU of daemon and server.
    pub server_cpu: usize,
    /// CPU of client and flood.
    pub client_cpu: usize,
    /// Keys of the daemon's configuration that are not as by default.
    pub daemon_keys: BTreeMap<String, String>,
    /// Frames for the daemon meanwhile, flood and honest ones.
    pub frames_steered: u64,
    /// Of those, the ones that found no room: the worker had not taken earlier ones in time.
    pub frames_lost: u64,
    /// Segments that the honest client sent again.
    pub client_retransmits: u64,
    /// Honest connections while the flood lasted.
    pub connections: u64,
    /// The part of them that succeeded.
    pub success_rate: f64,
    /// Time to connect without a flood, 99th percentile.
    pub connect_p99_quiet_us: f64,
    /// The same beside the flood.
    pub connect_p99_flood_us: f64,
    /// Resident memory of the daemon before the first connection. Its tables are reserved whole
    /// and become resident where they are used, by the TIME_WAIT of each honest connection too.
    pub daemon_bytes_start: u64,
    /// After the part without a flood.
    pub daemon_bytes_before: u64,
    /// And after the flood.
    pub daemon_bytes_after: u64,
    /// What the daemon counted meanwhile.
    pub counters: BTreeMap<String, u64>,
    /// How honest connections failed.
    pub errors: BTreeMap<String, u64>,
}

/// Steered to a worker, and lost in front of it: SYNs that were one too many, and what found no room.
const STEERED: [&str; 2] = ["xdp_steer_tcp", "xdp_steer_syn"];
const LOST: [&str; 2] = ["xdp_drop_syn", "xsk_rx_fill_ring_empty_descs"];

/// The daemon's counters that tell about a flood.
const COUNTERS: [&str; 10] = [
    STEERED[0],
    STEERED[1],
    LOST[0],
    LOST[1],
    "SyncookiesSent",
    "SyncookiesRecv",
    "SyncookiesFailed",
    "TCPReqQFullDoCookies",
    "ListenDrops",
    "syn_records_full",
];

/// Builds the lab, measures, and removes the lab, also after an error and when `cancelled` becomes
/// true.
///
/// # Errors
/// See [`CompareError`]. Connections that fail are in the result.
pub fn run(
    config: &Config,
    cancelled: &AtomicBool,
    progress: &Progress,
) -> Result<Flooded, CompareError> {
    progress.step("building the lab");
    let mut lab = Lab::up(config.lab.clone())?;
    let result = in_lab(config, &mut lab, cancelled, progress);
    progress.step("removing the lab");
    let removed = lab.down();
    let flooded = result?;
    removed?;
    Ok(flooded)
}

fn in_lab(
    config: &Config,
    lab: &mut Lab,
    cancelled: &AtomicBool,
    progress: &Progress,
) -> Result<Flooded, CompareError> {
    let keys = config.daemon_keys.clone();
    let cpus = vec![config.server_cpu];
    let options = DaemonOptions { keys, cpus, ..Default::default() };
    let text = lab.daemon_config(Side::Server, &options);
    lab.client().set_rps(1 << config.client_cpu)?;
    let daemon = lab.start_daemon(Side::Server, &text)?;
    let address = (if config.v6 { lab.server().v6() } else { lab.server().v4() }, PORT).into();
    let mut command = lab.server().command(bench_binary()?);
    command.arg("serve-fourwave").arg(format!("--listen={address}"));
    command.arg(format!("--cpu={}", config.server_cpu));
    command.env("FOURWAVE_SOCKET", lab.control_socket(Side::Server));
    lab.spawn("serve-fourwave", command, Ready::Prints(server::READY))?;

    let honest = |until, first_source| LoadConfig {
        sources: lab.client().addresses(config.v6),
        first_source,
        size: 64,
        concurrency: CONCURRENCY,
        rate: Some(config.rate),
        until,
        timeout: config.patience,
        ..LoadConfig::new(address)
    };
    let pin = || machine::pin(config.client_cpu);
    let make = |load: &LoadConfig| -> Result<LoadReport, CompareError> {
        let report = lab.client().run(|| pin().and_then(|()| load::kernel::run(load)))?;
        report.map_err(CompareError::io("the load"))
    };
    let bytes_start = resident_bytes(daemon)?;
    progress.step("without a flood");
    let quiet = make(&honest(Until::Elapsed(config.quiet), 0))?;
    if cancelled.load(Ordering::Relaxed) {
        return Err(CompareError::Cancelled);
    }
    progress.step("with a flood");
    let counters = || counters(lab);
    let (before, bytes_before) = (counters()?, resident_bytes(daemon)?);
    let seconds = config.syns as f64 / config.syn_rate;
    let during = honest(Until::Elapsed(Duration::from_secs_f64(seconds)), quiet.next_source);
    let flood = FloodConfig { target: address, syns: config.syns, rate: config.syn_rate };
    let (report, sent) = thread::scope(|scope| {
        let flood =
            scope.spawn(|| lab.client().run(|| pin().and_then(|()| send(&flood, cancelled))));
        let report = make(&during);
        (report, flood.join())
    });
    let sent = match sent {
        Ok(sent) => sent?.map_err(CompareError::io("the flood"))?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let (report, after) = (report?, counters()?);
    let of =
        |counters: &BTreeMap<String, u64>, name: &str| counters.get(name).copied().unwrap_or(0);
    let growth = |name: &str| of(&after, name) - of(&before, name);
    let sum = |names: [&str; 2]| names.map(&growth).iter().sum::<u64>();
    let lost = sum(LOST);
    let steered = sum(STEERED) + growth(LOST[0]);
    Ok(Flooded {
        syns: sent.syns,
        flood_seconds: sent.elapsed.as_secs_f64(),
        server_cpu: config.server_cpu,
        client_cpu: config.client_cpu,
        daemon_keys: config.daemon_keys.clone(),
        frames_steered: steered,
        frames_lost: lost,
        client_retransmits: report.client_retransmits,
        connections: report.started,
        success_rate: report.completed as f64 / report.started.max(1) as f64,
        connect_p99_quiet_us: quiet.connect_latency.microseconds(0.99),
        connect_p99_flood_us: report.connect_latency.microseconds(0.99),
        daemon_bytes_start: bytes_start,
        daemon_bytes_before: bytes_before,
        daemon_bytes_after: resident_bytes(daemon)?,
        counters: COUNTERS.map(|name| (name.to_owned(), growth(name))).into(),
        errors: report.errors,
    })
}

fn counters(lab: &Lab) -> Result<BTreeMap<String, u64>, CompareError> {
    let runtime = fourwave::Runtime::connect(lab.control_socket(Side::Server));
    let text = runtime.and_then(|runtime| runtime.stats());
    let text = text.map_err(CompareError::io("the daemon's counters"))?;
    let pairs = text.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    Ok(pairs.collect())
}

fn resident_bytes(process: ProcessRef) -> Result<u64, CompareError> {
    machine::resident_bytes_of(process.pid).map_err(CompareError::io("the daemon's memory"))
}

impl Flooded {
    /// In words and figures, for people.
    pub fn text(&self) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let mut text = format!(
            "{} spoofed SYNs in {:.1} s ({:.0} a second) beside {} honest connections; daemon on \
             CPU {}, flood and client on CPU {}\n\
             succeeded        {:>9.3} %\n\
             lost unseen      {:>9} of {} frames, {} retransmissions of the client\n\
             connect p99      {:>9.0} µs, {:.0} µs without the flood\n\
             daemon's memory  {:>9.1} MiB more, {:.1} MiB more without the flood; {:.1} MiB in all\n",
            self.syns,
            self.flood_seconds,
            self.syns as f64 / self.flood_seconds.max(1e-9),
            self.connections,
            self.server_cpu,
            self.client_cpu,
            self.success_rate * 100.0,
            self.frames_lost,
            self.frames_steered,
            self.client_retransmits,
            self.connect_p99_flood_us,
            self.connect_p99_quiet_us,
            mib(self.daemon_bytes_after.saturating_sub(self.daemon_bytes_before)),
            mib(self.daemon_bytes_before.saturating_sub(self.daemon_bytes_start)),
            mib(self.daemon_bytes_after),
        );
        for (name, count) in self.counters.iter().chain(&self.errors) {
            text.push_str(&format!("{name:<20} {count}\n"));
        }
        text
    }
}
