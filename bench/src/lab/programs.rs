//! Programs in a lab: started, watched, ended.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

use super::error::LabError;
use super::netns::Netns;
use super::process::ProcessRef;
use super::state::{Instance, Recorded};
use super::{Lab, Side};

/// A program that is not ready by then will not get ready.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How much of a program's output an error shows, in bytes.
const LOG_TAIL: i64 = 2000;

/// How a program shows that it can be used.
#[derive(Clone, Copy, Debug)]
pub enum Ready<'a> {
    /// It prints a line with this text.
    Prints(&'a str),
    /// Somebody listens on this Unix socket (`SOCK_SEQPACKET`).
    Listens(&'a Path),
}

impl Lab {
    /// Starts `command` (from [`super::Node::command`]) as `role`, and waits until it is ready.
    ///
    /// It gets a process group of its own, so that Ctrl-C reaches only the lab's owner, and its
    /// output goes to `ROLE.log` in the lab's folder.
    ///
    /// # Errors
    /// [`LabError::Spawn`], or [`LabError::NotReady`] with the end of its output.
    pub fn spawn(
        &mut self,
        role: &str,
        mut command: Command,
        ready: Ready<'_>,
    ) -> Result<ProcessRef, LabError> {
        let log = self.folder().join(format!("{role}.log"));
        let open = || File::options().create(true).append(true).open(&log);
        let (out, err) = (open(), open());
        command
            .stdin(Stdio::null())
            .stdout(out.map_err(LabError::file(&log))?)
            .stderr(err.map_err(LabError::file(&log))?)
            .process_group(0);
        let child = command.spawn().map_err(|source| LabError::Spawn {
            program: PathBuf::from(command.get_program()),
            source,
        })?;
        let pid = i32::try_from(child.id()).expect("a pid fits in an i32");
        self.children.push(child);
        let recorded = ProcessRef::of(pid).map(|process| Recorded {
            role: role.to_owned(),
            process,
            log: log.clone(),
        });
        let Some(recorded) = recorded else {
            return Err(not_ready(role, "ended at once", &log));
        };
        let process = recorded.process;
        self.state.processes.push(recorded);
        self.state.save()?;
        wait_until_ready(role, process, ready, &log)?;
        Ok(process)
    }

    /// Ends the program with this role: SIGTERM, and SIGKILL after `grace`.
    ///
    /// # Errors
    /// [`LabError::Stop`] when it does not end. A role that does not exist is no error.
    pub fn stop(&mut self, role: &str, grace: Duration) -> Result<(), LabError> {
        for recorded in self.state.processes.iter().filter(|p| p.role == role) {
            let process = recorded.process;
            process.stop(grace).map_err(|source| LabError::Stop {
                role: role.to_owned(),
                pid: process.pid,
                source,
            })?;
            for child in &mut self.children {
                if i64::from(child.id()) == i64::from(process.pid) {
                    // It has ended: this only takes the zombie away.
                    let _ = child.wait();
                }
            }
        }
        self.state.processes.retain(|p| p.role != role);
        self.state.save()
    }

    /// Fails when a program of the lab has ended.
    ///
    /// # Errors
    /// [`LabError::NotReady`] with the end of its output.
    pub fn check_programs(&self) -> Result<(), LabError> {
        self.state.processes.iter().try_for_each(check)
    }

    /// Fails when the program with this role has ended.
    pub(super) fn check_program(&self, role: &str) -> Result<(), LabError> {
        self.state.processes.iter().filter(|p| p.role == role).try_for_each(check)
    }
}

fn check(program: &Recorded) -> Result<(), LabError> {
    if program.process.is_alive() {
        return Ok(());
    }
    Err(not_ready(&program.role, "has ended", &program.log))
}

impl Side {
    /// `server` or `client`.
    pub fn name(self) -> &'static str {
        match self {
            Side::Server => "server",
            Side::Client => "client",
        }
    }
}

