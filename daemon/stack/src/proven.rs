//! Peers that have completed a handshake: their address is not forged.

use fourwave_wire::Addr;

use crate::keys::Keys;
use crate::siphash::spread;

const ENTRIES: usize = 1 << 14;

/// A fixed table of fingerprints. A newer peer takes the place of an older one; a keyed hash
/// chooses places and fingerprints, so nobody outside can aim at either. It plays the part of
/// Linux's metrics cache in [`max_syn_backlog`](crate::Config::max_syn_backlog).
pub(crate) struct Proven {
    /// Empty when nobody asks.
    entries: Box<[u32]>,
}

impl Proven {
    pub(crate) fn new(wanted: bool) -> Proven {
        Proven { entries: vec![0; if wanted { ENTRIES } else { 0 }].into_boxed_slice() }
    }

    /// The peer has answered what was sent to it.
    #[inline]
    pub(crate) fn insert(&mut self, keys: &Keys, peer: &Addr) {
        if self.entries.is_empty() {
            return;
        }
        let (place, fingerprint) = entry(keys, peer);
        self.entries[place] = fingerprint;
    }

    /// Whether the peer is known to have done so.
    pub(crate) fn contains(&self, keys: &Keys, peer: &Addr) -> bool {
        let (place, fingerprint) = entry(keys, peer);
        self.entries.get(place) == Some(&fingerprint)
    }
}

/// Never 0, which is an empty place.
fn entry(keys: &Keys, peer: &Addr) -> (usize, u32) {
    let hash = keys.address_hash(peer);
    (spread((hash >> 32) as u32, ENTRIES), hash as u32 | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_newest_peers_and_no_others() {
        let mut seed = 7u64;
        let keys = Keys::generate(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed
        });
        let peer = |number: u16| {
            let [a, b] = number.to_be_bytes();
            Addr::from_v4([10, 0, a, b])
        };
        let mut proven = Proven::new(true);
        assert!((0..2_000).all(|number| !proven.contains(&keys, &peer(number))));
        (0..1_000).for_each(|number| proven.insert(&keys, &peer(number)));
        let known = |range: std::ops::Range<u16>| {
            range.filter(|&number| proven.contains(&keys, &peer(number))).count()
        };
        assert!(known(0..1_000) > 900);
        assert_eq!(known(1_000..2_000), 0);
        let mut unwanted = Proven::new(false);
        unwanted.insert(&keys, &peer(1));
        assert!(!unwanted.contains(&keys, &peer(1)));
    }
}
