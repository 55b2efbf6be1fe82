//! What AF_XDP itself can do on the lab's link: the load generator on AF_XDP against a responder
//! without state.

use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::{fs, net::SocketAddr};

use serde::Serialize;

use crate::compare::{CompareError, Rps, wait_for};
use crate::lab::{Lab, LabConfig, Ready, bench_binary};
use crate::load::LoadReport;
use crate::server::READY;

/// What to measure and how.
#[derive(Clone, Debug)]
pub struct LimitConfig {
    /// Where.
    pub lab: LabConfig,
    /// How long.
    pub duration: Duration,
    /// Connections in flight.
    pub concurrency: usize,
    /// Bytes of the echo.
    pub size: usize,
    /// IPv6 instead of IPv4.
    pub v6: bool,
    /// `auto`, `native` or `generic`, for both ends.
    pub xdp_mode: String,
    /// The CPU of the responder.
    pub server_cpu: usize,
    /// The CPU of the load.
    pub client_cpu: usize,
    /// Receive packet steering of both ends.
    pub rps: Rps,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Limit {
    /// Connections per second.
    pub connections_per_second: f64,
    /// Frames per second that the responder received and answered.
    pub frames_answered_per_second: f64,
    /// SYN to SYN-ACK, microseconds: p50, p99, p99.9.
    pub connect_latency_us: [f64; 3],
    /// Failed connections.
    pub errors: u64,
    /// Segments that the client sent again.
    pub retransmits: u64,
}

/// Builds the lab, measures, and removes the lab, also after an error and when `cancelled` becomes
/// true.
///
/// # Errors
/// See [`CompareError`].
pub fn run(config: &LimitConfig, cancelled: &AtomicBool) -> Result<Limit, CompareError> {
    let mut lab = Lab::up(config.lab.clone())?;
    let result = in_lab(config, &mut lab, cancelled);
    let removed = lab.down();
    let limit = result?;
    removed?;
    Ok(limit)
}

fn in_lab(
    config: &LimitConfig,
    lab: &mut Lab,
    cancelled: &AtomicBool,
) -> Result<Limit, CompareError> {
    if config.rps == Rps::Pin {
        lab.server().set_rps(1 << config.server_cpu)?;
        lab.client().set_rps(1 << config.client_cpu)?;
    }
    let server = if config.v6 { lab.server().v6() } else { lab.server().v4() };
    let target = SocketAddr::new(server, 7777);
    let mut command = lab.server().command(bench_binary()?);
    command
        .arg("serve-reflector")
        .arg(format!("--interface={}", lab.server().interface()))
        .arg(format!("--listen={target}"))
        .arg(format!("--xdp-mode={}", config.xdp_mode))
        .arg(format!("--cpu={}", config.server_cpu));
    lab.spawn("reflector", command, Ready::Prints(READY))?;
    let path = lab.folder().join("load.json");
    let mut command = lab.client().command(bench_binary()?);
    command
        .arg("load")
        .arg("--via=xdp")
        .arg(format!("--target={target}"))
        .arg(format!("--duration={}", config.duration.as_secs_f64()))
        .arg(format!("--concurrency={}", config.concurrency))
        .arg(format!("--size={}", config.size))
        .arg(format!("--xdp-mode={}", config.xdp_mode))
        .arg(format!("--cpu={}", config.client_cpu))
        .arg(format!("--json={}", path.display()))
        .args(lab.client().addresses(config.v6).iter().map(|source| format!("--source={source}")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = command.spawn().map_err(CompareError::io("starting the load"))?;
    wait_for(child, cancelled, |_| {})?;
    lab.check_programs()?;
    let text = fs::read(&path).map_err(CompareError::io("the load's report"))?;
    let report: LoadReport = serde_json::from_slice(&text)
        .map_err(|source| CompareError::Report { path: path.clone(), source })?;
    let seconds = report.window_ns.max(1) as f64 / 1e9;
    let latency = &report.connect_latency;
    Ok(Limit {
        connections_per_second: report.connections_per_second(),
        frames_answered_per_second: report.frames_received as f64 / seconds,
        connect_latency_us: [0.5, 0.99, 0.999].map(|quantile| latency.microseconds(quantile)),
        errors: report.error_count(),
        retransmits: report.client_retransmits,
    })
}
