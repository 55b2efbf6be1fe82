//! `STATES.md` is the table of transitions, drawn. `UPDATE=1 cargo test -p fourwave-tcp --test states`
//! writes it anew.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use fourwave_tcp::{State, TRANSITIONS};

/// What takes a connection from one state to the other.
const CAUSES: &[(State, State, &str)] = &[
    (State::Closed, State::Listen, "listen"),
    (State::Closed, State::SynSent, "connect / SYN"),
    (State::Listen, State::SynReceived, "SYN / SYN-ACK"),
    (State::Listen, State::Closed, "close"),
    (State::SynSent, State::SynReceived, "SYN / SYN-ACK"),
    (State::SynSent, State::Established, "SYN-ACK / ACK"),
    (State::SynSent, State::Closed, "RST, ICMP error, close or retries spent"),
    (State::SynReceived, State::Established, "ACK of our SYN"),
    (State::SynReceived, State::Closed, "RST, ICMP error, abort or retries spent"),
    (State::Established, State::FinWait1, "shutdown or close / FIN"),
    (State::Established, State::CloseWait, "FIN / ACK"),
    (State::Established, State::Closed, "RST, abort or retries spent"),
    (State::FinWait1, State::FinWait2, "ACK of our FIN"),
    (State::FinWait1, State::Closing, "FIN / ACK"),
    (State::FinWait1, State::Closed, "RST, data for an orphan, abort or retries spent"),
    (State::FinWait2, State::TimeWait, "FIN / ACK"),
    (State::FinWait2, State::Closed, "RST, data for an orphan, abort or fin_timeout"),
    (State::CloseWait, State::LastAck, "shutdown or close / FIN"),
    (State::CloseWait, State::Closed, "RST, abort or retries spent"),
    (State::Closing, State::TimeWait, "ACK of our FIN"),
    (State::Closing, State::Closed, "RST, abort or retries spent"),
    (State::LastAck, State::Closed, "ACK of our FIN, RST, abort or retries spent"),
    (State::TimeWait, State::Closed, "2 MSL, RST or a new SYN"),
];

fn cause(from: State, to: State) -> &'static str {
    let found = CAUSES.iter().find(|(start, end, _)| (*start, *end) == (from, to));
    found.unwrap_or_else(|| panic!("what leads from {from} to {to}?")).2
}

fn drawn() -> String {
    let mut page = String::from(
        "# States of a connection\n\n\
         Every transition that `TRANSITIONS` in `src/state.rs` allows, and no other happens: one\n\
         function makes them all and asserts this table. It is RFC 9293 §3.3.2 with RFC 5961's\n\
         resets, and with the ends that timers bring. Two things are seen differently:\n\n\
         * LISTEN, SYN-RECEIVED of a passive open and TIME-WAIT are small records of the stack. A\n  \
           SYN-RECEIVED record that is reset goes (CLOSED); its listener listens on (MUST-11).\n\
         * A close in SYN-RECEIVED waits for ESTABLISHED, as §3.10.4 allows, so that no transition\n  \
           leads to FIN-WAIT-1.\n\n\
         Drawn from the table by a test (`tests/states.rs`). Before the slash is what happens, after\n\
         it what is sent.\n\n\
         ```mermaid\nstateDiagram-v2\n    [*] --> CLOSED\n",
    );
    let id = |state: State| state.name().replace('-', "_");
    for (from, to) in TRANSITIONS {
        writeln!(page, "    {} --> {} : {}", id(*from), id(*to), cause(*from, *to)).unwrap();
    }
    page.push_str("```\n\n| from | to | by |\n|---|---|---|\n");
    for (from, to) in TRANSITIONS {
        writeln!(page, "| {from} | {to} | {} |", cause(*from, *to)).unwrap();
    }
    page
}

#[test]
fn the_page_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("STATES.md");
    let drawn = drawn();
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, &drawn).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    assert!(page == drawn, "STATES.md is out of date: run this test with UPDATE=1");
}

#[test]
fn every_cause_belongs_to_a_transition() {
    assert_eq!(CAUSES.len(), TRANSITIONS.len());
    for (from, to, _) in CAUSES {
        assert!(TRANSITIONS.contains(&(*from, *to)), "{from} to {to}");
    }
}
