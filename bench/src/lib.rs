//! Lab, load generator and comparison: the measuring side of fourwave.
//!
//! * [`lab`] builds two network namespaces with a veth pair between them and runs programs there;
//!   the integration tests of other packages use it too.
//! * [`server`] is the echo-and-close server whose two versions are compared.
//! * [`load`] makes very many short connections and measures them.
//! * [`compare`] puts them together, for both servers in turn.
//! * [`engine`] measures the protocol engine alone, in memory.
//! * [`goodput`] compares long streams over bad paths.
//! * [`relay`] is a path between two ends of a lab that loses, repeats, reorders and delays.
//! * [`flood`] connects through a flood of spoofed SYNs.
//! * [`frames`] takes the frames of some ports by AF_XDP.
//! * [`limit`] measures what AF_XDP can do without any TCP.
//! * [`matrix`] is the whole comparison in one run, with its report.
//! * [`packet`] sends and receives whole frames.
//! * [`machine`] reads what the kernel counts.
//! * [`syscalls`] counts the system calls of processes.
//! * [`stamps`] tells a client when the server's `accept` returned.

pub mod compare;
pub mod engine;
pub mod flood;
pub mod frames;
pub mod goodput;
pub mod lab;
pub mod limit;
pub mod load;
pub mod machine;
pub mod matrix;
pub mod packet;
pub mod relay;
pub mod server;
pub mod stamps;
pub mod syscalls;
