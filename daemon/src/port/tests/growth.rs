//! Connections that buffer more than the first window.

use super::{Bench, LANE, WORKER};
use crate::port::{AppId, Change, Evict, Life};
use core::sync::atomic::Ordering;
use fourwave_protocol::{
    EXTENT_BYTES, EXTENT_SLOTS, ExtentId, FIRST_WINDOW, Handle, Params, position_of,
};
use proptest::prelude::*;
use std::sync::Arc;

const PAGE: u64 = EXTENT_BYTES as u64;
const SLOTS: u32 = 64;
const WINDOW: u64 = SLOTS as u64 * PAGE;

fn params(extents: u32, tables: u32) -> Params {
    Params {
        workers: 2,
        lanes: 2,
        listeners: 1,
        accept_entries: 8,
        connections: 8,
        extents,
        tables,
        table_slots: SLOTS,
        command_entries: 8,
        grant_entries: 64,
    }
}

fn bench() -> Bench {
    Bench::with(params(1024, 2))
}

fn pattern(from: u64, length: u64) -> Vec<u8> {
    (from..from + length).map(|at| (at % 251) as u8 ^ (at / PAGE) as u8).collect()
}

impl Bench {
    /// Reads as the client does, up to `tail`, and says so.
    fn read(&mut self, handle: Handle, from: u64, tail: u64) -> Vec<u8> {
        let segment = Arc::clone(&self.segment);
        let block = segment.connection(handle.index).unwrap();
        assert!(tail <= block.receive_tail());
        let mut bytes = vec![0; (tail - from) as usize];
        for (at, byte) in (from..).zip(&mut bytes) {
            let extent = segment.receive_extent(block, at).unwrap();
            segment.read_extent(extent, (at % PAGE) as usize, std::slice::from_mut(byte));
        }
        block.publish_receive_head(tail);
        bytes
    }

    fn acknowledge(&mut self, app: AppId, send_acked: u64, send_space: u64) -> u64 {
        let receive_tail = 0;
        let send_space = send_space as u32;
        let change = Change { receive_tail, send_acked, send_space, status: 0, error: 0 };
        self.clients.of(app).change(app, &change, &mut self.notices);
        let handle = self.group().handle(app.conn);
        self.segment.connection(handle.index).unwrap().daemon.send_limit.load(Ordering::Relaxed)
    }

    /// Grants until `count` are at hand.
    fn grants(&mut self, count: usize) -> Vec<ExtentId> {
        let mut all = Vec::new();
        while all.len() < count {
            let slot = self.slot;
            self.clients.group(slot).unwrap().refill(slot, LANE, &mut self.notices).unwrap();
            all.extend(std::iter::from_fn(|| self.grant()).take(count - all.len()));
        }
        all
    }

    /// Fills the extents with what belongs at page `first` and after, and links them.
    fn fill(&self, first: u64, extents: &[ExtentId], mut before: Option<ExtentId>) {
        for (page, &extent) in (first..).zip(extents) {
            self.segment.write_extent(extent, 0, &pattern(page * PAGE, PAGE));
            let link = before.map_or(0, ExtentId::raw);
            self.segment.link(extent).store(link, Ordering::Relaxed);
            before = Some(extent);
        }
    }
}

#[test]
fn a_table_is_lent_while_more_than_the_blocks_slots_are_in_use() {
    let mut bench = bench();
    let (app, handle) = bench.open();
    let bytes = pattern(0, WINDOW);
    let (first, rest) = bytes.split_at(FIRST_WINDOW as usize);
    assert!(bench.group().store(app.conn, 0, first));
    bench.change(app, FIRST_WINDOW, 0, 0);
    let segment = Arc::clone(&bench.segment);
    let block = segment.connection(handle.index).unwrap();
    assert_eq!(block.receive_table(), None, "the block's slots are enough");
    let inline: Vec<_> = (0..EXTENT_SLOTS).map(|slot| block.receive_slot(slot)).collect();

    assert!(bench.group().store(app.conn, FIRST_WINDOW, rest));
    assert!(!bench.group().store(app.conn, WINDOW, b"x"), "beyond the largest window");
    let table = block.receive_table().expect("lent");
    assert_eq!(table / 2, WORKER, "one of this worker's");
    let still: Vec<_> = (0..EXTENT_SLOTS).map(|slot| block.receive_slot(slot)).collect();
    assert_eq!(inline, still, "a client that looks there finds what it found before");
    bench.change(app, WINDOW, 0, 0);
    assert_eq!(bench.held(app), SLOTS);
    assert!(bench.read(handle, 0, WINDOW) == bytes);
    assert_eq!(bench.group().look_at_head(app.conn), Ok(Some(WINDOW)));
    assert_eq!((bench.held(app), block.receive_table()), (0, None), "drained");

    // And again in small.
    assert!(bench.group().store(app.conn, WINDOW, b"small"));
    bench.change(app, WINDOW + 5, 0, 0);
    assert_eq!(bench.read(handle, WINDOW, WINDOW + 5), b"small");
}

