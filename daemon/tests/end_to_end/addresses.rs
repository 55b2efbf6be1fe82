//! Listeners on every address, and addresses that come and go.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fourwave::SocketOptions;

use crate::support::{Bed, FAMILIES, accept, eventually};

const PORT: u16 = 7777;

fn any(v6: bool) -> SocketAddr {
    match v6 {
        false => (Ipv4Addr::UNSPECIFIED, PORT).into(),
        true => (Ipv6Addr::UNSPECIFIED, PORT).into(),
    }
}

/// Runs `ip ADDRESS-COMMAND ADDRESS dev …` at the server's end.
fn ip_address(bed: &Bed, command: &str, address: &str) {
    let mut ip = bed.server().command("ip");
    ip.args(["address", command, address, "dev", bed.server().interface()]);
    if address.contains(':') && command == "add" {
        // Usable at once.
        ip.arg("nodad");
    }
    let output = ip.output().expect("iproute2 is installed");
    assert!(output.status.success(), "{ip:?}: {output:?}");
}

/// An address as a socket of the listener's family shows it.
fn shown(listener: &fourwave::TcpListener, address: SocketAddr) -> SocketAddr {
    match (listener.local_addr().expect("it is bound"), address.ip()) {
        (SocketAddr::V6(_), IpAddr::V4(v4)) => {
            SocketAddr::from((v4.to_ipv6_mapped(), address.port()))
        }
        _ => address,
    }
}

fn exchange(bed: &Bed, listener: &fourwave::TcpListener, to: SocketAddr) {
    let mut kernel = bed.kernel_connect(to);
    let mut fourwave = accept(listener);
    let from = kernel.local_addr().expect("it is connected");
    assert_eq!(fourwave.local_addr().expect("it is connected"), shown(listener, to));
    assert_eq!(fourwave.peer_addr().expect("it is connected"), shown(listener, from));
    kernel.write_all(b"hello").expect("it is connected");
    let mut bytes = [0; 5];
    fourwave.read_exact(&mut bytes).expect("it comes");
    assert_eq!(&bytes, b"hello");
}

#[test]
fn a_listener_on_every_address_follows_them() {
    let Some(bed) = Bed::new("any") else { return };
    let runtime = bed.runtime();
    for (v6, added, prefix) in [(false, "10.99.0.3", 16), (true, "fd99::3", 64)] {
        let options = SocketOptions::new().v6_only(true).runtime(&runtime);
        let listener = options.bind(any(v6)).unwrap_or_else(|error| panic!("{error}"));
        exchange(&bed, &listener, bed.server_address(v6, PORT));

        let new = SocketAddr::new(added.parse().expect("an address"), PORT);
        ip_address(&bed, "add", &format!("{added}/{prefix}"));
        // Until fourwave has heard of it, the kernel refuses.
        let mut first = None;
        eventually("the new address is served", || {
            first = bed.try_kernel_connect(new).ok();
            first.is_some()
        });
        drop((first, accept(&listener)));
        exchange(&bed, &listener, new);
        ip_address(&bed, "del", &format!("{added}/{prefix}"));
        exchange(&bed, &listener, bed.server_address(v6, PORT));
    }
    drop(runtime);
    bed.wait_until_empty();
}

/// As on Linux with `IPV6_V6ONLY` off: an IPv4 peer is shown as `::ffff:a.b.c.d`.
#[test]
fn one_listener_takes_both_families() {
    let Some(bed) = Bed::new("dual") else { return };
    let runtime = bed.runtime();
    let listener = bed.listen(&runtime, any(true));
    for v6 in FAMILIES {
        exchange(&bed, &listener, bed.server_address(v6, PORT));
    }
    drop((listener, runtime));
    bed.wait_until_empty();
}

/// The most specific listener takes a connection; `::ffff:a.b.c.d` is IPv4, said by an IPv6 socket.
#[test]
fn the_most_specific_listener_takes_it() {
    let Some(bed) = Bed::new("specific") else { return };
    let runtime = bed.runtime();
    // One port for all, which only their sharing it allows, as on Linux.
    let listen = |address: SocketAddr| {
        let options = SocketOptions::new().reuse_port(true).runtime(&runtime);
        options.bind(address).unwrap_or_else(|error| panic!("{address}: {error}"))
    };
    let (v4, v6) = (bed.server_address(false, PORT), bed.server_address(true, PORT));
    let both = listen(any(true));
    exchange(&bed, &both, v4);
    let all_v4 = listen(any(false));
    exchange(&bed, &all_v4, v4);
    let IpAddr::V4(ip) = v4.ip() else { panic!("{v4} is IPv4") };
    let mapped = SocketAddr::from((ip.to_ipv6_mapped(), PORT));
    let one = listen(mapped);
    assert_eq!(one.local_addr().expect("it is bound"), mapped);
    exchange(&bed, &one, v4);
    exchange(&bed, &both, v6);
    let one_v6 = listen(v6);
    exchange(&bed, &one_v6, v6);
    drop(one);
    exchange(&bed, &all_v4, v4);
    drop(all_v4);
    exchange(&bed, &both, v4);
    drop((both, one_v6, runtime));
    bed.wait_until_empty();
}
