//! The port against a client that plays by the rules, and against ones that do not.

use super::{Accepted, AppId, Change, Clients, Evict, Group, Holder, Notices};
use crate::messages::GroupId;
use core::sync::atomic::Ordering;
use fourwave_protocol::command::{Command, Event, decode_grant};
use fourwave_protocol::conn::status;
use fourwave_protocol::ring::{Consumer, Producer};
use fourwave_protocol::{
    EXTENT_BYTES, ExtentId, FIRST_WINDOW, Handle, Params, Process, Segment, position_of,
};
use fourwave_tcp::Settings;
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};
use std::sync::Arc;

mod growth;
mod options;
mod processes;

const LANE: u16 = 1;

/// The only process, until another one comes.
const ONE: Process = Process::FIRST;

/// The second of two workers, so that a wrong base shows.
const WORKER: u32 = 1;

/// A group with one lane, and the client's side of it in the same process.
struct Bench {
    clients: Clients,
    notices: Notices,
    slot: u32,
    segment: Arc<Segment>,
    doorbell: OwnedFd,
    events: Consumer,
    grants: Consumer,
    commands: Producer,
}

fn small() -> Params {
    Params {
        workers: 2,
        lanes: 2,
        listeners: 2,
        accept_entries: 8,
        connections: 4,
        extents: 64,
        tables: 2,
        table_slots: 16,
        command_entries: 8,
        grant_entries: 32,
    }
}

impl Bench {
    fn new() -> Bench {
        Bench::with(small())
    }

    fn with(params: Params) -> Bench {
        let (segment, _fd) = Segment::create("test", params).unwrap();
        let segment = Arc::new(segment);
        let mut clients = Clients::new();
        let mut group = Group::new(GroupId(7), WORKER, Arc::clone(&segment));
        group.add_process(Box::new(Holder::new(ONE, params.connections)), None);
        let slot = clients.add(Box::new(group));
        let (ours, doorbell) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .unwrap();
        let group = clients.group(slot).unwrap();
        group.add_lane(LANE, ONE, ours);
        group.listen(0, 5, &Settings::default());
        Bench {
            clients,
            notices: Notices::default(),
            slot,
            segment,
            doorbell,
            events: Consumer::new(),
            grants: Consumer::new(),
            commands: Producer::new(),
        }
    }

    fn group(&mut self) -> &mut Group {
        self.clients.group(self.slot).unwrap()
    }

    fn open(&mut self) -> (AppId, Handle) {
        let (local, peer) = ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:999".parse().unwrap());
        let conn = self.group().open(42, Some(0), local, peer).unwrap();
        let app = AppId { group: self.slot, conn };
        (app, self.group().handle(conn))
    }

    fn change(&mut self, app: AppId, receive_tail: u64, send_acked: u64, bits: u32) {
        let send_space = FIRST_WINDOW as u32;
        let change = Change { receive_tail, send_acked, send_space, status: bits, error: 0 };
        self.clients.of(app).change(app, &change, &mut self.notices);
    }

    fn deliver(&mut self) {
        self.notices.deliver(&mut self.clients);
    }

    fn event(&mut self) -> Option<Event> {
        let ring = self.segment.event_ring(LANE, WORKER);
        self.events.pop(&ring).unwrap().map(|words| Event::decode(words).unwrap())
    }

    fn grant(&mut self) -> Option<ExtentId> {
        let ring = self.segment.grant_ring(LANE, WORKER);
        self.grants.pop(&ring).unwrap().map(|words| decode_grant(words).unwrap())
    }

    fn rings(&self) -> usize {
        let mut bytes = [0u8; 64];
        rustix::net::recv(&self.doorbell, &mut bytes[..], RecvFlags::DONTWAIT)
            .map_or(0, |(count, _)| count)
    }

    /// The client's write of one extent's worth at the most.
    fn write(&mut self, handle: Handle, offset: u64, bytes: &[u8]) -> ExtentId {
        let extent = self.grant().expect("granted when the lane was attached");
        let block = self.segment.connection(handle.index).unwrap();
        self.segment.write_extent(extent, position_of(offset), bytes);
        self.segment
            .link(extent)
            .store(block.client.send_extent.load(Ordering::Relaxed), Ordering::Relaxed);
        block.client.send_extent.store(extent.raw(), Ordering::Relaxed);
        block.leave_open_extent(offset + bytes.len() as u64);
        extent
    }

