//! Memory for all limits is reserved at the start, and taken only when it is used.

use fourwave_stack::{Config, Keys, Shard};

fn resident_pages() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn what_is_reserved_is_not_taken() {
    let before = resident_pages();
    let config = Config {
        connections: 1_000_000,
        syn_received: 1_000_000,
        time_wait: 10_000_000,
        ..Config::default()
    };
    let shard = Shard::new(config, Keys::generate(|| 7), 0).unwrap();
    let grown = (resident_pages() - before) * 4;
    // Reserved is more than a gibibyte; touched are the timer wheel's slots and the like.
    assert!(grown < 16 * 1024, "{grown} KiB");
    assert!(shard.is_empty());
}
