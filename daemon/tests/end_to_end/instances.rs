//! Two daemons on one machine, which talk to each other: no kernel's TCP is involved.

use std::collections::BTreeMap;

use fourwave::Runtime;
use fourwave_bench::lab::{DaemonOptions, Lab, Side};

use crate::support::{Bed, FAMILIES, accept, connect};
use crate::transfer::both_at_once;

#[test]
fn two_daemons_talk_to_each_other() {
    let Some(mut bed) = Bed::new("pair") else { return };
    let keys = BTreeMap::from([("tcp.max_tw_buckets".to_owned(), "1024".to_owned())]);
    let options = DaemonOptions { keys, ..DaemonOptions::default() };
    let config = bed.daemon_config(Side::Client, &options);
    let started = Lab::start_daemon(&mut bed, Side::Client, &config);
    started.unwrap_or_else(|error| panic!("{error}"));
    let server = bed.runtime();
    let client = Runtime::connect(bed.control_socket(Side::Client)).expect("it takes clients");
    for v6 in FAMILIES {
        let listener = bed.listen(&server, bed.server_address(v6, 7777));
        for _ in 0..10 {
            let active = connect(&client, bed.server_address(v6, 7777));
            both_at_once(&accept(&listener), &active, 1 << 20);
        }
    }
    drop((server, client));
    bed.wait_until_empty();
}
