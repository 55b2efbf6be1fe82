//! A lab in which a program is run on kernel sockets and then over fourwave.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fourwave_bench::lab::{Node, Preload, Ready, Side, preload_library};
use rustix::process::Pid;

use crate::support::{Bed, PATIENCE, eventually};

/// The port at which programs serve.
pub const PORT: u16 = 8080;

/// How long a program may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(5);

/// What is under the program that is tested. Its peer always has kernel sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stack {
    Kernel,
    Fourwave,
}

/// One performance: a lab, and where and over what the tested program runs.
pub struct Stage {
    pub bed: Bed,
    side: Side,
    stack: Stack,
}

/// Plays on kernel sockets and over fourwave; both must give the same. Skipped, said on stderr,
/// without the privilege or the `programs`, unless `CI` is set.
///
/// The tested program is at `side`, where the daemon is too.
pub fn compare<T: Debug + PartialEq>(
    name: &str,
    side: Side,
    programs: &[&str],
    play: impl Fn(&mut Stage) -> T,
) {
    if !are_there(programs) {
        return;
    }
    let Some(mut bed) = Bed::without_daemon(name, |lab| lab, settings(side)) else { return };
    preload_library().unwrap_or_else(|error| panic!("{error}"));
    bed.move_daemon(side);
    let mut stage = Stage { bed, side, stack: Stack::Kernel };
    stage.share_ports();
    let expected = play(&mut stage);
    stage.bed.start_daemon();
    stage.stack = Stack::Fourwave;
    let seen = play(&mut stage);
    assert!(seen == expected, "{}", difference(&format!("{expected:#?}"), &format!("{seen:#?}")));
    // Nothing of this is worth anything if the program had kernel sockets again.
    let counter = match side {
        Side::Server => "PassiveOpens",
        Side::Client => "ActiveOpens",
    };
    assert_ne!(stage.bed.stats().get(counter), 0, "no connection went over fourwave");
    stage.bed.wait_until_empty();
}

/// Whether these programs are installed; says which is not. Where `CI` is set they must be.
pub fn are_there(programs: &[&str]) -> bool {
    let Some(missing) = programs.iter().find(|program| !Path::new(program).exists()) else {
        return true;
    };
    assert!(std::env::var_os("CI").is_none(), "CI has to have {missing}: .ci/deps installs it");
    let _ = writeln!(io::stderr(), "skipped: needs {missing}, which .ci/deps installs");
    false
}

/// Clients have the upper half of the ports, and come to one again as soon as the kernel's do.
fn settings(side: Side) -> &'static [(&'static str, &'static str)] {
    match side {
        Side::Server => &[],
        Side::Client => &[("local_ports", "\"45000-59999\""), ("tcp.tw_reuse", "1")],
    }
}

/// Lines that two texts do not have in common.
fn difference(expected: &str, seen: &str) -> String {
    let diff = similar::TextDiff::from_lines(expected, seen);
    format!("over fourwave (+) it is not as on kernel sockets (-):\n{}", diff.unified_diff())
}

impl Stage {
    /// Has the kernel leave fourwave's ports for clients alone, from the beginning: it does not
    /// give those away that it has in TIME_WAIT.
    fn share_ports(&self) {
        if self.side == Side::Client {
            let path = "/proc/sys/net/ipv4/ip_local_port_range";
            let set = || fs::write(path, "1024 44999");
            self.own().run(set).expect("it can be entered").expect("it can be set");
        }
    }

    /// The end with the tested program.
    pub fn own(&self) -> &Node {
        self.bed.node(self.side)
    }

    /// The other end.
    pub fn other(&self) -> &Node {
        match self.side {
            Side::Server => self.bed.client(),
            Side::Client => self.bed.server(),
        }
    }

    /// Where servers are reached that run at the server's end.
    pub fn server(&self) -> SocketAddr {
        self.bed.server_address(false, PORT)
    }

