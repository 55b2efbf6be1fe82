//! What a look at all flows finds, however small the parts it is made in.

mod common;

use common::{Peer, SECONDS, World, small};
use fourwave_stack::{Cursor, Listed};
use fourwave_tcp::{State, TimerKind};

/// Everything that there is, looking at `budget` records at a time and taking `most` flows of each
/// part.
fn list(world: &World, budget: u32, most: usize) -> Vec<Listed> {
    let mut all = Vec::new();
    let mut cursor = Cursor::default();
    loop {
        let mut taken = 0;
        let more = world.shard.list(world.now, &mut cursor, budget, |listed| {
            taken += 1;
            if taken <= most {
                all.push(*listed);
            }
            taken <= most
        });
        if !more {
            return all;
        }
    }
}

/// One flow of each arena and more, over both families.
fn busy_world() -> World {
    let mut world = World::new(small());
    let shared = world.listen(16);
    for v6 in [false, true] {
        let mut established = Peer::new(v6, 1);
        let app = established.open(&mut world);
        world.write(app, b"hello");
        let sent = world.round();
        assert_eq!(sent.len(), 1, "{sent:?}");
        world.exchange(&established.data(b"abc"));

        let mut over = Peer::new(v6, 2);
        let app = over.open(&mut world);
        let conn = world.conn(app);
        world.shard.accepted(0, conn);
        world.shard.close(world.now, conn).unwrap();
        let fin = world.round();
        over.take(&fin[0]);
        world.exchange(&over.ack());
        if v6 {
            world.exchange(&over.fin());
        }
        Peer::new(v6, 3).half_open(&mut world);
    }
    assert_eq!((shared.accept_len(), shared.syn_len()), (2, 2));
    world
}

#[test]
fn every_flow_is_seen_once_whatever_the_parts() {
    let world = busy_world();
    let whole = list(&world, 1000, usize::MAX);
    assert_eq!(whole.len(), 6);
    for (budget, most) in [(1, usize::MAX), (2, 1), (3, 2), (1000, 1)] {
        assert_eq!(list(&world, budget, most), whole, "{budget} {most}");
    }
    let empty = World::new(small());
    assert_eq!(list(&empty, 1, 1), []);
}

#[test]
fn gauges_count_what_a_look_finds() {
    let mut world = busy_world();
    let mut found = [0; State::ALL.len()];
    for listed in list(&world, 1000, usize::MAX) {
        found[listed.state as usize] += 1;
    }
    assert_eq!(world.shard.gauges().states, found);
    world.shard.unlisten(world.now, 0);
    world.pass(61 * SECONDS);
    world.assert_empty();
}

#[test]
fn each_kind_of_record_says_what_it_knows() {
    let world = busy_world();
    let all = list(&world, 1000, usize::MAX);
    let find = |v6: bool, port: u16| {
        let peer = Peer::new(v6, port).tuple.flipped();
        *all.iter().find(|listed| listed.tuple == peer).expect("it is there")
    };
    for v6 in [false, true] {
        let established = find(v6, 1);
        assert_eq!(established.state, State::Established);
        assert!(established.unaccepted && !established.orphan && established.app.is_some());
        assert_eq!((established.receive_queue, established.send_queue), (3, 5));
        let timer = established.timer.expect("what is sent may have to be sent again");
        assert_eq!((timer.kind, timer.retries), (TimerKind::Retransmit, 0));
        assert!(timer.at > world.now);

        let handshake = find(v6, 3);
        assert_eq!((handshake.state, handshake.app), (State::SynReceived, None));
        let timer = handshake.timer.expect("the SYN-ACK may have to be sent again");
        assert_eq!((timer.kind, timer.at - world.now), (TimerKind::Retransmit, SECONDS));

        let over = find(v6, 2);
        let expected = if v6 { State::TimeWait } else { State::FinWait2 };
        assert_eq!((over.state, over.app), (expected, None));
        let timer = over.timer.expect("it ends by itself");
        assert_eq!((timer.kind, timer.at - world.now), (TimerKind::TimeWait, 60 * SECONDS));
    }
}
