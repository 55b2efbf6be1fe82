//! Which of our addresses a new connection is made from, when its route does not say.

use fourwave_wire::Addr;

/// An address of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) address: Addr,
    pub(super) prefix: u8,
    pub(super) global: bool,
    /// Deprecated, or an IPv4 secondary address.
    pub(super) secondary: bool,
}

/// The address that Linux would choose out of `sources` (those of the outgoing device, in the
/// kernel's order) to reach `peer` through `next_hop`.
///
/// IPv4: the first primary address whose network has the next hop, else the first. IPv6, the
/// rules of RFC 6724 §5 that need nothing but the addresses: scope (2), not deprecated (3),
/// longest matching prefix (8).
pub(super) fn select(sources: &[Source], peer: Addr, next_hop: Addr) -> Option<Addr> {
    let v4 = peer.is_v4();
    let peer_is_global = v4 || !is_link_local(peer);
    let candidates = sources
        .iter()
        .enumerate()
        .filter(|(_, source)| source.address.is_v4() == v4 && (source.global || !peer_is_global));
    candidates
        .max_by_key(|(order, source)| {
            let matching = match v4 {
                true => u32::from(
                    common_bits(source.address, next_hop) >= 96 + u32::from(source.prefix),
                ),
                false => common_bits(source.address, peer),
            };
            let same_scope = source.global == peer_is_global;
            (same_scope, !source.secondary, matching, std::cmp::Reverse(*order))
        })
        .map(|(_, source)| source.address)
}

/// fe80::/10.
pub(super) fn is_link_local(address: Addr) -> bool {
    address.0[0] == 0xfe && address.0[1] & 0xc0 == 0x80
}

/// Leading bits that two addresses have in common.
fn common_bits(a: Addr, b: Addr) -> u32 {
    (u128::from_be_bytes(a.0) ^ u128::from_be_bytes(b.0)).leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn source(text: &str, prefix: u8) -> Source {
        Source { address: addr(text), prefix, global: !is_link_local(addr(text)), secondary: false }
    }

    #[track_caller]
    fn check(sources: &[Source], peer: &str, next_hop: &str, chosen: Option<&str>) {
        let found = select(sources, addr(peer), addr(next_hop));
        assert_eq!(found, chosen.map(addr), "to {peer} through {next_hop}");
    }

    #[test]
    fn ipv4_takes_the_network_of_the_next_hop() {
        let sources = [source("192.0.2.1", 24), source("10.0.0.5", 8), source("10.0.0.6", 8)];
        check(&sources, "198.51.100.1", "10.0.0.1", Some("10.0.0.5"));
        check(&sources, "198.51.100.1", "172.16.0.1", Some("192.0.2.1"));
        check(&sources, "fd99::1", "fd99::1", None);
        let secondary = Source { secondary: true, ..sources[1] };
        check(&[secondary, sources[2]], "10.1.1.1", "10.1.1.1", Some("10.0.0.6"));
    }

    #[test]
    fn ipv6_takes_scope_then_preference_then_prefix() {
        let local = source("fe80::5", 64);
        let (unique, global) = (source("fd99::2", 64), source("2001:db8::2", 64));
        let all = [local, unique, global];
        check(&all, "fe80::1", "fe80::1", Some("fe80::5"));
        check(&all, "2001:db8::99", "fe80::1", Some("2001:db8::2"));
        check(&all, "fd99::1", "fd99::1", Some("fd99::2"));
        check(&[local], "2001:db8::99", "fe80::1", None);
        let old = Source { secondary: true, ..global };
        check(&[old, unique], "2001:db8::99", "fe80::1", Some("fd99::2"));
    }
}
