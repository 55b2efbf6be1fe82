//! A poller's work is in proportion to what is ready, not to what it watches. Counted, not timed.

use crate::fake::Fake;
use fourwave::{Events, Interest, Poller, TcpStream, Trigger};
use fourwave_protocol::{Handle, Params};
use std::io::Read;
use std::time::Duration;

const CONNECTIONS: u32 = 100_000;
const BATCH: u32 = 4096;
const READY: usize = 10;

#[test]
fn a_hundred_thousand_connections_cost_what_is_ready() {
    let params = Params {
        connections: CONNECTIONS.next_power_of_two(),
        accept_entries: BATCH,
        tables: CONNECTIONS.next_power_of_two(),
        ..Fake::params(1)
    };
    let mut fake = Fake::with_params(params);
    let options = fake.options().nonblocking(true);
    let listener = options.bind("10.99.0.2:80").unwrap();
    let poller = Poller::with_runtime(&fake.runtime()).unwrap();
    poller.add(&listener, usize::MAX, Interest::READABLE, Trigger::Level).unwrap();

    let mut streams: Vec<(TcpStream, Handle)> = Vec::new();
    while streams.len() < CONNECTIONS as usize {
        let count = BATCH.min(CONNECTIONS - streams.len() as u32);
        let handles: Vec<Handle> =
            fake.with(|world| (0..u64::from(count)).map(|n| world.arrive(80, 0, n)).collect());
        for handle in handles {
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let trigger = if handle.index % 2 == 0 { Trigger::Level } else { Trigger::Edge };
            poller.add(&stream, streams.len(), Interest::READABLE, trigger).unwrap();
            streams.push((stream, handle));
        }
    }
    let mut events = Events::with_capacity(CONNECTIONS as usize);
    // Each was looked at once when it was added, and found idle.
    assert_eq!(poller.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0);

    // Idle: only the listener is looked at.
    let examined = |work: &mut dyn FnMut()| {
        let before = poller.examined();
        work();
        poller.examined() - before
    };
    let idle = examined(&mut || {
        assert_eq!(poller.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0);
    });
    assert_eq!(idle, 1);

    for round in 0..5 {
        let ready: Vec<usize> = (0..READY).map(|n| n * 9973 + round * 1013).collect();
        let handles: Vec<Handle> = ready.iter().map(|&n| streams[n].1).collect();
        fake.with(|world| world.peers_send(&handles, b"x"));
        let woken = examined(&mut || {
            assert_eq!(poller.wait(&mut events, None).unwrap(), READY);
        });
        let mut keys: Vec<usize> = events.iter().map(|event| event.key()).collect();
        keys.sort_unstable();
        assert_eq!(keys, ready);
        // The listener and those that are ready, once.
        assert_eq!(woken, READY as u64 + 1);
        for key in keys {
            streams[key].0.read_exact(&mut [0; 1]).unwrap();
        }
        // Those by level are looked at once more, and leave.
        let after = examined(&mut || {
            assert_eq!(poller.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0);
        });
        assert!(after <= READY as u64 + 1, "{after} were looked at");
    }
    // A hundred thousand closes are too many for this daemon, which looks at all connections for
    // each.
    fake.vanish();
}
