//! `load`.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use fourwave_bench::load::xdp::XdpMode;
use fourwave_bench::load::{self, AddressRange, LoadConfig, LoadReport, Until, Via};
use fourwave_bench::machine;

use super::{duration, interruptible, rate};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Whose TCP makes the connections: the kernel's sockets, or this program itself on AF_XDP
    #[arg(long, default_value = "kernel")]
    via: Via,
    /// With --via xdp: where the XDP program is to run: auto, native or generic
    #[arg(long, default_value = "auto")]
    xdp_mode: XdpMode,
    /// The server's address and port
    #[arg(long)]
    target: SocketAddr,
    /// Client address, or range such as 10.0.0.1-10.0.0.9, whose ports are used in turn; may be
    /// given several times. Default: the kernel chooses
    #[arg(long)]
    source: Vec<AddressRange>,
    /// Begin with this pair of client address and port (a report says where the next begins)
    #[arg(long, default_value_t = 0)]
    first_source: u64,
    /// Connections in flight
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Connections per second (open loop): latencies count from when a connection was due
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// How long to start connections
    #[arg(long, default_value = "3s", value_parser = duration)]
    duration: Duration,
    /// Stop after this many connections instead
    #[arg(long, conflicts_with = "duration")]
    connections: Option<u64>,
    /// Bytes to send and to get back
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// A connection that takes longer has failed
    #[arg(long, default_value = "10s", value_parser = duration)]
    timeout: Duration,
    /// Each connection makes one request after another and closes at the end: for a server that
    /// leaves that to its client
    #[arg(long)]
    keep_alive: bool,
    /// With --via xdp: make connections and leave them open at the server
    #[arg(long, conflicts_with_all = ["keep_alive", "rate"])]
    hold: bool,
    /// Ports of the server, from the target's on, that are used in turn
    #[arg(long, default_value_t = 1)]
    ports: u16,
    /// With --rate: connections that may be in flight
    #[arg(long, default_value_t = load::OPEN_LOOP_IN_FLIGHT)]
    in_flight: usize,
    /// With --rate: leave out (and count) starts that find no room instead of letting them wait
    #[arg(long, requires = "rate")]
    shed: bool,
    /// With --via xdp: hold frames back so long to send them together
    #[arg(long, default_value = "0", value_parser = duration)]
    coalesce: Duration,
    /// The file in which the server leaves the times of its accepts (`--stamps` there)
    #[arg(long)]
    stamps: Option<PathBuf>,
    /// Run on this CPU only
    #[arg(long)]
    cpu: Option<usize>,
    /// Write the report to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Bytes of a request that fit one segment whatever the options.
const MOST_BYTES_VIA_XDP: usize = 1400;

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        ensure!(self.size > 0, "--size must be above 0");
        ensure!(self.ports > 0, "--ports must be above 0");
        ensure!(!self.hold || self.via == Via::Xdp, "--hold needs --via xdp");
        ensure!(self.concurrency > 0, "--concurrency must be above 0");
        if let Some(cpu) = self.cpu {
            machine::pin(cpu).with_context(|| format!("pinning to CPU {cpu}"))?;
        }
        machine::raise_open_files().context("raising the limit of open files")?;
        let sources = self.source.iter().flat_map(|range| range.addresses().iter().copied());
        let sources: Vec<_> = sources.collect();
        ensure!(
            sources.iter().all(|address| address.is_ipv6() == self.target.is_ipv6()),
            "--source and --target are of different families",
        );
        let config = LoadConfig {
            sources,
            first_source: self.first_source,
            size: self.size,
            concurrency: self.concurrency,
            rate: self.rate,
            until: self.connections.map_or(Until::Elapsed(self.duration), Until::Connections),
            timeout: self.timeout,
            keep_alive: self.keep_alive,
            hold: self.hold,
            ports: self.ports,
            in_flight_limit: self.in_flight,
            shed: self.shed,
            coalesce: self.coalesce,
            stamps: self.stamps,
            ..LoadConfig::new(self.target)
        };
        let report = match self.via {
            Via::Kernel => load::kernel::run(&config).context("making the load")?,
            Via::Xdp => {
                ensure!(
                    self.size <= MOST_BYTES_VIA_XDP,
                    "--size must be {MOST_BYTES_VIA_XDP} at most"
                );
                let cancelled = interruptible()?;
                load::xdp::run(&config, self.xdp_mode, &cancelled).context("making the load")?
            }
        };
        print(&report);
        let Some(path) = &self.json else {
            return Ok(if report.error_count() == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        };
        // Whoever reads the report judges the errors in it.
        let text = serde_json::to_vec(&report).context("writing the report")?;
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn print(report: &LoadReport) {
    let latency = &report.connect_latency;
    println!(
        "{} connections, {:.0}/s, connect p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs, \
         {} retransmits, {} errors",
        report.completed,
        report.connections_per_second(),
        latency.microseconds(0.5),
        latency.microseconds(0.99),
        latency.microseconds(0.999),
        report.client_retransmits,
        report.error_count(),
    );
    for (name, count) in &report.errors {
        println!("  {name}: {count}");
    }
}
