//! `limit` and `serve-reflector`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use fourwave_bench::compare::Rps;
use fourwave_bench::frames::XdpMode;
use fourwave_bench::lab::LabConfig;
use fourwave_bench::limit::{self, LimitConfig};
use fourwave_bench::machine;
use fourwave_bench::server::reflector;

use super::{ReportFile, cpu, duration, interruptible};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Connections in flight
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Length of the load
    #[arg(long, default_value = "3s", value_parser = duration)]
    duration: Duration,
    /// Bytes of the echo
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// IPv6 instead of IPv4
    #[arg(long)]
    ipv6: bool,
    /// Where the XDP programs of both ends are to run: auto, native or generic
    #[arg(long, default_value = "generic")]
    xdp_mode: XdpMode,
    /// Which CPU processes what an interface receives
    #[arg(long, default_value = "off")]
    rps: Rps,
    /// CPU of the responder; default: the second one
    #[arg(long)]
    server_cpu: Option<usize>,
    /// CPU of the load; default: the first one
    #[arg(long)]
    client_cpu: Option<usize>,
    /// Write the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Args {
    #[expect(clippy::print_stdout, reason = "the result of the command")]
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let json = ReportFile::open(self.json.as_deref())?;
        ensure!(self.concurrency > 0, "--concurrency must be above 0");
        let config = LimitConfig {
            lab: LabConfig::named("fw-limit").more_client_v6(50),
            duration: self.duration,
            concurrency: self.concurrency,
            size: self.size,
            v6: self.ipv6,
            xdp_mode: self.xdp_mode.to_string(),
            server_cpu: cpu(self.server_cpu, 1)?,
            client_cpu: cpu(self.client_cpu, 0)?,
            rps: self.rps,
        };
        let limit = limit::run(&config, &*interruptible()?)?;
        let [p50, p99, p999] = limit.connect_latency_us;
        println!(
            "without any TCP, XDP {}: {:.0} connections/s, {:.0} frames/s answered, connect p50 \
             {p50:.1} µs, p99 {p99:.1} µs, p99.9 {p999:.1} µs, {} retransmits, {} errors",
            self.xdp_mode,
            limit.connections_per_second,
            limit.frames_answered_per_second,
            limit.retransmits,
            limit.errors,
        );
        json.write(&limit)?;
        if limit.errors > 0 {
            bail!("{} connections failed", limit.errors);
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReflectorArgs {
    /// Address and port to answer for
    #[arg(long)]
    listen: SocketAddr,
    /// The interface, which no other XDP program may have
    #[arg(long)]
    interface: String,
    /// Where the XDP program is to run: auto, native or generic
    #[arg(long, default_value = "auto")]
    xdp_mode: XdpMode,
    /// Run on this CPU only
    #[arg(long)]
    cpu: Option<usize>,
}

impl ReflectorArgs {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(cpu) = self.cpu {
            machine::pin(cpu).with_context(|| format!("pinning to CPU {cpu}"))?;
        }
        let cancelled = interruptible()?;
        let answered = reflector::serve(&self.interface, self.xdp_mode, self.listen, &cancelled)?;
        eprintln!("{answered} frames answered");
        Ok(ExitCode::SUCCESS)
    }
}
