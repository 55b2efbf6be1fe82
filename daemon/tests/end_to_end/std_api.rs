//! A program written for `std::net` compiles for fourwave with another `use`, and sees the same.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;

use fourwave_bench::lab::{Ready, Side};
use rustix::net::sockopt::set_socket_linger;

use crate::support::bytes::Pattern;
use crate::support::{Bed, FAMILIES, STOP_GRACE, eventually};

mod on_the_kernel {
    use std::net::{TcpListener, TcpStream};

    include!("std_api/program.rs");
}

mod on_fourwave {
    use fourwave::{TcpListener, TcpStream};

    include!("std_api/program.rs");
}

const SOCKETS: &str = "FOURWAVE_TEST_SOCKETS";
const OWN: &str = "FOURWAVE_TEST_OWN_ADDRESS";
const PEER: &str = "FOURWAVE_TEST_PEER_ADDRESS";
const READY: &str = "the program is ready";
const DONE: &str = "the program has done";

/// Not a test: the program, in the server's namespace.
#[test]
fn program() {
    let Ok(sockets) = env::var(SOCKETS) else { return };
    let address = |name| -> SocketAddr {
        env::var(name).expect("it is given").parse().expect("it is an address")
    };
    let (own, peer) = (address(OWN), address(PEER));
    let say = |text: &str| {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).expect("the lab reads it");
    };
    let said = match sockets.as_str() {
        "kernel" => on_the_kernel::run(own.ip(), own.port(), peer, || say(READY)),
        _ => on_fourwave::run(own.ip(), own.port(), peer, || say(READY)),
    };
    say(&format!("{}{DONE}", said.expect("it runs to its end")));
}

/// Runs the program on these sockets; returns what it said.
fn run(bed: &mut Bed, sockets: &str, own: SocketAddr) -> String {
    let v6 = own.is_ipv6();
    let listener = bed.kernel_listen(bed.client_address(v6, 0));
    let peer = listener.local_addr().expect("it is bound");
    let role = format!("std-{sockets}-{}", if v6 { 6 } else { 4 });
    let mut command = bed.server().command(env::current_exe().expect("/proc is mounted"));
    command
        .args(["--exact", "std_api::program", "--nocapture"])
        .env(SOCKETS, sockets)
        .env(OWN, own.to_string())
        .env(PEER, peer.to_string())
        .env("FOURWAVE_SOCKET", bed.control_socket(Side::Server));
    bed.spawn(&role, command, Ready::Prints(READY)).unwrap_or_else(|error| panic!("{error}"));
    play_the_peer(bed, own, &listener);
    let log = bed.folder().join(format!("{role}.log"));
    let mut text = String::new();
    eventually(format!("{role} gets to its end"), || {
        text = fs::read_to_string(&log).expect("it has a log");
        text.contains(DONE) || text.contains("panicked")
    });
    bed.stop(&role, STOP_GRACE).unwrap_or_else(|error| panic!("{error}"));
    let said = text.split_once(&format!("{READY}\n")).expect("it was ready").1;
    let (said, _) = said.split_once(DONE).unwrap_or_else(|| panic!("{role}: {text}"));
    said.to_owned()
}

/// The other side of `program.rs`, on kernel sockets.
fn play_the_peer(bed: &Bed, to: SocketAddr, listener: &std::net::TcpListener) {
    let stream = bed.kernel_connect(to);
    let mut lines = BufReader::new(&stream);
    let mut line = || {
        let mut line = String::new();
        lines.read_line(&mut line).expect("it is connected");
        line
    };
    assert_eq!(line(), "go\n");
    (&stream).write_all(b"hello world").expect("it is connected");
    assert_eq!(line(), "one two\n");
    for text in ["first\n", "\n", "the third\n"] {
        (&stream).write_all(text.as_bytes()).expect("it is connected");
        assert_eq!(line(), format!("{} bytes\n", text.len()));
    }
    let mut bytes = vec![0; 20_000];
    Pattern::new(5).fill(&mut bytes);
    (&stream).write_all(&bytes).expect("it is connected");
    stream.shutdown(Shutdown::Write).expect("it is connected");
    let mut back = Vec::new();
    lines.read_to_end(&mut back).expect("an orderly end");
    assert!(back == bytes);

    let mut streams: Vec<_> = (0..8).map(|_| bed.kernel_connect(to)).collect();
    for (stream, byte) in streams.iter_mut().zip(0..) {
        stream.write_all(&[byte; 1000]).expect("it is connected");
        stream.shutdown(Shutdown::Write).expect("it is connected");
    }
    for (mut stream, byte) in streams.into_iter().zip(0..) {
        let mut back = Vec::new();
        stream.read_to_end(&mut back).expect("an orderly end");
        assert_eq!(back, [byte; 1000]);
    }

    let mut stream = bed.kernel_connect(to);
    stream.write_all(b"four").expect("it is connected");
    stream.read_exact(&mut [0; 1]).expect("it is answered");
    set_socket_linger(&stream, Some(std::time::Duration::ZERO)).expect("a socket has it");
    drop(stream);

    let (mut stream, _) = listener.accept().expect("it connects");
    let mut writing = stream.try_clone().expect("a descriptor is left");
    let echo = thread::spawn(move || io::copy(&mut stream, &mut writing));
    assert_eq!(echo.join().expect("no panic").expect("it is connected"), 300_000);
}

#[test]
fn a_program_for_std_sees_the_same() {
    let Some(mut bed) = Bed::new("std") else { return };
    for v6 in FAMILIES {
        let kernel = {
            let own = bed.server_address(v6, 7001);
            run(&mut bed, "kernel", own)
        };
        let own = bed.server_address(v6, 7002);
        let ours = run(&mut bed, "fourwave", own);
        assert!(kernel.lines().count() > 40, "{kernel}");
        for (number, (ours, kernel)) in ours.lines().zip(kernel.lines()).enumerate() {
            assert_eq!(ours, kernel, "line {}", number + 1);
        }
        assert_eq!(ours, kernel);
    }
    bed.wait_until_empty();
}
