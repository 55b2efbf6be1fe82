//! `fourwave ss` with very many entries: the list is streamed, and keeps nobody waiting.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use fourwave_bench::lab::Side;
use fourwave_bench::machine;

use crate::load::{assert_flawless, short_connections};
use crate::support::roles::Role;
use crate::support::{Bed, eventually, soaking};

const PORT: u16 = 7777;
const OTHER_PORT: u16 = 7778;

/// Connections that have ended and are to be listed.
fn scale() -> u64 {
    if soaking() { 1_000_000 } else { 20_000 }
}

/// Most bytes that a process has ever held.
fn most_resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has memory");
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
    kib << 10
}

#[test]
fn a_long_list_takes_no_memory_and_holds_nobody_up() {
    // A record has to last until it is listed, however slow the machine.
    let settings = [("tcp.max_tw_buckets", "2097152"), ("tcp.time_wait", "\"10min\"")];
    let Some(mut bed) = Bed::without_daemon("list", |lab| lab, &settings) else { return };
    let daemon = bed.start_daemon();
    let listen = [PORT, OTHER_PORT].map(|port| bed.server_address(false, port));
    bed.start(Side::Server, Role::FourwaveEcho, &listen);
    assert_flawless(&short_connections(&bed, false, PORT, scale()), scale());
    eventually("all are in TIME_WAIT", || bed.stats().get("time_wait") == scale());
    let resident = || machine::resident_bytes_of(daemon.pid).expect("the daemon lives");
    let before = resident();

    let mut list = Command::new(env!("CARGO_BIN_EXE_fourwave"));
    list.args(["ss", "-Htan", "state", "time-wait", "sport", "=", &format!(":{PORT}")]);
    list.arg("--runtime-dir").arg(bed.runtime_dir(Side::Server)).stdout(Stdio::piped());
    let mut list = list.spawn().expect("it can be started");
    let mut lines = BufReader::new(list.stdout.take().expect("it is piped")).lines();
    let half = lines.by_ref().take(scale() as usize / 2).count();
    // Nobody reads on: the tool waits, the daemon keeps what it has for it, and serves others.
    assert_flawless(&short_connections(&bed, false, OTHER_PORT, 200), 200);
    assert!(most_resident(list.id()) < 32 << 20, "{}", most_resident(list.id()));
    let rest = lines.inspect(|line| assert!(line.is_ok())).count();
    assert!(list.wait().expect("it ends").success());
    assert_eq!((half + rest) as u64, scale());
    // What the connections meanwhile took is little, and so is what the list did.
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown}");
}
