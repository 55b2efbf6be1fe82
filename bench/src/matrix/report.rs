//! What a run found, in the form that goes to JSON, table and page.

use std::collections::BTreeMap;

use serde::Serialize;

use super::aims::{self, Judged};
use super::bed::{Bed, Placement, Subject};
use super::measure::{Sample, Workload};
use super::{MatrixConfig, Scope};
use crate::compare::{CompareError, median};
use crate::load::{Latency, Via};
use crate::machine;
use crate::server::BACKLOG;

/// Of the JSON form: it changes when a field changes its meaning or goes.
const FORM: u32 = 1;

/// More than this of the CPUs' time for others, and figures are disturbed.
const FOREIGN_LIMIT: f64 = 0.02;

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this form.
    pub form: u32,
    /// All that must be known to judge the figures.
    pub settings: Settings,
    /// fourwave's figure divided by the kernel's (or the limit's), with the aims.
    pub ratios: BTreeMap<&'static str, Judged>,
    /// One for each load and server.
    pub rows: Vec<Row>,
    /// Latency over offered load.
    pub curves: Vec<CurvePoint>,
    /// Long streams.
    pub bulk: Vec<BulkRow>,
    /// What a connection that is open and idle takes, by server.
    pub memory: Vec<Memory>,
    /// The series of `--full`.
    pub scaling: Vec<Series>,
    /// What was tried to choose settings.
    pub tried: Vec<Tried>,
    /// The part of one CPU that the daemon takes while nothing happens.
    pub idle_daemon_cpu: Option<f64>,
    /// TIME_WAIT records that could not be kept, by server; all 0, or the figures flatter.
    pub overflow: BTreeMap<&'static str, u64>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// Settings of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// This program's version.
    pub version: &'static str,
    /// `quick`, `standard` or `full`.
    pub scope: &'static str,
    /// Kernel release.
    pub kernel: String,
    /// The processor.
    pub processor: String,
    /// CPUs that may be used.
    pub cpus: usize,
    /// Load average over a minute, before the run.
    pub load_average: f64,
    /// `normal`, or `fifo` with `--realtime`.
    pub scheduling: &'static str,
    /// CPU of the servers and the daemon.
    pub server_cpu: usize,
    /// CPU of the load.
    pub client_cpu: usize,
    /// Rounds.
    pub rounds: usize,
    /// Seconds of one load.
    pub length_s: f64,
    /// Seconds of a load that tries or counts.
    pub trial_s: f64,
    /// Echoed bytes.
    pub size: usize,
    /// Which side closes a short connection first.
    pub closes_first: &'static str,
    /// TIME_WAIT of every side, in seconds.
    pub time_wait_s: u64,
    /// Listen backlog.
    pub backlog: i32,
    /// Client addresses; each has the ports from 1024 to 65535.
    pub client_addresses: usize,
    /// Sysctls of the kernel's namespace that matter.
    pub sysctls: BTreeMap<&'static str, String>,
    /// Offloads that are on: the server's end, the client's end.
    pub offloads_on: [Vec<&'static str>; 2],
    /// Whether io_uring can be used, or why not.
    pub io_uring: String,
    /// How the kernel's server does its work, by what it was chosen for.
    pub kernel_servers: BTreeMap<&'static str, String>,
    /// fourwave's.
    pub fourwave_servers: BTreeMap<&'static str, String>,
    /// How long the generator holds frames back in server-bound rows, in microseconds.
    pub coalesce_us: u64,
    /// The daemon's configuration file.
    pub daemon_config: String,
}

/// Median and range over the rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// `None` without values.
    pub fn over(values: &[f64]) -> Option<Spread> {
        Some(Spread {
            median: median(values)?,
            min: values.iter().copied().reduce(f64::min)?,
            max: values.iter().copied().reduce(f64::max)?,
        })
    }
}

/// Latency quantiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    /// Median.
    pub p50: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// How many were measured.
    pub count: u64,
}

impl Quantiles {
    fn of(latency: &Latency) -> Option<Quantiles> {
        let at = |quantile| latency.microseconds(quantile);
        let count = latency.count();
        (count > 0).then(|| Quantiles { p50: at(0.5), p99: at(0.99), p999: at(0.999), count })
    }
}

