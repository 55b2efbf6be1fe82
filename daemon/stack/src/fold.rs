//! A keyed hash for tables: folded multiplication.
//!
//! It places flows in buckets and at workers, and nothing that leaves the machine is made from it.
//! So an attacker chooses inputs but never sees an output, and all that is asked for is that no
//! inputs collide under many keys. A product of two 64-bit factors, each an input under a secret
//! mask, its halves added without carry, gives that in a fraction of the time of SipHash, which stays
//! where a value is seen outside (see [`crate::keys`]). Linux places its flows by less (`jhash`).

use fourwave_wire::Addr;

/// The secret masks.
#[derive(Clone, Copy)]
pub(crate) struct FoldKey([u64; 8]);

impl FoldKey {
    /// From uniformly random, secret numbers.
    pub(crate) fn generate(random: &mut impl FnMut() -> u64) -> FoldKey {
        FoldKey(std::array::from_fn(|_| random()))
    }

    /// The hash of two addresses, in this order, and of a number.
    #[inline]
    pub(crate) fn hash(&self, a: &Addr, b: &Addr, number: u64) -> u64 {
        let [k0, k1, k2, k3, k4, k5, k6, k7] = self.0;
        let ([a0, a1], [b0, b1]) = (halves(a), halves(b));
        // Independent of each other: they are computed at the same time.
        let (a, b) = (fold(a0 ^ k0, a1 ^ k1), fold(b0 ^ k2, b1 ^ k3));
        // One product of what has only its low bits changed is an arithmetic progression: a second
        // one breaks it up.
        fold(fold(a ^ number ^ k4, b ^ k5) ^ k6, k7)
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// As they lie in memory: a hash has no byte order.
#[inline]
fn halves(addr: &Addr) -> [u64; 2] {
    let bits = u128::from_ne_bytes(addr.0);
    [bits as u64, (bits >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(seed: u64) -> FoldKey {
        let mut state = seed;
        FoldKey::generate(&mut || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
        })
    }

    fn v4(number: u32) -> Addr {
        Addr::from_v4(number.to_be_bytes())
    }

    /// Most records in one of `count` places, of `hashes`, beside what chance alone would bring.
    fn crowding(hashes: impl Iterator<Item = u64>, count: usize) -> f64 {
        let mut places = vec![0u32; count];
        let mut total = 0;
        for hash in hashes {
            places[crate::siphash::spread(hash as u32, count)] += 1;
            total += 1;
        }
        let mean = f64::from(total) / count as f64;
        let variance =
            places.iter().map(|&n| (f64::from(n) - mean).powi(2)).sum::<f64>() / count as f64;
        variance / mean
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// What an attacker, or a benchmark, would send: runs of ports and of addresses, in steps
        /// that are powers of two. Random places have a variance that equals their mean.
        #[test]
        fn regular_inputs_spread_like_random_ones(
            seed: u64, shift in 0u32..16, first: u32, port: u16,
        ) {
            let (key, local) = (key(seed), v4(0x0a00_0001));
            let ports = (0..40_000u64).map(|n| {
                let ports = 80 << 16 | u64::from(port.wrapping_add((n as u16) << (shift % 4)));
                key.hash(&local, &v4(first.wrapping_add(n as u32 >> 12)), ports)
            });
            let addresses = (0..40_000u32).map(|n| {
                key.hash(&local, &v4(first.wrapping_add(n << shift)), u64::from(port))
            });
            // Steps of 2^16 over 32 bits repeat after 65,536 addresses.
            for hashes in [ports.collect::<Vec<_>>(), addresses.collect()] {
                let distinct: std::collections::BTreeSet<u64> = hashes.into_iter().collect();
                let crowding = crowding(distinct.iter().copied(), 4096);
                prop_assert!(crowding < 1.25, "{crowding}");
            }
        }

        /// Half of the bits change with each bit of the input.
        #[test]
        fn every_bit_counts(seed: u64, a: u128, b: u128, number: u64, bit in 0usize..320) {
            let key = key(seed);
            let (mut other_a, mut other_b, mut other_number) = (a, b, number);
            match bit {
                0..128 => other_a ^= 1 << bit,
                128..256 => other_b ^= 1 << (bit - 128),
                _ => other_number ^= 1 << (bit - 256),
            }
            let addr = |bits: u128| Addr(bits.to_be_bytes());
            let one = key.hash(&addr(a), &addr(b), number);
            let two = key.hash(&addr(other_a), &addr(other_b), other_number);
            let differ = (one ^ two).count_ones();
            prop_assert!((8..=56).contains(&differ), "{differ} bits");
        }
    }
}
