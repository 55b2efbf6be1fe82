//! What the environment says.
//!
//! - `FOURWAVE_PORTS`: local ports that are listened on through fourwave, such as
//!   `80,8000-8010`.
//! - `FOURWAVE_CONNECT`: destinations that are connected to through fourwave, such as
//!   `10.0.0.2:80,10.1.0.0/16:5432,[fd00::1]:443,*:6379`. `*` is every address but those of the
//!   machine's loopback; `*` as a port, and an address without one, is every port.
//! - `FOURWAVE_FALLBACK=kernel`: without a daemon the kernel does it.

use crate::report;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::OnceLock;

/// The configuration of this process.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Configuration {
    ports: Vec<RangeInclusive<u16>>,
    destinations: Vec<Destination>,
    falls_back: bool,
    /// What was not understood.
    complaints: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Destination {
    network: Option<Network>,
    ports: RangeInclusive<u16>,
}

#[derive(Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

pub(crate) fn get() -> &'static Configuration {
    static CONFIGURATION: OnceLock<Configuration> = OnceLock::new();
    CONFIGURATION.get_or_init(|| {
        fourwave_posix::on_explanation(report::once);
        Configuration::read(|name| std::env::var_os(name))
    })
}

/// Says what was not understood: in processes that use sockets, of all that inherit the
/// environment.
pub(crate) fn complain() {
    for complaint in &get().complaints {
        report::once(complaint);
    }
}

impl Configuration {
    fn read(variable: impl Fn(&str) -> Option<OsString>) -> Configuration {
        let text = |name| variable(name).unwrap_or_default().to_string_lossy().into_owned();
        let mut own = Configuration::default();
        for item in items(&text("FOURWAVE_PORTS")) {
            match ports(item).filter(|ports| *ports.start() > 0) {
                Some(ports) => own.ports.push(ports),
                None => {
                    own.complaints
                        .push(format!("FOURWAVE_PORTS: `{item}` is neither a port nor a range"));
                }
            }
        }
        for item in items(&text("FOURWAVE_CONNECT")) {
            match destination(item) {
                Some(destination) => own.destinations.push(destination),
                None => own.complaints.push(format!(
                    "FOURWAVE_CONNECT: `{item}` is no destination such as 10.0.0.2:80, \
                     10.0.0.0/8:80-90, [fd00::1]:443, *:6379 or 10.0.0.2:*"
                )),
            }
        }
        match text("FOURWAVE_FALLBACK").as_str() {
            "" => {}
            "kernel" => own.falls_back = true,
            other => own.complaints.push(format!("FOURWAVE_FALLBACK: `{other}` is not `kernel`")),
        }
        own
    }

    /// Whether anything can be ours.
    pub(crate) fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.destinations.is_empty()
    }

    /// Whether a listener at this address is. Frames of the loopback never reach fourwave.
    pub(crate) fn serves(&self, local: SocketAddr) -> bool {
        let ip = local.ip().to_canonical();
        !ip.is_loopback() && self.ports.iter().any(|ports| ports.contains(&local.port()))
    }

    /// Whether a connection to this peer is.
    pub(crate) fn connects(&self, peer: SocketAddr) -> bool {
        let ip = peer.ip().to_canonical();
        self.destinations.iter().any(|destination| {
            let there = match &destination.network {
                Some(network) => network.contains(ip),
                None => !ip.is_loopback(),
            };
            there && destination.ports.contains(&peer.port())
        })
    }

    /// Whether the kernel does it when there is no daemon.
    pub(crate) fn falls_back(&self) -> bool {
        self.falls_back
    }
}

impl Network {
    fn contains(&self, ip: IpAddr) -> bool {
        let same = |own: u128, other: u128, all: u32| {
            let ignored = all - self.bits;
            own.checked_shr(ignored) == other.checked_shr(ignored)
        };
        match (self.address, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                same(own.to_bits().into(), ip.to_bits().into(), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => same(own.to_bits(), ip.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn ports(item: &str) -> Option<RangeInclusive<u16>> {
    if item == "*" {
        return Some(0..=u16::MAX);
    }
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some(first..=last)
}

fn destination(item: &str) -> Option<Destination> {
    // An address alone, whose colons are its own: every port.
    if item == "*" {
        return Some(Destination { network: None, ports: 0..=u16::MAX });
    }
    if let Some(network) = network(item) {
        return Some(Destination { network: Some(network), ports: 0..=u16::MAX });
    }
    let (host, port) = item.rsplit_once(':')?;
    let ports = ports(port)?;
    let network = if host == "*" { None } else { Some(network(host)?) };
    Some(Destination { network, ports })
}

fn network(text: &str) -> Option<Network> {
    let text = text.replace(['[', ']'], "");
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse().ok()?)),
        None => (&text[..], None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(most);
    (bits <= most).then_some(Network { address, bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(ports: &str, connect: &str, fallback: &str) -> Configuration {
        Configuration::read(|name| match name {
            "FOURWAVE_PORTS" => Some(ports.into()),
            "FOURWAVE_CONNECT" => Some(connect.into()),
            "FOURWAVE_FALLBACK" => Some(fallback.into()),
            _ => None,
        })
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn nothing_is_ours_unless_named() {
        let own = Configuration::read(|_| None);
        assert!(own.is_empty() && !own.falls_back() && own.complaints.is_empty());
        assert!(!own.serves(address("0.0.0.0:80")) && !own.connects(address("10.0.0.2:80")));
    }

    #[test]
    fn ports_and_ranges() {
        let own = read("80, 8000-8010,", "", "kernel");
        assert!(own.complaints.is_empty() && !own.is_empty() && own.falls_back());
        let served = ["0.0.0.0:80", "[::]:8000", "10.0.0.1:8010"];
        assert!(served.iter().all(|text| own.serves(address(text))));
        let others = ["0.0.0.0:81", "[::]:7999", "10.0.0.1:0", "127.0.0.1:80", "[::1]:80"];
        assert!(!others.iter().any(|text| own.serves(address(text))));
    }

    #[test]
    fn destinations() {
        let own = read("", "10.0.0.2:80,10.1.0.0/16:*,[fd00::1]:443-444,*:6379", "");
        assert!(own.complaints.is_empty(), "{own:?}");
        let ours =
            ["10.0.0.2:80", "[::ffff:10.0.0.2]:80", "10.1.255.1:1", "[fd00::1]:444", "[::2]:6379"];
        for text in ours {
            assert!(own.connects(address(text)), "{text}");
        }
        let others =
            ["10.0.0.3:80", "10.0.0.2:81", "10.2.0.0:1", "[fd00::2]:443", "127.0.0.1:6379"];
        for text in others {
            assert!(!own.connects(address(text)), "{text}");
        }
        let own = read("", "10.0.0.2,fd00::1", "");
        assert!(own.connects(address("10.0.0.2:1")) && own.connects(address("[fd00::1]:2")));
        assert!(!own.connects(address("10.0.0.3:1")) && !own.connects(address("[fd00::2]:2")));
        let all = read("", "0.0.0.0/0:*,::/0:*", "");
        assert!(all.connects(address("1.2.3.4:5")) && all.connects(address("[1::]:5")));
    }

    #[test]
    fn mistakes_are_named() {
        let own = read("eighty,9-8,0", "10.0.0,10.0.0.0/33:1,host:80", "none");
        assert!(own.is_empty() && !own.falls_back());
        assert_eq!(own.complaints.len(), 7, "{own:?}");
        assert!(own.complaints[0].contains("`eighty`"));
    }
}