    /// The client's command: written up to `tail`, the last byte in the extent it noted last.
    fn take_written(&mut self, conn: u32, tail: u64) -> Result<(), Evict> {
        let handle = self.group().handle(conn);
        let last = self.segment.connection(handle.index).unwrap().send_extent();
        self.group().take_written(conn, tail, last)
    }

    /// Closed, and the stack is done with it.
    fn end(&mut self, app: AppId) {
        self.group().close(app.conn);
        self.group().ended(app.conn);
    }

    /// Everything must have come back.
    fn finish(&mut self) {
        self.group().remove_lanes();
        assert!(self.group().is_empty());
    }

    fn held(&mut self, app: AppId) -> u32 {
        self.group().conn(app.conn).held()
    }
}

#[test]
fn received_bytes_are_delivered_and_their_extents_return() {
    let mut bench = Bench::new();
    let (app, handle) = bench.open();
    let bytes: Vec<u8> = (0..FIRST_WINDOW).map(|n| (n % 251) as u8).collect();
    // Out of order: the second half first.
    let half = bytes.len() / 2 + 100;
    assert!(bench.group().store(app.conn, half as u64, &bytes[half..]));
    assert!(bench.group().store(app.conn, 0, &bytes[..half]));
    assert!(!bench.group().store(app.conn, FIRST_WINDOW, b"x"), "beyond the window");
    bench.change(app, FIRST_WINDOW, 0, 0);

    let segment = Arc::clone(&bench.segment);
    let block = segment.connection(handle.index).unwrap();
    assert_eq!(block.receive_tail(), FIRST_WINDOW);
    let mut read = vec![0; bytes.len()];
    for (page, out) in read.chunks_mut(EXTENT_BYTES).enumerate() {
        segment.read_extent(block.receive_slot(page).unwrap(), 0, out);
    }
    assert_eq!(read, bytes);

    block.publish_receive_head(FIRST_WINDOW - 1);
    assert_eq!(bench.group().look_at_head(app.conn), Ok(Some(FIRST_WINDOW - EXTENT_BYTES as u64)));
    assert_eq!(bench.held(app), 1);
    block.publish_receive_head(FIRST_WINDOW);
    assert_eq!(bench.group().look_at_head(app.conn), Ok(Some(FIRST_WINDOW)));
    assert_eq!(bench.held(app), 0, "drained and idle: nothing is held");
    assert!(bench.group().store(app.conn, FIRST_WINDOW, b"more"));
}

#[test]
fn the_stack_hears_of_reading_although_storing_saw_it_first() {
    let mut bench = Bench::new();
    let (app, handle) = bench.open();
    let page = EXTENT_BYTES as u64;
    assert!(bench.group().store(app.conn, 0, &[1; EXTENT_BYTES]));
    bench.change(app, page, 0, 0);
    let segment = Arc::clone(&bench.segment);
    segment.connection(handle.index).unwrap().publish_receive_head(page);
    // A segment arrives between the client's reading and its word about it.
    assert!(bench.group().store(app.conn, page, b"x"));
    assert_eq!(bench.group().look_at_head(app.conn), Ok(Some(page)));
    assert_eq!(bench.group().look_at_head(app.conn), Ok(None));
}

#[test]
fn connections_that_hold_extents_are_found_in_turn() {
    let mut bench = Bench::new();
    let conns: Vec<u32> = (0..3).map(|_| bench.open().0.conn).collect();
    for &conn in &conns[1..] {
        assert!(bench.group().store(conn, 0, b"x"));
    }
    let mut budget = 4;
    let found: Vec<u32> = std::iter::from_fn(|| bench.group().next_holder(&mut budget)).collect();
    assert_eq!(found, conns[1..]);
    assert_eq!(budget, 0);
    let mut budget = 2;
    assert_eq!(bench.group().next_holder(&mut budget), Some(conns[1]), "it goes on from there");
}

