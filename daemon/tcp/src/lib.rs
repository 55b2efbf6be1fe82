//! One TCP connection (RFC 9293), sans-I/O: segments and the time go in, segments and events come
//! out. No clock, no socket, no allocation, no `unsafe`.
//!
//! # Shapes
//! [`Tcb`] is a connection: plain old data of fixed size, with no pointer in it, so that it can live
//! in an arena that another process adopts. It is made by [`Tcb::passive`] when a handshake that we
//! answered is complete, or by [`Tcb::active`] to open one. What all connections share is a
//! [`Config`]. Payload is never held here: received bytes go to [`Buffers::store`], and a
//! [`Transmit`] names the stream offsets to send.
//!
//! # Call order
//! 1. in: [`Tcb::handle_segment`], [`Tcb::handle_icmp`], [`Tcb::handle_timer`] once
//!    [`Tcb::deadline`] has passed, and the application's side: [`Tcb::set_send_tail`],
//!    [`Tcb::set_consumed`], [`Tcb::shutdown_write`], [`Tcb::close`], [`Tcb::abort`];
//! 2. out: after a whole batch of those, [`Tcb::poll_transmit`] until it returns `None`. State moves
//!    as if each segment was sent. Calling it late is what lets ACKs ride on data and FIN on the
//!    last data;
//! 3. then [`Tcb::deadline`] tells when to call [`Tcb::handle_timer`].
//!
//! A [`Reaction`] says what changed for the application, and why a segment was dropped if it was.
//! After [`Events::CLOSED`] a last RST may be waiting: drain `poll_transmit`, then free the record.
//! The same holds for [`Events::TIME_WAIT`] and [`Events::FIN_WAIT2_ORPHAN`]: drain, then turn it
//! into the smaller record that [`Tcb::time_wait`] describes; until that happens the `Tcb` plays
//! the part itself.
//!
//! # Units
//! Time is [`Nanos`] of a monotonic clock. Offsets on the public side are `u64` counts of stream
//! bytes: 0 is the first byte after the SYN. Sequence numbers at the boundary are plain `u32` in
//! host order; [`SeqNum`] compares them. Windows are in bytes unless a name says `scaled`.
//!
//! # Where it is written down
//! Segment scripts (`daemon/stack/tests/scripts`) say what a connection does, segment by segment;
//! `requirements.md` which clause of RFC 9293 is obeyed where, and by which test; `STATES.md` draws
//! the states.
//!
//! # Not here
//! LISTEN, SYN_RCVD of a passive open, and TIME_WAIT at scale are the stack's: [`Tcb`] knows
//! SYN_RCVD only from a simultaneous open. Urgent data is delivered in line, as with `SO_OOBINLINE`.

#![forbid(unsafe_code)]

mod assembler;
mod autotune;
mod close;
mod config;
mod congestion;
mod ecn;
mod icmp;
mod info;
mod invariants;
mod keepalive;
mod loss;
mod options;
mod pmtu;
mod rack;
mod reaction;
mod receive;
mod recovery;
mod rtt;
mod sack;
mod scoreboard;
mod seq;
mod settings;
mod state;
mod syn_sent;
mod tcb;
mod timers;
mod transmit;
mod undo;
mod window;

pub use config::{Config, CongestionControl, Ecn, Nanos};
pub use info::{Info, Recovery};
pub use options::timestamp;
pub use pmtu::believed_mtu;
pub use reaction::{Buffers, DropReason, Error, Events, OutOfRange, Reaction};
pub use seq::SeqNum;
pub use settings::Settings;
pub use state::{State, TRANSITIONS};
pub use tcb::{Active, Passive, Tcb, TimeWait};
pub use timers::{Timer, TimerKind};
pub use transmit::Transmit;
