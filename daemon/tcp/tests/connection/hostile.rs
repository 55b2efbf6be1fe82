//! Seeds of attacks.

use crate::attack::Attack;
use crate::random::Random;

const SEEDS: u64 = 5000;

#[test]
fn nothing_a_peer_or_an_application_does_breaks_a_connection() {
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| Attack::new(Random::new(seed)).run());
        assert!(outcome.is_ok(), "seed {seed} failed");
    }
}
