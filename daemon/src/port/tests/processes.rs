//! Several processes in one group, and what is left when one of them dies.

use super::*;
use crate::port::Close;

const TWO: Process = Process::first(1);

impl Bench {
    fn fork(&mut self, parent: Process, child: Process) {
        let connections = self.segment.layout().params().connections;
        self.group().add_process(Box::new(Holder::new(child, connections)), Some(parent));
    }

    /// A connection that `process` has accepted.
    fn accepted_by(&mut self, process: Process) -> (AppId, Handle) {
        let (app, handle) = self.open();
        assert!(self.clients.of(app).push_accept(app, 1, &mut self.notices));
        let popped = self.segment.accept_ring(0, WORKER).pop(process).unwrap();
        assert_eq!(popped.handle, handle);
        let mut held = Vec::new();
        self.group().collect_accepted(|accepted| held.push(accepted.held));
        assert_eq!(held, [true]);
        (app, handle)
    }

    fn lane_of(&mut self, lane: u16, process: Process) -> OwnedFd {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .unwrap();
        self.group().add_lane(lane, process, ours);
        theirs
    }

    fn pass_events_on(&mut self, index: u32, gone: Process) {
        let slot = self.slot;
        let group = self.clients.group(slot).unwrap();
        group.pass_events_on(slot, index, gone, &mut self.notices);
    }

    /// A process dies: what is left of its connections, by index.
    fn kill(&mut self, process: Process) -> Vec<(u32, Close)> {
        let mut gone = self.group().remove_process(process).expect("it was there");
        let mut left = Vec::new();
        while let Some(index) = gone.next(0) {
            let close = self.group().let_go_for(&mut gone, index);
            left.push((index, close));
        }
        left
    }
}

#[test]
fn the_last_holder_closes() {
    let mut bench = Bench::new();
    let (app, handle) = bench.accepted_by(ONE);
    bench.fork(ONE, TWO);
    let block = Arc::clone(&bench.segment);
    let holders = || block.connection(handle.index).unwrap().daemon.holders.load(Ordering::Relaxed);
    assert_eq!(holders(), 2);
    assert_eq!(bench.group().let_go(app.conn, ONE), Close::Others);
    assert_eq!(bench.group().let_go(app.conn, ONE), Close::NotHeld, "once");
    assert_eq!((holders(), bench.group().holder_of(app.conn)), (1, Some(TWO)));
    assert_eq!(bench.group().let_go(app.conn, TWO), Close::Last);
    bench.end(app);
    bench.finish();
}

#[test]
fn a_death_takes_its_own_holds_only() {
    let mut bench = Bench::new();
    let (both, _) = bench.accepted_by(ONE);
    bench.fork(ONE, TWO);
    let (theirs, _) = bench.accepted_by(TWO);
    let (mine, _) = bench.accepted_by(ONE);
    assert_eq!(bench.kill(TWO), [(both.conn, Close::Others), (theirs.conn, Close::Last)]);
    assert!(bench.group().remove_process(TWO).is_none());
    assert_eq!(bench.kill(ONE), [(both.conn, Close::Last), (mine.conn, Close::Last)]);
    for app in [both, theirs, mine] {
        bench.end(app);
    }
    bench.finish();
}

#[test]
fn what_a_dead_process_accepted_is_held_by_nobody() {
    let mut bench = Bench::new();
    bench.fork(ONE, TWO);
    let (app, _) = bench.open();
    assert!(bench.clients.of(app).push_accept(app, 1, &mut bench.notices));
    bench.segment.accept_ring(0, WORKER).pop(TWO).unwrap();
    assert_eq!(bench.kill(TWO), []);
    let mut seen = Vec::new();
    bench.group().collect_accepted(|accepted| seen.push((accepted.index, accepted.held)));
    assert_eq!(seen, [(app.conn, false)]);
    bench.end(app);
    bench.finish();
}

#[test]
fn a_wake_up_that_died_goes_to_another() {
    let mut bench = Bench::with(Params { lanes: 3, ..small() });
    bench.fork(ONE, TWO);
    let _theirs = bench.lane_of(2, TWO);
    let (app, _) = bench.open();
    bench.segment.listener(0).wait(2);
    assert!(bench.clients.of(app).push_accept(app, 1, &mut bench.notices));
    bench.deliver();
    assert!(!bench.segment.listener(0).is_waiting(2), "it was told");
    // Now another one waits, the told one dies and its lane goes.
    bench.segment.listener(0).wait(LANE);
    bench.deliver();
    assert_eq!(bench.event(), None);
    bench.group().remove_lane(2);
    let slot = bench.slot;
    bench.clients.group(slot).unwrap().pass_wake_ups_on(slot, 2, &mut bench.notices);
    bench.deliver();
    assert_eq!(bench.event(), Some(Event::Acceptable { listener: 0 }));
    bench.end(app);
}

