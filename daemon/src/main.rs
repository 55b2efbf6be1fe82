//! `fourwaved`: the daemon.
fn main() {}
