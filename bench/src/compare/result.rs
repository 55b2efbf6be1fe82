//! A comparison's outcome, in the form that `--json` writes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::settings::Settings;
use super::{Contender, Rps};
use crate::load::{Latency, LoadReport, Via};

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// All that must be known to judge the figures.
    pub settings: Settings,
    /// One for each pair of client and server.
    pub rows: Vec<Row>,
    /// fourwave's figure divided by the kernel's.
    pub ratios: BTreeMap<&'static str, Ratio>,
}

/// The figures of one pair of client and server over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which load generator.
    pub client: &'static str,
    /// Which server.
    pub server: &'static str,
    /// Median over the rounds.
    pub connections_per_second: f64,
    /// Over the connections of all rounds.
    pub connect_latency_us: ConnectLatency,
    /// Failed connections of all rounds.
    pub errors: u64,
    /// Segments sent again by either side in all rounds.
    pub retransmits: u64,
    /// CPU time of the whole machine per connection, over all rounds.
    pub cpu_us_per_connection: f64,
}

/// Latency quantiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ConnectLatency {
    /// Median.
    pub p50: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
}

/// A figure of fourwave divided by the kernel's of the same round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Median over the rounds.
    pub median: f64,
    /// Smallest of a round.
    pub min: f64,
    /// Largest of a round.
    pub max: f64,
}

/// One load on one server.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) report: LoadReport,
    pub(super) server_retransmits: u64,
}

impl Sample {
    fn cpu_us_per_connection(&self) -> f64 {
        per_connection(self.report.machine_busy_ns, self.report.completed)
    }
}

impl Row {
    pub(super) fn of(via: Via, contender: Contender, samples: &[Sample]) -> Row {
        let mut latency = Latency::default();
        let (mut errors, mut retransmits, mut busy_ns, mut completed) = (0, 0, 0, 0);
        for Sample { report, server_retransmits } in samples {
            latency.add(&report.connect_latency);
            errors += report.error_count();
            retransmits += report.client_retransmits + server_retransmits;
            busy_ns += report.machine_busy_ns;
            completed += report.completed;
        }
        let rates: Vec<f64> = samples.iter().map(|s| s.report.connections_per_second()).collect();
        Row {
            client: via.name(),
            server: contender.name(),
            connections_per_second: median(&rates).unwrap_or(0.0),
            connect_latency_us: ConnectLatency {
                p50: latency.microseconds(0.5),
                p99: latency.microseconds(0.99),
                p999: latency.microseconds(0.999),
            },
            errors,
            retransmits,
            cpu_us_per_connection: per_connection(busy_ns, completed),
        }
    }
}

impl Ratio {
    /// Over pairs of the same round. `None` without rounds.
    pub(crate) fn over(pairs: impl Iterator<Item = (f64, f64)>) -> Option<Ratio> {
        let ratios: Vec<f64> = pairs.filter(|pair| pair.1 > 0.0).map(|(a, b)| a / b).collect();
        Some(Ratio {
            median: median(&ratios)?,
            min: ratios.iter().copied().reduce(f64::min)?,
            max: ratios.iter().copied().reduce(f64::max)?,
        })
    }
}

/// The ratios of what `fourwave` and `kernel` did in the same rounds, under names that say what
/// limits: the client's kernel, the server's one CPU, or both CPUs together.
pub(super) fn ratios(
    via: Via,
    rps: Rps,
    fourwave: &[Sample],
    kernel: &[Sample],
) -> BTreeMap<&'static str, Ratio> {
    type Figure = fn(&Sample) -> f64;
    let names = match (via, rps) {
        (Via::Kernel, _) => {
            ["kernel_client_cps", "kernel_client_p99_connect", "kernel_client_cpu_per_connection"]
        }
        (Via::Xdp, Rps::Pin) => {
            ["server_bound_cps", "server_bound_p99_connect", "server_bound_cpu_per_connection"]
        }
        (Via::Xdp, Rps::Off) => [
            "best_placement_cps",
            "best_placement_p99_connect",
            "best_placement_cpu_per_connection",
        ],
    };
    let figures: [Figure; 3] = [
        |sample| sample.report.connections_per_second(),
        |sample| sample.report.connect_latency.microseconds(0.99),
        Sample::cpu_us_per_connection,
    ];
    let ratio_of =
        |figure: Figure| Ratio::over(fourwave.iter().map(figure).zip(kernel.iter().map(figure)));
    let pairs = names.into_iter().zip(figures);
    pairs.filter_map(|(name, figure)| Some((name, ratio_of(figure)?))).collect()
}

/// The middle value, or the mean of the two middle ones.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let high = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 { Some(high) } else { Some(f64::midpoint(sorted[middle - 1], high)) }
}

fn per_connection(busy_ns: u64, completed: u64) -> f64 {
    busy_ns as f64 / 1000.0 / completed.max(1) as f64
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `completed` connections in one second, 10 µs of CPU and `latency_us` each.
    pub(crate) fn sample(completed: u64, latency_us: u64, errors: u64) -> Sample {
        let mut report = LoadReport {
            completed,
            completed_in_window: completed,
            window_ns: 1_000_000_000,
            machine_busy_ns: completed * 10_000,
            client_retransmits: 1,
            ..LoadReport::default()
        };
        (0..completed).for_each(|_| report.connect_latency.record(latency_us * 1000));
        if errors > 0 {
            report.errors.insert("timeout".into(), errors);
        }
        Sample { report, server_retransmits: 2 }
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let kernel = [sample(100, 20, 0), sample(200, 20, 0), sample(100, 20, 0)];
        let fourwave = [sample(300, 10, 0), sample(200, 10, 0), sample(200, 10, 0)];
        let ratios = ratios(Via::Kernel, Rps::Off, &fourwave, &kernel);
        assert_eq!(ratios["kernel_client_cps"], Ratio { median: 2.0, min: 1.0, max: 3.0 });
        assert!((ratios["kernel_client_p99_connect"].median - 0.5).abs() < 0.01);
        assert!((ratios["kernel_client_cpu_per_connection"].max - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_row_adds_up_its_rounds() {
        let samples = [sample(100, 20, 1), sample(300, 20, 2)];
        let row = Row::of(Via::Kernel, Contender::Kernel, &samples);
        assert!((row.connections_per_second - 200.0).abs() < 1e-9);
        assert_eq!((row.errors, row.retransmits), (3, 6));
        assert!((row.cpu_us_per_connection - 10.0).abs() < 1e-9);
        assert!((row.connect_latency_us.p999 - 20.0).abs() < 0.05);
    }
}
