//! Unmodified programs in a lab, with fourwave's sockets put under them (`LD_PRELOAD`).

use std::ffi::OsString;
use std::process::Command;

use super::error::LabError;
use super::programs::preload_library;
use super::{Lab, Side};

/// What of a program's TCP goes over fourwave. All else stays with the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preload {
    /// The ports that it serves over fourwave: `FOURWAVE_PORTS`.
    pub ports: Vec<u16>,
    /// The peers that it reaches over fourwave, in the words of `FOURWAVE_CONNECT`.
    pub connect: Option<String>,
}

impl Lab {
    /// Has `command`, which is to run on one end, use the daemon there as `what` says.
    ///
    /// # Errors
    /// [`LabError::NoDaemon`] when that end has none, [`LabError::NoBinary`] when the library is
    /// not built.
    pub fn preload(
        &self,
        side: Side,
        command: &mut Command,
        what: &Preload,
    ) -> Result<(), LabError> {
        if !self.has_daemon(side) {
            return Err(LabError::NoDaemon { side: side.name() });
        }
        let mut libraries = OsString::from(preload_library()?);
        // Ours first: what another library interposes on is then asked by us.
        if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
            libraries.push(":");
            libraries.push(others);
        }
        let ports: Vec<String> = what.ports.iter().map(ToString::to_string).collect();
        command
            .env("LD_PRELOAD", libraries)
            .env("FOURWAVE_SOCKET", self.control_socket(side))
            .env("FOURWAVE_PORTS", ports.join(","))
            .env("FOURWAVE_CONNECT", what.connect.as_deref().unwrap_or_default());
        Ok(())
    }
}
