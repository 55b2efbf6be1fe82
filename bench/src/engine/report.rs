//! What `engine` has found out, for the terminal and in the form that `--json` writes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::{BATCH, EngineConfig, SMOLTCP_IDLE, TimerNanos};
use crate::compare::{Ratio, median};
use crate::machine;

/// Everything; times in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct EngineReport {
    /// All that must be known to judge the figures.
    pub settings: Settings,
    /// Medians over the rounds: the life of a connection at each contender.
    #[serde(flatten)]
    pub medians: BTreeMap<&'static str, f64>,
    /// Bytes that a TIME_WAIT record takes, its share of the index included: growth of the process.
    pub time_wait_bytes: f64,
    /// What happens to TIME_WAIT records.
    pub time_wait_ns: TimeWaitNanos,
    /// The timer wheel.
    pub timer_ns: TimerNanos,
    /// A SYN that finds its listener's SYN queue full: taken, answered by a cookie.
    pub syn_cookie_ns: f64,
    /// By the names of the medians.
    pub spread: BTreeMap<&'static str, Spread>,
    /// Figures divided by others of the same round.
    pub ratios: BTreeMap<&'static str, Ratio>,
}

/// The settings of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// Kernel release.
    pub kernel: String,
    /// The processor.
    pub cpu: String,
    /// Load average over a minute, before the run.
    pub load_average: f64,
    /// Whether the build is optimised: figures of another mean nothing.
    pub optimised: bool,
    /// Rounds.
    pub rounds: usize,
    /// Lives of one contender in one round.
    pub lives: u32,
    /// Established connections of the half-loaded and the loaded shard.
    pub connections: [u32; 2],
    /// TIME_WAIT records of both.
    pub time_wait: u32,
    /// Timers.
    pub timers: u32,
    /// Idle connections beside smoltcp's serving one.
    pub smoltcp_idle: usize,
}

/// Smallest and largest of the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

/// Nanoseconds, among as many records as the loaded shard has.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TimeWaitNanos {
    /// The last round of a life: ACK and FIN taken, ACK sent, a record made of the connection.
    pub insert: f64,
    /// The end of a record whose time is over.
    pub expire: f64,
    /// A SYN that takes a record's place: taken, answered.
    pub takeover: f64,
}

impl TimeWaitNanos {
    pub(super) fn new(inserts: &[f64], expire: f64, takeover: f64) -> TimeWaitNanos {
        TimeWaitNanos { insert: median(inserts).unwrap_or(0.0), expire, takeover }
    }
}

impl Settings {
    pub(super) fn read(config: &EngineConfig) -> io::Result<Settings> {
        Ok(Settings {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cpu: machine::cpu_model(),
            load_average: machine::load_average()?,
            optimised: !cfg!(debug_assertions),
            rounds: config.rounds,
            lives: config.lives,
            connections: config.connections,
            time_wait: config.time_wait,
            timers: config.timers,
            smoltcp_idle: SMOLTCP_IDLE,
        })
    }
}

impl EngineReport {
    pub(super) fn new(
        settings: Settings,
        samples: &BTreeMap<&'static str, Vec<f64>>,
        time_wait_bytes: f64,
        time_wait_ns: TimeWaitNanos,
        timer_ns: TimerNanos,
        syn_cookie_ns: f64,
    ) -> EngineReport {
        let spread = |values: &Vec<f64>| Spread {
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        };
        let ratio = |name: &'static str, over: &str, under: &str| {
            let pairs = samples[over].iter().copied().zip(samples[under].iter().copied());
            Ratio::over(pairs).map(|ratio| (name, ratio))
        };
        let ratios = [
            ratio("loaded_by_empty", "lifecycle_ns_loaded", "lifecycle_ns"),
            ratio("batched_loaded_by_empty", "lifecycle_ns_batched_loaded", "lifecycle_ns_batched"),
            ratio("smoltcp_by_fourwave", "smoltcp_lifecycle_ns", "lifecycle_ns"),
            ratio("smoltcp_idle_by_fourwave", "smoltcp_lifecycle_ns_idle_1000", "lifecycle_ns"),
        ];
        EngineReport {
            settings,
            medians: samples.iter().filter_map(|(name, v)| Some((*name, median(v)?))).collect(),
            time_wait_bytes,
            time_wait_ns,
            timer_ns,
            syn_cookie_ns,
            spread: samples.iter().map(|(name, values)| (*name, spread(values))).collect(),
            ratios: ratios.into_iter().flatten().collect(),
        }
    }
}

