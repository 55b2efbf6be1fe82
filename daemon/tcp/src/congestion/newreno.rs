//! Congestion avoidance by one segment a round trip (RFC 5681 §3.1), counted in bytes (RFC 3465).

use super::{Congestion, MIN_SEGMENTS};

impl Congestion {
    /// `acked` bytes left the network in good order.
    #[inline]
    pub(super) fn avoid(&mut self, acked: u32, mss: u32) {
        self.credit = self.credit.saturating_add(acked);
        if self.credit >= self.window {
            self.credit -= self.window;
            self.window = self.window.saturating_add(mss);
        }
    }

    /// Half of what was in flight is what the path takes (RFC 5681 equation 4).
    pub(super) fn halve(&mut self, flight: u32, mss: u32) -> u32 {
        self.credit = 0;
        (flight / 2).max(MIN_SEGMENTS * mss)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::CongestionControl;
    use crate::congestion::{Congestion, Growth};

    const MSS: u32 = 1000;

    fn reno() -> Congestion {
        Congestion::new(CongestionControl::NewReno, MSS, 10)
    }

    fn ack(segments: u32, flight: u32) -> Growth {
        Growth {
            acked: segments * MSS,
            flight: flight * MSS,
            is_limited: false,
            una: 0,
            sent: 0,
            echoed: None,
            mss: MSS,
            now: 0,
            srtt: 0,
        }
    }

    #[test]
    fn doubles_in_slow_start_then_adds_one_segment_a_window() {
        let mut congestion = reno();
        for _ in 0..5 {
            congestion.grow(&ack(2, 10));
        }
        assert_eq!(congestion.window(), 20 * MSS);
        congestion.threshold = 20 * MSS;
        for _ in 0..10 {
            congestion.grow(&ack(2, 20));
        }
        assert_eq!(congestion.window(), 21 * MSS);
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        let mut congestion = reno();
        congestion.grow(&ack(1, 5));
        assert_eq!(congestion.window(), 10 * MSS);
        congestion.threshold = 5 * MSS;
        congestion.grow(&ack(1, 8));
        assert_eq!(congestion.credit, 0);
    }

    #[test]
    fn the_threshold_is_at_least_two_segments() {
        let mut congestion = reno();
        congestion.reduce(MSS, MSS);
        assert_eq!(congestion.threshold, 2 * MSS);
    }
}