#[test]
fn a_drained_extent_with_bytes_beyond_a_gap_is_kept() {
    let mut bench = Bench::new();
    let (app, handle) = bench.open();
    assert!(bench.group().store(app.conn, 0, b"ab"));
    assert!(bench.group().store(app.conn, 3, b"d"));
    bench.change(app, 2, 0, 0);
    let segment = Arc::clone(&bench.segment);
    let block = segment.connection(handle.index).unwrap();
    block.publish_receive_head(2);
    bench.group().look_at_head(app.conn).unwrap();
    assert!(bench.group().store(app.conn, 2, b"c"));
    bench.change(app, 4, 0, 0);
    let mut read = [0; 2];
    segment.read_extent(block.receive_slot(0).unwrap(), 2, &mut read);
    assert_eq!(&read, b"cd");
}

#[test]
fn written_bytes_are_loaded_and_freed_when_acknowledged() {
    let mut bench = Bench::new();
    let (app, handle) = bench.open();
    let first = bench.write(handle, 0, b"hello");
    assert_eq!(bench.take_written(app.conn, 5), Ok(()));
    // A second write appends to the same extent.
    let segment = Arc::clone(&bench.segment);
    let block = segment.connection(handle.index).unwrap();
    assert!(block.take_open_extent(5));
    segment.write_extent(first, 5, b" world");
    // Acknowledged meanwhile: the daemon leaves the extent to the busy client, and to one whose
    // command it has not seen yet.
    bench.change(app, 0, 5, 0);
    assert_eq!(bench.held(app), 1);
    block.leave_open_extent(11);
    bench.change(app, 0, 5, 0);
    assert_eq!(bench.held(app), 1);
    assert_eq!(bench.take_written(app.conn, 11), Ok(()));
    let mut out = [0; 6];
    bench.group().load(app.conn, 5, &mut out);
    assert_eq!(&out, b" world");
    bench.change(app, 0, 11, 0);
    assert_eq!(bench.held(app), 0);
    assert!(!block.take_open_extent(11), "the client must take anew");
    assert_eq!(block.daemon.send_acked.load(Ordering::Relaxed), 11);
}

#[test]
fn a_stale_tail_is_no_crime_but_one_beyond_the_limit_is() {
    let mut bench = Bench::new();
    let (app, handle) = bench.open();
    bench.write(handle, 0, b"hello");
    assert_eq!(bench.take_written(app.conn, 5), Ok(()));
    assert_eq!(bench.take_written(app.conn, 3), Ok(()));
    assert_eq!(bench.group().conn(app.conn).send_tail(), 5);
    assert_eq!(bench.take_written(app.conn, FIRST_WINDOW + 1), Err(Evict::SendTail));
}

#[test]
fn send_extents_must_be_granted_and_unused() {
    let mut bench = Bench::new();
    let (app, handle) = bench.open();
    let (other, other_handle) = bench.open();
    let segment = Arc::clone(&bench.segment);
    let block = segment.connection(handle.index).unwrap();
    assert_eq!(bench.take_written(app.conn, 1), Err(Evict::SendExtent), "no extent named");
    for raw in [1, u32::MAX, segment.layout().extent_count()] {
        block.client.send_extent.store(raw, Ordering::Relaxed);
        assert_eq!(bench.take_written(app.conn, 1), Err(Evict::SendExtent), "{raw}");
    }
    let extent = bench.write(handle, 0, b"x");
    assert_eq!(bench.take_written(app.conn, 1), Ok(()));
    let theirs = segment.connection(other_handle.index).unwrap();
    theirs.client.send_extent.store(extent.raw(), Ordering::Relaxed);
    assert_eq!(bench.take_written(other.conn, 1), Err(Evict::SendExtent), "in use");
}

