//! The ways in which a daemon can be set up.

use fourwave_bench::lab::Side;

use crate::load::{assert_flawless, short_connections};
use crate::support::roles::Role;
use crate::support::{Bed, FAMILIES};
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
    }
}
