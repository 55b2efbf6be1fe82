//! From netlink messages to plain words.

use crate::path::view::{AddressView, HopView, LinkView, RouteKind, RouteView};
use fourwave_wire::{Mac, Tag};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHopFlags,
    RouteType, RouteVia,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const TABLE_MAIN: u32 = 254;
const TABLE_LOCAL: u32 = 255;

pub(super) fn link(message: &LinkMessage) -> LinkView {
    let mut view = LinkView {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        vlan: None,
        rx_queues: 1,
    };
    let (mut parent, mut tag) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => view.name.clone_from(name),
            LinkAttribute::Address(bytes) => view.mac = mac(bytes),
            LinkAttribute::Mtu(mtu) => view.mtu = *mtu,
            LinkAttribute::NumRxQueues(count) => view.rx_queues = *count,
            LinkAttribute::Link(index) => parent = Some(*index),
            LinkAttribute::LinkInfo(infos) => tag = infos.iter().find_map(vlan),
            _ => {}
        }
    }
    view.vlan = parent.zip(tag);
    view
}

fn vlan(info: &LinkInfo) -> Option<Tag> {
    let LinkInfo::Data(InfoData::Vlan(settings)) = info else { return None };
    let mut protocol = 0x8100;
    let mut number = None;
    for setting in settings {
        match setting {
            InfoVlan::Id(id) => number = Some(*id),
            InfoVlan::Protocol(value) => protocol = (*value).into(),
            _ => {}
        }
    }
    number.map(|control| Tag { protocol, control })
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

pub(super) fn address(message: &AddressMessage) -> Option<AddressView> {
    let (mut local, mut remote) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link IFA_ADDRESS is the peer's, IFA_LOCAL ours.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => remote = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let address = local.or(remote)?;
    let v4_secondary =
        address.is_ipv4() && message.header.flags.contains(AddressHeaderFlags::Secondary);
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed;
    Some(AddressView {
        device: message.header.index,
        address,
        prefix: message.header.prefix_len,
        global: !matches!(message.header.scope, AddressScope::Link | AddressScope::Host),
        secondary: v4_secondary || flags.contains(AddressFlags::Deprecated),
        // An optimistic address may be used while it is being checked (RFC 4429).
        tentative: flags.intersects(unusable) && !flags.contains(AddressFlags::Optimistic),
    })
}

/// `None` for routes that take no part: other tables, and routes for some packets only (by TOS
/// or source). Policy rules are not followed: the tables `local` and `main` are the whole truth.
pub(super) fn route(message: &RouteMessage) -> Option<RouteView> {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let mut prefix = None;
    let mut priority = 0;
    let mut mtu = None;
    let mut source = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => prefix = ip(address),
            RouteAttribute::Priority(value) => priority = *value,
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(bytes) if *bytes != 0 => Some(*bytes),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let applies = matches!(table, TABLE_MAIN | TABLE_LOCAL)
        && header.tos == 0
        && header.source_prefix_length == 0
        && !header.flags.contains(RouteFlags::Cloned);
    if !applies {
        return None;
    }
    let kind = match header.kind {
        RouteType::Local => RouteKind::Local,
        RouteType::Unicast => RouteKind::Hops(hops(message, source, mtu)),
        // Look in the next table, of which there is none that counts.
        RouteType::Throw => return None,
        _ => RouteKind::Nowhere,
    };
    let prefix = prefix.or_else(|| unspecified(message))?;
    Some(RouteView { prefix, length: header.destination_prefix_length, priority, kind })
}

fn unspecified(message: &RouteMessage) -> Option<IpAddr> {
    use rtnetlink::packet_route::AddressFamily;
    match message.header.address_family {
        AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
        AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    }
}

fn hops(message: &RouteMessage, source: Option<IpAddr>, mtu: Option<u32>) -> Vec<HopView> {
    let mut hops = Vec::new();
    let hop = |device, gateway| HopView { device, gateway, source, mtu };
    let device = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    if let Some(device) = device {
        hops.push(hop(device, gateway(&message.attributes)));
    }
    for attribute in &message.attributes {
        let RouteAttribute::MultiPath(several) = attribute else { continue };
        let usable = several.iter().filter(|next| !next.flags.contains(RouteNextHopFlags::Dead));
        hops.extend(usable.map(|next| hop(next.interface_index, gateway(&next.attributes))));
    }
    hops
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some((*v4).into()),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// A neighbour: who it is, its MAC while it is known, and whether that may be out of date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NeighbourView {
    pub(super) device: u32,
    pub(super) address: IpAddr,
    pub(super) mac: Option<Mac>,
    pub(super) stale: bool,
}

pub(super) fn neighbour(message: &NeighbourMessage) -> Option<NeighbourView> {
    let header = &message.header;
    if header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut address, mut found) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::from(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::from(*v6));
            }
            NeighbourAttribute::LinkLocalAddress(bytes) => found = mac(bytes),
            _ => {}
        }
    }
    let known = match header.state {
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent
        | NeighbourState::Noarp => true,
        // Incomplete, failed, none, and what the future brings.
        _ => false,
    };
    Some(NeighbourView {
        device: header.ifindex,
        address: address?,
        mac: found.filter(|_| known),
        stale: header.state == NeighbourState::Stale,
    })
}
