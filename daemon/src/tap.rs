//! Frames for a tool that captures: which ones, and the bounded way from workers to control.
//!
//! A worker copies a frame that the filter takes into a free slot, and puts the slot into its
//! queue; control empties slots into replies and gives them back. Without a free slot the frame is
//! missed, counted: a tool that is slow, or dead, costs nobody anything else.

use crossbeam::queue::ArrayQueue;
use fourwave_protocol::capture::{CaptureCount, End, MOST_STEPS, Step};
use fourwave_stack::Reason;
use fourwave_wire::{Addr, ChecksumPolicy, Endpoint, Inbound, parse, peek_tuple};
use rustix::event::EventfdFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Frames of one worker that may wait for control.
const SLOTS: usize = 512;

/// A captured frame.
#[derive(Debug, Default)]
pub struct Slot {
    /// When, nanoseconds since 1970.
    pub at: u64,
    /// What became of it.
    pub fate: Fate,
    /// Bytes that it had.
    pub length: u32,
    kept: usize,
    bytes: Box<[u8]>,
}

impl Slot {
    /// Takes a frame in, as much of it as there is room for.
    pub fn fill(&mut self, at: u64, fate: Fate, frame: &[u8]) {
        self.at = at;
        self.fate = fate;
        // A frame is a few thousand bytes at the most.
        self.length = frame.len() as u32;
        self.kept = frame.len().min(self.bytes.len());
        self.bytes[..self.kept].copy_from_slice(&frame[..self.kept]);
    }

    /// Its first bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.kept]
    }
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fate {
    /// Handed to the NIC queue.
    #[default]
    Sent,
    /// Received.
    Received {
        /// The worker that it arrived at, if that was another one.
        from: Option<u32>,
        /// Why it was refused or dropped, if it was.
        dropped: Option<Reason>,
    },
}

/// What one worker and control exchange.
#[derive(Debug)]
struct Desk {
    filled: ArrayQueue<Slot>,
    empty: ArrayQueue<Slot>,
    matched: AtomicU64,
    missed: AtomicU64,
}

/// A capture under way, shared by control and the workers.
#[derive(Debug)]
pub struct Tap {
    filter: Filter,
    desks: Box<[Desk]>,
    withdrawn: AtomicBool,
    bell: OwnedFd,
}

impl Tap {
    /// A capture of frames that `filter` takes, the first `snaplen` bytes of each.
    ///
    /// # Errors
    /// When no descriptor can be had.
    pub fn new(filter: Filter, workers: usize, snaplen: usize) -> io::Result<Arc<Tap>> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let desk = || {
            let (filled, empty) = (ArrayQueue::new(SLOTS), ArrayQueue::new(SLOTS));
            for _ in 0..SLOTS {
                let slot = Slot { bytes: vec![0; snaplen].into(), ..Slot::default() };
                // The queue was made for exactly this many.
                let _ = empty.push(slot);
            }
            Desk { filled, empty, matched: AtomicU64::new(0), missed: AtomicU64::new(0) }
        };
        Ok(Arc::new(Tap {
            filter,
            desks: (0..workers).map(|_| desk()).collect(),
            withdrawn: AtomicBool::new(false),
            bell: rustix::event::eventfd(0, flags)?,
        }))
    }

    /// Worker: a slot for a frame, if the filter takes it and there is one free.
    pub fn slot(&self, worker: u32, fate: Fate, frame: &[u8]) -> Option<Slot> {
        if !self.filter.takes(fate, frame) {
            return None;
        }
        let desk = &self.desks[worker as usize];
        // Relaxed, both: figures for people, ordered with nothing.
        desk.matched.fetch_add(1, Ordering::Relaxed);
        let slot = desk.empty.pop();
        if slot.is_none() {
            desk.missed.fetch_add(1, Ordering::Relaxed);
        }
        slot
    }

    /// Worker: passes a filled slot on.
    pub fn pass(&self, worker: u32, slot: Slot) {
        let passed = self.desks[worker as usize].filled.push(slot).is_ok();
        debug_assert!(passed, "as many places as slots");
    }

    /// Worker: tells control of what was passed on.
    pub fn ring(&self) {
        // Fails only when 2⁶⁴ - 2 rings wait: then it is readable, which is all we want.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Worker: whether nobody wants frames any more.
    pub fn is_withdrawn(&self) -> bool {
        // Relaxed: nothing is published with it; seen late, it costs some copies too many.
        self.withdrawn.load(Ordering::Relaxed)
    }

    /// Control: nobody wants frames any more.
    pub fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Relaxed);
    }

    /// Control: a worker's next frame; to be given back.
    pub fn take(&self, worker: usize) -> Option<Slot> {
        self.desks[worker].filled.pop()
    }

    /// Control: gives a slot back.
    pub fn give_back(&self, worker: usize, slot: Slot) {
        // There is room for every slot.
        let _ = self.desks[worker].empty.push(slot);
    }

    /// Control: what has happened at each worker.
    pub fn counts(&self) -> Vec<CaptureCount> {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let count =
            |desk: &Desk| CaptureCount { matched: load(&desk.matched), missed: load(&desk.missed) };
        self.desks.iter().map(count).collect()
    }
}

