//! One flow of a script: between the numbers of its text and those of its segments.

use std::collections::VecDeque;

use fourwave_stack::ConnId;
use fourwave_tcp::{Nanos, State};
use fourwave_wire::{
    Flags, FourTuple, FrameHead, Options, SackBlock, SackBlocks, Segment, Timestamps,
};

use crate::common::{MILLIS, Seg};
use crate::segment::{Text, relative, stream_byte};

/// Close enough to the wrap that scripts cross it.
pub(crate) const OUR_ISS: u32 = u32::MAX - 20;
pub(crate) const PEER_ISS: u32 = u32::MAX - 40;
/// What our timestamp clock reads in scripts when the connection is set up.
const CLOCK: u32 = 1_000_000;

/// A segment that we sent, and when.
pub(crate) struct Sent {
    pub(crate) at: Nanos,
    pub(crate) text: Text,
}

/// A flow between us and the peer, and what its script knows of it.
pub(crate) struct Flow {
    /// As seen from us.
    pub(crate) tuple: FourTuple,
    /// Index of its application at the host.
    pub(crate) app: Option<usize>,
    pub(crate) conn: Option<ConnId>,
    /// As sampled last.
    pub(crate) state: State,
    /// Not yet expected.
    pub(crate) sent: VecDeque<Sent>,
    /// Our initial sequence number, once it was seen.
    ours: Option<u32>,
    /// What our timestamps exceed the script's by, once one was seen.
    clock: Option<u32>,
    /// When the script's clock reads [`CLOCK`].
    epoch: Nanos,
}

impl Flow {
    pub(crate) fn new(tuple: FourTuple, epoch: Nanos) -> Flow {
        Flow {
            tuple,
            app: None,
            conn: None,
            state: State::Closed,
            sent: VecDeque::new(),
            ours: None,
            clock: None,
            epoch,
        }
    }

    /// The script's clock starts now.
    pub(crate) fn set_epoch(&mut self, now: Nanos) {
        // Our clock is in whole milliseconds.
        let gone = (now / MILLIS).wrapping_sub(self.epoch / MILLIS) as u32;
        self.clock = self.clock.map(|clock| clock.wrapping_add(gone));
        self.epoch = now;
    }

    /// The next connection of this flow counts from its own initial number.
    pub(crate) fn renumber(&mut self) {
        self.ours = None;
        self.clock = None;
    }

    /// Our initial sequence number.
    pub(crate) fn ours(&self) -> u32 {
        self.ours.unwrap_or(OUR_ISS)
    }

    /// The segment that the peer sends for `text`.
    pub(crate) fn segment(&self, text: &Text) -> Result<(Segment<'static>, Vec<u8>), String> {
        let first = text.seq + i64::from(text.flags.contains(Flags::SYN)) - 1;
        let payload = (first..first + text.len).map(|at| stream_byte(at as u64)).collect();
        let mut sack = SackBlocks::default();
        for (left, right) in text.sack.iter().flatten() {
            let number = |relative: i64| self.ours().wrapping_add(relative as u32);
            if !sack.push(SackBlock { left: number(*left), right: number(*right) }) {
                return Err("more than four SACK blocks".into());
            }
        }
        let timestamps = text.timestamps.flatten().map(|(value, echo)| Timestamps {
            value,
            // 0 is nothing to echo.
            echo: if echo == 0 { 0 } else { echo.wrapping_add(self.clock.unwrap_or(0)) },
        });
        let segment = Segment {
            seq: PEER_ISS.wrapping_add(text.seq as u32),
            ack: text.ack.map_or(0, |ack| self.ours().wrapping_add(ack as u32)),
            flags: text.flags,
            window: text.window.unwrap_or(60_000),
            urgent: text.urgent.unwrap_or(0),
            options: Options {
                mss: text.mss.flatten(),
                window_scale: text.window_scale.flatten(),
                sack_permitted: text.sack_permitted == Some(true),
                timestamps,
                sack,
            },
            congested: text.tos.is_some_and(|tos| tos & 3 == 3),
            payload: &[],
        };
        Ok((segment, payload))
    }

    /// Takes note of a segment that we sent.
    pub(crate) fn take(&mut self, seg: &Seg, now: Nanos) {
        let head = &seg.head;
        if self.ours.is_none() && head.flags.contains(Flags::SYN) {
            self.ours = Some(head.seq);
        }
        if let (None, Some(times)) = (self.clock, head.options.timestamps) {
            let since = (now / MILLIS).wrapping_sub(self.epoch / MILLIS) as u32;
            self.clock = Some(times.value.wrapping_sub(CLOCK.wrapping_add(since)));
        }
        self.sent.push_back(Sent { at: now, text: self.to_text(head, seg.payload.len()) });
    }

    fn to_text(&self, head: &FrameHead, len: usize) -> Text {
        let acks = head.flags.contains(Flags::ACK);
        // An answer to an ACK of a connection that is none has that ACK's number.
        let mut text = Text {
            flags: head.flags,
            seq: relative(head.seq, self.ours()),
            len: len as i64,
            ack: acks.then(|| relative(head.ack, PEER_ISS)),
            window: Some(head.window),
            urgent: Some(head.urgent),
            tos: Some(head.tos),
            ttl: Some(head.ttl),
            ..Text::default()
        };
        let clock = self.clock.unwrap_or(0);
        let mut options = head.options;
        if let Some(times) = &mut options.timestamps {
            times.value = times.value.wrapping_sub(clock);
        }
        text.set_options(&options, PEER_ISS);
        text
    }
}
