//! How figures change as something grows: idle connections, TIME_WAIT, workers, threads, listeners,
//! attached programs. Each point is loaded in turn with a server that has one of everything, in a
//! lab that is up at the same time and has been for as long: what the machine does meanwhile, it
//! does to both, and memory that is touched for the first time is as new to either.

mod pair;

use std::time::{Duration, Instant};

use super::Scope;
use super::bed::{Bed, Io, Server, ServerSpec, Subject};
use super::choose::{Choices, Setting};
use super::held::{hold, keeper, per_keeper};
use super::measure::{Bench, SIZE};
use super::report::{Report, Series, SeriesPoint};
use crate::compare::CompareError;
use pair::Plain;

/// How far each series goes.
struct Extent {
    /// Pairs of loads per point.
    rounds: usize,
    /// Most connections of one process on kernel sockets, if its files are not fewer.
    kept: u64,
    idle: &'static [u64],
    time_wait: &'static [u64],
    /// Idle connections beside the most TIME_WAIT.
    both: &'static [u64],
    workers: &'static [u32],
    threads: &'static [u32],
    listeners: &'static [u32],
    programs: &'static [u32],
}

const FULL: Extent = Extent {
    rounds: 5,
    kept: HOLD_BATCH,
    idle: &[0, 100_000, 1_000_000],
    time_wait: &[0, 1_000_000, 3_000_000, 10_000_000],
    both: &[100_000, 1_000_000],
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
    both: &[500],
    workers: &[2],
    threads: &[2],
    listeners: &[4],
    programs: &[4],
};

/// Opened by one load at once, so that a load is not longer than its client's patience.
const HOLD_BATCH: u64 = 100_000;

/// Filling TIME_WAIT takes no longer than this.
const FILL_LIMIT: Duration = Duration::from_secs(400);

/// One of the loads that fill it.
const MOST_AT_ONCE: Duration = Duration::from_secs(5);

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
    let mut series = vec![scaling.idle()?];
    series.extend(scaling.time_wait()?);
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
        "The series over TIME_WAIT keep records for {LONG_TIME_WAIT} instead of 60 s, so that they \
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
                let mut plain = self.plain(subject)?;
                let mut bed = Bed::with(self.bench, subject, "", wanted.queues, &[])?;
                let server = bed.serve(&self.spec(subject, wanted))?;
                for _ in 1..wanted.programs {
                    bed.serve(&self.spec(subject, Point::default()))?;
                }
                points.push(self.point(&mut plain, &mut bed, &server, f64::from(at))?);
                bed.down()?;
                plain.down()?;
            }
        }
        Ok(Series { id, title, axis, points })
    }

    fn idle(&self) -> Result<Series, CompareError> {
        let mut points = Vec::new();
        for subject in [Subject::Kernel, Subject::Fourwave] {
            let keys = if subject == Subject::Fourwave { self.room() } else { Vec::new() };
            let mut plain = self.plain(subject)?;
            let mut bed = Bed::with(self.bench, subject, "", 1, &keys)?;
            let server = bed.serve(&self.spec(subject, Point::default()))?;
            let mut idle = Idle::default();
            for &at in self.extent.idle {
                self.bench.progress.step(&format!("{at} idle connections, {}", subject.name()));
                idle.grow(self.bench, &mut bed, at, self.extent.kept)?;
                points.push(self.point(&mut plain, &mut bed, &server, at as f64)?);
            }
            bed.down()?;
            plain.down()?;
        }
        let title = "connections/s beside established, idle connections";
        Ok(Series { id: "idle", title, axis: "idle connections", points })
    }

    /// Over TIME_WAIT, and then over idle connections beside all of it.
    fn time_wait(&self) -> Result<[Series; 2], CompareError> {
        let mut keys = self.room();
        keys.push(("tcp.time_wait", format!("{LONG_TIME_WAIT:?}")));
        let mut plain = self.plain(Subject::Fourwave)?;
        let mut bed = Bed::with(self.bench, Subject::Fourwave, "", 1, &keys)?;
        let server = bed.serve(&self.spec(Subject::Fourwave, Point::default()))?;
        let mut points = Vec::new();
        let mut closed = 0;
        for &at in self.extent.time_wait {
            self.bench.progress.step(&format!("{at} connections in TIME_WAIT"));
            let begun = Instant::now();
            while closed < at && begun.elapsed() < FILL_LIMIT {
                let load = pair::load(self.bench, self.bench.config.length.min(MOST_AT_ONCE));
                let sample = self.bench.sample(&mut bed, Some(&server), &load)?;
                closed += sample.report.completed.max(1);
            }
            // What there is, if filling was too slow.
            points.push(self.point(&mut plain, &mut bed, &server, closed.min(at) as f64)?);
        }
        let title = "connections/s beside connections in TIME_WAIT";
        let time_wait = Series { id: "time_wait", title, axis: "TIME_WAIT records", points };

        let (mut points, mut idle) = (Vec::new(), Idle::default());
        for &at in self.extent.both {
            self.bench.progress.step(&format!("{at} idle connections beside all TIME_WAIT"));
            idle.grow(self.bench, &mut bed, at, self.extent.kept)?;
            points.push(self.point(&mut plain, &mut bed, &server, at as f64)?);
        }
        bed.down()?;
        plain.down()?;
        let title = "connections/s beside idle connections and all of that TIME_WAIT";
        Ok([time_wait, Series { id: "both", title, axis: "idle connections", points }])
    }

    /// Room for the idle connections, as lines of the daemon's configuration.
    fn room(&self) -> Vec<(&'static str, String)> {
        let idle = self.extent.idle.iter().chain(self.extent.both);
        let most = idle.copied().max().unwrap_or(0) + 70_000;
        vec![
            ("limits.connections", most.to_string()),
            ("clients.connections", most.to_string()),
            ("clients.bytes", "\"6GiB\"".to_owned()),
        ]
    }

    /// One of everything.
    fn plain(&self, subject: Subject) -> Result<Plain, CompareError> {
        Plain::up(self.bench, subject, &self.spec(subject, Point::default()))
    }

    fn point(
        &self,
        plain: &mut Plain,
        bed: &mut Bed,
        server: &Server,
        at: f64,
    ) -> Result<SeriesPoint, CompareError> {
        pair::point(self.bench, plain, (bed, server), self.extent.rounds, at)
    }
}

/// Connections that are open and left alone, and who holds them.
#[derive(Default)]
struct Idle {
    open: u64,
    keepers: Vec<Server>,
}

impl Idle {
    /// Opens more until there are `at`. On kernel sockets one process holds no more than `kept`;
    /// fourwave's take no descriptors.
    fn grow(
        &mut self,
        bench: &Bench<'_>,
        bed: &mut Bed,
        at: u64,
        kept: u64,
    ) -> Result<(), CompareError> {
        let kernel = bed.subject() == Subject::Kernel;
        let most = if kernel { per_keeper(kept) } else { u64::MAX };
        while self.open < at {
            if (self.keepers.len() as u64).saturating_mul(most) <= self.open {
                self.keepers.push(bed.serve(&keeper(bench, bed.subject()))?);
            }
            let room = (self.keepers.len() as u64).saturating_mul(most) - self.open;
            let more = HOLD_BATCH.min(at - self.open).min(room);
            hold(bench, bed, &self.keepers[self.keepers.len() - 1], more)?;
            self.open += more;
        }
        Ok(())
    }
}
