//! Socket options, as the kernel at the other end sees them.

use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fourwave::{SocketOptions, TcpKeepalive};
use rustix::net::sockopt::set_socket_recv_buffer_size;

use crate::support::bpf::lose_frames;
use crate::support::kernel::KernelInfo;
use crate::support::sniff::Sniffer;
use crate::support::{Bed, FAMILIES, accept, eventually, eventually_is, within};

const PORT: u16 = 7777;
/// What timestamps take in every segment.
const TIMESTAMPS: u32 = 12;

/// A connection each way, both with these options at fourwave's end.
fn pairs(
    bed: &Bed,
    v6: bool,
    options: &SocketOptions,
) -> [(fourwave::TcpStream, std::net::TcpStream); 2] {
    let listener = options.bind(bed.server_address(v6, PORT)).expect("the port is free");
    let passive = bed.connected_pair(&listener);
    let kernel = bed.kernel_listen(bed.client_address(v6, 0));
    let stream = options.connect(kernel.local_addr().expect("it is bound")).expect("it listens");
    let (accepted, _) = within("accept", move || kernel.accept()).expect("it is connected");
    accepted.set_read_timeout(Some(crate::support::PATIENCE)).expect("not zero");
    [passive, (stream, accepted)]
}

#[test]
fn the_largest_segment_is_announced_and_kept_to() {
    let Some(bed) = Bed::new("mss") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let options = SocketOptions::new().runtime(&runtime).mss(600);
        for (mut fourwave, mut kernel) in pairs(&bed, v6, &options) {
            assert_eq!(KernelInfo::of(&kernel).snd_mss(), 600 - TIMESTAMPS);
            assert_eq!(fourwave.mss().expect("the daemon answers"), 600 - TIMESTAMPS);
            fourwave.write_all(&[7; 5880]).expect("it is connected");
            kernel.read_exact(&mut [0; 5880]).expect("it comes");
            let info = fourwave.tcp_info().expect("the daemon answers");
            assert!(info.data_segs_out >= 10, "{info:?}");
            assert_eq!((info.advmss, info.snd_mss), (600, 600 - TIMESTAMPS));
        }
    }
    drop(runtime);
    bed.wait_until_empty();
}

#[test]
fn information_agrees_with_the_kernels() {
    let Some(bed) = Bed::new("info") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let options = SocketOptions::new().runtime(&runtime);
        for (mut fourwave, mut kernel) in pairs(&bed, v6, &options) {
            const THERE: usize = 100_000;
            const BACK: usize = 5000;
            let mut writer = fourwave.try_clone().expect("the daemon is there");
            let writing = thread::spawn(move || writer.write_all(&[1; THERE]));
            kernel.read_exact(&mut vec![0; THERE]).expect("it comes");
            writing.join().expect("no panic").expect("it is connected");
            kernel.write_all(&[2; BACK]).expect("it is connected");
            fourwave.read_exact(&mut [0; BACK]).expect("it comes");
            eventually_is("all is acknowledged", &THERE, || {
                fourwave.tcp_info().expect("the daemon answers").bytes_acked as usize
            });
            let (ours, theirs) =
                (fourwave.tcp_info().expect("it answers"), KernelInfo::of(&kernel));
            assert_eq!((ours.state, theirs.state()), (1, 1));
            assert_eq!(theirs.bytes_received(), THERE as u64);
            assert_eq!((ours.bytes_received, ours.notsent_bytes), (BACK as u64, 0));
            assert!(ours.bytes_sent >= THERE as u64 && ours.unacked == 0, "{ours:?}");
            assert_eq!(ours.snd_mss, theirs.snd_mss());
            assert_eq!(ours.snd_mss, theirs.advmss().min(ours.advmss - TIMESTAMPS));
            assert_eq!(
                ours.window_scales,
                Some({
                    let (of_peer, own) = theirs.scales();
                    (own, of_peer)
                })
            );
            assert_eq!(ours.pmtu, Some(theirs.pmtu()), "{ours:?}");
            assert!(ours.rcv_ssthresh >= ours.rcv_wnd && ours.rcv_space > 0, "{ours:?}");
            assert!(ours.rcv_rtt.is_some(), "{ours:?}");
            assert!(ours.timestamps && ours.sack, "{ours:?}");
            assert!(ours.rtt > Duration::ZERO && ours.rto >= ours.rtt, "{ours:?}");
            assert!(ours.min_rtt.is_some_and(|min| min > Duration::ZERO), "{ours:?}");
            assert!(ours.snd_cwnd >= 2 && ours.segs_out >= ours.data_segs_out, "{ours:?}");
            assert!(ours.data_segs_out as usize >= THERE / 1448, "{ours:?}");
        }
    }
    drop(runtime);
    bed.wait_until_empty();
}

