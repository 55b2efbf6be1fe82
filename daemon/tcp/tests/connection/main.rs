//! One connection against scripted and hostile peers, and two against each other over a bad network.
//! What a connection does segment by segment is tested by the stack's segment scripts:
//! `cargo test -p fourwave-stack --test script`.

mod attack;
mod autotune;
mod ecn;
mod goodput;
mod hostile;
mod pair;
mod pmtu;
mod random;
mod record;
mod script;
mod segment;
mod settings;
