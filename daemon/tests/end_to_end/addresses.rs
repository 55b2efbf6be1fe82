//! Listeners on every address, and addresses that come and go.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

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

fn exchange(bed: &Bed, listener: &fourwave::TcpListener, to: SocketAddr) {
    let mut kernel = bed.kernel_connect(to);
    let mut fourwave = accept(listener);
    assert_eq!(fourwave.local_addr().expect("it is connected"), to);
    assert_eq!(fourwave.peer_addr().ok(), kernel.local_addr().ok());
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
}

/// As on Linux with `IPV6_V6ONLY` off.
#[test]
fn one_listener_takes_both_families() {
    let Some(bed) = Bed::new("dual") else { return };
    let runtime = bed.runtime();
    let listener = bed.listen(&runtime, any(true));
    for v6 in FAMILIES {
        exchange(&bed, &listener, bed.server_address(v6, PORT));
    }
}
