//! Processes that a lab started: named by pid and start time, so that a pid that the kernel has
//! given to somebody else in the meantime is never touched.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// SIGKILL needs no cooperation; longer than this and the process hangs in the kernel.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// A process, whatever becomes of its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot, from `/proc/PID/stat`.
    pub start_time: u64,
}

impl ProcessRef {
    /// The process that has `pid` now, if it lives.
    pub fn of(pid: i32) -> Option<ProcessRef> {
        let stat = Stat::read(pid)?;
        Some(ProcessRef { pid, start_time: stat.start_time })
    }

    /// The calling process.
    ///
    /// # Panics
    /// When `/proc` is not mounted.
    pub fn current() -> ProcessRef {
        let pid = rustix::process::getpid().as_raw_pid();
        ProcessRef::of(pid).expect("/proc shows the calling process")
    }

    /// Whether it lives; a zombie does not.
    pub fn is_alive(&self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| {
            stat.start_time == self.start_time && stat.state != b'Z' && stat.state != b'X'
        })
    }

    /// Ends it: SIGTERM, and SIGKILL after `grace`. One that has gone is no error.
    ///
    /// # Errors
    /// `EPERM`, or `ETIMEDOUT` when it survives SIGKILL.
    pub fn stop(&self, grace: Duration) -> io::Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // After pidfd_open: from here on the descriptor means the process that we looked at.
        if !self.is_alive() {
            return Ok(());
        }
        for (signal, patience) in [(Signal::TERM, grace), (Signal::KILL, KILL_GRACE)] {
            match rustix::process::pidfd_send_signal(&pidfd, signal) {
                Ok(()) => {}
                Err(Errno::SRCH) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if has_ended_within(&pidfd, patience)? {
                return Ok(());
            }
        }
        Err(Errno::TIMEDOUT.into())
    }
}

/// The fields of `/proc/PID/stat` that we use.
struct Stat {
    state: u8,
    parent: i32,
    start_time: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The command name (field 2) may contain anything: the fields are counted after its `)`.
    fn parse(line: &str) -> Option<Stat> {
        let (_, after_name) = line.rsplit_once(") ")?;
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        Some(Stat {
            state: *fields.first()?.as_bytes().first()?,
            parent: fields.get(1)?.parse().ok()?,
            start_time: fields.get(19)?.parse().ok()?,
        })
    }
}

fn has_ended_within(pidfd: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(patience).map_err(|_| Errno::INVAL)?;
    loop {
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Processes whose network namespace has this inode number, without the caller and its ancestors.
///
/// # Errors
/// When `/proc` cannot be listed.
pub(super) fn inside(netns_inode: u64) -> io::Result<Vec<ProcessRef>> {
    let spared = self_and_ancestors();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process that ends while we look has no namespace any more.
        let netns = fs::metadata(format!("/proc/{pid}/ns/net")).map(|meta| meta.ino());
        if netns.is_ok_and(|inode| inode == netns_inode) && !spared.contains(&pid) {
            found.extend(ProcessRef::of(pid));
        }
    }
    Ok(found)
}

fn self_and_ancestors() -> Vec<i32> {
    let mut line = vec![rustix::process::getpid().as_raw_pid()];
    while let Some(stat) = line.last().and_then(|&pid| Stat::read(pid)) {
        line.push(stat.parent);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn stat_line_with_a_hostile_name_is_parsed() {
        let tail = "S 7 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0";
        let stat = Stat::parse(&format!("12 (a) R 1 (b) {tail}")).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start_time), (b'S', 7, 4242));
        assert!(Stat::parse("12 (cut").is_none());
    }

    #[test]
    fn a_process_with_another_start_time_is_left_alone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let real = ProcessRef::of(i32::try_from(child.id()).unwrap()).unwrap();
        let other = ProcessRef { start_time: real.start_time + 1, ..real };
        assert!(real.is_alive() && !other.is_alive());
        other.stop(Duration::from_secs(1)).unwrap();
        assert!(real.is_alive());
        real.stop(Duration::from_secs(5)).unwrap();
        assert!(!real.is_alive());
        child.wait().unwrap();
    }
}
