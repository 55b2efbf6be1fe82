use super::view::{AddressView, HopView, LinkView, RouteKind, RouteView};
use super::*;

const NIC: u32 = 2;
const OTHER: u32 = 3;
const VLAN: u32 = 4;
const NIC_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn link(index: u32, name: &str, vlan: Option<(u32, u16)>) -> LinkView {
    LinkView {
        index,
        name: name.to_owned(),
        mac: Some(NIC_MAC),
        mtu: 1500,
        up: true,
        vlan: vlan.map(|(parent, control)| {
            let protocol = 0x8100;
            (parent, Tag { protocol, control })
        }),
        rx_queues: 1,
    }
}

fn address(device: u32, text: &str, prefix: u8) -> AddressView {
    let address: IpAddr = text.parse().unwrap();
    AddressView {
        device,
        address,
        prefix,
        global: !address.is_loopback() && !text.starts_with("fe80"),
        secondary: false,
        tentative: false,
    }
}

fn hop(device: u32, gateway: Option<&str>) -> HopView {
    HopView { device, gateway: gateway.map(|text| text.parse().unwrap()), source: None, mtu: None }
}

fn route(prefix: &str, length: u8, kind: RouteKind) -> RouteView {
    RouteView { prefix: prefix.parse().unwrap(), length, priority: 0, kind }
}

fn on_link(prefix: &str, length: u8, device: u32) -> RouteView {
    route(prefix, length, RouteKind::Hops(vec![hop(device, None)]))
}

/// A machine with our NIC, another one, and a VLAN on ours.
fn view() -> View {
    let mut view = View {
        links: vec![
            link(1, "lo", None),
            link(NIC, "nic", None),
            link(OTHER, "other", None),
            link(VLAN, "nic.7", Some((NIC, 7))),
        ],
        addresses: vec![
            address(1, "127.0.0.1", 8),
            address(NIC, "10.99.0.2", 16),
            address(NIC, "fd99::2", 64),
            address(OTHER, "192.0.2.1", 24),
            address(VLAN, "10.7.0.2", 16),
        ],
        routes: vec![
            route("127.0.0.0", 8, RouteKind::Local),
            route("10.99.0.2", 32, RouteKind::Local),
            route("192.0.2.1", 32, RouteKind::Local),
            route("10.99.255.255", 32, RouteKind::Nowhere),
            on_link("10.99.0.0", 16, NIC),
            on_link("fd99::", 64, NIC),
            on_link("192.0.2.0", 24, OTHER),
            on_link("10.7.0.0", 16, VLAN),
            route("0.0.0.0", 0, RouteKind::Hops(vec![hop(NIC, Some("10.99.0.1"))])),
        ],
        neighbours: HashMap::new(),
    };
    for (device, neighbour) in [(NIC, "10.99.0.1"), (NIC, "fd99::1"), (VLAN, "10.7.0.1")] {
        let neighbour = neighbour.parse().unwrap();
        view.neighbours.insert((device, neighbour), PEER_MAC);
    }
    view
}

fn table(view: &View) -> PathTable {
    PathTable::build(1, NIC, view)
}

#[test]
fn neighbours_and_gateways() {
    let table = table(&view());
    let direct = table.lookup(addr("10.99.0.1"), None).unwrap();
    assert_eq!(direct.link, Link::new(PEER_MAC, NIC_MAC));
    assert_eq!((direct.source, direct.mtu), (addr("10.99.0.2"), 1500));
    // Through the gateway, from the address that is asked for.
    let far = table.lookup(addr("198.51.100.1"), Some(addr("10.99.0.77"))).unwrap();
    assert_eq!((far.link, far.source), (direct.link, addr("10.99.0.77")));
    let six = table.lookup(addr("fd99::1"), None).unwrap();
    assert_eq!((six.link, six.source), (direct.link, addr("fd99::2")));
    assert_eq!(table.gateways().collect::<Vec<_>>(), [(NIC, addr("10.99.0.1"))]);
}

#[test]
fn unknown_neighbours_are_named() {
    let mut view = view();
    view.neighbours.clear();
    for (peer, next_hop, source) in [
        ("10.99.0.1", "10.99.0.1", "10.99.0.2"),
        ("198.51.100.1", "10.99.0.1", "10.99.0.2"),
        ("fd99::1", "fd99::1", "fd99::2"),
    ] {
        let miss = PathMiss::Unresolved {
            next_hop: next_hop.parse().unwrap(),
            source: addr(source),
            mtu: 1500,
        };
        assert_eq!(table(&view).lookup(addr(peer), None), Err(miss));
    }
    assert_eq!(table(&view).device_of(addr("10.99.0.1")), Some(NIC));
}

/// A neighbour of the same address on another device is another machine.
#[test]
fn neighbours_belong_to_a_device() {
    let mut view = view();
    view.neighbours.clear();
    view.neighbours.insert((OTHER, "10.99.0.1".parse().unwrap()), PEER_MAC);
    let found = table(&view).lookup(addr("10.99.0.1"), None);
    assert!(matches!(found, Err(PathMiss::Unresolved { .. })), "{found:?}");
}

