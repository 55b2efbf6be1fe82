//! `fourwave capture`: both directions, what became of each frame, and that it holds nobody up.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use fourwave::SocketOptions;
use fourwave_bench::lab::Side;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Bed, FAMILIES, accept, eventually, kernel_connect_from, within};

/// A capture that has begun.
struct Capture(Child);

impl Capture {
    fn begin(bed: &Bed, words: &[&str]) -> Capture {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fourwave"));
        command.arg("capture").arg("--runtime-dir").arg(bed.runtime_dir(Side::Server)).args(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it can be started");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let (line, stderr) = within("a capture begins", move || {
            let mut line = String::new();
            stderr.read_line(&mut line).expect("text");
            (line, stderr)
        });
        assert!(line.starts_with("capturing from fw-srv0/0"), "{line}");
        child.stderr = Some(stderr.into_inner());
        Capture(child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("it runs");
    }

    /// Waits for its end; what it has said on stdout and stderr.
    fn end(self) -> (String, String) {
        let output = within("a capture ends", move || self.0.wait_with_output());
        let output = output.expect("it can be waited for");
        assert!(output.status.success(), "{output:?}");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (text(output.stdout), text(output.stderr))
    }
}

/// The packets of a pcapng file as tcpdump reads them.
fn tcpdump(file: &Path) -> Option<String> {
    let mut command = Command::new("tcpdump");
    command.args(["-n", "-r"]).arg(file);
    match within("tcpdump", move || command.output()) {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            Some(String::from_utf8(output.stdout).expect("text"))
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "CI has to have tcpdump: {error}");
            // Not eprintln!, which the test harness keeps to itself.
            let _ = writeln!(std::io::stderr(), "not read by tcpdump: {error}");
            None
        }
    }
}

/// What a pcapng file holds, read without the crate that wrote it: per packet the interface, the
/// nanoseconds, and the comment; per statistics block its interface.
fn read(file: &Path) -> (Vec<(u32, u64, String)>, Vec<u32>) {
    let bytes = std::fs::read(file).expect("it is there");
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let half = |at: usize| u16::from_ne_bytes(bytes[at..at + 2].try_into().expect("two bytes"));
    let (mut packets, mut statistics, mut at) = (Vec::new(), Vec::new(), 0);
    while at < bytes.len() {
        let (kind, length) = (word(at), word(at + 4) as usize);
        assert_eq!(word(at + length - 4) as usize, length, "a block ends with its length");
        match kind {
            // Section header, interface description.
            0x0a0d_0d0a | 1 => {}
            5 => statistics.push(word(at + 8)),
            6 => {
                let time = u64::from(word(at + 12)) << 32 | u64::from(word(at + 16));
                let option = at + 28 + (word(at + 20) as usize).next_multiple_of(4);
                assert_eq!(half(option), 1, "a comment");
                let text = &bytes[option + 4..][..usize::from(half(option + 2))];
                let text = String::from_utf8(text.to_vec()).expect("text");
                packets.push((word(at + 8), time, text));
            }
            other => panic!("a block of kind {other}"),
        }
        at += length;
    }
    (packets, statistics)
}

