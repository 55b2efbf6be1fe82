//! Unmodified programs in a lab, with fourwave's sockets put under them (`LD_PRELOAD`).

use std::ffi::OsString;
use std::fmt;
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

/// What goes over fourwave, in a sentence.
impl fmt::Display for Preload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        let served = (!ports.is_empty()).then(|| format!("ports {}", ports.join(", ")));
        let reached = self.connect.as_ref().map(|peers| format!("connections to {peers}"));
        let parts: Vec<String> = [served, reached].into_iter().flatten().collect();
        let what = if parts.is_empty() { "nothing".to_owned() } else { parts.join(" and ") };
        write!(f, "over fourwave: {what}; all else stays the kernel's")
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_goes_over_fourwave() {
        let all = Preload { ports: vec![80, 8080], connect: Some("10.99.0.2".to_owned()) };
        let said = "over fourwave: ports 80, 8080 and connections to 10.99.0.2; all else stays";
        assert_eq!(all.to_string(), format!("{said} the kernel's"));
        let none = Preload::default().to_string();
        assert_eq!(none, "over fourwave: nothing; all else stays the kernel's");
    }
}
