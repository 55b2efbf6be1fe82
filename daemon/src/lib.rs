//! The fourwave daemon: a TCP host stack on AF_XDP.

pub mod config;
pub mod messages;
pub mod netlink;
pub mod ports;
pub mod path;
pub mod port;
pub mod worker;