#[test]
fn a_client_that_overwrites_its_table_harms_itself_alone() {
    let mut bench = bench();
    let (app, handle) = bench.open();
    assert!(bench.group().store(app.conn, 0, &pattern(0, WINDOW)));
    bench.change(app, WINDOW, 0, 0);
    let segment = Arc::clone(&bench.segment);
    let block = segment.connection(handle.index).unwrap();
    for table in 0..segment.layout().table_count() {
        for slot in segment.table(table).unwrap() {
            slot.store(u32::MAX, Ordering::Relaxed);
        }
    }
    block.publish_receive_table(Some(u32::MAX - 1));
    block.publish_receive_head(WINDOW);
    assert_eq!(bench.group().look_at_head(app.conn), Ok(Some(WINDOW)));
    assert_eq!(bench.held(app), 0, "the daemon knew what to free");
    bench.end(app);
}

#[test]
fn without_a_table_bytes_are_not_taken() {
    let mut bench = bench();
    let conns: Vec<_> = (0..3).map(|_| bench.open()).collect();
    for (app, _) in &conns[..2] {
        assert!(bench.group().store(app.conn, FIRST_WINDOW, b"x"));
    }
    let (last, _) = conns[2];
    assert!(!bench.group().store(last.conn, FIRST_WINDOW, b"x"), "both tables are lent");
    assert!(bench.group().store(last.conn, FIRST_WINDOW - 1, b"x"));
    bench.end(conns[0].0);
    assert!(bench.group().store(last.conn, FIRST_WINDOW, b"x"), "one came back");
    bench.end(last);
    bench.end(conns[1].0);
}

#[test]
fn a_grown_window_is_backed_as_far_as_memory_goes() {
    let mut bench = Bench::with(params(512, 3));
    let conns: Vec<_> = (0..5).map(|_| bench.open().0).collect();
    let back = |bench: &mut Bench, app: AppId, bytes: u64| {
        u64::from(bench.group().back_window(app.conn, bytes as u32))
    };
    assert_eq!(back(&mut bench, conns[0], FIRST_WINDOW / 2), FIRST_WINDOW / 2, "costs nothing");
    assert_eq!(back(&mut bench, conns[0], 10 * WINDOW), WINDOW, "the largest that there is");
    // A quarter of 512 less those 48; then half of what is left.
    assert_eq!(back(&mut bench, conns[1], WINDOW), FIRST_WINDOW + 40 * PAGE);
    assert_eq!(back(&mut bench, conns[2], WINDOW), FIRST_WINDOW + 20 * PAGE);
    assert_eq!(back(&mut bench, conns[3], WINDOW), FIRST_WINDOW, "no table is left");

    // Others take all they can: what was promised is still there.
    while bench.group().store(conns[4].conn, 0, &pattern(0, FIRST_WINDOW)) {
        bench.grants(1);
        if bench.held(conns[4]) == 16 {
            break;
        }
    }
    let slot = bench.slot;
    bench.clients.group(slot).unwrap().want_grants(LANE);
    assert!(bench.group().store(conns[0].conn, 0, &pattern(0, WINDOW)));
    assert_eq!(bench.held(conns[0]), SLOTS);
    // Given up, it is there for others.
    assert_eq!(back(&mut bench, conns[0], FIRST_WINDOW), FIRST_WINDOW);
    assert!(back(&mut bench, conns[1], WINDOW) > FIRST_WINDOW + 40 * PAGE);
    for app in conns {
        bench.end(app);
    }
    bench.finish();
}

