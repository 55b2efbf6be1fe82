//! The folder of an instance, and the lock that makes it one daemon's.

use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why the folder is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A live daemon has it.
    #[error(
        "another fourwaved{} runs with runtime_dir {}: stop it, or give this one another \
         runtime_dir", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), folder.display()
    )]
    Running {
        /// The folder.
        folder: PathBuf,
        /// Who has it, if it says so.
        pid: Option<u32>,
    },
    /// The folder or the file in it cannot be made.
    #[error("cannot use {} as runtime_dir: {error}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// The lock, until dropped. A daemon that dies loses it, whatever way it dies.
#[derive(Debug)]
pub struct Lock {
    folder: PathBuf,
    /// Whether the folder is ours to remove.
    made: bool,
    _file: File,
}

impl Lock {
    /// Makes `folder` if need be and locks it.
    ///
    /// # Errors
    /// Either of [`LockError`].
    pub fn acquire(folder: &Path) -> Result<Lock, LockError> {
        let failed = |error| LockError::Folder { folder: folder.to_owned(), error };
        let made = !folder.exists();
        std::fs::create_dir_all(folder).map_err(failed)?;
        let path = folder.join("lock");
        loop {
            let options = OpenOptions::new().read(true).write(true).create(true).clone();
            let mut file = options.open(&path).map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let (folder, pid) = (folder.to_owned(), read_pid(&mut file));
                    return Err(LockError::Running { folder, pid });
                }
                Err(error) => return Err(failed(error.into())),
            }
            // A daemon that stops removes the file: then we have locked one that is gone.
            let same = |found: std::fs::Metadata| {
                file.metadata()
                    .is_ok_and(|ours| (ours.dev(), ours.ino()) == (found.dev(), found.ino()))
            };
            if std::fs::metadata(&path).is_ok_and(same) {
                write_pid(&mut file).map_err(failed)?;
                return Ok(Lock { folder: folder.to_owned(), made, _file: file });
            }
        }
    }

    /// The control socket's place.
    pub fn socket_path(&self) -> PathBuf {
        self.folder.join("control.sock")
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is still locked: whoever opened it meanwhile finds that it is gone.
        let _ = std::fs::remove_file(self.folder.join("lock"));
        if self.made {
            // Only if nothing else lies in it.
            let _ = std::fs::remove_dir(&self.folder);
        }
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_nothing_left() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("instance");
        let lock = Lock::acquire(&folder).unwrap();
        let error = Lock::acquire(&folder).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        assert!(error.contains("instance"), "{error}");
        drop(lock);
        assert!(!folder.exists());
        // A folder that was there stays, and a file that a crash left is no obstacle.
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("lock"), "99999999\n").unwrap();
        drop(Lock::acquire(&folder).unwrap());
        assert!(folder.exists() && !folder.join("lock").exists());
    }

    #[test]
    fn a_folder_that_cannot_be_is_named() {
        let error = Lock::acquire(Path::new("/proc/nowhere")).unwrap_err().to_string();
        assert!(error.contains("/proc/nowhere"), "{error}");
    }
}
