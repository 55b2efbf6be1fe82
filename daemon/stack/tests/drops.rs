//! What is kept of what was refused and dropped.

mod common;

use common::{Peer, SECONDS, World, endpoint, small};
use fourwave_stack::{Dropped, Reason, SAMPLES};
use fourwave_tcp::DropReason;
use fourwave_wire::{Flags, ParseError};

fn world() -> World {
    let mut world = World::new(small());
    world.listen(0);
    world
}

#[test]
fn the_last_cases_of_a_reason_are_kept_in_order() {
    let mut world = world();
    for port in 1..=20 {
        world.now += SECONDS;
        let mut stray = Peer::new(port % 2 == 0, port);
        stray.ack = 7;
        world.exchange(&stray.data(b"hello"));
    }
    let reason = Reason::Other(Dropped::NoConnection);
    let ports: Vec<u16> = world.shard.samples(reason).map(|s| s.tuple.remote.port).collect();
    assert_eq!(ports, (21 - SAMPLES as u16..=20).collect::<Vec<u16>>());
    let last = world.shard.samples(reason).last().unwrap();
    assert_eq!((last.at, last.seq, last.ack, last.len), (world.now, 1_000, 7, 5));
    assert_eq!(last.flags, Flags::ACK | Flags::PSH);
    assert_eq!(last.tuple, Peer::new(true, 20).tuple.flipped());
    assert_eq!(world.shard.frame_drops(), 20);
    assert_eq!(world.shard.last_frame_drop(), Some(reason));
    assert_eq!(world.shard.counters().no_connection, 20);
}

/// What the shard says about the last thing that it dropped, while `provoke` made it drop `count`.
fn provoked(world: &mut World, count: u64, provoke: impl FnOnce(&mut World)) -> Reason {
    let before = world.shard.frame_drops();
    provoke(world);
    assert_eq!(world.shard.frame_drops() - before, count);
    world.shard.last_frame_drop().expect("something was dropped")
}

#[test]
fn each_kind_of_drop_has_its_reason() {
    let mut world = world();
    let mut peer = Peer::new(false, 1);
    let app = peer.open(&mut world);

    let full = provoked(&mut world, 1, |world| {
        assert!(world.exchange(&Peer::new(false, 2).syn()).is_empty());
    });
    assert_eq!(full, Reason::Other(Dropped::ListenOverflows));

    let mut far = peer.clone();
    far.seq = far.seq.wrapping_add(1 << 20);
    let outside = provoked(&mut world, 1, |world| drop(world.exchange(&far.data(b"x"))));
    assert_eq!(outside, Reason::Segment(DropReason::OutOfWindow));

    let garbage = provoked(&mut world, 1, |world| {
        world.shard.handle_frame(world.now, &[0; 20], &mut world.host);
    });
    assert_eq!(garbage, Reason::Frame(ParseError::NotIp));

    // What is no frame is kept too.
    let conn = world.conn(app);
    let frames = world.shard.frame_drops();
    let to = endpoint("10.0.0.2:0");
    assert!(world.shard.connect(world.now, 9, None, to, &mut world.host).is_err());
    let refused = world.shard.samples(Reason::Other(Dropped::ConnectBadAddress));
    assert_eq!(refused.map(|sample| sample.tuple.remote).collect::<Vec<_>>(), [to]);
    world.exchange(&peer.data(b"unread"));
    world.shard.close(world.now, conn).unwrap();
    assert_eq!(world.shard.samples(Reason::Other(Dropped::AbortOnClose)).count(), 1);
    assert_eq!(world.shard.frame_drops(), frames);
    world.round();
    world.assert_empty();
}

#[test]
fn what_is_taken_is_no_drop() {
    let mut world = world();
    let mut peer = Peer::new(false, 1);
    let app = peer.open(&mut world);
    world.exchange(&peer.data(b"hello"));
    peer.seq = peer.seq.wrapping_add(5);
    let conn = world.conn(app);
    world.shard.consumed(conn, 5).unwrap();
    world.shard.accepted(0, conn);
    world.shard.close(world.now, conn).unwrap();
    let fin = world.round();
    peer.take(fin.last().unwrap());
    world.exchange(&peer.fin());
    world.pass(61 * SECONDS);
    world.assert_empty();
    assert_eq!((world.shard.frame_drops(), world.shard.last_frame_drop()), (0, None));
    assert!(Reason::all().all(|reason| world.shard.samples(reason).next().is_none()));
}
