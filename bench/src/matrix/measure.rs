//! One load on one server, and everything that is counted meanwhile.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::bed::{Bed, Placement, Server};
use super::{MatrixConfig, Scope};
use crate::compare::{CompareError, Counters, Progress, wait_for};
use crate::lab::bench_binary;
use crate::load::{LoadReport, Via};
use crate::machine::{self, CpuTimes, ProcessTimes, now_ns};
use crate::stamps;
use crate::syscalls::Syscalls;

/// Bytes of a request and of its reply.
pub(super) const SIZE: usize = 64;

/// How often a quick run makes a load again of which too little came.
const REPEATS: usize = 3;

/// Connections (replies) of which something can be said: some of them have told of their accepts.
const FEWEST: u64 = 16 * stamps::SAMPLE;

/// What all measurements share.
#[derive(Clone, Copy)]
pub(super) struct Bench<'a> {
    pub(super) config: &'a MatrixConfig,
    pub(super) cancelled: &'a AtomicBool,
    pub(super) progress: &'a Progress,
}

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Workload {
    /// Connect, one request, its reply, the server closes; so many at once.
    Short { concurrency: usize },
    /// The same, so many a second whatever becomes of them.
    Open { rate: f64 },
    /// The same beyond what the server can do: clients give up soon, and what finds no room is left
    /// out.
    Overload { rate: f64 },
    /// Connections that stay, each with one request after another.
    KeepAlive { connections: usize },
    /// So many connections that are made, left open and left alone.
    Hold { connections: u64 },
}

impl Workload {
    pub(super) fn describe(self) -> String {
        match self {
            Workload::Short { concurrency } => format!("{concurrency} in flight"),
            Workload::Open { rate } => format!("{rate:.0}/s offered"),
            Workload::Overload { rate } => format!("{rate:.0}/s offered, given up after 0.25 s"),
            Workload::KeepAlive { connections } => format!("{connections} connections kept"),
            Workload::Hold { connections } => format!("{connections} connections opened"),
        }
    }
}

/// A load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) via: Via,
    pub(super) placement: Placement,
    pub(super) workload: Workload,
    pub(super) length: Duration,
    /// How long the generator may hold frames back.
    pub(super) coalesce: Duration,
}

/// What came of one load.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) report: LoadReport,
    pub(super) server_retransmits: u64,
    /// CPU time of the server's CPU.
    pub(super) server_core: CpuTimes,
    /// Of the server's processes.
    pub(super) processes: ProcessTimes,
    /// Frames to the server and from it.
    pub(super) frames: [u64; 2],
    /// Packets taken from receive queues by the server's CPU and by the generator's.
    pub(super) received_by: [u64; 2],
    /// The part of all CPUs' time that others had.
    pub(super) foreign: f64,
}

impl Sample {
    /// Connections per second, or replies where connections are kept.
    pub(super) fn per_second(&self, workload: Workload) -> f64 {
        match workload {
            Workload::KeepAlive { .. } => self.report.replies_per_second(),
            _ => self.report.connections_per_second(),
        }
    }

    /// What the figures per connection are per.
    pub(super) fn count(&self, workload: Workload) -> u64 {
        match workload {
            Workload::KeepAlive { .. } => self.report.reply_latency.count(),
            _ => self.report.completed,
        }
    }

    /// Whether something can be said of it. Failures always say something, but for those of clients
    /// that give up soon.
    fn is_telling(&self, workload: Workload) -> bool {
        let report = &self.report;
        let failed = report.error_count() > 0;
        match workload {
            Workload::Hold { .. } => true,
            Workload::Overload { .. } => report.completed_in_window >= FEWEST,
            Workload::KeepAlive { .. } => failed || report.replies_in_window >= FEWEST,
            Workload::Short { .. } | Workload::Open { .. } => {
                failed || report.completed_in_window >= FEWEST
            }
        }
    }
}

struct Snapshot {
    at: u64,
    cpus: Vec<CpuTimes>,
    own_ns: u64,
    processes: ProcessTimes,
    frames: [u64; 2],
    received: Vec<u64>,
    counters: Option<Counters>,
}

