use super::*;
use std::cell::RefCell;
use std::rc::Rc;

/// A map in memory, with room for so many entries.
#[derive(Debug, Clone)]
pub(crate) struct FakeMap {
    pub(crate) entries: Rc<RefCell<BTreeSet<(u16, IpAddr)>>>,
    room: usize,
}

impl FakeMap {
    pub(crate) fn new(room: usize) -> FakeMap {
        FakeMap { entries: Rc::default(), room }
    }

    fn of(&self, port: u16) -> Vec<String> {
        let entries = self.entries.borrow();
        let of_port = entries.iter().filter(|(other, _)| *other == port);
        of_port.map(|(_, address)| address.to_string()).collect()
    }
}

impl Steer for FakeMap {
    fn serve(&mut self, address: IpAddr, port: u16) -> Result<(), SteerError> {
        if self.entries.borrow().len() == self.room {
            return Err(SteerError("full".to_owned()));
        }
        self.entries.borrow_mut().insert((port, address));
        Ok(())
    }

    fn unserve(&mut self, address: IpAddr, port: u16) -> Result<(), SteerError> {
        self.entries.borrow_mut().remove(&(port, address));
        Ok(())
    }
}

/// As most servers bind.
pub(crate) const PLAIN: Terms = Terms { v6_only: false, reuse_address: true, shared_by: None };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn claimant(listener: u32) -> Claimant {
    Claimant { group: GroupId(1), listener }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::new(V4_ANY, port)
}

/// A port that is given back is nobody else's soon after, where that is allowed: other tests take
/// what is free, too.
pub(crate) fn have_ports_alone() {
    // SAFETY: CLONE_NEWNET touches no memory, descriptors or other threads.
    let alone = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
    if alone.is_ok() {
        // Without any address at all the kernel takes every one for its own.
        let up = std::process::Command::new("ip").args(["link", "set", "dev", "lo", "up"]).status();
        assert!(up.is_ok_and(|status| status.success()), "iproute2 is needed");
    }
}

fn ports(workers: u32, addresses: &[&str]) -> (ServedPorts, FakeMap) {
    have_ports_alone();
    let map = FakeMap::new(1000);
    let addresses = addresses.iter().map(|text| ip(text)).collect();
    (ServedPorts::new(Box::new(map.clone()), workers, addresses), map)
}

/// Whether the kernel gives the port to a program.
fn is_free(port: u16) -> bool {
    std::net::TcpListener::bind(any(port)).is_ok()
}

#[test]
fn a_port_is_given_back_when_the_last_worker_is_idle() {
    let (mut ports, map) = ports(2, &["10.0.0.1", "fd99::1"]);
    let port = ports.claim(claimant(0), any(0), PLAIN).unwrap().port();
    assert_eq!(map.of(port), ["10.0.0.1"]);
    assert!(!is_free(port));
    ports.leave(claimant(0));
    assert_eq!(ports.gone(claimant(0)), Some(port));
    ports.idle(port, 0);
    ports.idle(port, 0);
    assert!(!is_free(port) && !map.of(port).is_empty(), "worker 1 still uses it");
    ports.idle(port, 1);
    assert!(is_free(port) && map.of(port).is_empty());
}

/// A restarted server binds while connections of its predecessor are in TIME_WAIT.
#[test]
fn a_closing_port_can_be_claimed_again() {
    let (mut ports, _) = ports(1, &["10.0.0.1"]);
    let address = ports.claim(claimant(0), any(0), PLAIN).unwrap();
    let error = ports.claim(claimant(1), address, PLAIN).unwrap_err();
    assert_eq!(error.errno(), Errno::ADDRINUSE);
    ports.leave(claimant(0));
    ports.claim(claimant(1), address, PLAIN).unwrap();
    assert_eq!(ports.gone(claimant(0)), None, "the port has another listener");
    // A late answer to a question that no longer stands.
    ports.idle(address.port(), 0);
    assert!(!is_free(address.port()));

    assert_eq!(ports.gone(claimant(1)), Some(address.port()));
    ports.claim(claimant(2), address, PLAIN).unwrap();
    ports.idle(address.port(), 0);
    assert!(!is_free(address.port()));
}

