//! What can go wrong with the XDP program, in words for the person who starts the daemon.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::pin::PinError;
use aya::programs::{ProgramError, XdpError};

use super::XdpMode;

/// Why steering could not be set up, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The process may not load or attach XDP programs.
    #[error(
        "not permitted to {action}: run as root, or with the capabilities CAP_BPF, CAP_NET_ADMIN \
         and CAP_PERFMON (and CAP_SYS_ADMIN to mount a bpffs)"
    )]
    NoPrivilege {
        /// What was tried.
        action: &'static str,
    },
    /// No such interface in this network namespace.
    #[error("no network interface {interface:?} in this network namespace")]
    NoSuchInterface {
        /// Its name in the configuration.
        interface: String,
    },
    /// Somebody else's program is on the interface.
    #[error(
        "interface {interface} already has an XDP program that is not fourwave's: id {id}, name \
         {name:?}. Stop what loaded it, or take it off with: ip link set dev {interface} xdp off"
    )]
    Foreign {
        /// The interface.
        interface: String,
        /// The program's id, as `bpftool prog` shows it.
        id: u32,
        /// The program's name.
        name: String,
    },
    /// A fourwave program is on the interface, but another instance's.
    #[error(
        "interface {interface} is steered by another fourwave instance (program id {id}): stop \
         that daemon, or if it crashed run `fourwaved --release` with its configuration"
    )]
    OtherInstance {
        /// The interface.
        interface: String,
        /// The program's id, as `bpftool prog` shows it.
        id: u32,
    },
    /// A live process has this instance.
    #[error(
        "instance {instance:?} is in use by a running daemon (it holds the lock on {}): stop it, \
         or give this one another runtime_dir", path.display()
    )]
    InstanceRunning {
        /// The instance's name.
        instance: String,
        /// Its folder of pins.
        path: PathBuf,
    },
    /// The instance's name is no path component.
    #[error("{instance:?} cannot name an instance: it has to be one path component without dots")]
    BadInstance {
        /// The name.
        instance: String,
    },
    /// The kernel lacks something that we need.
    #[error("this kernel is too old: {missing} (Linux 5.10 or later has it)")]
    KernelTooOld {
        /// What it lacks.
        missing: &'static str,
    },
    /// The mode that was asked for cannot be had.
    #[error("cannot attach to {interface} in {mode} mode: {reason}")]
    Mode {
        /// The interface.
        interface: String,
        /// The mode that was asked for.
        mode: XdpMode,
        /// What the kernel said, and what it may mean.
        reason: String,
    },
    /// `PORTS` is full.
    #[error("{limit} ports are served, and no more fit: raise the limit of served ports")]
    TooManyPorts {
        /// Entries that fit.
        limit: u32,
    },
    /// A queue beyond the size of `XSKS`.
    #[error("queue {queue} is beyond the {queues} queues that the program was loaded for")]
    NoSuchQueue {
        /// The queue.
        queue: u32,
        /// Size of the map.
        queues: u32,
    },
    /// The compiled program is not what this daemon expects.
    #[error("the BPF object is not fourwave's: {reason}")]
    BadObject {
        /// What is missing in it.
        reason: String,
    },
    /// Everything else, with what was being done.
    #[error("cannot {action}: {source}")]
    Os {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused the program or one of its maps.
    #[error("cannot {action}: {source}")]
    Bpf {
        /// What was tried.
        action: &'static str,
        /// What aya made of it, the verifier's log included.
        source: Box<EbpfError>,
    },
}

impl SteeringError {
    pub(super) fn os(action: &'static str, source: io::Error) -> Self {
        if is_denied(&source) {
            return Self::NoPrivilege { action };
        }
        Self::Os { action, source }
    }

    pub(super) fn bpf(action: &'static str, source: impl Into<EbpfError>) -> Self {
        let source = source.into();
        if ebpf_cause(&source).is_some_and(is_denied) {
            return Self::NoPrivilege { action };
        }
        Self::Bpf { action, source: Box::new(source) }
    }

    pub(super) fn pin(action: &'static str, source: PinError) -> Self {
        match source {
            PinError::SyscallError(error) => Self::os(action, error.io_error),
            other => Self::os(action, io::Error::other(other)),
        }
    }
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}

/// The system's error under aya's, if there is one.
fn ebpf_cause(error: &EbpfError) -> Option<&io::Error> {
    match error {
        EbpfError::MapError(error) => map_cause(error),
        EbpfError::ProgramError(error) => program_cause(error),
        _ => None,
    }
}

pub(super) fn map_cause(error: &MapError) -> Option<&io::Error> {
    match error {
        MapError::CreateError { io_error, .. } | MapError::IoError(io_error) => Some(io_error),
        MapError::SyscallError(error) => Some(&error.io_error),
        _ => None,
    }
}

pub(super) fn program_cause(error: &ProgramError) -> Option<&io::Error> {
    match error {
        // EACCES from the verifier is its verdict on the program, not a matter of privilege.
        ProgramError::LoadError { io_error, .. }
            if io_error.raw_os_error() == Some(libc::EACCES) =>
        {
            None
        }
        ProgramError::LoadError { io_error, .. } | ProgramError::IOError(io_error) => {
            Some(io_error)
        }
        ProgramError::SyscallError(error) => Some(&error.io_error),
        ProgramError::MapError(error) => map_cause(error),
        ProgramError::XdpError(XdpError::NetlinkError(_)) => None,
        _ => None,
    }
}
