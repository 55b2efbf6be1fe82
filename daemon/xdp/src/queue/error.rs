//! Why a queue could not be opened, in words for the person who starts the daemon.

use std::io;

/// Why a [`Queue`](super::Queue) could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The process may not create AF_XDP sockets.
    #[error(
        "not permitted to open an AF_XDP socket: run as root, or with the capabilities CAP_NET_RAW \
         and CAP_NET_ADMIN (and CAP_IPC_LOCK, unless the limit of locked memory is large)"
    )]
    NoPrivilege,
    /// No such interface in this network namespace.
    #[error("no network interface {interface:?} in this network namespace")]
    NoSuchInterface {
        /// Its name in the configuration.
        interface: String,
    },
    /// The interface is there, but not up.
    #[error("interface {interface} is down: ip link set dev {interface} up")]
    InterfaceDown {
        /// The interface.
        interface: String,
    },
    /// The interface has fewer queues.
    #[error(
        "interface {interface} has no queue {queue}: it has {rx} RX and {tx} TX queues, and a \
         socket needs one of each"
    )]
    NoSuchQueue {
        /// The interface.
        interface: String,
        /// The queue that was asked for.
        queue: u32,
        /// Its number of RX queues.
        rx: u32,
        /// Its number of TX queues.
        tx: u32,
    },
    /// Another socket is bound to the queue.
    #[error(
        "queue {queue} of interface {interface} is in use by another AF_XDP socket: see who it is \
         with `ss --xdp -p`, and stop it"
    )]
    QueueBusy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// The limit of locked memory is too low for the frames.
    #[error(
        "the limit of locked memory is too low for {bytes} bytes of frames: raise it (ulimit -l, \
         or LimitMEMLOCK= in the unit), give the capability CAP_IPC_LOCK, or configure fewer frames"
    )]
    LockedMemory {
        /// Bytes that the queue's frames take.
        bytes: u64,
    },
    /// There is no memory for the frames or rings.
    #[error("no memory for {bytes} bytes of frames: configure fewer frames")]
    NoMemory {
        /// Bytes that the queue's frames take.
        bytes: u64,
    },
    /// Huge pages were required, and too few are free.
    #[error(
        "not enough free huge pages for {bytes} bytes of frames: raise vm.nr_hugepages (2 MiB \
         each), or set huge_pages to \"try\" or \"off\""
    )]
    NoHugePages {
        /// Bytes that the queue's frames take.
        bytes: u64,
    },
    /// Zero-copy was required, and the driver does not have it.
    #[error(
        "the driver of {interface} has no zero-copy on queue {queue}: set the copy mode to \"auto\" \
         or \"copy\""
    )]
    NoZeroCopy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// The kernel has no AF_XDP, or an old one.
    #[error(
        "this kernel has no AF_XDP as fourwave needs it (Linux 5.10 or later, CONFIG_XDP_SOCKETS)"
    )]
    KernelTooOld,
    /// A setting is outside its limits.
    #[error("{setting} must {must}")]
    InvalidConfig {
        /// The field of [`QueueConfig`](super::QueueConfig).
        setting: &'static str,
        /// What it has to be.
        must: &'static str,
    },
    /// Everything else, with what was being done.
    #[error("cannot {action} for queue {queue} of interface {interface}: {source}")]
    Os {
        /// What was tried.
        action: &'static str,
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What the system said.
        source: io::Error,
    },
}