#[test]
fn wildcards_follow_the_machines_addresses() {
    let (mut ports, map) = ports(1, &["10.0.0.1", "fd99::1"]);
    let both = SocketAddr::new(V6_ANY, 0);
    let port = ports.claim(claimant(0), both, PLAIN).unwrap().port();
    assert_eq!(map.of(port), ["10.0.0.1", "fd99::1"]);
    ports.set_addresses(vec![ip("10.0.0.2"), ip("fd99::1")]);
    assert_eq!(map.of(port), ["10.0.0.2", "fd99::1"]);
    let many = (0..=MAX_EXPANDED as u8).map(|n| IpAddr::from([10, 0, 1, n]));
    ports.set_addresses(many.chain([ip("fd99::1")]).collect());
    assert_eq!(map.of(port), ["0.0.0.0", "fd99::1"]);
    let six = ports.claim(claimant(1), both, Terms { v6_only: true, ..PLAIN }).unwrap().port();
    assert_eq!(map.of(six), ["fd99::1"]);
}

#[test]
fn conflicts_are_those_of_the_kernel() {
    let claim = |address: &str, v6_only| Claim {
        claimant: claimant(0),
        address: ip(address),
        terms: Terms { v6_only, ..PLAIN },
        leaving: false,
    };
    for (one, only_one, other, only_other, conflict) in [
        ("0.0.0.0", false, "10.0.0.1", false, true),
        ("10.0.0.1", false, "10.0.0.1", false, true),
        ("10.0.0.1", false, "10.0.0.2", false, false),
        ("::", false, "10.0.0.1", false, true),
        ("::", true, "10.0.0.1", false, false),
        ("::", true, "0.0.0.0", false, false),
        ("::", false, "0.0.0.0", false, true),
        ("::", true, "::", false, true),
        ("::", true, "fd99::1", false, true),
        ("0.0.0.0", false, "fd99::1", false, false),
    ] {
        let terms = |v6_only| Terms { v6_only, ..PLAIN };
        let found = claim(one, only_one).conflicts(ip(other), &terms(only_other));
        assert_eq!(found, conflict, "{one} {other}");
        let found = claim(other, only_other).conflicts(ip(one), &terms(only_one));
        assert_eq!(found, conflict, "{other} {one}");
    }
}

/// A wider address is claimed while a narrower one of ours is still held.
#[test]
fn holders_of_ours_make_room_for_each_other() {
    let (mut ports, _) = ports(1, &["10.0.0.1"]);
    // Loopback addresses cannot be claimed, but held: the test needs no other.
    let narrow = ports.hold("127.0.0.1:0".parse().unwrap(), false).unwrap();
    ports.claim(claimant(0), any(narrow), PLAIN).unwrap();
    assert_eq!(ports.ports[&narrow].holders.len(), 2);
    assert!(!is_free(narrow));
    assert!(std::net::TcpListener::bind(("127.0.0.1", narrow)).is_err());
    // Covered by what is there.
    assert_eq!(
        ports.hold("127.0.0.1:0".parse().unwrap(), false).map(|p| p != narrow).ok(),
        Some(true)
    );
    assert_eq!(ports.ports[&narrow].holders.len(), 2);
}

#[test]
fn a_refusal_changes_nothing() {
    let map = FakeMap::new(0);
    let mut ports = ServedPorts::new(Box::new(map.clone()), 1, vec![ip("10.0.0.1")]);
    let error = ports.claim(claimant(0), any(0), PLAIN).unwrap_err();
    assert_eq!(error.errno(), Errno::NOBUFS);
    assert!(ports.ports.is_empty());
    let loopback = SocketAddr::from(([127, 0, 0, 1], 8080));
    let error = ports.claim(claimant(0), loopback, PLAIN).unwrap_err();
    assert_eq!(error.errno(), Errno::ADDRNOTAVAIL);
    let listener = std::net::TcpListener::bind(any(0)).unwrap();
    let taken = listener.local_addr().unwrap();
    let error = ports.claim(claimant(0), taken, PLAIN).unwrap_err();
    assert_eq!(error.errno(), Errno::ADDRINUSE);
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
    assert!(ports.ports.is_empty());
}

