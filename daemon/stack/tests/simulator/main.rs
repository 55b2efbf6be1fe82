//! The engine in virtual time: two shards that talk over a bad link, and one shard against a peer
//! and applications that mean no good. Everything follows from a seed.
//!
//! In the environment: `SEEDS=20000 START=1` how many seeds and which first, `THREADS=2` on how many
//! threads, `TRACE=1` a log of every frame.

mod app;
mod attack;
mod draw;
mod frame;
mod host;
mod net;
mod pair;
mod pattern;
mod plan;
mod rng;
mod seeds;
mod trace;
mod turn;
mod watch;

use crate::attack::Attack;
use crate::pair::{Pair, Tally};
use crate::rng::Rng;

/// Each showed a fault that is mended.
const MENDED: [u64; 5] = [50_086_758, 50_113_617, 50_185_006, 60_198_620, 60_225_678];

#[test]
fn seeds_that_failed_once() {
    for seed in MENDED {
        Pair::new(seed).run();
    }
}

#[test]
fn every_connection_ends_and_every_byte_is_right() {
    let run = seeds::run("every_connection_ends", 10_000, |seed| Pair::new(seed).run());
    let mut total = Tally::default();
    for tally in &run.outcomes {
        total.whole += tally.whole;
        total.failed += tally.failed;
        total.takeovers += tally.takeovers;
        total.cookies += tally.cookies;
        total.segments += tally.segments;
        total.repeated += tally.repeated;
        total.bytes += tally.bytes;
        total.marked += tally.marked;
    }
    eprintln!("{}", run.summary(total.segments));
    eprintln!(
        "  {} conversations whole, {} failed; {} MB, {} segments repeated, {} marked, {} TIME_WAIT \
         takeovers, {} cookies",
        total.whole,
        total.failed,
        total.bytes / 1_000_000,
        total.repeated,
        total.marked,
        total.takeovers,
        total.cookies
    );
    if run.outcomes.len() >= 1_000 {
        assert!(total.failed * 10 < total.whole, "too many failures: {}", total.failed);
        assert!(total.takeovers > 0 && total.cookies > 0 && total.repeated > 0 && total.marked > 0);
    }
}

#[test]
fn no_peer_and_no_application_breaks_the_engine() {
    let run = seeds::run("no_peer_and_no_application", 10_000, |seed| {
        let mut attack = Attack::new(Rng::new(seed));
        attack.run();
        attack.segments
    });
    eprintln!("{}", run.summary(run.outcomes.iter().sum()));
}
