//! Which bytes beyond an edge have arrived: ours beyond the in-order edge, the peer's beyond what it
//! has acknowledged.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Ranges tracked. More holes than this at once: later data is dropped and comes again.
pub(crate) const MAX_RANGES: usize = 16;

/// A range of received bytes, relative to the in-order edge.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct Range {
    pub(crate) start: u32,
    /// Exclusive.
    pub(crate) end: u32,
}

/// The out-of-order ranges: sorted, apart from each other (no two touch), none at the edge itself.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct Assembler {
    ranges: [Range; MAX_RANGES],
    /// Indices of the ranges, the one changed last first.
    order: [u8; MAX_RANGES],
    count: u32,
}

impl Assembler {
    /// Whether there is no hole.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn ranges(&self) -> &[Range] {
        &self.ranges[..self.count as usize]
    }

    /// The ranges, the one that grew last first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = Range> {
        self.order[..self.count as usize].iter().map(|index| self.ranges[usize::from(*index)])
    }

    /// What of `range` is here already: the first such stretch.
    pub(crate) fn overlap(&self, range: Range) -> Option<Range> {
        let met = self.ranges().iter().find(|other| other.end > range.start)?;
        let (start, end) = (met.start.max(range.start), met.end.min(range.end));
        (start < end).then_some(Range { start, end })
    }

    /// One past the highest byte that arrived; 0 when nothing did.
    pub(crate) fn end(&self) -> u32 {
        self.ranges().last().map_or(0, |range| range.end)
    }

    /// Whether `range` can be added: it merges with another, or there is a free place.
    pub(crate) fn fits(&self, range: Range) -> bool {
        (self.count as usize) < MAX_RANGES || !self.touched(range).is_empty()
    }

    /// Adds `range`, which fits, is not empty and lies beyond the edge.
    pub(crate) fn insert(&mut self, range: Range) {
        assert!(range.start > 0 && range.start < range.end, "not beyond the edge: {range:?}");
        let touched = self.touched(range);
        if touched.is_empty() {
            let (at, len) = (touched.start, self.count as usize);
            assert!(len < MAX_RANGES, "the caller asked whether it fits");
            self.ranges.copy_within(at..len, at + 1);
            self.ranges[at] = range;
            for index in self.order[..len].iter_mut().filter(|index| usize::from(**index) >= at) {
                *index += 1;
            }
            self.order[len] = at as u8;
            self.count += 1;
            self.order[..=len].rotate_right(1);
            return;
        }
        let merged = Range {
            start: range.start.min(self.ranges[touched.start].start),
            end: range.end.max(self.ranges[touched.end - 1].end),
        };
        self.ranges[touched.start] = merged;
        self.remove(touched.start + 1, touched.end);
        let place = self.order.iter().position(|index| usize::from(*index) == touched.start);
        self.order[..=place.expect("each range has its place")].rotate_right(1);
    }

    /// The in-order edge moved on by `len` bytes that arrived in order; returns how many bytes it
    /// moves on now, those that it meets included.
    pub(crate) fn advance(&mut self, len: u32) -> u32 {
        let mut edge = len;
        let mut met = 0;
        for range in self.ranges() {
            if range.start > edge {
                break;
            }
            edge = edge.max(range.end);
            met += 1;
        }
        self.remove(0, met);
        for range in &mut self.ranges[..self.count as usize] {
            range.start -= edge;
            range.end -= edge;
        }
        edge
    }

    /// Indices of the ranges that overlap or touch `range`; where it belongs when there are none.
    fn touched(&self, range: Range) -> core::ops::Range<usize> {
        let ranges = self.ranges();
        let start = ranges.iter().take_while(|other| other.end < range.start).count();
        let more = ranges[start..].iter().take_while(|other| other.start <= range.end).count();
        start..start + more
    }

    /// Removes the ranges with index `from..to`.
    fn remove(&mut self, from: usize, to: usize) {
        let len = self.count as usize;
        self.ranges.copy_within(to..len, from);
        self.count -= (to - from) as u32;
        let mut kept = 0;
        for place in 0..len {
            let index = usize::from(self.order[place]);
            if index < from || index >= to {
                self.order[kept] = if index < from { index } else { index - (to - from) } as u8;
                kept += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, prop};
    use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};
    use std::collections::BTreeMap;

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Insert { start: u32, len: u32 },
        Advance { len: u32 },
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let insert = (1u32..120, 1u32..12).prop_map(|(start, len)| Op::Insert { start, len });
        let advance = (1u32..20).prop_map(|len| Op::Advance { len });
        prop::collection::vec(prop_oneof![4 => insert, 1 => advance], 0..60)
    }

    proptest! {
        /// The reference keeps every single byte, and when it came last.
        #[test]
        fn agrees_with_a_map_of_bytes(ops in ops()) {
            let mut assembler = Assembler::default();
            let mut bytes: BTreeMap<u32, usize> = BTreeMap::new();
            for (time, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Insert { start, len } => {
                        let range = Range { start, end: start + len };
                        let known: Vec<u32> =
                            (start..start + len).filter(|byte| bytes.contains_key(byte)).collect();
                        let overlap = assembler.overlap(range);
                        prop_assert_eq!(overlap.map(|o| o.start), known.first().copied());
                        prop_assert!(overlap.is_none_or(|o| (o.start..o.end).all(|b| known.contains(&b))));
                        let mut after = bytes.clone();
                        after.extend((start..start + len).map(|byte| (byte, time)));
                        let fits = runs(&after).len() <= MAX_RANGES;
                        prop_assert_eq!(assembler.fits(range), fits);
                        if fits {
                            assembler.insert(range);
                            bytes = after;
                        }
                    }
                    Op::Advance { len } => {
                        let mut edge = len;
                        while bytes.contains_key(&edge) {
                            edge += 1;
                        }
                        bytes = bytes
                            .into_iter()
                            .filter(|(byte, _)| *byte >= edge)
                            .map(|(byte, time)| (byte - edge, time))
                            .collect();
                        prop_assert_eq!(assembler.advance(len), edge);
                    }
                }
                let mut runs = runs(&bytes);
                let ranges: Vec<Range> = runs.iter().map(|run| run.0).collect();
                prop_assert_eq!(assembler.ranges(), &ranges[..]);
                runs.sort_by_key(|run| std::cmp::Reverse(run.1));
                let newest: Vec<Range> = runs.iter().map(|run| run.0).collect();
                prop_assert_eq!(assembler.newest().collect::<Vec<_>>(), newest);
            }
        }
    }

    /// Stretches of bytes, each with the time of its newest one.
    fn runs(bytes: &BTreeMap<u32, usize>) -> Vec<(Range, usize)> {
        let mut runs: Vec<(Range, usize)> = Vec::new();
        for (&byte, &time) in bytes {
            match runs.last_mut() {
                Some((run, newest)) if run.end == byte => {
                    run.end = byte + 1;
                    *newest = time.max(*newest);
                }
                _ => runs.push((Range { start: byte, end: byte + 1 }, time)),
            }
        }
        runs
    }

    #[test]
    fn a_full_assembler_still_merges() {
        let mut assembler = Assembler::default();
        for i in 0..MAX_RANGES as u32 {
            assembler.insert(Range { start: 10 + i * 10, end: 15 + i * 10 });
        }
        let last = assembler.end();
        assert!(!assembler.fits(Range { start: 200, end: 201 }));
        let bridge = Range { start: 15, end: 20 };
        assert!(assembler.fits(bridge));
        assembler.insert(bridge);
        assert_eq!(assembler.ranges().len(), MAX_RANGES - 1);
        assert_eq!(assembler.ranges()[0], Range { start: 10, end: 25 });
        assert_eq!(assembler.advance(10), 25);
        assert_eq!(assembler.end(), last - 25);
    }
}
