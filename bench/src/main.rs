//! `fourwave-bench`: lab, load and comparison.
fn main() {}