impl Bench<'_> {
    pub(super) fn check(&self) -> Result<(), CompareError> {
        // Relaxed: the flag is all that the signal handler tells us.
        if self.cancelled.load(Ordering::Relaxed) { Err(CompareError::Cancelled) } else { Ok(()) }
    }

    /// Makes the load on a server of the bed (without one: on the responder).
    ///
    /// Next to nothing may come of the short loads of a quick run, because the machine did something
    /// else meanwhile: they are made again. Those of other runs count as they are, also as nothing.
    pub(super) fn sample(
        &self,
        bed: &mut Bed,
        server: Option<&Server>,
        load: &Load,
    ) -> Result<Sample, CompareError> {
        let mut sample = self.sample_once(bed, server, load)?;
        let repeats = if self.config.scope == Scope::Quick { REPEATS } else { 0 };
        for _ in 0..repeats {
            if sample.is_telling(load.workload) {
                break;
            }
            self.check()?;
            sample = self.sample_once(bed, server, load)?;
        }
        Ok(sample)
    }

    fn sample_once(
        &self,
        bed: &mut Bed,
        server: Option<&Server>,
        load: &Load,
    ) -> Result<Sample, CompareError> {
        bed.place(self, load.placement)?;
        let before = self.snapshot(bed, server)?;
        let report = self.load(bed, server, load)?;
        bed.lab().check_programs()?;
        let after = self.snapshot(bed, server)?;
        self.difference(report, &before, &after)
    }

    fn difference(
        &self,
        report: LoadReport,
        before: &Snapshot,
        after: &Snapshot,
    ) -> Result<Sample, CompareError> {
        let core = |cpu: usize| after.cpus[cpu].since(&before.cpus[cpu]);
        let all = (0..after.cpus.len()).map(core);
        let counted: u64 = all.map(|cpu| cpu.processes_ns).sum();
        let processes = after.processes.since(&before.processes);
        let ours = after.own_ns - before.own_ns + processes.counted_ns;
        let whole = (after.at - before.at) * after.cpus.len() as u64;
        let received = |cpu: usize| after.received[cpu].saturating_sub(before.received[cpu]);
        Ok(Sample {
            report,
            server_retransmits: match (&after.counters, &before.counters) {
                (Some(after), Some(before)) => after.retransmits_since(before)?,
                _ => 0,
            },
            server_core: core(self.config.server_cpu),
            processes,
            frames: [0, 1].map(|way| after.frames[way].saturating_sub(before.frames[way])),
            received_by: [self.config.server_cpu, self.config.client_cpu].map(received),
            foreign: counted.saturating_sub(ours) as f64 / whole.max(1) as f64,
        })
    }

    fn snapshot(&self, bed: &Bed, server: Option<&Server>) -> Result<Snapshot, CompareError> {
        let counted = CompareError::io("what the machine counts");
        let mut processes = ProcessTimes::default();
        for pid in bed.processes(server) {
            let one = ProcessTimes::read(pid).map_err(CompareError::io("a server's times"))?;
            processes.running_ns += one.running_ns;
            processes.waiting_ns += one.waiting_ns;
            processes.counted_ns += one.counted_ns;
            processes.switches += one.switches;
            processes.cpus |= one.cpus;
        }
        let sent = |node: &crate::lab::Node| -> Result<u64, CompareError> {
            let sent = node.run(|| machine::frames_sent(node.interface()))?;
            sent.map_err(CompareError::io("an interface's counters"))
        };
        Ok(Snapshot {
            at: now_ns(),
            cpus: CpuTimes::read().map_err(counted)?,
            own_ns: machine::own_counted_ns(),
            processes,
            frames: [sent(bed.lab().client())?, sent(bed.lab().server())?],
            received: machine::received_by_cpu().map_err(CompareError::io("softnet_stat"))?,
            counters: bed.counters()?,
        })
    }

    /// One load from a process of its own.
    fn load(
        &self,
        bed: &mut Bed,
        server: Option<&Server>,
        load: &Load,
    ) -> Result<LoadReport, CompareError> {
        let target = server.map_or(bed.limit_address(), |server| server.address);
        let path = bed.lab().folder().join("load.json");
        let mut command = bed.lab().client().command(bench_binary()?);
        command
            .arg("load")
            .arg(format!("--via={}", load.via.name()))
            .arg("--xdp-mode=generic")
            .arg(format!("--target={target}"))
            .arg(format!("--size={SIZE}"))
            .arg(format!("--cpu={}", self.config.client_cpu))
            .arg(format!("--first-source={}", bed.next_source))
            .arg(format!("--coalesce={}us", load.coalesce.as_micros()))
            .arg(format!("--stamps={}", bed.stamps().display()))
            .arg(format!("--json={}", path.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(server) = server.filter(|server| server.spec.listeners > 1) {
            command.arg(format!("--ports={}", server.spec.listeners));
        }
        match load.workload {
            Workload::Short { concurrency } => command.arg(format!("--concurrency={concurrency}")),
            Workload::Open { rate } => command.arg(format!("--rate={rate}")),
            Workload::Overload { rate } => command.arg(format!("--rate={rate}")).args([
                "--shed",
                "--in-flight=50000",
                "--timeout=250ms",
            ]),
            Workload::KeepAlive { connections } => {
                command.arg("--keep-alive").arg(format!("--concurrency={connections}"))
            }
            Workload::Hold { connections } => {
                command.arg("--hold").arg(format!("--connections={connections}"))
            }
        };
        if !matches!(load.workload, Workload::Hold { .. }) {
            command.arg(format!("--duration={}", load.length.as_secs_f64()));
        }
        for address in bed.lab().client().addresses(false) {
            command.arg(format!("--source={address}"));
        }
        let child = command.spawn().map_err(CompareError::io("starting the load"))?;
        wait_for(child, self.cancelled, |length| self.progress.advance(length))?;
        let text = fs::read(&path).map_err(CompareError::io("the load's report"))?;
        let report: LoadReport = serde_json::from_slice(&text)
            .map_err(|source| CompareError::Report { path: path.clone(), source })?;
        bed.next_source = report.next_source;
        Ok(report)
    }

    /// System calls of the server's side per connection (or reply), in a load of their own: counting
    /// them takes time. `None` where the kernel does not let us count.
    pub(super) fn syscalls(
        &self,
        bed: &mut Bed,
        server: Option<&Server>,
        load: &Load,
    ) -> Result<Option<f64>, CompareError> {
        let load = Load { length: self.config.trial, ..*load };
        let Ok(mut counted) = Syscalls::count(&bed.processes(server)) else { return Ok(None) };
        // Once: what was counted is of this load alone.
        let sample = self.sample_once(bed, server, &load)?;
        let total = counted.total().map_err(CompareError::io("counting system calls"))?;
        Ok(Some(total as f64 / sample.count(load.workload).max(1) as f64))
    }

    /// The part of one CPU that the daemon takes while nothing happens.
    pub(super) fn idle_cpu(&self, bed: &Bed) -> Result<f64, CompareError> {
        self.progress.step("the daemon without any work");
        let read = || {
            let pid = bed.daemon().unwrap_or_else(|| rustix::process::getpid().as_raw_pid());
            ProcessTimes::read(pid).map_err(CompareError::io("the daemon's times"))
        };
        // What starting it takes is over.
        thread::sleep(self.config.trial);
        let (at, before) = (now_ns(), read()?);
        thread::sleep(self.config.length);
        let times = read()?.since(&before);
        Ok(times.running_ns as f64 / (now_ns() - at).max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(completed_in_window: u64, timeouts: u64) -> Sample {
        let mut report = LoadReport { completed_in_window, ..LoadReport::default() };
        if timeouts > 0 {
            report.errors.insert("timeout".to_owned(), timeouts);
        }
        Sample {
            report,
            server_retransmits: 0,
            server_core: CpuTimes::default(),
            processes: ProcessTimes::default(),
            frames: [0; 2],
            received_by: [0; 2],
            foreign: 0.0,
        }
    }

    #[test]
    fn few_connections_are_telling_when_some_failed_that_should_not() {
        let (short, overload) =
            (Workload::Short { concurrency: 1 }, Workload::Overload { rate: 1.0 });
        assert!(!sample(0, 0).is_telling(short) && sample(0, 1).is_telling(short));
        assert!(!sample(0, 1).is_telling(overload));
        for workload in [short, overload] {
            assert!(sample(FEWEST, 0).is_telling(workload));
        }
        assert!(sample(0, 0).is_telling(Workload::Hold { connections: 1 }));
    }
}
