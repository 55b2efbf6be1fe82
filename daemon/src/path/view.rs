//! What the kernel says, in plain words: the input of a [`PathTable`](super::PathTable).

use fourwave_wire::{Mac, Tag};
use std::collections::HashMap;
use std::net::IpAddr;

/// Links, addresses, routes and neighbours of a network namespace.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Every network device.
    pub links: Vec<LinkView>,
    /// Every address.
    pub addresses: Vec<AddressView>,
    /// Routes of the tables `local` and `main`, in the kernel's order.
    pub routes: Vec<RouteView>,
    /// Link addresses by device number and IP address, of neighbours that are known.
    pub neighbours: HashMap<(u32, IpAddr), Mac>,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    /// The kernel's number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC; `None` for devices that have none.
    pub mac: Option<Mac>,
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// For a VLAN device: the number of the device that it lies on, and its tag.
    pub vlan: Option<(u32, Tag)>,
    /// Receive queues that the device was made with.
    pub rx_queues: u32,
}

/// An address of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressView {
    /// The device that has it.
    pub device: u32,
    /// The address.
    pub address: IpAddr,
    /// Prefix length of its network, bits.
    pub prefix: u8,
    /// Reaches beyond the link (not link-local, not host).
    pub global: bool,
    /// Not for new connections: deprecated, or an IPv4 secondary address.
    pub secondary: bool,
    /// Not usable at all yet: duplicate address detection has not ended or has failed.
    pub tentative: bool,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteView {
    /// Its prefix.
    pub prefix: IpAddr,
    /// Bits of the prefix.
    pub length: u8,
    /// The smaller goes first.
    pub priority: u32,
    /// What it does.
    pub kind: RouteKind,
}

/// What a route does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteKind {
    /// Packets are for this machine.
    Local,
    /// Packets leave through one of these.
    Hops(Vec<HopView>),
    /// Packets go nowhere (blackhole, unreachable, broadcast and the like).
    Nowhere,
}

/// A next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopView {
    /// The device it leaves through.
    pub device: u32,
    /// The router; `None` when the peer is on the link.
    pub gateway: Option<IpAddr>,
    /// The address to send from, if the route names one.
    pub source: Option<IpAddr>,
    /// Largest IP packet, if the route names it, bytes.
    pub mtu: Option<u32>,
}
