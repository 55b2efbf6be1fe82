//! The examples of the client library, as users run them, with `curl` and the kernel as clients.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::path::PathBuf;
use std::process::Output;

use fourwave_bench::lab::{Ready, Side};

use crate::programs::are_there;
use crate::programs::web::{Load, WRK};
use crate::support::bytes::Pattern;
use crate::support::{Bed, FAMILIES, PATIENCE, STOP_GRACE, soaking};

const PORT: u16 = 8080;
/// Requests of each kind, for each address family.
const REQUESTS: usize = 100;
/// Bytes that are echoed to each of some clients: what the first windows hold.
const SIZE: usize = 50_000;

/// An example's executable.
fn example(name: &str) -> PathBuf {
    let test = env::current_exe().expect("/proc is mounted");
    let folder = test.ancestors().nth(2).expect("tests lie two folders below the target's");
    let path = folder.join("examples").join(name);
    let missing = "is missing: cargo build -p fourwave --features axum --examples";
    assert!(path.is_file(), "{} {missing}", path.display());
    path
}

/// Starts an example at the server, listening on `port` of all addresses.
fn start(bed: &mut Bed, name: &str, port: u16) {
    let mut command = bed.server().command(example(name));
    command.arg(format!("[::]:{port}")).env("FOURWAVE_SOCKET", bed.control_socket(Side::Server));
    bed.spawn(name, command, Ready::Prints("listening on")).unwrap_or_else(|e| panic!("{e}"));
}

/// Runs `curl` at the client; it must succeed.
fn curl(bed: &Bed, arguments: &[&str]) -> Output {
    let mut command = bed.client().command("curl");
    command.args(["--silent", "--show-error", "--fail-with-body", "--max-time"]);
    command.arg(PATIENCE.as_secs().to_string()).args(arguments);
    let output = command.output().expect("curl is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {arguments:?}: {}: {said}", output.status);
    output
}

fn serves_http(name: &str) {
    let Some(mut bed) = Bed::new(name) else { return };
    start(&mut bed, name, PORT);
    let hello = format!("hello from {name} over fourwave\n");
    let body = bed.folder().join("body");
    // Text, for those who look.
    let text: Vec<u8> = {
        let mut bytes = vec![0; 1 << 20];
        Pattern::new(7).fill(&mut bytes);
        bytes.iter().map(|byte| b'a' + byte % 26).collect()
    };
    fs::write(&body, &text).expect("the lab's folder can be written to");
    for v6 in FAMILIES {
        let url = format!("http://{}", bed.server_address(v6, PORT));
        // curl makes one request for each number: on one connection, then on one each, several at
        // a time.
        let many = format!("{url}/?[1-{REQUESTS}]");
        let kept = curl(&bed, &[&many]);
        assert_eq!(String::from_utf8_lossy(&kept.stdout), hello.repeat(REQUESTS));
        let closed = curl(&bed, &["--parallel", "-H", "Connection: close", &many]);
        assert_eq!(String::from_utf8_lossy(&closed.stdout), hello.repeat(REQUESTS));

        let upload = format!("@{}", body.display());
        let echoed = curl(&bed, &["--data-binary", &upload, &format!("{url}/echo")]);
        assert!(echoed.stdout == text, "{} bytes of {}", echoed.stdout.len(), text.len());

        let code = ["--no-fail-with-body", "--output", "/dev/null", "--write-out", "%{http_code}"];
        let lost = curl(&bed, &[&code[..], &[&format!("{url}/lost")]].concat());
        assert_eq!(lost.stdout, b"404");

        if name == "axum" {
            // Another port each time: the kernel keeps the former one for a minute. And none that
            // the kernel chose before: it does not choose that high.
            let port = 61_404 + u16::from(v6);
            let peer = curl(&bed, &["--local-port", &port.to_string(), &format!("{url}/peer")]);
            // The socket is one of IPv6: it shows IPv4 mapped.
            let v4 = format!("[::ffff:{}]:{port}", bed.client().v4());
            let expected = if v6 { bed.client_address(v6, port).to_string() } else { v4 };
            assert_eq!(String::from_utf8_lossy(&peer.stdout), expected);
        }
    }
    bed.check_programs().unwrap_or_else(|error| panic!("{error}"));
    bed.stop(name, STOP_GRACE).unwrap_or_else(|error| panic!("{error}"));
    bed.wait_until_empty();
}

#[test]
fn axum_serves_http() {
    serves_http("axum");
}

/// Many requests, on a connection each and on some that stay, each answered well.
#[test]
fn axum_under_wrk() {
    if !are_there(&[WRK]) {
        return;
    }
    let Some(mut bed) = Bed::new("axum-wrk") else { return };
    start(&mut bed, "axum", PORT);
    let requests = if soaking() { 100_000 } else { 5000 };
    for v6 in FAMILIES {
        for header in [Some("Connection: close"), None] {
            let url = format!("http://{}/", bed.server_address(v6, PORT));
            let load = Load { url, connections: 32, header };
            load.run(|| bed.client().command(WRK), requests);
        }
    }
    bed.stop("axum", STOP_GRACE).unwrap_or_else(|error| panic!("{error}"));
    bed.wait_until_empty();
}

#[test]
fn hyper_serves_http() {
    serves_http("hyper");
}

#[test]
fn a_blocking_echo_server() {
    echoes("echo");
}

#[test]
fn an_echo_server_in_the_loop_of_mio() {
    echoes("mio");
}

fn echoes(name: &str) {
    let Some(mut bed) = Bed::new(name) else { return };
    start(&mut bed, name, PORT);
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let mut streams: Vec<_> = (0..20).map(|_| bed.kernel_connect(address)).collect();
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&[number as u8; SIZE]).expect("it is connected");
            stream.shutdown(Shutdown::Write).expect("it is connected");
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            let mut echoed = Vec::new();
            stream.read_to_end(&mut echoed).expect("an orderly end");
            assert!(echoed == [number as u8; SIZE], "{} bytes of {number}", echoed.len());
        }
    }
    bed.stop(name, STOP_GRACE).unwrap_or_else(|error| panic!("{error}"));
    bed.wait_until_empty();
}
