//! The client port against clients that write whatever they like, wherever they can, and die in
//! the middle of it: by seeds here, by a fuzzer's bytes in `daemon/fuzz`.

mod attack;
#[path = "../../stack/tests/simulator/rng.rs"]
mod rng;

use fourwaved::{messages, port};

use attack::Attack;
use rng::Rng;

#[test]
fn clients_cannot_hurt_the_daemon() {
    let mut evictions = 0;
    for seed in 0..3000 {
        let result = std::panic::catch_unwind(|| Attack::new(Rng::new(seed), 300).run());
        match result {
            Ok(evicted) => evictions += u32::from(evicted),
            Err(panic) => {
                // Not eprintln!, which the test harness keeps to itself until the end.
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    // Neither all nor none: honest steps get somewhere, and lies are noticed.
    assert!((300..2900).contains(&evictions), "{evictions} of 3000 clients were evicted");
}
