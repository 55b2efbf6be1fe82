//! Frames in, meaning out, and back again: Ethernet with 0–2 VLAN tags, IPv4, IPv6, TCP, and the
//! ICMP errors that quote a TCP flow. `no_std`, no allocation, no `unsafe`.
//!
//! # Shapes
//! * [`parse`] turns a whole Ethernet frame into an [`Inbound`]: a checked [`TcpFrame`] whose payload
//!   borrows from the frame, or an [`IcmpQuote`]. It never panics, whatever the bytes; a frame it
//!   refuses comes back as a [`ParseError`] that names the reason to count.
//! * [`build`] writes a whole frame from a [`FrameHead`], with the payload filled in place and the
//!   checksums computed.
//! * [`peek_tuple`] finds the four-tuple of a frame without any checksum work: enough to choose the
//!   worker that owns it. Who owns it then calls [`parse`].
//!
//! # Units and orders
//! Numbers are in host order, lengths in bytes. [`Segment::window`] is the raw 16-bit field, not
//! scaled. Addresses are [`Addr`]: sixteen bytes, IPv4 as IPv4-mapped (`::ffff:a.b.c.d`), so that both
//! families take one path; an IPv6 packet that carries a mapped address is refused, so the two
//! cannot be confused. A [`FourTuple`] is always seen from this machine: in a received frame `local`
//! is the destination, in a frame to send it is the source.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod addr;
mod bytes;
mod checksum;
mod emit;
mod ethernet;
mod icmp;
mod ip;
mod options;
mod parse;
mod plain;
mod tcp;

pub use addr::{Addr, Endpoint, FourTuple};
pub use checksum::Sum;
pub use emit::{FrameHead, TooSmall, build, max_payload};
pub use ethernet::{Link, Mac, Tag};
pub use icmp::{IcmpKind, IcmpQuote};
pub use ip::{ECN_BITS, ECN_ECT_0};
pub use options::{MAX_OPTIONS_LEN, MAX_WINDOW_SCALE, Options, SackBlock, SackBlocks, Timestamps};
pub use parse::{ChecksumPolicy, Inbound, ParseError, TcpFrame, parse, peek_tuple};
pub use tcp::{Flags, Segment};