    /// The tested program, with its network: the ports that tests use and all peers.
    pub fn tested(&self, program: &str) -> Command {
        let mut command = self.own().command(program);
        if self.stack == Stack::Fourwave {
            let peers = [self.other().v4(), self.other().v6()].map(|address| address.to_string());
            let what = Preload { ports: vec![PORT], connect: Some(peers.join(",")) };
            let preloaded = self.bed.preload(self.side, &mut command, &what);
            preloaded.unwrap_or_else(|error| panic!("{error}"));
        }
        command
    }

    /// A program at the other end, on kernel sockets.
    pub fn peer(&self, program: &str) -> Command {
        self.other().command(program)
    }

    /// Starts a program that stays, and waits until it says that it is ready.
    pub fn start(&mut self, role: &str, command: Command, ready: &str) {
        // What it said in the last performance does not count.
        let _ = fs::remove_file(self.log(role));
        let started = self.bed.spawn(role, command, Ready::Prints(ready));
        started.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Ends a program that was started; it must be there yet.
    pub fn stop(&mut self, role: &str) {
        self.bed.check_programs().unwrap_or_else(|error| panic!("{error}"));
        self.bed.stop(role, GRACE).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Where the output of a started program goes.
    fn log(&self, role: &str) -> PathBuf {
        self.bed.folder().join(format!("{role}.log"))
    }

    /// What a started program has said.
    pub fn said(&self, role: &str) -> String {
        fs::read_to_string(self.log(role)).expect("it was started")
    }

    /// Waits until a started program has said `text` this many times.
    pub fn wait_until_said(&self, role: &str, text: &str, times: usize) {
        let said = || self.said(role).matches(text).count() >= times;
        eventually(format!("{role} says {text:?} {times} times"), said);
    }

    /// An empty folder for what programs need, the same in both performances.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.bed.folder().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("the lab has a folder");
        folder
    }
}

/// A program that has come to its end.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub out: Vec<u8>,
    pub err: String,
}

impl Finished {
    /// Its output as text; it must have ended well.
    pub fn text(&self) -> String {
        assert!(self.status.success(), "{self}");
        String::from_utf8(self.out.clone()).expect("the program writes text")
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}{}", self.status, String::from_utf8_lossy(&self.out), self.err)
    }
}

/// A program that runs; it is killed when this is dropped.
pub struct Running {
    child: Child,
    name: String,
    out: File,
    err: File,
}

impl Running {
    /// Starts a program that gets nothing to read.
    pub fn start(command: &mut Command) -> Running {
        Running::reading(command, Stdio::null())
    }

    /// Starts a program that reads `input`.
    pub fn reading(command: &mut Command, input: impl Into<Stdio>) -> Running {
        let files = [(); 2].map(|()| tempfile::tempfile().expect("a temporary file can be made"));
        let [out, err] = files;
        let copy = |file: &File| file.try_clone().expect("descriptors are left");
        command.stdin(input).stdout(copy(&out)).stderr(copy(&err));
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        Running { child, name, out, err }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Whether it has not come to its end.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Waits for its end, which must come within `patience`.
    pub fn finish_within(mut self, patience: Duration) -> Finished {
        let deadline = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            if Instant::now() > deadline {
                let (out, err) = self.output();
                panic!("{} hangs\n{}{err}", self.name, String::from_utf8_lossy(&out));
            }
            thread::sleep(Duration::from_millis(2));
        };
        let (out, err) = self.output();
        Finished { status, out, err }
    }

    /// As [`Running::finish_within`] the usual [`PATIENCE`].
    pub fn finish(self) -> Finished {
        self.finish_within(PATIENCE)
    }

    fn output(&mut self) -> (Vec<u8>, String) {
        let [out, err] = [&mut self.out, &mut self.err].map(|file| {
            let mut bytes = Vec::new();
            // The descriptor's position is the program's too: it has ended, or is about to.
            file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("it can be read");
            bytes
        });
        (out, String::from_utf8_lossy(&err).into_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end.
pub fn finish(command: &mut Command) -> Finished {
    Running::start(command).finish()
}
