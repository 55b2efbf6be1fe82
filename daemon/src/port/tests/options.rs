//! Options: where they come from, and what they bound.

use super::{Bench, FIRST_WINDOW, LANE, WORKER, successor};
use crate::port::{Evict, settings};
use core::sync::atomic::Ordering;
use fourwave_protocol::Handle;
use fourwave_protocol::command::Event;
use fourwave_protocol::option::ConnOption;
use fourwave_protocol::report::Report;
use fourwave_tcp::Settings;

fn limit(bench: &Bench, handle: Handle) -> u64 {
    let block = bench.segment.connection(handle.index).unwrap();
    block.daemon.send_limit.load(Ordering::Relaxed)
}

fn chosen(option: ConnOption, value: u32) -> Settings {
    let mut chosen = Settings::default();
    settings::set(&mut chosen, option, value);
    chosen
}

#[test]
fn a_chosen_send_buffer_bounds_what_is_written() {
    let mut bench = Bench::new();
    let small = chosen(ConnOption::SendBuffer, 5000);
    assert_eq!(bench.group().configure(0, &small), Some(5));
    let (app, handle) = bench.open();
    assert_eq!(limit(&bench, handle), 5000);
    bench.write(handle, 0, &[1; 1000]);
    assert_eq!(bench.take_written(app.conn, 5001), Err(Evict::SendTail));
    assert_eq!(bench.take_written(app.conn, 1000), Ok(()));
    bench.change(app, 0, 1000, 0);
    assert_eq!(limit(&bench, handle), 6000);
    // Less takes nothing back, more holds at once.
    bench.group().choose(app.conn, ConnOption::SendBuffer, 3000);
    assert_eq!(limit(&bench, handle), 6000);
    bench.group().choose(app.conn, ConnOption::SendBuffer, 1 << 20);
    assert_eq!(limit(&bench, handle), 1000 + FIRST_WINDOW);
}

#[test]
fn connections_begin_with_their_listeners_choices() {
    let mut bench = Bench::new();
    let (before, _) = bench.open();
    let nodelay = chosen(ConnOption::NoDelay, 1);
    bench.group().configure(0, &nodelay);
    let (after, _) = bench.open();
    assert_eq!(bench.group().conn(before.conn).settings, Settings::default());
    assert_eq!(bench.group().conn(after.conn).settings, nodelay);
    // A listener of the same number begins anew.
    bench.group().listen(0, 5, &Settings::default());
    let (next, _) = bench.open();
    assert_eq!(bench.group().conn(next.conn).settings, Settings::default());
    assert_eq!(bench.group().configure(1, &nodelay), None, "no such listener here");
}

#[test]
fn a_preset_is_for_one_connection() {
    let mut bench = Bench::new();
    bench.group().preset(LANE, ConnOption::MaxSegment, 700);
    bench.group().preset(LANE, ConnOption::Tos, 8);
    let taken = bench.group().take_preset(LANE);
    assert_eq!((taken.max_segment, taken.tos), (700, 8));
    assert_eq!(bench.group().take_preset(LANE), Settings::default());
    assert_eq!(bench.group().take_preset(0), Settings::default(), "no such lane");
}

#[test]
fn a_report_lies_there_when_its_event_comes() {
    let mut bench = Bench::new();
    let mut report = Report { is_live: true, ..Report::default() };
    report.options[ConnOption::KeepIdle.index()] = 7200;
    report.info.bytes_acked = u64::MAX;
    let slot = bench.slot;
    let group = bench.clients.group(slot).unwrap();
    group.leave_report(LANE, &report);
    group.answer(slot, LANE, Event::Reported { token: 9 }, &mut bench.notices).unwrap();
    assert_eq!(bench.event(), Some(Event::Reported { token: 9 }));
    assert_eq!(bench.segment.report(LANE, WORKER).load(), report);
}

/// A listener that is kept for a successor, and what waits there.
#[test]
fn what_was_chosen_outlives_the_listener() {
    let mut bench = Bench::new();
    let small = chosen(ConnOption::SendBuffer, 5000);
    bench.group().configure(0, &small);
    let (app, _) = bench.open();
    let ended = bench.group().unlisten(0, |_| ()).unwrap();
    assert_eq!(ended.settings, small);
    // At a listener with choices of its own.
    let (slot, segment) = successor(&mut bench, 64);
    let nodelay = chosen(ConnOption::NoDelay, 1);
    bench.clients.group(slot).unwrap().configure(1, &nodelay);
    let (local, peer) = ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:999".parse().unwrap());
    let moved = bench.clients.adopt(app, slot, 1, local, peer).unwrap();
    let group = bench.clients.of(moved);
    assert_eq!(group.conn(moved.conn).settings, small);
    let block = segment.connection(group.handle(moved.conn).index).unwrap();
    assert_eq!(block.daemon.send_limit.load(Ordering::Relaxed), 5000);
    bench.group().disown(app.conn);
}
