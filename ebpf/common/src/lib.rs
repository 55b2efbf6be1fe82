//! What the XDP program and the daemon share: the maps' key and value types, the verdicts, and
//! [`classify`], the function that decides what happens to a frame.
//!
//! `classify` reads the frame through the [`Frame`] trait only, so the same code is compiled for
//! BPF, where each read is checked against the packet's end, and for the host, where it is
//! tested and fuzzed as ordinary Rust. It never allocates, never panics and every loop in it is
//! bounded by a constant.

#![no_std]
#![forbid(unsafe_code)]

mod classify;
mod frame;
mod maps;
mod verdict;

pub use classify::{MAX_EXTENSION_HEADERS, MAX_VLAN_TAGS, classify};
pub use frame::{Frame, Ports};
pub use maps::{Admission, Config, LAYOUT, PortKey, SERVED, map_names};
pub use verdict::{Action, Verdict};