#[test]
fn reserved_ports_are_kept_and_taken_ones_left_out() {
    let (mut ports, map) = ports(1, &["10.0.0.1", "fd99::1"]);
    let listener = std::net::TcpListener::bind(any(0)).unwrap();
    let taken = listener.local_addr().unwrap().port();
    // Port numbers near one that the kernel chose; some may be in use by other tests.
    let range = PortRange::new(taken.saturating_sub(5), taken).unwrap();
    let kept = ports.reserve(&range).unwrap();
    assert!(!kept.contains(&taken));
    for port in kept {
        assert_eq!(map.of(port), ["10.0.0.1", "fd99::1"]);
        assert!(!is_free(port));
        // A listener may come and go there; the port stays.
        ports.claim(claimant(0), any(port), PLAIN).unwrap();
        ports.leave(claimant(0));
        assert_eq!(ports.gone(claimant(0)), None);
        assert!(!is_free(port));
    }
}

/// SO_REUSEPORT: all must have set it, and be of one user.
#[test]
fn an_address_is_shared_by_one_users_listeners_that_agree() {
    let of = |uid| Terms { shared_by: Some(uid), ..PLAIN };
    let (mut ports, _) = ports(1, &["10.0.0.1"]);
    let address = ports.claim(claimant(0), any(0), of(7)).unwrap();
    ports.claim(claimant(1), address, of(7)).unwrap();
    let narrow = SocketAddr::new(ip("10.0.0.1"), address.port());
    for terms in [PLAIN, of(8)] {
        for wanted in [address, narrow] {
            let error = ports.claim(claimant(2), wanted, terms).unwrap_err();
            assert_eq!(error.errno(), Errno::ADDRINUSE);
        }
    }
    assert_eq!(ports.gone(claimant(0)), None);
    assert_eq!(ports.gone(claimant(1)), Some(address.port()));
}

#[test]
fn without_so_reuseaddr_former_connections_are_in_the_way() {
    let strict = Terms { reuse_address: false, ..PLAIN };
    let (mut ports, _) = ports(1, &["10.0.0.1"]);
    let address = ports.claim(claimant(0), any(0), strict).unwrap();
    ports.leave(claimant(0));
    assert_eq!(ports.gone(claimant(0)), Some(address.port()));
    let error = ports.claim(claimant(1), address, strict).unwrap_err();
    assert!(matches!(error, ClaimError::Remembered(_)) && error.errno() == Errno::ADDRINUSE);
    // The worker has nothing left there.
    ports.idle(address.port(), 0);
    ports.claim(claimant(1), address, strict).unwrap();
    ports.leave(claimant(1));
    assert_eq!(ports.gone(claimant(1)), Some(address.port()));
    ports.claim(claimant(2), address, PLAIN).unwrap();
}

#[test]
fn a_kept_listener_holds_its_port_and_is_in_nobodys_way() {
    let (mut ports, _) = ports(1, &["10.0.0.1"]);
    let keeper = Claimant { group: GroupId(2), listener: 0 };
    let address = ports.claim(claimant(0), any(0), PLAIN).unwrap();
    ports.keep(claimant(0), keeper);
    assert_eq!(ports.gone(claimant(0)), None);
    assert!(!is_free(address.port()));
    ports.claim(claimant(1), address, PLAIN).unwrap();
    assert!(ports.overlap(claimant(1), keeper));
    let other = ports.claim(claimant(2), any(0), PLAIN).unwrap();
    assert!(other != address && !ports.overlap(claimant(2), keeper));
    assert_eq!(ports.gone(keeper), None);
    assert_eq!(ports.gone(claimant(1)), Some(address.port()));
}
