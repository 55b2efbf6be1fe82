//! What an operator sees: counters, metrics, and why a daemon does not start.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use fourwave_bench::lab::{Side, daemon_binary};

use fourwave::SocketOptions;

use crate::support::{Bed, FAMILIES, accept, eventually, kernel_connect_from, within};

#[test]
fn counters_for_people_and_for_prometheus() {
    // Written out: the lab's own daemon must be known before its address is.
    let settings = [("metrics_address", "\"10.99.0.2:9400\"")];
    let Some(bed) = Bed::with("metrics", |lab| lab, &settings) else { return };
    let runtime = bed.runtime();
    let listener = bed.listen(&runtime, bed.server_address(false, 7777));
    let _pair = bed.connected_pair(&listener);

    let mut stats = Command::new(env!("CARGO_BIN_EXE_fourwave"));
    stats.arg("stats").arg("--runtime-dir").arg(bed.runtime_dir(Side::Server));
    let mut seen = String::new();
    eventually("`fourwave stats` shows the connection", || {
        let output = stats.output().expect("it can be started");
        assert!(output.status.success(), "{output:?}");
        seen = String::from_utf8(output.stdout).expect("text");
        seen.lines().any(|line| line == "connections 1")
    });
    assert!(seen.lines().any(|line| line == "PassiveOpens 1"), "{seen}");
    assert!(seen.lines().any(|line| line == "sockets{state=\"established\"} 1"), "{seen}");
    assert!(seen.lines().any(|line| line.starts_with("accept_queue{listener=")), "{seen}");
    eventually("the metrics show it, with explanations", || {
        let metrics = scrape(&bed, bed.server_address(false, 9400));
        [
            "fourwave_PassiveOpens{worker=\"0\"} 1",
            "fourwave_sockets{worker=\"0\",state=\"established\"} 1",
            "fourwave_listeners 1",
            "fourwave_clients_refused{reason=\"port\"} 0",
            "# HELP fourwave_ListenOverflows An accept queue was full when a SYN or a handshake's \
             last ACK came.",
            "# TYPE fourwave_sockets gauge",
        ]
        .iter()
        .all(|expected| metrics.lines().any(|line| line == *expected))
    });
    let screen = tool(&bed, &["top", "-n", "1", "-i", "100ms"]);
    assert!(screen.contains("established 1") && screen.contains("10.99.0.2:7777 "), "{screen}");
    let table = tool(&bed, &["stats", "--explain"]);
    assert!(table.contains("Connections that a listener's handshake completed."), "{table}");
}

#[test]
fn drops_are_explained_with_samples() {
    let Some(bed) = Bed::new("drops") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let address = bed.server_address(v6, 7777);
        let options = SocketOptions::new().backlog(0).runtime(&runtime);
        let listener = options.bind(address).unwrap_or_else(|error| panic!("{error}"));
        let _fits = bed.fill_accept_queue(address, 1);
        // Bound before it connects, so that its address is known.
        let from = bed.client_address(v6, 61_400);
        let netns = bed.client().netns().clone();
        let waits = std::thread::spawn(move || {
            netns.run(|| kernel_connect_from(from, address)).expect("it can be entered")
        });
        let mut seen = String::new();
        eventually("the SYN that found no room is shown", || {
            seen = tool(&bed, &["drops", "listenoverflows"]);
            seen.contains(&format!("{from} > {address} [S] seq "))
        });
        assert!(seen.contains("An accept queue was full"), "{seen}");
        let json = tool(&bed, &["stats", "--samples", "--json"]);
        assert!(json.contains(&format!("\"peer\":\"{from}\"")), "{json}");
        drop((accept(&listener), accept(&listener)));
        drop(waits.join().expect("no panic").expect("there was room after all"));
    }
    drop(runtime);
    bed.wait_until_empty();
}

