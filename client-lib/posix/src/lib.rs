//! POSIX sockets over the fourwave daemon: what the C interface and the preloaded library share.
//!
//! A socket here has a number that is a real descriptor of the kernel, so that numbers are small
//! and unique in the process, and may be mixed with the kernel's descriptors in [`poll`],
//! [`select`] and [`epoll`]. Behind the number stands an *open socket description*
//! ([`Description`]) which `dup` shares, as in `open(2)`.
//!
//! - [`find`] says whether a number is one of ours; everything else is the kernel's business.
//! - [`Socket`] has the calls of a socket, [`close`], [`dup`], [`dup_to`], [`fcntl`] and [`ioctl`]
//!   those of a descriptor. Errors are [`Errno`]s; [`last_explanation`] has the daemon's words.
//! - [`Socket::adopt`] makes a kernel socket one that can still become either: the program has
//!   called `socket(2)`, and only `bind`, `listen` or `connect` decide.
//!
//! # Signals
//! A blocking call that is interrupted by a signal handler goes on if every handler of the
//! process asks for that (`SA_RESTART`), else it gives `EINTR`. The waiting calls always give
//! `EINTR`. Writing to a connection that has ended gives `EPIPE` and the signal `SIGPIPE`, which
//! the callers of this crate send ([`raise_sigpipe`]).
//!
//! # What cannot be handed on
//! A number that another process gets over a Unix socket, or keeps over `exec`, is an unconnected
//! kernel socket there: reading gives `ENOTCONN`.

mod blocking;
mod control;
mod copy;
mod description;
pub mod epoll;
mod error;
mod fork;
mod kernel;
pub mod memory;
mod numbers;
pub mod poll;
pub mod select;
pub mod sockaddr;
mod socket;
mod table;

pub use blocking::raise_sigpipe;
pub use control::{close, dup, dup_to, fcntl, forget, forget_range, ioctl};
pub use copy::{sendfile, splice};
pub use description::{Description, Found};
pub use error::{Errno, Result, last_explanation, on_explanation};
pub use fourwave::{is_own_descriptor, own_descriptors};
pub use socket::{Domain, Received, Socket};
pub use table::{find, is_kept};
