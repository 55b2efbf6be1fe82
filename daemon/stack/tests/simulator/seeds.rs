//! Runs seeds on all processors, and says which one failed and how to see it again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Seeds taken at a time.
const BATCH: u64 = 16;

/// Failures after which no more seeds are tried.
const MOST_FAILURES: u64 = 10;

/// What came of a range of seeds.
pub(crate) struct Run<T> {
    start: u64,
    pub(crate) outcomes: Vec<T>,
    took: Duration,
    threads: usize,
}

impl<T> Run<T> {
    /// One line about seeds and segments.
    pub(crate) fn summary(&self, segments: u64) -> String {
        let seeds = self.outcomes.len() as u64;
        let last = (self.start + seeds).saturating_sub(1);
        let rate = |count: u64| (count as f64 / self.took.as_secs_f64()) as u64;
        format!(
            "seeds {}..={last} in {:.1} s on {} threads: {} seeds/s; {segments} segments, {} \
             segments/s",
            self.start,
            self.took.as_secs_f64(),
            self.threads,
            rate(seeds),
            rate(segments)
        )
    }
}

/// Runs `SEEDS` seeds from `START` on through `simulate`; `usual` of them unless told.
pub(crate) fn run<T: Send>(test: &str, usual: u64, simulate: impl Fn(u64) -> T + Sync) -> Run<T> {
    let (start, count) = (setting("START", 1), setting("SEEDS", usual));
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = setting("THREADS", processors as u64).max(1) as usize;
    let next = AtomicU64::new(start);
    let end = start + count;
    let failed = AtomicU64::new(0);
    let work = || {
        let mut outcomes = Vec::new();
        loop {
            // Relaxed: a number to be taken, nothing else.
            let first = next.fetch_add(BATCH, Ordering::Relaxed);
            if first >= end || failed.load(Ordering::Relaxed) >= MOST_FAILURES {
                return outcomes;
            }
            for seed in first..end.min(first + BATCH) {
                // Nothing of a failed seed is used again.
                match catch_unwind(AssertUnwindSafe(|| simulate(seed))) {
                    Ok(outcome) => outcomes.push(outcome),
                    Err(_) => {
                        failed.fetch_add(1, Ordering::Relaxed);
                        tell_of(test, seed);
                    }
                }
            }
        }
    };
    let begun = Instant::now();
    let outcomes: Vec<T> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("seeds are caught")).collect()
    });
    let run = Run { start, outcomes, took: begun.elapsed(), threads };
    let failed = failed.into_inner();
    assert!(
        failed == 0,
        "{failed} of {} seeds failed, see above",
        run.outcomes.len() as u64 + failed
    );
    run
}

fn tell_of(test: &str, seed: u64) {
    eprintln!(
        "seed {seed} failed; again: START={seed} SEEDS=1 TRACE=1 cargo test -p fourwave-stack \
         --test simulator {test} -- --nocapture"
    );
}

fn setting(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => usual,
    }
}
