//! Unmodified programs of Debian's over fourwave, a kernel peer at the other end.
//!
//! Each test plays the same thing twice in one lab: first the program has kernel sockets, then
//! fourwave's (`LD_PRELOAD`). What comes out must be the same.

mod clients;
mod nginx;
mod python;
mod redis;
mod stage;
pub mod web;

pub use stage::are_there;
use stage::{PORT, Running, Stage, compare, finish};
