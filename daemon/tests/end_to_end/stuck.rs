//! Programs that are stopped, or do not read: their own connections wait, and nobody else's.

use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use fourwave_bench::lab::{ProcessRef, Side};
use rustix::process::{Pid, Signal, kill_process};

use crate::load::{assert_flawless, short_connections};
use crate::support::bytes::{Pattern, Sum, receive, send};
use crate::support::kernel::KernelInfo;
use crate::support::roles::{GREETING, Role, WRITTEN_SEED};
use crate::support::{Bed, FAMILIES, PATIENCE, accept, connect_later, eventually};
use crate::transfer::both_at_once;

const PORT: u16 = 7777;
/// Of the program that goes on.
const ECHO: u16 = 7778;

/// Connections of the program that is stopped. Their windows are more than its memory.
const STREAMS: usize = 24;
/// Bytes that each of their peers sends.
const LENGTH: u64 = 200_000;
/// [`STREAMS`] is a multiple of it.
const BACKLOG: usize = 8;

/// What received bytes may take of `clients.bytes`, 1 MiB.
const MOST_BYTES: u64 = 768 << 10;

/// A program's connections that are served beside a stopped one, one after the other.
const SERVED: u64 = 1000;

fn bed(name: &str) -> Option<Bed> {
    let settings = [("clients.bytes", "\"1MiB\""), ("clients.connections", "1024")];
    Bed::with(name, |lab| lab, &settings)
}

fn signal(child: ProcessRef, signal: Signal) {
    let pid = Pid::from_raw(child.pid).expect("a child has a pid");
    kill_process(pid, signal).expect("it is our child");
}

/// Stops a program, all its threads.
fn stop(child: ProcessRef) {
    signal(child, Signal::STOP);
    let path = format!("/proc/{}/task", child.pid);
    eventually("it is stopped", || {
        let threads = std::fs::read_dir(&path).expect("it is there");
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat"));
            stat.is_ok_and(|stat| stat.contains(") T "))
        })
    });
}

/// Sends a stream that is not waited for.
fn sender<'scope, 'env>(
    scope: &'scope thread::Scope<'scope, 'env>,
    kernel: &'scope TcpStream,
    seed: u64,
    length: u64,
) -> ScopedJoinHandle<'scope, Sum> {
    scope.spawn(move || {
        let sum = send(kernel, seed, length).expect("the stream takes all");
        kernel.shutdown(Shutdown::Write).expect("it is connected");
        sum
    })
}

/// Each peer is told what it has sent.
fn assert_all_came<'a>(
    kernels: impl IntoIterator<Item = &'a TcpStream>,
    sent: impl IntoIterator<Item = ScopedJoinHandle<'a, Sum>>,
) {
    for (kernel, sent) in kernels.into_iter().zip(sent) {
        assert_eq!(Sum::told(kernel).expect("it is told"), sent.join().expect("no panic"));
    }
}

/// The memory of a stopped program is full, and no fuller than it may be.
fn assert_bounded(bed: &Bed, kernels: &[TcpStream], dropped: u64) {
    let now = || bed.stats().get("segments_dropped{reason=\"no_memory\"}");
    eventually("no more is taken, and that is counted", || now() > dropped);
    let acked = kernels.iter().map(|kernel| KernelInfo::of(kernel).bytes_acked());
    let kept: u64 = acked.sum();
    assert!(kept > MOST_BYTES / 2 && kept <= MOST_BYTES, "{kept}");
}

/// Other programs of the same worker: one that serves, and one that connects.
fn assert_others_go_on(bed: &Bed, v6: bool) {
    assert_flawless(&short_connections(bed, v6, ECHO, SERVED), SERVED);
    let runtime = bed.runtime();
    for _ in 0..20 {
        let (fourwave, kernel) = bed.opened_pair(&runtime, v6);
        thread::scope(|scope| {
            let sent = sender(scope, &kernel, 7, 10_000);
            let came = receive(&fourwave).expect("it comes");
            assert_eq!(came, sent.join().expect("no panic"));
        });
    }
}

fn assert_reset(mut kernel: &TcpStream) {
    let error = kernel.read(&mut [0; 1]).expect_err("no orderly end");
    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{error}");
}

