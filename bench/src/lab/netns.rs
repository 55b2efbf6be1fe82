//! Named network namespaces, as `ip netns` keeps them, and ways into them.
//!
//! A thread enters with `setns(CLONE_NEWNET)` and nothing else: the mount namespace stays, so
//! that `/sys/fs/bpf` and Unix sockets are the machine's own (`ip netns exec` replaces `/sys`).

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Where `ip netns` looks for named namespaces.
const NETNS_DIR: &str = "/run/netns";

/// An open network namespace with a name under `/run/netns`.
///
/// Dropping it closes the handle; the namespace itself lives until [`Netns::delete`].
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
    file: Arc<File>,
}

impl Netns {
    /// Makes a new, empty namespace and gives it `name`.
    ///
    /// # Errors
    /// `EEXIST` when the name is taken, `EPERM` without `CAP_SYS_ADMIN`.
    pub fn create(name: &str) -> io::Result<Netns> {
        share_netns_dir()?;
        let path = path_of(name);
        File::options().write(true).create_new(true).open(&path)?;
        let made = on_fresh_thread(|| {
            // SAFETY: CLONE_NEWNET alone: no file table is unshared, so no borrowed
            // descriptor of another thread changes its meaning.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
            Ok(rustix::mount::mount_bind("/proc/thread-self/ns/net", &path)?)
        });
        if let Err(error) = made {
            let _ = fs::remove_file(path_of(name));
            return Err(error);
        }
        Netns::open(name)
    }

    /// Opens the namespace called `name`.
    ///
    /// # Errors
    /// `ENOENT` when there is none.
    pub fn open(name: &str) -> io::Result<Netns> {
        let file = Arc::new(File::open(path_of(name))?);
        Ok(Netns { name: name.to_owned(), file })
    }

    /// Whether something is called `name` under `/run/netns`.
    pub fn exists(name: &str) -> bool {
        path_of(name).exists()
    }

    /// Takes the name away. The namespace goes when its last process and socket have gone.
    ///
    /// # Errors
    /// Whatever `umount` or `unlink` say; a name that does not exist is no error.
    pub fn delete(name: &str) -> io::Result<()> {
        let path = path_of(name);
        match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
            // EINVAL: not a mount point, a half-made namespace.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The inode number that `/proc/PID/ns/net` shows for processes in here.
    ///
    /// # Errors
    /// Whatever `fstat` says.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.ino())
    }

    /// Runs `work` inside, on a thread of its own, and waits for it.
    ///
    /// # Errors
    /// When no thread can be started or `setns` is refused.
    ///
    /// # Panics
    /// When `work` panics, with the same payload.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_fresh_thread(|| {
            self.enter()?;
            Ok(work())
        })
    }

    /// Moves the calling thread in, for good.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`.
    pub fn enter(&self) -> io::Result<()> {
        enter(&self.file)
    }

    /// The handle, for netlink attributes that take a namespace by descriptor.
    pub(super) fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A command whose process will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let file = Arc::clone(&self.file);
        let mut command = Command::new(program);
        // SAFETY: the closure only makes one system call on a descriptor that it owns: it is
        // async-signal-safe and allocates nothing on success.
        unsafe { command.pre_exec(move || enter(&file)) };
        command
    }
}

fn enter(file: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn path_of(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// A thread that may change its namespace without anyone else noticing.
fn on_fresh_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes `/run/netns` a shared mount, as `ip netns add` does, so that a name that goes here goes
/// in every mount namespace.
fn share_netns_dir() -> io::Result<()> {
    fs::create_dir_all(NETNS_DIR)?;
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    match rustix::mount::mount_change(NETNS_DIR, shared) {
        // EINVAL: not a mount point yet.
        Err(Errno::INVAL) => {
            let bind = MountFlags::BIND | MountFlags::REC;
            rustix::mount::mount(NETNS_DIR, NETNS_DIR, "none", bind, None)?;
            Ok(rustix::mount::mount_change(NETNS_DIR, shared)?)
        }
        other => Ok(other?),
    }
}
