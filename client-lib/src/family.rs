//! The address family of a socket, which says how it shows addresses.

use std::net::{IpAddr, SocketAddr};

/// As in Linux, what an IPv6 socket says of IPv4 is mapped into IPv6: `::ffff:10.0.0.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// The family of a socket that is bound to, or connects to, `address`.
    pub(crate) fn of(address: SocketAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// An address as a socket of this family shows it.
    pub(crate) fn show(self, address: SocketAddr) -> SocketAddr {
        match (self, address.ip()) {
            (Family::V6, IpAddr::V4(v4)) => SocketAddr::from((v4.to_ipv6_mapped(), address.port())),
            (Family::V6, IpAddr::V6(_)) | (Family::V4, _) => address,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_is_mapped_for_ipv6_sockets_alone() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (v4, v6) = (address("10.0.0.1:80"), address("[fd00::1]:80"));
        assert_eq!(Family::of(v4).show(v4), v4);
        assert_eq!(Family::of(v6).show(v6), v6);
        assert_eq!(Family::of(address("[::]:0")).show(v4), address("[::ffff:10.0.0.1]:80"));
        assert_eq!(Family::of(address("[::ffff:10.0.0.9]:1")), Family::V6);
    }
}
