//! The ways in which connections end, with the kernel as the peer.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use fourwave_bench::packet::{BATCH, Frame, PacketSocket};
use fourwave_wire::{ChecksumPolicy, Flags, Inbound, TcpFrame, parse};

use crate::support::{Bed, FAMILIES, accept, eventually, eventually_is};

/// A connection to a fourwave server and one from a fourwave client.
fn pairs(bed: &Bed, runtime: &fourwave::Runtime, v6: bool) -> Pairs {
    let listener = bed.listen(runtime, bed.server_address(v6, 7777));
    [bed.connected_pair(&listener), bed.opened_pair(runtime, v6)]
}

type Pairs = [(fourwave::TcpStream, std::net::TcpStream); 2];

#[test]
fn a_half_closed_connection_goes_on() {
    let Some(bed) = Bed::new("half") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        for (mut fourwave, mut kernel) in pairs(&bed, &runtime, v6) {
            let mut rest = Vec::new();
            fourwave.write_all(b"request").expect("it is connected");
            fourwave.shutdown(Shutdown::Write).expect("it is connected");
            let error = fourwave.write(b"more").expect_err("that side is closed");
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            kernel.read_to_end(&mut rest).expect("an orderly end");
            assert_eq!(rest, b"request");
            // The other way round is open as long as anybody wants.
            for tag in 0..50 {
                kernel.write_all(&[tag; 2000]).expect("only the other side is closed");
                let mut bytes = [0; 2000];
                fourwave.read_exact(&mut bytes).expect("it comes");
                assert_eq!(bytes, [tag; 2000]);
            }
            kernel.shutdown(Shutdown::Write).expect("it is connected");
            assert_eq!(fourwave.read(&mut [0; 1]).expect("an orderly end"), 0);
        }
        for (mut fourwave, mut kernel) in pairs(&bed, &runtime, v6) {
            kernel.shutdown(Shutdown::Write).expect("it is connected");
            assert_eq!(fourwave.read(&mut [0; 1]).expect("an orderly end"), 0);
            fourwave.write_all(b"answer").expect("only the other side is closed");
            drop(fourwave);
            let mut rest = Vec::new();
            kernel.read_to_end(&mut rest).expect("an orderly end");
            assert_eq!(rest, b"answer");
        }
    }
    drop(runtime);
    bed.wait_until_empty();
}

/// Both ends at the same moment, often enough that FINs cross.
#[test]
fn both_ends_close_at_once() {
    let Some(bed) = Bed::new("crossing") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        for _ in 0..25 {
            for (mut fourwave, mut kernel) in pairs(&bed, &runtime, v6) {
                let together = Barrier::new(2);
                thread::scope(|scope| {
                    scope.spawn(|| {
                        together.wait();
                        fourwave.shutdown(Shutdown::Write).expect("it is connected");
                    });
                    together.wait();
                    kernel.shutdown(Shutdown::Write).expect("it is connected");
                });
                assert_eq!(fourwave.read(&mut [0; 1]).expect("an orderly end"), 0);
                assert_eq!(kernel.read(&mut [0; 1]).expect("an orderly end"), 0);
            }
        }
    }
    drop(runtime);
    bed.wait_until_empty();
    assert_eq!(bed.stats().get("EstabResets"), 0);
}

#[test]
fn closing_with_unread_bytes_resets() {
    let Some(bed) = Bed::new("reset") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        for (fourwave, mut kernel) in pairs(&bed, &runtime, v6) {
            kernel.write_all(b"never read").expect("it is connected");
            assert_eq!(fourwave.peek(&mut [0; 1]).expect("it comes"), 1);
            drop(fourwave);
            let error = kernel.read(&mut [0; 1]).expect_err("no orderly end");
            assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{error}");
        }
    }
    drop(runtime);
    bed.wait_until_empty();
}

#[test]
fn lingering_for_no_time_resets() {
    let Some(bed) = Bed::new("linger") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        for (fourwave, mut kernel) in pairs(&bed, &runtime, v6) {
            fourwave.set_linger(Some(Duration::ZERO)).expect("zero is offered");
            drop(fourwave);
            let error = kernel.read(&mut [0; 1]).expect_err("no orderly end");
            assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{error}");
        }
    }
    drop(runtime);
    bed.wait_until_empty();
}

#[test]
fn the_peers_reset_is_an_error_once() {
    let Some(bed) = Bed::new("peer") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        for (mut fourwave, kernel) in pairs(&bed, &runtime, v6) {
            fourwave.write_all(b"never read").expect("it is connected");
            assert_eq!(kernel.peek(&mut [0; 1]).expect("it comes"), 1);
            // With bytes unread the kernel resets.
            drop(kernel);
            let error = fourwave.read(&mut [0; 1]).expect_err("no orderly end");
            assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{error}");
            assert_eq!(fourwave.read(&mut [0; 1]).expect("it was told once"), 0);
            let error = fourwave.write(b"x").expect_err("nobody is there");
            assert_eq!(error.raw_os_error(), Some(libc::EPIPE), "{error}");
        }
        for (mut fourwave, kernel) in pairs(&bed, &runtime, v6) {
            // After the peer's end of stream a reset is a broken pipe.
            kernel.shutdown(Shutdown::Write).expect("it is connected");
            assert_eq!(fourwave.read(&mut [0; 1]).expect("an orderly end"), 0);
            drop(kernel);
            fourwave.write_all(b"nobody is there").expect("we do not know that yet");
            let mut broken = || fourwave.write(b"x").map_err(|error| error.raw_os_error());
            eventually("a broken pipe", || broken() == Err(Some(libc::EPIPE)));
        }
    }
    drop(runtime);
    bed.wait_until_empty();
}

