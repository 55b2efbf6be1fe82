//! Connections that nobody holds any more, and how many there may be.

mod common;

use common::{Peer, SECONDS, World, shown, small};
use fourwave_stack::Config;
use fourwave_tcp::State;
use fourwave_wire::Flags;

/// `count` connections, accepted.
fn opened(world: &mut World, count: u16) -> Vec<Peer> {
    world.listen(64);
    (0..count)
        .map(|number| {
            let mut peer = Peer::new(number % 2 == 1, 100 + number);
            let app = peer.open(world);
            let conn = world.conn(app);
            world.shard.accepted(0, conn);
            peer
        })
        .collect()
}

fn close(world: &mut World, app: usize) -> Flags {
    let conn = world.conn(app);
    world.shard.close(world.now, conn).unwrap();
    let sent = world.round();
    assert_eq!(sent.len(), 1, "{sent:?}");
    sent[0].head.flags
}

#[test]
fn one_more_than_max_orphans_is_reset() {
    let mut world = World::new(Config { max_orphans: 2, ..small() });
    let mut peers = opened(&mut world, 4);
    for app in 0..2 {
        assert!(close(&mut world, app).contains(Flags::FIN));
    }
    assert!(close(&mut world, 2).contains(Flags::RST));
    assert!(world.app(2).closed);
    assert_eq!(world.shard.counters().abort_on_memory, 1);
    assert_eq!(world.shard.gauges().orphans, 2);
    // In FIN_WAIT_2 one is a small record, and no orphan.
    peers[0].ack = peers[0].ack.wrapping_add(1);
    assert!(world.exchange(&peers[0].ack()).is_empty());
    let gauges = world.shard.gauges();
    assert_eq!((gauges.orphans, gauges.time_wait), (1, 1));
    assert!(close(&mut world, 3).contains(Flags::FIN));
    assert_eq!(world.shard.counters().abort_on_memory, 1);
    // A reset frees the place too.
    peers[1].ack = peers[1].ack.wrapping_add(1);
    world.exchange(&peers[1].rst());
    assert_eq!(world.shard.gauges().orphans, 1);
    world.shard.abort_all();
    world.pass(61 * SECONDS);
    world.assert_empty();
}

#[test]
fn a_close_counts_once_and_only_while_something_is_under_way() {
    let mut world = World::new(Config { max_orphans: 0, ..small() });
    let mut peers = opened(&mut world, 2);
    // Our FIN is acknowledged before the handle goes: FIN_WAIT_2 is a small record at once.
    let conn = world.conn(0);
    world.shard.shutdown_write(conn).unwrap();
    peers[0].take(&world.round()[0]);
    world.exchange(&peers[0].ack());
    world.shard.close(world.now, conn).unwrap();
    assert!(world.round().is_empty());
    let gauges = world.shard.gauges();
    assert_eq!((gauges.orphans, gauges.time_wait), (0, 1));
    // Unread data is a reset of its own.
    world.exchange(&peers[1].data(b"unread"));
    assert!(close(&mut world, 1).contains(Flags::RST));
    assert_eq!(world.shard.counters().abort_on_memory, 0);
    world.pass(61 * SECONDS);
    world.assert_empty();

    let mut world = World::new(Config { max_orphans: 1, ..small() });
    let mut peers = opened(&mut world, 1);
    // LAST_ACK.
    world.exchange(&peers[0].fin());
    peers[0].seq += 1;
    let conn = world.conn(0);
    world.shard.close(world.now, conn).unwrap();
    world.shard.close(world.now, conn).unwrap();
    assert_eq!(world.shard.gauges().orphans, 1);
    peers[0].take(&world.round()[0]);
    assert!(world.exchange(&peers[0].ack()).is_empty());
    world.assert_empty();
}

/// CLOSE_WAIT is the application's: however long it takes, nothing is sent and nothing ends.
#[test]
fn close_wait_ends_by_the_application_alone() {
    let mut world = World::new(small());
    world.listen(4);
    let mut peer = Peer::new(false, 1);
    let app = peer.open(&mut world);
    let conn = world.conn(app);
    world.shard.accepted(0, conn);
    world.exchange(&peer.fin());
    peer.seq += 1;
    world.pass(SECONDS);
    assert!(world.pass(7 * 24 * 3_600 * SECONDS).is_empty());
    assert_eq!(world.shard.tcb(conn).unwrap().state(), State::CloseWait);
    world.write(app, b"late");
    let sent = world.round();
    assert_eq!(shown(&sent), [format!("P. seq {} ack {} len 4", peer.ack, peer.seq)]);
    peer.take(&sent[0]);
    world.exchange(&peer.ack());
    world.shard.close(world.now, conn).unwrap();
    let sent = world.round();
    peer.take(&sent[0]);
    world.exchange(&peer.ack());
    world.assert_empty();
}
