//! Settings that are chosen by trying, each server for itself.

use std::time::Duration;

use super::Scope;
use super::bed::{Bed, Io, Placement, Server, ServerSpec, Subject};
use super::measure::{Bench, Load, SIZE, Workload};
use super::report::{Report, Tried};
use crate::compare::{CompareError, median};
use crate::load::Via;
use crate::server::uring;

/// How often each is tried.
const TRIES: usize = 3;

/// How long the generator may hold frames back, in microseconds. On veth every frame that is sent
/// alone rings the other CPU, which no NIC with interrupt moderation would do.
const COALESCE_US: [u64; 4] = [0, 20, 50, 100];

/// What was chosen, and the servers that run with it.
pub(super) struct Choices {
    pub(super) kernel_bound: Server,
    pub(super) kernel_free: Server,
    pub(super) fourwave_bound: Server,
    pub(super) fourwave_free: Server,
    /// Of the server-bound loads.
    pub(super) coalesce: Duration,
}

impl Choices {
    /// Tries, and leaves the best of each running.
    pub(super) fn find(
        bench: &Bench<'_>,
        kernel: &mut Bed,
        fourwave: &mut Bed,
        report: &mut Report,
    ) -> Result<Choices, CompareError> {
        let config = bench.config;
        let spec = |io, defer_accept, cpus: &[usize]| ServerSpec {
            io,
            defer_accept,
            cpus: cpus.to_vec(),
            size: SIZE,
            listeners: 1,
        };
        let alone = [config.server_cpu];
        let both = [config.server_cpu, config.client_cpu];
        let mut ios = vec![Io::Epoll];
        match uring::check() {
            Ok(()) => ios.push(Io::Uring),
            Err(problem) => report.notes.push(format!("{problem}: the kernel server uses epoll.")),
        }
        let ways = |cpus: &[usize]| -> Vec<ServerSpec> {
            let defer = [false, true];
            ios.iter().flat_map(|&io| defer.map(|defer| spec(io, defer, cpus))).collect()
        };

        let bound = Placement::ServerBound;
        let mut tries = Tries { bench, report };
        let start = Duration::from_micros(COALESCE_US[2]);
        let kernel_bound = tries.best("server-bound", kernel, &ways(&alone), bound, start)?;
        let quick = config.scope == Scope::Quick;
        let coalesce = tries.moderation(kernel, &kernel_bound)?;
        let mut free = ways(&alone);
        free.extend(ways(&both));
        if quick {
            // One alone and one on both: enough to see that either works.
            free = vec![free[0].clone(), free[free.len() - 1].clone()];
        }
        let kernel_free =
            tries.best("best placement", kernel, &free, Placement::Free, Duration::ZERO)?;
        let library = [spec(Io::Library, false, &alone), spec(Io::Library, true, &alone)];
        let fourwave_bound = tries.best("server-bound", fourwave, &library, bound, coalesce)?;
        let mut free = library.to_vec();
        free.push(spec(Io::Library, false, &[config.client_cpu]));
        let fourwave_free =
            tries.best("best placement", fourwave, &free, Placement::Free, Duration::ZERO)?;

        let settings = &mut report.settings;
        settings.kernel_server_bound = kernel_bound.spec.describe();
        settings.kernel_free = kernel_free.spec.describe();
        settings.fourwave_server_bound = fourwave_bound.spec.describe();
        settings.fourwave_free = fourwave_free.spec.describe();
        settings.coalesce_us = u64::try_from(coalesce.as_micros()).unwrap_or(u64::MAX);
        Ok(Choices { kernel_bound, kernel_free, fourwave_bound, fourwave_free, coalesce })
    }

