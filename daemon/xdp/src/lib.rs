//! AF_XDP sockets, UMEM and the steering program.
//!
//! Two halves that meet at a socket's file descriptor:
//!
//! - [`Steering`] loads the XDP program, attaches it to an interface, pins it, and keeps the
//!   list of served ports. It belongs to the control thread; each call is a system call or a few.
//! - [`Queue`] is one AF_XDP socket with memory of its own, bound to one NIC queue. It belongs
//!   to the worker of that queue; nothing in it allocates once it is open.
//!
//! Everything acts in the network namespace of the calling thread, which may have been entered
//! with `setns(CLONE_NEWNET)` alone: nothing here reads `/sys/class/net` or `/proc/net`.

mod arrivals;
mod bpffs;
mod interface;
mod large;
mod netlink;
mod queue;
mod rss;
mod steering;
mod sys;

pub use arrivals::{Arrivals, Enough};
pub use bpffs::DEFAULT_BPFFS;
pub use fourwave_ebpf_common::{Action, Verdict};
pub use interface::{Channels, channels};
pub use large::LargePages;
pub use queue::{
    BATCH, Census, CopyMode, HugePages, Queue, QueueConfig, QueueError, Receiver, Sender, XskStats,
};
pub use rss::{Rss, rss};
pub use steering::{
    AttachedMode, Gate, Object, Program, ProgramLimits, Released, Steering, SteeringConfig,
    SteeringError, SteeringStats, UnknownXdpMode, XdpMode, release,
};
