//! Frames, time and applications' calls for a shard, all chosen by the bytes: what the simulator's
//! attack asserts holds, and nothing is left in the end.

#![no_main]
#![allow(dead_code, reason = "the modules are the simulator's, which uses more of them")]

use libfuzzer_sys::fuzz_target;

#[path = "../../stack/tests/simulator/app.rs"]
mod app;
#[path = "../../stack/tests/simulator/attack.rs"]
mod attack;
#[path = "../../stack/tests/simulator/draw.rs"]
mod draw;
#[path = "../../stack/tests/simulator/frame.rs"]
mod frame;
#[path = "../../stack/tests/simulator/host.rs"]
mod host;
#[path = "../../stack/tests/simulator/pattern.rs"]
mod pattern;
#[path = "../../stack/tests/simulator/rng.rs"]
mod rng;
#[path = "../../stack/tests/simulator/trace.rs"]
mod trace;

fuzz_target!(|bytes: &[u8]| {
    attack::Attack::new(rng::Rng::from_bytes(bytes)).run();
});