#[test]
fn a_receive_head_must_lie_between_what_it_was_and_what_came() {
    let mut bench = Bench::new();
    let (app, handle) = bench.open();
    assert!(bench.group().store(app.conn, 0, b"0123456789"));
    bench.change(app, 10, 0, 0);
    let segment = Arc::clone(&bench.segment);
    let block = segment.connection(handle.index).unwrap();
    block.publish_receive_head(11);
    assert_eq!(bench.group().look_at_head(app.conn), Err(Evict::ReceiveHead));
    block.publish_receive_head(6);
    assert_eq!(bench.group().look_at_head(app.conn), Ok(None), "the window begins as before");
    block.publish_receive_head(5);
    assert_eq!(bench.group().look_at_head(app.conn), Err(Evict::ReceiveHead));
}

#[test]
fn handles_are_checked() {
    let mut bench = Bench::new();
    let (app, handle) = bench.open();
    assert_eq!(bench.group().resolve(handle), Ok(Some(app.conn)));
    let stale = Handle { generation: handle.generation.wrapping_sub(1), ..handle };
    assert_eq!(bench.group().resolve(stale), Ok(None));
    // The other worker's connections, and numbers beyond all.
    for index in [0, 3, 8, u32::MAX] {
        let foreign = Handle { index, ..handle };
        assert_eq!(bench.group().resolve(foreign), Err(Evict::ConnectionIndex));
    }
    bench.group().close(app.conn);
    assert_eq!(bench.group().resolve(handle), Ok(None), "gone at close");
    bench.group().ended(app.conn);
    assert_eq!(bench.group().used(), 0);
}

#[test]
fn events_go_to_who_waits_once_and_ring_only_sleepers() {
    let mut bench = Bench::new();
    let (app, handle) = bench.open();
    bench.change(app, 0, 0, status::PEER_CLOSED);
    bench.deliver();
    assert_eq!(bench.event(), None, "nobody asked");

    let segment = Arc::clone(&bench.segment);
    let block = segment.connection(handle.index).unwrap();
    block.client.wake_reader.store(LANE + 1, Ordering::Relaxed);
    for _ in 0..3 {
        assert!(bench.group().store(app.conn, 0, b"x"));
        let tail = bench.group().conn(app.conn).receive_head() + 1;
        bench.change(app, tail, 0, status::CONNECTED);
        bench.deliver();
    }
    assert_eq!(bench.event(), Some(Event::Ready { handle }));
    assert_eq!(bench.event(), None, "one pending event per connection");
    assert_eq!(bench.rings(), 0, "nobody sleeps");

    segment.lane_sleeper(LANE).prepare();
    assert!(bench.group().store(app.conn, 1, b"y"));
    bench.change(app, 2, 0, 0);
    bench.deliver();
    assert_eq!(bench.event(), Some(Event::Ready { handle }));
    assert_eq!(bench.rings(), 1);
}

