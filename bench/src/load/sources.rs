//! Client addresses and ports, handed out so that a pair comes back as late as possible.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// The first port that is used: those below need a privilege, or are somebody's.
pub(super) const FIRST_PORT: u16 = 1024;

/// Ports per address.
const PORTS: u64 = u16::MAX as u64 - FIRST_PORT as u64 + 1;

/// All (address, port) pairs of some addresses, in a cycle.
///
/// All ports of one address come before the next address: sockets that live at the same time have
/// different ports, so that the kernel's chains of sockets per port stay short.
#[derive(Clone, Debug)]
pub struct Sources {
    addresses: Vec<IpAddr>,
    next: u64,
}

impl Sources {
    /// A cycle over `addresses` that begins with pair number `first`. `None` without addresses.
    pub fn new(addresses: Vec<IpAddr>, first: u64) -> Option<Sources> {
        let pairs = addresses.len() as u64 * PORTS;
        let next = first.checked_rem(pairs)?;
        Some(Sources { addresses, next })
    }

    /// The next pair.
    pub fn next_pair(&mut self) -> SocketAddr {
        let (address, port) = (self.next / PORTS, self.next % PORTS);
        self.next = (self.next + 1) % self.pairs();
        // Both casts keep the value: address < addresses.len(), port < PORTS < 65536.
        SocketAddr::new(self.addresses[address as usize], FIRST_PORT + port as u16)
    }

    /// Number of the pair that [`Sources::next_pair`] will give.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// How many pairs there are.
    pub fn pairs(&self) -> u64 {
        self.addresses.len() as u64 * PORTS
    }
}

/// One address, or an inclusive range of IPv4 addresses: `10.99.0.10-10.99.0.60`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRange {
    addresses: Vec<IpAddr>,
}

/// Not an address, nor a range of IPv4 addresses in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRange;

impl fmt::Display for BadRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected an address or a range such as 10.0.0.1-10.0.0.9")
    }
}

impl std::error::Error for BadRange {}

impl AddressRange {
    /// The addresses, in ascending order.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }
}

impl FromStr for AddressRange {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<AddressRange, BadRange> {
        if let Ok(address) = text.parse() {
            return Ok(AddressRange { addresses: vec![address] });
        }
        let (first, last) = text.split_once('-').ok_or(BadRange)?;
        let first: Ipv4Addr = first.parse().map_err(|_| BadRange)?;
        let last: Ipv4Addr = last.parse().map_err(|_| BadRange)?;
        let addresses: Vec<IpAddr> =
            (u32::from(first)..=u32::from(last)).map(|bits| Ipv4Addr::from(bits).into()).collect();
        if addresses.is_empty() { Err(BadRange) } else { Ok(AddressRange { addresses }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_pair_comes_once_per_cycle() {
        let range: AddressRange = "10.0.0.1-10.0.0.2".parse().unwrap();
        let mut sources = Sources::new(range.addresses().to_vec(), 70_000).unwrap();
        let first = sources.next_pair();
        let mut seen = HashSet::from([first]);
        for _ in 1..sources.pairs() {
            let pair = sources.next_pair();
            assert!(pair.port() >= FIRST_PORT);
            assert!(seen.insert(pair), "{pair} twice");
        }
        assert_eq!(sources.next_pair(), first);
        assert_eq!(seen.len(), 2 * 64_512);
    }

    #[test]
    fn the_position_continues_a_cycle() {
        let addresses = vec![IpAddr::from([10, 0, 0, 1])];
        let mut one = Sources::new(addresses.clone(), 5).unwrap();
        one.next_pair();
        let mut two = Sources::new(addresses, one.position()).unwrap();
        assert_eq!(one.next_pair(), two.next_pair());
        assert!(Sources::new(Vec::new(), 0).is_none());
    }

    #[test]
    fn ranges_are_checked() {
        let range: AddressRange = "10.0.0.254-10.0.1.1".parse().unwrap();
        assert_eq!(range.addresses().len(), 4);
        assert_eq!("fd99::1".parse::<AddressRange>().unwrap().addresses().len(), 1);
        for bad in ["", "10.0.0.2-10.0.0.1", "10.0.0.1-", "a-b"] {
            assert_eq!(bad.parse::<AddressRange>(), Err(BadRange), "{bad}");
        }
    }
}
