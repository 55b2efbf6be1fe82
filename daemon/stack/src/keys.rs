//! What is derived from a connection's addresses by keyed hash: the bucket, the owning worker, the
//! initial sequence number, the timestamp offset, the SYN cookie, the starting point of a port
//! search.

use fourwave_tcp::Nanos;
use fourwave_wire::{Addr, FourTuple};

use crate::fold::FoldKey;
use crate::siphash::{SipKey, spread};

/// The secrets of a daemon: the same for all of its shards, for its whole life. They must not be
/// written to disk.
#[derive(Clone, Copy)]
pub struct Keys {
    flow: FoldKey,
    initial: SipKey,
    ports: SipKey,
    cookies: SipKey,
}

impl Keys {
    /// Draws keys from a source of uniformly random, secret numbers.
    pub fn generate(mut random: impl FnMut() -> u64) -> Keys {
        let flow = FoldKey::generate(&mut random);
        let mut key = || SipKey::new(random(), random());
        Keys { flow, initial: key(), ports: key(), cookies: key() }
    }

    /// The hash that places a flow: the upper half chooses the worker, the lower half the bucket,
    /// so that one worker's flows still spread over all of its buckets.
    #[inline]
    pub(crate) fn flow_hash(&self, tuple: &FourTuple) -> u64 {
        self.flow.hash(&tuple.local.addr, &tuple.remote.addr, ports(tuple))
    }

    /// Initial sequence number (RFC 6528: keyed hash of the four-tuple plus a clock, here of 64 ns,
    /// which goes round in 275 s) and timestamp offset. They are the two halves of one hash; the
    /// offset is the same for every connection of a four-tuple, so that the next one's timestamps
    /// are newer than the last one's (RFC 7323 §5.4, RFC 6191).
    #[inline]
    pub(crate) fn initial(&self, tuple: &FourTuple, now: Nanos) -> Initial {
        let hash = hash_tuple(&self.initial, tuple);
        let clock = (now >> 6) as u32;
        Initial { sequence: (hash as u32).wrapping_add(clock), ts_offset: (hash >> 32) as u32 }
    }

    /// Where the search for an ephemeral port to this peer starts (RFC 6056 §3.3.3, `F` and `G`).
    pub(crate) fn port_hash(&self, local: &Addr, remote: &Addr, remote_port: u16) -> u64 {
        let [a, b] = halves(local);
        let [c, d] = halves(remote);
        self.ports.hash([a, b, c, d, u64::from(remote_port)])
    }

    /// The two hashes of a SYN cookie: that of the four-tuple alone, and that of the four-tuple and
    /// the peer's initial sequence number in one period.
    pub(crate) fn cookie_hash(&self, tuple: &FourTuple, irs_and_period: Option<(u32, u32)>) -> u32 {
        let [a, b, c, d] = addresses(tuple);
        let ports = ports(tuple);
        let hash = match irs_and_period {
            Some((irs, period)) => {
                let both = u64::from(irs) << 32 | u64::from(period);
                self.cookies.hash([a, b, c, d, ports, both])
            }
            None => self.cookies.hash([a, b, c, d, ports]),
        };
        hash as u32
    }

    /// For the table of local addresses.
    pub(crate) fn address_hash(&self, addr: &Addr) -> u64 {
        self.flow.hash(addr, &Addr::UNSPECIFIED, 0)
    }
}

/// What a connection starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Initial {
    pub(crate) sequence: u32,
    pub(crate) ts_offset: u32,
}

/// The worker, below `workers`, that owns a flow. A pure function: SYN, last ACK, ICMP error and
/// active open all ask it. `tuple` is as seen from us.
#[inline]
pub fn owner(keys: &Keys, tuple: &FourTuple, workers: u32) -> u32 {
    if workers <= 1 {
        return 0;
    }
    spread((keys.flow_hash(tuple) >> 32) as u32, workers as usize) as u32
}

#[inline]
fn hash_tuple(key: &SipKey, tuple: &FourTuple) -> u64 {
    let ports = ports(tuple);
    let [a, b, c, d] = addresses(tuple);
    if tuple.is_v4() {
        // The mapped prefix says nothing. The two forms differ in length, which is hashed too.
        return key.hash([b << 32 | d & 0xffff_ffff, ports]);
    }
    key.hash([a, b, c, d, ports])
}

#[inline]
fn addresses(tuple: &FourTuple) -> [u64; 4] {
    let [a, b] = halves(&tuple.local.addr);
    let [c, d] = halves(&tuple.remote.addr);
    [a, b, c, d]
}

#[inline]
fn ports(tuple: &FourTuple) -> u64 {
    u64::from(tuple.local.port) << 16 | u64::from(tuple.remote.port)
}

#[inline]
fn halves(addr: &Addr) -> [u64; 2] {
    let bits = u128::from_be_bytes(addr.0);
    [(bits >> 64) as u64, bits as u64]
}

#[cfg(test)]
mod tests {
    use fourwave_wire::Endpoint;

    use super::*;

    fn tuple(port: u16) -> FourTuple {
        let end = |last, port| Endpoint { addr: Addr::from_v4([10, 0, 0, last]), port };
        FourTuple { local: end(1, 80), remote: end(2, port) }
    }

    fn keys(seed: u64) -> Keys {
        let mut next = seed;
        Keys::generate(|| {
            next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            next
        })
    }

    #[test]
    fn owners_are_stable_spread_and_depend_on_the_key() {
        let mut counts = [0u32; 4];
        let mut differ = 0;
        for port in 0..4000 {
            let tuple = tuple(port);
            let worker = owner(&keys(1), &tuple, 4);
            assert_eq!(worker, owner(&keys(1), &tuple, 4));
            counts[worker as usize] += 1;
            differ += u32::from(worker != owner(&keys(2), &tuple, 4));
            assert_eq!(owner(&keys(1), &tuple, 1), 0);
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
        assert!((2700..3300).contains(&differ), "{differ}");
    }

    #[test]
    fn the_sequence_clock_runs_and_the_offset_stays() {
        let keys = keys(3);
        let first = keys.initial(&tuple(1), 0);
        let later = keys.initial(&tuple(1), 1_000_000);
        assert_eq!(later.sequence.wrapping_sub(first.sequence), 15_625);
        assert_eq!(first.ts_offset, later.ts_offset);
        let other = keys.initial(&tuple(2), 0);
        assert_ne!(first.ts_offset, other.ts_offset);
        assert_ne!(first.sequence, other.sequence);
    }

    #[test]
    fn every_part_of_a_tuple_counts() {
        let keys = keys(4);
        let v6 = |last: u8| {
            let mut bytes = [0x20; 16];
            bytes[15] = last;
            Addr(bytes)
        };
        let end = |last, port| Endpoint { addr: v6(last), port };
        let base = FourTuple { local: end(1, 80), remote: end(2, 90) };
        let variants = [
            base,
            base.flipped(),
            FourTuple { local: end(3, 80), ..base },
            FourTuple { remote: end(3, 90), ..base },
            FourTuple { local: end(1, 81), ..base },
            FourTuple { remote: end(2, 91), ..base },
            tuple(90),
            tuple(90).flipped(),
        ];
        let hashes: std::collections::BTreeSet<u64> =
            variants.iter().map(|tuple| keys.flow_hash(tuple)).collect();
        assert_eq!(hashes.len(), variants.len());
    }
}
