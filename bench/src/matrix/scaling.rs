//! How figures change as something grows: idle connections, TIME_WAIT, workers, threads, listeners,
//! attached programs. Each point has a lab of its own.

use std::time::{Duration, Instant};

use super::Scope;
use super::bed::{Bed, Io, Placement, Server, ServerSpec, Subject};
use super::choose::{Choices, Setting};
use super::held::{hold, keeper, per_keeper};
use super::measure::{Bench, Load, SIZE, Workload};
use super::report::{Report, Series, SeriesPoint};
use crate::compare::{CompareError, median};
use crate::load::{Latency, Via};
use crate::machine;

/// How far each series goes.
struct Extent {
    /// Loads per point.
    rounds: usize,
    /// Most connections of one process on kernel sockets, if its files are not fewer.
    kept: u64,
    idle: &'static [u64],
    time_wait: &'static [u64],
    workers: &'static [u32],
    threads: &'static [u32],
    listeners: &'static [u32],
    programs: &'static [u32],
}

const FULL: Extent = Extent {
    rounds: 3,
    kept: HOLD_BATCH,
    idle: &[0, 100_000, 1_000_000],
    time_wait: &[0, 1_000_000, 3_000_000, 10_000_000],
    workers: &[1, 2],
    threads: &[1, 2, 4],
    listeners: &[1, 8, 64],
    programs: &[1, 8, 64],
};

const QUICK: Extent = Extent {
    rounds: 1,
    kept: 300,
    idle: &[500],
    time_wait: &[500],
    workers: &[2],
    threads: &[2],
    listeners: &[4],
    programs: &[4],
};

/// Opened by one load at once, so that a load is not longer than its client's patience.
const HOLD_BATCH: u64 = 100_000;

/// Filling TIME_WAIT takes no longer than this.
const FILL_LIMIT: Duration = Duration::from_secs(400);

/// Longer than filling and measuring take, instead of 60 s.
const LONG_TIME_WAIT: &str = "20min";

/// Adds all series.
pub(super) fn measure(
    bench: &Bench<'_>,
    choices: &Choices,
    report: &mut Report,
) -> Result<(), CompareError> {
    let extent = if bench.config.scope == Scope::Quick { &QUICK } else { &FULL };
    let scaling = Scaling { bench, choices, extent };
    let mut series = vec![scaling.idle()?, scaling.time_wait()?];
    series.push(scaling.grow(
        "workers",
        "connections/s over workers (one queue each)",
        "workers",
        extent.workers,
        |at| Point { queues: at, ..Point::default() },
    )?);
    series.push(scaling.grow(
        "threads",
        "connections/s over threads of the server",
        "threads",
        extent.threads,
        |at| Point { threads: at, ..Point::default() },
    )?);
    series.push(scaling.grow(
        "listeners",
        "connections/s over listeners that share the load",
        "listeners",
        extent.listeners,
        |at| Point { listeners: at, ..Point::default() },
    )?);
    series.push(scaling.grow(
        "clients",
        "connections/s beside other attached programs",
        "programs",
        extent.programs,
        |at| Point { programs: at, ..Point::default() },
    )?);
    report.scaling = series;
    report.notes.push(format!(
        "The series over TIME_WAIT keeps records for {LONG_TIME_WAIT} instead of 60 s, so that they \
         can be filled; the kernel's TIME_WAIT cannot be changed, so it has no such series."
    ));
    Ok(())
}

/// How much there is of each thing.
#[derive(Clone, Copy, Debug)]
struct Point {
    queues: u32,
    threads: u32,
    listeners: u32,
    programs: u32,
}

impl Default for Point {
    fn default() -> Point {
        Point { queues: 1, threads: 1, listeners: 1, programs: 1 }
    }
}

struct Scaling<'a> {
    bench: &'a Bench<'a>,
    choices: &'a Choices,
    extent: &'static Extent,
}

