//! Sockets of the fourwave TCP stack: `TcpListener` and `TcpStream` as in `std::net`, served by
//! the daemon `fourwaved` over AF_XDP instead of by the kernel.
//!
//! A server written for std changes its `use`:
//! ```no_run
//! use fourwave::TcpListener;
//! use std::io::{Read, Write};
//!
//! # fn main() -> std::io::Result<()> {
//! let listener = TcpListener::bind("0.0.0.0:7777")?;
//! for stream in listener.incoming() {
//!     let mut stream = stream?;
//!     let mut request = [0; 1024];
//!     let count = stream.read(&mut request)?;
//!     stream.write_all(&request[..count])?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A program and its daemon share memory: a segment with a block per connection, queues, and
//! the bytes themselves. While both sides are busy, accepting, reading, writing and closing make
//! no system call. A side that finds nothing to do looks for a moment and then sleeps until the
//! other one rings.
//!
//! - [`Runtime`] chooses the daemon; without one, the environment variable `FOURWAVE_SOCKET`
//!   names its control socket, else it is `/run/fourwave/control.sock`.
//! - [`SocketOptions`] sets what std has no call for: backlog, IPv6 only, non-blocking connect.
//! - [`socket_options`] is the table of all options; streams and listeners have a method for each,
//!   and `setsockopt` and `getsockopt` for programs that bring Linux's numbers.
//! - [`Poller`] waits for many sockets, and is a descriptor for other event loops.
//! - With the feature `tokio`, the module `tokio` has sockets that are awaited; with `axum`,
//!   `axum::serve` takes them.
//! - [`guide`] has a page each for [Rust](guide::rust), [async](guide::awaiting) and
//!   [C](guide::c) programs, and for programs that are [not changed](guide::preload).
//!
//! # Forks
//! A child of `fork(2)` goes on with its parent's sockets, pollers and [`Runtime`]s: a listener can
//! be shared by many, and a connection ends when the last process has closed it or is gone. Killed,
//! exited or replaced by `exec`, a process lets go of what it held and of nothing else. Up to 256
//! processes share a quota.
//! - `O_NONBLOCK`, timeouts and what is registered with a poller are each process's own. Other
//!   options are the connection's.
//! - Two processes may read or write one stream: each byte goes to one of them, and the bytes of a
//!   call stay together as far as there is room for them. A process that is stopped (`SIGSTOP`) in
//!   the middle of it holds the others up.
//! - The readiness of a connection is told to the [`Poller`] that has asked last, in whatever
//!   process. Threads in blocking calls notice by themselves, within 20 ms.
//! - Begin a tokio runtime after the fork: its threads are not in the child.
//! - Only what goes through libc's `fork` is noticed. Children of `posix_spawn` and `vfork` have
//!   no sockets.
//!
//! # Differences from `std::net`
//! - The backlog is 4096, where std asks for 128.
//! - A stream is no file descriptor: wait for it with a [`Poller`].
//! - A signal does not end a blocking call (as with `SA_RESTART`); it ends [`Poller::wait`].
//! - When the daemon goes away, every operation gives `ENETDOWN`.
//! - Each thread that uses a socket, and each [`Poller`], takes one of the group's lanes (256, for
//!   a process and its forks); an ended thread's lane goes to the next one.
//! - The library's own descriptors have numbers from 1024 on (from half of `RLIMIT_NOFILE` on, if
//!   that is less).
//! - Errors that the daemon explains carry its words and no `raw_os_error`; [`errno`] finds the
//!   number in either case.

#![deny(unsafe_code)]

mod aside;
mod choices;
mod connection;
mod control;
mod error;
mod family;
mod fork;
mod halves;
mod lane;
mod listener;
mod options;
mod park;
mod patience;
mod poller;
mod read;
mod runtime;
mod sockopt;
mod stream;
mod tcp_info;
#[cfg(feature = "tokio")]
pub mod tokio;
mod watch;
mod write;

pub use aside::{OwnDescriptor, is_own_descriptor, own_descriptors};
pub use choices::TcpKeepalive;
pub use error::{Explained, errno};
pub use halves::{OwnedReadHalf, OwnedWriteHalf, ReuniteError};
pub use listener::{Incoming, IntoIncoming, TcpListener};
pub use options::SocketOptions;
pub use patience::Patience;
pub use poller::{Event, Events, Interest, Poller, Readiness, Slept, Source, Trigger};
pub use runtime::Runtime;
pub use stream::TcpStream;
pub use tcp_info::TcpInfo;

#[doc = include_str!("../OPTIONS.md")]
pub mod socket_options {}

/// A page for each kind of user.
pub mod guide {
    #[doc = include_str!("../doc/rust.md")]
    pub mod rust {}

    #[doc = include_str!("../doc/async.md")]
    pub mod awaiting {}

    #[doc = include_str!("../doc/c.md")]
    pub mod c {}

    #[doc = include_str!("../doc/preload.md")]
    pub mod preload {}
}

/// The README's example, so that it compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