    /// The server of a subject in a placement; none for the responder, which is always there.
    pub(super) fn server(&self, subject: Subject, placement: Placement) -> Option<&Server> {
        match (subject, placement) {
            (Subject::Kernel, Placement::ServerBound) => Some(&self.kernel_bound),
            (Subject::Kernel, Placement::Free) => Some(&self.kernel_free),
            (Subject::Fourwave, Placement::ServerBound) => Some(&self.fourwave_bound),
            (Subject::Fourwave, Placement::Free) => Some(&self.fourwave_free),
            (Subject::Limit, _) => None,
        }
    }

    /// How long frames are held back in a placement: where the other CPU is not rung, not at all.
    pub(super) fn coalesce(&self, placement: Placement) -> Duration {
        match placement {
            Placement::ServerBound => self.coalesce,
            Placement::Free => Duration::ZERO,
        }
    }
}

struct Tries<'a, 'b> {
    bench: &'a Bench<'b>,
    report: &'a mut Report,
}

impl Tries<'_, '_> {
    /// Starts all, loads them in turn, and stops all but the best.
    fn best(
        &mut self,
        purpose: &'static str,
        bed: &mut Bed,
        specs: &[ServerSpec],
        placement: Placement,
        coalesce: Duration,
    ) -> Result<Server, CompareError> {
        let name = bed.subject().name();
        self.bench.progress.step(&format!("{purpose}: trying {} {name} servers", specs.len()));
        let mut servers = Vec::new();
        for spec in specs {
            servers.push(bed.serve(spec)?);
        }
        let mut rates = vec![Vec::new(); servers.len()];
        for _ in 0..self.tries() {
            for (server, rates) in servers.iter().zip(&mut rates) {
                rates.push(self.rate(bed, server, placement, coalesce)?);
            }
        }
        let best = self.record(purpose, bed, &rates, |index| specs[index].describe());
        for (index, server) in servers.iter().enumerate() {
            if index != best {
                bed.stop(server)?;
            }
        }
        Ok(servers.swap_remove(best))
    }

    /// How long frames are best held back for the kernel's server.
    fn moderation(&mut self, bed: &mut Bed, server: &Server) -> Result<Duration, CompareError> {
        self.bench.progress.step("server-bound: trying interrupt moderation");
        let mut rates = vec![Vec::new(); COALESCE_US.len()];
        for _ in 0..self.tries() {
            for (&held, rates) in COALESCE_US.iter().zip(&mut rates) {
                let held = Duration::from_micros(held);
                rates.push(self.rate(bed, server, Placement::ServerBound, held)?);
            }
        }
        let describe = |index: usize| format!("frames held back up to {} µs", COALESCE_US[index]);
        let best = self.record("server-bound", bed, &rates, describe);
        Ok(Duration::from_micros(COALESCE_US[best]))
    }

    fn tries(&self) -> usize {
        if self.bench.config.scope == Scope::Quick { 1 } else { TRIES }
    }

    fn rate(
        &self,
        bed: &mut Bed,
        server: &Server,
        placement: Placement,
        coalesce: Duration,
    ) -> Result<f64, CompareError> {
        self.bench.check()?;
        let workload = Workload::Short { concurrency: self.bench.config.concurrency };
        let length = self.bench.config.trial;
        let load = Load { via: Via::Xdp, placement, workload, length, coalesce };
        Ok(self.bench.sample(bed, Some(server), &load)?.per_second(workload))
    }

    /// Notes what was tried; returns the number of the best.
    fn record(
        &mut self,
        purpose: &'static str,
        bed: &Bed,
        rates: &[Vec<f64>],
        describe: impl Fn(usize) -> String,
    ) -> usize {
        let medians: Vec<f64> = rates.iter().map(|rates| median(rates).unwrap_or(0.0)).collect();
        let best =
            (0..medians.len()).max_by(|&a, &b| medians[a].total_cmp(&medians[b])).unwrap_or(0);
        let server = bed.subject().name();
        for (index, &per_second) in medians.iter().enumerate() {
            let chosen = index == best;
            let what = describe(index);
            self.report.tried.push(Tried { purpose, server, what, per_second, chosen });
        }
        best
    }
}
