//! The Prometheus endpoint. Names are `fourwave_` and the counter's own name, which is Linux's
//! where Linux counts the same; the label `worker` tells the workers apart.

use crate::control::Links;
use crate::worker::Name;
use fourwave_xdp::SteeringStats;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder};
use std::net::SocketAddr;
use std::time::Duration;

/// How often the workers' counters are taken over.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Values that go up and down; all others only grow.
const GAUGES: [&str; 4] = ["connections", "syn_received", "time_wait", "timers"];

/// The endpoint cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {address} (metrics_address): {error}")]
pub struct MetricsError {
    address: SocketAddr,
    error: BuildError,
}

/// Opens the endpoint and serves it on the current runtime.
///
/// # Errors
/// When the address cannot be had.
pub fn serve(address: SocketAddr) -> Result<(), MetricsError> {
    let failed = |error| MetricsError { address, error };
    let (recorder, exporter) =
        PrometheusBuilder::new().with_http_listener(address).build().map_err(failed)?;
    metrics::set_global_recorder(recorder).map_err(|error| failed(error.into()))?;
    tokio::task::spawn_local(async move {
        if exporter.await.is_err() {
            tracing::error!(%address, "the metrics endpoint has ended");
        }
    });
    Ok(())
}

/// Takes over what workers, the XDP program and the kernel (per AF_XDP socket, in the order of the
/// workers) have counted.
pub fn publish(
    links: &Links,
    steering: Option<&SteeringStats>,
    sockets: &[[(&'static str, u64); 6]],
) {
    for (worker, link) in links.iter().enumerate() {
        for (name, value) in link.counters() {
            record(worker, name, value);
        }
    }
    for (worker, counted) in sockets.iter().enumerate() {
        for (name, value) in counted {
            record(worker, (name, None), *value);
        }
    }
    for (verdict, frames) in steering.into_iter().flat_map(SteeringStats::iter) {
        metrics::counter!("fourwave_xdp_frames", "verdict" => verdict.name()).absolute(frames);
    }
}

fn record(worker: usize, (name, reason): Name, value: u64) {
    let worker = worker.to_string();
    let full = format!("fourwave_{name}");
    match reason {
        Some(reason) => {
            metrics::counter!(full, "worker" => worker, "reason" => reason).absolute(value);
        }
        None if GAUGES.contains(&name) => {
            // Exact up to 2^53.
            metrics::gauge!(full, "worker" => worker).set(value as f64);
        }
        None => metrics::counter!(full, "worker" => worker).absolute(value),
    }
}
