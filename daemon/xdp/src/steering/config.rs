//! What to attach, where and how.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::program::{Object, ProgramLimits};
use crate::bpffs::DEFAULT_BPFFS;

/// How the XDP program is to be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver if it can, else generic.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's stack, behind the driver: every interface can do it.
    Generic,
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the kernel's stack, behind the driver.
    Generic,
}

/// Text that names no [`XdpMode`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown XDP mode {0:?}: use \"auto\", \"native\" or \"generic\"")]
pub struct UnknownXdpMode(pub String);

impl FromStr for XdpMode {
    type Err = UnknownXdpMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "native" => Ok(Self::Native),
            "generic" => Ok(Self::Generic),
            other => Err(UnknownXdpMode(other.to_owned())),
        }
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

impl fmt::Display for AttachedMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// What [`Steering::attach`](super::Steering::attach) needs to know.
#[derive(Clone, Debug)]
pub struct SteeringConfig {
    /// The network interface, in the calling thread's network namespace.
    pub interface: String,
    /// Mount point of the bpffs for the pins; mounted if nothing is there. Whoever is to clean
    /// up after a crash has to see the same mount.
    pub bpffs: PathBuf,
    /// Names the folder of the pins, `<bpffs>/fourwave/<instance>/`: one path component.
    pub instance: String,
    /// How to attach.
    pub mode: XdpMode,
    /// Sizes of the maps.
    pub limits: ProgramLimits,
    /// Whether ICMP errors about served flows are steered too, or left to the kernel.
    pub icmp_errors: bool,
    /// The compiled program.
    pub object: Object,
}

impl SteeringConfig {
    /// Everything else at its default.
    #[must_use]
    pub fn new(interface: impl Into<String>, instance: impl Into<String>) -> Self {
        Self {
            interface: interface.into(),
            bpffs: PathBuf::from(DEFAULT_BPFFS),
            instance: instance.into(),
            mode: XdpMode::Auto,
            limits: ProgramLimits::default(),
            icmp_errors: true,
            object: Object::embedded(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_back_what_they_print() {
        for mode in [XdpMode::Auto, XdpMode::Native, XdpMode::Generic] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        let unknown = UnknownXdpMode("skb".to_owned());
        assert_eq!("skb".parse::<XdpMode>(), Err(unknown));
    }
}
