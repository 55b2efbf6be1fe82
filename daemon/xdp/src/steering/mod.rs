//! The XDP program in the kernel: loading, attaching, pinning, and the list of served ports.

mod attach;
mod config;
mod error;
mod gate;
mod program;
mod reclaim;

pub use attach::Steering;
pub use config::{AttachedMode, SteeringConfig, UnknownXdpMode, XdpMode};
pub use error::SteeringError;
pub use gate::Gate;
pub use program::{Object, Program, ProgramLimits, SteeringStats};
pub use reclaim::{Released, release};
