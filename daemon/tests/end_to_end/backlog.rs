//! A listener's accept queue: what fits, and what happens to the rest.

use std::io::{Read, Write};

use fourwave::SocketOptions;

use crate::support::{Bed, FAMILIES, accept, connect_later, eventually};

const BACKLOG: u32 = 4;

#[test]
fn one_more_than_the_backlog_fits() {
    let Some(bed) = Bed::new("backlog") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let address = bed.server_address(v6, 7777);
        let options = SocketOptions::new().backlog(BACKLOG).runtime(&runtime);
        let listener = options.bind(address).unwrap_or_else(|error| panic!("{error}"));
        let before = bed.stats().get("ListenOverflows");
        let mut fitting = bed.fill_accept_queue(address, u64::from(BACKLOG) + 1);
        assert_eq!(bed.stats().get("ListenOverflows"), before);

        let waiting = connect_later(&bed, address);
        let overflows = || bed.stats().get("ListenOverflows") > before;
        eventually("one does not fit and is counted", overflows);
        assert!(!waiting.is_finished(), "its SYN was answered");

        // With room again, the SYN's retransmission is answered: nothing was refused.
        for kernel in &mut fitting {
            kernel.write_all(b"x").expect("it is connected");
            let mut byte = [0];
            accept(&listener).read_exact(&mut byte).expect("it comes");
        }
        let late = waiting.join().expect("no panic");
        drop((late.unwrap_or_else(|error| panic!("{error}")), accept(&listener)));
    }
    drop(runtime);
    bed.wait_until_empty();
}
