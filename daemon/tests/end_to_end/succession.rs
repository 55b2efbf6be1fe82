//! What a listener leaves behind goes to its successor: connections that nobody has accepted, with
//! the bytes that have come, and the port's readiness to answer.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use fourwave::{Runtime, SocketOptions};
use fourwave_bench::lab::Side;
use fourwave_bench::load::{self, LoadConfig, Until};
use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits, set_thread_uid};

use crate::killed::kill;
use crate::load::assert_flawless;
use crate::support::bytes::Pattern;
use crate::support::kernel::KernelInfo;
use crate::support::roles::{ECHO_SIZE, Role};
use crate::support::{Bed, FAMILIES, PATIENCE, accept, eventually, eventually_is};

const PORT: u16 = 7777;
/// Longer than anything that a busy machine holds up.
const LONG: (&str, &str) = ("clients.accept_grace", "\"60s\"");
/// Connections of the load.
const LOAD: u64 = 1_200;
/// What timestamps take in every segment.
const TIMESTAMPS: u32 = 12;
/// What fits a connection's first window: five pages, the last of them not full.
const WAITING: usize = 20_000;

/// Connections that come while nobody accepts, and a server that is killed and comes back.
#[test]
fn a_server_killed_under_load_loses_no_connection() {
    let Some(mut bed) = Bed::with("comeback", |lab| lab.queues(2), &[LONG]) else { return };
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let victim = bed.start(Side::Server, Role::Hoard, &[address]);
        let config = LoadConfig {
            sources: bed.client().addresses(v6),
            first_source: 0,
            size: ECHO_SIZE,
            concurrency: 0,
            rate: Some(400.0),
            until: Until::Connections(LOAD),
            timeout: PATIENCE,
            ..LoadConfig::new(address)
        };
        let before = bed.stats().get("PassiveOpens");
        let opened = |bed: &Bed| bed.stats().get("PassiveOpens") - before;
        let client = bed.client().netns().clone();
        let load = thread::spawn(move || client.run(|| load::kernel::run(&config)));
        eventually("connections wait", || opened(&bed) > 100);
        kill(victim);
        let at_death = opened(&bed);
        let more = LOAD.min(at_death + 100);
        eventually("more come while nobody is there", || opened(&bed) >= more);
        bed.stop(Role::Hoard.name(), Duration::ZERO).expect("it is dead");
        bed.start(Side::Server, Role::FourwaveEcho, &[address]);
        let report = load.join().expect("no panic").expect("the namespace can be entered");
        assert_flawless(&report.expect("the client can make load"), LOAD);
        for name in ["unaccepted_resets", "ListenDrops"] {
            assert_eq!(bed.stats().get(name), 0, "{name}");
        }
        bed.stop(Role::FourwaveEcho.name(), Duration::from_secs(5)).expect("it can be ended");
    }
    bed.wait_until_idle();
}

/// A connection with bytes that nobody has read, `tag` among them.
fn waiting(bed: &Bed, to: SocketAddr, tag: u64) -> TcpStream {
    let mut kernel = bed.kernel_connect(to);
    let mut bytes = vec![0; WAITING];
    Pattern::new(tag).fill(&mut bytes);
    kernel.write_all(&bytes).expect("it is connected");
    kernel
}

/// Accepts one of `kernels`, and uses it up.
fn assert_taken_over(listener: &fourwave::TcpListener, kernels: &mut Vec<(TcpStream, u64)>) {
    let mut fourwave = accept(listener);
    let peer = fourwave.peer_addr().ok();
    let this = kernels.iter().position(|(kernel, _)| kernel.local_addr().ok() == peer);
    let (mut kernel, tag) = kernels.swap_remove(this.expect("it is one of them"));
    let (mut received, mut expected) = (vec![0; WAITING], vec![0; WAITING]);
    fourwave.read_exact(&mut received).expect("it is there");
    Pattern::new(tag).fill(&mut expected);
    assert!(received == expected, "other bytes came");
    // It goes on both ways, as if nothing had happened.
    kernel.write_all(b"more").expect("it is connected");
    kernel.shutdown(Shutdown::Write).expect("it is connected");
    let mut rest = Vec::new();
    fourwave.read_to_end(&mut rest).expect("an orderly end");
    assert_eq!(rest, b"more");
    fourwave.write_all(b"answer").expect("it is connected");
    drop(fourwave);
    rest.clear();
    kernel.read_to_end(&mut rest).expect("an orderly end");
    assert_eq!(rest, b"answer");
}

#[test]
fn a_successor_gets_what_has_come() {
    let Some(mut bed) = Bed::with("heir", |lab| lab.queues(2), &[LONG]) else { return };
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let victim = bed.start(Side::Server, Role::Hoard, &[address]);
        let mut kernels: Vec<_> = (0..4).map(|tag| (waiting(&bed, address, tag), tag)).collect();
        kill(victim);
        bed.stop(Role::Hoard.name(), Duration::ZERO).expect("it is dead");
        // Where nobody is, too.
        kernels.push((waiting(&bed, address, 4), 4));
        let runtime = bed.runtime();
        let listener = bed.listen(&runtime, address);
        while !kernels.is_empty() {
            assert_taken_over(&listener, &mut kernels);
        }
        // A program that closes its listener, and thinks better of it.
        kernels.push((waiting(&bed, address, 9), 9));
        drop(listener);
        let listener = bed.listen(&runtime, address);
        assert_taken_over(&listener, &mut kernels);
        // Of a connection that was accepted nothing is kept.
        let accepted = bed.connected_pair(&listener);
        drop((listener, runtime));
        let (fourwave, mut kernel) = accepted;
        drop(fourwave);
        assert_eq!(kernel.read(&mut [0; 1]).expect("an orderly end"), 0);
    }
    bed.wait_until_idle();
}

