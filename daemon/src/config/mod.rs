//! The configuration file: every key, its default and what is allowed.
//!
//! Unknown keys are errors, and so is a value out of range: a setting that does nothing would
//! be worse than none. `deploy/fourwave.toml` explains each key to operators; a test keeps the
//! two equal.

mod choices;
mod ports;
mod quantity;
mod sections;

pub use choices::{
    All, CongestionControl, PollMode, Queues, RxChecksum, Scheduler, XdpMode, ZeroCopy,
};
pub use ports::PortRange;
pub(crate) use sections::NO_CHALLENGE_ACK_LIMIT;
pub use sections::{Clients, Limits, Rule, Tcp};

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the configuration is looked for when no path is given.
pub const DEFAULT_PATH: &str = "/etc/fourwave/fourwave.toml";

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The network interface. The one key without a default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Which of its queues; one worker each.
    pub queues: Queues,
    /// The CPU of each worker; empty: the CPUs that the daemon may use, in order.
    pub cpus: Vec<usize>,
    /// How workers wait for work.
    pub poll: PollMode,
    /// With `poll = "adaptive"`: microseconds to look for more work before sleeping.
    pub spin_us: u32,
    /// How workers are scheduled.
    pub scheduler: Scheduler,
    /// Where the XDP program runs.
    pub xdp_mode: XdpMode,
    /// Whether frames are shared with the NIC.
    pub zero_copy: ZeroCopy,
    /// Folder of the control socket; names the instance.
    pub runtime_dir: PathBuf,
    /// The BPF file system under which maps and program are pinned.
    pub bpffs: PathBuf,
    /// Whether received checksums are verified.
    pub rx_checksum: RxChecksum,
    /// Frames of packet memory per queue; a power of two.
    pub umem_frames: u32,
    /// SYNs that may wait for a worker at a time, of each queue; 0: any number.
    pub rx_syn_limit: u32,
    /// Take packet memory from huge pages.
    pub huge_pages: bool,
    /// Local ports of outgoing connections; outside the kernel's `ip_local_port_range`.
    pub local_ports: PortRange,
    /// How long a stopping daemon waits for connections to end; zero resets them at once.
    #[serde(with = "quantity::duration")]
    pub drain_timeout: Duration,
    /// Where Prometheus finds the metrics; absent: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_address: Option<SocketAddr>,
    /// What is logged, as a filter of the `tracing` crates: `info`, `warn,fourwaved=debug`, …
    pub log: String,
    /// The protocol's settings, named as Linux names them without `tcp_`.
    pub tcp: Tcp,
    /// Memory that each worker reserves at start.
    pub limits: Limits,
    /// Who may use the daemon, and how much of it.
    pub clients: Clients,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            interface: None,
            queues: Queues::All(All::All),
            cpus: Vec::new(),
            poll: PollMode::Adaptive,
            spin_us: 50,
            scheduler: Scheduler::Normal,
            xdp_mode: XdpMode::Auto,
            zero_copy: ZeroCopy::Auto,
            runtime_dir: PathBuf::from("/run/fourwave"),
            bpffs: PathBuf::from("/sys/fs/bpf"),
            rx_checksum: RxChecksum::Verify,
            umem_frames: 16_384,
            rx_syn_limit: 2048,
            huge_pages: false,
            local_ports: PortRange::new(61_000, 65_535).expect("a range of ports"),
            drain_timeout: Duration::from_secs(5),
            metrics_address: None,
            log: "info".to_owned(),
            tcp: Tcp::default(),
            limits: Limits::default(),
            clients: Clients::default(),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The file is not TOML, or a key or value in it is not one of ours.
    #[error("{path}: {source}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Line, key and what is expected.
        source: Box<toml::de::Error>,
    },
    /// A value is out of range.
    #[error("`{key}` is {value}; {allowed}")]
    Value {
        /// Which key.
        key: String,
        /// What it is.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// Any of [`ConfigError`].
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: Config = toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        config.check()?;
        Ok(config)
    }

    /// The configuration with every key, as it would stand in a file.
    ///
    /// # Panics
    /// Never: everything in it has a form in TOML, as a test shows.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration can be written as TOML")
    }

    /// Checks what the types do not: ranges, and keys that depend on each other.
    ///
    /// # Errors
    /// [`ConfigError::Value`] names the first key that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        if let Some(interface) = &self.interface {
            // IFNAMSIZ is 16 with the terminating zero.
            let fits = (1..16).contains(&interface.len());
            ensure(fits, "interface", interface, "it must be a name of 1 to 15 bytes")?;
        }
        let (queues, cpus) = (&self.queues, &self.cpus);
        let workers = match queues {
            Queues::All(All::All) => None,
            Queues::First(count) => Some(*count as usize),
            Queues::List(list) => Some(list.len()),
        };
        ensure(
            workers.is_none_or(|n| (1..=MAX_WORKERS).contains(&n)),
            "queues",
            queues,
            "it must be \"all\", 1 to 64, or a list of 1 to 64 queues",
        )?;
        ensure(
            cpus.is_empty() || workers.is_none_or(|n| n == cpus.len()),
            "cpus",
            format_args!("{cpus:?}"),
            "it must be [] or have one CPU per queue",
        )?;
        within("spin_us", self.spin_us, 0..=1_000_000, "0 to 1000000 are allowed")?;
        ensure(
            self.umem_frames.is_power_of_two() && (256..=1 << 22).contains(&self.umem_frames),
            "umem_frames",
            self.umem_frames,
            "powers of two from 256 to 4194304 are allowed",
        )?;
        for (key, path) in [("runtime_dir", &self.runtime_dir), ("bpffs", &self.bpffs)] {
            ensure(path.is_absolute(), key, path.display(), "it must be an absolute path")?;
        }
        let hour = Duration::from_secs(3600);
        ensure(
            self.drain_timeout <= hour,
            "drain_timeout",
            format_args!("{:?}", self.drain_timeout),
            "0s to 1h are allowed",
        )?;
        self.tcp.check()?;
        self.limits.check()?;
        self.clients.check()
    }
}

/// Most workers that a segment can be laid out for.
const MAX_WORKERS: usize = fourwave_protocol::layout::MAX_WORKERS as usize;

fn ensure(
    fits: bool,
    key: impl Into<String>,
    value: impl std::fmt::Display,
    allowed: &'static str,
) -> Result<(), ConfigError> {
    if fits {
        return Ok(());
    }
    Err(ConfigError::Value { key: key.into(), value: value.to_string(), allowed })
}

fn within<T: PartialOrd + std::fmt::Display>(
    key: &str,
    value: T,
    range: std::ops::RangeInclusive<T>,
    allowed: &'static str,
) -> Result<(), ConfigError> {
    ensure(range.contains(&value), key, value, allowed)
}

#[cfg(test)]
mod tests;
