//! The way to a peer: routes, source addresses and link addresses, as an immutable table.
//!
//! The control thread builds a [`PathTable`] from what the kernel says (see
//! [`netlink`](crate::netlink)) whenever that changes, and gives it to every worker. Nothing in
//! it is ever changed, so workers read it without a lock.

mod build;
mod prefixes;
mod source;
pub mod view;

pub use view::View;

use fourwave_wire::{Addr, Link, Mac, Tag};
use prefixes::Prefixes;
use source::Source;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

type Fast = foldhash::fast::RandomState;

/// Routes, addresses and neighbours of one interface and the VLANs on it, at one moment.
#[derive(Debug)]
pub struct PathTable {
    epoch: u32,
    routes: Arc<Routes>,
    /// Link addresses by device number and next hop.
    neighbours: HashMap<(u32, Addr), Mac, Fast>,
}

/// The part that changes seldom, shared by the tables that differ in neighbours only.
#[derive(Debug)]
pub(crate) struct Routes {
    devices: Vec<Device>,
    targets: Prefixes<Target>,
    locals: Prefixes<()>,
    addresses: Vec<Addr>,
    /// Chooses among several next hops, by peer.
    spread: Fast,
}

/// The interface itself or a VLAN on it.
#[derive(Debug)]
struct Device {
    /// The kernel's number.
    index: u32,
    /// Link header without a destination.
    link: Link,
    mtu: u16,
    sources: Vec<Source>,
}

/// Where a prefix leads.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// Out through a device of ours: one of these hops.
    Hops(Vec<Hop>),
    /// Not through our interface: another one, this machine, or nowhere.
    Elsewhere,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Hop {
    /// Index in [`Routes::devices`].
    device: usize,
    gateway: Option<Addr>,
    source: Option<Addr>,
    mtu: u16,
}

/// A complete way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathEntry {
    /// Link header: to the next hop's MAC, from the NIC's, with the VLAN's tags.
    pub link: Link,
    /// Our address on this way.
    pub source: Addr,
    /// Largest IP packet, bytes.
    pub mtu: u16,
}

/// Why there is no complete way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathMiss {
    /// No route leads there through our interface, or it has no address to send from.
    NoRoute,
    /// The next hop's MAC is not known: the kernel is to be asked.
    Unresolved {
        /// Whose MAC is missing.
        next_hop: IpAddr,
        /// Our address on this way.
        source: Addr,
        /// Largest IP packet, bytes.
        mtu: u16,
    },
}

impl PathTable {
    /// A table without any route, for the time before the kernel was asked.
    pub fn empty() -> PathTable {
        let routes = Routes::build(0, &View::default());
        PathTable::new(0, Arc::new(routes), &View::default())
    }

    /// The table of the interface numbered `interface`.
    pub fn build(epoch: u32, interface: u32, view: &View) -> PathTable {
        PathTable::new(epoch, Arc::new(Routes::build(interface, view)), view)
    }

    pub(crate) fn new(epoch: u32, routes: Arc<Routes>, view: &View) -> PathTable {
        let ours = |device| routes.devices.iter().any(|ours| ours.index == device);
        let neighbours = view
            .neighbours
            .iter()
            .filter(|((device, _), _)| ours(*device))
            .map(|((device, address), mac)| ((*device, Addr::from(*address)), *mac))
            .collect();
        PathTable { epoch, routes, neighbours }
    }

    /// The way to `peer`, from `local` if that is given, else from the address that the kernel
    /// would choose. The machine's own addresses are no peers here: see [`Self::is_local`].
    ///
    /// # Errors
    /// Either of [`PathMiss`].
    pub fn lookup(&self, peer: Addr, local: Option<Addr>) -> Result<PathEntry, PathMiss> {
        let hop = self.routes.hop(peer).ok_or(PathMiss::NoRoute)?;
        let device = &self.routes.devices[hop.device];
        let next_hop = hop.gateway.unwrap_or(peer);
        let source = local
            .or(hop.source)
            .or_else(|| source::select(&device.sources, peer, next_hop))
            .ok_or(PathMiss::NoRoute)?;
        let mtu = hop.mtu;
        match self.neighbours.get(&(device.index, next_hop)) {
            Some(mac) => Ok(PathEntry { link: Link { dst: *mac, ..device.link }, source, mtu }),
            None => Err(PathMiss::Unresolved { next_hop: next_hop.into(), source, mtu }),
        }
    }

    /// The kernel's number of the device on which `next_hop` is a neighbour, if one is ours.
    pub fn device_of(&self, next_hop: Addr) -> Option<u32> {
        let hop = self.routes.hop(next_hop)?;
        Some(self.routes.devices[hop.device].index)
    }

    /// Whether packets to this address are for this machine, whichever interface has it.
    pub fn is_local(&self, address: Addr) -> bool {
        self.routes.locals.find(address).is_some()
    }

    /// This machine's addresses that can be reached from outside, in order.
    pub fn addresses(&self) -> &[Addr] {
        &self.routes.addresses
    }

    /// Next hops that routes through our interface name, with their device.
    pub fn gateways(&self) -> impl Iterator<Item = (u32, Addr)> {
        self.routes.targets.values().flat_map(|target| {
            let hops = match target {
                Target::Hops(hops) => hops.as_slice(),
                Target::Elsewhere => &[],
            };
            hops.iter().filter_map(|hop| {
                let device = self.routes.devices[hop.device].index;
                hop.gateway.map(|gateway| (device, gateway))
            })
        })
    }

    /// Differs from that of every other table of this daemon.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }
}

impl Routes {
    fn hop(&self, peer: Addr) -> Option<&Hop> {
        match self.targets.find(peer)? {
            Target::Elsewhere => None,
            Target::Hops(hops) if hops.len() == 1 => hops.first(),
            // As Linux does by default: by addresses, so that a peer keeps its way.
            Target::Hops(hops) => {
                let choice = self.spread.hash_one(peer.0) % (hops.len() as u64).max(1);
                hops.get(choice as usize)
            }
        }
    }
}

/// A link header from `source`, without a destination yet.
fn header(source: Mac, tags: &[Tag]) -> Link {
    let mut link = Link::new(Mac::default(), source);
    link.vlan[..tags.len()].copy_from_slice(tags);
    link.vlan_count = tags.len() as u8;
    link
}

#[cfg(test)]
mod tests;
