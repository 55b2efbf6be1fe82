//! The table of flags in the client library's `OPTIONS.md` is what sending and receiving do.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;

use fourwave_bench::lab::{Ready, Side};
use fourwave_posix::{Domain, Errno, Result, Socket, find};

use crate::support::{Bed, STOP_GRACE, eventually};

const ADDRESS: &str = "FOURWAVE_TEST_FLAGS_ADDRESS";
const READY: &str = "the program is ready";
const DONE: &str = "the program has done";

/// What the peer sends: each receiving call takes a byte.
const BYTES: usize = 4096;

/// An outcome in the table's words.
fn word(result: Result<usize>) -> String {
    match result {
        Ok(_) => "works".to_owned(),
        Err(Errno::OPNOTSUPP) => "EOPNOTSUPP".to_owned(),
        Err(Errno::INVAL) => "EINVAL".to_owned(),
        Err(Errno::AGAIN) => "EAGAIN".to_owned(),
        Err(other) => format!("{other:?}"),
    }
}

/// Not a test: a server in the server's namespace that tries every flag on a connection.
#[test]
fn program() {
    let Ok(address) = env::var(ADDRESS) else { return };
    let address: SocketAddr = address.parse().expect("it is an address");
    let say = |text: &str| {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).expect("the lab reads it");
    };
    let fd = Socket::create(Domain::V4, 0).expect("a number is left");
    let listener = find(fd).expect("it is ours");
    let listener = listener.socket().expect("it is a socket");
    listener.bind(fd, address).expect("it is free");
    listener.listen(fd, 1).expect("it is bound");
    say(READY);
    let (fd, _) = listener.accept(0).expect("somebody connects");
    let found = find(fd).expect("it is ours");
    let stream = found.socket().expect("it is a socket");
    let mut all = [0; BYTES];
    while stream.recv(&mut all, libc::MSG_PEEK).expect("it is connected") < BYTES {
        std::thread::yield_now();
    }
    for bit in 0..32 {
        let flag = 1_i32 << bit;
        let sent = stream.send(&[IoSlice::new(b"x")], flag | libc::MSG_DONTWAIT);
        let received = stream.recv(&mut [0], flag | libc::MSG_DONTWAIT);
        say(&format!("{:#x} {} {}", flag as u32, word(sent), word(received)));
    }
    say(DONE);
    fourwave_posix::close(fd).expect("it is open");
}

/// By number: what sending and receiving do.
type Outcomes = BTreeMap<u32, (String, String)>;

fn number(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn documented() -> Outcomes {
    let table = include_str!("../../../client-lib/OPTIONS.md");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        cells[1].starts_with("MSG_").then_some(())?;
        Some((number(cells[2])?, (cells[3].to_owned(), cells[4].to_owned())))
    };
    table.lines().filter(|line| line.starts_with("| ")).filter_map(row).collect()
}

#[test]
fn the_table_of_flags_is_true() {
    let Some(mut bed) = Bed::new("flags") else { return };
    let address = bed.server_address(false, 7777);
    let mut command = bed.server().command(env::current_exe().expect("/proc is mounted"));
    command
        .args(["--exact", "flags::program", "--nocapture"])
        .env(ADDRESS, address.to_string())
        .env("FOURWAVE_SOCKET", bed.control_socket(Side::Server));
    bed.spawn("flags", command, Ready::Prints(READY)).unwrap_or_else(|error| panic!("{error}"));
    let mut stream = bed.kernel_connect(address);
    stream.write_all(&[1; BYTES]).expect("it is connected");
    let log = bed.folder().join("flags.log");
    let mut text = String::new();
    eventually("the program gets to its end", || {
        text = fs::read_to_string(&log).expect("it has a log");
        text.contains(DONE) || text.contains("panicked")
    });
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let flag = number(words.next()?)?;
        Some((flag, (words.next()?.to_owned(), words.next()?.to_owned())))
    };
    let seen: Outcomes = text.lines().filter_map(line).collect();
    assert_eq!(seen.len(), 32, "{text}");
    let mut expected = documented();
    assert!(expected.len() > 10, "{expected:?}");
    for bit in 0..32 {
        let others = ("works".to_owned(), "works".to_owned());
        expected.entry(1 << bit).or_insert(others);
    }
    assert_eq!(seen, expected);
    // What was sent came; unread bytes make the end a reset.
    let _ = stream.read_to_end(&mut Vec::new());
    bed.stop("flags", STOP_GRACE).unwrap_or_else(|error| panic!("{error}"));
    bed.wait_until_empty();
}
