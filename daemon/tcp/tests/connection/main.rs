//! One connection against scripted peers, and two against each other over a bad network.

mod close;
mod open;
mod pair;
mod receive;
mod script;
mod send;
