//! Counting the system calls of processes with the tracepoint `raw_syscalls:sys_enter`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

/// The tracepoint's number, below the root of tracefs.
const NUMBER: &str = "events/raw_syscalls/sys_enter/id";

/// Counts the system calls of some processes for as long as it lives. Counting slows each of them
/// down a little: not while times are measured.
pub struct Syscalls(Vec<Counter>);

impl std::fmt::Debug for Syscalls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Syscalls").field(&self.0.len()).finish()
    }
}

impl Syscalls {
    /// Begins to count in all threads that these processes have now.
    ///
    /// # Errors
    /// When the kernel has no such tracepoint, or does not let us use it.
    pub fn count(pids: &[i32]) -> io::Result<Syscalls> {
        let number = number()?;
        let mut counters = Vec::new();
        for pid in pids {
            for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
                let name = task?.file_name();
                let Some(thread) = name.to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                let mut builder = Builder::new(Tracepoint::with_id(number));
                let mut counter =
                    builder.observe_pid(thread).any_cpu().exclude_kernel(false).build()?;
                counter.enable()?;
                counters.push(counter);
            }
        }
        Ok(Syscalls(counters))
    }

    /// How many there were.
    ///
    /// # Errors
    /// Only what should not happen.
    pub fn total(&mut self) -> io::Result<u64> {
        self.0.iter_mut().map(Counter::read).sum()
    }
}

/// From a tracefs of our own, mounted nowhere: it is not mounted everywhere.
fn number() -> io::Result<u64> {
    let context = rustix::mount::fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let root: OwnedFd = rustix::mount::fsmount(&context, flags, MountAttrFlags::empty())?;
    let opened =
        rustix::fs::openat(&root, NUMBER, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    File::from(opened).read_to_string(&mut text)?;
    text.trim().parse().map_err(|_| io::Error::other("a tracepoint without a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_calls_are_counted() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let mut counted = match Syscalls::count(&[rustix::process::getpid().as_raw_pid()]) {
            Ok(counted) => counted,
            // Kernels are built without it.
            Err(error) => return eprintln!("skipped: {error}"),
        };
        let before = counted.total().unwrap();
        for _ in 0..100 {
            let _ = rustix::process::getppid();
        }
        assert!(counted.total().unwrap() - before >= 100);
    }
}
