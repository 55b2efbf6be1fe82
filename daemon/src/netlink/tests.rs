//! In network namespaces of the test's own, which end with its threads.

use super::*;
use crate::path::{PathEntry, PathMiss};
use fourwave_wire::Addr;
use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

/// Moves this thread to a new network namespace; `false`, said aloud, when that is not allowed.
fn enter_new_namespace() -> bool {
    // SAFETY: CLONE_NEWNET touches no memory, descriptors or other threads.
    let entered = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
    if entered.is_err() {
        assert!(std::env::var_os("CI").is_none(), "namespaces cannot be made: needs root");
        eprintln!("skipped: needs root");
    }
    entered.is_ok()
}

/// Runs a test on a thread of its own, in a fresh network namespace.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = move || {
        if enter_new_namespace() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(test());
        }
    };
    std::thread::spawn(run).join().unwrap();
}

/// The other end of a link: a namespace that lives until the sender is dropped.
fn peer_namespace() -> (std::fs::File, std::sync::mpsc::Sender<()>) {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let (reply, namespace) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        assert!(enter_new_namespace());
        reply.send(std::fs::File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
        // Ends when the sender is dropped.
        let _ = receiver.recv();
    });
    (namespace.recv().unwrap(), sender)
}

async fn index(handle: &Handle, name: &str) -> u32 {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    links.next().await.unwrap().unwrap().header.index
}

async fn up(handle: &Handle, name: &str) {
    let message = LinkUnspec::new_with_name(name).up().build();
    handle.link().set(message).execute().await.unwrap();
}

/// A veth pair `nic`–`peer` in this namespace; `nic` is up and has 10.99.0.2/16.
async fn nic() -> (Handle, u32) {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle.link().add(LinkVeth::new("nic", "peer").build()).execute().await.unwrap();
    up(&handle, "nic").await;
    up(&handle, "peer").await;
    let index = index(&handle, "nic").await;
    let address = "10.99.0.2".parse().unwrap();
    handle.address().add(index, address, 16).execute().await.unwrap();
    (handle, index)
}

/// The first table for which `wanted` gives something.
async fn until<T>(paths: &mut Paths, wanted: impl Fn(&PathTable) -> Option<T>) -> T {
    let found = paths.tables.wait_for(|table| wanted(table).is_some());
    // Hangs only if it never comes; the limit turns that into a failure.
    let table = tokio::time::timeout(Duration::from_secs(20), found).await;
    let table = table.expect("the table never changed as it should").unwrap();
    wanted(&table).unwrap()
}

fn found(peer: &'static str) -> impl Fn(&PathTable) -> Option<PathEntry> {
    move |table| table.lookup(addr(peer), None).ok()
}

#[test]
fn changes_are_followed() {
    in_namespace(|| async {
        let (handle, index) = nic().await;
        let (watcher, mut paths) = Watcher::start("nic").await.unwrap();
        let mac = watcher.link().unwrap().mac.unwrap();
        tokio::spawn(watcher.run());

        let gateway = Ipv4Addr::new(10, 99, 0, 1);
        let unresolved = |table: &PathTable| match table.lookup(addr("10.99.0.1"), None) {
            Err(PathMiss::Unresolved { next_hop, source, mtu }) => Some((next_hop, source, mtu)),
            Err(PathMiss::NoRoute) | Ok(_) => None,
        };
        let miss = until(&mut paths, unresolved).await;
        assert_eq!(miss, (gateway.into(), addr("10.99.0.2"), 1500));
        let first = paths.tables.borrow().epoch();

        let peer = [2, 0, 0, 0, 0, 9];
        let add = handle.neighbours().add(index, gateway.into()).link_local_address(&peer);
        add.execute().await.unwrap();
        let entry = until(&mut paths, found("10.99.0.1")).await;
        assert_eq!((entry.link.dst.0, entry.link.src), (peer, mac));
        assert_ne!(paths.tables.borrow().epoch(), first);

        let route = || RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
        handle.route().add(route()).execute().await.unwrap();
        let entry = until(&mut paths, found("198.51.100.7")).await;
        assert_eq!((entry.link.dst.0, entry.source), (peer, addr("10.99.0.2")));
        handle.route().del(route()).execute().await.unwrap();
        let none = |table: &PathTable| {
            (table.lookup(addr("198.51.100.7"), None) == Err(PathMiss::NoRoute)).then_some(())
        };
        until(&mut paths, none).await;

        handle.address().add(index, "fd99::2".parse().unwrap(), 64).execute().await.unwrap();
        until(&mut paths, |table| table.is_local(addr("fd99::2")).then_some(())).await;
        assert!(!paths.tables.borrow().is_local(addr("fd99::1")));

        let message = LinkUnspec::new_with_name("nic").mtu(1400).build();
        handle.link().set(message).execute().await.unwrap();
        let mtu = |table: &PathTable| {
            table.lookup(addr("10.99.0.1"), None).ok().filter(|path| path.mtu == 1400)
        };
        until(&mut paths, mtu).await;
    });
}

/// The kernel sends the ARP requests and neighbour solicitations, and the peer answers them.
#[test]
fn neighbours_are_resolved_by_the_kernel() {
    in_namespace(|| async {
        let (handle, index) = nic().await;
        let (file, _keep) = peer_namespace();
        let peer = self::index(&handle, "peer").await;
        let mut move_peer = LinkUnspec::new_with_index(peer).setns_by_fd(file.as_raw_fd()).build();
        move_peer.header.index = peer;
        handle.link().set(move_peer).execute().await.unwrap();
        // NODAD: usable at once.
        let mut request = handle.address().add(index, "fd99::2".parse().unwrap(), 64);
        request.message_mut().header.flags =
            rtnetlink::packet_route::address::AddressHeaderFlags::Nodad;
        request.execute().await.unwrap();
        std::thread::spawn(move || {
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&file),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )
            .unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(configure_peer());
        })
        .join()
        .unwrap();

        let (watcher, mut paths) = Watcher::start("nic").await.unwrap();
        tokio::spawn(watcher.run());
        for peer in ["10.99.0.1", "fd99::1"] {
            let missing = move |table: &PathTable| match table.lookup(addr(peer), None) {
                Err(PathMiss::Unresolved { next_hop, .. }) => Some(next_hop),
                Err(PathMiss::NoRoute) | Ok(_) => None,
            };
            let next_hop = until(&mut paths, missing).await;
            paths.resolve(next_hop);
            until(&mut paths, found(peer)).await;
        }
    });
}

async fn configure_peer() {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    up(&handle, "peer").await;
    let index = index(&handle, "peer").await;
    for (address, prefix) in [("10.99.0.1", 16), ("fd99::1", 64)] {
        let mut request = handle.address().add(index, address.parse().unwrap(), prefix);
        request.message_mut().header.flags =
            rtnetlink::packet_route::address::AddressHeaderFlags::Nodad;
        request.execute().await.unwrap();
    }
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    in_namespace(|| async {
        let error = Watcher::start("nope0").await.err().unwrap();
        assert!(error.to_string().contains("\"nope0\""), "{error}");
    });
}
