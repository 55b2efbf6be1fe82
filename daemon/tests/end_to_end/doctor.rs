//! What `fourwave doctor` finds, with the kernel as the peer.

use std::io::Write;
use std::net::Shutdown;
use std::process::{Command, Output};

use fourwave::SocketOptions;
use fourwave_bench::lab::Side;

use crate::support::bpf::lose_frames;
use crate::support::{Bed, eventually, within};

/// `fourwave doctor` with these words: its exit code, and what it prints.
fn doctor(bed: &Bed, words: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fourwave"));
    command.arg("doctor").args(words).arg("--runtime-dir").arg(bed.runtime_dir(Side::Server));
    let output = within("the doctor", move || command.output()).expect("it can be started");
    let Output { status, stdout, stderr } = output;
    let said = String::from_utf8(stdout).expect("text") + &String::from_utf8_lossy(&stderr);
    (status.code().expect("it ends by itself"), said)
}

/// The severity and all text of the finding `id`.
fn finding(bed: &Bed, id: &str) -> (String, String) {
    let (_, said) = doctor(bed, &["--json", "--watch", "0", "--patience", "0.2"]);
    let report: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let findings = report["findings"].as_array().expect("a list");
    let finding = findings.iter().find(|finding| finding["id"] == id).expect("it is looked at");
    (finding["severity"].as_str().expect("text").to_owned(), finding.to_string())
}

#[test]
fn what_programs_and_peers_neglect_is_found_and_named() {
    let Some(bed) = Bed::new("doctor") else { return };
    let runtime = bed.runtime();
    let address = bed.server_address(false, 7777);
    let (code, said) = doctor(&bed, &["--watch", "0"]);
    assert_eq!((code, said.contains("Nothing is wrong")), (0, true), "{said}");
    let pid = format!("(pid {})", std::process::id());

    // An accept queue that holds one more than its backlog of one, and a program that sleeps.
    let options = SocketOptions::new().runtime(&runtime).backlog(1);
    let listener = options.bind(address).expect("it can be bound");
    let waiting = [bed.kernel_connect(address), bed.kernel_connect(address)];
    eventually("the accept queue is full", || finding(&bed, "accept_queue").0 == "problem");
    let (_, text) = finding(&bed, "accept_queue");
    assert!(text.contains(&pid) && text.contains("10.99.0.2:7777"), "{text}");
    let (code, said) = doctor(&bed, &["--watch", "0"]);
    assert_eq!((code, said.starts_with("PROBLEM: An accept queue is full")), (1, true), "{said}");
    let accepted = [listener.accept().expect("it waits").0, listener.accept().expect("too").0];
    eventually("the queue has room again", || finding(&bed, "accept_queue").0 == "fine");

    // A peer that has closed, and a program that has not.
    let [mut first, second] = waiting;
    first.write_all(b"unread").expect("it is connected");
    first.shutdown(Shutdown::Write).expect("it is connected");
    eventually("CLOSE_WAIT is found", || finding(&bed, "close_wait").0 == "problem");
    let (_, text) = finding(&bed, "close_wait");
    assert!(text.contains(&pid) && text.contains("6 bytes"), "{text}");

    // A peer that does not answer any more.
    let [in_close_wait, established] = accepted;
    let lossy = lose_frames(bed.client(), 1).expect("the kernel has TCX");
    drop(established);
    eventually("the silent peer is found", || finding(&bed, "fin_wait_1").0 == "warning");
    let (_, text) = finding(&bed, "fin_wait_1");
    let peer = second.local_addr().expect("it was connected").ip().to_string();
    assert!(text.contains(&peer), "{text}");
    drop(lossy);

    drop((in_close_wait, first, second, listener, options));
    eventually("all is well again", || {
        let (code, _) = doctor(&bed, &["--watch", "0"]);
        code == 0
    });
    let (code, said) = doctor(&bed, &["--watch", "0.1", "--all"]);
    assert_eq!((code, said.contains("do not reach served ports")), (0, true), "{said}");
    drop(runtime);
    bed.wait_until_empty();
}

/// A program that is gone is not said to hold what it has left.
#[test]
fn what_waits_for_a_successor_is_told_of() {
    let settings = [("clients.accept_grace", "\"60s\"")];
    let Some(bed) = Bed::with("orphaned", |lab| lab, &settings) else { return };
    let runtime = bed.runtime();
    let address = bed.server_address(false, 7777);
    let listener = bed.listen(&runtime, address);
    let kernel = bed.kernel_connect(address);
    assert_eq!(finding(&bed, "successor").0, "fine");
    drop(listener);
    eventually("it is found", || finding(&bed, "successor").0 == "warning");
    let (_, text) = finding(&bed, "successor");
    assert!(text.contains("10.99.0.2:7777, left by") && text.contains("within 60s"), "{text}");
    assert_eq!(finding(&bed, "accept_queue").0, "fine");
    let listener = bed.listen(&runtime, address);
    assert_eq!(finding(&bed, "successor").0, "fine");
    drop((listener.accept().expect("it has waited"), kernel, listener, runtime));
    bed.wait_until_idle();
}

#[test]
fn without_a_daemon_it_says_so() {
    let Some(bed) = Bed::without_daemon("nodoctor", |lab| lab, &[]) else { return };
    let (code, said) = doctor(&bed, &[]);
    assert_eq!((code, said.contains("no fourwaved answers")), (2, true), "{said}");
}
