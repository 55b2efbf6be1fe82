//! The options of listeners, and what the kernel's clients see of full queues.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use fourwave::SocketOptions;

use crate::support::{Bed, FAMILIES, accept, connect_later, eventually, eventually_is};

const PORT: u16 = 7777;
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_deferred_connection_is_accepted_with_its_data() {
    let Some(bed) = Bed::new("defer") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let options = SocketOptions::new().defer_accept(LONG).runtime(&runtime);
        let listener = options.bind(address).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(listener.defer_accept().expect("the daemon is there"), Some(LONG));
        let before = bed.stats().get("TCPDeferAcceptDrop");
        let mut silent = bed.kernel_connect(address);
        eventually("its ACK is not enough", || bed.stats().get("TCPDeferAcceptDrop") > before);
        let mut talks = bed.kernel_connect(address);
        for (kernel, request) in [(&mut talks, b"first "), (&mut silent, b"second")] {
            kernel.write_all(request).expect("it is connected");
            let mut fourwave = accept(&listener);
            assert_eq!(fourwave.peer_addr().ok(), kernel.local_addr().ok());
            let mut bytes = [0; 6];
            fourwave.read_exact(&mut bytes).expect("it comes");
            assert_eq!(&bytes, request);
        }
        // Switched off, the ACK is enough again.
        listener.set_defer_accept(None).expect("the daemon is there");
        drop((bed.kernel_connect(address), accept(&listener)));
    }
    drop(runtime);
    bed.wait_until_empty();
}

/// A handshake whose last ACK, with data, finds the accept queue full: `backlog` 0 has one place,
/// and the SYN queue too, so that the second connection needs a cookie.
#[test]
fn what_a_full_accept_queue_does_to_the_last_ack() {
    for abort in [false, true] {
        for v6 in FAMILIES {
            let setting = [("tcp.abort_on_overflow", if abort { "true" } else { "false" })];
            let Some(bed) = Bed::with("overflow", |lab| lab, &setting) else { return };
            let runtime = bed.runtime();
            let address = bed.server_address(v6, PORT);
            let options = SocketOptions::new().backlog(0).defer_accept(LONG).runtime(&runtime);
            let listener = options.bind(address).unwrap_or_else(|error| panic!("{error}"));
            let counted = |name| bed.stats().get(name);
            let mut late = bed.kernel_connect(address);
            let mut early = bed.kernel_connect(address);
            early.write_all(b"early").expect("it is connected");
            eventually("the queue is full", || counted("PassiveOpens") == 1);
            // One more for each time that the SYN was repeated.
            assert!(counted("SyncookiesSent") >= 1);
            assert_eq!(counted("SyncookiesRecv"), 1);
            late.write_all(b"late ").expect("it does not know yet");
            eventually("it does not fit", || counted("ListenOverflows") > 0);
            if abort {
                let error = late.read(&mut [0; 1]).expect_err("it is reset");
                assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{error}");
                eventually("it counts", || counted("EmbryonicRsts") == 1);
            }
            let mut bytes = [0; 5];
            accept(&listener).read_exact(&mut bytes).expect("it comes");
            assert_eq!(&bytes, b"early");
            if !abort {
                // The kernel sends its data again, and now there is room.
                accept(&listener).read_exact(&mut bytes).expect("it comes");
                assert_eq!(&bytes, b"late ");
            }
            drop((listener, options, runtime));
            bed.wait_until_empty();
        }
    }
}

#[test]
fn listening_again_changes_the_backlog() {
    let Some(bed) = Bed::new("relisten") else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let options = SocketOptions::new().backlog(0).runtime(&runtime);
        let listener = options.bind(address).unwrap_or_else(|error| panic!("{error}"));
        let before = bed.stats().get("ListenOverflows");
        let overflows = || bed.stats().get("ListenOverflows") - before;
        let [first] = bed.fill_accept_queue(address, 1).try_into().expect("one");
        let second = connect_later(&bed, address);
        eventually("one fits", || overflows() > 0);
        // What waits stays, and more fits.
        listener.set_backlog(2).expect("the daemon is there");
        let second = second.join().expect("no panic").expect("it fits now");
        let third = bed.kernel_connect(address);
        eventually_is("three wait", &3, || bed.accept_queue(address));
        // Fewer: what waits still stays.
        listener.set_backlog(1).expect("the daemon is there");
        let seen = overflows();
        let late = connect_later(&bed, address);
        eventually("no more fits", || overflows() > seen);
        let mut waited = [first, second, third].map(|kernel| (kernel, accept(&listener)));
        for (kernel, fourwave) in &mut waited {
            assert_eq!(fourwave.peer_addr().ok(), kernel.local_addr().ok(), "first come");
        }
        drop((late.join().expect("no panic").expect("there is room"), accept(&listener)));
    }
    drop(runtime);
    bed.wait_until_empty();
}

/// `SO_REUSEADDR` decides whether a TIME_WAIT is in the way, and nothing else is allowed by it.
#[test]
fn time_wait_is_in_the_way_without_so_reuseaddr() {
    let settings = [("tcp.time_wait", "\"5s\"")];
    let Some(bed) = Bed::with("reuse", |lab| lab, &settings) else { return };
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let bind =
            |reuse| SocketOptions::new().reuse_address(reuse).runtime(&runtime).bind(address);
        let remember = || {
            let listener = bind(true).expect("nobody listens");
            for reuse in [false, true] {
                assert_eq!(bind(reuse).expect_err("it listens").kind(), ErrorKind::AddrInUse);
            }
            let (fourwave, mut kernel) = bed.connected_pair(&listener);
            drop(fourwave);
            assert_eq!(kernel.read(&mut [0; 1]).expect("an orderly end"), 0);
            drop(kernel);
            eventually("it is in TIME_WAIT", || bed.stats().get("connections") == 0);
        };
        remember();
        let error = bind(false).expect_err("it is remembered");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains("SO_REUSEADDR"), "{error}");
        remember();
        eventually("it is forgotten", || bind(false).is_ok());
    }
    drop(runtime);
    bed.wait_until_empty();
}
