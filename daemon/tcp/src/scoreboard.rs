//! What the peer holds beyond what it has acknowledged, and what is therefore lost (RFC 6675 §4).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::assembler::{Assembler, Range};

/// Ranges that the peer reported, relative to the oldest position not acknowledged.
///
/// Of more ranges than fit, later ones are not noted: at worst their bytes are sent again.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub(crate) struct Scoreboard {
    held: Assembler,
}

impl Scoreboard {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// One past the highest byte held; 0 when there is none.
    pub(crate) fn end(&self) -> u32 {
        self.held.end()
    }

    /// Bytes held.
    #[inline]
    pub(crate) fn bytes(&self) -> u32 {
        self.bytes_below(u32::MAX)
    }

    /// Bytes held before `limit`.
    pub(crate) fn bytes_below(&self, limit: u32) -> u32 {
        let below = |range: &Range| range.end.min(limit).saturating_sub(range.start);
        self.held.ranges().iter().map(below).sum()
    }

    /// The peer reports `range`. One at the very edge contradicts its own acknowledgement and is
    /// ignored.
    pub(crate) fn add(&mut self, range: Range) {
        if 0 < range.start && range.start < range.end && self.held.fits(range) {
            self.held.insert(range);
        }
    }

    /// `acked` more bytes are acknowledged.
    #[inline]
    pub(crate) fn advance(&mut self, acked: u32) {
        // RFC 2018 §8: an acknowledgement that stops at or inside a range shows that the peer has
        // thrown it away; nothing that it reported counts any more.
        if !self.held.is_empty() && self.held.advance(acked) != acked {
            self.held = Assembler::default();
        }
    }

    /// Where the part ends whose holes are lost: `threshold` ranges, or more bytes than all but one
    /// of as many segments, are held beyond them (RFC 6675 §4, IsLost). 0: nothing is lost.
    pub(crate) fn lost_edge(&self, mss: u32, threshold: u8) -> u32 {
        let enough = u32::from(threshold.max(1) - 1) * mss;
        let mut bytes = 0;
        for (count, range) in (1..).zip(self.held.ranges().iter().rev()) {
            bytes += range.end - range.start;
            if count >= u32::from(threshold) || bytes > enough {
                return range.start;
            }
        }
        0
    }

    /// The first stretch that is not held in `from..limit`.
    pub(crate) fn hole(&self, from: u32, limit: u32) -> Option<Range> {
        let mut start = from;
        for range in self.held.ranges() {
            if range.start > start {
                let end = range.start.min(limit);
                return (start < end).then_some(Range { start, end });
            }
            start = start.max(range.end);
        }
        (start < limit).then_some(Range { start, end: limit })
    }

    /// Bytes not held in `from..limit`.
    pub(crate) fn missing(&self, from: u32, limit: u32) -> u32 {
        let span = limit.saturating_sub(from);
        span - (self.bytes_below(limit) - self.bytes_below(from.min(limit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, prop};
    use proptest::{prop_assert_eq, prop_oneof, proptest};

    const MSS: u32 = 10;

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Add { start: u32, len: u32 },
        Advance { len: u32 },
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let add = (0u32..150, 1u32..30).prop_map(|(start, len)| Op::Add { start, len });
        let advance = (1u32..60).prop_map(|len| Op::Advance { len });
        prop::collection::vec(prop_oneof![5 => add, 1 => advance], 0..40)
    }

    /// RFC 6675 §4 by the letter: `threshold` discontiguous sequences above it have been reported,
    /// or more than `threshold - 1` segments' worth of bytes.
    fn is_lost(held: &[bool], at: usize, threshold: u8) -> bool {
        let above = &held[at..];
        let starts = (0..above.len()).filter(|i| above[*i] && (*i == 0 || !above[*i - 1])).count();
        let bytes = above.iter().filter(|held| **held).count() as u32;
        !held[at] && (starts >= usize::from(threshold) || bytes > u32::from(threshold - 1) * MSS)
    }

    proptest! {
        /// The reference knows of every single byte whether it is held.
        #[test]
        fn agrees_with_the_rfc_by_the_letter(ops in ops(), threshold in 1u8..5) {
            let mut scoreboard = Scoreboard::default();
            let mut held = vec![false; 200];
            for op in ops {
                match op {
                    Op::Add { start, len } => {
                        let range = Range { start, end: start + len };
                        let full = start > 0 && !scoreboard.held.fits(range);
                        scoreboard.add(range);
                        if start > 0 && !full {
                            held[start as usize..(start + len) as usize].fill(true);
                        }
                    }
                    Op::Advance { len } => {
                        scoreboard.advance(len);
                        let len = len as usize;
                        if held[len] {
                            held.fill(false);
                        }
                        held.copy_within(len.., 0);
                        held[200 - len..].fill(false);
                    }
                }
                let count = |from: usize, to: usize| held[from..to].iter().filter(|h| **h).count();
                prop_assert_eq!(scoreboard.bytes() as usize, count(0, 200));
                prop_assert_eq!(scoreboard.bytes_below(70) as usize, count(0, 70));
                prop_assert_eq!(scoreboard.missing(20, 90) as usize, 70 - count(20, 90));
                let edge = scoreboard.lost_edge(MSS, threshold) as usize;
                for at in 0..200 {
                    prop_assert_eq!(!held[at] && at < edge, is_lost(&held, at, threshold), "{}", at);
                }
                let hole = scoreboard.hole(15, 150);
                let first = (15..150).find(|at| !held[*at]);
                prop_assert_eq!(hole.map(|hole| hole.start as usize), first);
                if let Some(hole) = hole {
                    let end = (hole.start as usize..150).find(|at| held[*at]).unwrap_or(150);
                    prop_assert_eq!(hole.end as usize, end);
                }
            }
        }
    }

    #[test]
    fn a_peer_that_reneges_is_not_believed_further() {
        let mut scoreboard = Scoreboard::default();
        scoreboard.add(Range { start: 0, end: 10 });
        assert!(scoreboard.is_empty(), "at the edge");
        scoreboard.add(Range { start: 10, end: 20 });
        scoreboard.add(Range { start: 30, end: 40 });
        scoreboard.advance(10);
        assert!(scoreboard.is_empty());
        scoreboard.add(Range { start: 10, end: 20 });
        scoreboard.add(Range { start: 30, end: 40 });
        scoreboard.advance(20);
        assert_eq!(scoreboard.bytes(), 10);
        scoreboard.advance(15);
        assert!(scoreboard.is_empty());
    }
}
