//! The fourwave daemon: a TCP host stack on AF_XDP.

pub mod config;
pub mod messages;
pub mod path;
