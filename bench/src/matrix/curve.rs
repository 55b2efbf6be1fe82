//! Latency at equal offered loads, over growing loads, and beyond what a server can do.

use super::Scope;
use super::aims::rate;
use super::bed::{Bed, Placement, Server, Subject};
use super::choose::{Choices, Setting};
use super::measure::{Bench, Load, Workload};
use super::plan::{Cell, rounds};
use super::report::{CurvePoint, Label, Report};
use crate::compare::{CompareError, median};
use crate::load::{Latency, Via};

/// Parts of a server's own maximum; beyond 1 it is overloaded.
const PARTS: [f64; 9] = [0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0];

/// Rounds over the parts.
const ROUNDS: usize = 3;

/// Adds rows of half and full load and of overload, and the curve.
pub(super) fn measure(
    bench: &Bench<'_>,
    beds: [&mut Bed; 2],
    choices: &Choices,
    report: &mut Report,
) -> Result<(), CompareError> {
    let placement = Placement::ServerBound;
    let load = |workload, length| Load {
        via: Via::Xdp,
        placement,
        workload,
        length,
        coalesce: choices.coalesce,
    };
    let subjects = [Subject::Kernel, Subject::Fourwave];
    let peaks = subjects.map(|subject| rate(report, "server_bound", subject));
    let served = subjects.map(|subject| choices.server(subject, Setting::ServerBound).cloned());
    let [Some(kernel_server), Some(fourwave_server)] = served else { return Ok(()) };
    let servers: [Server; 2] = [kernel_server, fourwave_server];
    let cell = |id: &str, title: &str, workload, entries| Cell {
        label: Label { id: id.to_owned(), title: title.to_owned() },
        load: load(workload, bench.config.length),
        entries,
    };
    let both = || servers.iter().cloned().map(Some).enumerate().collect::<Vec<_>>();
    let [kernel_peak, fourwave_peak] = peaks;
    let cells = [
        cell(
            "half_load",
            "short connections offered at half of the kernel's maximum",
            Workload::Open { rate: (kernel_peak / 2.0).max(1.0) },
            both(),
        ),
        cell(
            "full_load",
            "short connections offered at the kernel's maximum",
            Workload::Open { rate: kernel_peak.max(1.0) },
            both(),
        ),
        cell(
            "overload",
            "short connections offered at twice fourwave's maximum",
            Workload::Overload { rate: (2.0 * fourwave_peak).max(1.0) },
            vec![(1, Some(servers[1].clone()))],
        ),
        cell(
            "overload",
            "short connections offered at twice the kernel's maximum",
            Workload::Overload { rate: (2.0 * kernel_peak).max(1.0) },
            vec![(0, Some(servers[0].clone()))],
        ),
    ];
    let [kernel, fourwave] = beds;
    let mut beds = [kernel, fourwave];
    rounds(bench, &mut beds, &cells, report)?;

    let quick = bench.config.scope == Scope::Quick;
    let parts: &[f64] = if quick { &[0.5, 1.5] } else { &PARTS };
    let repeats = if quick { 1 } else { ROUNDS };
    let mut found = vec![vec![Vec::new(); parts.len()]; 2];
    for round in 0..repeats {
        for (at, &part) in parts.iter().enumerate() {
            bench
                .progress
                .step(&format!("load curve {}/{repeats}: {part} of the maximum", round + 1));
            for turn in 0..2 {
                bench.check()?;
                let index = (turn + round) % 2;
                let offered = (part * peaks[index]).max(1.0);
                let workload = if part > 1.0 {
                    Workload::Overload { rate: offered }
                } else {
                    Workload::Open { rate: offered }
                };
                let load = load(workload, bench.config.length.min(2 * bench.config.trial));
                let sample = bench.sample(beds[index], Some(&servers[index]), &load)?;
                found[index][at].push(sample.report);
            }
        }
    }
    for ((subject, peak), found) in subjects.into_iter().zip(peaks).zip(&found) {
        for (&part, reports) in parts.iter().zip(found) {
            let mut latency = Latency::default();
            reports.iter().for_each(|report| latency.add(&report.connect_latency));
            let rates: Vec<f64> =
                reports.iter().map(crate::load::LoadReport::connections_per_second).collect();
            report.curves.push(CurvePoint {
                server: subject.name(),
                part,
                offered: part * peak,
                completed: median(&rates).unwrap_or(0.0),
                p50: latency.microseconds(0.5),
                p99: latency.microseconds(0.99),
                lost: reports.iter().map(|report| report.error_count() + report.shed).sum(),
            });
        }
    }
    Ok(())
}
