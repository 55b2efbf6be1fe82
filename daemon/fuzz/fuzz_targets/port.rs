//! Commands, corrupted indices, deaths and the network's doings at the client port, all chosen by
//! the bytes: no client can make the daemon fail, and nothing is left in the end.

#![no_main]
#![allow(dead_code, unused_imports, reason = "the modules are used by more than this")]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/port/attack.rs"]
mod attack;
#[path = "../../src/port/mod.rs"]
mod port;
#[path = "../../stack/tests/simulator/rng.rs"]
mod rng;

/// What the port knows of the daemon's messages.
mod messages {
    /// An application group.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub struct GroupId(pub u32);
}

fuzz_target!(|bytes: &[u8]| {
    attack::Attack::new(rng::Rng::from_bytes(bytes), usize::MAX).run();
});
