//! Listeners that share an address and port: `SO_REUSEPORT`.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use fourwave::{Runtime, SocketOptions, TcpListener};
use fourwave_bench::lab::Side;

use crate::killed::kill;
use crate::support::roles::Role;
use crate::support::{Bed, FAMILIES, eventually, eventually_is};

const PORT: u16 = 7777;
const CONNECTIONS: usize = 64;

fn listen(runtime: &Runtime, address: SocketAddr) -> TcpListener {
    let options = SocketOptions::new().reuse_port(true).nonblocking(true).runtime(runtime);
    options.bind(address).unwrap_or_else(|error| panic!("{address}: {error}"))
}

fn connections(bed: &Bed, to: SocketAddr) -> Vec<TcpStream> {
    let mut kernels: Vec<TcpStream> = (0..CONNECTIONS).map(|_| bed.kernel_connect(to)).collect();
    for (kernel, tag) in kernels.iter_mut().zip(0..) {
        kernel.write_all(&[tag]).expect("it is connected");
    }
    kernels
}

/// Accepts what waits and answers each with its own byte; how many there were.
fn answer_all(listener: &TcpListener) -> usize {
    let mut count = 0;
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nonblocking(false).expect("the daemon is there");
                let mut tag = [0];
                stream.read_exact(&mut tag).expect("it comes");
                stream.write_all(&tag).expect("it is connected");
                count += 1;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
            Err(error) => panic!("{error}"),
        }
    }
}

fn assert_answered(kernels: &mut [TcpStream]) {
    for (kernel, tag) in kernels.iter_mut().zip(0..) {
        let mut answer = Vec::new();
        kernel.read_to_end(&mut answer).expect("an orderly end");
        assert_eq!(answer, [tag]);
    }
}

/// Two processes' worth of listeners: each gets its share, and one that closes leaves it to the
/// other, however short `accept_grace` is.
#[test]
fn connections_are_shared_and_survive_a_listener() {
    let Some(bed) = Bed::with("shared", |lab| lab.queues(2), &[]) else { return };
    let (one, two) = (bed.runtime(), bed.runtime());
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let first = listen(&one, address);
        let second = listen(&two, address);
        // In one program as well.
        let third = listen(&two, address);
        let refused = SocketOptions::new().runtime(&one).bind(address);
        assert_eq!(refused.expect_err("it does not share").kind(), ErrorKind::AddrInUse);

        let mut kernels = connections(&bed, address);
        let mut shares = [0; 3];
        eventually_is("all come", &CONNECTIONS, || {
            for (share, listener) in shares.iter_mut().zip([&first, &second, &third]) {
                *share += answer_all(listener);
            }
            shares.iter().sum()
        });
        assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
        assert_answered(&mut kernels);

        let mut kernels = connections(&bed, address);
        drop(first);
        drop(third);
        let mut answered = 0;
        eventually_is("all come to the one that is left", &CONNECTIONS, || {
            answered += answer_all(&second);
            answered
        });
        assert_answered(&mut kernels);
        eventually("some have moved", || bed.stats().get("TCPMigrateReqSuccess") > 0);
    }
    drop((one, two));
    bed.wait_until_empty();
    assert_eq!(bed.stats().get("unaccepted_resets"), 0);
}

/// What waits at a process that is killed goes to the other one.
#[test]
fn a_killed_process_leaves_its_share_to_the_others() {
    let Some(mut bed) = Bed::with("orphaned", |lab| lab.queues(2), &[]) else { return };
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let victim = bed.start(Side::Server, Role::Hoard, &[address]);
        let runtime = bed.runtime();
        let listener = listen(&runtime, address);
        let mut kernels = connections(&bed, address);
        let mut answered = 0;
        eventually("some come here", || {
            answered += answer_all(&listener);
            answered > 0
        });
        assert!(answered < CONNECTIONS, "and some to the other");
        kill(victim);
        eventually_is("the rest comes", &CONNECTIONS, || {
            answered += answer_all(&listener);
            answered
        });
        assert_answered(&mut kernels);
        bed.stop(Role::Hoard.name(), Duration::ZERO).expect("it is dead");
        drop((listener, runtime));
        bed.wait_until_empty();
    }
}
