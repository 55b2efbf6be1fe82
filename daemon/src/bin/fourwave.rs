//! `fourwave`: looks at a running daemon.
fn main() {}
