//! Why something was refused or dropped, and the last cases of each reason.
//!
//! The hot path pays nothing for this: everything here runs when something is dropped, into
//! memory that was reserved at start.

use fourwave_tcp::{DropReason, Nanos};
use fourwave_wire::{Flags, FourTuple, ParseError, Segment, TcpFrame, peek_tuple};

use crate::counters::Dropped;
use crate::shard::Shard;

/// Samples that are kept of each reason.
pub const SAMPLES: usize = 8;

/// Why something was refused or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A frame, before TCP saw it.
    Frame(ParseError),
    /// A segment or a part of it, by its connection.
    Segment(DropReason),
    /// Anything else.
    Other(Dropped),
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = ParseError::COUNT + DropReason::COUNT + Dropped::ALL.len();

    /// Every reason, in index order.
    pub fn all() -> impl Iterator<Item = Reason> {
        let frames = ParseError::ALL.into_iter().map(Reason::Frame);
        let segments = DropReason::ALL.into_iter().map(Reason::Segment);
        frames.chain(segments).chain(Dropped::ALL.iter().copied().map(Reason::Other))
    }

    /// Below [`Reason::COUNT`].
    pub fn index(self) -> usize {
        match self {
            Reason::Frame(error) => error as usize,
            Reason::Segment(reason) => ParseError::COUNT + reason as usize,
            Reason::Other(dropped) => ParseError::COUNT + DropReason::COUNT + dropped as usize,
        }
    }

    /// Whether it is about a received frame, and not about a connection that ends or does not
    /// begin, or a frame that cannot be sent.
    fn is_about_a_frame(self) -> bool {
        let Reason::Other(dropped) = self else { return true };
        match dropped {
            Dropped::EstabResets
            | Dropped::AttemptFails
            | Dropped::EmbryonicRsts
            | Dropped::SynAckTimeouts
            | Dropped::RequestUnreachable
            | Dropped::ListenerClosed
            | Dropped::UnacceptedResets
            | Dropped::ChallengeAcksLimited
            | Dropped::TimeWaitOverflow
            | Dropped::AbortOnClose
            | Dropped::AbortOnMemory
            | Dropped::AbortOnTimeout
            | Dropped::NoLocalPort
            | Dropped::ConnectNoRoute
            | Dropped::ConnectInUse
            | Dropped::ConnectNotOwner
            | Dropped::ConnectFull
            | Dropped::ConnectBadAddress
            | Dropped::NeighbourTimeouts
            | Dropped::MigrateReqFailure
            | Dropped::TxRingFull
            | Dropped::TxTooSmall => false,
            Dropped::ListenOverflows
            | Dropped::SynQueueFull
            | Dropped::SynPeerNotProven
            | Dropped::SynRecordsFull
            | Dropped::ConnectionsFull
            | Dropped::OpenRefused
            | Dropped::DeferAcceptDrop
            | Dropped::RequestBadAck
            | Dropped::RequestOutOfPlace
            | Dropped::RequestIgnored
            | Dropped::AckSkippedSynRecv
            | Dropped::AckSkippedTimeWait
            | Dropped::AckSkippedFinWait2
            | Dropped::TimeWaitIgnored
            | Dropped::TimeWaitDuplicate
            | Dropped::PawsTimeWait
            | Dropped::AbortOnData
            | Dropped::NoConnection
            | Dropped::NoConnectionIgnored
            | Dropped::ForeignAddress
            | Dropped::IcmpNoConnection
            | Dropped::IcmpOutOfWindow
            | Dropped::IcmpLeftAlone
            | Dropped::HandoffFull => true,
        }
    }

    /// The counter that it is counted by, and its name there if that is one of a family.
    pub fn counter(self) -> (&'static str, Option<&'static str>) {
        match self {
            Reason::Frame(error) => ("frames_refused", Some(error.reason())),
            Reason::Segment(reason) => ("segments_dropped", Some(reason.reason())),
            Reason::Other(dropped) => (dropped.name(), None),
        }
    }

    /// A name of its own.
    pub fn name(self) -> &'static str {
        let (counter, reason) = self.counter();
        reason.unwrap_or(counter)
    }

    /// The reason with this [`name`](Reason::name), however its letters are cased.
    pub fn find(name: &str) -> Option<Reason> {
        Reason::all().find(|reason| reason.name().eq_ignore_ascii_case(name))
    }
}

impl From<Dropped> for Reason {
    fn from(dropped: Dropped) -> Reason {
        Reason::Other(dropped)
    }
}

