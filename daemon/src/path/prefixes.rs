//! Longest-prefix match: one hash map per family and prefix length.

use super::Fast;
use fourwave_wire::Addr;
use std::collections::HashMap;

/// Values by prefix. IPv4 and IPv6 do not mix: `::/0` matches no IPv4 address.
#[derive(Debug)]
pub(super) struct Prefixes<T> {
    v4: Family<T>,
    v6: Family<T>,
}

/// Prefix lengths in use, the longest first, each with its prefixes. Real tables have few
/// lengths, so a lookup is a handful of hash lookups however many routes there are.
#[derive(Debug)]
struct Family<T>(Vec<(u8, HashMap<u128, T, Fast>)>);

impl<T> Prefixes<T> {
    pub(super) fn new() -> Prefixes<T> {
        Prefixes { v4: Family(Vec::new()), v6: Family(Vec::new()) }
    }

    /// Adds a prefix of `length` bits (0–32 for IPv4, 0–128 for IPv6); the first one stays.
    pub(super) fn insert(&mut self, address: Addr, length: u8, value: T) {
        let (family, length) = match address.is_v4() {
            true => (&mut self.v4, length.min(32) + 96),
            false => (&mut self.v6, length.min(128)),
        };
        let lengths = &mut family.0;
        let place = lengths.partition_point(|(other, _)| *other > length);
        if lengths.get(place).is_none_or(|(other, _)| *other != length) {
            lengths.insert(place, (length, HashMap::default()));
        }
        lengths[place].1.entry(masked(address, length)).or_insert(value);
    }

    /// The value of the longest prefix that `address` begins with.
    pub(super) fn find(&self, address: Addr) -> Option<&T> {
        let family = match address.is_v4() {
            true => &self.v4,
            false => &self.v6,
        };
        family.0.iter().find_map(|(length, map)| map.get(&masked(address, *length)))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        let maps = self.v4.0.iter().chain(&self.v6.0);
        maps.flat_map(|(_, map)| map.values())
    }
}

fn masked(address: Addr, length: u8) -> u128 {
    let host_bits = 128 - u32::from(length);
    // A shift by 128 bits is not defined: the empty prefix leaves nothing.
    let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
    u128::from_be_bytes(address.0) & mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn the_longest_prefix_wins() {
        let mut prefixes = Prefixes::new();
        for (prefix, length, name) in [
            ("0.0.0.0", 0, "default"),
            ("10.0.0.0", 8, "ten"),
            ("10.1.0.0", 16, "ten-one"),
            ("10.1.2.3", 32, "host"),
            ("::", 0, "default six"),
            ("fd99::", 64, "six"),
            ("10.0.0.0", 8, "second"),
        ] {
            prefixes.insert(addr(prefix), length, name);
        }
        for (address, name) in [
            ("192.0.2.1", "default"),
            ("10.9.9.9", "ten"),
            ("10.1.9.9", "ten-one"),
            ("10.1.2.3", "host"),
            ("2001:db8::1", "default six"),
            ("fd99::1", "six"),
        ] {
            assert_eq!(prefixes.find(addr(address)), Some(&name), "{address}");
        }
    }

    #[test]
    fn families_do_not_mix() {
        let mut prefixes = Prefixes::new();
        prefixes.insert(addr("::"), 0, ());
        assert_eq!(prefixes.find(addr("10.0.0.1")), None);
        let mut prefixes = Prefixes::new();
        prefixes.insert(addr("0.0.0.0"), 0, ());
        assert_eq!(prefixes.find(addr("fd99::1")), None);
    }

    proptest! {
        /// Against the obvious: look at every prefix, keep the longest that fits.
        #[test]
        fn as_a_linear_search(
            routes in prop::collection::vec((any::<bool>(), any::<u8>(), any::<u128>()), 0..40),
            v4 in any::<bool>(),
            address in any::<u128>(),
        ) {
            // Few distinct high bits, so that prefixes nest and match.
            let make = |v4: bool, bits: u128| match v4 {
                true => addr(&std::net::Ipv4Addr::from((bits as u32) & 0x8080_8080).to_string()),
                false => Addr((bits & (0x8080_8080_u128 << 96 | 1) | 2).to_be_bytes()),
            };
            let address = make(v4, address);
            let mut prefixes = Prefixes::new();
            let mut best: Option<(u8, usize)> = None;
            for (i, (v4, length, bits)) in routes.into_iter().enumerate() {
                let (prefix, length) = (make(v4, bits), length % if v4 { 33 } else { 129 });
                prefixes.insert(prefix, length, i);
                let skip = if v4 { 96 } else { 0 };
                let bit = |a: Addr, n: usize| a.0[n / 8] >> (7 - n % 8) & 1;
                let fits = prefix.is_v4() == address.is_v4()
                    && (0..usize::from(length)).all(|n| bit(prefix, skip + n) == bit(address, skip + n));
                if fits && best.is_none_or(|(other, _)| length > other) {
                    best = Some((length, i));
                }
            }
            prop_assert_eq!(prefixes.find(address).copied(), best.map(|(_, i)| i));
        }
    }
}