/// Several listeners of one address died; one comes back and gets what all of them had.
#[test]
fn one_successor_for_listeners_that_shared_an_address() {
    let Some(mut bed) = Bed::with("heirs", |lab| lab.queues(2), &[LONG]) else { return };
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let victim = bed.start(Side::Server, Role::Hoard, &[address; 3]);
        let mut kernels: Vec<_> = (0..16).map(|tag| (waiting(&bed, address, tag), tag)).collect();
        kill(victim);
        bed.stop(Role::Hoard.name(), Duration::ZERO).expect("it is dead");
        let runtime = bed.runtime();
        let listener = bed.listen(&runtime, address);
        while !kernels.is_empty() {
            assert_taken_over(&listener, &mut kernels);
        }
    }
    bed.wait_until_idle();
    assert_eq!(bed.stats().get("unaccepted_resets"), 0);
}

/// What a listener had been told holds for connections that come when it is gone, until a
/// successor has choices of its own.
#[test]
fn a_kept_listener_keeps_its_options() {
    let Some(bed) = Bed::with("habits", |lab| lab.queues(2), &[LONG]) else { return };
    let runtime = bed.runtime();
    let patience = Duration::from_secs(77);
    for (opened, v6) in [1, 3].into_iter().zip(FAMILIES) {
        let address = bed.server_address(v6, PORT);
        let options = SocketOptions::new().runtime(&runtime).mss(600).keepalive(true);
        let options = options.tcp_user_timeout(Some(patience));
        drop(options.bind(address).expect("the port is free"));
        let early = bed.kernel_connect(address);
        assert_eq!(KernelInfo::of(&early).snd_mss(), 600 - TIMESTAMPS);
        // The kernel is connected when it has sent its ACK: one that came late would complete the
        // handshake at the successor.
        eventually_is("PassiveOpens", &opened, || bed.stats().get("PassiveOpens"));
        let listener = bed.listen(&runtime, address);
        let late = bed.kernel_connect(address);
        assert!(KernelInfo::of(&late).snd_mss() > 1000, "the successor's choice is no limit");
        let ours = [early, late].map(|kernel| (accept(&listener), kernel));
        let asked = ours.each_ref().map(|(fourwave, _)| {
            (
                fourwave.keepalive().expect("the daemon answers"),
                fourwave.tcp_user_timeout().expect("the daemon answers"),
            )
        });
        assert_eq!(asked, [(true, Some(patience)), (false, None)]);
        // One more option, and the others are as they were.
        let (fourwave, mut kernel) = ours.into_iter().next().expect("there are two");
        fourwave.set_nodelay(true).expect("it is connected");
        assert!(fourwave.keepalive().expect("the daemon answers"));
        (&fourwave).write_all(&[7; 3000]).expect("it is connected");
        kernel.read_exact(&mut [0; 3000]).expect("it comes");
        let sent = fourwave.tcp_info().expect("the daemon answers");
        assert!(sent.data_segs_out >= 6, "{sent:?}");
    }
    drop(runtime);
    bed.wait_until_idle();
}

#[test]
fn without_a_successor_it_is_reset_in_the_end() {
    let settings = [("clients.accept_grace", "\"300ms\"")];
    let Some(mut bed) = Bed::with("heirless", |lab| lab, &settings) else { return };
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let before = bed.stats().get("unaccepted_resets");
        let victim = bed.start(Side::Server, Role::Hoard, &[address]);
        let mut kernels: Vec<TcpStream> = (0..3).map(|tag| waiting(&bed, address, tag)).collect();
        kill(victim);
        for kernel in &mut kernels {
            let error = kernel.read(&mut [0; 1]).expect_err("nobody has accepted it");
            assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{error}");
        }
        eventually_is("they count", &(before + 3), || bed.stats().get("unaccepted_resets"));
        let error = bed.try_kernel_connect(address).expect_err("nobody listens");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "{error}");
        bed.stop(Role::Hoard.name(), Duration::ZERO).expect("it is dead");
        bed.wait_until_empty();
    }
}

/// The daemon's client as another user: what the control socket tells the daemon is the thread's.
fn runtime_of_nobody(bed: &Bed) -> Runtime {
    const NOBODY: u32 = 65_534;
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            // The thread stays able to reach the lab's folder.
            set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP).expect("root");
            set_thread_uid(rustix::process::Uid::from_raw(NOBODY)).expect("root");
            bed.runtime()
        });
        other.join().expect("no panic")
    })
}

/// Another user may have the port, but nothing of what was left there.
#[test]
fn another_user_gets_nothing() {
    let Some(mut bed) = Bed::with("stranger", |lab| lab, &[LONG]) else { return };
    let stranger = runtime_of_nobody(&bed);
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let victim = bed.start(Side::Server, Role::Hoard, &[address]);
        let mut kernel = waiting(&bed, address, 1);
        kill(victim);
        bed.stop(Role::Hoard.name(), Duration::ZERO).expect("it is dead");
        let listener = bed.listen(&stranger, address);
        let error = kernel.read(&mut [0; 1]).expect_err("nobody has accepted it");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{error}");
        listener.set_nonblocking(true).expect("the daemon is there");
        let nothing = listener.accept().map(drop).expect_err("nothing waits");
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
        // SO_REUSEPORT is for one user's listeners.
        let runtime = bed.runtime();
        let options = SocketOptions::new().reuse_port(true).runtime(&runtime);
        let refused = options.bind(address).expect_err("another user's");
        assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse, "{refused}");
        drop(listener);
    }
    bed.wait_until_idle();
}
