//! The Internet checksum (RFC 1071), summed eight bytes at a time.

/// A running one's-complement sum in the machine's byte order.
///
/// The sum commutes with a byte swap (RFC 1071 §2B), so words are added as they lie in memory and
/// only the stored result has an order. Slices must start at an even offset of what is summed:
/// only the last one may have an odd length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    #[inline]
    pub fn new() -> Sum {
        Sum(0)
    }

    /// The sum of words as they lie in a packet.
    #[inline]
    pub(crate) fn of_words<const N: usize>(words: [u32; N]) -> Sum {
        let mut sum = 0;
        let mut n = 0;
        // A plain loop, which is unrolled where it stands.
        while n < N {
            sum += u64::from(words[n]);
            n += 1;
        }
        Sum(sum)
    }

    /// The sum of both, neither of which is of more than a packet.
    #[inline]
    #[must_use]
    pub(crate) fn plus(self, other: Sum) -> Sum {
        Sum(self.0 + other.0)
    }

    /// Adds `bytes`; an odd last byte counts as if a zero followed it.
    #[inline]
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Sum {
        let (words, rest) = bytes.as_chunks::<8>();
        // Halves of 32 bits cannot overflow the accumulator below 2^32 words, and need no carry.
        let mut sum = words.iter().fold(self.0, |sum, word| {
            let word = u64::from_ne_bytes(*word);
            sum + (word & 0xffff_ffff) + (word >> 32)
        });
        let (half, rest) = rest.as_chunks::<4>();
        if let [half] = half {
            sum += u64::from(u32::from_ne_bytes(*half));
        }
        sum += match *rest {
            [a, b, c] => {
                u64::from(u16::from_ne_bytes([a, b])) + u64::from(u16::from_ne_bytes([c, 0]))
            }
            [a, b] => u64::from(u16::from_ne_bytes([a, b])),
            [a] => u64::from(u16::from_ne_bytes([a, 0])),
            _ => 0,
        };
        Sum(sum)
    }

    /// Adds one number as it would lie in a packet (network order).
    #[inline]
    #[must_use]
    pub fn add_u16(self, value: u16) -> Sum {
        Sum(self.0 + u64::from(value.to_be()))
    }

    /// The checksum to store, as it lies in the packet.
    #[inline]
    pub fn finish(self) -> [u8; 2] {
        (!self.folded()).to_ne_bytes()
    }

    /// Whether what was summed, its checksum field included, is intact.
    #[inline]
    pub fn is_valid(self) -> bool {
        self.folded() == 0xffff
    }

    #[inline]
    fn folded(self) -> u16 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff_ffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        // Two folds of a 32-bit sum leave at most 0xffff.
        sum as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop};
    use proptest::{prop_assert_eq, proptest};

    /// RFC 1071 §1 as written: 16-bit big-endian words, carries added back.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn known_ipv4_header() {
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0x00,
            0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(Sum::new().add_bytes(&header).finish(), [0xb8, 0x61]);
        let mut stored = header;
        stored[10..12].copy_from_slice(&[0xb8, 0x61]);
        assert!(Sum::new().add_bytes(&stored).is_valid());
        stored[13] ^= 1;
        assert!(!Sum::new().add_bytes(&stored).is_valid());
    }

    #[test]
    fn largest_sum_folds() {
        let ones = std::vec![0xff; 65_536];
        assert_eq!(Sum::new().add_bytes(&ones).finish(), [0, 0]);
        assert_eq!(Sum(u64::MAX).folded(), 0xffff);
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference(bytes in prop::collection::vec(any::<u8>(), 0..3000),
                                     cut in 0usize..1500, number: u16) {
            // Cut at an even place, as the contract asks.
            let (head, tail) = bytes.split_at((cut * 2).min(bytes.len() & !1));
            let sum = Sum::new().add_bytes(head).add_u16(number).add_bytes(tail);
            let whole = [head, &number.to_be_bytes(), tail].concat();
            prop_assert_eq!(sum.finish(), reference(&whole).to_be_bytes());
        }
    }
}
