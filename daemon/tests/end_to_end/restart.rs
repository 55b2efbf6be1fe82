//! Stopping and starting: in order, and after a crash.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::thread;

use fourwave_bench::lab::{ProcessRef, Side, daemon_binary};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::bpf::stranger;
use crate::support::{Bed, DAEMON, FAMILIES, eventually};

const PORT: u16 = 7777;

/// Where daemons pin their programs.
const PINS: &str = "/sys/fs/bpf/fourwave";

/// What the lab's daemon has pinned: the name follows from that of its folder, with dashes escaped.
fn pins(bed: &Bed) -> Vec<PathBuf> {
    // Not there: nobody ever pinned anything.
    let Ok(folder) = fs::read_dir(PINS) else { return Vec::new() };
    let all = folder.map(|entry| entry.expect("it can be listed").path());
    let lab = bed.config().name.replace('-', "_2d");
    all.filter(|pin| pin.to_string_lossy().contains(&lab)).collect()
}

/// Whether an XDP program runs on the server's interface.
fn has_program(bed: &Bed) -> bool {
    bed.status().unwrap_or_else(|error| panic!("{error}")).server.xdp.is_some()
}

fn kill(daemon: ProcessRef) {
    let pid = Pid::from_raw(daemon.pid).expect("a process has a pid");
    kill_process(pid, Signal::KILL).expect("it is our child");
    eventually("the daemon dies", || !daemon.is_alive());
}

/// The machine is as before a daemon ran: no program, no pins, and the port is the kernel's.
fn assert_nothing_left(bed: &Bed) {
    assert!(!has_program(bed), "a program is left");
    assert_eq!(pins(bed), [""; 0].map(PathBuf::from));
    for v6 in FAMILIES {
        let bind = || TcpListener::bind(bed.server_address(v6, PORT));
        drop(bed.server().run(bind).expect("it can be entered").expect("the port is free"));
    }
}

/// A new client of the daemon listens and is served.
fn assert_serves(bed: &Bed) {
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let listener = bed.listen(&runtime, bed.server_address(v6, PORT));
        let (mut fourwave, mut kernel) = bed.connected_pair(&listener);
        kernel.write_all(b"hello").expect("it is connected");
        let mut bytes = [0; 5];
        fourwave.read_exact(&mut bytes).expect("it comes");
        assert_eq!(&bytes, b"hello");
    }
}

#[test]
fn stopping_leaves_the_machine_as_before() {
    let Some(mut bed) = Bed::without_daemon("stop", |lab| lab, &[]) else { return };
    bed.start_daemon();
    assert!(has_program(&bed));
    assert!(!pins(&bed).is_empty(), "nothing is pinned there");
    let runtime = bed.runtime();
    let listeners = FAMILIES.map(|v6| bed.listen(&runtime, bed.server_address(v6, PORT)));
    let pairs = listeners.each_ref().map(|listener| bed.connected_pair(listener));

    // One thread sleeps in accept, one in read.
    let mut reading = pairs[0].0.try_clone().expect("the daemon is there");
    let accepting = listeners[0].try_clone().expect("the daemon is there");
    let sleepers = [
        thread::spawn(move || accepting.accept().map(drop)),
        thread::spawn(move || reading.read(&mut [0; 1]).map(drop)),
    ];
    bed.stop_daemon();
    for sleeper in sleepers {
        let error = sleeper.join().expect("no panic").expect_err("the daemon is gone");
        let kind = error.kind();
        assert!(matches!(kind, ErrorKind::NetworkDown | ErrorKind::ConnectionReset), "{error}");
    }
    let error = runtime.stats().expect_err("the daemon is gone");
    assert_eq!(error.kind(), ErrorKind::NetworkDown, "{error}");
    for (fourwave, mut kernel) in pairs {
        let error = (&fourwave).write(b"x").expect_err("the daemon is gone");
        assert_eq!(error.kind(), ErrorKind::NetworkDown, "{error}");
        let error = kernel.read(&mut [0; 1]).expect_err("it was reset");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{error}");
    }
    let error = listeners[0].accept().expect_err("the daemon is gone");
    assert_eq!(error.kind(), ErrorKind::NetworkDown, "{error}");
    assert_nothing_left(&bed);

    bed.start_daemon();
    assert_serves(&bed);
    bed.stop_daemon();
    assert_nothing_left(&bed);
}

