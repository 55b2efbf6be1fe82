//! The fourwave daemon: a TCP host stack on AF_XDP.

pub mod config;
pub mod control;
pub mod explain;
pub mod inquiry;
pub mod messages;
pub mod metrics;
pub mod netlink;
pub mod path;
pub mod policy;
pub mod port;
pub mod served;
pub mod start;
pub mod tap;
pub mod worker;
