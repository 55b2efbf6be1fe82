//! Explicit congestion notification (RFC 3168) on the wire of a shard.

mod common;

use common::{App, MILLIS, Peer, World, endpoint, small};
use fourwave_stack::{Config, SynCookies};
use fourwave_tcp::Ecn;
use fourwave_wire::{Flags, Timestamps};

const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

fn config(ecn: Ecn) -> Config {
    let tcp = fourwave_tcp::Config { ecn, ..fourwave_tcp::Config::default() };
    Config { tcp, ..small() }
}

/// SYN and SYN-ACK of a peer that asks; whether the SYN-ACK agrees. The last ACK is not sent.
fn ask(world: &mut World, peer: &mut Peer, tos: u8) -> bool {
    let mut syn = peer.syn();
    syn.head.flags |= Flags::ECE | Flags::CWR;
    syn.head.tos = tos;
    let sent = world.exchange(&syn);
    let [syn_ack] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(syn_ack.head.tos, 0, "a SYN-ACK cannot be marked");
    assert!(!syn_ack.head.flags.contains(Flags::CWR));
    peer.take(syn_ack);
    peer.seq = peer.seq.wrapping_add(1);
    syn_ack.head.flags.contains(Flags::ECE)
}

/// Data that fourwave sends; its `tos` and control bits.
fn reply(world: &mut World, app: usize) -> (u8, Flags) {
    world.write(app, b"reply");
    let sent = world.round();
    let [data] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(data.payload, b"reply");
    (data.head.tos, data.head.flags)
}

#[test]
fn who_asks_gets_it_unless_it_is_off() {
    for v6 in [false, true] {
        for (ecn, tos, agrees) in [
            (Ecn::Accept, 0, true),
            (Ecn::On, 0, true),
            (Ecn::Off, 0, false),
            // As Linux: a SYN that can be marked is not by the book.
            (Ecn::Accept, ECT_0, false),
        ] {
            let mut world = World::new(config(ecn));
            world.listen(4);
            let mut peer = Peer::new(v6, 7);
            assert_eq!(ask(&mut world, &mut peer, tos), agrees);
            assert!(world.exchange(&peer.ack()).is_empty());
            let (tos, flags) = reply(&mut world, 0);
            assert_eq!(tos, if agrees { ECT_0 } else { 0 });
            assert!(!flags.intersects(Flags::ECE | Flags::CWR));
            // A mark on the peer's data is echoed.
            peer.ack = peer.ack.wrapping_add(5);
            let mut data = peer.data(b"hello");
            data.head.tos = CE;
            world.inject(&data);
            let (_, flags) = reply(&mut world, 0);
            assert_eq!(flags.contains(Flags::ECE), agrees);
        }
    }
}

#[test]
fn a_peer_that_does_not_ask_does_not_get_it() {
    let mut world = World::new(config(Ecn::On));
    world.listen(4);
    let mut peer = Peer::new(false, 7);
    peer.open(&mut world);
    assert_eq!(reply(&mut world, 0).0, 0);
}

#[test]
fn a_cookie_remembers_it_in_the_timestamp() {
    for timestamps in [true, false] {
        let config = Config { syncookies: SynCookies::Always, ..config(Ecn::Accept) };
        let mut world = World::new(config);
        world.listen(4);
        let mut peer = Peer::new(false, 7);
        peer.options.timestamps = timestamps.then_some(Timestamps { value: 9, echo: 0 });
        assert_eq!(ask(&mut world, &mut peer, 0), timestamps);
        assert_eq!(world.shard.gauges().syn_received, 0);
        assert!(world.exchange(&peer.ack()).is_empty());
        assert_eq!(reply(&mut world, 0).0, if timestamps { ECT_0 } else { 0 });
    }
}

#[test]
fn an_outgoing_connection_asks_when_told_to() {
    for ecn in [Ecn::On, Ecn::Accept] {
        let mut world = World::new(config(ecn));
        let remote = endpoint("10.0.0.2:443");
        let connected = world.shard.connect(world.now, 0, None, remote, &mut world.host);
        let (conn, _) = connected.unwrap();
        world.host.apps.0.push(App { conn: Some(conn), ..App::default() });
        let asks = Flags::ECE | Flags::CWR;
        let syn = world.round().remove(0);
        assert_eq!(syn.head.flags.contains(asks), ecn == Ecn::On);
        assert_eq!(syn.head.tos, 0);
        let again = world.pass(1100 * MILLIS).remove(0).1;
        assert_eq!(again.head.flags, Flags::SYN);
    }
}