/// One load on one server.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The load's name; the same for all servers.
    pub id: String,
    /// In words.
    pub title: String,
    /// `kernel` or `xdp`.
    pub client: &'static str,
    /// `kernel`, `fourwave` or `limit`.
    pub server: &'static str,
    /// `server-bound` or `free`.
    pub placement: &'static str,
    /// How much.
    pub load: String,
    /// Connections per second or, where they are kept, replies per second.
    pub per_second: Spread,
    /// The same round by round.
    pub per_second_by_round: Vec<f64>,
    /// p99 of connecting round by round (of replies, where connections are kept), microseconds.
    pub p99_by_round: Vec<f64>,
    /// From the SYN to the SYN-ACK; in an open loop from when it was due.
    pub connect_us: Option<Quantiles>,
    /// From the SYN until `accept` had returned.
    pub accept_us: Option<Quantiles>,
    /// From the request until all of its reply was there.
    pub reply_us: Option<Quantiles>,
    /// (quantile, microseconds) of connecting, or of replies where connections are kept.
    pub curve: Vec<(f64, f64)>,
    /// Connections that failed, or were given up in an overload.
    pub errors: u64,
    /// The same by reason.
    pub errors_by_reason: BTreeMap<String, u64>,
    /// Starts left out for want of room.
    pub shed: u64,
    /// Segments sent again, by either side.
    pub retransmits: u64,
    /// Frames to the server per connection (reply).
    pub frames_in: f64,
    /// Frames from it.
    pub frames_out: f64,
    /// CPU time of the server's CPU per connection (reply), microseconds.
    pub server_core_us: f64,
    /// The same, round by round.
    pub server_core_us_by_round: Vec<f64>,
    /// Of the server's processes alone.
    pub server_processes_us: f64,
    /// Of all CPUs.
    pub machine_us: f64,
    /// System calls of the server's processes per connection (reply).
    pub syscalls: Option<f64>,
    /// Context switches of the same.
    pub context_switches: f64,
    /// Bytes that an idle connection to this server takes.
    pub memory_bytes: Option<f64>,
    /// Whether the work was where it should be.
    pub placed: Option<Placed>,
    /// The part of all CPUs' time that others had.
    pub foreign: f64,
}

/// Where the server's work was done.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Placed {
    /// Packets that the server's CPU took from receive queues, per frame to the server: 1 or more
    /// when the server's receive work is done there.
    pub received_there: f64,
    /// The server's processes ran on its CPU only.
    pub processes_there: bool,
    /// Both hold.
    pub holds: bool,
}

/// A point of latency over offered load.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CurvePoint {
    /// Which server.
    pub server: &'static str,
    /// Part of that server's own maximum.
    pub part: f64,
    /// Connections offered per second.
    pub offered: f64,
    /// Connections completed per second.
    pub completed: f64,
    /// Connect latency of those that were let in, microseconds.
    pub p50: f64,
    /// 99 %.
    pub p99: f64,
    /// Given up or left out.
    pub lost: u64,
}

/// Long streams in one direction.
#[derive(Clone, Debug, Serialize)]
pub struct BulkRow {
    /// From or to the server.
    pub direction: &'static str,
    /// Where received frames were processed.
    pub placement: &'static str,
    /// Which server.
    pub server: &'static str,
    /// Bytes of one stream.
    pub bytes: usize,
    /// Megabits per second.
    pub megabits: Spread,
    /// The same by round.
    pub megabits_by_round: Vec<f64>,
    /// CPU time of all CPUs per megabyte, microseconds.
    pub machine_us_per_megabyte: f64,
    /// Streams that failed.
    pub errors: u64,
}

/// What open, idle connections take.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Which server.
    pub server: &'static str,
    /// How many connections were opened.
    pub connections: u64,
    /// Bytes per connection, kernel and processes.
    pub bytes_per_connection: f64,
    /// What was counted.
    pub counted: &'static str,
}

/// Figures over something that grows.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// Its name.
    pub id: &'static str,
    /// In words.
    pub title: &'static str,
    /// What grows.
    pub axis: &'static str,
    /// In the order of growth.
    pub points: Vec<SeriesPoint>,
}

/// One of them.
#[derive(Clone, Debug, Serialize)]
pub struct SeriesPoint {
    /// Which server.
    pub server: &'static str,
    /// How far it has grown.
    pub at: f64,
    /// Connections per second.
    pub per_second: f64,
    /// The same ÷ a server with one of everything, in the same rounds.
    pub to_plain: Spread,
    /// p99 of connecting, microseconds.
    pub p99: f64,
    /// Failed connections, of that server too.
    pub errors: u64,
    /// Resident bytes of the daemon, where there is one.
    pub daemon_bytes: Option<u64>,
}

/// Something that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Tried {
    /// For what.
    pub purpose: &'static str,
    /// Which server.
    pub server: &'static str,
    /// How.
    pub what: String,
    /// Connections per second: median of the tries.
    pub per_second: f64,
    /// It was the best.
    pub chosen: bool,
}

