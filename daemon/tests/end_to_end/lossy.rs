//! A path that loses frames, in both directions.

use crate::support::bpf::lose_frames;
use crate::support::{Bed, FAMILIES, eventually, soaking};
use crate::transfer::both_at_once;

/// One frame in so many is lost.
const ONE_IN: u32 = 40;

/// Bytes each way.
fn length() -> u64 {
    if soaking() { 32 << 20 } else { 1 << 20 }
}

#[test]
fn streams_arrive_whole() {
    let Some(bed) = Bed::new("lossy") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let listener = bed.listen(&runtime, bed.server_address(v6, 7777));
        let pairs = [bed.connected_pair(&listener), bed.opened_pair(&runtime, v6)];
        let before = bed.stats().get("RetransSegs");
        // Connected before frames are lost, so that the test is about streams.
        let _lossy = lose_frames(bed.client(), ONE_IN).expect("the kernel has TCX");
        for (fourwave, kernel) in &pairs {
            both_at_once(fourwave, kernel, length());
        }
        eventually("something is lost", || bed.stats().get("RetransSegs") > before);
    }
    drop(runtime);
    bed.wait_until_empty();
}
