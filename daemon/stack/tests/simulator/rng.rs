//! Choices that a seed determines, or the bytes of a fuzzer.

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where choices come from.
#[derive(Clone)]
pub(crate) struct Rng {
    state: u64,
    /// What is left of a fuzzer's bytes; their end is the end of choice.
    bytes: Option<std::vec::IntoIter<u8>>,
}

impl Rng {
    /// Random numbers (splitmix64).
    pub(crate) fn new(seed: u64) -> Rng {
        // Mixed, or the next seed's numbers would be this one's from the second on.
        Rng { state: mix(seed.wrapping_mul(STEP)), bytes: None }
    }

    /// Each choice takes as many bytes as it needs; 0 when there are no more.
    #[allow(dead_code, reason = "fuzz targets share this file")]
    pub(crate) fn from_bytes(bytes: &[u8]) -> Rng {
        Rng { state: 0, bytes: Some(Vec::from(bytes).into_iter()) }
    }

    /// Whether a fuzzer's bytes are used up.
    pub(crate) fn is_over(&self) -> bool {
        self.bytes.as_ref().is_some_and(|bytes| bytes.len() == 0)
    }

    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        if self.bytes.is_some() {
            return self.take(8);
        }
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// Below `limit`, which is not 0.
    #[inline]
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        if self.bytes.is_none() {
            // The upper half of the product: a division would cost more than what it decides.
            return ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64;
        }
        let width = (u64::BITS - (limit - 1).leading_zeros()).div_ceil(8);
        self.take(width) % limit
    }

    #[inline]
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        // Most faults are off most of the time.
        per_mille > 0 && self.below(1_000) < per_mille
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn take(&mut self, width: u32) -> u64 {
        let bytes = self.bytes.iter_mut().flatten().take(width as usize);
        bytes.fold(0, |number, byte| number << 8 | u64::from(byte))
    }
}

fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}
