//! Which process has a kernel socket.

use std::cell::Cell;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Looking through all processes takes a while, and clients can make us do it: at most
/// [`LOOKUPS`] in each [`WINDOW`]; beyond that the name is left out.
const LOOKUPS: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

thread_local! {
    /// Beginning of the window, and look-ups in it. Only the control thread looks.
    static BUDGET: Cell<Option<(Instant, u32)>> = const { Cell::new(None) };
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// The process that has the socket with this inode open, as far as we may look: other users'
/// processes can be looked into only with CAP_SYS_PTRACE.
pub(super) fn find(inode: u32) -> Option<Owner> {
    if inode == 0 || !admit(Instant::now()) {
        return None;
    }
    let wanted = format!("socket:[{inode}]");
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.filter(|process| holds(&process.path().join("fd"), &wanted)).find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let name = std::fs::read_to_string(process.path().join("comm")).ok()?;
        Some(Owner { pid, name: name.trim_end().to_owned() })
    })
}

fn admit(now: Instant) -> bool {
    let window = BUDGET.get().filter(|(begin, _)| now.saturating_duration_since(*begin) < WINDOW);
    let (begin, used) = window.unwrap_or((now, 0));
    BUDGET.set(Some((begin, used + 1)));
    used < LOOKUPS
}

fn holds(descriptors: &Path, wanted: &str) -> bool {
    // Not a process, gone, or not ours to look into: no.
    let Ok(entries) = std::fs::read_dir(descriptors) else { return false };
    entries.flatten().any(|entry| {
        std::fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::super::diag;
    use super::*;

    #[test]
    fn a_listener_is_found_by_its_inode() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let inode = diag::sockets_on(port).unwrap()[0].inode;
        let owner = find(inode).unwrap();
        assert_eq!(owner.pid, std::process::id());
        assert_eq!(owner.to_string(), format!("{} (pid {})", owner.name, owner.pid));
        assert_eq!(find(0), None);
    }

    #[test]
    fn look_ups_are_rationed() {
        let now = Instant::now();
        let admitted = (0..100).filter(|_| admit(now)).count();
        assert_eq!(admitted, LOOKUPS as usize);
        assert!(admit(now + WINDOW));
    }
}
