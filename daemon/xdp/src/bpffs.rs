//! Where pins live: a bpffs, and a folder of each instance in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, fstat, openat, stat, statfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

/// Where systemd, and we if nobody else did, mount the bpffs.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf";

/// `BPF_FS_MAGIC` of the kernel's `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Folder of `bpffs` that holds the folders of all instances.
const FOLDER: &str = "fourwave";

/// Makes sure that `path` is a bpffs; creates and mounts it if it is not.
///
/// Two processes that come at the same time mount once: each takes a lock on the folder
/// underneath and looks again before it mounts.
pub(crate) fn ensure_mounted(path: &Path) -> io::Result<()> {
    if is_bpffs(path)? {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    let underneath = open_folder(path)?;
    flock(&underneath, FlockOperation::LockExclusive)?;
    if is_bpffs(path)? {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("bpf", path, "bpf", flags, Some(c"mode=0700"))?;
    Ok(())
}

/// Whether `path` exists and is a bpffs.
pub(crate) fn is_bpffs(path: &Path) -> io::Result<bool> {
    match statfs(path) {
        Ok(found) => Ok(found.f_type == BPF_FS_MAGIC),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// An instance's folder of pins, locked: no two processes have one at the same time.
///
/// The lock goes with the process, however it ends.
#[derive(Debug)]
pub(crate) struct PinFolder {
    path: PathBuf,
    lock: OwnedFd,
}

impl Drop for PinFolder {
    /// Unlocks, rather than just closing its descriptor: a program that is being started has a
    /// copy of that, from fork to exec.
    fn drop(&mut self) {
        // Closing is what is left to do.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

/// What an owner that was killed was just starting still has the lock, from fork to exec.
const LOCK_ATTEMPTS: u32 = 20;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(10);

/// Why a folder could not be had.
#[derive(Debug)]
pub(crate) enum PinFolderError {
    /// A live process has it.
    Locked,
    /// The system said no.
    Os(io::Error),
}

impl<E: Into<io::Error>> From<E> for PinFolderError {
    fn from(error: E) -> Self {
        Self::Os(error.into())
    }
}

impl PinFolder {
    /// The path that `instance` has, or would have.
    pub(crate) fn path_of(bpffs: &Path, instance: &str) -> PathBuf {
        bpffs.join(FOLDER).join(instance)
    }

    /// Creates the folder of `instance` if it is not there, and locks it.
    pub(crate) fn create(bpffs: &Path, instance: &str) -> Result<Self, PinFolderError> {
        let path = Self::path_of(bpffs, instance);
        loop {
            fs::create_dir_all(&path)?;
            if let Some(folder) = Self::lock(&path, LOCK_ATTEMPTS)? {
                return Ok(folder);
            }
        }
    }

    /// Locks the folder of `instance`, or `None` when there is no such folder.
    pub(crate) fn open(bpffs: &Path, instance: &str) -> Result<Option<Self>, PinFolderError> {
        Self::lock(&Self::path_of(bpffs, instance), LOCK_ATTEMPTS)
    }

    /// `None` when the folder is not there, or was removed while we waited for its lock.
    fn lock(path: &Path, mut attempts: u32) -> Result<Option<Self>, PinFolderError> {
        let folder = match open_folder(path) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        while let Err(error) = flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK {
                return Err(error.into());
            }
            attempts -= 1;
            if attempts == 0 {
                return Err(PinFolderError::Locked);
            }
            thread::sleep(BETWEEN_ATTEMPTS);
        }
        let locked = fstat(&folder)?;
        match stat(path) {
            Ok(named) if named.st_ino == locked.st_ino => {
                Ok(Some(Self { path: path.to_owned(), lock: folder }))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The path of a pin in it.
    pub(crate) fn pin(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Removes all pins; returns whether there were any.
    pub(crate) fn clear(&self) -> io::Result<bool> {
        let mut found = false;
        for entry in fs::read_dir(&self.path)? {
            fs::remove_file(entry?.path())?;
            found = true;
        }
        Ok(found)
    }

    /// Removes all pins and the folder, and the one above when no other instance is left.
    pub(crate) fn remove(self) -> io::Result<()> {
        self.clear()?;
        self.remove_if_empty()
    }

    /// Removes the folder unless there are pins in it, and the one above when no other instance
    /// is left.
    pub(crate) fn remove_if_empty(self) -> io::Result<()> {
        remove_empty_folder(&self.path)?;
        self.path.parent().map_or(Ok(()), remove_empty_folder)
    }
}

/// Removes a folder; no error when it has something in it, or is gone.
fn remove_empty_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn open_folder(path: &Path) -> Result<OwnedFd, Errno> {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_at_a_time() {
        let base = std::env::temp_dir().join(format!("fourwave-lock-{}", std::process::id()));
        let folder = PinFolder::create(&base, "test").expect("nobody has it");
        let refused = PinFolder::create(&base, "test");
        assert!(matches!(refused, Err(PinFolderError::Locked)), "{refused:?}");

        // As a child that has been forked and not yet executed: it does not keep the lock.
        let copy = folder.lock.try_clone().expect("a descriptor");
        drop(folder);
        let folder = PinFolder::create(&base, "test").expect("the owner has unlocked it");
        drop(copy);

        // As the same child of an owner that was killed: its end is waited for.
        let path = folder.path.clone();
        drop(folder);
        let child = open_folder(&path).expect("it is there");
        flock(&child, FlockOperation::NonBlockingLockExclusive).expect("nobody has it");
        let child = thread::spawn(move || {
            thread::sleep(BETWEEN_ATTEMPTS);
            drop(child);
        });
        let folder = PinFolder::lock(&path, 100 * LOCK_ATTEMPTS).expect("it was waited for");
        child.join().expect("it has nothing to fail at");
        folder.expect("it is there").remove().expect("ours");
        fs::remove_dir(&base).expect("empty");
    }
}
