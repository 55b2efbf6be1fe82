//! The runner itself: a script that is wrong fails, and says where and why.

use crate::{language, run};

/// Scripts, and what is complained of. The title is line 1.
const WRONG: &[(&str, &str)] = &[
    (
        "server\nclose\n> F. 2 ack 1",
        "x.fw:4: > F. 2 ack 1\n    expected > F. 2 ack 1\n    sent     > F. 1 ack 1",
    ),
    ("server\nclose\n> F. 1 ack 1 win 9", "sent     > F. 1 ack 1 win 65535"),
    ("server\nclose\n> F. 1 ack 1 ts 1:2", "expected > F. 1 ack 1 ts 1:2"),
    (
        "server\nclose\n> F. 1 ack 1\n+211 > F. 1 ack 1",
        "x.fw:5: > F. 1 ack 1\n    it was sent 1 ms before",
    ),
    ("server\nclose\n> F. 1 ack 1\n+209 > F. 1 ack 1", "nothing was sent"),
    ("server\nclose\nnothing", "sent, and not expected: [1] > F. 1 ack 1"),
    ("server\nclose", "sent, and not expected: [1] > F. 1 ack 1"),
    ("server\nclose\n+1s state FIN-WAIT-1", "sent, and not expected: [1] > F. 1 ack 1"),
    ("server\n[2] server\nwrite 1\n[2] > P. 1:2(1) ack 1", "nothing was sent"),
    ("server\n< P. 1:11(10) ack 1 drop no_ack", "it was not dropped as no_ack"),
    ("server\nstate CLOSED", "the state: expected \"CLOSED\", is \"ESTABLISHED\""),
    ("server\n< P. 1:11(10) ack 1\nreceived 9", "bytes received: expected 9, is 10"),
    ("server\n< P. 1:11(10) ack 1\nevents", "what happened: expected {}, is {READABLE}"),
    ("server\nshutdown\nwrite 1", "out of range"),
    ("server\nwrite 1 fails", "it did not fail"),
    ("server\n> . 1:5(3) ack 1", "wrong sum: 1:5(3)"),
    ("server\n< X 1", "no flag: X"),
    ("server\n< . 1 ack one", "not a number that fits: one"),
    ("server\nrewind", "no such statement: rewind"),
    ("config colour=red\nserver", "no such setting: colour"),
    ("repeat 2\nserver", "the last repeat has no end"),
    ("== again\nserver\n== again\nserver", "x/again twice"),
];

/// Everything that a wrong script does not bring to light.
pub(crate) fn check() -> Result<(), String> {
    for (text, complaint) in WRONG {
        let outcome = language::parse("x", &format!("== wrong\n{text}\n"))
            .and_then(|scripts| scripts.iter().try_for_each(|script| run::run(script).map(drop)));
        match outcome {
            Ok(()) => return Err(format!("it passes:\n{text}")),
            Err(error) if error.contains(complaint) => {}
            Err(error) => return Err(format!("{text}\nsays\n{error}\nand not\n{complaint}")),
        }
    }
    Ok(())
}
