//! The whole comparison in one run: clients, servers, workloads and loads crossed, in rounds that
//! are interleaved so that drift of the machine cancels.
//!
//! Three labs are up at once, with the same addresses and settings: one for the kernel's server,
//! whose interface has no XDP program, one for fourwave, and one for the responder without state
//! that is the limit of both. What differs between servers is chosen by trying before the rounds
//! begin, for each of them by its own best; everything that was tried is in the report.

mod aims;
mod bed;
mod bulk;
mod chart;
mod choose;
mod curve;
mod held;
mod measure;
mod page;
mod plan;
mod report;
mod scaling;
mod table;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::compare::{CompareError, Progress};
use crate::machine;

pub use page::page;
pub use report::{Report, Row};
pub use table::render;

use bed::{Bed, Subject};
use choose::Choices;
use measure::Bench;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything once, too short for figures: for tests.
    Quick,
    /// Half an hour at most.
    Standard,
    /// Only the series.
    Series,
    /// With the series over connections, TIME_WAIT, workers, threads, listeners and clients.
    Full,
}

impl Scope {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Quick => "quick",
            Scope::Standard => "standard",
            Scope::Full => "full",
            Scope::Series => "series",
        }
    }
}

/// What to measure and how.
#[derive(Clone, Debug)]
pub struct MatrixConfig {
    /// How much.
    pub scope: Scope,
    /// Labs are called this and a letter.
    pub lab: String,
    /// Rounds.
    pub rounds: usize,
    /// Length of one load.
    pub length: Duration,
    /// Length of a load that only tries or counts.
    pub trial: Duration,
    /// Connections in flight, where no other number is said.
    pub concurrency: usize,
    /// Everything that is measured goes before what others run on the machine (`SCHED_FIFO`).
    pub realtime: bool,
    /// The CPU of the servers and the daemon.
    pub server_cpu: usize,
    /// The CPU of the load.
    pub client_cpu: usize,
}

impl MatrixConfig {
    /// The usual lengths of a scope.
    pub fn new(scope: Scope, lab: String, server_cpu: usize, client_cpu: usize) -> MatrixConfig {
        let (rounds, length, trial) = match scope {
            Scope::Quick => (1, 250, 100),
            Scope::Standard | Scope::Full | Scope::Series => (7, 5000, 1500),
        };
        MatrixConfig {
            scope,
            lab,
            rounds,
            length: Duration::from_millis(length),
            trial: Duration::from_millis(trial),
            concurrency: 64,
            realtime: false,
            server_cpu,
            client_cpu,
        }
    }
}

/// Builds the labs, measures everything, and removes the labs, also after an error and when
/// `cancelled` becomes true.
///
/// # Errors
/// See [`CompareError`]. Failed connections are no error of the run: they are in its rows.
pub fn run(
    config: &MatrixConfig,
    cancelled: &AtomicBool,
    progress: &Progress,
) -> Result<Report, CompareError> {
    let load_average = machine::load_average().map_err(CompareError::io("load average"))?;
    if config.realtime {
        machine::before_all_others().map_err(CompareError::io("SCHED_FIFO"))?;
    }
    machine::raise_open_files().map_err(CompareError::io("the limit of open files"))?;
    let bench = Bench { config, cancelled, progress };
    progress.step("building three labs");
    // Beds are dropped, and their labs removed, however this ends.
    let mut kernel = Bed::up(&bench, Subject::Kernel)?;
    let mut fourwave = Bed::up(&bench, Subject::Fourwave)?;
    let mut limit = Bed::up(&bench, Subject::Limit)?;
    let mut report = Report::begin(config, load_average, &kernel, &fourwave)?;

    report.idle_daemon_cpu = Some(bench.idle_cpu(&fourwave)?);
    let choices = Choices::find(&bench, &mut kernel, &mut fourwave, &mut report)?;
    if config.scope != Scope::Series {
        report.memory = held::measure(&bench, [&mut kernel, &mut fourwave])?;
        curves_and_rows(&bench, [&mut kernel, &mut fourwave, &mut limit], &choices, &mut report)?;
        bulk::measure(&bench, [&kernel, &fourwave], &mut report)?;
    }
    for bed in [&kernel, &fourwave] {
        report.overflow.insert(bed.subject().name(), bed.time_wait_overflow()?);
    }
    progress.step("removing the labs");
    kernel.down()?;
    fourwave.down()?;
    limit.down()?;
    if config.scope != Scope::Standard {
        scaling::measure(&bench, &choices, &mut report)?;
    }
    report.finish();
    Ok(report)
}

/// What the three beds are for.
fn curves_and_rows(
    bench: &Bench<'_>,
    [kernel, fourwave, limit]: [&mut Bed; 3],
    choices: &Choices,
    report: &mut Report,
) -> Result<(), CompareError> {
    plan::closed_loops(bench, [&mut *kernel, &mut *fourwave, limit], choices, report)?;
    curve::measure(bench, [kernel, fourwave], choices, report)
}