impl AsFd for Tap {
    /// Readable after [`Tap::ring`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// A checked filter.
#[derive(Debug)]
pub struct Filter(Box<[Check]>);

/// A step with its reason looked up.
#[derive(Debug, Clone, Copy)]
enum Check {
    Host(End, Addr),
    Port(End, u16),
    Tcp,
    Icmp,
    V4,
    V6,
    Received,
    Sent,
    Dropped,
    Reason(Reason),
    Not,
    And,
    Or,
}

/// Why a filter is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFilter {
    /// Too many steps.
    #[error("the filter is too long: at most {MOST_STEPS} conditions and connectives")]
    TooLong,
    /// A step lacks its operands, or one is left over.
    #[error("the filter's steps do not fit together")]
    Unbalanced,
    /// Nothing is dropped for such a reason.
    #[error("`{0}` is no reason for a drop")]
    NoReason(String),
}

impl Filter {
    /// Checks the steps.
    ///
    /// # Errors
    /// [`BadFilter`].
    pub fn new(steps: &[Step]) -> Result<Filter, BadFilter> {
        if steps.len() > MOST_STEPS {
            return Err(BadFilter::TooLong);
        }
        let mut depth = 0usize;
        let mut checks = Vec::with_capacity(steps.len());
        for step in steps {
            let (needs, check) = check(step)?;
            depth = depth.checked_sub(needs).ok_or(BadFilter::Unbalanced)? + 1;
            checks.push(check);
        }
        match depth {
            0 | 1 => Ok(Filter(checks.into())),
            _ => Err(BadFilter::Unbalanced),
        }
    }

    /// Whether a frame is wanted.
    pub fn takes(&self, fate: Fate, frame: &[u8]) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let seen = Seen::new(fate, frame);
        // Results, the newest lowest; no more than there are steps, 64.
        let mut results = 0u64;
        for check in &self.0 {
            results = match check {
                Check::Not => results ^ 1,
                Check::And => (results >> 1) & (results | !1),
                Check::Or => (results >> 1) | (results & 1),
                test => results << 1 | u64::from(seen.is(test)),
            };
        }
        results & 1 == 1
    }
}

fn check(step: &Step) -> Result<(usize, Check), BadFilter> {
    Ok(match step {
        Step::Host(end, host) => (0, Check::Host(*end, Addr::from(*host))),
        Step::Port(end, port) => (0, Check::Port(*end, *port)),
        Step::Tcp => (0, Check::Tcp),
        Step::Icmp => (0, Check::Icmp),
        Step::V4 => (0, Check::V4),
        Step::V6 => (0, Check::V6),
        Step::Received => (0, Check::Received),
        Step::Sent => (0, Check::Sent),
        Step::Dropped => (0, Check::Dropped),
        Step::Reason(name) => {
            let reason = Reason::find(name).ok_or_else(|| BadFilter::NoReason(name.clone()))?;
            (0, Check::Reason(reason))
        }
        Step::Not => (1, Check::Not),
        Step::And => (2, Check::And),
        Step::Or => (2, Check::Or),
    })
}

/// What a filter asks of a frame.
struct Seen {
    fate: Fate,
    /// Source and destination, where they can be told.
    ends: Option<(Endpoint, Endpoint)>,
    icmp: bool,
}

impl Seen {
    fn new(fate: Fate, frame: &[u8]) -> Seen {
        let icmp = matches!(parse(frame, ChecksumPolicy::Trust), Ok(Inbound::IcmpError(_)));
        // As its receiver sees it.
        let ends = peek_tuple(frame).map(|tuple| (tuple.remote, tuple.local));
        Seen { fate, ends, icmp }
    }

    fn dropped(&self) -> Option<Reason> {
        match self.fate {
            Fate::Sent => None,
            Fate::Received { dropped, .. } => dropped,
        }
    }

    fn is(&self, check: &Check) -> bool {
        match check {
            Check::Host(end, host) => self.any(*end, |at| at.addr == *host),
            Check::Port(end, port) => self.any(*end, |at| at.port == *port),
            Check::Tcp => self.ends.is_some() && !self.icmp,
            Check::Icmp => self.icmp,
            Check::V4 => self.ends.is_some_and(|(source, _)| source.addr.is_v4()),
            Check::V6 => self.ends.is_some_and(|(source, _)| !source.addr.is_v4()),
            Check::Received => self.fate != Fate::Sent,
            Check::Sent => self.fate == Fate::Sent,
            Check::Dropped => self.dropped().is_some(),
            Check::Reason(reason) => self.dropped() == Some(*reason),
            Check::Not | Check::And | Check::Or => unreachable!("these test nothing"),
        }
    }

