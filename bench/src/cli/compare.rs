//! `compare`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure};
use fourwave_bench::compare::{self, CompareConfig, Comparison, Contender, Progress, Rps};
use fourwave_bench::lab::{self, LabConfig};
use fourwave_bench::load::Via;

use super::{ReportFile, cpu, duration, interruptible, rate, setting};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Connections in flight
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Length of one load; each server gets one per round
    #[arg(long, default_value = "3s", value_parser = duration)]
    duration: Duration,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Connections per second (open loop): latencies count from when a connection was due
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Length of each server's warm-up
    #[arg(long, default_value = "1s", value_parser = duration)]
    warm_up: Duration,
    /// Bytes of the echo
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Whose TCP makes the connections: the kernel's sockets, or the generator itself on AF_XDP
    #[arg(long, default_value = "kernel")]
    via: Via,
    /// The servers
    #[arg(long, value_delimiter = ',', default_value = "kernel,fourwave")]
    servers: Vec<Contender>,
    /// IPv6 instead of IPv4
    #[arg(long)]
    ipv6: bool,
    /// RX and TX queues of each veth end
    #[arg(long, default_value_t = 1)]
    queues: u32,
    /// CPU of the servers and the daemon; default: the second one
    #[arg(long)]
    server_cpu: Option<usize>,
    /// CPU of the load; default: the first one
    #[arg(long)]
    client_cpu: Option<usize>,
    /// Which CPU processes what an interface receives
    #[arg(long, default_value = "off")]
    rps: Rps,
    /// Where the XDP program is to run: auto, native or generic
    #[arg(long)]
    xdp_mode: Option<String>,
    /// How the daemon's worker waits: busy, adaptive or interrupt
    #[arg(long)]
    poll: Option<String>,
    /// Another key of the daemon's configuration with its value in TOML, such as umem_frames=4096;
    /// may be given several times
    #[arg(long, value_parser = setting)]
    set: Vec<(String, String)>,
    /// Write figures and settings to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Args {
    #[expect(clippy::print_stdout, reason = "the result of the command")]
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.config()?;
        let json = ReportFile::open(self.json.as_deref())?;
        let cancelled = interruptible()?;
        let loads = u32::try_from(config.rounds * config.contenders.len())?;
        let warm_ups = u32::try_from(config.contenders.len())?;
        let progress = Progress::visible(config.duration * loads + config.warm_up * warm_ups);
        let comparison = compare::run(&config, &cancelled, &progress);
        progress.finish();
        let comparison = comparison?;
        println!("{}", compare::render(&comparison).trim_end());
        json.write(&comparison)?;
        verdict(&comparison)
    }

    fn config(&self) -> anyhow::Result<CompareConfig> {
        ensure!(self.concurrency > 0, "--concurrency must be above 0");
        ensure!(self.rounds > 0, "--rounds must be above 0");
        ensure!(self.size > 0, "--size must be above 0");
        ensure!(self.queues > 0, "--queues must be above 0");
        ensure!(!self.duration.is_zero(), "--duration must be above 0");
        if self.servers.contains(&Contender::Fourwave) {
            lab::daemon_binary()?;
        }
        let mut contenders = Vec::new();
        for &contender in &self.servers {
            if !contenders.contains(&contender) {
                contenders.push(contender);
            }
        }
        Ok(CompareConfig {
            lab: LabConfig::named("fw-cmp").queues(self.queues).more_client_v6(50),
            via: self.via,
            contenders,
            rounds: self.rounds,
            duration: self.duration,
            warm_up: self.warm_up,
            concurrency: self.concurrency,
            rate: self.rate,
            size: self.size,
            v6: self.ipv6,
            client_cpu: cpu(self.client_cpu, 0)?,
            server_cpu: cpu(self.server_cpu, 1)?,
            rps: self.rps,
            daemon_keys: [("xdp_mode", &self.xdp_mode), ("poll", &self.poll)]
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), format!("{:?}", value.as_ref()?))))
                .chain(self.set.iter().cloned())
                .collect(),
        })
    }
}

/// Figures with failed connections or lost TIME_WAIT records are no result.
fn verdict(comparison: &Comparison) -> anyhow::Result<ExitCode> {
    for row in &comparison.rows {
        if row.errors > 0 {
            bail!("{} connections to the {} server failed", row.errors, row.server);
        }
    }
    let overflow = &comparison.settings.time_wait_overflow;
    if overflow.values().any(|count| *count > 0) {
        bail!("TIME_WAIT records were lost ({overflow:?}): the figures flatter");
    }
    Ok(ExitCode::SUCCESS)
}