/// The daemon's binary: `$FOURWAVED`, or `fourwaved` beside the running executable (for test
/// executables: one folder up).
///
/// # Errors
/// [`LabError::NoBinary`] when it is not there.
pub fn daemon_binary() -> Result<PathBuf, LabError> {
    find_built("fourwaved", "FOURWAVED", "cargo build")
}

/// This package's own binary: `$FOURWAVE_BENCH`, or `fourwave-bench` where the daemon's is looked
/// for.
///
/// # Errors
/// [`LabError::NoBinary`] when it is not there.
pub fn bench_binary() -> Result<PathBuf, LabError> {
    find_built("fourwave-bench", "FOURWAVE_BENCH", "cargo build")
}

/// The library for `LD_PRELOAD`: `$FOURWAVE_PRELOAD`, or `libfourwave_preload.so` where the
/// daemon's binary is looked for.
///
/// # Errors
/// [`LabError::NoBinary`] when it is not there.
pub fn preload_library() -> Result<PathBuf, LabError> {
    let library = find_built(
        "libfourwave_preload.so",
        "FOURWAVE_PRELOAD",
        "cargo build -p fourwave-preload",
    )?;
    // Programs change their folder before they start others.
    fs::canonicalize(&library).map_err(LabError::file(library))
}

/// Something that `build` makes: where `variable` says, beside this executable, or one folder up.
fn find_built(
    name: &'static str,
    variable: &'static str,
    build: &'static str,
) -> Result<PathBuf, LabError> {
    let no_binary = |path| LabError::NoBinary { name, variable, build, path };
    if let Some(path) = std::env::var_os(variable).map(PathBuf::from) {
        return if path.is_file() { Ok(path) } else { Err(no_binary(path)) };
    }
    let executable = std::env::current_exe().map_err(LabError::file("/proc/self/exe"))?;
    let folder = executable.parent().unwrap_or(Path::new("/"));
    let beside = folder.join(name);
    let above = folder.parent().unwrap_or(folder).join(name);
    let found = [&beside, &above].into_iter().find(|path| path.is_file()).cloned();
    found.ok_or_else(|| no_binary(beside))
}

/// Has the daemon's own binary remove what a crashed instance left: XDP program and pins.
pub(super) fn release(instance: &Instance, namespace: &str) -> Result<(), LabError> {
    let Ok(netns) = Netns::open(namespace) else { return Ok(()) };
    if !instance.binary.is_file() || !instance.config.is_file() {
        return Ok(());
    }
    let mut command = netns.command(&instance.binary);
    command.arg("--release").arg("--config").arg(&instance.config);
    let failed = |source| LabError::Spawn { program: instance.binary.clone(), source };
    let output = command.output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(failed(io::Error::other(format!("--release: {}: {}", output.status, text.trim()))))
}

fn wait_until_ready(
    role: &str,
    process: ProcessRef,
    ready: Ready<'_>,
    log: &Path,
) -> Result<(), LabError> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let is_ready = match ready {
            Ready::Prints(text) => fs::read_to_string(log).is_ok_and(|out| out.contains(text)),
            Ready::Listens(socket) => somebody_listens(socket).is_ok(),
        };
        if is_ready {
            return Ok(());
        }
        if !process.is_alive() {
            return Err(not_ready(role, "ended instead of getting ready", log));
        }
        if Instant::now() > deadline {
            return Err(not_ready(role, "does not get ready", log));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn somebody_listens(path: &Path) -> rustix::io::Result<()> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
    rustix::net::connect(&socket, &address)
}

fn not_ready(role: &str, reason: &'static str, log: &Path) -> LabError {
    let tail = File::open(log).and_then(|mut file| {
        let mut text = Vec::new();
        // Fails when the file is shorter than that: then all of it is the tail.
        let _ = file.seek(SeekFrom::End(-LOG_TAIL));
        file.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    });
    LabError::NotReady {
        role: role.to_owned(),
        reason,
        log: log.to_owned(),
        log_tail: tail.unwrap_or_default(),
    }
}
