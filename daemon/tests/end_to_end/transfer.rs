//! Long streams, compared by their SHA-256.

use std::io;
use std::net::Shutdown;
use std::thread;

use crate::support::bytes::{Sum, receive, send};
use crate::support::{Bed, FAMILIES, soaking};

/// Bytes each way.
fn length() -> u64 {
    if soaking() { 1 << 30 } else { 10 << 20 }
}

/// What the transfer tests need of either library's streams.
pub trait HalfClose: Sync {
    fn shut_write(&self) -> io::Result<()>;
}

impl HalfClose for std::net::TcpStream {
    fn shut_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl HalfClose for fourwave::TcpStream {
    fn shut_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// Sends the pattern `seed` and then the end of the stream.
fn send_all<S>(stream: &S, seed: u64, length: u64) -> Sum
where
    S: HalfClose,
    for<'a> &'a S: io::Write,
{
    let sum = send(stream, seed, length).expect("the stream takes all");
    stream.shut_write().expect("it is connected");
    sum
}

/// Reads to the end of the stream.
fn receive_all(stream: impl io::Read) -> Sum {
    receive(stream).expect("the stream comes whole")
}

/// Both directions at once, a thread for each end of each.
pub fn both_at_once<A, B>(a: &A, b: &B, length: u64)
where
    A: HalfClose,
    B: HalfClose,
    for<'a> &'a A: io::Read + io::Write,
    for<'b> &'b B: io::Read + io::Write,
{
    thread::scope(|scope| {
        let sent = [scope.spawn(|| send_all(b, 1, length)), scope.spawn(|| send_all(a, 2, length))];
        let received = [scope.spawn(|| receive_all(a)), scope.spawn(|| receive_all(b))];
        let join = |thread: thread::ScopedJoinHandle<'_, Sum>| thread.join().expect("no panic");
        assert_eq!(received.map(join), sent.map(join));
    });
}

/// The kernel's stream to its end, then fourwave's in answer: a half-closed connection goes on.
fn one_after_the_other(fourwave: &fourwave::TcpStream, kernel: &std::net::TcpStream) {
    thread::scope(|scope| {
        let sent = scope.spawn(|| send_all(kernel, 3, length()));
        let received = receive_all(fourwave);
        assert_eq!(received, sent.join().expect("no panic"));
        let sent = scope.spawn(|| send_all(fourwave, 4, length()));
        let received = receive_all(kernel);
        assert_eq!(received, sent.join().expect("no panic"));
    });
}

#[test]
fn to_a_fourwave_server_and_back() {
    let Some(bed) = Bed::new("in") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let listener = bed.listen(&runtime, bed.server_address(v6, 7777));
        let (fourwave, kernel) = bed.connected_pair(&listener);
        both_at_once(&fourwave, &kernel, length());
        let (fourwave, kernel) = bed.connected_pair(&listener);
        one_after_the_other(&fourwave, &kernel);
    }
    drop(runtime);
    bed.wait_until_empty();
}

#[test]
fn from_a_fourwave_client_and_back() {
    let Some(bed) = Bed::new("out") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let (fourwave, kernel) = bed.opened_pair(&runtime, v6);
        both_at_once(&fourwave, &kernel, length());
        let (fourwave, kernel) = bed.opened_pair(&runtime, v6);
        one_after_the_other(&fourwave, &kernel);
    }
    drop(runtime);
    bed.wait_until_empty();
}
