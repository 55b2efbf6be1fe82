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

/// What a server is to be at its best in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// All of its work on one CPU.
    ServerBound,
    /// Both CPUs are its own and the generator's.
    BestPlacement,
    /// The client is the kernel's.
    KernelClient,
}

impl Setting {
    pub(super) const ALL: [Setting; 3] =
        [Setting::ServerBound, Setting::BestPlacement, Setting::KernelClient];

    pub(super) fn name(self) -> &'static str {
        match self {
            Setting::ServerBound => "server-bound",
            Setting::BestPlacement => "best placement",
            Setting::KernelClient => "kernel client",
        }
    }

    pub(super) fn placement(self) -> Placement {
        match self {
            Setting::ServerBound => Placement::ServerBound,
            Setting::BestPlacement | Setting::KernelClient => Placement::Free,
        }
    }

    pub(super) fn via(self) -> Via {
        match self {
            Setting::ServerBound | Setting::BestPlacement => Via::Xdp,
            Setting::KernelClient => Via::Kernel,
        }
    }

    /// Its short connections. What both CPUs do takes more of them at once to show.
    pub(super) fn workload(self, concurrency: usize) -> Workload {
        let times = if self == Setting::BestPlacement { 4 } else { 1 };
        Workload::Short { concurrency: times * concurrency }
    }
}

/// What was chosen, and the servers that run with it.
pub(super) struct Choices {
    /// In the order of [`Setting::ALL`].
    kernel: Vec<Server>,
    fourwave: Vec<Server>,
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

        let quick = config.scope == Scope::Quick;
        let mut spread = ways(&alone);
        spread.extend(ways(&both));
        if quick {
            // One alone and one on both: enough to see that either works.
            spread = vec![spread[0].clone(), spread[spread.len() - 1].clone()];
        }
        let library = [spec(Io::Library, false, &alone), spec(Io::Library, true, &alone)];
        let mut apart = library.to_vec();
        apart.push(spec(Io::Library, false, &[config.client_cpu]));

        let mut tries = Tries { bench, report, coalesce: Duration::from_micros(COALESCE_US[2]) };
        let mut best = [Vec::new(), Vec::new()];
        for setting in Setting::ALL {
            let bound = setting == Setting::ServerBound;
            let specs = if bound { &ways(&alone) } else { &spread };
            best[0].push(tries.best(setting, kernel, specs)?);
            if bound {
                tries.coalesce = tries.moderation(kernel, &best[0][0])?;
            }
            let specs = if bound { &library[..] } else { &apart[..] };
            best[1].push(tries.best(setting, fourwave, specs)?);
        }
        let coalesce = tries.coalesce;
        let described = |servers: &[Server]| {
            let named = Setting::ALL.into_iter().zip(servers);
            named.map(|(setting, server)| (setting.name(), server.spec.describe())).collect()
        };
        let settings = &mut report.settings;
        settings.kernel_servers = described(&best[0]);
        settings.fourwave_servers = described(&best[1]);
        settings.coalesce_us = u64::try_from(coalesce.as_micros()).unwrap_or(u64::MAX);
        let [kernel, fourwave] = best;
        Ok(Choices { kernel, fourwave, coalesce })
    }

    /// The server of a subject in a setting; none for the responder, which is always there.
    pub(super) fn server(&self, subject: Subject, setting: Setting) -> Option<&Server> {
        match subject {
            Subject::Kernel => self.kernel.get(setting as usize),
            Subject::Fourwave => self.fourwave.get(setting as usize),
            Subject::Limit => None,
        }
    }

    /// How the kernel's server does its work in a setting.
    pub(super) fn io(&self, setting: Setting) -> Io {
        self.kernel.get(setting as usize).map_or(Io::Epoll, |server| server.spec.io)
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
    /// Of server-bound loads.
    coalesce: Duration,
}

impl Tries<'_, '_> {
    /// Starts all, loads them in turn, and stops all but the best.
    fn best(
        &mut self,
        setting: Setting,
        bed: &mut Bed,
        specs: &[ServerSpec],
    ) -> Result<Server, CompareError> {
        let (name, purpose) = (bed.subject().name(), setting.name());
        self.bench.progress.step(&format!("{purpose}: trying {} {name} servers", specs.len()));
        let mut servers = Vec::new();
        for spec in specs {
            servers.push(bed.serve(spec)?);
        }
        let mut rates = vec![Vec::new(); servers.len()];
        for _ in 0..self.tries() {
            for (server, rates) in servers.iter().zip(&mut rates) {
                rates.push(self.rate(bed, server, setting, self.coalesce)?);
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
                rates.push(self.rate(bed, server, Setting::ServerBound, held)?);
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
        setting: Setting,
        coalesce: Duration,
    ) -> Result<f64, CompareError> {
        self.bench.check()?;
        let (via, placement) = (setting.via(), setting.placement());
        let workload = setting.workload(self.bench.config.concurrency);
        let length = self.bench.config.trial;
        let coalesce = match placement {
            Placement::ServerBound => coalesce,
            Placement::Free => Duration::ZERO,
        };
        let load = Load { via, placement, workload, length, coalesce };
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
