//! The kernel's own traffic on the interface that fourwave serves a port of.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fourwave::SocketOptions;
use fourwave_bench::lab::Side;

use crate::load::{assert_flawless, short_connections};
use crate::support::icmp::ping;
use crate::support::roles::Role;
use crate::support::{Bed, FAMILIES, PATIENCE, eventually, soaking};

const SERVED: u16 = 7777;
const KERNEL: u16 = 2222;

/// Short connections that fourwave serves meanwhile, per address family.
fn scale() -> u64 {
    if soaking() { 200_000 } else { 10_000 }
}

/// A conversation with the kernel's server: some requests and their echoes.
fn converse(mut stream: TcpStream) {
    for tag in 0..10 {
        let request = [tag; 1000];
        stream.write_all(&request).expect("it is connected");
        let mut reply = [0; 1000];
        stream.read_exact(&mut reply).expect("the echo comes");
        assert_eq!(reply, request);
    }
}

/// Asks each second until an echo comes: nobody else repeats a request that was lost.
fn ping_until_answered(host: IpAddr, number: u16) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let result = ping(host, number, Duration::from_secs(1));
        let kind = result.as_ref().err().map(io::Error::kind);
        let is_lost = matches!(kind, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut));
        if !is_lost || Instant::now() > deadline {
            return result;
        }
    }
}

#[test]
fn ping_and_kernel_servers_work_beside_the_load() {
    let Some(mut bed) = Bed::new("polite") else { return };
    let served = FAMILIES.map(|v6| bed.server_address(v6, SERVED));
    bed.start(Side::Server, Role::FourwaveEcho, &served);
    let kernel = FAMILIES.map(|v6| bed.server_address(v6, KERNEL));
    bed.server().run(|| kernel_echo_of_whole_streams(&kernel)).expect("it can be entered");
    let done = AtomicBool::new(false);
    let bed = &bed;
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            for v6 in FAMILIES {
                assert_flawless(&short_connections(bed, v6, SERVED, scale()), scale());
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut number = 0;
        // At least once each, and as long as there is load.
        while number == 0 || !done.load(Ordering::Relaxed) && !load.is_finished() {
            number += 1;
            for v6 in FAMILIES {
                let host = bed.server_address(v6, 0).ip();
                let pinged = bed.client().run(|| ping_until_answered(host, number));
                pinged.expect("it can be entered").unwrap_or_else(|e| panic!("ping {host}: {e}"));
                converse(bed.kernel_connect(bed.server_address(v6, KERNEL)));
            }
        }
    });
    bed.wait_until_idle();
}

/// Kernel sockets that echo until the peer ends its stream, on threads that end with the process.
fn kernel_echo_of_whole_streams(addresses: &[std::net::SocketAddr]) {
    for address in addresses {
        let listener = TcpListener::bind(address).expect("the port is the kernel's");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
    }
}

#[test]
fn a_port_of_the_kernel_is_not_taken() {
    let Some(bed) = Bed::new("taken") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let address = bed.server_address(v6, KERNEL);
        let bind = || TcpListener::bind(address);
        let listener = bed.server().run(bind).expect("it can be entered").expect("it is free");
        let refused = SocketOptions::new().runtime(&runtime).bind(address);
        let error = refused.expect_err("the kernel has it");
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
        let (text, pid) = (error.to_string(), std::process::id().to_string());
        assert!(text.contains(&pid), "does not name process {pid}: {text}");
        // As soon as the kernel's listener has gone, it is fourwave's to take.
        drop(listener);
        let taken = SocketOptions::new().runtime(&runtime).bind(address);
        drop(taken.unwrap_or_else(|error| panic!("{error}")));
    }
    drop(runtime);
    bed.wait_until_empty();
}

#[test]
fn a_served_port_is_kept_from_the_kernel() {
    let Some(bed) = Bed::new("kept") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let address = bed.server_address(v6, SERVED);
        let bind = || bed.server().run(|| TcpListener::bind(address)).expect("it can be entered");
        let listener = bed.listen(&runtime, address);
        let error = bind().expect_err("it is served");
        assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE), "{error}");
        // A TIME_WAIT of fourwave keeps the port; without one it goes back with its listener.
        drop(listener);
        eventually("the kernel gets the port back", || bind().is_ok());
    }
    drop(runtime);
    bed.wait_until_empty();
}

#[test]
fn two_clients_cannot_have_one_port() {
    let Some(bed) = Bed::new("two") else { return };
    let (first, second) = (bed.runtime(), bed.runtime());
    for v6 in FAMILIES {
        let address = bed.server_address(v6, SERVED);
        let _listener = bed.listen(&first, address);
        let refused = SocketOptions::new().runtime(&second).bind(address);
        let error = refused.expect_err("the first client has it");
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
    }
    drop((first, second));
    bed.wait_until_empty();
}