/// A server that is stopped while its peers go on sending and connecting.
#[test]
fn a_stopped_server_holds_up_nobody_else() {
    let Some(mut bed) = bed("stopped") else { return };
    let listen = FAMILIES.map(|v6| bed.server_address(v6, ECHO));
    bed.start(Side::Server, Role::FourwaveEcho, &listen);
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let child = bed.start_echo(Side::Server, Role::Summing, &[address], BACKLOG);
        let accepted = accepted_connections(&bed, address);
        let before = bed.stats();
        let dropped = before.get("segments_dropped{reason=\"no_memory\"}");
        stop(child);
        let full = BACKLOG as u64 + 1;
        let waiting = bed.fill_accept_queue(address, full);
        let late = thread::scope(|scope| {
            let first = (0..).zip(&accepted).map(|(seed, it)| sender(scope, it, seed, LENGTH));
            let first: Vec<_> = first.collect();
            assert_bounded(&bed, &accepted, dropped);
            let next = (100..).zip(&waiting).map(|(seed, it)| sender(scope, it, seed, LENGTH));
            let next: Vec<_> = next.collect();
            let late = connect_later(&bed, address);
            let overflows = || bed.stats().get("ListenOverflows");
            eventually("one more does not fit", || overflows() > before.get("ListenOverflows"));
            assert_others_go_on(&bed, v6);
            assert_bounded(&bed, &accepted, dropped);
            assert_eq!(bed.accept_queue(address), full);
            assert!(!late.is_finished(), "its SYN was answered");

            signal(child, Signal::CONT);
            assert_all_came(&accepted, first);
            waiting.iter().for_each(assert_greeted);
            assert_all_came(&waiting, next);
            late.join().expect("no panic").expect("it is connected at last")
        });
        drop((accepted, waiting));
        assert_greeted(&late);
        thread::scope(|scope| {
            let sent = sender(scope, &late, 9, LENGTH);
            assert_all_came([&late], [sent]);
        });

        // Killed while it is stopped: what it had not read is reset, and what it had not accepted.
        let accepted = accepted_connections(&bed, address);
        stop(child);
        let waiting = [(); 3].map(|()| bed.kernel_connect(address));
        for kernel in accepted.iter().chain(&waiting) {
            send(kernel, 5, 1000).expect("it goes into the kernel's buffer");
        }
        let received = |kernel: &TcpStream| KernelInfo::of(kernel).bytes_acked() >= 1000;
        eventually("it has come", || accepted.iter().chain(&waiting).all(received));
        signal(child, Signal::KILL);
        accepted.iter().chain(&waiting).for_each(assert_reset);
        bed.stop(Role::Summing.name(), Duration::ZERO).expect("it is dead");
        let error = bed.try_kernel_connect(address).expect_err("nobody listens");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "{error}");
        let runtime = bed.runtime();
        drop(bed.listen(&runtime, address));
    }
    bed.stop(Role::FourwaveEcho.name(), Duration::from_secs(5)).expect("it can be ended");
    bed.wait_until_empty();
}

/// Connections that the server at `address` has accepted: no more than its backlog at a time.
fn accepted_connections(bed: &Bed, address: SocketAddr) -> Vec<TcpStream> {
    let mut kernels = Vec::new();
    while kernels.len() < STREAMS {
        let batch = [(); BACKLOG].map(|()| bed.kernel_connect(address));
        batch.iter().for_each(assert_greeted);
        kernels.extend(batch);
    }
    kernels
}

/// The server has accepted it.
fn assert_greeted(mut kernel: &TcpStream) {
    let mut byte = [0];
    kernel.read_exact(&mut byte).expect("it is greeted");
    assert_eq!(byte, GREETING);
}

