//! Path MTUs that ICMP told of, by peer (RFC 1191 §6.3, RFC 8201 §5.3): for other connections to it,
//! present and future, and for a while only, because paths change.
//!
//! A set-associative table of fixed size, placed by a keyed hash: an entry in use is displaced only
//! by one of the same set that expires later. Only an error that quotes what is in flight gets this
//! far (RFC 5927), so outsiders cannot fill it.

use fourwave_tcp::Nanos;
use fourwave_wire::Addr;

use crate::NoMemory;

const SETS: usize = 256;
const WAYS: usize = 4;

/// What is known of the path to one peer.
#[derive(Clone, Copy)]
struct Entry {
    peer: Addr,
    /// Largest IP packet, bytes; 0: nothing is here.
    mtu: u16,
    expires: Nanos,
}

const FREE: Entry = Entry { peer: Addr([0; 16]), mtu: 0, expires: 0 };

pub(crate) struct PathMtus {
    sets: Box<[[Entry; WAYS]]>,
    used: u32,
    /// Nothing expires before.
    next_expiry: Nanos,
    epoch: u32,
}

impl PathMtus {
    pub(crate) fn new() -> Result<PathMtus, NoMemory> {
        let mut sets = Vec::new();
        sets.try_reserve_exact(SETS).map_err(|_| NoMemory)?;
        sets.resize(SETS, [FREE; WAYS]);
        let sets = sets.into_boxed_slice();
        Ok(PathMtus { sets, used: 0, next_expiry: Nanos::MAX, epoch: 0 })
    }

    /// Goes up whenever an answer may have changed.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The largest packet for `peer`, whose keyed hash is `hash`, if a router told.
    #[inline]
    pub(crate) fn get(&self, hash: impl FnOnce() -> u64, peer: &Addr) -> Option<u16> {
        if self.used == 0 {
            return None;
        }
        let set = &self.sets[hash() as usize % SETS];
        set.iter().find(|entry| entry.mtu > 0 && entry.peer == *peer).map(|entry| entry.mtu)
    }

    /// A router told of `mtu` on the way to `peer`; it holds until `expires`.
    pub(crate) fn learn(&mut self, hash: u64, peer: Addr, mtu: u16, expires: Nanos) {
        let set = &mut self.sets[hash as usize % SETS];
        let known = set.iter().position(|entry| entry.mtu > 0 && entry.peer == peer);
        // A free one expired long ago.
        let place = known.or_else(|| (0..WAYS).min_by_key(|place| set[*place].expires));
        let entry = &mut set[place.expect("a set has places")];
        self.used += u32::from(entry.mtu == 0);
        *entry = Entry { peer, mtu, expires };
        self.next_expiry = self.next_expiry.min(expires);
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Forgets what is too old.
    #[inline]
    pub(crate) fn expire(&mut self, now: Nanos) {
        if now >= self.next_expiry {
            self.sweep(now);
        }
    }

    #[cold]
    fn sweep(&mut self, now: Nanos) {
        self.next_expiry = Nanos::MAX;
        for entry in self.sets.iter_mut().flatten().filter(|entry| entry.mtu > 0) {
            if entry.expires <= now {
                *entry = FREE;
                self.used -= 1;
            } else {
                self.next_expiry = self.next_expiry.min(entry.expires);
            }
        }
        self.epoch = self.epoch.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(last: u8) -> Addr {
        Addr::from_v4([10, 0, 0, last])
    }

    #[test]
    fn what_was_learned_holds_for_a_while() {
        let mut mtus = PathMtus::new().unwrap();
        assert_eq!(mtus.get(|| unreachable!("it is empty"), &addr(1)), None);
        mtus.learn(7, addr(1), 1400, 100);
        mtus.learn(8, addr(2), 1300, 200);
        mtus.learn(7, addr(1), 1200, 150);
        assert_eq!((mtus.get(|| 7, &addr(1)), mtus.used), (Some(1200), 2));
        let epoch = mtus.epoch();
        mtus.expire(99);
        assert_eq!(mtus.epoch(), epoch);
        mtus.expire(150);
        assert_ne!(mtus.epoch(), epoch);
        assert_eq!((mtus.get(|| 7, &addr(1)), mtus.get(|| 8, &addr(2))), (None, Some(1300)));
        mtus.expire(200);
        assert_eq!((mtus.used, mtus.next_expiry), (0, Nanos::MAX));
    }

    #[test]
    fn a_full_set_gives_up_what_expires_first() {
        let mut mtus = PathMtus::new().unwrap();
        for (last, expires) in [(1, 40), (2, 10), (3, 30), (4, 20), (5, 50)] {
            mtus.learn(3, addr(last), 1400, expires);
        }
        assert_eq!(mtus.used, 4);
        let known: Vec<bool> = (1..=5).map(|last| mtus.get(|| 3, &addr(last)).is_some()).collect();
        assert_eq!(known, [true, false, true, true, true]);
    }
}
