//! What the two ends of a conversation mean to do.

use fourwave_tcp::Nanos;

use crate::draw::MILLIS;
use crate::rng::Rng;

/// When an end closes its handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// All is written; whatever comes is not read.
    Sent,
    /// All is written and all that the other end writes is read.
    Exchanged,
    /// All is written and the other end's FIN is read.
    Eof,
    /// At a time after its start, by a reset.
    Abort(Nanos),
}

/// One end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    /// Bytes to write.
    pub(crate) send: u64,
    /// Write once this many bytes are read.
    pub(crate) after_read: u64,
    /// Write once the other end's FIN is read.
    pub(crate) after_eof: bool,
    /// Shut down writing when all is written.
    pub(crate) shutdown: bool,
    pub(crate) close: Close,
    /// Time between reads; 0: at once.
    pub(crate) read_every: Nanos,
    /// Most bytes of one write.
    pub(crate) chunk: u64,
}

/// A conversation: who opens does `scripts[0]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) start: Nanos,
    pub(crate) opener: usize,
    pub(crate) v6: bool,
    pub(crate) scripts: [Script; 2],
    /// Both ends open, to each other's port.
    pub(crate) crossed: bool,
    /// Both streams arrive whole unless a connection fails.
    pub(crate) whole: bool,
}

/// Bytes to write, `limit` at most.
fn size(rng: &mut Rng, limit: u64) -> u64 {
    let size = match rng.below(100) {
        0..=9 => 0,
        10..=59 => 1 + rng.below(200),
        60..=89 => rng.below(8_000),
        90..=98 => rng.below(200_000),
        _ => rng.below(3_000_000),
    };
    size.min(limit)
}

fn script(rng: &mut Rng, send: u64, close: Close) -> Script {
    Script {
        send,
        after_read: 0,
        after_eof: false,
        shutdown: false,
        close,
        read_every: if rng.chance(100) { rng.below(300) * MILLIS } else { 0 },
        chunk: rng.pick(&[1_000_000, 10_000, 1_000, 100]),
    }
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng, limit: u64) -> Plan {
        let (request, reply) = (size(rng, limit), size(rng, limit));
        let kind = rng.below(9);
        let closes = match kind {
            // The acceptor closes first, as a server of short connections does.
            0..=2 => [Close::Eof, Close::Exchanged],
            3 => [Close::Exchanged, Close::Eof],
            4 | 5 => [Close::Eof, Close::Eof],
            6 => [Close::Exchanged, Close::Exchanged],
            7 => [Close::Eof, Close::Abort(rng.below(100) * MILLIS)],
            _ => [Close::Sent, Close::Eof],
        };
        let mut scripts = [script(rng, request, closes[0]), script(rng, reply, closes[1])];
        match kind {
            0..=3 => scripts[1].after_read = request,
            // Half-close: the reply follows the request's FIN.
            4 => {
                scripts[0].shutdown = true;
                scripts[1].after_eof = true;
            }
            // Both at once.
            5 => scripts.iter_mut().for_each(|script| script.shutdown = true),
            _ => {}
        }
        Plan {
            start: rng.below(2_000) * MILLIS,
            opener: rng.below(4).min(1) as usize,
            v6: rng.chance(500),
            scripts,
            crossed: matches!(kind, 5 | 6) && rng.chance(300),
            whole: kind <= 6,
        }
    }
}
