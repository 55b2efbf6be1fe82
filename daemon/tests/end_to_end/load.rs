//! Very many short connections.

use std::time::Duration;

use fourwave_bench::lab::{Node, Side};
use fourwave_bench::load::{self, LoadConfig, LoadReport, Until};
use fourwave_bench::machine;

use crate::support::roles::{ECHO_SIZE, Role};
use crate::support::{Bed, FAMILIES, PATIENCE, eventually_is, soaking};

const PORT: u16 = 7777;

/// Connections per address family.
fn scale() -> u64 {
    if soaking() { 1_000_000 } else { 50_000 }
}

/// Short connections of the kernel on the client's side, their echoes checked.
pub fn short_connections(bed: &Bed, v6: bool, port: u16, connections: u64) -> LoadReport {
    echoes(bed, v6, port, connections, ECHO_SIZE, 64)
}

/// Connections of the kernel on the client's side, each with `size` bytes to the server and back,
/// `concurrency` of them at once.
fn echoes(
    bed: &Bed,
    v6: bool,
    port: u16,
    connections: u64,
    size: usize,
    concurrency: usize,
) -> LoadReport {
    let client: &Node = bed.client();
    let config = LoadConfig {
        sources: client.addresses(v6),
        first_source: 0,
        size,
        concurrency,
        rate: None,
        until: Until::Connections(connections),
        timeout: PATIENCE,
        ..LoadConfig::new(bed.server_address(v6, port))
    };
    let report = client.run(|| load::kernel::run(&config)).expect("the namespace can be entered");
    report.expect("the client can make load")
}

/// Every connection came to its proper end.
pub fn assert_flawless(report: &LoadReport, connections: u64) {
    assert_eq!(report.completed, connections, "{:?}", report.errors);
    assert!(report.errors.is_empty(), "{:?}", report.errors);
}

#[test]
fn short_connections_without_an_error() {
    // A port comes back only after 64,512 others: IPv6 has one address in a plain lab.
    let settings = [("tcp.max_tw_buckets", if soaking() { "4194304" } else { "262144" })];
    let Some(mut bed) = Bed::with("load", |lab| lab.more_client_v6(60), &settings) else { return };
    let listen = FAMILIES.map(|v6| bed.server_address(v6, PORT));
    bed.start(Side::Server, Role::FourwaveEcho, &listen);
    let mut total = 0;
    for v6 in FAMILIES {
        let before = bed.stats();
        assert_flawless(&short_connections(&bed, v6, PORT, scale()), scale());
        total += scale();
        let grown = |name| bed.stats().get(name) - before.get(name);
        eventually_is("PassiveOpens", &scale(), || grown("PassiveOpens"));
        for name in ["ListenOverflows", "TCPTimeWaitOverflow", "EstabResets", "tx_too_small"] {
            assert_eq!(grown(name), 0, "{name}");
        }
    }
    // The server closed first, and the daemon's TIME_WAIT of 60 s may have ended for some.
    let time_waits = || {
        let stats = bed.stats();
        ["time_wait", "TW", "TWRecycled"].map(|name| stats.get(name)).iter().sum::<u64>()
    };
    eventually_is("TIME_WAIT, ended ones included", &total, time_waits);
    // Its connections and extents go with the server: the worker asserts that none was leaked.
    bed.stop(Role::FourwaveEcho.name(), Duration::from_secs(5)).expect("it can be ended");
    bed.wait_until_empty();
}

/// The table of flows, of the default size, is there before the first connection comes: they would
/// each wait for a page of it.
#[test]
fn a_fresh_daemon_is_ready_for_many() {
    let settings = [("tcp.max_tw_buckets", "16777216")];
    let Some(mut bed) = Bed::without_daemon("fresh", |lab| lab, &settings) else { return };
    let daemon = bed.start_daemon();
    let resident = || machine::resident_bytes_of(daemon.pid).expect("the daemon lives");
    let listen = [bed.server_address(false, PORT)];
    bed.start(Side::Server, Role::FourwaveEcho, &listen);
    let before = resident();
    assert!(before > 112 << 20, "{before}");
    assert_flawless(&short_connections(&bed, false, PORT, 1_000), 1_000);
    // Records, and payload: some pages, huge ones among them, but none for each connection.
    let grown = resident().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown}");
    bed.stop(Role::FourwaveEcho.name(), Duration::from_secs(5)).expect("it can be ended");
    bed.wait_until_empty();
}

/// Connections that carry more than a window at once, and more of them than one accept batch.
#[test]
fn long_echoes_of_many_connections() {
    let Some(mut bed) = Bed::new("echoes") else { return };
    let listen = FAMILIES.map(|v6| bed.server_address(v6, PORT));
    for (size, concurrency) in [(1, 500), (1448, 200), (4096, 200), (65_536, 100), (300_000, 50)] {
        bed.start_echo(Side::Server, Role::FourwaveEcho, &listen, size);
        for v6 in FAMILIES {
            let connections = 2 * concurrency as u64;
            let report = echoes(&bed, v6, PORT, connections, size, concurrency);
            assert_flawless(&report, connections);
        }
        bed.stop(Role::FourwaveEcho.name(), Duration::from_secs(5)).expect("it can be ended");
    }
    bed.wait_until_empty();
}

/// More streams than the client's memory holds windows of: they share what there is.
#[test]
fn streams_share_a_small_quota() {
    let settings = [("clients.bytes", "\"1MiB\"")];
    let Some(mut bed) = Bed::with("quota", |lab| lab, &settings) else { return };
    let listen = FAMILIES.map(|v6| bed.server_address(v6, PORT));
    bed.start_echo(Side::Server, Role::FourwaveEcho, &listen, 100_000);
    for v6 in FAMILIES {
        assert_flawless(&echoes(&bed, v6, PORT, 100, 100_000, 50), 100);
    }
    bed.stop(Role::FourwaveEcho.name(), Duration::from_secs(5)).expect("it can be ended");
    bed.wait_until_empty();
}
