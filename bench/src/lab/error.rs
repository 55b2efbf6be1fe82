//! What can go wrong with a lab.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// Why a lab could not be built, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The caller is not root.
    #[error("the lab needs root: it makes network namespaces and links")]
    NotRoot,
    /// Somebody else is using a lab of this name.
    #[error("lab `{name}` is in use by process {pid}")]
    InUse {
        /// Name of the lab.
        name: String,
        /// The process that owns it.
        pid: i32,
    },
    /// A namespace of that name exists and no lab of ours made it.
    #[error(
        "a network namespace `{name}` exists that this lab did not make; `ip netns del {name}` removes it"
    )]
    ForeignNamespace {
        /// Its name under `/run/netns`.
        name: String,
    },
    /// There is no such lab.
    #[error("lab `{name}` is not up")]
    NotUp {
        /// Name of the lab.
        name: String,
    },
    /// Making or entering a namespace failed.
    #[error("network namespace: {0}")]
    Namespace(#[source] io::Error),
    /// A thread runtime or netlink socket could not be made.
    #[error("netlink socket: {0}")]
    Runtime(#[source] io::Error),
    /// The kernel refused a netlink request.
    #[error("netlink: {0}")]
    Netlink(#[from] rtnetlink::Error),
    /// An interface that was just made is not there.
    #[error("no interface `{interface}`")]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// The veth pair did not come up.
    #[error("interface `{interface}` has no carrier")]
    NoCarrier {
        /// Its name.
        interface: String,
    },
    /// An address did not become usable.
    #[error("address {address} is not usable: {source}")]
    Address {
        /// The address.
        address: IpAddr,
        /// What `bind` said.
        source: io::Error,
    },
    /// An offload could not be set.
    #[error("offload `{feature}` of `{interface}`: {source}")]
    Offload {
        /// The interface.
        interface: String,
        /// Name of the feature, as `ethtool -K` takes it.
        feature: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {}: {source}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program did not get ready.
    #[error("`{role}` {reason}; the end of {}:\n{log_tail}", log.display())]
    NotReady {
        /// What the program is here for.
        role: String,
        /// Ended, or took too long.
        reason: &'static str,
        /// Its output.
        log: PathBuf,
        /// The last lines of its output.
        log_tail: String,
    },
    /// A binary of this project was not found.
    #[error("no {name} at {}: build it (`{build}`) or set {variable}", path.display())]
    NoBinary {
        /// Its name.
        name: &'static str,
        /// The environment variable that says where it is.
        variable: &'static str,
        /// The command that makes it.
        build: &'static str,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A program was to use the daemon of an end that has none.
    #[error("no daemon was started on the {side}'s side")]
    NoDaemon {
        /// Which end.
        side: &'static str,
    },
    /// A relay was asked for between ends that are joined directly.
    #[error("the lab was not built to be relayed")]
    NotRelayed,
    /// A relay could not be started.
    #[error("the relay's packet sockets: {0}")]
    Relay(#[source] io::Error),
    /// A process could not be ended.
    #[error("process {pid} ({role}) does not end: {source}")]
    Stop {
        /// What the program is here for.
        role: String,
        /// Its process id.
        pid: i32,
        /// What the kernel said.
        source: io::Error,
    },
}

impl LabError {
    /// An error about `path`, for `map_err`.
    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> LabError {
        let path = path.into();
        move |source| LabError::File { path, source }
    }
}
