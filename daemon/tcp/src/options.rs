//! Which options our segments carry (RFC 7323, RFC 2018, RFC 9293 §3.2).

use fourwave_wire::{Options, Timestamps};

use crate::config::{Config, MILLISECOND, Nanos};

/// What timestamps take in every segment, padding included.
pub(crate) const TIMESTAMPS_LEN: u16 = 12;

/// The timestamp clock at `now`: milliseconds, shifted by the connection's secret offset
/// (RFC 7323 §5.4, §7.1).
#[inline]
pub fn timestamp(now: Nanos, offset: u32) -> u32 {
    // Wraps every 49 days, as RFC 7323 expects.
    ((now / MILLISECOND) as u32).wrapping_add(offset)
}

impl Config {
    /// The options of a SYN whose timestamp clock reads `tsval`; `mss` is what we can receive.
    pub fn syn_options(&self, mss: u16, tsval: u32) -> Options {
        Options {
            mss: Some(mss),
            window_scale: self.window_scaling.then_some(self.window_scale),
            sack_permitted: self.sack,
            timestamps: self.timestamps.then_some(Timestamps { value: tsval, echo: 0 }),
            ..Options::default()
        }
    }

    /// The options of the SYN-ACK that answers a SYN with the options `peer`: scale, timestamps and
    /// SACK only if the peer offered them (RFC 7323 §2.2, §3.2, RFC 2018 §2).
    pub fn syn_ack_options(&self, mss: u16, peer: &Options, tsval: u32) -> Options {
        let echo = peer.timestamps.filter(|_| self.timestamps);
        let scale = peer.window_scale.filter(|_| self.window_scaling);
        Options {
            mss: Some(mss),
            window_scale: scale.map(|_| self.window_scale),
            sack_permitted: peer.sack_permitted && self.sack,
            timestamps: echo.map(|peer| Timestamps { value: tsval, echo: peer.value }),
            ..Options::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_ack_offers_only_what_the_syn_did() {
        let cfg = Config::default();
        let none = cfg.syn_ack_options(1460, &Options::default(), 9);
        assert_eq!(none, Options { mss: Some(1460), ..Options::default() });
        let all = cfg.syn_ack_options(1460, &cfg.syn_options(1400, 5), 9);
        assert_eq!(all.window_scale, Some(7));
        assert_eq!(all.timestamps, Some(Timestamps { value: 9, echo: 5 }));
        assert!(all.sack_permitted);
        let off =
            Config { timestamps: false, sack: false, window_scaling: false, ..Config::default() };
        let less = off.syn_ack_options(1460, &cfg.syn_options(1400, 5), 9);
        assert_eq!(less, Options { mss: Some(1460), ..Options::default() });
        assert_eq!(off.syn_options(1460, 0), less);
    }

    #[test]
    fn the_clock_ticks_in_milliseconds_and_wraps() {
        assert_eq!(timestamp(5 * MILLISECOND + 1, 10), 15);
        assert_eq!(timestamp(5 * MILLISECOND, u32::MAX), 4);
    }
}
