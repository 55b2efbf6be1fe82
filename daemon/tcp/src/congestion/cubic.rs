//! CUBIC (RFC 9438): after a loss the window follows a cubic function of time, back to where the
//! loss was, slowly around it, then beyond.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Growth, MIN_SEGMENTS};
use crate::config::{MILLISECOND, Nanos};

/// No epoch of congestion avoidance runs.
const NO_EPOCH: Nanos = Nanos::MAX;
/// The window is multiplied by this at a loss (β, RFC 9438 §4.6), in tenths.
const BETA_TENTHS: u64 = 7;
/// Growth of a Reno flow of the same mean window (α = 3(1 - β)/(1 + β), RFC 9438 §4.3), a fraction.
const ALPHA: (u64, u64) = (9, 17);
/// Beyond this distance from the plateau the curve is cut off, milliseconds. It keeps the cube small
/// and is far steeper there than the bound on growth allows.
const MAX_DISTANCE_MS: i64 = 100_000;

/// CUBIC's part of the record; sizes in bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Cubic {
    /// Start of congestion avoidance after the last loss.
    epoch: Nanos,
    /// Window at the last loss: the plateau (W_max). 0 after a timeout or before any loss.
    plateau: u32,
    /// Time from the epoch's start to the plateau (K), milliseconds.
    until_plateau: u32,
    /// What Reno would have (W_est).
    reno: u32,
    /// Window before the last loss (cwnd_prior).
    prior: u32,
}

impl Cubic {
    pub(super) fn new() -> Cubic {
        Cubic { epoch: NO_EPOCH, plateau: 0, until_plateau: 0, reno: 0, prior: 0 }
    }

    /// The window after the acknowledgement `ack` in congestion avoidance (RFC 9438 §4.2 to §4.5).
    pub(super) fn avoid(&mut self, window: u32, ack: &Growth) -> u32 {
        let &Growth { acked, mss, now, srtt, .. } = ack;
        if self.epoch == NO_EPOCH {
            self.start(window, mss, now);
        }
        let elapsed = now.saturating_sub(self.epoch);
        let step = u64::from(acked.min(window)) * u64::from(mss);
        let (factor, divisor) = if self.reno >= self.prior { (1, 1) } else { ALPHA };
        let reno_growth = step * factor / (divisor * u64::from(window));
        self.reno = self.reno.saturating_add(reno_growth as u32);
        if self.curve(elapsed, mss) < u64::from(self.reno) {
            return window.max(self.reno);
        }
        // RFC 9438 §4.2: never more than half again in a round trip.
        let window = u64::from(window);
        let target = self.curve(elapsed + srtt, mss).clamp(window, window + window / 2);
        let growth = (target - window) * u64::from(acked).min(window) / window;
        u32::try_from(window + growth).unwrap_or(u32::MAX)
    }

    /// The slow start threshold after a loss with `flight` bytes in the network (RFC 9438 §4.6).
    pub(super) fn reduce(&mut self, window: u32, flight: u32, mss: u32) -> u32 {
        self.epoch = NO_EPOCH;
        self.prior = window;
        // RFC 9438 §4.7, fast convergence: a plateau that sinks makes room for others.
        let shrinks = window < self.plateau;
        self.plateau = if shrinks { tenths(window, (10 + BETA_TENTHS) / 2) } else { window };
        tenths(flight, BETA_TENTHS).max(MIN_SEGMENTS * mss)
    }

    /// The retransmission timer fired: the plateau says nothing any more (RFC 9438 §4.8).
    pub(super) fn forget(&mut self) {
        self.epoch = NO_EPOCH;
        self.plateau = 0;
    }

    /// There was no loss (RFC 9438 §4.9).
    pub(super) fn restore(&mut self) {
        self.epoch = NO_EPOCH;
        self.plateau = self.plateau.max(self.prior);
    }

    /// Time in which the window was not used is not time to grow in (RFC 9438 §5.8).
    pub(super) fn pause(&mut self) {
        self.epoch = NO_EPOCH;
    }

    fn start(&mut self, window: u32, mss: u32, now: Nanos) {
        self.epoch = now;
        self.reno = window;
        self.plateau = self.plateau.max(window);
        // K = cbrt((W_max - cwnd) / C) seconds, windows in segments, C = 4/10.
        let below = u64::from(self.plateau - window);
        self.until_plateau = cube_root(below * (10_000_000_000 / 4) / u64::from(mss));
    }

