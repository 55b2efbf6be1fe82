//! What an earlier daemon left on an interface and in the bpffs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::{ProgramError, loaded_programs};

use super::error::program_cause;
use super::program::PROGRAM_NAME;
use super::{AttachedMode, SteeringConfig, SteeringError};
use crate::bpffs::{self, PinFolder, PinFolderError};
use crate::{interface, netlink, sys};

/// Name of the link's pin in the instance's folder.
pub(super) const LINK_PIN: &str = "link";

/// What [`look`] found on the interface.
#[derive(Debug)]
pub(super) enum Found {
    /// No program.
    Nothing,
    /// A program that this instance attached through its pinned link.
    Ours {
        /// The link.
        link: FdLink,
        /// How it is attached.
        mode: AttachedMode,
    },
    /// A program of ours that could not be taken over, and has been removed.
    Removed,
}

/// What [`release`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// A program was attached to the interface.
    pub program: bool,
    /// There were pins.
    pub pins: bool,
}

/// Removes what a daemon that crashed left behind: the program on `interface`, the link, and the
/// pins of `instance` under the mount point `bpffs`. Nothing to remove is no error, nor is an
/// interface that is gone.
///
/// # Errors
/// [`SteeringError::InstanceRunning`] when the daemon is alive; [`SteeringError::Foreign`] and
/// [`SteeringError::OtherInstance`] when the program on the interface is not this instance's.
pub fn release(bpffs: &Path, instance: &str, interface: &str) -> Result<Released, SteeringError> {
    check_instance(instance)?;
    let is_bpffs =
        bpffs::is_bpffs(bpffs).map_err(|error| SteeringError::os("look at the bpffs", error))?;
    let folder = if is_bpffs {
        PinFolder::open(bpffs, instance).map_err(|error| refused(error, bpffs, instance))?
    } else {
        None
    };
    let index = match interface::index(interface) {
        Ok(index) => Some(index),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => None,
        Err(error) => return Err(SteeringError::os("look the interface up", error)),
    };
    let mut released = Released::default();
    if let Some(folder) = folder {
        released = remove_pinned(&folder)?;
        folder
            .remove_if_empty()
            .map_err(|error| SteeringError::os("remove the folder of pins", error))?;
    }
    if let Some(index) = index {
        released.program |= remove_unpinned(interface, index)?;
    }
    Ok(released)
}

/// Creates and locks the folder of the configured instance.
pub(super) fn lock(config: &SteeringConfig) -> Result<PinFolder, SteeringError> {
    check_instance(&config.instance)?;
    PinFolder::create(&config.bpffs, &config.instance)
        .map_err(|error| refused(error, &config.bpffs, &config.instance))
}

/// Finds out what is on the interface, and removes what is ours but of no use.
pub(super) fn look(
    interface: &str,
    index: u32,
    folder: &PinFolder,
) -> Result<Found, SteeringError> {
    let mut removed = false;
    if let Some((link, program)) = pinned_link(folder)? {
        let attached = attached(index)?;
        let here = attached.iter().find(|found| found.program == program);
        if let Some(mode) = here.and_then(|found| found.mode) {
            return Ok(Found::Ours { link, mode });
        }
        // Of an interface that is gone, or was configured before this one.
        removed = remove_pinned(folder)?.program;
    }
    removed |= remove_unpinned(interface, index)?;
    Ok(if removed { Found::Removed } else { Found::Nothing })
}

/// Takes the program of the pinned link off its interface and removes all pins. Returns what
/// there was.
pub(super) fn remove_pinned(folder: &PinFolder) -> Result<Released, SteeringError> {
    let program = match sys::bpf_object_get(&folder.pin(LINK_PIN)) {
        Ok(link) => detach_link(link.as_fd()).map(|()| true)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(SteeringError::os("open the pinned link", error)),
    };
    let pins = folder.clear().map_err(|error| SteeringError::os("remove the pins", error))?;
    Ok(Released { program, pins })
}

/// Takes the link's program off its interface.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> Result<(), SteeringError> {
    match sys::bpf_link_detach(link) {
        Ok(()) => Ok(()),
        // The interface is gone, and the program with it.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        Err(error) => Err(SteeringError::os("take the XDP program off", error)),
    }
}

/// The link in the folder, and its program's id.
fn pinned_link(folder: &PinFolder) -> Result<Option<(FdLink, u32)>, SteeringError> {
    let refuse = |error| match error {
        LinkError::SyscallError(error) => SteeringError::os("open the pinned link", error.io_error),
        other => SteeringError::os("open the pinned link", io::Error::other(other)),
    };
    match PinnedLink::from_pin(folder.pin(LINK_PIN)) {
        Ok(link) => {
            let link = FdLink::from(link);
            let program = link.info().map_err(refuse)?.program_id();
            Ok(Some((link, program)))
        }
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(refuse(error)),
    }
}

/// Removes a program of ours that no pinned link of this instance holds: one that was attached
/// through netlink. Returns whether there was one.
fn remove_unpinned(interface: &str, index: u32) -> Result<bool, SteeringError> {
    let mut removed = false;
    for found in attached(index)? {
        let id = found.program;
        let name = program_name(id)?;
        let Some(mode) = found.mode.filter(|_| name == PROGRAM_NAME) else {
            return Err(SteeringError::Foreign { interface: interface.to_owned(), id, name });
        };
        match netlink::detach(index, mode) {
            Ok(()) => removed = true,
            // A link holds it, so the link is pinned elsewhere or its daemon lives.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                return Err(SteeringError::OtherInstance { interface: interface.to_owned(), id });
            }
            Err(error) => return Err(SteeringError::os("take an old program off", error)),
        }
    }
    Ok(removed)
}

fn attached(index: u32) -> Result<Vec<netlink::Attached>, SteeringError> {
    netlink::attached(index)
        .map_err(|error| SteeringError::os("ask for the interface's XDP program", error))
}

/// The name of a loaded program; empty when it is gone.
fn program_name(id: u32) -> Result<String, SteeringError> {
    for program in loaded_programs() {
        let program = match program {
            Ok(program) => program,
            // Unloaded by somebody between the kernel's answer and our look at it.
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(SteeringError::bpf("list the loaded BPF programs", error)),
        };
        if program.id() == id {
            return Ok(String::from_utf8_lossy(program.name()).into_owned());
        }
    }
    Ok(String::new())
}

fn is_gone(error: &ProgramError) -> bool {
    program_cause(error).is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound)
}

fn check_instance(instance: &str) -> Result<(), SteeringError> {
    // bpffs keeps names with dots for itself.
    if instance.is_empty() || instance.contains(['/', '.', '\0']) {
        return Err(SteeringError::BadInstance { instance: instance.to_owned() });
    }
    Ok(())
}

fn refused(error: PinFolderError, bpffs: &Path, instance: &str) -> SteeringError {
    match error {
        PinFolderError::Locked => SteeringError::InstanceRunning {
            instance: instance.to_owned(),
            path: PinFolder::path_of(bpffs, instance),
        },
        PinFolderError::Os(error) => SteeringError::os("open the folder of pins", error),
    }
}
