//! The run itself, inside a lab that is up.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use super::contender::{Contender, Counters};
use super::progress::Progress;
use super::result::{self, Comparison, Row, Sample};
use super::settings::Settings;
use super::{CompareConfig, CompareError, Rps, check};
use crate::lab::{Lab, ProcessRef, bench_binary};
use crate::load::LoadReport;
use crate::machine::NetCounters;

/// How often a running load is looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// How long a load may take to end when nobody wants it any more.
const GRACE: Duration = Duration::from_secs(5);

/// A kernel's own count of TIME_WAIT records that it could not keep.
const OVERFLOW: &str = "TcpExtTCPTimeWaitOverflow";

pub(super) fn in_lab(
    config: &CompareConfig,
    lab: &mut Lab,
    cancelled: &AtomicBool,
    progress: &Progress,
) -> Result<Comparison, CompareError> {
    if config.rps == Rps::Pin {
        lab.server().set_rps(1 << config.server_cpu)?;
        lab.client().set_rps(1 << config.client_cpu)?;
    }
    progress.step("starting the servers");
    for contender in &config.contenders {
        contender.start(config, lab)?;
    }
    let mut settings = Settings::read(config, lab)?;
    let client_before = client_counters(lab)?;
    let before = server_counters(config, lab)?;
    let samples = Run { config, lab, cancelled, progress, next_source: 0 }.all_rounds()?;
    let after = server_counters(config, lab)?;
    settings
        .time_wait_overflow
        .insert("client", client_counters(lab)?.since(&client_before, OVERFLOW));
    for ((contender, before), after) in config.contenders.iter().zip(&before).zip(&after) {
        settings.time_wait_overflow.insert(contender.name(), after.overflow_since(before)?);
    }
    Ok(summarise(config, settings, &samples))
}

/// Samples of each contender, in the order of `CompareConfig::contenders`.
type Samples = Vec<Vec<Sample>>;

struct Run<'a> {
    config: &'a CompareConfig,
    lab: &'a Lab,
    cancelled: &'a AtomicBool,
    progress: &'a Progress,
    next_source: u64,
}

impl Run<'_> {
    fn all_rounds(mut self) -> Result<Samples, CompareError> {
        let contenders = &self.config.contenders;
        for contender in contenders {
            self.progress.step(&format!("warming up the {} server", contender.name()));
            self.load(*contender, self.config.warm_up)?;
        }
        let mut samples: Samples = vec![Vec::new(); contenders.len()];
        for round in 0..self.config.rounds {
            for turn in 0..contenders.len() {
                // Every other round begins with the other one.
                let index = (turn + round) % contenders.len();
                let contender = contenders[index];
                let name = contender.name();
                let place = format!("round {}/{}", round + 1, self.config.rounds);
                self.progress.step(&format!("{place}: {name} server"));
                let sample = self.load(contender, self.config.duration)?;
                self.progress.note(&format!("{place}: {name:>8}  {}", sample.report.line()));
                samples[index].push(sample);
            }
        }
        Ok(samples)
    }

    /// One load from a process of its own.
    fn load(&mut self, contender: Contender, length: Duration) -> Result<Sample, CompareError> {
        let config = self.config;
        let path = self.lab.folder().join("load.json");
        let mut command = self.lab.client().command(bench_binary()?);
        command
            .arg("load")
            .arg(format!("--via={}", config.via.name()))
            .arg(format!("--target={}", contender.address(self.lab, config.v6)))
            .arg(format!("--duration={}", length.as_secs_f64()))
            .arg(format!("--concurrency={}", config.concurrency))
            .arg(format!("--size={}", config.size))
            .arg(format!("--cpu={}", config.client_cpu))
            .arg(format!("--first-source={}", self.next_source))
            .arg(format!("--json={}", path.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(rate) = config.rate {
            command.arg(format!("--rate={rate}"));
        }
        for address in self.lab.client().addresses(config.v6) {
            command.arg(format!("--source={address}"));
        }
        let before = contender.counters(self.lab)?;
        let child = command.spawn().map_err(CompareError::io("starting the load"))?;
        wait_for(child, self.cancelled, |length| self.progress.advance(length))?;
        self.lab.check_programs()?;
        let after = contender.counters(self.lab)?;
        let text = fs::read(&path).map_err(CompareError::io("the load's report"))?;
        let report: LoadReport = serde_json::from_slice(&text)
            .map_err(|source| CompareError::Report { path: path.clone(), source })?;
        self.next_source = report.next_source;
        Ok(Sample { report, server_retransmits: after.retransmits_since(&before)? })
    }
}

/// Waits until a load has ended, and calls `glanced` with the time that has gone by since the last
/// call. It is ended when `cancelled` becomes true.
pub(crate) fn wait_for(
    mut child: Child,
    cancelled: &AtomicBool,
    mut glanced: impl FnMut(Duration),
) -> Result<(), CompareError> {
    loop {
        if let Some(status) = child.try_wait().map_err(CompareError::io("the load"))? {
            if status.success() {
                return Ok(());
            }
            let output = child.wait_with_output().map_err(CompareError::io("the load"))?;
            let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(CompareError::Load { status, stderr });
        }
        if let Err(stop) = check(cancelled) {
            // It takes its XDP program off. It may just have ended by itself.
            if let Some(load) = ProcessRef::of(child.id().cast_signed()) {
                let _ = load.stop(GRACE);
            }
            let _ = child.wait();
            return Err(stop);
        }
        thread::sleep(GLANCE);
        glanced(GLANCE);
    }
}

fn client_counters(lab: &Lab) -> Result<NetCounters, CompareError> {
    lab.client().run(NetCounters::read)?.map_err(CompareError::io("TCP counters"))
}

/// In the order of the contenders.
fn server_counters(config: &CompareConfig, lab: &Lab) -> Result<Vec<Counters>, CompareError> {
    config.contenders.iter().map(|contender| contender.counters(lab)).collect()
}

fn summarise(config: &CompareConfig, mut settings: Settings, samples: &Samples) -> Comparison {
    let all = || config.contenders.iter().copied().zip(samples);
    let of = |wanted| all().find(|(contender, _)| *contender == wanted).map(|(_, samples)| samples);
    settings.connections_per_second_by_round = all()
        .map(|(contender, samples)| {
            let rates = samples.iter().map(|sample| sample.report.connections_per_second());
            (contender.name(), rates.collect())
        })
        .collect();
    let ratios = match (of(Contender::Fourwave), of(Contender::Kernel)) {
        (Some(fourwave), Some(kernel)) => result::ratios(config.via, config.rps, fourwave, kernel),
        _ => BTreeMap::new(),
    };
    let rows = all().map(|(contender, samples)| Row::of(config.via, contender, samples)).collect();
    Comparison { settings, rows, ratios }
}