#[test]
fn both_directions_are_written_with_what_became_of_them() {
    let settings = [("xdp_mode", "\"native\"")];
    let Some(bed) = Bed::with("capture", |lab| lab.queues(2), &settings) else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let address = bed.server_address(v6, 7777);
        let file = bed.folder().join("capture.pcapng");
        let capture = Capture::begin(&bed, &["-w", &file.to_string_lossy(), "tcp port 7777"]);
        let options = SocketOptions::new().backlog(0).runtime(&runtime);
        let listener = options.bind(address).unwrap_or_else(|error| panic!("{error}"));
        let [mut kernel] = bed.fill_accept_queue(address, 1).try_into().expect("one");
        let before = bed.stats().get("ListenOverflows");
        let (from, netns) = (bed.client_address(v6, 61_401), bed.client().netns().clone());
        let waits = thread::spawn(move || {
            netns.run(|| kernel_connect_from(from, address)).expect("it can be entered")
        });
        let overflows = || bed.stats().get("ListenOverflows") > before;
        eventually("the second one finds no room", overflows);
        let mut fourwave = accept(&listener);
        kernel.write_all(b"hello").expect("it is connected");
        fourwave.read_exact(&mut [0; 5]).expect("it comes");
        fourwave.write_all(b"hi").expect("it is connected");
        kernel.read_exact(&mut [0; 2]).expect("it comes");
        drop(accept(&listener));
        drop(waits.join().expect("no panic").expect("there is room after all"));

        capture.signal(Signal::INT);
        let (_, said) = capture.end();
        assert!(said.contains(" frames captured, 0 missed"), "{said}");
        let (packets, statistics) = read(&file);
        assert_eq!(statistics, [0, 1]);
        let has = |what: &str| packets.iter().any(|(.., comment)| comment == what);
        assert!(has("tx") && packets.iter().any(|(.., c)| c.ends_with("accepted")), "{packets:?}");
        let dropped = "dropped: ListenOverflows (An accept queue was full";
        assert!(packets.iter().any(|(.., comment)| comment.contains(dropped)), "{packets:?}");
        for (interface, time, _) in &packets {
            // Between 2020 and 2100: nanoseconds, not microseconds.
            assert!(
                *interface < 2 && (1_577_836_800..4_102_444_800).contains(&(time / 1_000_000_000))
            );
        }
        if let Some(lines) = tcpdump(&file) {
            let (kernel, ours) = (kernel.local_addr().expect("it is bound"), address);
            let end = |end: std::net::SocketAddr| format!("{}.{}", end.ip(), end.port());
            let there = format!("{} > {}: Flags [S]", end(kernel), end(ours));
            let back = format!("{} > {}: Flags [S.]", end(ours), end(kernel));
            let at = |what: &str| lines.lines().position(|line| line.contains(what));
            assert!(at(&there).expect(&lines) < at(&back).expect(&lines), "{lines}");
            assert_eq!(lines.lines().count(), packets.len());
        }
    }
    drop(runtime);
    bed.wait_until_empty();
}

#[test]
fn filters_choose_and_a_count_ends_it() {
    let Some(bed) = Bed::new("filter") else { return };
    let runtime = bed.runtime();
    let address = bed.server_address(false, 7777);
    let listener = bed.listen(&runtime, address);
    let capture = Capture::begin(&bed, &["-c", "2", "--duration", "30s", "tx and src port 7777"]);
    drop(bed.connected_pair(&listener));
    let (lines, said) = capture.end();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(
        lines.lines().all(|line| line.ends_with("  tx") && line.contains(&format!("{address} >")))
    );
    assert!(lines.contains("Flags [S.]"), "{lines}");
    assert!(said.contains("2 frames captured"), "{said}");
    drop((listener, runtime));
    bed.wait_until_empty();
}

/// Streams of some megabytes while a tool takes nothing at all, and then dies.
#[test]
fn a_tool_that_stands_still_or_dies_holds_nobody_up() {
    let Some(bed) = Bed::new("still") else { return };
    let runtime = bed.runtime();
    let listener = bed.listen(&runtime, bed.server_address(false, 7777));
    let (mut fourwave, mut kernel) = bed.connected_pair(&listener);
    let mut stream = || {
        let bytes = vec![7; 2 << 20];
        thread::scope(|scope| {
            let writer = scope.spawn(|| kernel.write_all(&bytes).expect("it is connected"));
            let mut got = vec![0; bytes.len()];
            fourwave.read_exact(&mut got).expect("it comes");
            writer.join().expect("no panic");
            assert_eq!(got, bytes);
        });
    };
    let still = Capture::begin(&bed, &["-w", "/dev/null", "rx"]);
    let dies = Capture::begin(&bed, &["-w", "/dev/null", "rx"]);
    still.signal(Signal::STOP);
    dies.signal(Signal::STOP);
    stream();
    dies.signal(Signal::KILL);
    let mut dead = dies.0;
    within("a dead tool is waited for", move || dead.wait()).expect("it can be waited for");
    stream();
    still.signal(Signal::CONT);
    still.signal(Signal::INT);
    let (_, said) = still.end();
    assert!(said.contains(" frames captured, ") && !said.contains(", 0 missed"), "{said}");
    drop((fourwave, kernel, listener, runtime));
    bed.wait_until_empty();
}
