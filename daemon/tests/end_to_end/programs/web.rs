//! What HTTP tests share: the files that are served, and those who fetch them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use sha2::{Digest, Sha256};

use crate::support::bytes::Pattern;
use crate::support::{PATIENCE, eventually};

use super::{Running, finish};

pub const CURL: &str = "/usr/bin/curl";
pub const WRK: &str = "/usr/bin/wrk";

/// Files by name, in bytes.
const FILES: [(&str, usize); 3] = [("small", 100), ("medium", 100_000), ("large", 10 << 20)];

/// How long one run of wrk takes; it is told a time, and not a number of requests.
const WRK_SECONDS: u64 = 2;

/// Writes the files that are served.
pub fn write_files(folder: &Path) {
    for (at, (name, size)) in FILES.iter().enumerate() {
        let mut bytes = vec![0; *size];
        Pattern::new(at as u64).fill(&mut bytes);
        fs::write(folder.join(name), bytes).expect("the folder is there");
    }
}

/// What curl gets for a few ways of asking, line by line.
///
/// `command` makes a curl at its end of the lab, `base` is the server's URL.
pub fn fetch(command: impl Fn() -> Command, base: &str) -> Vec<String> {
    let mut seen = Vec::new();
    let asks: [(&str, &[&str], &[&str]); 9] = [
        ("small", &[], &["small"]),
        ("closing", &["-H", "Connection: close"], &["small"]),
        ("medium", &[], &["medium"]),
        ("large", &[], &["large"]),
        ("head", &["--head", "-o", "/dev/null"], &["medium"]),
        ("range", &["-r", "5000-69999"], &["large"]),
        ("absent", &["-o", "/dev/null"], &["absent"]),
        ("one connection", &[], &["small", "medium", "small", "large"]),
        ("at once", &["--parallel"], &["large", "medium", "small", "large", "medium"]),
    ];
    for (label, options, names) in asks {
        let mut curl = command();
        // The write-out goes to stderr, apart from the body.
        curl.args([
            "-sS",
            "--no-progress-meter",
            "--http1.1",
            "-w",
            "%{stderr}%{http_code} %{size_download}\n",
        ]);
        curl.args(options).args(names.iter().map(|name| format!("{base}/{name}")));
        let finished = finish(&mut curl);
        assert!(finished.status.success(), "{label}: {finished}");
        let mut told: Vec<&str> = finished.err.lines().collect();
        if label == "at once" {
            // Bodies are mixed and ends come as they come.
            told.sort_unstable();
            seen.push(format!("{label}: {told:?}, {} bytes", finished.out.len()));
        } else {
            let hash: String =
                Sha256::digest(&finished.out).iter().map(|byte| format!("{byte:02x}")).collect();
            seen.push(format!("{label}: {told:?} {hash}"));
        }
    }
    seen
}

/// How wrk asks.
pub struct Load<'a> {
    pub url: String,
    pub connections: u32,
    pub header: Option<&'a str>,
}

impl Load<'_> {
    fn command(&self, mut wrk: Command, seconds: u64) -> Command {
        wrk.arg("-t2").arg(format!("-c{}", self.connections)).arg(format!("-d{seconds}s"));
        wrk.args(["--timeout", "20s"]);
        wrk.args(self.header.iter().flat_map(|header| ["-H", header]));
        wrk.arg(&self.url);
        wrk
    }

    /// Starts a load of this many seconds.
    pub fn start(&self, wrk: Command, seconds: u64) -> Running {
        Running::start(&mut self.command(wrk, seconds))
    }

    /// Puts load on until `requests` were answered, all of them well. Returns how many were.
    pub fn run(&self, wrk: impl Fn() -> Command, requests: u64) -> u64 {
        let (mut answered, mut last) = (0, Instant::now());
        while answered < requests {
            match flawless(self.start(wrk(), WRK_SECONDS), WRK_SECONDS) {
                0 => assert!(last.elapsed() < PATIENCE, "{}: hangs after {answered}", self.url),
                more => (answered, last) = (answered + more, Instant::now()),
            }
        }
        answered
    }
}

/// Waits until wrk has begun, and can be interrupted.
pub fn wait_until_begun(wrk: &Running) {
    let status = format!("/proc/{}/status", wrk.pid());
    eventually("wrk handles SIGINT, as it does when its threads run", || {
        let status = fs::read_to_string(&status).expect("it is our child");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.expect("signals").trim(), 16).expect("hexadecimal");
        caught & 1 << (libc::SIGINT - 1) != 0
    });
}

/// Has wrk end before its time. It tells what it did until then.
pub fn interrupt(wrk: &Running) {
    kill_process(wrk.pid(), Signal::INT).expect("it is our child");
}

/// Waits for wrk's end. Returns the number of requests: all of them were answered, and well.
pub fn flawless(wrk: Running, seconds: u64) -> u64 {
    let finished = wrk.finish_within(PATIENCE + Duration::from_secs(seconds));
    let text = finished.text();
    // It says these only when there are some.
    for complaint in ["Socket errors", "Non-2xx"] {
        assert!(!text.contains(complaint), "{finished}");
    }
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in "));
    let (requests, _) = requests.unwrap_or_else(|| panic!("no requests are told: {finished}"));
    requests.parse().expect("a number")
}
