//! SipHash-1-3 over whole 64-bit words.
//!
//! The keyed hash behind initial sequence numbers, timestamp offsets, cookies and port offsets, all of
//! which a peer can see. One compression and three finalization rounds are what Rust's own hash maps and
//! Linux's `hsiphash` trust against an attacker who chooses the input and sees only its effects.

/// A 128-bit key.
#[derive(Clone, Copy)]
pub(crate) struct SipKey {
    k0: u64,
    k1: u64,
}

impl SipKey {
    /// Both halves should be uniformly random.
    pub(crate) const fn new(k0: u64, k1: u64) -> Self {
        SipKey { k0, k1 }
    }

    /// SipHash-1-3 of the little-endian bytes of `words`.
    #[inline]
    pub(crate) fn hash<const N: usize>(&self, words: [u64; N]) -> u64 {
        let mut v = [
            self.k0 ^ 0x736f_6d65_7073_6575,
            self.k1 ^ 0x646f_7261_6e64_6f6d,
            self.k0 ^ 0x6c79_6765_6e65_7261,
            self.k1 ^ 0x7465_6462_7974_6573,
        ];
        for word in words {
            compress(&mut v, word);
        }
        compress(&mut v, (N as u64 * 8) << 56);
        v[2] ^= 0xff;
        for _ in 0..3 {
            round(&mut v);
        }
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }
}

/// Spreads a hash over `count` places, below 2^32, by multiplication: no division, no power of two.
#[inline]
pub(crate) fn spread(hash: u32, count: usize) -> usize {
    ((u64::from(hash) * count as u64) >> 32) as usize
}

#[inline(always)]
fn compress(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    v[0] ^= word;
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hasher};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The standard library's `DefaultHasher::new()` is SipHash-1-3 under the zero key.
        #[test]
        fn equals_the_standard_library_under_the_zero_key(a: u64, b: u64, c: u64) {
            let reference = |words: &[u64]| {
                let mut hasher = DefaultHasher::new();
                for word in words {
                    hasher.write(&word.to_le_bytes());
                }
                hasher.finish()
            };
            let key = SipKey::new(0, 0);
            prop_assert_eq!(key.hash([a]), reference(&[a]));
            prop_assert_eq!(key.hash([a, b]), reference(&[a, b]));
            prop_assert_eq!(key.hash([a, b, c]), reference(&[a, b, c]));
            prop_assert_ne!(SipKey::new(1, 0).hash([a]), reference(&[a]));
        }
    }
}
