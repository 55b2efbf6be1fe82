//! A log of one seed in tcpdump's manner, for `TRACE=1`.

use fourwave_tcp::Nanos;
use fourwave_wire::{ChecksumPolicy, Inbound, TcpFrame, parse};

use crate::frame::Frame;

/// What the link does to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Carried,
    Arrived,
    Doubled,
    Damaged,
    Lost,
    TooBig,
}

impl Fate {
    fn text(self) -> &'static str {
        match self {
            Fate::Carried => "",
            Fate::Arrived => "  (arrives)",
            Fate::Doubled => "  (doubled)",
            Fate::Damaged => "  (damaged)",
            Fate::Lost => "  (lost)",
            Fate::TooBig => "  (too big)",
        }
    }
}

/// Prints what happens, or nothing.
#[derive(Clone, Copy)]
pub(crate) struct Trace(pub(crate) bool);

impl Trace {
    pub(crate) fn from_env() -> Trace {
        Trace(std::env::var_os("TRACE").is_some_and(|value| value != "0"))
    }

    /// The link takes a frame to host `to`.
    #[inline]
    pub(crate) fn frame(self, now: Nanos, to: usize, frame: &Frame, fate: Fate) {
        if self.0 {
            print_frame(now, to, frame.bytes(), fate);
        }
    }

    /// Something else that matters.
    #[inline]
    pub(crate) fn note(self, now: Nanos, side: usize, text: impl FnOnce() -> String) {
        if self.0 {
            eprintln!("{} {}: {}", seconds(now), name(side), text());
        }
    }
}

fn seconds(now: Nanos) -> String {
    format!("{:>5}.{:06}", now / 1_000_000_000, now / 1_000 % 1_000_000)
}

fn name(side: usize) -> char {
    if side == 0 { 'A' } else { 'B' }
}

fn print_frame(now: Nanos, to: usize, frame: &[u8], fate: Fate) {
    let what = match parse(frame, ChecksumPolicy::Verify) {
        Ok(Inbound::Tcp(frame)) => segment(&frame),
        Ok(Inbound::IcmpError(quote)) => format!("ICMP {:?} about {}", quote.kind, quote.seq),
        Err(error) => format!("{} bytes, {error}", frame.len()),
    };
    eprintln!("{} {}>{} {what}{}", seconds(now), name(1 - to), name(to), fate.text());
}

fn segment(frame: &TcpFrame<'_>) -> String {
    let segment = &frame.segment;
    let (from, to) = (frame.tuple.remote.port, frame.tuple.local.port);
    let family = if frame.tuple.is_v4() { 4 } else { 6 };
    let mut text = format!("v{family} {from}>{to} [{}] seq {}", segment.flags, segment.seq);
    let len = segment.payload.len();
    if len > 0 {
        text += &format!(":{} ({len})", segment.seq.wrapping_add(len as u32));
    }
    text += &format!(" ack {} win {}", segment.ack, segment.window);
    let options = &segment.options;
    if let Some(mss) = options.mss {
        text += &format!(" mss {mss}");
    }
    if let Some(scale) = options.window_scale {
        text += &format!(" ws {scale}");
    }
    if options.sack_permitted {
        text += " sackok";
    }
    if let Some(times) = options.timestamps {
        text += &format!(" ts {}:{}", times.value, times.echo);
    }
    for block in options.sack.as_slice() {
        text += &format!(" sack {}:{}", block.left, block.right);
    }
    text
}