#[test]
fn a_send_buffer_grows_and_its_limit_never_goes_back() {
    let mut bench = bench();
    let (app, _) = bench.open();
    assert_eq!(bench.acknowledge(app, 0, 40 * PAGE), 40 * PAGE);
    assert_eq!(bench.acknowledge(app, 0, FIRST_WINDOW), 40 * PAGE);
    let extents = bench.grants(40);
    bench.fill(0, &extents, None);
    assert_eq!(bench.group().take_written(app.conn, 40 * PAGE, extents.last().copied()), Ok(()));
    assert_eq!(bench.acknowledge(app, 30 * PAGE, FIRST_WINDOW), 46 * PAGE);
    assert_eq!(bench.held(app), 10);
    // Half of what is left besides, at the most.
    let limit = bench.acknowledge(app, 30 * PAGE, 1024 * PAGE);
    assert!((100..500).contains(&(limit / PAGE - 30)), "{limit}");
    bench.end(app);
    bench.finish();
}

#[test]
fn a_chain_must_be_of_granted_extents_and_long_enough() {
    for lie in ["short", "loop", "foreign", "own", "wild"] {
        let mut bench = bench();
        let (app, _) = bench.open();
        let (other, _) = bench.open();
        let extents = bench.grants(8);
        bench.fill(0, &extents[..4], None);
        let first = extents[0];
        assert_eq!(bench.group().take_written(app.conn, PAGE, Some(first)), Ok(()));
        assert_eq!(bench.group().take_written(other.conn, 1, Some(extents[7])), Ok(()));
        let link = match lie {
            "short" => 0,
            "loop" => extents[2].raw(),
            "foreign" => extents[7].raw(),
            "own" => first.raw(),
            _ => u32::MAX,
        };
        bench.segment.link(extents[2]).store(link, Ordering::Relaxed);
        let last = Some(extents[3]);
        assert_eq!(
            bench.group().take_written(app.conn, 4 * PAGE, last),
            Err(Evict::SendExtent),
            "{lie}"
        );
        assert_eq!(bench.held(app), 1, "{lie}");
        bench.end(app);
        bench.end(other);
        bench.finish();
    }
}

/// Two threads write one after the other, and their commands come the other way round.
#[test]
fn commands_may_overtake_each_other() {
    let mut bench = bench();
    let (app, _) = bench.open();
    let extents = bench.grants(6);
    bench.fill(0, &extents, None);
    assert_eq!(bench.group().take_written(app.conn, 6 * PAGE, Some(extents[5])), Ok(()));
    assert_eq!(bench.group().take_written(app.conn, 3 * PAGE, Some(extents[2])), Ok(()));
    let mut out = vec![0; 6 * EXTENT_BYTES];
    bench.group().load(app.conn, 0, &mut out);
    assert!(out == pattern(0, 6 * PAGE));
    bench.end(app);
    bench.finish();
}

