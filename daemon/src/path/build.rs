//! From what the kernel says to a table.

use super::prefixes::Prefixes;
use super::source::{Source, is_link_local};
use super::view::{HopView, LinkView, RouteKind, RouteView};
use super::{Device, Fast, Hop, Routes, Target, View, header};
use fourwave_wire::Addr;

/// Tags that a frame can carry (design: 0–2).
const MAX_TAGS: usize = 2;

impl Routes {
    pub(crate) fn build(interface: u32, view: &View) -> Routes {
        let devices: Vec<Device> =
            view.links.iter().filter_map(|link| device(interface, link, view)).collect();
        let mut targets = Prefixes::new();
        let mut locals = Prefixes::new();
        for route in in_order(view, &devices) {
            let prefix = Addr::from(route.prefix);
            if route.kind == RouteKind::Local {
                locals.insert(prefix, route.length, ());
            }
            targets.insert(prefix, route.length, target(&route.kind, &devices));
        }
        Routes { addresses: reachable(view), devices, targets, locals, spread: Fast::default() }
    }
}

/// The device of `link`, if frames through it leave by `interface`.
fn device(interface: u32, link: &LinkView, view: &View) -> Option<Device> {
    let mut tags = Vec::new();
    let mut at = link;
    while at.index != interface {
        let (parent, tag) = at.vlan?;
        // The device nearest the application carries the innermost tag.
        tags.insert(0, tag);
        if tags.len() > MAX_TAGS {
            return None;
        }
        at = view.links.iter().find(|link| link.index == parent)?;
    }
    if !link.up {
        return None;
    }
    let sources = view
        .addresses
        .iter()
        .filter(|address| address.device == link.index && !address.tentative)
        .map(|address| Source {
            address: address.address.into(),
            prefix: address.prefix,
            global: address.global,
            secondary: address.secondary,
        });
    Some(Device {
        index: link.index,
        link: header(link.mac.unwrap_or_default(), &tags),
        mtu: clamp(link.mtu),
        sources: sources.collect(),
    })
}

/// Routes in the order in which the first of a prefix counts: what is local, then by priority.
/// Every device has a route to the link-local prefix; ours goes first, as peers there are ours.
fn in_order<'a>(view: &'a View, devices: &[Device]) -> Vec<&'a RouteView> {
    let ours = |hop: &HopView| devices.iter().any(|device| device.index == hop.device);
    let mut routes: Vec<&RouteView> = view.routes.iter().collect();
    // Stable: the kernel's order decides among equals.
    routes.sort_by_key(|route| {
        let local = route.kind == RouteKind::Local;
        let foreign = match &route.kind {
            RouteKind::Hops(hops) => is_link_local(route.prefix.into()) && !hops.iter().any(ours),
            RouteKind::Local | RouteKind::Nowhere => false,
        };
        (!local, foreign, route.priority)
    });
    routes
}

fn target(kind: &RouteKind, devices: &[Device]) -> Target {
    let hops = match kind {
        RouteKind::Local | RouteKind::Nowhere => return Target::Elsewhere,
        RouteKind::Hops(hops) => hops,
    };
    let ours: Vec<Hop> = hops
        .iter()
        .filter_map(|hop| {
            let device = devices.iter().position(|device| device.index == hop.device)?;
            let mtu = devices[device].mtu;
            Some(Hop {
                device,
                gateway: hop.gateway.map(Addr::from),
                source: hop.source.map(Addr::from),
                mtu: hop.mtu.map_or(mtu, |limit| mtu.min(clamp(limit))),
            })
        })
        .collect();
    match ours.is_empty() {
        true => Target::Elsewhere,
        false => Target::Hops(ours),
    }
}

fn reachable(view: &View) -> Vec<Addr> {
    let usable = view
        .addresses
        .iter()
        .filter(|address| !address.tentative && !address.address.is_loopback());
    let mut addresses: Vec<Addr> = usable.map(|address| address.address.into()).collect();
    addresses.sort_unstable_by_key(|address| address.0);
    addresses.dedup();
    addresses
}

/// An MTU as the stack counts it: an IP packet has at most 65535 bytes.
fn clamp(mtu: u32) -> u16 {
    u16::try_from(mtu).unwrap_or(u16::MAX)
}
