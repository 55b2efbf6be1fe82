//! How much may be in flight (RFC 5681).
//!
//! The record is fixed in size. How the window grows and shrinks is in a file of its own per
//! algorithm; when it does is decided where loss is noticed.

mod cubic;
mod hystart;
mod newreno;

use cubic::Cubic;
use hystart::{HyStart, Step};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::config::{CongestionControl, Nanos};

/// No loss takes the threshold below this (RFC 5681 equation 4).
const MIN_SEGMENTS: u32 = 2;

/// Congestion state of one connection; sizes in bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Congestion {
    window: u32,
    /// Slow start ends here (ssthresh).
    threshold: u32,
    /// Bytes acknowledged towards the next step of congestion avoidance.
    credit: u32,
    /// A [`CongestionControl`].
    algorithm: u32,
    cubic: Cubic,
    hystart: HyStart,
}

/// An acknowledgement that lets the window grow; sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Growth {
    pub(crate) acked: u32,
    /// In the network before it.
    pub(crate) flight: u32,
    /// The window was what kept more from being sent.
    pub(crate) is_limited: bool,
    /// Positions: all before the first is acknowledged, all before the second was sent.
    pub(crate) una: i64,
    pub(crate) sent: i64,
    /// Round trip by the timestamp echoed, milliseconds.
    pub(crate) echoed: Option<u32>,
    pub(crate) mss: u32,
    pub(crate) now: Nanos,
    pub(crate) srtt: Nanos,
}

impl Congestion {
    pub(crate) fn new(algorithm: CongestionControl, mss: u32, segments: u8) -> Congestion {
        Congestion {
            window: initial_window(mss, segments),
            threshold: u32::MAX,
            credit: 0,
            algorithm: algorithm as u32,
            cubic: Cubic::new(),
            hystart: HyStart::new(),
        }
    }

    fn algorithm(&self) -> CongestionControl {
        if self.algorithm == CongestionControl::Cubic as u32 {
            CongestionControl::Cubic
        } else {
            CongestionControl::NewReno
        }
    }

    /// Goes on with another algorithm, from the window that there is.
    pub(crate) fn set_algorithm(&mut self, algorithm: CongestionControl) {
        self.algorithm = algorithm as u32;
        self.cubic = Cubic::new();
        self.credit = 0;
    }

    /// Bytes left the network in good order: slow start, or congestion avoidance.
    #[inline]
    pub(crate) fn grow(&mut self, ack: &Growth) {
        // A window that is not used is not probed (RFC 9438 §4.2, RFC 7661 §3). What was sent tells
        // too: of several acknowledgements at once all but the first find room.
        if self.window < self.threshold {
            if ack.is_limited || ack.flight.saturating_mul(2) > self.window {
                self.start_slowly(ack);
            }
        } else if ack.is_limited || ack.flight.saturating_add(ack.mss) > self.window {
            match self.algorithm() {
                CongestionControl::Cubic => self.window = self.cubic.avoid(self.window, ack),
                CongestionControl::NewReno => self.avoid(ack.acked, ack.mss),
            }
        } else {
            self.cubic.pause();
        }
    }

    /// Slow start (RFC 5681 §3.1): the first one by HyStart++.
    fn start_slowly(&mut self, ack: &Growth) {
        if self.threshold != u32::MAX {
            // RFC 3465 §2.2: two segments make up for delayed ACKs.
            self.window = self.window.saturating_add(ack.acked.min(2 * ack.mss));
            return;
        }
        match self.hystart.handle_ack(ack) {
            Step::Grow(growth) => self.window = self.window.saturating_add(growth),
            Step::Stop => self.threshold = self.window,
        }
    }

    /// A loss with `flight` bytes in the network: where the window will settle.
    pub(crate) fn reduce(&mut self, flight: u32, mss: u32) {
        self.threshold = match self.algorithm() {
            CongestionControl::Cubic => self.cubic.reduce(self.window, flight, mss),
            CongestionControl::NewReno => self.halve(flight, mss),
        };
    }

    #[inline]
    pub(crate) fn window(&self) -> u32 {
        self.window
    }

    pub(crate) fn threshold(&self) -> u32 {
        self.threshold
    }

    /// During a recovery its own arithmetic sets the window.
    pub(crate) fn set_window(&mut self, window: u32) {
        self.window = window;
    }

    /// A recovery is over: the window is what the loss left of it.
    pub(crate) fn settle(&mut self) {
        self.window = self.threshold;
    }

    /// There was no loss: the window and threshold from before it.
    pub(crate) fn restore(&mut self, window: u32, threshold: u32) {
        self.window = self.window.max(window);
        self.threshold = self.threshold.max(threshold);
        self.cubic.restore();
    }

    /// `segments` have left the network, each may be replaced (RFC 5681 §3.2 step 3, 4).
    pub(crate) fn inflate(&mut self, segments: u32, mss: u32) {
        self.window = self.window.saturating_add(segments * mss);
    }

    /// `acked` bytes that the inflated window stood for are gone, one more segment may follow
    /// (RFC 6582 §3.2 step 3, partial acknowledgement).
    pub(crate) fn deflate(&mut self, acked: u32, mss: u32) {
        self.window = self.window.saturating_sub(acked).max(mss);
        if acked >= mss {
            self.window = self.window.saturating_add(mss);
        }
    }

    /// The retransmission timer fired (RFC 5681 §3.1); `first` for the same data.
    pub(crate) fn handle_timeout(&mut self, flight: u32, mss: u32, first: bool) {
        if first {
            self.reduce(flight, mss);
        }
        self.cubic.forget();
        self.window = mss;
    }

    /// Nothing was sent for a retransmission timeout: what is known of the path is stale
    /// (RFC 5681 §4.1).
    pub(crate) fn restart_after_idle(&mut self, mss: u32, segments: u8) {
        self.window = self.window.min(initial_window(mss, segments));
        self.cubic.pause();
    }
}

/// RFC 6928 §2: ten segments, or what the configuration says.
fn initial_window(mss: u32, segments: u8) -> u32 {
    mss * u32::from(segments.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    #[test]
    fn a_partial_acknowledgement_deflates() {
        let mut congestion = Congestion::new(CongestionControl::NewReno, MSS, 10);
        congestion.inflate(3, MSS);
        congestion.deflate(4000, MSS);
        assert_eq!(congestion.window(), 10_000);
        congestion.deflate(500, MSS);
        assert_eq!(congestion.window(), 9500);
        congestion.deflate(20_000, MSS);
        assert_eq!(congestion.window(), 2 * MSS);
    }

    #[test]
    fn a_repeated_timeout_keeps_the_threshold() {
        let mut congestion = Congestion::new(CongestionControl::NewReno, MSS, 10);
        congestion.handle_timeout(10_000, MSS, true);
        congestion.handle_timeout(1000, MSS, false);
        assert_eq!((congestion.window(), congestion.threshold()), (MSS, 5000));
    }
}