/// A program that is stopped after it has connected.
#[test]
fn a_stopped_opener_holds_up_nobody_else() {
    let Some(mut bed) = bed("opener") else { return };
    let listen = FAMILIES.map(|v6| bed.server_address(v6, ECHO));
    bed.start(Side::Server, Role::FourwaveEcho, &listen);
    for v6 in FAMILIES {
        let peer = bed.kernel_listen(bed.client_address(v6, 0));
        let (child, kernels) = dialled(&mut bed, &peer);
        let dropped = bed.stats().get("segments_dropped{reason=\"no_memory\"}");
        stop(child);
        thread::scope(|scope| {
            let sent = (0..).zip(&kernels).map(|(seed, it)| sender(scope, it, seed, LENGTH));
            let sent: Vec<_> = sent.collect();
            assert_bounded(&bed, &kernels, dropped);
            assert_others_go_on(&bed, v6);
            assert_bounded(&bed, &kernels, dropped);
            signal(child, Signal::CONT);
            assert_all_came(&kernels, sent);
        });
        bed.stop(Role::Dialling.name(), Duration::ZERO).expect("it can be ended");

        let (child, kernels) = dialled(&mut bed, &peer);
        stop(child);
        for kernel in &kernels {
            send(kernel, 5, 1000).expect("it goes into the kernel's buffer");
        }
        let received = |kernel: &TcpStream| KernelInfo::of(kernel).bytes_acked() >= 1000;
        eventually("it has come", || kernels.iter().all(received));
        signal(child, Signal::KILL);
        kernels.iter().for_each(assert_reset);
        bed.stop(Role::Dialling.name(), Duration::ZERO).expect("it is dead");
    }
    bed.stop(Role::FourwaveEcho.name(), Duration::from_secs(5)).expect("it can be ended");
    bed.wait_until_empty();
}

/// A program that is stopped while it writes. Its peer gets what was written, and the rest when it
/// goes on; killed, what it had written ends in order.
#[test]
fn a_stopped_writer_is_waited_for() {
    let Some(mut bed) = Bed::new("writer") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let child = bed.start(Side::Server, Role::Endless, &[address]);
        let mut kernel = bed.kernel_connect(address);
        let mut received = vec![0; 1 << 20];
        for _ in 0..3 {
            let come = received.len();
            kernel.read_exact(&mut received[come - (1 << 20)..]).expect("it is without end");
            stop(child);
            let (fourwave, other) = bed.opened_pair(&runtime, v6);
            both_at_once(&fourwave, &other, 1 << 20);
            signal(child, Signal::CONT);
            received.resize(come + (1 << 20), 0);
        }
        let come = received.len();
        kernel.read_exact(&mut received[come - (1 << 20)..]).expect("it goes on");
        stop(child);
        signal(child, Signal::KILL);
        kernel.read_to_end(&mut received).expect("an orderly end");
        let mut expected = vec![0; received.len()];
        Pattern::new(WRITTEN_SEED).fill(&mut expected);
        assert!(received == expected, "other bytes came");
        bed.stop(Role::Endless.name(), Duration::ZERO).expect("it is dead");
    }
    drop(runtime);
    bed.wait_until_empty();
}

/// A program that has connected to `peer`, and the other ends.
fn dialled(bed: &mut Bed, peer: &TcpListener) -> (ProcessRef, Vec<TcpStream>) {
    let address = peer.local_addr().expect("it is bound");
    let child = bed.start_echo(Side::Server, Role::Dialling, &[address], STREAMS);
    let accept = |_| {
        let (kernel, _) = peer.accept().expect("it is connected");
        kernel.set_read_timeout(Some(PATIENCE)).expect("not zero");
        kernel.set_write_timeout(Some(PATIENCE)).expect("not zero");
        kernel
    };
    (child, (0..STREAMS).map(accept).collect())
}

/// Reads a little, then nothing until the window is closed, again and again.
#[test]
fn a_slow_reader_closes_its_window_and_opens_it() {
    const TOTAL: u64 = 8 << 20;
    let Some(bed) = Bed::new("slow") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let listener = bed.listen(&runtime, bed.server_address(v6, PORT));
        let kernel = bed.kernel_connect(listener.local_addr().expect("it is bound"));
        let fourwave = accept(&listener);
        thread::scope(|scope| {
            let sent = sender(scope, &kernel, 3, TOTAL);
            let closed = || KernelInfo::of(&kernel).snd_wnd() == 0;
            let mut first = Vec::new();
            for piece in [1, 100, 70_000, 1, 300_000] {
                eventually("the window closes", closed);
                let mut bytes = vec![0; piece];
                (&fourwave).read_exact(&mut bytes).expect("it is there");
                first.extend(bytes);
            }
            eventually("the window closes", closed);
            let came = receive((&first[..]).chain(&fourwave)).expect("all comes");
            assert_eq!(came, sent.join().expect("no panic"));
        });
        let (mut fourwave, mut kernel) = (fourwave, kernel);
        std::io::Write::write_all(&mut fourwave, b"thanks").expect("it is connected");
        drop(fourwave);
        let mut bytes = Vec::new();
        kernel.read_to_end(&mut bytes).expect("an orderly end");
        assert_eq!(bytes, b"thanks");
    }
    drop(runtime);
    bed.wait_until_empty();
}
