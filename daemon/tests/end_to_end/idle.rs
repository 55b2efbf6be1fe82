//! What a daemon costs that has nothing to do.

use std::io::{Write, stderr};
use std::thread;
use std::time::Duration;

use fourwave_bench::lab::ProcessRef;

use crate::support::Bed;

/// CPU time of a process in milliseconds: fields 14 and 15 of its `stat`, in clock ticks.
fn cpu_ms(process: ProcessRef) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).expect("it lives");
    let (_, after_name) = stat.rsplit_once(") ").expect("a name in parentheses");
    let ticks: u64 = after_name.split(' ').skip(11).take(2).flat_map(str::parse::<u64>).sum();
    ticks * 1000 / rustix::param::clock_ticks_per_second()
}

/// Prints figures and judges none: how long anything takes is not for a test to say.
#[test]
fn cpu_time_of_an_idle_daemon() {
    let seconds = Duration::from_secs(10);
    let Some(mut bed) = Bed::without_daemon("idle", |lab| lab, &[]) else { return };
    let daemon = bed.start_daemon();
    let runtime = bed.runtime();
    let listener = bed.listen(&runtime, bed.server_address(false, 7777));
    let _pair = bed.connected_pair(&listener);
    let (before, sleeps) = (cpu_ms(daemon), bed.stats().get("sleeps"));
    thread::sleep(seconds);
    let (after, sleeps) = (cpu_ms(daemon), bed.stats().get("sleeps") - sleeps);
    let used = after - before;
    // Not eprintln!, which the test harness keeps to itself.
    let _ = writeln!(stderr(), "idle daemon: {used} ms of CPU and {sleeps} sleeps in {seconds:?}");
    assert!(sleeps > 0, "the worker never slept");
}