    fn any(&self, end: End, fits: impl Fn(Endpoint) -> bool) -> bool {
        self.ends.is_some_and(|(source, destination)| match end {
            End::Either => fits(source) || fits(destination),
            End::Source => fits(source),
            End::Destination => fits(destination),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fourwave_wire::{Flags, FourTuple, FrameHead, Link, Mac, build};
    use std::net::SocketAddr;

    const TAKEN: Fate = Fate::Received { from: None, dropped: None };

    fn endpoint(text: &str) -> Endpoint {
        text.parse::<SocketAddr>().unwrap().into()
    }

    /// From 10.0.0.2:5000 to 10.0.0.1:80.
    fn frame() -> Vec<u8> {
        let head = FrameHead {
            link: Link::new(Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])),
            tuple: FourTuple { local: endpoint("10.0.0.2:5000"), remote: endpoint("10.0.0.1:80") },
            ttl: 64,
            flags: Flags::SYN,
            ..FrameHead::default()
        };
        let mut frame = vec![0; 200];
        let length = build(&mut frame, &head, 0, |_| {}).unwrap();
        frame.truncate(length);
        frame
    }

    fn takes(steps: &[Step], fate: Fate) -> bool {
        Filter::new(steps).unwrap().takes(fate, &frame())
    }

    #[test]
    fn tests_see_what_the_frame_is() {
        let host = |end, text: &str| Step::Host(end, text.parse().unwrap());
        for (step, fits) in [
            (host(End::Either, "10.0.0.1"), true),
            (host(End::Source, "10.0.0.1"), false),
            (host(End::Destination, "10.0.0.1"), true),
            (host(End::Source, "10.0.0.2"), true),
            (Step::Port(End::Either, 80), true),
            (Step::Port(End::Source, 80), false),
            (Step::Port(End::Source, 5000), true),
            (Step::Port(End::Either, 81), false),
            (Step::Tcp, true),
            (Step::Icmp, false),
            (Step::V4, true),
            (Step::V6, false),
            (Step::Received, true),
            (Step::Sent, false),
            (Step::Dropped, false),
        ] {
            assert_eq!(takes(std::slice::from_ref(&step), TAKEN), fits, "{step:?}");
        }
        assert!(takes(&[], TAKEN) && takes(&[Step::Sent], Fate::Sent));
        let reason = Reason::find("out_of_window");
        let dropped = Fate::Received { from: None, dropped: reason };
        assert!(takes(&[Step::Dropped], dropped));
        assert!(takes(&[Step::Reason("out_of_window".into())], dropped));
        assert!(!takes(&[Step::Reason("ListenOverflows".into())], dropped));
        // Nothing can be told about this but its fate.
        let garbage = Filter::new(&[Step::Tcp, Step::V6, Step::Or]).unwrap();
        assert!(!garbage.takes(TAKEN, &[0; 20]));
    }

    #[test]
    fn connectives_work_as_their_names_say() {
        let (yes, no) = (Step::Tcp, Step::Icmp);
        for a in [false, true] {
            assert_eq!(takes(&[if a { &yes } else { &no }.clone(), Step::Not], TAKEN), !a);
            for b in [false, true] {
                let operand = |on: bool| if on { yes.clone() } else { no.clone() };
                // A third result below, which must stay what it is.
                for under in [false, true] {
                    let pair = |step: Step| {
                        vec![operand(under), operand(a), operand(b), step, Step::Not, Step::And]
                    };
                    assert_eq!(takes(&pair(Step::And), TAKEN), under && !(a && b));
                    assert_eq!(takes(&pair(Step::Or), TAKEN), under && !(a || b));
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for steps in
            [&[Step::And][..], &[Step::Tcp, Step::Or], &[Step::Not], &[Step::Tcp, Step::Tcp]]
        {
            assert_eq!(Filter::new(steps).unwrap_err(), BadFilter::Unbalanced);
        }
        assert_eq!(Filter::new(&vec![Step::Tcp; 65]).unwrap_err(), BadFilter::TooLong);
        let unknown = Filter::new(&[Step::Reason("weather".into())]);
        assert_eq!(unknown.unwrap_err(), BadFilter::NoReason("weather".into()));
    }

    #[test]
    fn slots_go_round_and_what_finds_none_is_counted() {
        let tap = Tap::new(Filter::new(&[]).unwrap(), 2, 60).unwrap();
        for round in 0..2 {
            for _ in 0..SLOTS {
                let mut slot = tap.slot(1, TAKEN, &frame()).unwrap();
                slot.fill(7, TAKEN, &[9; 100]);
                tap.pass(1, slot);
            }
            assert!(tap.slot(1, TAKEN, &frame()).is_none());
            assert_eq!(tap.counts()[1].missed, round + 1);
            while let Some(slot) = tap.take(1) {
                assert_eq!((slot.bytes(), slot.length, slot.at), (&[9; 60][..], 100, 7));
                tap.give_back(1, slot);
            }
        }
        assert_eq!(tap.counts()[1].matched, 2 * (SLOTS as u64 + 1));
        assert_eq!(tap.counts()[0], CaptureCount::default());
    }
}
