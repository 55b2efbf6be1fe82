//! A fixed set of small integers with a fast circular "which comes next".

/// One bit per member and one bit per word of members.
pub(crate) struct Bits {
    words: Box<[u64]>,
    summary: Box<[u64]>,
}

impl Bits {
    /// An empty set of the numbers below `count`, a multiple of 64.
    pub(crate) fn new(count: u32) -> Self {
        assert!(count.is_multiple_of(64));
        let words = count as usize / 64;
        Bits {
            words: vec![0; words].into_boxed_slice(),
            summary: vec![0; words.div_ceil(64)].into_boxed_slice(),
        }
    }

    pub(crate) fn set(&mut self, bit: u32) {
        let word = bit as usize / 64;
        self.words[word] |= 1 << (bit % 64);
        self.summary[word / 64] |= 1 << (word % 64);
    }

    pub(crate) fn clear(&mut self, bit: u32) {
        let word = bit as usize / 64;
        self.words[word] &= !(1 << (bit % 64));
        if self.words[word] == 0 {
            self.summary[word / 64] &= !(1 << (word % 64));
        }
    }

    /// Distance from `at` to the next member going round, 1 to the size of the set; `at` itself
    /// comes last.
    pub(crate) fn next_after(&self, at: u32) -> Option<u32> {
        let count = self.words.len() as u32 * 64;
        if let Some(found) = self.first_from(at + 1) {
            return Some(found - at);
        }
        self.first_from(0).map(|found| found + count - at)
    }

    fn first_from(&self, start: u32) -> Option<u32> {
        let word = start as usize / 64;
        let rest = self.words.get(word)? & (u64::MAX << (start % 64));
        if rest != 0 {
            return Some(word as u32 * 64 + rest.trailing_zeros());
        }
        let mut group = (word + 1) / 64;
        let mut words = self.summary.get(group)? & (u64::MAX << ((word + 1) % 64));
        while words == 0 {
            group += 1;
            words = *self.summary.get(group)?;
        }
        let word = group * 64 + words.trailing_zeros() as usize;
        Some(word as u32 * 64 + self.words[word].trailing_zeros())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_sorted_set_finds(
            count in prop_oneof![Just(64u32), Just(256), Just(65_536)],
            picks in prop::collection::vec((any::<u32>(), any::<bool>()), 0..40),
            at in any::<u32>(),
        ) {
            let mut bits = Bits::new(count);
            let mut model = BTreeSet::new();
            for (pick, add) in picks {
                let bit = pick % count;
                if add {
                    bits.set(bit);
                    model.insert(bit);
                } else {
                    bits.clear(bit);
                    model.remove(&bit);
                }
            }
            let at = at % count;
            let expected = model
                .range(at + 1..)
                .next()
                .map(|&found| found - at)
                .or_else(|| model.range(..=at).next().map(|&found| found + count - at));
            prop_assert_eq!(bits.next_after(at), expected);
        }
    }
}
