//! Several queues, with a worker each.

use fourwave_bench::lab::Side;

use crate::load::{assert_flawless, short_connections};
use crate::support::roles::Role;
use crate::support::{Bed, FAMILIES, eventually_is, soaking};
use crate::transfer::both_at_once;

/// Connections per address family.
fn scale() -> u64 {
    if soaking() { 200_000 } else { 10_000 }
}

/// On veth the sender chooses the queue without regard to the connection: frames arrive at the
/// wrong worker and have to be handed over.
#[test]
fn connections_arrive_on_both() {
    // A veth pair has queues in native mode only.
    let keys = [("xdp_mode", "\"native\""), ("queues", "\"all\"")];
    let Some(mut bed) = Bed::with("queues", |lab| lab.queues(2), &keys) else { return };
    let served = FAMILIES.map(|v6| bed.server_address(v6, 7777));
    bed.start(Side::Server, Role::FourwaveEcho, &served);
    for v6 in FAMILIES {
        assert_flawless(&short_connections(&bed, v6, 7777, scale()), scale());
    }
    let opened = FAMILIES.len() as u64 * scale();
    eventually_is("PassiveOpens", &opened, || bed.stats().get("PassiveOpens"));
    let stats = bed.stats();
    assert!(stats.get("frames_handed_over") > 0, "{stats:?}");
    assert_eq!(stats.get("handoff_full"), 0, "{stats:?}");
    bed.wait_until_idle();
}

/// Streams whose frames come in over both queues.
#[test]
fn long_streams_survive_the_hand_over() {
    let keys = [("xdp_mode", "\"native\""), ("queues", "2")];
    let Some(bed) = Bed::with("qlong", |lab| lab.queues(2), &keys) else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let listener = bed.listen(&runtime, bed.server_address(v6, 7777));
        // Some, so that both workers own some.
        for _ in 0..4 {
            let (fourwave, kernel) = bed.connected_pair(&listener);
            both_at_once(&fourwave, &kernel, 1 << 20);
            let (fourwave, kernel) = bed.opened_pair(&runtime, v6);
            both_at_once(&fourwave, &kernel, 1 << 20);
        }
    }
    drop(runtime);
    bed.wait_until_empty();
}
