//! The ways in which a daemon can be set up.

use std::net::TcpStream;
use std::thread;

use fourwave_bench::lab::{LabConfig, Side};

use crate::load::{assert_flawless, short_connections};
use crate::support::roles::Role;
use crate::support::{Bed, FAMILIES, PATIENCE, eventually};
use crate::transfer::both_at_once;

/// XDP mode, and how to poll.
const MODES: [(&str, &str, &str); 3] = [
    ("generic", "\"generic\"", "\"adaptive\""),
    ("interrupt", "\"native\"", "\"interrupt\""),
    ("busy", "\"auto\"", "\"busy\""),
];

#[test]
fn each_mode_serves() {
    for (name, xdp_mode, poll) in MODES {
        let settings = [("xdp_mode", xdp_mode), ("poll", poll)];
        let Some(mut bed) = Bed::with(name, |lab| lab, &settings) else { return };
        let served = FAMILIES.map(|v6| bed.server_address(v6, 7777));
        bed.start(Side::Server, Role::FourwaveEcho, &served);
        let runtime = bed.runtime();
        for v6 in FAMILIES {
            assert_flawless(&short_connections(&bed, v6, 7777, 1000), 1000);
            let listener = bed.listen(&runtime, bed.server_address(v6, 7778));
            let (fourwave, kernel) = bed.connected_pair(&listener);
            both_at_once(&fourwave, &kernel, 1 << 20);
        }
        bed.wait_until_idle();
    }
}

fn with_offloads(mut lab: LabConfig) -> LabConfig {
    lab.offloads = true;
    lab
}

/// On veth a kernel with transmit offloads leaves its checksums to hardware that is not there:
/// such frames are taken only by a daemon that was told to trust them.
#[test]
fn unfinished_checksums_are_trusted_only_when_told() {
    let trust = [("rx_checksum", "\"trust\""), ("xdp_mode", "\"native\"")];
    let Some(bed) = Bed::with("trust", with_offloads, &trust) else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let listener = bed.listen(&runtime, bed.server_address(v6, 7777));
        let (fourwave, kernel) = bed.connected_pair(&listener);
        both_at_once(&fourwave, &kernel, 1 << 20);
    }
    drop(runtime);
    bed.wait_until_empty();
    drop(bed);

    let Some(bed) = Bed::with("verify", with_offloads, &trust[1..]) else { return };
    let runtime = bed.runtime();
    let _listener = bed.listen(&runtime, bed.server_address(false, 7777));
    let netns = bed.client().netns().clone();
    let to = bed.server_address(false, 7777);
    let attempt = thread::spawn(move || netns.run(|| TcpStream::connect_timeout(&to, PATIENCE)));
    let refused = || bed.stats().get("frames_refused{reason=\"tcp_checksum\"}") > 0;
    eventually("its SYN is refused and counted", refused);
    assert!(!attempt.is_finished(), "its SYN was answered");
}
