//! Clients that die: their connections end as the kernel would end them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};

use fourwave_bench::lab::{ProcessRef, Side};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::bytes::Pattern;
use crate::support::roles::{Role, WRITTEN, WRITTEN_SEED};
use crate::support::{Bed, FAMILIES, accept};

const PORT: u16 = 7777;

pub fn kill(child: ProcessRef) {
    let pid = Pid::from_raw(child.pid).expect("a child has a pid");
    kill_process(pid, Signal::KILL).expect("it is our child");
}

/// A child with one connection, from whose fate the test learns something.
fn victim(bed: &mut Bed, role: Role, address: SocketAddr) -> (ProcessRef, std::net::TcpStream) {
    let child = bed.start(Side::Server, role, &[address]);
    let kernel = bed.kernel_connect(address);
    (child, kernel)
}

/// Another client gets the port at once, and serves.
fn assert_served_again(bed: &Bed, address: SocketAddr) {
    let runtime = bed.runtime();
    let listener = bed.listen(&runtime, address);
    let (mut fourwave, mut kernel) = bed.connected_pair(&listener);
    kernel.write_all(b"again").expect("it is connected");
    let mut bytes = [0; 5];
    fourwave.read_exact(&mut bytes).expect("it comes");
    assert_eq!(&bytes, b"again");
}

#[test]
fn unread_bytes_mean_a_reset() {
    let Some(mut bed) = Bed::new("unread") else { return };
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let (child, mut kernel) = victim(&mut bed, Role::Unread, address);
        kernel.write_all(b"never read").expect("it is connected");
        bed.wait_until_it_hangs(Role::Unread);
        kill(child);
        let error = kernel.read(&mut [0; 1]).expect_err("no orderly end");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{error}");
        end(&mut bed, Role::Unread, address);
    }
}

#[test]
fn written_bytes_still_arrive() {
    let Some(mut bed) = Bed::new("written") else { return };
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let (child, mut kernel) = victim(&mut bed, Role::Written, address);
        bed.wait_until_it_hangs(Role::Written);
        kill(child);
        let mut received = Vec::new();
        kernel.read_to_end(&mut received).expect("an orderly end");
        let mut expected = vec![0; WRITTEN];
        Pattern::new(WRITTEN_SEED).fill(&mut expected);
        assert_eq!(received.len(), expected.len());
        assert!(received == expected, "other bytes came");
        drop(kernel);
        end(&mut bed, Role::Written, address);
    }
}

/// In the middle of a stream: what comes is a beginning of it, and then its orderly end.
#[test]
fn a_stream_is_cut_off_in_order() {
    let Some(mut bed) = Bed::new("cut") else { return };
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let (child, mut kernel) = victim(&mut bed, Role::Endless, address);
        let mut received = vec![0; 1 << 20];
        kernel.read_exact(&mut received).expect("it is without end");
        kill(child);
        kernel.read_to_end(&mut received).expect("an orderly end");
        let mut expected = vec![0; received.len()];
        Pattern::new(WRITTEN_SEED).fill(&mut expected);
        assert!(received == expected, "other bytes came");
        drop(kernel);
        end(&mut bed, Role::Endless, address);
    }
}

/// A half of each kind that the kernel has: our side closed already, the peer's closed already.
#[test]
fn half_closed_connections_end_too() {
    let Some(mut bed) = Bed::new("halves") else { return };
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let (child, mut kernel) = victim(&mut bed, Role::Written, address);
        bed.wait_until_it_hangs(Role::Written);
        kernel.shutdown(Shutdown::Write).expect("it is connected");
        kill(child);
        let mut received = Vec::new();
        kernel.read_to_end(&mut received).expect("an orderly end");
        assert_eq!(received.len(), WRITTEN);
        end(&mut bed, Role::Written, address);
    }
}

/// Takes the killed child away, and sees that nothing of it is left and its port is free.
fn end(bed: &mut Bed, role: Role, address: SocketAddr) {
    assert_served_again(bed, address);
    bed.stop(role.name(), std::time::Duration::ZERO).expect("it is dead");
    bed.wait_until_empty();
}

/// Connections that nobody had accepted, and the listener itself.
#[test]
fn a_listener_goes_with_its_client() {
    let Some(mut bed) = Bed::new("hoard") else { return };
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let child = bed.start(Side::Server, Role::Hoard, &[address]);
        let waiting = [(); 3].map(|()| bed.kernel_connect(address));
        kill(child);
        for mut kernel in waiting {
            let error = kernel.read(&mut [0; 1]).expect_err("nobody will ever accept it");
            assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{error}");
        }
        let error = bed.try_kernel_connect(address).expect_err("nobody listens");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "{error}");
        end(&mut bed, Role::Hoard, address);
    }
}

/// Another client's connections do not notice.
#[test]
fn others_go_on() {
    let Some(mut bed) = Bed::new("others") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let (child, kernel) = victim(&mut bed, Role::Endless, address);
        let listener = bed.listen(&runtime, bed.server_address(v6, PORT + 1));
        let mut passive = bed.connected_pair(&listener);
        let mut active = bed.opened_pair(&runtime, v6);
        kill(child);
        drop(kernel);
        for (fourwave, kernel) in [&mut passive, &mut active] {
            for tag in 0..100 {
                fourwave.write_all(&[tag; 100]).expect("it is connected");
                let mut bytes = [0; 100];
                kernel.read_exact(&mut bytes).expect("it comes");
                assert_eq!(bytes, [tag; 100]);
            }
        }
        let kernel = bed.kernel_connect(listener.local_addr().expect("it is bound"));
        drop((accept(&listener), kernel));
        bed.stop(Role::Endless.name(), std::time::Duration::ZERO).expect("it is dead");
    }
    drop(runtime);
    bed.wait_until_empty();
}
