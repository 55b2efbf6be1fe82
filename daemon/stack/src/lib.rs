//! A shard of a TCP host stack, sans-I/O: demultiplexing, listening, TIME_WAIT, timers, ports.
//!
//! A [`Shard`] is everything that one worker knows about its flows. Frames go in, frames come out;
//! the time (nanoseconds of a monotonic clock) is an argument, and everything else that a shard
//! needs from the world is its [`Host`]: room for frames, next hops, random numbers, and the
//! application's side of each connection. It reserves its memory when it is made and allocates
//! nothing afterwards, has no lock and no `unsafe`, and runs the same in the daemon, in a simulator
//! and in a load generator.
//!
//! # One round
//! 1. [`Shard::handle_frame`] for each frame of a batch;
//! 2. what applications asked for: [`Shard::send`], [`Shard::consumed`],
//!    [`Shard::shutdown_write`], [`Shard::close`], [`Shard::connect`], …;
//! 3. [`Shard::advance`] for timers;
//! 4. [`Shard::flush`], which sends what all of that has made due. Connections send only here, so
//!    that an ACK rides on the reply, and a FIN on the last data, when they were asked for in the
//!    same round.
//!
//! Frames that no connection stands behind (SYN-ACK, RST, ACK in TIME_WAIT) are written while
//! their cause is handled, and are lost, counted, if there is no room: take frames in only
//! while there is room for as many to go out.
//!
//! # Records
//! A flow is one of three plain records, linked by index, in arenas of fixed capacity:
//! * SYN_RCVD of a passive open, 128 bytes at most: [`Shard::listen`] and the handshake (beyond
//!   the SYN queue a cookie, which needs none);
//! * a connection, with its [`Tcb`](fourwave_tcp::Tcb);
//! * TIME_WAIT, or FIN_WAIT_2 without an application, 64 bytes at most with its share of the index.
//!
//! One flow table finds all three by a keyed hash of the four-tuple, one hierarchical timer wheel
//! holds the timers of all three. Which worker a flow belongs to is for [`Owners`] to say.

#![forbid(unsafe_code)]

mod app;
pub mod arena;
mod backlog;
mod bits;
mod challenge;
mod config;
mod conn;
mod connect;
mod cookies;
mod counters;
mod demux;
mod drops;
mod flows;
mod flush;
mod fold;
mod hashed;
mod host;
mod keys;
mod list;
mod listen;
mod listing;
mod locals;
#[cfg(all(test, loom))]
mod model;
mod owners;
mod passive;
mod pathmtu;
mod ports;
mod proven;
mod reply;
mod segment;
mod shard;
mod siphash;
mod sync;
mod synrcvd;
mod table;
mod timewait;
mod unlisten;
pub mod wheel;

pub use app::CommandError;
pub use backlog::ListenerShared;
pub use config::{Config, SynCookies};
pub use connect::ConnectError;
pub use counters::{Counters, Dropped, explain};
pub use drops::{Reason, SAMPLES, Sample};
pub use host::{ConnId, Frame, Host, ListenerId, Path, PathError, Payload, Refused, Update};
pub use keys::{Keys, owner};
pub use listen::ListenError;
pub use listing::{Cursor, Listed};
pub use owners::{Owners, Rss, self_test as rss_self_test};
pub use shard::{Gauges, Shard};

/// The memory asked for cannot be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not enough memory for the tables of a shard")]
pub struct NoMemory;
