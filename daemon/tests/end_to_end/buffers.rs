//! Buffers that grow and shrink, against the memory that an application may have.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use crate::support::bytes::{receive, send};
use crate::support::{Bed, FAMILIES, soaking};
use crate::transfer::both_at_once;

/// Bytes each way.
fn length() -> u64 {
    if soaking() { 1 << 30 } else { 100 << 20 }
}

/// As little memory as an application can be given, or far more than two streams need.
#[test]
fn long_streams_with_little_and_with_much_memory() {
    for (quota, length) in [("\"1MiB\"", length() / 10), ("\"256MiB\"", length())] {
        let settings = [("clients.bytes", quota)];
        let Some(bed) = Bed::with("quota", |lab| lab, &settings) else { return };
        let runtime = bed.runtime();
        let listener = bed.listen(&runtime, bed.server_address(false, 7777));
        let (fourwave, kernel) = bed.connected_pair(&listener);
        both_at_once(&fourwave, &kernel, length);
        drop((fourwave, listener, runtime));
        bed.wait_until_empty();
    }
}

/// There are 256 extents: if each of these connections kept one, none would be left.
#[test]
fn idle_connections_hold_no_memory() {
    let settings = [("clients.bytes", "\"1MiB\"")];
    let Some(bed) = Bed::with("hoard", |lab| lab, &settings) else { return };
    let runtime = bed.runtime();
    let listener = bed.listen(&runtime, bed.server_address(false, 7777));
    let mut pairs: Vec<_> = (0..300).map(|_| bed.connected_pair(&listener)).collect();
    for _ in 0..2 {
        for (fourwave, kernel) in &mut pairs {
            let mut bytes = [0; 700];
            kernel.write_all(&[7; 700]).expect("it is connected");
            fourwave.read_exact(&mut bytes).expect("it comes");
            fourwave.write_all(&bytes).expect("it is connected");
            kernel.read_exact(&mut bytes).expect("it comes");
            assert_eq!(bytes, [7; 700]);
        }
    }
    let (fourwave, kernel) = bed.connected_pair(&listener);
    both_at_once(&fourwave, &kernel, 2 << 20);
    drop((pairs, fourwave, listener, runtime));
    bed.wait_until_empty();
}

/// Whoever sends fills all buffers on the way, and goes on when the reader does.
#[test]
fn a_reader_stops_and_goes_on() {
    let Some(bed) = Bed::new("pause") else { return };
    let runtime = bed.runtime();
    let (length, pause) = (16 << 20, Duration::from_millis(500));
    for v6 in FAMILIES {
        let listener = bed.listen(&runtime, bed.server_address(v6, 7777));
        let (fourwave, kernel) = bed.connected_pair(&listener);
        thread::scope(|scope| {
            let sent = scope.spawn(|| {
                let sum = send(&kernel, 1, length).expect("the stream takes all");
                kernel.shutdown(Shutdown::Write).expect("it is connected");
                sum
            });
            thread::sleep(pause);
            assert_eq!(receive(&fourwave).expect("it comes"), sent.join().expect("no panic"));
            let sent = scope.spawn(|| {
                let sum = send(&fourwave, 2, length).expect("the stream takes all");
                fourwave.shutdown(Shutdown::Write).expect("it is connected");
                sum
            });
            thread::sleep(pause);
            assert_eq!(receive(&kernel).expect("it comes"), sent.join().expect("no panic"));
        });
    }
    drop(runtime);
    bed.wait_until_empty();
}