impl Report {
    pub(super) fn begin(
        config: &MatrixConfig,
        load_average: f64,
        kernel: &Bed,
        fourwave: &Bed,
    ) -> Result<Report, CompareError> {
        let status = kernel.lab().status()?;
        let file = fourwave.lab().folder().join("server.toml");
        let daemon_config = std::fs::read_to_string(file)
            .map_err(CompareError::io("the daemon's configuration"))?;
        let settings = Settings {
            version: env!("CARGO_PKG_VERSION"),
            scope: config.scope.name(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            processor: machine::cpu_model(),
            cpus: machine::cpus().map_err(CompareError::io("CPU set"))?.len(),
            load_average,
            scheduling: if config.realtime { "fifo" } else { "normal" },
            server_cpu: config.server_cpu,
            client_cpu: config.client_cpu,
            rounds: config.rounds,
            length_s: config.length.as_secs_f64(),
            trial_s: config.trial.as_secs_f64(),
            size: super::measure::SIZE,
            closes_first: "server",
            time_wait_s: 60,
            backlog: BACKLOG,
            client_addresses: kernel.lab().client().addresses(false).len(),
            sysctls: kernel.lab().server().run(sysctls)?,
            offloads_on: [status.server.offloads_on, status.client.offloads_on],
            io_uring: crate::server::uring::check()
                .map_or_else(|why| why, |()| "usable".to_owned()),
            kernel_servers: BTreeMap::new(),
            fourwave_servers: BTreeMap::new(),
            coalesce_us: 0,
            daemon_config,
        };
        Ok(Report {
            form: FORM,
            settings,
            ratios: BTreeMap::new(),
            rows: Vec::new(),
            curves: Vec::new(),
            bulk: Vec::new(),
            memory: Vec::new(),
            scaling: Vec::new(),
            tried: Vec::new(),
            idle_daemon_cpu: None,
            overflow: BTreeMap::new(),
            notes: Vec::new(),
        })
    }

    /// Computes what follows from the rows.
    pub(super) fn finish(&mut self) {
        for row in &mut self.rows {
            let memory = self.memory.iter().find(|memory| memory.server == row.server);
            row.memory_bytes = memory.map(|memory| memory.bytes_per_connection);
        }
        self.ratios = aims::judge(self);
        let mut notes = Vec::new();
        let disturbed = self.rows.iter().filter(|row| row.foreign > FOREIGN_LIMIT).count();
        if disturbed > 0 {
            let worst = self.rows.iter().map(|row| row.foreign).fold(0.0, f64::max);
            notes.push(format!(
                "Others used the CPUs during {disturbed} of {} rows (up to {:.0} % of their time): \
                 repeat on a quiet machine before believing absolute figures.",
                self.rows.len(),
                worst * 100.0
            ));
        }
        for row in self.rows.iter().filter(|row| row.placed.is_some_and(|placed| !placed.holds)) {
            notes.push(format!(
                "{} of the {} server was not server-bound: not all of the server's work was on its CPU.",
                row.title, row.server
            ));
        }
        if self.settings.scheduling == "fifo" {
            notes.push(
                "Everything that was measured went before other processes (SCHED_FIFO): a look on a \
                 machine that others use. What shares a CPU with a thread that polls starves so: \
                 overload, long streams and servers on both CPUs say nothing."
                    .to_owned(),
            );
        }
        if self.settings.scope == Scope::Quick.name() {
            notes.push("A quick run: its loads are too short for figures.".to_owned());
        }
        if self.settings.length_s * (self.settings.rounds as f64) < self.settings.time_wait_s as f64
        {
            notes.push(
                "Each load lasted less than TIME_WAIT in all; the loads before it on the same server \
                 have left records all the same."
                    .to_owned(),
            );
        }
        self.notes.extend(notes);
    }

    /// Connections that failed where none should, and records that were lost.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for row in self.rows.iter().filter(|row| row.errors > 0 && row.id != "overload") {
            let Row { title, server, errors, errors_by_reason, .. } = row;
            failures
                .push(format!("{title}, {server} server: {errors} failed: {errors_by_reason:?}"));
        }
        for bulk in self.bulk.iter().filter(|bulk| bulk.errors > 0) {
            failures.push(format!("{} streams {} failed", bulk.errors, bulk.direction));
        }
        for (server, count) in self.overflow.iter().filter(|(_, count)| **count > 0) {
            failures.push(format!("the {server} server lost {count} TIME_WAIT records"));
        }
        for series in &self.scaling {
            let errors: u64 = series.points.iter().map(|point| point.errors).sum();
            if errors > 0 {
                failures.push(format!("{}: {errors} failed", series.title));
            }
        }
        failures
    }

    /// The ratios in the order in which people read them.
    pub(super) fn ordered_ratios(&self) -> Vec<(&'static str, &Judged)> {
        let mut all: Vec<_> = self.ratios.iter().map(|(name, judged)| (*name, judged)).collect();
        all.sort_by_key(|(_, judged)| judged.place);
        all
    }

    pub(super) fn row(&self, id: &str, server: Subject) -> Option<&Row> {
        self.rows.iter().find(|row| row.id == id && row.server == server.name())
    }
}

