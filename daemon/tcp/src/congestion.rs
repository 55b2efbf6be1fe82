//! How much may be in flight (RFC 5681), and loss recovery without SACK (RFC 6582).
//!
//! The record is fixed in size. How the window grows and shrinks is in a file of its own per
//! algorithm; when it does is here.

mod newreno;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Congestion state of one connection; sizes in bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Congestion {
    /// Highest position sent when loss was last noticed. Nothing below it starts another recovery.
    recover: i64,
    window: u32,
    /// Slow start ends here (ssthresh).
    threshold: u32,
    /// Bytes acknowledged towards the next step of congestion avoidance.
    credit: u32,
    /// 1 during fast recovery.
    recovering: u32,
}

impl Congestion {
    pub(crate) fn new(mss: u32, segments: u8) -> Congestion {
        Congestion {
            recover: -1,
            window: initial_window(mss, segments),
            threshold: u32::MAX,
            credit: 0,
            recovering: 0,
        }
    }

    #[inline]
    pub(crate) fn window(&self) -> u32 {
        self.window
    }

    #[inline]
    pub(crate) fn is_recovering(&self) -> bool {
        self.recovering != 0
    }

    /// `acked` more bytes are acknowledged, up to position `una`. `true`: this was a partial
    /// acknowledgement, the segment at `una` is lost too.
    #[inline]
    pub(crate) fn handle_ack(&mut self, una: i64, acked: u32, flight: Flight, mss: u32) -> bool {
        if !self.is_recovering() {
            self.grow(acked, flight.before, mss);
            return false;
        }
        if una >= self.recover {
            // RFC 6582 §3.2 step 3, full acknowledgement, option 1: no burst.
            self.window = self.threshold.min(flight.after.max(mss) + mss);
            self.recovering = 0;
            return false;
        }
        // Partial acknowledgement: deflate by what left the network, one more segment may follow.
        self.window = self.window.saturating_sub(acked).max(mss);
        if acked >= mss {
            self.window = self.window.saturating_add(mss);
        }
        true
    }

    /// `threshold` duplicate ACKs in a row; `true`: recovery starts, resend the segment at `una`.
    pub(crate) fn handle_loss(&mut self, una: i64, sent: i64, flight: u32, mss: u32) -> bool {
        // RFC 6582 §3.2 step 2: these may be echoes of an earlier recovery.
        if self.is_recovering() || una <= self.recover {
            return false;
        }
        self.shrink(flight, mss);
        // The duplicates stand for segments that have left the network (RFC 5681 §3.2 step 3).
        self.window = self.threshold.saturating_add(3 * mss);
        self.recovering = 1;
        self.recover = sent;
        true
    }

    /// One more duplicate ACK: during recovery it stands for a segment that left the network.
    pub(crate) fn handle_duplicate_ack(&mut self, mss: u32) {
        if self.is_recovering() {
            self.window = self.window.saturating_add(mss);
        }
    }

    /// The retransmission timer fired (RFC 5681 §3.1); `first` for the same data.
    pub(crate) fn handle_timeout(&mut self, sent: i64, flight: u32, mss: u32, first: bool) {
        if first {
            self.shrink(flight, mss);
        }
        self.window = mss;
        self.recovering = 0;
        self.recover = sent;
    }

    /// Nothing was sent for a retransmission timeout: what is known of the path is stale
    /// (RFC 5681 §4.1).
    pub(crate) fn restart_after_idle(&mut self, mss: u32, segments: u8) {
        self.window = self.window.min(initial_window(mss, segments));
    }
}

/// Bytes in flight around an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    pub(crate) before: u32,
    pub(crate) after: u32,
}

/// RFC 6928 §2: ten segments, or what the configuration says.
fn initial_window(mss: u32, segments: u8) -> u32 {
    mss * u32::from(segments.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    fn flight(before: u32, after: u32) -> Flight {
        Flight { before, after }
    }

    #[test]
    fn three_duplicates_halve_and_a_full_ack_ends_recovery() {
        let mut congestion = Congestion::new(MSS, 10);
        assert!(congestion.handle_loss(0, 10_000, 10_000, MSS));
        assert_eq!((congestion.window(), congestion.threshold), (8000, 5000));
        congestion.handle_duplicate_ack(MSS);
        assert_eq!(congestion.window(), 9000);
        assert!(!congestion.handle_loss(0, 11_000, 10_000, MSS));
        assert!(congestion.handle_ack(4000, 4000, flight(11_000, 7000), MSS), "partial");
        assert_eq!(congestion.window(), 6000);
        assert!(!congestion.handle_ack(10_000, 6000, flight(7000, 1000), MSS), "full");
        assert!(!congestion.is_recovering());
        assert_eq!(congestion.window(), 2000);
    }

    #[test]
    fn duplicates_of_an_old_recovery_are_no_loss() {
        let mut congestion = Congestion::new(MSS, 10);
        congestion.handle_timeout(10_000, 10_000, MSS, true);
        assert_eq!(congestion.window(), MSS);
        assert!(!congestion.handle_loss(10_000, 12_000, 2000, MSS));
        assert!(congestion.handle_loss(10_001, 12_000, 2000, MSS));
    }

    #[test]
    fn a_repeated_timeout_keeps_the_threshold() {
        let mut congestion = Congestion::new(MSS, 10);
        congestion.handle_timeout(10_000, 10_000, MSS, true);
        congestion.handle_timeout(10_000, 1000, MSS, false);
        assert_eq!(congestion.threshold, 5000);
    }
}
