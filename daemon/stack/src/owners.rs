//! Which worker owns a flow: a pure function of its four-tuple, fixed for a daemon's life.
//!
//! Where it is known how the NIC deals frames out to its queues (receive-side scaling: a Toeplitz
//! hash and an indirection table), the owner is the worker of the queue where the NIC puts the flow,
//! and an active open chooses a local port that brings the replies to its own worker. Else it is a
//! keyed hash, and frames that arrive elsewhere are handed over.

use std::net::SocketAddr;
use std::sync::Arc;

use fourwave_wire::FourTuple;

use crate::keys::{Keys, owner};

/// The function.
#[derive(Clone, Debug, Default)]
pub enum Owners {
    /// A keyed hash that nobody outside can predict.
    #[default]
    Hash,
    /// What the NIC does.
    Rss(Arc<Rss>),
}

impl Owners {
    /// The worker, below `workers`, that owns a flow. SYN, last ACK, ICMP error and active open all
    /// ask it. `tuple` is as seen from us.
    #[inline]
    pub fn owner(&self, keys: &Keys, tuple: &FourTuple, workers: u32) -> u32 {
        match self {
            Owners::Hash => owner(keys, tuple, workers),
            Owners::Rss(rss) => rss.worker(tuple),
        }
    }
}

/// Bytes that are hashed of an IPv6 flow: both addresses, both ports.
const MOST_INPUT: usize = 36;
/// A key of this length serves every bit of them.
const LEAST_KEY: usize = MOST_INPUT + 4;

/// Receive-side scaling as a NIC does it.
#[derive(Debug)]
pub struct Rss {
    /// What a value of each half byte of the input adds to the hash.
    nibbles: Box<[[u32; 16]]>,
    /// The worker for each place of the indirection table.
    workers: Box<[u32]>,
}

impl Rss {
    /// With the NIC's key, and the worker that serves the queue of each place of its indirection
    /// table. `None` when the key is too short or the table's length is not a power of two: then it
    /// is not known what the NIC does.
    pub fn new(key: &[u8], workers: Box<[u32]>) -> Option<Rss> {
        if key.len() < LEAST_KEY || !workers.len().is_power_of_two() {
            return None;
        }
        let nibbles = (0..2 * MOST_INPUT).map(|nibble| {
            let window = |bit: usize| key_window(key, 4 * nibble + bit);
            let adds =
                |value: usize, bit: usize| if value & (8 >> bit) == 0 { 0 } else { window(bit) };
            std::array::from_fn(|value| (0..4).fold(0, |sum, bit| sum ^ adds(value, bit)))
        });
        Some(Rss { nibbles: nibbles.collect(), workers })
    }

    /// The worker of the queue where frames of this flow arrive.
    pub fn worker(&self, tuple: &FourTuple) -> u32 {
        // The low bits choose the place.
        self.workers[self.hash(tuple) as usize & (self.workers.len() - 1)]
    }

    /// The Toeplitz hash of what the NIC receives: the peer is the source.
    fn hash(&self, tuple: &FourTuple) -> u32 {
        let (source, destination) = (&tuple.remote, &tuple.local);
        let skip = if tuple.is_v4() { 12 } else { 0 };
        let ports = [source.port.to_be_bytes(), destination.port.to_be_bytes()];
        let input = source.addr.0[skip..]
            .iter()
            .chain(&destination.addr.0[skip..])
            .chain(ports.as_flattened());
        let halves = input.flat_map(|byte| [byte >> 4, byte & 15]);
        halves.zip(&self.nibbles).fold(0, |hash, (half, adds)| hash ^ adds[usize::from(half)])
    }
}

/// The key of Microsoft's "Verifying the RSS Hash Calculation", and what comes of it.
const KNOWN_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];
/// Destination (we), source (the peer), hash.
const KNOWN: [(&str, &str, u32); 8] = [
    ("161.142.100.80:1766", "66.9.149.187:2794", 0x51cc_c178),
    ("65.69.140.83:4739", "199.92.111.2:14230", 0xc626_b0ea),
    ("12.22.207.184:38024", "24.19.198.95:12898", 0x5c2b_394a),
    ("209.142.163.6:2217", "38.27.205.30:48228", 0xafc7_327f),
    ("202.188.127.2:1303", "153.39.163.191:44251", 0x10e8_28a2),
    ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x4020_7d3d),
    ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0xdde5_1bbf),
    (
        "[fe80::200:f8ff:fe21:67cf]:38024",
        "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
        0x02d1_feef,
    ),
];

/// Whether hashes come out as they were published: a daemon asks before it goes by them.
pub fn self_test() -> bool {
    let end = |text: &str| Some(text.parse::<SocketAddr>().ok()?.into());
    let Some(rss) = Rss::new(&KNOWN_KEY, Box::new([0])) else { return false };
    KNOWN.iter().all(|(local, remote, hash)| {
        let (Some(local), Some(remote)) = (end(local), end(remote)) else { return false };
        rss.hash(&FourTuple { local, remote }) == *hash
    })
}

/// The 32 bits of the key from `bit` on.
fn key_window(key: &[u8], bit: usize) -> u32 {
    let mut bytes = [0; 8];
    let rest = &key[bit / 8..];
    let len = rest.len().min(5);
    bytes[..len].copy_from_slice(&rest[..len]);
    // The upper half, after a shift by less than a byte.
    (u64::from_be_bytes(bytes) << (bit % 8) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(local: &str, remote: &str) -> FourTuple {
        let end = |text: &str| text.parse::<SocketAddr>().unwrap().into();
        FourTuple { local: end(local), remote: end(remote) }
    }

    #[test]
    fn hashes_are_those_that_were_published() {
        let rss = Rss::new(&KNOWN_KEY, Box::new([0])).unwrap();
        for (local, remote, hash) in KNOWN {
            assert_eq!(rss.hash(&tuple(local, remote)), hash, "{local} {remote}");
        }
        assert!(self_test());
    }

    #[test]
    fn the_low_bits_choose_the_place_of_the_table() {
        // A place's worker is its own number modulo three.
        let workers: Vec<u32> = (0..128).map(|place| place % 3).collect();
        let rss = Arc::new(Rss::new(&KNOWN_KEY, workers.into()).unwrap());
        let owners = Owners::Rss(rss);
        let keys = Keys::generate(|| 7);
        for (local, remote, hash) in KNOWN {
            let owner = owners.owner(&keys, &tuple(local, remote), 3);
            assert_eq!(owner, (hash & 127) % 3);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(Rss::new(&KNOWN_KEY[..39], Box::new([0])).is_none());
        assert!(Rss::new(&KNOWN_KEY, Box::new([0, 1, 0])).is_none());
        assert!(Rss::new(&KNOWN_KEY, Box::new([])).is_none());
        assert!(Rss::new(&[7; 52], Box::new([0, 1])).is_some());
    }
}
