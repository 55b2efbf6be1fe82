//! HyStart++ (RFC 9406): the first slow start ends when round trips grow, before the path's queue
//! overflows, with a while of careful growth in case they grew for another reason.
//!
//! Round trips are those that echoed timestamps tell, one an acknowledgement: without timestamps
//! only one segment of a flight is timed, too few to judge by, and slow start ends with a loss.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Growth;

/// Samples that make a round trip known (N_RTT_SAMPLE).
const SAMPLES: u8 = 8;
/// Bounds of the growth that means a queue, milliseconds, and its part of the last round trip
/// (MIN_RTT_THRESH, MAX_RTT_THRESH, MIN_RTT_DIVISOR).
const THRESHOLD_MS: (u32, u32) = (4, 16);
const DIVISOR: u32 = 8;
/// Careful growth is so much slower (CSS_GROWTH_DIVISOR) and takes so many rounds (CSS_ROUNDS).
const CAREFUL_DIVISOR: u32 = 4;
const CAREFUL_ROUNDS: u8 = 5;
/// Segments of one acknowledgement that count (L, for a sender that does not pace).
const BURST: u32 = 8;

/// No round trip is known, milliseconds.
const UNKNOWN: u32 = u32::MAX;

/// How slow start goes on after an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The window grows by so many bytes.
    Grow(u32),
    /// The window is what the path takes.
    Stop,
}

/// HyStart++'s part of the record; round trips in milliseconds.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct HyStart {
    /// All that had been sent when this round began.
    round_end: i64,
    /// Least of the last round, and of this one.
    last: u32,
    least: u32,
    /// Least of the round that made growth careful; [`UNKNOWN`] while it is not.
    baseline: u32,
    samples: u8,
    careful_rounds: u8,
    reserved: [u8; 2],
}

impl HyStart {
    pub(super) fn new() -> HyStart {
        HyStart {
            round_end: 0,
            last: UNKNOWN,
            least: UNKNOWN,
            baseline: UNKNOWN,
            samples: 0,
            careful_rounds: 0,
            reserved: [0; 2],
        }
    }

    /// RFC 9406 §4.2, for an acknowledgement in the first slow start.
    pub(super) fn handle_ack(&mut self, ack: &Growth) -> Step {
        if let Some(round_trip) = ack.echoed {
            self.least = self.least.min(round_trip);
            self.samples = self.samples.saturating_add(1);
        }
        let is_known = self.samples >= SAMPLES;
        if self.baseline == UNKNOWN {
            if is_known && self.last != UNKNOWN && self.has_grown() {
                self.baseline = self.least;
                self.careful_rounds = 0;
            }
        } else if is_known && self.least < self.baseline {
            // It was no queue.
            self.baseline = UNKNOWN;
        }
        if ack.una >= self.round_end && self.end_round(ack.sent) {
            return Step::Stop;
        }
        let growth = ack.acked.min(BURST * ack.mss);
        Step::Grow(if self.baseline == UNKNOWN { growth } else { growth / CAREFUL_DIVISOR })
    }

    fn has_grown(&self) -> bool {
        let (least, most) = THRESHOLD_MS;
        self.least >= self.last + (self.last / DIVISOR).clamp(least, most)
    }

    /// A round is over, the next one ends when `sent` is acknowledged. Whether it was the last.
    fn end_round(&mut self, sent: i64) -> bool {
        self.round_end = sent;
        self.last = self.least;
        self.least = UNKNOWN;
        self.samples = 0;
        if self.baseline != UNKNOWN {
            self.careful_rounds += 1;
        }
        self.careful_rounds >= CAREFUL_ROUNDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    /// A round of ten acknowledgements, each after `round_trip` milliseconds; what the window grew.
    fn round(hystart: &mut HyStart, number: i64, round_trip: u32) -> Result<u32, Step> {
        let mut grown = 0;
        for index in 0..10 {
            let ack = Growth {
                acked: MSS,
                una: number * 10 + index + 1,
                sent: number * 10 + 20,
                echoed: Some(round_trip),
                is_limited: true,
                flight: 10 * MSS,
                mss: MSS,
                now: 0,
                srtt: 0,
            };
            match hystart.handle_ack(&ack) {
                Step::Grow(growth) => grown += growth,
                Step::Stop => return Err(Step::Stop),
            }
        }
        Ok(grown)
    }

    #[test]
    fn steady_round_trips_end_nothing() {
        let mut hystart = HyStart { round_end: 10, ..HyStart::new() };
        for number in 0..50 {
            // Less than 4 ms more is noise.
            assert_eq!(round(&mut hystart, number, 20 + 3 * (number as u32 % 2)), Ok(10 * MSS));
        }
    }

    #[test]
    fn a_queue_makes_growth_careful_then_ends_it() {
        let mut hystart = HyStart { round_end: 10, ..HyStart::new() };
        assert_eq!(round(&mut hystart, 0, 40), Ok(10 * MSS));
        assert_eq!(round(&mut hystart, 1, 40), Ok(10 * MSS));
        // An eighth more, known after eight samples.
        assert_eq!(round(&mut hystart, 2, 45), Ok(7 * MSS + 3 * MSS / 4));
        for number in 3..6 {
            assert_eq!(round(&mut hystart, number, 60), Ok(10 * MSS / 4), "{number}");
        }
        // The fifth, the one that began it included.
        assert_eq!(round(&mut hystart, 6, 60), Err(Step::Stop));
    }

    #[test]
    fn a_round_trip_that_shrinks_again_was_no_queue() {
        let mut hystart = HyStart { round_end: 10, ..HyStart::new() };
        for number in 0..2 {
            assert_eq!(round(&mut hystart, number, 20), Ok(10 * MSS));
        }
        assert_eq!(round(&mut hystart, 2, 30), Ok(7 * MSS + 3 * MSS / 4));
        assert_eq!(round(&mut hystart, 3, 21), Ok(7 * MSS / 4 + 3 * MSS));
        assert_eq!(round(&mut hystart, 4, 21), Ok(10 * MSS));
    }

    #[test]
    fn an_acknowledgement_counts_for_eight_segments_at_most() {
        let ack = Growth {
            acked: 100 * MSS,
            una: 1,
            sent: 9,
            echoed: None,
            is_limited: true,
            flight: 200 * MSS,
            mss: MSS,
            now: 0,
            srtt: 0,
        };
        assert_eq!(HyStart::new().handle_ack(&ack), Step::Grow(8 * MSS));
    }
}
