//! Round-trip time and the retransmission timeout (RFC 6298).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::config::{Config, Nanos};

/// No segment is being timed.
const NOT_TIMED: i64 = i64::MIN;

/// The estimator, and the one segment being timed.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Rtt {
    /// Smoothed round-trip time; 0 before the first sample.
    srtt: Nanos,
    /// Mean deviation.
    rttvar: Nanos,
    /// Smallest sample.
    min: Nanos,
    /// Timeout, not backed off.
    rto: Nanos,
    /// Position whose acknowledgement ends the measurement.
    timed_end: i64,
    timed_at: Nanos,
}

impl Rtt {
    pub(crate) fn new(cfg: &Config) -> Rtt {
        Rtt {
            srtt: 0,
            rttvar: 0,
            min: Nanos::MAX,
            rto: cfg.rto_initial,
            timed_end: NOT_TIMED,
            timed_at: 0,
        }
    }

    pub(crate) fn srtt(&self) -> Option<Nanos> {
        (self.srtt > 0).then_some(self.srtt)
    }

    /// Mean deviation of the round-trip time.
    pub(crate) fn variance(&self) -> Nanos {
        self.rttvar
    }

    /// The smallest sample.
    pub(crate) fn min(&self) -> Option<Nanos> {
        (self.min != Nanos::MAX).then_some(self.min)
    }

    pub(crate) fn rto(&self) -> Nanos {
        self.rto
    }

    /// How long a segment may be overtaken before it counts as lost (RFC 8985 §6.2 step 4): a quarter
    /// of the smallest round trip.
    pub(crate) fn reordering_window(&self) -> Nanos {
        if self.srtt == 0 { self.rto } else { (self.min / 4).min(self.srtt) }
    }

    /// The timeout after `backoff` doublings (RFC 6298 §5.5).
    pub(crate) fn backed_off(&self, cfg: &Config, backoff: u8) -> Nanos {
        let doubled = self.rto.checked_shl(u32::from(backoff)).unwrap_or(Nanos::MAX);
        // A shift that loses high bits comes out smaller than what was shifted.
        if doubled >> u32::from(backoff).min(63) == self.rto {
            doubled.min(cfg.rto_max)
        } else {
            cfg.rto_max
        }
    }

    /// RFC 6298 §2.2, §2.3. Like Linux, and unlike the RFC's letter, the minimum bounds the
    /// variance term: the timeout always stays that far above the smoothed time.
    pub(crate) fn sample(&mut self, cfg: &Config, measured: Nanos) {
        let measured = measured.max(1);
        self.min = self.min.min(measured);
        if self.srtt == 0 {
            self.srtt = measured;
            self.rttvar = measured / 2;
        } else {
            self.rttvar = (3 * self.rttvar + self.srtt.abs_diff(measured)) / 4;
            self.srtt = (7 * self.srtt + measured) / 8;
        }
        self.rto = (self.srtt + cfg.rto_min.max(4 * self.rttvar)).min(cfg.rto_max);
    }

    /// RFC 6298 §5.7: a handshake that needed retransmissions and gave no sample starts the data
    /// phase carefully.
    pub(crate) fn open_after_loss(&mut self) {
        const CAREFUL: Nanos = 3 * crate::config::SECOND;
        if self.srtt == 0 {
            self.rto = self.rto.max(CAREFUL);
        }
    }

    /// Starts timing a segment sent for the first time that ends at `end`, unless one is timed.
    #[inline]
    pub(crate) fn start(&mut self, end: i64, now: Nanos) {
        if self.timed_end == NOT_TIMED {
            self.timed_end = end;
            self.timed_at = now;
        }
    }

    /// Karn (RFC 6298 §3): after a retransmission the answer is ambiguous.
    pub(crate) fn cancel(&mut self) {
        self.timed_end = NOT_TIMED;
    }