/// One case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Nanos,
    /// Whose; unspecified addresses if that could not be told.
    pub tuple: FourTuple,
    /// Sequence number of the segment, if it is about one.
    pub seq: u32,
    /// Its acknowledgement number.
    pub ack: u32,
    /// Its payload's length.
    pub len: u16,
    /// Its flags.
    pub flags: Flags,
}

impl From<FourTuple> for Sample {
    fn from(tuple: FourTuple) -> Sample {
        Sample { tuple, ..Sample::default() }
    }
}

impl From<&TcpFrame<'_>> for Sample {
    fn from(frame: &TcpFrame<'_>) -> Sample {
        Sample::of(frame.tuple, &frame.segment)
    }
}

impl Sample {
    pub(crate) fn of(tuple: FourTuple, segment: &Segment<'_>) -> Sample {
        let Segment { seq, ack, flags, payload, .. } = segment;
        // A payload fits an IP packet.
        Sample { at: 0, tuple, seq: *seq, ack: *ack, len: payload.len() as u16, flags: *flags }
    }
}

/// The last few of one reason, in a ring.
#[derive(Clone, Copy, Default)]
struct Ring {
    seen: u64,
    samples: [Sample; SAMPLES],
}

/// The samples of all reasons.
pub(crate) struct Samples {
    rings: Box<[Ring]>,
    /// Frames that were refused or dropped, and why the last one was.
    frames: u64,
    last: Option<Reason>,
}

impl Samples {
    pub(crate) fn new() -> Samples {
        Samples { rings: vec![Ring::default(); Reason::COUNT].into(), frames: 0, last: None }
    }

    fn add(&mut self, reason: Reason, sample: Sample) {
        if reason.is_about_a_frame() {
            self.frames += 1;
            self.last = Some(reason);
        }
        let ring = &mut self.rings[reason.index()];
        ring.samples[(ring.seen % SAMPLES as u64) as usize] = sample;
        ring.seen += 1;
    }
}

impl Shard {
    /// The last [`SAMPLES`] cases of a reason, oldest first.
    pub fn samples(&self, reason: Reason) -> impl Iterator<Item = &Sample> {
        let ring = &self.samples.rings[reason.index()];
        let first = ring.seen.saturating_sub(SAMPLES as u64);
        (first..ring.seen).map(|n| &ring.samples[(n % SAMPLES as u64) as usize])
    }

    /// How many frames were refused or dropped; one may count for two reasons.
    #[inline]
    pub fn frame_drops(&self) -> u64 {
        self.samples.frames
    }

    /// Why the last one was.
    pub fn last_frame_drop(&self) -> Option<Reason> {
        self.samples.last
    }

    /// The host lost or refused something.
    pub fn note_drop(&mut self, now: Nanos, dropped: Dropped, tuple: FourTuple) {
        self.dropped(now, dropped, tuple);
    }

    /// Counts a case and keeps it.
    #[cold]
    pub(crate) fn dropped(&mut self, now: Nanos, dropped: Dropped, what: impl Into<Sample>) {
        *self.counters.of(dropped) += 1;
        self.keep(now, dropped, what);
    }

    /// Keeps a case that is counted elsewhere.
    #[cold]
    pub(crate) fn keep(&mut self, now: Nanos, reason: impl Into<Reason>, what: impl Into<Sample>) {
        self.samples.add(reason.into(), Sample { at: now, ..what.into() });
    }

    /// A frame that cannot be read.
    #[cold]
    pub(crate) fn refuse_frame(&mut self, now: Nanos, frame: &[u8], error: ParseError) {
        self.counters.count_refused(error);
        let tuple = peek_tuple(frame).unwrap_or_default();
        self.keep(now, Reason::Frame(error), tuple);
    }

    /// A segment that its connection did not take.
    #[cold]
    pub(crate) fn drop_segment(&mut self, now: Nanos, reason: DropReason, what: Sample) {
        self.counters.count_segment_drop(reason);
        self.keep(now, Reason::Segment(reason), what);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_an_index_a_name_and_a_counter_of_its_own() {
        let mut names = BTreeSet::new();
        let mut counted = BTreeSet::new();
        crate::Counters::default().for_each(|name, reason, _| {
            counted.insert((name, reason));
        });
        for (index, reason) in Reason::all().enumerate() {
            assert_eq!(reason.index(), index);
            assert!(names.insert(reason.name().to_lowercase()), "{} twice", reason.name());
            assert!(counted.contains(&reason.counter()), "{reason:?} is counted");
            assert_eq!(Reason::find(&reason.name().to_uppercase()), Some(reason));
        }
        assert_eq!(names.len(), Reason::COUNT);
        assert_eq!(Reason::find("nothing"), None);
    }
}
