//! Everything together: kernel peer, veth, XDP program, AF_XDP sockets, workers, shared memory,
//! client library. Each test has two network namespaces and a daemon of its own.
//!
//! The namespaces need root. Without it the tests say so and pass, unless `CI` is set.
//! `FOURWAVE_SOAK=1` runs them at a larger scale; `FOURWAVE_TEST_LOG=debug` has the daemons say
//! more, which is shown when a test fails.

#![allow(unreachable_pub, reason = "modules of one test crate, not an interface")]

mod active;
mod addresses;
mod awaiting;
mod backlog;
mod buffers;
mod c_library;
mod capture;
mod closing;
mod doctor;
mod examples;
mod flags;
mod flood;
mod fork_load;
mod forking;
mod hostile;
mod idle;
mod instances;
mod killed;
mod listening;
mod listing;
mod load;
mod lossy;
mod modes;
mod neighbour;
mod options;
mod path;
mod programs;
mod queues;
mod quotas;
mod restart;
mod sharing;
mod std_api;
mod stuck;
mod succession;
mod support;
mod system_calls;
mod tools;
mod transfer;
