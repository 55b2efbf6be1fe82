//! The Prometheus endpoint. Names are `fourwave_` and the counter's own name, which is Linux's
//! where Linux counts the same; the label `worker` tells the workers apart.

use crate::control::Links;
use crate::explain::{explain, label};
use crate::worker::Name;
use fourwave_xdp::SteeringStats;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder};
use metrics_util::MetricKindMask;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// How often the workers' counters are taken over.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Values that go up and down; all others only grow.
const GAUGES: [&str; 11] = [
    "workers_by_rss",
    "connections",
    "orphans",
    "syn_received",
    "time_wait",
    "timers",
    "sockets",
    "listeners",
    "accept_queue",
    "accept_backlog",
    "syn_queue",
];

/// Names that no worker publishes.
const OTHERS: [&str; 11] = [
    "clients_refused",
    "listeners",
    "accept_queue",
    "accept_backlog",
    "syn_queue",
    "xsk_rx_dropped",
    "xsk_rx_invalid_descs",
    "xsk_tx_invalid_descs",
    "xsk_rx_ring_full",
    "xsk_rx_fill_ring_empty_descs",
    "xsk_tx_ring_empty_descs",
];

/// A gauge that is not set for so long is gone: its listener is closed.
const GONE: Duration = Duration::from_secs(60);

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
    let (recorder, exporter) = PrometheusBuilder::new()
        .with_http_listener(address)
        .idle_timeout(MetricKindMask::GAUGE, Some(GONE))
        .build()
        .map_err(failed)?;
    metrics::set_global_recorder(recorder).map_err(|error| failed(error.into()))?;
    tokio::task::spawn_local(async move {
        if exporter.await.is_err() {
            tracing::error!(%address, "the metrics endpoint has ended");
        }
    });
    Ok(())
}

/// Takes over what workers, control (gauges of listeners, refusals by reason), the XDP program and the kernel (per
/// AF_XDP socket, in the order of the workers) have counted.
pub fn publish(
    links: &Links,
    listeners: &[(&'static str, Option<String>, u64)],
    denials: &[(&'static str, u64)],
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
    for (name, listener, value) in listeners {
        let full = format!("fourwave_{name}");
        let gauge = match listener {
            Some(listener) => metrics::gauge!(full, "listener" => listener.clone()),
            None => metrics::gauge!(full),
        };
        // Exact up to 2^53.
        gauge.set(*value as f64);
    }
    for (reason, count) in denials {
        metrics::counter!("fourwave_clients_refused", "reason" => *reason).absolute(*count);
    }
    for (verdict, frames) in steering.into_iter().flat_map(SteeringStats::iter) {
        metrics::counter!("fourwave_xdp_frames", "verdict" => verdict.name()).absolute(frames);
    }
}

/// Says what everything is that [`publish`] publishes.
pub fn describe(links: &Links) {
    let workers = links.iter().take(1).flat_map(|link| link.counters());
    let names = workers.map(|((name, _), _)| name).chain(OTHERS);
    for name in names.collect::<BTreeSet<_>>() {
        let Some(text) = explain(name, None) else { continue };
        let full = format!("fourwave_{name}");
        match is_gauge(name) {
            true => metrics::describe_gauge!(full, text),
            false => metrics::describe_counter!(full, text),
        }
    }
    metrics::describe_counter!("fourwave_xdp_frames", "Frames by what the XDP program did.");
}

fn is_gauge(name: &str) -> bool {
    GAUGES.contains(&name)
}

fn record(worker: usize, (name, member): Name, value: u64) {
    let worker = worker.to_string();
    let full = format!("fourwave_{name}");
    let mut labels = vec![metrics::Label::new("worker", worker)];
    labels.extend(member.map(|member| metrics::Label::new(label(name), member)));
    match is_gauge(name) {
        // Exact up to 2^53.
        true => metrics::gauge!(full, labels).set(value as f64),
        false => metrics::counter!(full, labels).absolute(value),
    }
}