/// What a load is called.
#[derive(Clone, Debug)]
pub(super) struct Label {
    pub(super) id: String,
    pub(super) title: String,
}

impl Row {
    pub(super) fn of(
        label: &Label,
        subject: Subject,
        load: &super::measure::Load,
        samples: &[Sample],
        syscalls: Option<f64>,
    ) -> Row {
        let workload = load.workload;
        let keeps = matches!(workload, Workload::KeepAlive { .. });
        let [mut connect, mut accept, mut reply] = [(); 3].map(|()| Latency::default());
        let mut errors_by_reason = BTreeMap::new();
        for Sample { report, .. } in samples {
            connect.add(&report.connect_latency);
            accept.add(&report.accept_latency);
            reply.add(&report.reply_latency);
            for (reason, count) in &report.errors {
                *errors_by_reason.entry(reason.clone()).or_default() += count;
            }
        }
        let sum = |figure: fn(&Sample) -> u64| samples.iter().map(figure).sum::<u64>();
        let count = samples.iter().map(|sample| sample.count(workload)).sum::<u64>().max(1) as f64;
        let per = |figure: fn(&Sample) -> u64| sum(figure) as f64 / count;
        let judged = if keeps { &reply } else { &connect };
        let p99 = |sample: &Sample| {
            let report = &sample.report;
            let latency = if keeps { &report.reply_latency } else { &report.connect_latency };
            latency.microseconds(0.99)
        };
        let core_us = |sample: &Sample| {
            let count = sample.count(workload).max(1);
            sample.server_core.busy_ns() as f64 / 1000.0 / count as f64
        };
        let rates: Vec<f64> = samples.iter().map(|sample| sample.per_second(workload)).collect();
        Row {
            id: label.id.clone(),
            title: label.title.clone(),
            client: load.via.name(),
            server: subject.name(),
            placement: load.placement.name(),
            load: workload.describe(),
            per_second: Spread::over(&rates).unwrap_or_default(),
            per_second_by_round: rates,
            p99_by_round: samples.iter().map(p99).collect(),
            connect_us: Quantiles::of(&connect),
            accept_us: Quantiles::of(&accept),
            reply_us: Quantiles::of(&reply),
            curve: judged.curve(),
            errors: errors_by_reason.values().sum(),
            errors_by_reason,
            shed: sum(|sample| sample.report.shed),
            retransmits: sum(|sample| sample.report.client_retransmits + sample.server_retransmits),
            frames_in: per(|sample| sample.frames[0]),
            frames_out: per(|sample| sample.frames[1]),
            server_core_us: per(|sample| sample.server_core.busy_ns()) / 1000.0,
            server_core_us_by_round: samples.iter().map(core_us).collect(),
            server_processes_us: per(|sample| sample.processes.running_ns) / 1000.0,
            machine_us: per(|sample| sample.report.machine_busy_ns) / 1000.0,
            syscalls,
            context_switches: per(|sample| sample.processes.switches),
            memory_bytes: None,
            placed: (load.placement == Placement::ServerBound && load.via == Via::Xdp)
                .then(|| Placed::of(samples)),
            foreign: samples.iter().map(|sample| sample.foreign).sum::<f64>()
                / samples.len().max(1) as f64,
        }
    }
}

impl Placed {
    /// Under RPS each frame to the server is taken from the queue of the server's CPU; those for the
    /// client from the other CPU's. A frame that found the queue full is on neither side: veth counts
    /// it as dropped, not as sent.
    fn of(samples: &[Sample]) -> Placed {
        let sum = |figure: fn(&Sample) -> u64| samples.iter().map(figure).sum::<u64>();
        let frames = sum(|sample| sample.frames[0]).max(1);
        let received_there = sum(|sample| sample.received_by[0]) as f64 / frames as f64;
        let processes_there = samples.iter().all(|sample| sample.processes.cpus.count_ones() <= 1);
        Placed { received_there, processes_there, holds: received_there > 0.98 && processes_there }
    }
}

/// Of the calling thread's network namespace.
fn sysctls() -> BTreeMap<&'static str, String> {
    let names = [
        "net/ipv4/tcp_max_tw_buckets",
        "net/ipv4/tcp_max_syn_backlog",
        "net/ipv4/tcp_syncookies",
        "net/ipv4/tcp_congestion_control",
        "net/core/somaxconn",
        "net/core/netdev_max_backlog",
        "net/core/busy_poll",
        "net/core/busy_read",
    ];
    let read = |name: &'static str| {
        let text = std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
        Some((name, text.trim().to_owned()))
    };
    names.into_iter().filter_map(read).collect()
}
