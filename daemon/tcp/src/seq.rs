//! Sequence numbers (RFC 9293 §3.4).

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A point in the sequence space, which is a circle: there is a before and an after within half a
/// turn, and no order over all of it, hence no `Ord`.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct SeqNum(pub u32);

impl SeqNum {
    /// How far `self` lies ahead of `other`; negative when behind. Half a turn counts as behind.
    #[inline]
    pub const fn distance_from(self, other: SeqNum) -> i32 {
        // Two's complement is the circle.
        self.0.wrapping_sub(other.0) as i32
    }

    /// Strictly behind `other`.
    #[inline]
    pub const fn before(self, other: SeqNum) -> bool {
        self.distance_from(other) < 0
    }

    /// Strictly ahead of `other`.
    #[inline]
    pub const fn after(self, other: SeqNum) -> bool {
        self.distance_from(other) > 0
    }

    /// `len` further on.
    #[inline]
    #[must_use]
    pub const fn plus(self, len: u32) -> SeqNum {
        SeqNum(self.0.wrapping_add(len))
    }
}

impl fmt::Debug for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seq {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prop_assert, prop_assert_eq, proptest};

    #[test]
    fn the_circle_closes() {
        assert!(SeqNum(u32::MAX).before(SeqNum(0)));
        assert!(SeqNum(5).after(SeqNum(u32::MAX - 5)));
        assert!(!SeqNum(7).before(SeqNum(7)) && !SeqNum(7).after(SeqNum(7)));
        assert_eq!(SeqNum(u32::MAX).plus(2), SeqNum(1));
    }

    proptest! {
        /// The reference: a u64 line on which both points lie less than half a turn apart.
        #[test]
        fn agrees_with_a_line(start: u64, step in 1u32..0x8000_0000) {
            let near = SeqNum(start as u32);
            let far = SeqNum((u128::from(start) + u128::from(step)) as u32);
            prop_assert!(near.before(far) && far.after(near));
            prop_assert!(!near.after(far) && !far.before(near));
            prop_assert_eq!(far.distance_from(near), step as i32);
            prop_assert_eq!(near.plus(step), far);
        }
    }
}