    /// Everything before `una` is acknowledged: the measurement, if this ends one.
    #[inline]
    pub(crate) fn acknowledged(&mut self, una: i64, now: Nanos) -> Option<Nanos> {
        if self.timed_end == NOT_TIMED || una < self.timed_end {
            return None;
        }
        self.timed_end = NOT_TIMED;
        Some(now.saturating_sub(self.timed_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MILLISECOND, SECOND};
    use proptest::prelude::prop;
    use proptest::{prop_assert, prop_assert_eq, proptest};

    #[test]
    fn follows_rfc_6298() {
        let cfg = Config { rto_min: MILLISECOND, ..Config::default() };
        let mut rtt = Rtt::new(&cfg);
        assert_eq!((rtt.srtt(), rtt.rto()), (None, SECOND));
        rtt.sample(&cfg, 100 * MILLISECOND);
        assert_eq!(rtt.srtt(), Some(100 * MILLISECOND));
        assert_eq!(rtt.reordering_window(), 25 * MILLISECOND);
        assert_eq!(rtt.rto(), 300 * MILLISECOND);
        rtt.sample(&cfg, 60 * MILLISECOND);
        // rttvar = 3/4 * 50 + 1/4 * 40, srtt = 7/8 * 100 + 1/8 * 60.
        assert_eq!(rtt.srtt(), Some(95 * MILLISECOND));
        assert_eq!(rtt.rto(), 95 * MILLISECOND + 4 * 47_500_000);
    }

    #[test]
    fn backs_off_to_the_maximum() {
        let cfg = Config::default();
        let rtt = Rtt::new(&cfg);
        assert_eq!(rtt.backed_off(&cfg, 0), SECOND);
        assert_eq!(rtt.backed_off(&cfg, 3), 8 * SECOND);
        for backoff in [7, 34, 63, 64, 255] {
            assert_eq!(rtt.backed_off(&cfg, backoff), cfg.rto_max, "{backoff}");
        }
    }

    #[test]
    fn only_a_clean_segment_is_a_sample() {
        let mut rtt = Rtt::new(&Config::default());
        rtt.start(100, 5);
        rtt.start(200, 6);
        assert_eq!(rtt.acknowledged(99, 50), None);
        assert_eq!(rtt.acknowledged(150, 50), Some(45));
        assert_eq!(rtt.acknowledged(150, 60), None);
        rtt.start(300, 70);
        rtt.cancel();
        assert_eq!(rtt.acknowledged(300, 80), None);
    }

    proptest! {
        #[test]
        fn the_timeout_stays_in_its_bounds(samples in prop::collection::vec(0u64..1 << 40, 1..50)) {
            let cfg = Config::default();
            let mut rtt = Rtt::new(&cfg);
            for sample in samples {
                rtt.sample(&cfg, sample);
                prop_assert!(rtt.rto() <= cfg.rto_max);
                prop_assert!(rtt.rto() >= cfg.rto_min.min(cfg.rto_max));
                prop_assert!(rtt.srtt().is_some());
            }
        }

        /// The reference is RFC 6298 §2.2 and §2.3 in real numbers. Integers lose less than a
        /// nanosecond in each step, and old losses fade with the samples that they were made in.
        #[test]
        fn agrees_with_real_numbers(
            samples in prop::collection::vec(1u64..100 * SECOND, 1..100),
            rto_min in 1u64..SECOND,
        ) {
            let cfg = Config { rto_min, rto_max: Nanos::MAX, ..Config::default() };
            let mut rtt = Rtt::new(&cfg);
            let (mut srtt, mut rttvar) = (0.0f64, 0.0f64);
            for (count, sample) in samples.into_iter().enumerate() {
                let measured = sample as f64;
                if count == 0 {
                    (srtt, rttvar) = (measured, measured / 2.0);
                } else {
                    rttvar = 0.75 * rttvar + 0.25 * (srtt - measured).abs();
                    srtt = 0.875 * srtt + 0.125 * measured;
                }
                rtt.sample(&cfg, sample);
                let rto = srtt + (rto_min as f64).max(4.0 * rttvar);
                prop_assert!((rtt.srtt().unwrap() as f64 - srtt).abs() <= 10.0, "{srtt}");
                prop_assert!((rtt.rto() as f64 - rto).abs() <= 100.0, "{rto}");
            }
        }

        #[test]
        fn backs_off_as_wide_numbers_do(sample in 1u64..SECOND << 8, backoff: u8, max in 1u64..1 << 50) {
            let cfg = Config { rto_max: max, ..Config::default() };
            let mut rtt = Rtt::new(&cfg);
            rtt.sample(&cfg, sample);
            let doubled = u128::from(rtt.rto()).checked_mul(1u128.checked_shl(backoff.into()).unwrap_or(0));
            let expected = match doubled {
                Some(doubled) if backoff < 64 => doubled.min(max.into()),
                Some(_) | None => max.into(),
            };
            prop_assert_eq!(u128::from(rtt.backed_off(&cfg, backoff)), expected);
        }
    }
}