#[test]
fn a_silent_peer_is_asked_whether_it_is_there() {
    let Some(bed) = Bed::new("keepalive") else { return };
    let runtime = bed.runtime();
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new().with_time(second).with_interval(second).with_retries(2);
    let options = SocketOptions::new().runtime(&runtime).tcp_keepalive(&keepalive);
    let mut pairs = pairs(&bed, false, &options);
    for (fourwave, kernel) in &pairs {
        assert!(fourwave.keepalive().expect("the daemon answers"));
        let before = KernelInfo::of(kernel).segs_in();
        eventually("two probes come", || KernelInfo::of(kernel).segs_in() >= before + 2);
        assert_eq!(fourwave.tcp_info().expect("the daemon answers").state, 1);
    }
    // A peer that does not answer any more is given up.
    let _black_hole = lose_frames(bed.client(), 1).expect("the kernel has TCX");
    for (fourwave, _) in &mut pairs {
        fourwave.set_read_timeout(Some(crate::support::PATIENCE)).expect("not zero");
        let error = fourwave.read(&mut [0; 1]).expect_err("nobody is there");
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT), "{error}");
    }
    drop((pairs, options, runtime));
    bed.wait_until_empty();
}

#[test]
fn the_user_timeout_ends_waiting_for_a_peer_that_is_gone() {
    let Some(bed) = Bed::new("timeout") else { return };
    let runtime = bed.runtime();
    let timeout = Some(Duration::from_millis(500));
    let options = SocketOptions::new().runtime(&runtime);
    let mut pairs = pairs(&bed, false, &options);
    let _black_hole = lose_frames(bed.client(), 1).expect("the kernel has TCX");
    for (fourwave, _) in &mut pairs {
        fourwave.set_tcp_user_timeout(timeout).expect("the daemon is there");
        assert_eq!(fourwave.tcp_user_timeout().expect("the daemon answers"), timeout);
        fourwave.write_all(b"into the dark").expect("it does not know yet");
        fourwave.set_read_timeout(Some(crate::support::PATIENCE)).expect("not zero");
        let error = fourwave.read(&mut [0; 1]).expect_err("nobody is there");
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT), "{error}");
    }
    drop((pairs, options, runtime));
    bed.wait_until_empty();
}

#[test]
fn closing_lingers_until_the_peer_has_all() {
    let Some(bed) = Bed::new("lingers") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let kernel = bed.kernel_listen(bed.client_address(v6, 0));
        // So small that what is written does not fit.
        set_socket_recv_buffer_size(&kernel, 4096).expect("root may");
        let mut fourwave = crate::support::connect(&runtime, kernel.local_addr().expect("bound"));
        let (mut kernel, _) = within("accept", move || kernel.accept()).expect("it is connected");
        kernel.set_read_timeout(Some(crate::support::PATIENCE)).expect("not zero");
        fourwave.set_linger(Some(Duration::from_secs(3600))).expect("the daemon is there");
        fourwave.write_all(&[9; 40_000]).expect("it fits the send buffer");
        let (done, is_done) = mpsc::channel();
        let closing = thread::spawn(move || {
            drop(fourwave);
            done.send(()).expect("somebody waits");
        });
        let early = is_done.recv_timeout(Duration::from_millis(100));
        assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout));
        let mut all = Vec::new();
        kernel.read_to_end(&mut all).expect("an orderly end");
        assert_eq!(all, [9; 40_000]);
        is_done.recv_timeout(crate::support::PATIENCE).expect("the peer has all");
        closing.join().expect("no panic");
    }
    drop(runtime);
    bed.wait_until_empty();
}

#[test]
fn closing_lingers_no_longer_than_asked() {
    let Some(bed) = Bed::new("lingered") else { return };
    let runtime = bed.runtime();
    let kernel = bed.kernel_listen(bed.client_address(false, 0));
    set_socket_recv_buffer_size(&kernel, 4096).expect("root may");
    let mut fourwave = crate::support::connect(&runtime, kernel.local_addr().expect("bound"));
    let (mut kernel, _) = within("accept", move || kernel.accept()).expect("it is connected");
    fourwave.set_linger(Some(Duration::from_secs(1))).expect("the daemon is there");
    fourwave.write_all(&[9; 40_000]).expect("it fits the send buffer");
    within("close", move || drop(fourwave));
    // What was written still comes.
    let mut all = Vec::new();
    kernel.read_to_end(&mut all).expect("an orderly end");
    assert_eq!(all.len(), 40_000);
    drop(runtime);
    bed.wait_until_empty();
}