/// Tables, ratios, and what is behind them.
pub fn render(report: &EngineReport) -> String {
    let mut text = format!("{}\n", lives(report));
    for (name, ratio) in &report.ratios {
        let Ratio { median, min, max } = ratio;
        let _ = writeln!(text, "{name}: {median:.2} (min {min:.2}, max {max:.2})");
    }
    let _ = writeln!(text, "{}", records(report));
    let cookie = report.syn_cookie_ns;
    let _ = writeln!(
        text,
        "A SYN of a flood, answered by a cookie: {cookie:.0} ns, {:.1} million a second.",
        1e3 / cookie.max(1.0)
    );
    text.push_str(&notes(report));
    text
}

fn lives(report: &EngineReport) -> Table {
    let [half, full] = report.settings.connections.map(|count| count.to_string());
    let records = report.settings.time_wait.to_string();
    let idle = report.settings.smoltcp_idle.to_string();
    let (one, many, none) = ("1".to_owned(), BATCH.to_string(), "0".to_owned());
    let mut table =
        table(["engine", "established", "TIME_WAIT", "in flight", "ns/life", "min", "max"]);
    for (engine, established, time_wait, in_flight, key) in [
        ("smoltcp", &none, &none, &one, "smoltcp_lifecycle_ns"),
        ("smoltcp", &idle, &none, &one, "smoltcp_lifecycle_ns_idle_1000"),
        ("fourwave", &none, &none, &one, "lifecycle_ns"),
        ("fourwave", &half, &records, &one, "lifecycle_ns_100k"),
        ("fourwave", &full, &records, &one, "lifecycle_ns_loaded"),
        ("fourwave", &none, &none, &many, "lifecycle_ns_batched"),
        ("fourwave", &half, &records, &many, "lifecycle_ns_batched_100k"),
        ("fourwave", &full, &records, &many, "lifecycle_ns_batched_loaded"),
    ] {
        let Spread { min, max } = report.spread[key];
        let nanos = [report.medians[key], min, max].map(|nanos| format!("{nanos:.0}"));
        let names = [engine, established, time_wait, in_flight].map(str::to_owned);
        table.add_row(names.into_iter().chain(nanos));
    }
    right_from(&mut table, 1);
    table
}

fn records(report: &EngineReport) -> Table {
    let EngineReport { settings, time_wait_ns, timer_ns, .. } = report;
    let mut table = table(["of", "arm or insert", "cancel or takeover", "expire", "bytes"]);
    let row = |name: &str, nanos: [f64; 3], bytes: String| {
        let [a, b, c] = nanos.map(|nanos| format!("{nanos:.0} ns"));
        [name.to_owned(), a, b, c, bytes]
    };
    let wait = [time_wait_ns.insert, time_wait_ns.takeover, time_wait_ns.expire];
    let name = format!("{} TIME_WAIT records", settings.time_wait);
    table.add_row(row(&name, wait, format!("{:.1}", report.time_wait_bytes)));
    let timers = [timer_ns.arm, timer_ns.cancel, timer_ns.expire];
    table.add_row(row(&format!("{} timers", settings.timers), timers, String::new()));
    right_from(&mut table, 1);
    table
}

fn notes(report: &EngineReport) -> String {
    let Settings { kernel, cpu, load_average, rounds, lives, .. } = &report.settings;
    let mut text = format!(
        "A life: SYN, ACK, 64 B request, 64 B reply with FIN, ACK, FIN, ACK; IPv4, timestamps, \
         checksums computed and verified.\nThe server closes first and ends in TIME_WAIT, whose end \
         is not part of a life. Idle connections send nothing.\n{rounds} interleaved rounds of \
         {lives} lives; medians, smallest and largest. The clients' own {:.0} ns a life ({:.0} ns \
         for {BATCH} in flight) are subtracted.\nTIME_WAIT insert: the whole last round (ACK and FIN \
         in, ACK out, record for connection); takeover: the whole SYN.\nLinux {kernel}, {cpu}, load \
         average {load_average:.2}\n",
        report.medians["client_ns"], report.medians["client_ns_batched"],
    );
    if !report.settings.optimised {
        text.push_str("Note: this build is not optimised (use --release): no figures.\n");
    }
    text
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(header);
    table
}

fn right_from(table: &mut Table, first: usize) {
    for column in table.column_iter_mut().skip(first) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
