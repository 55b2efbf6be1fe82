//! What a server asks of the kernel for a short connection: nothing. Counted by `strace`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::process::Command;

use fourwave_bench::lab::{Ready, Side};

use crate::load::{assert_flawless, short_connections};
use crate::support::roles::Role;
use crate::support::{Bed, STOP_GRACE};

const CONNECTIONS: u64 = 2000;
/// Before counting, so that memory and lanes are there.
const WARM: u64 = 200;

/// What a connection costs on sockets of the kernel. Sleeping and waking are not among them: a
/// server that has nothing to do sleeps, here and there.
const OF_CONNECTIONS: [&str; 18] = [
    "accept",
    "accept4",
    "close",
    "epoll_ctl",
    "fcntl",
    "getpeername",
    "getsockname",
    "getsockopt",
    "ioctl",
    "read",
    "readv",
    "recvmsg",
    "sendmsg",
    "setsockopt",
    "shutdown",
    "socket",
    "write",
    "writev",
];

/// The system calls of this echo server, by name, while clients make short connections.
fn count(bed: &mut Bed, role: Role, port: u16) -> BTreeMap<String, u64> {
    let server = bed.start(Side::Server, role, &[bed.server_address(false, port)]);
    assert_flawless(&short_connections(bed, false, port, WARM), WARM);
    let counts = bed.folder().join(format!("{}.strace", role.name()));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-U", "name,calls", "-o"]).arg(&counts);
    strace.args(["-p", &server.pid.to_string()]);
    let tracer = format!("strace-{}", role.name());
    bed.spawn(&tracer, strace, Ready::Prints("attached")).unwrap_or_else(|e| panic!("{e}"));
    assert_flawless(&short_connections(bed, false, port, CONNECTIONS), CONNECTIONS);
    // It lets go of the server, and tells.
    bed.stop(&tracer, STOP_GRACE).unwrap_or_else(|error| panic!("{error}"));
    bed.stop(role.name(), STOP_GRACE).unwrap_or_else(|error| panic!("{error}"));
    let text = fs::read_to_string(&counts).expect("strace tells");
    // Not eprintln!, which the test harness keeps to itself.
    let _ = writeln!(io::stderr(), "{} connections, {}:\n{text}", CONNECTIONS, role.name());
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, calls) = (words.next()?, words.next()?);
        Some((name.to_owned(), calls.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

#[test]
fn a_short_connection_asks_nothing_of_the_kernel() {
    let Some(mut bed) = Bed::new("calls") else { return };
    let of = |calls: &BTreeMap<String, u64>| -> u64 {
        OF_CONNECTIONS.iter().filter_map(|name| calls.get(*name)).sum()
    };
    // The counting counts: at least accept, read, write and close.
    let kernel = count(&mut bed, Role::KernelEcho, 7001);
    assert!(kernel.get("accept4").is_some_and(|calls| *calls >= CONNECTIONS), "{kernel:?}");
    assert!(kernel.get("close").is_some_and(|calls| *calls >= CONNECTIONS), "{kernel:?}");

    let ours = count(&mut bed, Role::FourwaveEcho, 7002);
    assert!(!ours.is_empty(), "at least the wait that the server was found in");
    assert_eq!(of(&ours), 0, "{ours:?}");
    bed.wait_until_empty();
}
