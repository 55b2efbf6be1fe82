//! Segments, ICMP errors, time and an application's calls for one connection, all chosen by the
//! bytes: what the tests' attack asserts holds.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tcp/tests/connection/attack.rs"]
mod attack;
#[path = "../../tcp/tests/connection/random.rs"]
#[allow(dead_code)]
mod random;

fuzz_target!(|bytes: &[u8]| {
    attack::Attack::new(random::Random::from_bytes(bytes)).run();
});
