//! A flood of SYNs whose peers never answer: honest ones get in, and it takes no memory.

use std::io::{Read, Write};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use fourwave_bench::flood::{self, FloodConfig};
use fourwave_bench::lab::Side;
use fourwave_bench::load::{self, LoadConfig, Until};
use fourwave_bench::machine;

use crate::load::assert_flawless;
use crate::support::roles::{ECHO_SIZE, Role};
use crate::support::{Bed, FAMILIES, PATIENCE, Stopped, eventually, eventually_is, soaking};

const PORT: u16 = 7777;

/// SYNs of a flood.
fn syns() -> u64 {
    if soaking() { 1_000_000 } else { 50_000 }
}

/// Honest connections beside it.
const HONEST: u64 = 500;

/// Makes them, from the pair of client address and port that `next` names: one that was used
/// before would be let in for the sake of its TIME_WAIT.
fn honest_connections(bed: &Bed, v6: bool, next: &mut u64) {
    let config = LoadConfig {
        sources: bed.client().addresses(v6),
        first_source: *next,
        size: ECHO_SIZE,
        concurrency: 64,
        rate: None,
        until: Until::Connections(HONEST),
        timeout: PATIENCE,
        ..LoadConfig::new(bed.server_address(v6, PORT))
    };
    let report = bed.client().run(|| load::kernel::run(&config)).expect("it can be entered");
    let report = report.expect("the client can make load");
    *next = report.next_source;
    assert_flawless(&report, HONEST);
}

#[test]
fn a_flood_keeps_nobody_out_and_takes_no_memory() {
    // Its handshakes are forgotten soon, so that the test can see them go.
    let settings = [("tcp.synack_retries", "1")];
    let Some(mut bed) = Bed::without_daemon("flood", |lab| lab, &settings) else { return };
    let daemon = bed.start_daemon();
    let listen = FAMILIES.map(|v6| bed.server_address(v6, PORT));
    bed.start(Side::Server, Role::FourwaveEcho, &listen);
    let not_cancelled = AtomicBool::new(false);
    // What every connection touches for the first time is no growth.
    let mut next = 0;
    for v6 in FAMILIES {
        honest_connections(&bed, v6, &mut next);
    }
    // Who looks at the counters is one client all the time.
    let look = bed.looks();
    let resident = || machine::resident_bytes_of(daemon.pid).expect("the daemon lives");
    let mut held = 0;
    for v6 in FAMILIES.into_iter().cycle().take(4) {
        let before = look();
        let config =
            FloodConfig { target: bed.server_address(v6, PORT), syns: syns(), rate: 50_000.0 };
        thread::scope(|scope| {
            let sender = || bed.client().run(|| flood::send(&config, &not_cancelled));
            let sender = scope.spawn(sender);
            let cookies = || look().get("SyncookiesSent") > before.get("SyncookiesSent");
            eventually("the SYN queue is full", cookies);
            honest_connections(&bed, v6, &mut next);
            let sent = sender.join().expect("no panic").expect("it can be entered");
            assert_eq!(sent.expect("frames can be sent").syns, syns());
        });
        // The first round fills what is kept for as long as the daemon lives.
        if held == 0 {
            held = resident();
        }
    }
    let stats = look();
    for name in ["SyncookiesSent", "SyncookiesRecv", "TCPReqQFullDoCookies"] {
        assert!(stats.get(name) > 0, "{name}");
    }
    for name in ["ListenOverflows", "ListenDrops"] {
        assert_eq!(stats.get(name), 0, "{name}");
    }
    // A page here and there; a flood whose SYNs took 100 bytes each would show.
    let grown = resident().saturating_sub(held);
    assert!(grown < 3 * syns() * 64, "{grown} bytes");
    drop(look);
    bed.stop(Role::FourwaveEcho.name(), Duration::from_secs(5)).expect("it can be ended");
    eventually_is("handshakes are given up", &0, || bed.stats().get("syn_received"));
    bed.wait_until_empty();
}

/// While a worker has no CPU, SYNs take their part of the room for received frames and no more: what
/// connections send meanwhile is there when it goes on.
#[test]
fn a_flood_at_a_stopped_worker_takes_nothing_from_connections() {
    const LIMIT: u64 = 512;
    const SYNS: u64 = 20_000;
    let limit = LIMIT.to_string();
    let settings =
        [("umem_frames", "4096"), ("rx_syn_limit", limit.as_str()), ("tcp.synack_retries", "1")];
    let Some(mut bed) = Bed::without_daemon("stopped", |lab| lab, &settings) else { return };
    let daemon = bed.start_daemon();
    let listen = FAMILIES.map(|v6| bed.server_address(v6, PORT));
    bed.start(Side::Server, Role::FourwaveEcho, &listen);
    for v6 in FAMILIES {
        let target = bed.server_address(v6, PORT);
        let mut streams: Vec<_> = (0..20).map(|_| bed.kernel_connect(target)).collect();
        let before = bed.stats();
        {
            let _stopped = Stopped::new(daemon.pid);
            let config = FloodConfig { target, syns: SYNS, rate: 100_000.0 };
            let sent = bed.client().run(|| flood::send(&config, &AtomicBool::new(false)));
            let sent = sent.expect("it can be entered").expect("frames can be sent");
            assert_eq!(sent.syns, SYNS);
            for (tag, stream) in (0..).zip(&mut streams) {
                stream.write_all(&[tag; ECHO_SIZE]).expect("it is connected");
            }
        }
        for (tag, mut stream) in (0..).zip(streams) {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).expect("an orderly end");
            assert_eq!(bytes, [tag; ECHO_SIZE]);
        }
        let grown = |name| bed.stats().get(name) - before.get(name);
        assert!(grown("xdp_drop_syn") >= SYNS - LIMIT, "{}", grown("xdp_drop_syn"));
        assert_eq!(grown("xsk_rx_dropped"), 0);
        // And the gate is open again.
        let mut stream = bed.kernel_connect(target);
        stream.write_all(&[7; ECHO_SIZE]).expect("it is connected");
        stream.read_exact(&mut [0; ECHO_SIZE]).expect("it comes");
    }
    bed.stop(Role::FourwaveEcho.name(), Duration::from_secs(5)).expect("it can be ended");
    eventually_is("handshakes are given up", &0, || bed.stats().get("syn_received"));
    bed.wait_until_empty();
}
