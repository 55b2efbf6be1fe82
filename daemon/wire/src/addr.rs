//! Addresses and four-tuples: plain old data, the same for IPv4 and IPv6.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What lies above the 32 bits of a mapped IPv4 address. As numbers, addresses stay in registers.
const V4_MAPPED: u128 = 0xffff;

/// An IP address in sixteen bytes, network order; IPv4 as `::ffff:a.b.c.d`.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Addr(pub [u8; 16]);

impl Addr {
    /// `::`, "any address of either family".
    pub const UNSPECIFIED: Addr = Addr([0; 16]);

    /// The mapped form of an IPv4 address.
    #[inline]
    pub const fn from_v4(v4: [u8; 4]) -> Addr {
        Addr((V4_MAPPED << 32 | u32::from_be_bytes(v4) as u128).to_be_bytes())
    }

    /// Whether this is an IPv4 address.
    #[inline]
    pub fn is_v4(&self) -> bool {
        self.number() >> 32 == V4_MAPPED
    }

    /// The IPv4 address, if it is one.
    #[inline]
    pub fn v4(&self) -> Option<[u8; 4]> {
        let number = self.number();
        (number >> 32 == V4_MAPPED).then_some((number as u32).to_be_bytes())
    }

    /// The bytes that stand for this address in a packet of its family: 4 or 16.
    #[inline]
    pub(crate) fn on_wire(&self) -> &[u8] {
        if self.is_v4() { &self.0[12..] } else { &self.0 }
    }

    /// `::` or `0.0.0.0`.
    pub fn is_unspecified(&self) -> bool {
        *self == Addr::UNSPECIFIED || self.v4() == Some([0; 4])
    }

    /// Whether one host of a network can have this address: neither unspecified, loopback,
    /// multicast nor the limited broadcast. A TCP peer never has any of these
    /// (RFC 9293 §3.10.7, RFC 1122 §3.2.1.3).
    #[inline]
    pub fn is_unicast(&self) -> bool {
        match self.v4() {
            // 0/8, 127/8, 224/4 and 240/4, which holds the limited broadcast.
            Some([first, ..]) => first != 0 && first != 127 && first < 224,
            // ff00::/8, :: and ::1.
            None => self.number() >> 120 != 0xff && self.number() > 1,
        }
    }

    #[inline]
    const fn number(&self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(v4: Ipv4Addr) -> Addr {
        Addr::from_v4(v4.octets())
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(v6: Ipv6Addr) -> Addr {
        Addr(v6.octets())
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Addr {
        match ip {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> IpAddr {
        match addr.v4() {
            Some(v4) => IpAddr::V4(v4.into()),
            None => IpAddr::V6(addr.0.into()),
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An address and a port (host order).
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Endpoint {
    /// The address.
    pub addr: Addr,
    /// The port, host order.
    pub port: u16,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint { addr: address.ip().into(), port: address.port() }
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> SocketAddr {
        SocketAddr::new(endpoint.addr.into(), endpoint.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Both ends of a connection, seen from this machine.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FourTuple {
    /// Our end.
    pub local: Endpoint,
    /// The peer's end.
    pub remote: Endpoint,
}

impl FourTuple {
    /// The same connection seen from the peer.
    #[inline]
    pub fn flipped(&self) -> FourTuple {
        FourTuple { local: self.remote, remote: self.local }
    }

    /// Whether the connection runs over IPv4.
    #[inline]
    pub fn is_v4(&self) -> bool {
        self.local.addr.is_v4()
    }
}

impl fmt::Display for FourTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <-> {}", self.local, self.remote)
    }
}

impl fmt::Debug for FourTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn v4_maps_and_prints_as_v4() {
        let addr = Addr::from_v4([10, 99, 0, 2]);
        assert!(addr.is_v4());
        assert_eq!(addr.v4(), Some([10, 99, 0, 2]));
        assert_eq!(addr.to_string(), "10.99.0.2");
        assert_eq!(addr.on_wire(), [10, 99, 0, 2]);
        let endpoint = Endpoint { addr: "fd99::2".parse::<IpAddr>().unwrap().into(), port: 80 };
        assert_eq!(endpoint.to_string(), "[fd99::2]:80");
        assert_eq!(endpoint.addr.on_wire().len(), 16);
    }

    #[test]
    fn only_unicast_is_unicast() {
        for good in ["10.0.0.1", "223.255.255.255", "fd99::1", "fe80::1", "2001:db8::1", "::2"] {
            assert!(Addr::from(good.parse::<IpAddr>().unwrap()).is_unicast(), "{good}");
        }
        for bad in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"]
        {
            assert!(!Addr::from(bad.parse::<IpAddr>().unwrap()).is_unicast(), "{bad}");
        }
    }
}