    /// W_cubic at `elapsed` since the epoch's start: C (t - K)³ + W_max.
    fn curve(&self, elapsed: Nanos, mss: u32) -> u64 {
        let elapsed = i64::try_from(elapsed / MILLISECOND).unwrap_or(i64::MAX);
        let distance = elapsed
            .saturating_sub(i64::from(self.until_plateau))
            .clamp(-MAX_DISTANCE_MS, MAX_DISTANCE_MS);
        // Thousandths of a segment: 4/10 per second cubed.
        let offset = distance.pow(3) * 4 / 10_000_000;
        let bytes = offset * i64::from(mss) / 1000;
        (i64::from(self.plateau) + bytes).max(0) as u64
    }
}

fn tenths(value: u32, tenths: u64) -> u32 {
    // At most ten tenths of a u32.
    (u64::from(value) * tenths / 10) as u32
}

/// The largest number whose cube is not above `value`.
fn cube_root(value: u64) -> u32 {
    let mut root: u64 = 0;
    // 2^21 cubed is 2^63.
    for bit in (0..22).rev() {
        let next = root | 1 << bit;
        if next.checked_pow(3).is_some_and(|cube| cube <= value) {
            root = next;
        }
    }
    root as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SECOND;
    use proptest::{prop_assert, proptest};

    const MSS: u32 = 1000;

    fn ack(now: Nanos, srtt: Nanos) -> Growth {
        Growth {
            acked: MSS,
            flight: u32::MAX,
            is_limited: true,
            una: 0,
            sent: 0,
            echoed: None,
            mss: MSS,
            now,
            srtt,
        }
    }

    /// One window's worth of acknowledgements a round trip, for `rounds` of them.
    fn run(cubic: &mut Cubic, mut window: u32, from: Nanos, rounds: u64, rtt: Nanos) -> u32 {
        for round in 0..rounds {
            for _ in 0..window / MSS {
                window = cubic.avoid(window, &ack(from + round * rtt, rtt));
            }
        }
        window
    }

    #[test]
    fn a_loss_takes_three_tenths_and_the_plateau_is_where_it_was() {
        let mut cubic = Cubic::new();
        assert_eq!(cubic.reduce(100 * MSS, 100 * MSS, MSS), 70 * MSS);
        let rtt = SECOND / 10;
        let window = run(&mut cubic, 70 * MSS, SECOND, 1, rtt);
        // K = cbrt(30 / 0.4) s.
        assert_eq!(cubic.until_plateau, 4217);
        let window = run(&mut cubic, window, SECOND + rtt, 41, rtt);
        assert!((99 * MSS..=101 * MSS).contains(&window), "{window}");
        // Flat there: less than a segment in half a second; steep two K later.
        let flat = run(&mut cubic, window, SECOND + 42 * rtt, 5, rtt);
        assert!(flat - window < MSS, "{flat}");
        let steep = run(&mut cubic, flat, SECOND + 47 * rtt, 38, rtt);
        assert!(steep > 120 * MSS, "{steep}");
    }

    #[test]
    fn on_a_short_path_it_is_no_slower_than_reno() {
        let mut cubic = Cubic::new();
        let start = cubic.reduce(20 * MSS, 20 * MSS, MSS);
        let rtt = MILLISECOND;
        let window = run(&mut cubic, start, 0, 40, rtt);
        // Half a segment a round trip up to the old window, then a whole one.
        assert!((40 * MSS..60 * MSS).contains(&window), "{window}");
    }

    #[test]
    fn a_plateau_that_sinks_makes_room() {
        let mut cubic = Cubic::new();
        cubic.reduce(100 * MSS, 100 * MSS, MSS);
        cubic.reduce(80 * MSS, 80 * MSS, MSS);
        assert_eq!(cubic.plateau, 64 * MSS);
        cubic.forget();
        cubic.start(10 * MSS, MSS, 0);
        assert_eq!((cubic.plateau, cubic.until_plateau), (10 * MSS, 0));
    }

    proptest! {
        #[test]
        fn the_cube_root_is_exact(value: u64) {
            let root = u128::from(cube_root(value));
            prop_assert!(root.pow(3) <= u128::from(value));
            prop_assert!(root >= (1 << 22) - 1 || (root + 1).pow(3) > u128::from(value));
        }

        /// Growth is bounded and the window never shrinks, whatever the numbers.
        #[test]
        fn no_acknowledgement_more_than_half_again(
            window in MSS..1 << 30, plateau: u32, acked in 1u32..1 << 30, at: u32, srtt: u32,
        ) {
            let mut cubic = Cubic { plateau, ..Cubic::new() };
            cubic.avoid(window, &ack(0, 0));
            let growth = Growth { acked, ..ack(u64::from(at) * 1_000_000, u64::from(srtt) * 1000) };
            let after = cubic.avoid(window, &growth);
            prop_assert!(after >= window && after <= window + window / 2 + MSS);
        }
    }
}