/// What `fourwave` with these words prints.
fn tool(bed: &Bed, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fourwave"));
    command.args(words).arg("--runtime-dir").arg(bed.runtime_dir(Side::Server));
    let output = within("a tool", move || command.output()).expect("it can be started");
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn sockets_are_listed_as_ss_lists_them() {
    let Some(bed) = Bed::with("ss", |lab| lab.queues(2), &[("xdp_mode", "\"native\"")]) else {
        return;
    };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let address = bed.server_address(v6, 7777);
        let listener = bed.listen(&runtime, address);
        let (mut held, mut kernel) = bed.connected_pair(&listener);
        kernel.write_all(b"hello").expect("it is connected");
        held.read_exact(&mut [0; 2]).expect("it comes");
        let (closed, mut closing) = bed.connected_pair(&listener);
        drop(closed);
        // Ours is the first FIN.
        assert_eq!(closing.read(&mut [0]).expect("an orderly end"), 0);
        drop(closing);
        let _unaccepted = bed.kernel_connect(address);

        let row = |state: &str, port: &str| {
            let sockets = tool(&bed, &["ss", "-Htanpoe", "sport", "=", port]);
            let rows = sockets.lines().filter(|line| line.starts_with(state));
            rows.map(str::to_owned).collect::<Vec<String>>()
        };
        let listening = row("LISTEN", ":7777");
        let pid = format!("pid={}", std::process::id());
        assert_eq!(listening.len(), 1, "{listening:?}");
        assert!(
            listening[0].contains(&pid) && listening[0].contains("syn-queue:"),
            "{listening:?}"
        );
        eventually("one waits to be accepted", || {
            let row = &row("LISTEN", ":7777")[0];
            row.split_whitespace().nth(1) == Some("1")
        });
        eventually("three bytes wait to be read", || {
            row("ESTAB", ":7777")
                .iter()
                .any(|row| row.split_whitespace().nth(1) == Some("3") && row.contains(&pid))
        });
        let established = row("ESTAB", ":7777");
        assert!(established.iter().any(|row| row.contains("unaccepted")), "{established:?}");
        eventually("the closed one is in TIME_WAIT", || {
            row("TIME-WAIT", ":7777").iter().any(|row| row.contains("timer:(timewait,"))
        });
        assert_eq!(row("ESTAB", ":7778"), Vec::<String>::new());
        let others = tool(&bed, &["ss", "state", "syn-recv"]);
        assert!(others.starts_with("State ") && others.lines().count() == 1, "{others}");
    }
    drop(runtime);
    bed.wait_until_empty();
}

/// `GET /metrics`, from the client's side: the port is the kernel's, like all that are not served.
fn scrape(bed: &Bed, address: SocketAddr) -> String {
    let mut connection = bed.kernel_connect(address);
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).expect("it is connected");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an orderly end");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

/// A start that must fail; what it says.
fn failed_start(bed: &Bed, config: &Path) -> String {
    let binary = daemon_binary().unwrap_or_else(|error| panic!("{error}"));
    let mut command = bed.server().command(binary);
    command.arg("--config").arg(config);
    command.arg("--runtime-dir").arg(bed.runtime_dir(Side::Server));
    let output = within("a start that must fail", move || command.output());
    let Output { status, stderr, .. } = output.expect("it can be started");
    assert!(!status.success(), "it started, and stopped as if all were well");
    String::from_utf8(stderr).expect("text")
}

#[test]
fn a_start_that_fails_says_why() {
    let Some(bed) = Bed::without_daemon("why", |lab| lab, &[]) else { return };
    let config = bed.folder().join("broken.toml");
    let attempt = |text: &str, expected: &str| {
        std::fs::write(&config, text).expect("the lab's folder is writable");
        let said = failed_start(&bed, &config);
        assert!(said.contains(expected), "{text:?}: {said}");
    };
    attempt("interface = \"nowhere0\"", "nowhere0");
    attempt("interface = \"fw-srv0\"\nqueues = [7]", "queue");
    attempt("interface = \"fw-srv0\"\ninterfaces = 2", "interfaces");
    attempt("interface = \"fw-srv0\"\nlocal_ports = \"40000-50000\"", "ip_local_port_range");
    let missing = bed.folder().join("missing.toml");
    let said = failed_start(&bed, &missing);
    assert!(said.contains("missing.toml"), "{said}");
}