/// The stack is done with a connection while its client appends to the last extent, or has done so
/// and the command lies in the ring: no crime.
#[test]
fn an_append_may_cross_the_end_of_its_connection() {
    for posted in [false, true] {
        let mut bench = bench();
        let (app, handle) = bench.open();
        let segment = Arc::clone(&bench.segment);
        let block = segment.connection(handle.index).unwrap();
        let extent = bench.write(handle, 0, b"head");
        bench.take_written(app.conn, 4).unwrap();
        assert!(block.take_open_extent(4));
        if posted {
            block.leave_open_extent(8);
        }
        bench.group().ended(app.conn);
        // What it is writing into is not given to anybody else meanwhile.
        assert_eq!(bench.held(app), 1);
        block.leave_open_extent(8);
        assert_eq!(bench.group().take_written(app.conn, 8, Some(extent)), Ok(()));
        assert_eq!(bench.held(app), 0);
        assert!(!block.take_open_extent(8), "the next bytes need an extent of their own");
        bench.group().close(app.conn);
        bench.finish();
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Write { bytes: u64 },
    Acknowledge { share: u64 },
    Load { from: u64, length: u64 },
}

/// A stream as its client writes it.
struct Stream {
    handle: Handle,
    tail: u64,
}

impl Stream {
    fn write(&mut self, bench: &mut Bench, bytes: u64) {
        let segment = Arc::clone(&bench.segment);
        let block = segment.connection(self.handle.index).unwrap();
        let end = self.tail + bytes;
        while self.tail < end {
            let (tail, position) = (self.tail, position_of(self.tail));
            let piece = (end - tail).min(PAGE - tail % PAGE);
            let bytes = pattern(tail, piece);
            let last = block.send_extent();
            if position != 0 && block.take_open_extent(tail) {
                segment.write_extent(last.unwrap(), position, &bytes);
            } else {
                let extent = bench.grants(1)[0];
                segment.write_extent(extent, position, &bytes);
                let before = last.map_or(0, ExtentId::raw);
                segment.link(extent).store(before, Ordering::Relaxed);
                block.client.send_extent.store(extent.raw(), Ordering::Relaxed);
            }
            self.tail += piece;
            block.leave_open_extent(self.tail);
        }
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        (1..9 * PAGE).prop_map(|bytes| Op::Write { bytes }),
        (0u64..=100).prop_map(|share| Op::Acknowledge { share }),
        (0u64..100, 1u64..3000).prop_map(|(from, length)| Op::Load { from, length }),
    ];
    prop::collection::vec(op, 1..120)
}

proptest! {
    /// A client that writes, a stack that sends any part again, and a peer that acknowledges.
    #[test]
    fn any_part_of_a_send_stream_is_found(ops in ops()) {
        let mut bench = bench();
        let (app, handle) = bench.open();
        let (mut acked, mut tail) = (0u64, 0u64);
        for op in ops {
            match op {
                Op::Write { bytes } => {
                    let end = (tail + bytes).min(acked / PAGE * PAGE + FIRST_WINDOW);
                    let mut stream = Stream { handle, tail };
                    stream.write(&mut bench, end - tail);
                    tail = stream.tail;
                    prop_assert_eq!(bench.take_written(app.conn, tail), Ok(()));
                }
                Op::Acknowledge { share } => {
                    acked += (tail - acked) * share / 100;
                    bench.acknowledge(app, acked, FIRST_WINDOW);
                }
                Op::Load { from, length } => {
                    let from = acked + (tail - acked) * from / 100;
                    let mut out = vec![0; length.min(tail - from) as usize];
                    bench.group().load(app.conn, from, &mut out);
                    prop_assert!(out == pattern(from, out.len() as u64));
                }
            }
            let held = tail.div_ceil(PAGE) - acked / PAGE;
            let held = if acked == tail { 0 } else { held };
            prop_assert_eq!(u64::from(bench.held(app)), held);
        }
        bench.end(app);
        bench.finish();
    }

    /// A client that has not heard yet that the stack is done with its connection: whatever it
    /// writes, nobody is to blame, and nothing is kept.
    #[test]
    fn any_write_may_cross_the_end_of_its_connection(
        sizes in prop::collection::vec(1..3 * PAGE, 1..8),
        told in 0usize..8,
        acknowledged in 0usize..8,
        end in 0usize..8,
    ) {
        let mut bench = bench();
        let (app, handle) = bench.open();
        let mut stream = Stream { handle, tail: 0 };
        let mut commands = std::collections::VecDeque::new();
        let mut taken = 0;
        let (end, told) = (end.min(sizes.len()), told.min(end));
        for (at, size) in (0..).zip(&sizes) {
            if at == end {
                bench.acknowledge(app, if acknowledged < told { taken } else { 0 }, FIRST_WINDOW);
                bench.group().ended(app.conn);
            }
            if stream.tail + size > FIRST_WINDOW {
                break;
            }
            stream.write(&mut bench, *size);
            let last = bench.segment.connection(handle.index).unwrap().send_extent();
            commands.push_back((stream.tail, last));
            while at < told && let Some((tail, last)) = commands.pop_front() {
                prop_assert_eq!(bench.group().take_written(app.conn, tail, last), Ok(()));
                taken = tail;
            }
        }
        if bench.group().conn(app.conn).life == Life::Open {
            bench.group().ended(app.conn);
        }
        for (tail, last) in commands {
            prop_assert_eq!(bench.group().take_written(app.conn, tail, last), Ok(()));
        }
        prop_assert_eq!(bench.held(app), 0);
        bench.group().close(app.conn);
        bench.finish();
    }
}
