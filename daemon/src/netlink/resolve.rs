//! Which requests to resolve a neighbour go to the kernel.
//!
//! Workers ask at every miss, and a flood of spoofed addresses makes many misses. The kernel
//! repeats its own solicitations, so one request per address and second is enough; a limit over
//! all addresses keeps its neighbour table from being filled by strangers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How often one address is asked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// Addresses asked for in one interval; below Linux's default `gc_thresh2` of 512.
const PER_INTERVAL: usize = 256;

/// Remembers what was asked for in the last interval.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    asked: HashMap<IpAddr, Instant>,
}

impl Limiter {
    /// Whether to ask the kernel for `address` now.
    pub(super) fn admit(&mut self, address: IpAddr, now: Instant) -> bool {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < INTERVAL;
        if self.asked.get(&address).is_some_and(recent) {
            return false;
        }
        if self.asked.len() >= PER_INTERVAL {
            self.asked.retain(|_, at| recent(at));
            if self.asked.len() >= PER_INTERVAL {
                return false;
            }
        }
        self.asked.insert(address, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn once_per_address_and_second() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        let address = IpAddr::from([10, 0, 0, 1]);
        assert!(limiter.admit(address, start));
        assert!(!limiter.admit(address, start + INTERVAL / 2));
        assert!(limiter.admit(address, start + INTERVAL));
    }

    #[test]
    fn a_flood_is_cut() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        let address = |n: u32| IpAddr::from(Ipv4Addr::from(n));
        let admitted = (0..10_000).filter(|n| limiter.admit(address(*n), start)).count();
        assert_eq!(admitted, PER_INTERVAL);
        assert_eq!(limiter.asked.len(), PER_INTERVAL);
        assert!(limiter.admit(address(20_000), start + INTERVAL));
        assert_eq!(limiter.asked.len(), 1);
    }
}
