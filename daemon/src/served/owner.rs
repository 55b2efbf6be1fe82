//! Which process has a kernel socket.

use std::fmt;
use std::path::Path;

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
    let wanted = format!("socket:[{inode}]");
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.filter(|process| holds(&process.path().join("fd"), &wanted)).find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let name = std::fs::read_to_string(process.path().join("comm")).ok()?;
        Some(Owner { pid, name: name.trim_end().to_owned() })
    })
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
}