/// A program that is stopped takes no events: of what goes on meanwhile it is told once in each
/// direction, not as often as something comes.
#[test]
fn a_reader_and_a_writer_have_one_event_each_waiting() {
    let mut bench = Bench::new();
    let other = 1 - LANE;
    let (ours, _theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bench.group().add_lane(other, ONE, ours);
    let (app, handle) = bench.open();
    let segment = Arc::clone(&bench.segment);
    let block = segment.connection(handle.index).unwrap();
    block.client.wake_reader.store(LANE + 1, Ordering::Relaxed);
    block.client.wake_writer.store(other + 1, Ordering::Relaxed);
    for tail in 1..=10 {
        assert!(bench.group().store(app.conn, tail - 1, b"x"));
        bench.change(app, tail, 0, 0);
        bench.deliver();
    }
    assert_eq!([bench.event(), bench.event()], [Some(Event::Ready { handle }), None]);
    let (ring, mut events) = (segment.event_ring(other, WORKER), Consumer::new());
    assert!(events.pop(&ring).unwrap().is_some());
    assert_eq!(events.pop(&ring), Ok(None));
    // Taken: the next change is told again.
    bench.change(app, 10, 0, status::PEER_CLOSED);
    bench.deliver();
    assert_eq!(bench.event(), Some(Event::Ready { handle }));
    assert!(events.pop(&ring).unwrap().is_some());
}

#[test]
fn a_new_connection_is_told_of_although_an_old_event_lies_unread() {
    let mut bench = Bench::new();
    let (app, handle) = bench.open();
    let segment = Arc::clone(&bench.segment);
    let ask = |handle: Handle| {
        let block = segment.connection(handle.index).unwrap();
        block.client.wake_reader.store(LANE + 1, Ordering::Relaxed);
    };
    ask(handle);
    bench.change(app, 0, 0, status::PEER_CLOSED);
    bench.deliver();
    bench.group().close(app.conn);
    bench.group().ended(app.conn);

    let (again, fresh) = bench.open();
    assert_eq!(again.conn, app.conn, "the slot is used again");
    ask(fresh);
    bench.change(again, 0, 0, status::PEER_CLOSED);
    bench.deliver();
    assert_eq!(bench.event(), Some(Event::Ready { handle }));
    assert_eq!(bench.event(), Some(Event::Ready { handle: fresh }));
}

#[test]
fn accepting_gives_places_back_and_wakes_a_waiter() {
    let mut bench = Bench::new();
    let (app, handle) = bench.open();
    bench.segment.listener(0).wait(LANE);
    assert!(bench.clients.of(app).push_accept(app, 1, &mut bench.notices));
    bench.deliver();
    assert_eq!(bench.event(), Some(Event::Acceptable { listener: 0 }));
    let mut taken = Vec::new();
    bench.group().collect_accepted(|accepted| taken.push(accepted));
    assert_eq!(taken, []);
    let popped = bench.segment.accept_ring(0, WORKER).pop(ONE).unwrap();
    assert_eq!(popped.handle, handle);
    bench.group().collect_accepted(|accepted| taken.push(accepted));
    assert_eq!(taken, [Accepted { listener: 5, stack: 42, index: app.conn, held: true }]);
    let block = bench.segment.connection(handle.index).unwrap();
    assert_eq!(block.daemon.holders.load(Ordering::Relaxed), 1);
}

#[test]
fn a_closed_listener_leaves_what_waits() {
    let mut bench = Bench::new();
    let (app, _) = bench.open();
    assert!(bench.clients.of(app).push_accept(app, 17, &mut bench.notices));
    let ended = bench.group().unlisten(0, |_| panic!("nobody accepted it")).unwrap();
    assert_eq!(ended.stack, 5);
    let [waiting] = ended.waiting[..] else { panic!("{ended:?}") };
    assert_eq!((waiting.stack, waiting.index, waiting.stamp), (42, app.conn, 17));
    assert_eq!(bench.segment.accept_ring(0, WORKER).pop(ONE), None);
    // Nobody takes it: the stack resets it and says so.
    bench.group().close(app.conn);
    bench.group().ended(app.conn);
    assert_eq!(bench.group().used(), 0);
}

#[test]
fn a_closed_listener_leaves_what_was_accepted() {
    let mut bench = Bench::new();
    let (first, handle) = bench.open();
    let (second, _) = bench.open();
    for app in [first, second] {
        assert!(bench.clients.of(app).push_accept(app, 1, &mut bench.notices));
    }
    // Accepted, and the listener closed, before the worker looks.
    assert_eq!(bench.segment.accept_ring(0, WORKER).pop(ONE).unwrap().handle, handle);
    let mut taken = Vec::new();
    let ended = bench.group().unlisten(0, |accepted| taken.push(accepted)).unwrap();
    assert_eq!(taken, [Accepted { listener: 5, stack: 42, index: first.conn, held: true }]);
    assert_eq!(ended.waiting.iter().map(|it| it.index).collect::<Vec<_>>(), [second.conn]);
}

/// A second group at the same worker, as a successor would be.
fn successor(bench: &mut Bench, extents: u32) -> (u32, Arc<Segment>) {
    let params = Params { extents, ..*bench.segment.layout().params() };
    let segment = Arc::new(Segment::create("test", params).unwrap().0);
    let group = Group::new(GroupId(8), WORKER, Arc::clone(&segment));
    let slot = bench.clients.add(Box::new(group));
    bench.clients.group(slot).unwrap().listen(1, 5, &Settings::default());
    (slot, segment)
}

#[test]
fn an_unaccepted_connection_moves_with_its_bytes() {
    let mut bench = Bench::new();
    let (app, _) = bench.open();
    let gap = 3 * EXTENT_BYTES as u64;
    assert!(bench.group().store(app.conn, 0, b"in order"));
    assert!(bench.group().store(app.conn, gap, b"ahead"));
    bench.change(app, 8, 0, status::PEER_CLOSED);
    let (slot, segment) = successor(&mut bench, 64);
    let (local, peer) = ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:999".parse().unwrap());
    let moved = bench.clients.adopt(app, slot, 1, local, peer).unwrap();
    bench.group().disown(app.conn);
    assert_eq!((bench.group().used(), bench.group().evicted()), (0, None));
    assert!(bench.clients.of(moved).push_accept(moved, 1, &mut bench.notices));

    let popped = segment.accept_ring(1, WORKER).pop(ONE).unwrap();
    let block = segment.connection(popped.handle.index).unwrap();
    assert_eq!((block.addresses.local(), block.addresses.peer()), (local, peer));
    assert_eq!(block.status(), status::CONNECTED | status::PEER_CLOSED);
    assert_eq!(block.receive_tail(), 8);
    let mut read = [0; 8];
    segment.read_extent(block.receive_slot(0).unwrap(), 0, &mut read);
    assert_eq!(&read, b"in order");
    // What lay ahead is delivered when the gap is filled.
    let fill = vec![7; gap as usize - 8];
    assert!(bench.clients.of(moved).store(moved.conn, 8, &fill));
    bench.change(moved, gap + 5, 0, 0);
    let mut read = [0; 5];
    segment.read_extent(block.receive_slot(3).unwrap(), 0, &mut read);
    assert_eq!(&read, b"ahead");
}

#[test]
fn a_connection_stays_where_it_is_without_room_or_when_it_was_used() {
    let mut bench = Bench::new();
    let (local, peer) = ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:999".parse().unwrap());
    let (slot, _segment) = successor(&mut bench, 4);
    let (large, _) = bench.open();
    assert!(bench.group().store(large.conn, 0, &[1; 4 * EXTENT_BYTES]));
    assert_eq!(bench.clients.adopt(large, slot, 1, local, peer), None);
    assert!(bench.clients.group(slot).unwrap().is_empty());
    // Its client read without having accepted it.
    let (read, handle) = bench.open();
    assert!(bench.group().store(read.conn, 0, b"x"));
    bench.change(read, 1, 0, 0);
    bench.segment.connection(handle.index).unwrap().publish_receive_head(1);
    bench.group().look_at_head(read.conn).unwrap();
    assert_eq!(bench.clients.adopt(read, slot, 1, local, peer), None);
    // A full group.
    let (small, _) = bench.open();
    let fill = bench.clients.group(slot).unwrap();
    while fill.open(1, None, local, peer).is_some() {}
    assert_eq!(bench.clients.adopt(small, slot, 1, local, peer), None);
}

#[test]
fn a_lane_that_runs_out_is_told_when_there_are_extents() {
    let mut bench = Bench::new();
    let mut mine = Vec::new();
    while let Some(extent) = bench.grant() {
        mine.push(extent);
    }
    assert_eq!(mine.len(), 16);
    // It writes a whole window with them and asks for more.
    let (app, _) = bench.open();
    for pair in mine.windows(2) {
        bench.segment.link(pair[1]).store(pair[0].raw(), Ordering::Relaxed);
    }
    bench.group().take_written(app.conn, FIRST_WINDOW, mine.last().copied()).unwrap();
    bench.group().want_grants(LANE);
    let slot = bench.slot;
    let group = bench.clients.group(slot).unwrap();
    group.refill(slot, LANE, &mut bench.notices).unwrap();
    assert_eq!(bench.event(), Some(Event::Granted));
    assert_eq!(std::iter::from_fn(|| bench.grant()).count(), 16);
    assert_eq!(bench.event(), None);
}

/// What does not last until the worker comes round is doubled, up to a part of all.
#[test]
fn a_lane_that_runs_out_is_given_more_at_a_time() {
    let mut bench = Bench::with(Params { extents: 4096, grant_entries: 1024, ..small() });
    let mut given = vec![std::iter::from_fn(|| bench.grant()).count()];
    for _ in 0..4 {
        bench.group().want_grants(LANE);
        let slot = bench.slot;
        let group = bench.clients.group(slot).unwrap();
        group.refill(slot, LANE, &mut bench.notices).unwrap();
        assert_eq!(bench.event(), Some(Event::Granted));
        given.push(std::iter::from_fn(|| bench.grant()).count());
    }
    assert_eq!(given, [64, 64, 128, 0, 0]);
}

#[test]
fn a_silent_lane_is_looked_at_less_often_until_it_says_or_hears_something() {
    let mut bench = Bench::new();
    let (app, handle) = bench.open();
    let due = |bench: &mut Bench| (0..8).filter(|&turn| bench.group().is_due(LANE, turn)).count();
    let silence = |bench: &mut Bench| {
        for _ in 0..1000 {
            assert_eq!(bench.group().pop_command(LANE), Ok(None));
        }
        assert_eq!(due(bench), 1);
        assert!(bench.group().is_silent());
        bench.clients.looked_at(0, 100);
        assert_eq!((101..109).filter(|&turn| bench.clients.is_due(0, turn)).count(), 1);
    };
    assert_eq!(due(&mut bench), 8);
    bench.clients.looked_at(0, 100);
    assert!(bench.clients.is_due(0, 101));
    silence(&mut bench);
    // A command that is found when its turn comes, or before a sleep.
    let ring = bench.segment.command_ring(LANE, WORKER);
    let words = Command::Consumed { handle }.encode();
    assert!(bench.commands.push(&ring, words).unwrap());
    assert!(bench.clients.have_work());
    assert!(bench.clients.is_due(0, 101));
    assert_eq!(due(&mut bench), 8);
    assert_eq!(bench.group().pop_command(LANE), Ok(Some(words)));
    silence(&mut bench);
    // An event, which it will answer.
    let block = bench.segment.connection(handle.index).unwrap();
    block.client.wake_reader.store(LANE + 1, Ordering::Relaxed);
    bench.change(app, 0, 0, status::PEER_CLOSED);
    bench.deliver();
    assert_eq!(bench.event(), Some(Event::Ready { handle }));
    assert!(bench.clients.is_due(0, 101));
    assert_eq!(due(&mut bench), 8);
    silence(&mut bench);
    // Extents that it waits for.
    bench.group().want_grants(LANE);
    assert!(!bench.group().is_silent());
    bench.end(app);
    bench.finish();
}

#[test]
fn everything_returns_when_the_client_is_gone() {
    let mut bench = Bench::new();
    let (app, handle) = bench.open();
    bench.write(handle, 0, b"unsent");
    assert_eq!(bench.take_written(app.conn, 6), Ok(()));
    assert!(bench.group().store(app.conn, 0, b"unread"));
    let group = bench.group();
    group.remove_lanes();
    group.close(app.conn);
    assert!(!group.is_empty(), "what was written is still to be sent");
    let mut out = [0; 6];
    group.load(app.conn, 0, &mut out);
    assert_eq!(&out, b"unsent");
    group.ended(app.conn);
    assert!(group.is_empty());
}

#[test]
fn a_reused_lane_starts_empty() {
    let mut bench = Bench::new();
    let ring = bench.segment.command_ring(LANE, WORKER);
    assert!(bench.commands.push(&ring, Command::WantGrants.encode()).unwrap());
    assert!(bench.clients.group(bench.slot).unwrap().has_command());
    let (ours, _theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bench.group().remove_lane(LANE);
    bench.segment.clear_rings(LANE, WORKER).unwrap();
    bench.group().add_lane(LANE, ONE, ours);
    assert!(!bench.group().has_command());
    bench.grants = Consumer::new();
    assert_eq!(std::iter::from_fn(|| bench.grant()).count(), 16);
}

#[test]
fn reasons_of_eviction_are_numbered_as_listed() {
    for (index, why) in Evict::ALL.into_iter().enumerate() {
        assert_eq!(why as usize, index, "{}", why.name());
    }
}