/// A connection that is about to end is given the time for it.
#[test]
fn draining_lets_connections_end() {
    let keys = [("drain_timeout", "\"20s\"")];
    let Some(mut bed) = Bed::with("drain", |lab| lab, &keys) else { return };
    let runtime = bed.runtime();
    let listener = bed.listen(&runtime, bed.server_address(false, PORT));
    let (mut fourwave, mut kernel) = bed.connected_pair(&listener);
    let serving = thread::spawn(move || {
        let mut request = [0; 4];
        fourwave.read_exact(&mut request)?;
        fourwave.write_all(&request)
    });
    let log = bed.daemon_log();
    let stopping = Pid::from_raw(daemon_of(&bed).pid).expect("a process has a pid");
    kill_process(stopping, Signal::TERM).expect("it is our child");
    eventually("the daemon says that it stops", || bed.daemon_log() != log);
    kernel.write_all(b"last").expect("it is still connected");
    let mut reply = Vec::new();
    kernel.read_to_end(&mut reply).expect("an orderly end");
    assert_eq!(reply, b"last");
    serving.join().expect("no panic").expect("it was served");
    eventually("the daemon ends", || bed.check_programs().is_err());
    bed.stop_daemon();
}

fn daemon_of(bed: &Bed) -> ProcessRef {
    let status = bed.status().unwrap_or_else(|error| panic!("{error}"));
    let daemon = status.programs.iter().find(|(program, _)| program.role == DAEMON);
    daemon.expect("it was started").0.process
}

#[test]
fn a_crash_is_cleaned_up_by_the_next_start() {
    let Some(mut bed) = Bed::without_daemon("crash", |lab| lab, &[]) else { return };
    let daemon = bed.start_daemon();
    assert_serves(&bed);
    kill(daemon);
    // A served port must not meet the kernel's resets while the daemon comes back.
    assert!(has_program(&bed));
    bed.stop_daemon();
    bed.start_daemon();
    assert_serves(&bed);
    bed.stop_daemon();
    assert_nothing_left(&bed);
}

#[test]
fn a_crash_is_cleaned_up_by_release() {
    let Some(mut bed) = Bed::without_daemon("release", |lab| lab, &[]) else { return };
    let daemon = bed.start_daemon();
    kill(daemon);
    bed.stop_daemon();
    assert!(has_program(&bed));
    // Twice: when there is nothing to release, that is said, and no error.
    for _ in 0..2 {
        let binary = daemon_binary().unwrap_or_else(|error| panic!("{error}"));
        let config = bed.folder().join(format!("{}.toml", Side::Server.name()));
        let mut command = bed.server().command(binary);
        let output = command.arg("--release").arg("--config").arg(config).output();
        let output = output.expect("it can be started");
        assert!(output.status.success(), "{output:?}");
        assert_nothing_left(&bed);
    }
}

#[test]
fn a_strangers_program_is_left_alone() {
    let Some(mut bed) = Bed::without_daemon("stranger", |lab| lab, &[]) else { return };
    let program = stranger(bed.server(), "somebody_elses").expect("the kernel has XDP");
    let error = bed.try_start_daemon().expect_err("the interface is taken").to_string();
    assert!(error.contains("somebody_elses"), "does not name the program: {error}");
    assert!(has_program(&bed), "it was removed");
    drop(program);
    bed.start_daemon();
    assert_serves(&bed);
}

/// Two daemons cannot share a queue, and the second says so without harming the first.
#[test]
fn a_second_daemon_is_refused() {
    let Some(bed) = Bed::new("second") else { return };
    let binary = daemon_binary().unwrap_or_else(|error| panic!("{error}"));
    let config = bed.folder().join(format!("{}.toml", Side::Server.name()));
    let output = bed.server().command(binary).arg("--config").arg(config).output();
    let output = output.expect("it can be started");
    assert!(!output.status.success(), "{output:?}");
    assert!(!output.stderr.is_empty(), "it gives no reason");
    assert_serves(&bed);
}
