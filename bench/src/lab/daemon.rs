//! A fourwave daemon on one end of a lab.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use super::error::LabError;
use super::process::ProcessRef;
use super::programs::{Ready, daemon_binary};
use super::state::{self, Instance};
use super::{Lab, Side};

/// What differs between the daemons of different labs; the rest of the configuration is the
/// default, or follows from the lab.
#[derive(Clone, Debug, Default)]
pub struct DaemonOptions {
    /// Ports that clients may bind; none: those that the kernel would let them.
    pub ports: Vec<u16>,
    /// One CPU per queue; none: the daemon chooses.
    pub cpus: Vec<usize>,
    /// Top-level keys with their values in TOML, such as `("xdp_mode", "\"generic\"")`.
    pub keys: BTreeMap<String, String>,
}

/// Starts a daemon on one end of the persistent lab `name`, unless it has one. It outlives the
/// caller and goes with the lab.
///
/// # Errors
/// As [`Lab::attach`] and [`Lab::start_daemon`]; [`LabError::NotReady`] with the end of its output
/// when there was one and it has ended.
pub fn ensure_daemon(name: &str, side: Side, options: &DaemonOptions) -> Result<(), LabError> {
    // Whoever comes at the same time waits, and finds it.
    let _lock = state::lock()?;
    let mut lab = Lab::attach(name)?;
    if lab.has_daemon(side) {
        return lab.check_program(&Lab::daemon_role(side));
    }
    let config = lab.daemon_config(side, options);
    lab.start_daemon(side, &config)?;
    Ok(())
}

impl Lab {
    /// A configuration for the daemon of one end, in TOML.
    pub fn daemon_config(&self, side: Side, options: &DaemonOptions) -> String {
        let mut text = String::new();
        let mut line = |key: &str, value: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key} = {value}");
        };
        line("interface", &format!("{:?}", self.node(side).interface()));
        line("runtime_dir", &format!("{:?}", self.runtime_dir(side)));
        if !options.cpus.is_empty() {
            line("cpus", &format!("{:?}", options.cpus));
        }
        for (key, value) in &options.keys {
            line(key, value);
        }
        if !options.ports.is_empty() {
            let ports: Vec<String> = options.ports.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "\n[[clients.rules]]\nports = {ports:?}");
        }
        text
    }

    /// Starts a daemon on one end, with this configuration text, and waits until it accepts
    /// clients. The text's `runtime_dir` must be [`Lab::runtime_dir`].
    ///
    /// # Errors
    /// [`LabError::NoBinary`], or as [`Lab::spawn`].
    pub fn start_daemon(&mut self, side: Side, config: &str) -> Result<ProcessRef, LabError> {
        let (binary, runtime_dir) = (daemon_binary()?, self.runtime_dir(side));
        fs::create_dir_all(&runtime_dir).map_err(LabError::file(&runtime_dir))?;
        let path = self.folder().join(format!("{}.toml", side.name()));
        fs::write(&path, config).map_err(LabError::file(&path))?;
        self.state.instances.retain(|instance| instance.side != side);
        self.state.instances.push(Instance { side, binary: binary.clone(), config: path.clone() });
        // Before the start: a crash in between must not hide an XDP program from `down`.
        self.state.save()?;
        let mut command = self.node(side).command(&binary);
        command.arg("--config").arg(&path);
        let socket = self.control_socket(side);
        self.spawn(&Lab::daemon_role(side), command, Ready::Listens(&socket))
    }

    /// The runtime folder of the daemon of one end.
    pub fn runtime_dir(&self, side: Side) -> PathBuf {
        self.folder().join(side.name())
    }

    /// The control socket of the daemon of one end: `FOURWAVE_SOCKET` of its clients.
    pub fn control_socket(&self, side: Side) -> PathBuf {
        self.runtime_dir(side).join("control.sock")
    }

    /// The role of the daemon of one end, which names its log.
    fn daemon_role(side: Side) -> String {
        format!("fourwaved-{}", side.name())
    }

    /// Whether a daemon was started on that end.
    pub fn has_daemon(&self, side: Side) -> bool {
        self.state.instances.iter().any(|instance| instance.side == side)
    }
}
