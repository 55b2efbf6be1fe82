//! What a lab looks like: names, addresses, queues.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// An address with the length of its network's prefix in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cidr {
    /// The host's own address.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// One end of the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeConfig {
    /// Name under `/run/netns`.
    pub namespace: String,
    /// Name of its end of the veth pair.
    pub interface: String,
    /// Addresses of that interface.
    pub addresses: Vec<Cidr>,
}

/// The namespace between the two ends of a lab that is [relayed](LabConfig::relayed).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MiddleConfig {
    /// Name under `/run/netns`.
    pub namespace: String,
    /// The interfaces that lead to the server and to the client.
    pub interfaces: [String; 2],
}

/// A whole lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabConfig {
    /// Name of its folder under `/run/fourwave-lab`.
    pub name: String,
    /// The end with the servers.
    pub server: NodeConfig,
    /// The end with the load.
    pub client: NodeConfig,
    /// Between the two, if they are not joined directly.
    #[serde(default)]
    pub middle: Option<MiddleConfig>,
    /// RX and TX queues of each end.
    pub queues: u32,
    /// MTU of each end in bytes.
    pub mtu: u32,
    /// Leave checksum and segmentation offloads as the kernel sets them.
    pub offloads: bool,
    /// The lab outlives the process that builds it, until [`super::down`].
    pub persistent: bool,
}

impl LabConfig {
    /// Name of the lab that `fourwave-bench lab up` builds unless told otherwise.
    pub const STANDARD: &'static str = "fw";

    /// A lab with the standard addresses (server 10.99.0.2/16 and fd99::2, client 10.99.0.1,
    /// 10.99.0.10–10.99.0.60 and fd99::1), one queue, offloads off, and with namespaces
    /// `NAME-srv` and `NAME-cli`.
    ///
    /// It goes when its [`super::Lab`] is dropped. Two labs with different names do not see each
    /// other, so tests may run at once.
    pub fn named(name: &str) -> LabConfig {
        let node = |side: &str, addresses| NodeConfig {
            namespace: format!("{name}-{side}"),
            interface: format!("fw-{side}0"),
            addresses,
        };
        let client_v4 = std::iter::once(1).chain(10..=60).map(|host| v4(0, host));
        LabConfig {
            name: name.to_owned(),
            server: node("srv", vec![v4(0, 2), v6(2)]),
            client: node("cli", client_v4.chain([v6(1)]).collect()),
            middle: None,
            queues: 1,
            mtu: 1500,
            offloads: false,
            persistent: false,
        }
    }

    /// A lab for one test: its name is made of `prefix` and the process id.
    pub fn private(prefix: &str) -> LabConfig {
        LabConfig::named(&format!("{prefix}{}", std::process::id()))
    }

    /// One that outlives the process that builds it, until [`super::down`].
    #[must_use]
    pub fn persistent(mut self) -> LabConfig {
        self.persistent = true;
        self
    }

    /// With `queues` RX and TX queues on each end.
    #[must_use]
    pub fn queues(mut self, queues: u32) -> LabConfig {
        self.queues = queues;
        self
    }

    /// With `count` more IPv4 addresses on the client, from 10.99.4.1 on.
    #[must_use]
    pub fn more_client_v4(mut self, count: u8) -> LabConfig {
        self.client.addresses.extend((1..=count).map(|host| v4(4, host)));
        self
    }

    /// With a third namespace, `NAME-mid`, between the two ends: nothing crosses unless somebody
    /// carries it, such as a [`Relay`](crate::relay::Relay).
    #[must_use]
    pub fn relayed(mut self) -> LabConfig {
        self.middle = Some(MiddleConfig {
            namespace: format!("{}-mid", self.name),
            interfaces: ["fw-mid-srv".to_owned(), "fw-mid-cli".to_owned()],
        });
        self
    }

    /// Names of all its namespaces.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &str> {
        let middle = self.middle.iter().map(|middle| &middle.namespace);
        [&self.server.namespace, &self.client.namespace].into_iter().chain(middle).map(|s| &**s)
    }

    /// With `count` more IPv6 addresses on the client, from fd99::1:0 on.
    #[must_use]
    pub fn more_client_v6(mut self, count: u16) -> LabConfig {
        let more = (0..count).map(|host| Cidr {
            address: Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 1, host).into(),
            prefix: 64,
        });
        self.client.addresses.extend(more);
        self
    }
}

fn v4(third: u8, host: u8) -> Cidr {
    Cidr { address: Ipv4Addr::new(10, 99, third, host).into(), prefix: 16 }
}

fn v6(host: u16) -> Cidr {
    Cidr { address: Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, host).into(), prefix: 64 }
}