#[test]
fn a_lane_that_is_gone_uses_up_no_wake_up() {
    let mut bench = Bench::with(Params { lanes: 3, ..small() });
    let (app, _) = bench.open();
    bench.segment.listener(0).wait(2);
    bench.segment.listener(0).wait(LANE);
    assert!(bench.clients.of(app).push_accept(app, 1, &mut bench.notices));
    bench.deliver();
    assert_eq!(bench.event(), Some(Event::Acceptable { listener: 0 }));
    bench.end(app);
}

/// Two processes write to one connection; one dies before it could tell of its bytes.
#[test]
fn a_writer_that_dies_leaves_nothing_half_done() {
    let mut bench = Bench::new();
    let (app, handle) = bench.accepted_by(ONE);
    bench.fork(ONE, TWO);
    let _first = bench.write(handle, 0, b"hello");
    bench.take_written(app.conn, 5).unwrap();
    bench.segment.connection(handle.index).unwrap().client.send_tail.store(5, Ordering::Relaxed);
    // The other one takes an extent of its own, moves the tail, and is killed.
    let segment = Arc::clone(&bench.segment);
    let block = segment.connection(handle.index).unwrap();
    assert!(block.client.writer.try_lock(TWO));
    assert!(block.take_open_extent(5));
    bench.write(handle, 4096, b"never sent");
    block.client.send_tail.store(4106, Ordering::Relaxed);
    assert!(bench.group().was_writing(app.conn, TWO) && !bench.group().was_writing(app.conn, ONE));
    assert_eq!(bench.kill(TWO), [(app.conn, Close::Others)]);
    // The survivor appends where the daemon's stream ends.
    assert!(block.client.writer.try_lock(ONE));
    assert_eq!(block.client.send_tail.load(Ordering::Relaxed), 5);
    assert!(block.take_open_extent(5));
    let last = block.send_extent().unwrap();
    bench.segment.write_extent(last, 5, b" world");
    block.leave_open_extent(11);
    block.client.writer.unlock();
    bench.take_written(app.conn, 11).unwrap();
    let mut out = [0; 11];
    bench.group().load(app.conn, 0, &mut out);
    assert_eq!(&out, b"hello world");
    assert_eq!(bench.group().let_go(app.conn, ONE), Close::Last);
    bench.end(app);
    bench.finish();
}

#[test]
fn a_dead_writer_of_an_acknowledged_stream_keeps_no_extent() {
    let mut bench = Bench::new();
    let (app, handle) = bench.accepted_by(ONE);
    bench.fork(ONE, TWO);
    let _extent = bench.write(handle, 0, b"hello");
    bench.take_written(app.conn, 5).unwrap();
    let segment = Arc::clone(&bench.segment);
    let block = segment.connection(handle.index).unwrap();
    block.client.send_tail.store(5, Ordering::Relaxed);
    assert!(block.client.writer.try_lock(TWO) && block.take_open_extent(5));
    bench.change(app, 0, 5, 0);
    assert_eq!(bench.group().conn(app.conn).held(), 1, "it was being appended to");
    bench.kill(TWO);
    assert_eq!(bench.group().conn(app.conn).held(), 0);
    assert!(!block.take_open_extent(5));
    assert_eq!(bench.group().let_go(app.conn, ONE), Close::Last);
    bench.end(app);
    bench.finish();
}

#[test]
fn who_was_not_told_asks_again() {
    let mut bench = Bench::with(Params { lanes: 3, ..small() });
    let (app, handle) = bench.accepted_by(ONE);
    bench.fork(ONE, TWO);
    let _theirs = bench.lane_of(2, TWO);
    let segment = Arc::clone(&bench.segment);
    let client = &segment.connection(handle.index).unwrap().client;
    // Ours is the last word: their end changes nothing.
    client.wake_reader.store(LANE + 1, Ordering::Relaxed);
    bench.pass_events_on(app.conn, TWO);
    assert_eq!(bench.event(), None);
    // Theirs is.
    client.wake_reader.store(2 + 1, Ordering::Relaxed);
    bench.group().remove_lane(2);
    assert_eq!(bench.kill(TWO), [(app.conn, Close::Others)]);
    bench.pass_events_on(app.conn, TWO);
    assert_eq!(client.wake_reader.load(Ordering::Relaxed), 0);
    assert_eq!(bench.event(), Some(Event::Ready { handle }));
    assert_eq!(bench.group().let_go(app.conn, ONE), Close::Last);
    bench.end(app);
    bench.finish();
}