#[test]
fn what_does_not_leave_through_us_has_no_route() {
    let mut view = view();
    view.routes.push(route("203.0.113.0", 24, RouteKind::Nowhere));
    for peer in ["192.0.2.9", "10.99.0.2", "10.99.255.255", "203.0.113.5", "2001:db8::1"] {
        let found = table(&view).lookup(addr(peer), None);
        assert_eq!(found, Err(PathMiss::NoRoute), "{peer}");
    }
}

#[test]
fn local_is_whatever_the_machine_has() {
    let table = table(&view());
    for local in ["10.99.0.2", "192.0.2.1", "127.5.5.5"] {
        assert!(table.is_local(addr(local)), "{local}");
    }
    assert!(!table.is_local(addr("10.99.0.1")));
    // Loopback addresses cannot be reached from outside.
    let outside = ["10.7.0.2", "10.99.0.2", "192.0.2.1", "fd99::2"].map(addr);
    let mut found = table.addresses().to_vec();
    found.sort_by_key(|address| (!address.is_v4(), address.0));
    assert_eq!(found, outside);
}

#[test]
fn vlans_carry_their_tags() {
    let table = table(&view());
    let found = table.lookup(addr("10.7.0.1"), None).unwrap();
    assert_eq!(found.source, addr("10.7.0.2"));
    let tags: Vec<u16> = found.link.tags().iter().map(Tag::vlan).collect();
    assert_eq!(tags, [7]);
}

/// The inner VLAN device lies on the outer one; on the wire the outer tag comes first.
#[test]
fn nested_vlans_are_tagged_from_the_outside() {
    let mut view = view();
    view.links.push(link(5, "nic.7.9", Some((VLAN, 9))));
    view.links.push(link(6, "nic.7.9.1", Some((5, 1))));
    view.routes.push(on_link("10.8.0.0", 16, 5));
    view.routes.push(on_link("10.9.0.0", 16, 6));
    view.addresses.push(address(5, "10.8.0.2", 16));
    view.neighbours.insert((5, "10.8.0.1".parse().unwrap()), PEER_MAC);
    let found = table(&view).lookup(addr("10.8.0.1"), None).unwrap();
    let tags: Vec<u16> = found.link.tags().iter().map(Tag::vlan).collect();
    assert_eq!(tags, [7, 9]);
    // Three tags are more than a frame of ours can carry.
    assert_eq!(table(&view).lookup(addr("10.9.0.1"), None), Err(PathMiss::NoRoute));
}

#[test]
fn priority_decides_among_equal_prefixes() {
    let mut view = view();
    let mut better = on_link("10.99.0.0", 16, OTHER);
    better.priority = 0;
    for route in &mut view.routes {
        route.priority = 100;
    }
    view.routes.push(better);
    let found = table(&view).lookup(addr("10.99.0.1"), None);
    assert_eq!(found, Err(PathMiss::NoRoute));
}

#[test]
fn link_local_peers_are_on_our_interface() {
    let mut view = view();
    view.routes.push(on_link("fe80::", 64, OTHER));
    view.routes.push(on_link("fe80::", 64, NIC));
    view.addresses.push(address(NIC, "fe80::2", 64));
    view.neighbours.insert((NIC, "fe80::1".parse().unwrap()), PEER_MAC);
    let found = table(&view).lookup(addr("fe80::1"), None).unwrap();
    assert_eq!(found.source, addr("fe80::2"));
}

#[test]
fn routes_can_narrow_the_mtu_and_name_the_source() {
    let mut view = view();
    view.links[1].mtu = 100_000;
    let narrow = HopView {
        mtu: Some(1400),
        source: Some("10.99.0.3".parse().unwrap()),
        ..hop(NIC, Some("10.99.0.1"))
    };
    view.routes.push(route("198.51.100.0", 24, RouteKind::Hops(vec![narrow])));
    let table = table(&view);
    let found = table.lookup(addr("198.51.100.1"), None).unwrap();
    assert_eq!((found.mtu, found.source), (1400, addr("10.99.0.3")));
    assert_eq!(table.lookup(addr("10.99.0.1"), None).unwrap().mtu, u16::MAX);
}

/// Several gateways: each peer keeps one, and all are used.
#[test]
fn several_next_hops_share_the_peers() {
    let mut view = view();
    let hops = vec![hop(NIC, Some("10.99.0.1")), hop(NIC, Some("10.99.0.4"))];
    view.routes.push(route("198.51.0.0", 16, RouteKind::Hops(hops)));
    let other_mac = Mac([2, 0, 0, 0, 0, 4]);
    view.neighbours.insert((NIC, "10.99.0.4".parse().unwrap()), other_mac);
    let table = table(&view);
    let mut seen = std::collections::HashSet::new();
    for peer in 0..200 {
        let peer = Addr::from_v4([198, 51, 100, peer]);
        let found = table.lookup(peer, None).unwrap().link.dst;
        assert_eq!(table.lookup(peer, None).unwrap().link.dst, found);
        seen.insert(found);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_link_that_is_down_has_no_routes() {
    let mut view = view();
    view.links[1].up = false;
    assert_eq!(table(&view).lookup(addr("10.99.0.1"), None), Err(PathMiss::NoRoute));
    assert_eq!(PathTable::empty().lookup(addr("10.99.0.1"), None), Err(PathMiss::NoRoute));
}