impl Scaling<'_> {
    fn spec(&self, subject: Subject, point: Point) -> ServerSpec {
        let config = self.bench.config;
        let io = match subject {
            Subject::Kernel => self.choices.io(Setting::BestPlacement),
            Subject::Fourwave | Subject::Limit => Io::Library,
        };
        ServerSpec {
            io,
            defer_accept: false,
            // All on the server's: the generator, which polls, has the other one to itself.
            cpus: vec![config.server_cpu; point.threads as usize],
            size: SIZE,
            listeners: point.listeners as u16,
        }
    }

    /// One series over numbers of something, for both servers where it means something for both.
    fn grow(
        &self,
        id: &'static str,
        title: &'static str,
        axis: &'static str,
        numbers: &[u32],
        point: impl Fn(u32) -> Point,
    ) -> Result<Series, CompareError> {
        let mut points = Vec::new();
        for &at in numbers {
            for subject in [Subject::Kernel, Subject::Fourwave] {
                // A kernel server has neither workers nor programs that are attached to one.
                if subject == Subject::Kernel && matches!(id, "workers" | "clients") {
                    continue;
                }
                self.bench.progress.step(&format!("{title}: {at}, {}", subject.name()));
                let wanted = point(at);
                let mut bed = Bed::with(self.bench, subject, wanted.queues, &[])?;
                let server = bed.serve(&self.spec(subject, wanted))?;
                for _ in 1..wanted.programs {
                    bed.serve(&self.spec(subject, Point::default()))?;
                }
                points.push(self.point(&mut bed, &server, f64::from(at))?);
                bed.down()?;
            }
        }
        Ok(Series { id, title, axis, points })
    }

    fn idle(&self) -> Result<Series, CompareError> {
        let most = self.extent.idle.iter().copied().max().unwrap_or(0) + 70_000;
        let keys = [
            ("limits.connections", most.to_string()),
            ("clients.connections", most.to_string()),
            ("clients.bytes", "\"6GiB\"".to_owned()),
        ];
        let mut points = Vec::new();
        for subject in [Subject::Kernel, Subject::Fourwave] {
            let keys: &[(&str, String)] = if subject == Subject::Fourwave { &keys } else { &[] };
            let mut bed = Bed::with(self.bench, subject, 1, keys)?;
            let server = bed.serve(&self.spec(subject, Point::default()))?;
            // One process can hold so many kernel sockets; fourwave's take no descriptors.
            let kernel = subject == Subject::Kernel;
            let most = if kernel { per_keeper(self.extent.kept) } else { u64::MAX };
            let (mut open, mut keepers) = (0, Vec::new());
            for &at in self.extent.idle {
                self.bench.progress.step(&format!("{at} idle connections, {}", subject.name()));
                while open < at {
                    if (keepers.len() as u64).saturating_mul(most) <= open {
                        keepers.push(bed.serve(&keeper(self.bench, subject))?);
                    }
                    let room = (keepers.len() as u64).saturating_mul(most) - open;
                    let more = HOLD_BATCH.min(at - open).min(room);
                    let last = &keepers[keepers.len() - 1];
                    hold(self.bench, &mut bed, last, more)?;
                    open += more;
                }
                points.push(self.point(&mut bed, &server, at as f64)?);
            }
            bed.down()?;
        }
        let title = "connections/s beside established, idle connections";
        Ok(Series { id: "idle", title, axis: "idle connections", points })
    }

    fn time_wait(&self) -> Result<Series, CompareError> {
        let keys = [("tcp.time_wait", format!("{LONG_TIME_WAIT:?}"))];
        let mut bed = Bed::with(self.bench, Subject::Fourwave, 1, &keys)?;
        let server = bed.serve(&self.spec(Subject::Fourwave, Point::default()))?;
        let mut points = Vec::new();
        let mut closed = 0;
        for &at in self.extent.time_wait {
            self.bench.progress.step(&format!("{at} connections in TIME_WAIT"));
            let begun = Instant::now();
            while closed < at && begun.elapsed() < FILL_LIMIT {
                let load = self.load(self.bench.config.length.min(Duration::from_secs(5)));
                let sample = self.bench.sample(&mut bed, Some(&server), &load)?;
                closed += sample.report.completed.max(1);
            }
            // What there is, if filling was too slow.
            points.push(self.point(&mut bed, &server, closed.min(at) as f64)?);
        }
        bed.down()?;
        let title = "connections/s beside connections in TIME_WAIT";
        Ok(Series { id: "time_wait", title, axis: "TIME_WAIT records", points })
    }

    fn load(&self, length: Duration) -> Load {
        Load {
            via: Via::Xdp,
            placement: Placement::Free,
            workload: Workload::Short { concurrency: self.bench.config.concurrency },
            length,
            coalesce: Duration::ZERO,
        }
    }

    fn point(&self, bed: &mut Bed, server: &Server, at: f64) -> Result<SeriesPoint, CompareError> {
        let load = self.load(self.bench.config.length.min(Duration::from_secs(3)));
        // The first one warms up.
        self.bench.sample(bed, Some(server), &Load { length: self.bench.config.trial, ..load })?;
        let (mut rates, mut latency, mut errors) = (Vec::new(), Latency::default(), 0);
        for _ in 0..self.extent.rounds {
            self.bench.check()?;
            let sample = self.bench.sample(bed, Some(server), &load)?;
            rates.push(sample.per_second(load.workload));
            latency.add(&sample.report.connect_latency);
            errors += sample.report.error_count();
        }
        Ok(SeriesPoint {
            server: bed.subject().name(),
            at,
            per_second: median(&rates).unwrap_or(0.0),
            p99: latency.microseconds(0.99),
            errors,
            daemon_bytes: bed.daemon().and_then(|pid| machine::resident_bytes_of(pid).ok()),
        })
    }
}