/// The server closed first and is in TIME_WAIT; the client comes back from the same port at once.
/// Peers reset while small writes are on their way to the worker, one extent taking many of them:
/// each writer sees its own connection end, and is not taken for a liar.
#[test]
fn a_reset_may_cross_writes() {
    let Some(bed) = Bed::new("cross") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let listener = bed.listen(&runtime, bed.server_address(v6, 7777));
        for _ in 0..500 {
            let (mut fourwave, mut kernel) = bed.connected_pair(&listener);
            let writer = thread::spawn(move || {
                let ended =
                    std::iter::repeat_with(|| fourwave.write_all(&[1; 10])).find_map(Result::err);
                ended.expect("the peer has gone").kind()
            });
            kernel.read_exact(&mut [0; 1]).expect("it comes");
            // Bytes that were not read: a reset.
            drop(kernel);
            let kind = writer.join().expect("it does not panic");
            assert!(matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{kind}");
        }
    }
    drop(runtime);
    bed.wait_until_empty();
}

#[test]
fn a_new_connection_takes_the_place_of_a_time_wait() {
    let Some(bed) = Bed::new("again") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let listener = bed.listen(&runtime, bed.server_address(v6, 7777));
        let (from, to) = (bed.client_address(v6, 33_333), bed.server_address(v6, 7777));
        for round in 0..5 {
            // The kernel has its port again when fourwave has acknowledged its FIN.
            let mut kernel = None;
            eventually("the port is free again", || {
                kernel = bed.try_kernel_connect_from(from, to).ok();
                kernel.is_some()
            });
            let mut kernel = kernel.expect("just seen");
            let mut fourwave = accept(&listener);
            fourwave.write_all(&[round; 100]).expect("it is connected");
            drop(fourwave);
            let mut bytes = Vec::new();
            kernel.read_to_end(&mut bytes).expect("an orderly end");
            assert_eq!(bytes, [round; 100]);
        }
    }
    eventually_is("TIME_WAITs taken over", &8, || bed.stats().get("TWRecycled"));
    drop(runtime);
    bed.wait_until_empty();
}

/// Not in every case: the daemon may have sent the bytes before the close is posted.
#[test]
fn a_close_right_after_the_last_write_is_one_segment() {
    let Some(bed) = Bed::new("ride") else { return };
    let runtime = bed.runtime();
    let open = || PacketSocket::open(bed.client().interface());
    let tap = bed.client().run(open).expect("it can be entered").expect("it may listen");
    let mut frames: Vec<Frame> = (0..BATCH).map(|_| Frame::new()).collect();
    for v6 in FAMILIES {
        let listener = bed.listen(&runtime, bed.server_address(v6, 7777));
        let mut together = 0;
        for _ in 0..50 {
            let (mut fourwave, mut kernel) = bed.connected_pair(&listener);
            fourwave.write_all(&[7; 100]).expect("it is connected");
            drop(fourwave);
            let mut bytes = Vec::new();
            kernel.read_to_end(&mut bytes).expect("an orderly end");
            assert_eq!(bytes, [7; 100]);
            // The tap has seen what the kernel's socket has.
            loop {
                let count = tap.receive(&mut frames).expect("the interface is up");
                for frame in &frames[..count] {
                    let parsed = parse(frame.bytes(), ChecksumPolicy::Verify);
                    let Ok(Inbound::Tcp(TcpFrame { segment, .. })) = parsed else { continue };
                    let fin = segment.flags.contains(Flags::FIN);
                    together += usize::from(fin && segment.payload == [7; 100]);
                }
                if count == 0 {
                    break;
                }
            }
        }
        assert!(together > 0, "no FIN came with the data");
    }
    drop(runtime);
    bed.wait_until_empty();
}

/// With data or a FIN under way, and nobody to hold the connection.
#[test]
fn one_orphan_more_than_there_may_be_is_reset() {
    let Some(bed) = Bed::with("orphans", |lab| lab, &[("tcp.max_orphans", "0")]) else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        for (mut fourwave, mut kernel) in pairs(&bed, &runtime, v6) {
            fourwave.write_all(b"on its way").expect("it is connected");
            drop(fourwave);
            let error = kernel.read_to_end(&mut Vec::new()).expect_err("no orderly end");
            assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{error}");
        }
    }
    drop(runtime);
    // The counters may be those of before the second family, when nothing was left either.
    eventually_is("TCPAbortOnMemory", &4, || bed.stats().get("TCPAbortOnMemory"));
    bed.wait_until_empty();
}
