//! Choices that a seed brings back, or that a fuzzer makes.

/// Where choices come from.
pub(crate) struct Random {
    state: u64,
    /// What is left of a fuzzer's bytes; their end is the end of choice.
    bytes: Option<std::vec::IntoIter<u8>>,
}

impl Random {
    /// xorshift64*: small, and the same everywhere.
    pub(crate) fn new(seed: u64) -> Random {
        Random { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, bytes: None }
    }

    /// Each choice takes as many bytes as it needs; 0 when there are no more.
    #[allow(dead_code, reason = "a fuzz target shares this file")]
    pub(crate) fn from_bytes(bytes: &[u8]) -> Random {
        Random { state: 0, bytes: Some(Vec::from(bytes).into_iter()) }
    }

    /// Whether a fuzzer's bytes are used up.
    pub(crate) fn is_over(&self) -> bool {
        self.bytes.as_ref().is_some_and(|bytes| bytes.len() == 0)
    }

    /// 48 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        if self.bytes.is_some() {
            return self.take(6);
        }
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        if self.bytes.is_none() {
            return self.next() % limit;
        }
        let width = (u64::BITS - (limit - 1).leading_zeros()).div_ceil(8);
        self.take(width) % limit
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn take(&mut self, width: u32) -> u64 {
        let bytes = self.bytes.iter_mut().flatten().take(width as usize);
        bytes.fold(0, |number, byte| number << 8 | u64::from(byte))
    }
}
