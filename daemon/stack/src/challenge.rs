//! How many challenge ACKs all connections together may send (RFC 5961 §7).

use fourwave_tcp::Nanos;

const SECOND: Nanos = 1_000_000_000;

/// What is left of the current second's challenge ACKs.
#[derive(Debug, Default)]
pub(crate) struct Challenges {
    second: u64,
    left: u32,
}

impl Challenges {
    /// Whether one more may be sent. How many a second has is drawn anew each time, between half
    /// of `limit` and half as much again, so that nobody learns by counting what others got
    /// (as Linux since CVE-2016-5696).
    pub(crate) fn allow(&mut self, now: Nanos, limit: u32, random: impl FnOnce() -> u64) -> bool {
        // Counted from 1: no second has begun yet.
        let second = now / SECOND + 1;
        if second != self.second {
            self.second = second;
            let span = u64::from(limit.max(1));
            // Below 2^33; at most what u32 holds counts.
            let drawn = u64::from(limit.div_ceil(2)) + random() % span;
            self.left = if limit == 0 { 0 } else { drawn.min(u64::from(u32::MAX)) as u32 };
        }
        let allowed = self.left > 0;
        self.left -= u32::from(allowed);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_between_half_and_half_as_many_again() {
        let mut counts = std::collections::BTreeSet::new();
        let mut challenges = Challenges::default();
        for second in 0..200 {
            let now = second * SECOND + 7;
            let random = second.wrapping_mul(6_364_136_223_846_793_005) >> 7;
            let allowed = (0..100).filter(|_| challenges.allow(now, 10, || random)).count();
            counts.insert(allowed);
        }
        assert_eq!(counts, (5..=14).collect());
        assert!(!challenges.allow(SECOND, 0, || 77));
    }
}
