//! Any bytes: `classify` does not panic and agrees with the reference.

#![no_main]

use std::sync::LazyLock;

use fourwave_ebpf_common::{Config, classify};
use libfuzzer_sys::fuzz_target;
use support::Served;
use support::reference::expected;

#[path = "../../common/tests/support/mod.rs"]
mod support;

static SERVED: LazyLock<Served> = LazyLock::new(Served::new);

fuzz_target!(|frame: &[u8]| {
    let found = classify(frame, &*SERVED, Config::default());
    assert_eq!(found, expected(frame));
});
