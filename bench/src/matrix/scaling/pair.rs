//! A point of a series and one of everything, loaded in turn.

use std::time::Duration;

use crate::compare::{CompareError, median};
use crate::load::{Latency, Via};
use crate::machine;
use crate::matrix::bed::{Bed, Placement, Server, ServerSpec, Subject};
use crate::matrix::measure::{Bench, Load, Workload};
use crate::matrix::report::{SeriesPoint, Spread};

/// Longest load of a pair.
const LENGTH: Duration = Duration::from_secs(3);

/// A lab with one of everything: what points are compared with.
pub(super) struct Plain {
    bed: Bed,
    server: Server,
}

impl Plain {
    pub(super) fn up(
        bench: &Bench<'_>,
        subject: Subject,
        spec: &ServerSpec,
    ) -> Result<Plain, CompareError> {
        let mut bed = Bed::with(bench, subject, "1", 1, &[])?;
        let server = bed.serve(spec)?;
        Ok(Plain { bed, server })
    }

    pub(super) fn down(self) -> Result<(), CompareError> {
        self.bed.down()
    }
}

/// Short connections, received where they are sent.
pub(super) fn load(bench: &Bench<'_>, length: Duration) -> Load {
    Load {
        via: Via::Xdp,
        placement: Placement::Free,
        workload: Workload::Short { concurrency: bench.config.concurrency },
        length,
        coalesce: Duration::ZERO,
    }
}

/// Loads both in turn, `rounds` times; who goes first changes from round to round.
pub(super) fn point(
    bench: &Bench<'_>,
    plain: &mut Plain,
    (bed, server): (&mut Bed, &Server),
    rounds: usize,
    at: f64,
) -> Result<SeriesPoint, CompareError> {
    let load = load(bench, bench.config.length.min(LENGTH));
    // The first ones warm up.
    let trial = Load { length: bench.config.trial, ..load };
    bench.sample(&mut plain.bed, Some(&plain.server), &trial)?;
    bench.sample(bed, Some(server), &trial)?;
    let (mut rates, mut plain_rates) = (Vec::new(), Vec::new());
    let (mut latency, mut errors) = (Latency::default(), 0);
    for round in 0..rounds {
        for turn in 0..2 {
            bench.check()?;
            let is_plain = (round + turn) % 2 == 0;
            let sample = if is_plain {
                bench.sample(&mut plain.bed, Some(&plain.server), &load)?
            } else {
                bench.sample(bed, Some(server), &load)?
            };
            errors += sample.report.error_count();
            let rate = sample.per_second(load.workload);
            if is_plain {
                plain_rates.push(rate);
            } else {
                rates.push(rate);
                latency.add(&sample.report.connect_latency);
            }
        }
    }
    let ratios: Vec<f64> =
        rates.iter().zip(&plain_rates).map(|(rate, plain)| rate / plain.max(1.0)).collect();
    Ok(SeriesPoint {
        server: bed.subject().name(),
        at,
        per_second: median(&rates).unwrap_or(0.0),
        to_plain: Spread::over(&ratios).unwrap_or_default(),
        p99: latency.microseconds(0.99),
        errors,
        daemon_bytes: bed.daemon().and_then(|pid| machine::resident_bytes_of(pid).ok()),
    })
}
