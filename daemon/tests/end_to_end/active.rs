//! Connections that fourwave opens to the kernel.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::thread;

use fourwave::{Runtime, SocketOptions, TcpStream};
use fourwave_bench::lab::Side;

use crate::support::roles::{ECHO_SIZE, Role};
use crate::support::{
    Bed, FAMILIES, PATIENCE, connect, eventually, eventually_is, soaking, within,
};

const PORT: u16 = 7778;
const THREADS: usize = 4;

/// Short connections per thread and address family.
fn scale() -> usize {
    if soaking() { 1000 } else { 250 }
}

/// One request and its echo; then the server closes first.
fn exchange(runtime: &Runtime, server: SocketAddr, tag: u8) {
    let mut stream = connect(runtime, server);
    let request = [tag; ECHO_SIZE];
    stream.write_all(&request).expect("it is connected");
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).expect("the server closes in order");
    assert_eq!(reply, request);
}

#[test]
fn many_short_connections_to_a_kernel_server() {
    let Some(mut bed) = Bed::new("active") else { return };
    let servers = FAMILIES.map(|v6| bed.client_address(v6, PORT));
    bed.start(Side::Client, Role::KernelEcho, &servers);
    let runtime = bed.runtime();
    for server in servers {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let runtime = &runtime;
                scope.spawn(move || {
                    (0..scale()).for_each(|n| exchange(runtime, server, (n + thread) as u8));
                });
            }
        });
    }
    let opened = (FAMILIES.len() * THREADS * scale()) as u64;
    eventually_is("ActiveOpens", &opened, || bed.stats().get("ActiveOpens"));
    assert_eq!(bed.stats().get("AttemptFails"), 0);
    drop(runtime);
    bed.wait_until_empty();
}

/// What connecting to `to` fails with.
fn error_of(runtime: &Runtime, to: SocketAddr) -> Option<i32> {
    let options = SocketOptions::new().runtime(runtime);
    let connected: std::io::Result<TcpStream> = within("connect", move || options.connect(to));
    connected.expect_err("nobody listens there").raw_os_error()
}

#[test]
fn a_closed_port_refuses() {
    let Some(bed) = Bed::new("refused") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let closed = bed.client_address(v6, 4444);
        assert_eq!(error_of(&runtime, closed), Some(libc::ECONNREFUSED), "{closed}");
    }
    drop(runtime);
    bed.wait_until_empty();
}

#[test]
fn a_host_that_is_not_there_is_unreachable() {
    let Some(bed) = Bed::new("nobody") else { return };
    let runtime = bed.runtime();
    for host in ["10.99.200.200", "fd99::dead"] {
        let host: IpAddr = host.parse().expect("an address");
        let error = error_of(&runtime, SocketAddr::new(host, PORT));
        assert_eq!(error, Some(libc::EHOSTUNREACH), "{host}");
    }
    for nowhere in ["192.0.2.1", "2001:db8::1"] {
        let nowhere: IpAddr = nowhere.parse().expect("an address");
        let error = error_of(&runtime, SocketAddr::new(nowhere, PORT));
        assert_eq!(error, Some(libc::ENETUNREACH), "{nowhere}");
    }
    drop(runtime);
    bed.wait_until_empty();
}

/// The ports run out towards one server, whichever worker owns them, and nobody waits for one that
/// will be free some time.
#[test]
fn without_a_free_port_an_address_is_not_available() {
    let settings = [("local_ports", "\"61000-61003\"")];
    let Some(bed) = Bed::with("ports", |lab| lab.queues(2), &settings) else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let [one, other] = [0, 0].map(|port| bed.kernel_listen(bed.client_address(v6, port)));
        let address = one.local_addr().expect("it is bound");
        let mut streams: Vec<TcpStream> = (0..4).map(|_| connect(&runtime, address)).collect();
        let before = bed.stats().get("no_local_port");
        assert_eq!(error_of(&runtime, address), Some(libc::EADDRNOTAVAIL));
        eventually("it counts", || bed.stats().get("no_local_port") > before);
        // Towards another server the same ports are free.
        drop(connect(&runtime, other.local_addr().expect("it is bound")));
        // One that the server closes first leaves no TIME_WAIT here.
        let (kernel, peer) = one.accept().expect("it is connected");
        drop(kernel);
        let closed = streams.iter().position(|stream| stream.local_addr().ok() == Some(peer));
        let mut stream = streams.swap_remove(closed.expect("it is one of them"));
        assert_eq!(stream.read(&mut [0; 1]).expect("an orderly end"), 0);
        drop(stream);
        let in_state = |state| bed.stats().get(&format!("sockets{{state=\"{state}\"}}"));
        eventually_is("it is over", &[3, 0, 0], || {
            ["established", "close_wait", "last_ack"].map(in_state)
        });
        drop(connect(&runtime, address));
    }
    drop(runtime);
    bed.wait_until_empty();
}

/// In a new lab nobody has spoken to anybody: the kernel has to be asked for the address.
#[test]
fn the_first_connection_resolves_its_neighbour() {
    let Some(bed) = Bed::new("resolve") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        // Not the first of its addresses: that one could be known from its own questions.
        let address = *bed.client().addresses(v6).last().expect("it has one");
        let listener = bed.kernel_listen(SocketAddr::new(address, PORT));
        let mut stream = connect(&runtime, SocketAddr::new(address, PORT));
        stream.write_all(b"hello").expect("it is connected");
        let (mut kernel, _) = within("accept", move || listener.accept()).expect("connected");
        kernel.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let mut bytes = [0; 5];
        kernel.read_exact(&mut bytes).expect("it comes");
        assert_eq!(&bytes, b"hello");
    }
    drop(runtime);
    bed.wait_until_empty();
}