#[test]
fn packets_carry_their_class() {
    let Some(bed) = Bed::new("tos") else { return };
    let runtime = bed.runtime();
    let options = SocketOptions::new().runtime(&runtime).tos(0xb8).tclass(0x48);
    for (v6, class) in [(false, 0xb8), (true, 0x48)] {
        let sniffer = Sniffer::on(bed.client());
        let from = bed.server_address(v6, PORT).ip();
        for (mut fourwave, mut kernel) in pairs(&bed, v6, &options) {
            fourwave.write_all(b"first class").expect("it is connected");
            kernel.read_exact(&mut [0; 11]).expect("it comes");
            kernel.write_all(b"thank you").expect("it is connected");
            fourwave.read_exact(&mut [0; 9]).expect("it comes");
        }
        // SYN-ACK, SYN, data, acknowledgements. The bits of ECN are TCP's own.
        for seen in sniffer.classes(from, 6) {
            assert_eq!(seen & !3, class, "{v6}");
        }
    }
    // It can be changed later.
    let plain = SocketOptions::new().runtime(&runtime);
    for (mut fourwave, mut kernel) in pairs(&bed, false, &plain) {
        fourwave.set_tos(0x28).expect("the daemon is there");
        let sniffer = Sniffer::on(bed.client());
        fourwave.write_all(b"now").expect("it is connected");
        kernel.read_exact(&mut [0; 3]).expect("it comes");
        assert_eq!(sniffer.classes(bed.server_address(false, 0).ip(), 1)[0] & !3, 0x28);
    }
    drop((options, plain, runtime));
    bed.wait_until_empty();
}

#[test]
fn packets_carry_their_ttl() {
    let Some(bed) = Bed::new("ttl") else { return };
    let runtime = bed.runtime();
    let (plain, options) = (SocketOptions::new(), SocketOptions::new().ttl(7));
    let (plain, options) = (plain.runtime(&runtime), options.runtime(&runtime));
    for v6 in FAMILIES {
        let from = bed.server_address(v6, PORT).ip();
        for (options, ttl) in [(&plain, 64), (&options, 7)] {
            let sniffer = Sniffer::on(bed.client());
            for (mut fourwave, mut kernel) in pairs(&bed, v6, options) {
                assert_eq!(fourwave.ttl().expect("the daemon answers"), ttl);
                fourwave.write_all(b"how far").expect("it is connected");
                kernel.read_exact(&mut [0; 7]).expect("it comes");
                kernel.write_all(b"this far").expect("it is connected");
                fourwave.read_exact(&mut [0; 8]).expect("it comes");
            }
            // SYN-ACK, SYN, data, acknowledgements.
            for header in sniffer.headers(from, 6) {
                assert_eq!(u32::from(header.ttl), ttl, "{v6} {header:?}");
            }
            // Nothing of these comes later.
            eventually_is("they are over", &0, || bed.stats().get("connections"));
        }
        for (mut fourwave, mut kernel) in pairs(&bed, v6, &plain) {
            fourwave.set_ttl(255).expect("the daemon is there");
            let sniffer = Sniffer::on(bed.client());
            fourwave.write_all(b"now").expect("it is connected");
            kernel.read_exact(&mut [0; 3]).expect("it comes");
            assert_eq!(sniffer.headers(from, 1)[0].ttl, 255);
        }
    }
    drop((plain, options, runtime));
    bed.wait_until_empty();
}

#[test]
fn a_listeners_options_are_those_of_its_connections() {
    let Some(bed) = Bed::new("inherited") else { return };
    let runtime = bed.runtime();
    let options = SocketOptions::new().runtime(&runtime).recv_buffer_size(8192);
    let listener = options.bind(bed.server_address(false, PORT)).expect("the port is free");
    let mut kernel = bed.kernel_connect(listener.local_addr().expect("it is bound"));
    let first = accept(&listener);
    assert!(KernelInfo::of(&kernel).snd_wnd() <= 8192);
    assert_eq!(first.recv_buffer_size().expect("the daemon answers"), 2 * 8192);
    // No more than that comes while nobody reads.
    kernel.set_nonblocking(true).expect("a socket");
    let full = |kernel: &mut std::net::TcpStream| {
        let written = kernel.write(&[3; 4096]);
        written.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    eventually("the kernel has sent what it may", || full(&mut kernel));
    eventually("the window is used", || {
        first.tcp_info().expect("the daemon answers").bytes_received > 4096
    });
    assert!(first.tcp_info().expect("the daemon answers").bytes_received <= 8192);

    listener.set_nodelay(true).expect("the daemon is there");
    listener.set_tcp_congestion("reno").expect("the daemon is there");
    let _kernel = bed.kernel_connect(listener.local_addr().expect("it is bound"));
    let second = accept(&listener);
    assert!(second.nodelay().expect("the daemon answers"));
    assert_eq!(second.tcp_congestion().expect("the daemon answers"), "reno");
    assert!(!first.nodelay().expect("the daemon answers"), "it was there before");
    drop((first, second, listener, options, runtime));
    bed.wait_until_empty();
}
