//! Unmodified programs of Debian's over fourwave, a kernel peer at the other end.
//!
//! Each test plays the same thing twice in one lab: first the program has kernel sockets, then
//! fourwave's (`LD_PRELOAD`). What comes out must be the same.

mod clients;
mod nginx;
mod python;
mod redis;
mod stage;
mod web;

use stage::{PORT, Running, Stage, compare, finish};
