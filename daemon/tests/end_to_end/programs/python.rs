//! Python's sockets, its HTTP server, and asyncio.

use std::path::{Path, PathBuf};

use fourwave_bench::lab::Side;

use super::web::{self, CURL};
use super::{PORT, Stage, compare, finish};
use crate::fork_load::{THREADS, WITHOUT_LOSS, load};
use crate::support::soaking;

const PYTHON: &str = "/usr/bin/python3";

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/programs/python").join(name)
}

/// `socket`, `select` and `selectors`, as a transcript that must be the same word for word.
#[test]
fn python_sockets_behave_alike() {
    compare("py-socket", Side::Server, &[PYTHON], |stage| {
        let control = stage.folder("python").join("control.sock");
        let (own, other) = (stage.own().v4().to_string(), stage.other().v4().to_string());
        let mut peer = stage.peer(PYTHON);
        peer.arg("-B").arg(script("peer.py")).arg(&control).arg(&other);
        stage.start("peer", peer, "READY");
        let mut tested = stage.tested(PYTHON);
        tested.arg("-B").arg(script("sockets.py")).arg(&control).args([own, other]);
        let finished = finish(tested.arg(PORT.to_string()));
        assert!(finished.status.success(), "{finished}");
        let transcript = finished.text();
        assert!(transcript.ends_with("END\n"), "{finished}");
        // It ends with the one that tells it what to do.
        stage.bed.stop("peer", std::time::Duration::from_secs(5)).expect("it ends");
        Transcript(transcript)
    });
}

/// Text that shows where it differs.
#[derive(PartialEq)]
struct Transcript(String);

impl std::fmt::Debug for Transcript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[test]
fn python_http_server() {
    compare("py-http", Side::Server, &[PYTHON, CURL], |stage| {
        let folder = stage.folder("site");
        web::write_files(&folder);
        let mut server = stage.tested(PYTHON);
        server.args(["-B", "-u", "-m", "http.server", "--bind"]).arg(stage.own().v4().to_string());
        server.arg("--directory").arg(&folder).arg(PORT.to_string());
        stage.start("http", server, "Serving HTTP");
        let seen = web::fetch(|| stage.peer(CURL), &format!("http://{}", stage.server()));
        stage.stop("http");
        seen
    });
}

/// An echo server or its clients at either end.
fn echoes(name: &str, tested: Side) {
    let scale = if soaking() { 10 } else { 1 };
    compare(name, tested, &[PYTHON], |stage| {
        let (host, port) = (stage.bed.server().v4().to_string(), PORT.to_string());
        let echo = |stage: &Stage, side, arguments: &[&str]| {
            let make = if side == tested { Stage::tested } else { Stage::peer };
            let mut command = make(stage, PYTHON);
            command.arg("-B").arg(script("echo.py")).args(arguments);
            command
        };
        let server = echo(stage, Side::Server, &["serve", &host, &port]);
        stage.start("echo", server, "READY");
        let mut seen = String::new();
        for (connections, size) in [(500 * scale, 100), (50 * scale, 100_000), (2, 5_000_000)] {
            let arguments = ["load", &host, &port, &connections.to_string(), &size.to_string()];
            let load = finish(&mut echo(stage, Side::Client, &arguments)).text();
            assert_eq!(load, format!("{connections} echoes\n"), "of {size} bytes");
            seen += &load;
        }
        stage.stop("echo");
        seen
    });
}

#[test]
fn asyncio_echo_server() {
    echoes("py-serve", Side::Server);
}

#[test]
fn asyncio_clients() {
    echoes("py-load", Side::Client);
}

/// A program that was not written for it, with children among its threads.
#[test]
fn python_threads_that_fork() {
    compare("py-fork", Side::Server, &[PYTHON], |stage| {
        let mut server = stage.tested(PYTHON);
        server.args(["-B", "-W", "ignore"]).arg(script("fork_load.py"));
        server.arg(stage.own().v4().to_string()).args([PORT.to_string(), THREADS.to_string()]);
        stage.start("forks", server, "READY");
        let wrong = load(&stage.bed, stage.server(), &WITHOUT_LOSS);
        assert!(wrong.is_empty(), "{wrong:#?}\n{}", stage.said("forks"));
        stage.stop("forks");
    });
}
