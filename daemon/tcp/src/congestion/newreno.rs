//! Slow start and congestion avoidance (RFC 5681 §3.1), counted in bytes (RFC 3465).

use super::Congestion;

impl Congestion {
    /// `acked` bytes left the network in good order, `flight` were in it before.
    #[inline]
    pub(crate) fn grow(&mut self, acked: u32, flight: u32, mss: u32) {
        if self.window < self.threshold {
            // A window that is not used is not probed (RFC 7661 §3).
            if flight.saturating_mul(2) > self.window {
                // RFC 3465 §2.2: two segments make up for delayed ACKs.
                self.window = self.window.saturating_add(acked.min(2 * mss));
            }
        } else if flight.saturating_add(mss) > self.window {
            self.credit = self.credit.saturating_add(acked);
            if self.credit >= self.window {
                self.credit -= self.window;
                self.window = self.window.saturating_add(mss);
            }
        }
    }

    /// Loss: half of what was in flight is what the path takes (RFC 5681 equation 4).
    pub(crate) fn reduce(&mut self, flight: u32, mss: u32) {
        self.threshold = (flight / 2).max(2 * mss);
        self.credit = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    #[test]
    fn doubles_in_slow_start_then_adds_one_segment_a_window() {
        let mut congestion = Congestion::new(MSS, 10);
        for _ in 0..5 {
            congestion.grow(2 * MSS, 10 * MSS, MSS);
        }
        assert_eq!(congestion.window(), 20 * MSS);
        congestion.threshold = 20 * MSS;
        for _ in 0..10 {
            congestion.grow(2 * MSS, 20 * MSS, MSS);
        }
        assert_eq!(congestion.window(), 21 * MSS);
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        let mut congestion = Congestion::new(MSS, 10);
        congestion.grow(MSS, 5 * MSS, MSS);
        assert_eq!(congestion.window(), 10 * MSS);
        congestion.threshold = 5 * MSS;
        congestion.grow(MSS, 9 * MSS, MSS);
        assert_eq!(congestion.credit, 0);
    }

    #[test]
    fn the_threshold_is_at_least_two_segments() {
        let mut congestion = Congestion::new(MSS, 10);
        congestion.reduce(MSS, MSS);
        assert_eq!(congestion.threshold, 2 * MSS);
    }
}
