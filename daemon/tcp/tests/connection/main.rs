//! One connection against scripted and hostile peers, and two against each other over a bad network.

mod attack;
mod close;
mod ecn;
mod goodput;
mod hostile;
mod open;
mod pair;
mod rack;
mod random;
mod receive;
mod sack;
mod script;
mod segment;
mod send;
mod settings;
mod undo;
