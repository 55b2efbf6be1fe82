//! What one program may have, and what it and others see when it wants more.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;

use fourwave::{Poller, Runtime, SocketOptions};

use crate::support::bytes::{Pattern, receive, send};
use crate::support::kernel::KernelInfo;
use crate::support::{Bed, FAMILIES, PATIENCE, accept, as_user, eventually, eventually_is, within};
use crate::transfer::both_at_once;

const PORT: u16 = 7777;

/// `clients.connections` where a test is about it.
const CONNECTIONS: usize = 6;

/// Connections that together want more than `clients.bytes` has.
const STREAMS: usize = 24;
/// What one direction may take of 1 MiB at the most.
const MOST_BYTES: u64 = 768 << 10;

/// A byte there and one back.
fn assert_goes_on(fourwave: &mut fourwave::TcpStream, kernel: &mut std::net::TcpStream) {
    let mut byte = [0];
    kernel.write_all(b"?").expect("it is connected");
    fourwave.read_exact(&mut byte).expect("it comes");
    fourwave.write_all(b"!").expect("it is connected");
    kernel.read_exact(&mut byte).expect("it comes");
    assert_eq!(&byte, b"!");
}

#[track_caller]
fn assert_refused<T>(result: std::io::Result<T>, errno: i32, words: &str) {
    let Err(error) = result else { panic!("it was not refused") };
    assert_eq!(fourwave::errno(&error), Some(errno), "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

/// Connections that come: what is over the quota waits as it does where the accept queue is full,
/// and nobody else is held up. What has ended, TIME_WAIT aside, takes no place.
#[test]
fn connections_that_come_wait_for_a_place() {
    let connections = CONNECTIONS.to_string();
    let settings = [("clients.connections", connections.as_str())];
    let Some(bed) = Bed::with("incoming", |lab| lab, &settings) else { return };
    for v6 in FAMILIES {
        let (full, other) = (bed.runtime(), bed.runtime());
        let address = bed.server_address(v6, PORT);
        let listener = bed.listen(&full, address);
        let elsewhere = bed.listen(&other, bed.server_address(v6, PORT + 1));
        let before = bed.stats();
        let grown = |name| bed.stats().get(name) - before.get(name);

        let mut pairs: Vec<_> = (1..CONNECTIONS).map(|_| bed.connected_pair(&listener)).collect();
        // One that waits to be accepted counts as well.
        let waiting = bed.kernel_connect(address);
        assert_eq!(grown("open_refused"), 0);
        // To its peer the next one is connected, as SYN and SYN-ACK say.
        let mut late = bed.kernel_connect(address);
        late.write_all(b"late").expect("it goes into the kernel's buffer");
        eventually("its ACK is ignored, and counted", || grown("open_refused") > 0);
        pairs.push((accept(&listener), waiting));
        listener.set_nonblocking(true).expect("the daemon is there");
        let none = listener.accept().expect_err("there is no room for it");
        assert_eq!(none.kind(), ErrorKind::WouldBlock);
        // Those that go out count too.
        let peer = bed.kernel_listen(bed.client_address(v6, 0));
        let to = peer.local_addr().expect("it is bound");
        let options = SocketOptions::new().runtime(&full);
        let refused = options.connect_timeout(&to, PATIENCE);
        assert_refused(refused, libc::ENOBUFS, "clients.connections");
        eventually_is("it is counted", &1, || grown("connects_refused_quota"));

        // Nobody else is touched, nor what there is.
        for (fourwave, kernel) in &mut pairs {
            assert_goes_on(fourwave, kernel);
        }
        let (mut fourwave, mut kernel) = bed.connected_pair(&elsewhere);
        assert_goes_on(&mut fourwave, &mut kernel);
        let (mut fourwave, mut kernel) = bed.opened_pair(&other, v6);
        assert_goes_on(&mut fourwave, &mut kernel);

        drop(pairs.pop());
        listener.set_nonblocking(false).expect("the daemon is there");
        let mut fourwave = accept(&listener);
        let mut bytes = [0; 4];
        fourwave.read_exact(&mut bytes).expect("it comes again");
        assert_eq!(&bytes, b"late");
        assert_goes_on(&mut fourwave, &mut late);
        assert_eq!(grown("connects_refused_quota"), 1);
        assert_eq!(grown("connections_full"), 0);
        assert_eq!(grown("ListenOverflows"), 0);
    }
    bed.wait_until_empty();
}

/// Connections that go out: refused at once, without a frame to the peer. The quota is dealt out to
/// the workers, and all of it can be used.
#[test]
fn connections_that_go_out_are_refused() {
    let connections = CONNECTIONS.to_string();
    let settings = [("clients.connections", connections.as_str())];
    let Some(bed) = Bed::with("outgoing", |lab| lab.queues(2), &settings) else { return };
    for v6 in FAMILIES {
        let (full, other) = (bed.runtime(), bed.runtime());
        let mut pairs: Vec<_> = (0..CONNECTIONS).map(|_| bed.opened_pair(&full, v6)).collect();
        let peer = bed.kernel_listen(bed.client_address(v6, 0));
        peer.set_nonblocking(true).expect("it is a socket");
        let to = peer.local_addr().expect("it is bound");
        let attempt = || SocketOptions::new().runtime(&full).connect_timeout(&to, PATIENCE);
        assert_refused(attempt(), libc::ENOBUFS, "clients.connections");
        assert_eq!(peer.accept().expect_err("no SYN came").kind(), ErrorKind::WouldBlock);
        let (mut fourwave, mut kernel) = bed.opened_pair(&other, v6);
        assert_goes_on(&mut fourwave, &mut kernel);
        for (fourwave, kernel) in &mut pairs {
            assert_goes_on(fourwave, kernel);
        }
        drop(pairs.pop());
        let mut again = None;
        eventually("there is room again", || {
            again = attempt().ok();
            again.is_some()
        });
        peer.set_nonblocking(false).expect("it is a socket");
        let (mut kernel, _) = within("accept", move || peer.accept()).expect("it is connected");
        kernel.set_read_timeout(Some(PATIENCE)).expect("not zero");
        assert_goes_on(&mut again.expect("just seen"), &mut kernel);
    }
    assert!(bed.stats().get("connects_refused_quota") > 0);
    bed.wait_until_empty();
}

/// Received bytes that a program does not read: no more than its share is kept, what is over it is
/// dropped and counted, and comes again when there is room. Another program's memory is its own.
#[test]
fn unread_bytes_are_bounded() {
    let settings = [("clients.bytes", "\"1MiB\"")];
    let Some(bed) = Bed::with("unread", |lab| lab, &settings) else { return };
    for v6 in FAMILIES {
        let (full, other) = (bed.runtime(), bed.runtime());
        let listener = bed.listen(&full, bed.server_address(v6, PORT));
        let elsewhere = bed.listen(&other, bed.server_address(v6, PORT + 1));
        let dropped = || bed.stats().get("segments_dropped{reason=\"no_memory\"}");
        let before = dropped();
        let pairs: Vec<_> = (0..STREAMS).map(|_| bed.connected_pair(&listener)).collect();
        thread::scope(|scope| {
            let senders = (0..).zip(&pairs).map(|(seed, (_, kernel))| {
                scope.spawn(move || {
                    let sum = send(kernel, seed, 200_000).expect("the stream takes all");
                    kernel.shutdown(Shutdown::Write).expect("it is connected");
                    sum
                })
            });
            let senders: Vec<_> = senders.collect();
            eventually("no more is taken, and that is counted", || dropped() > before);
            let kept: u64 =
                pairs.iter().map(|(_, kernel)| KernelInfo::of(kernel).bytes_acked()).sum();
            assert!(kept > MOST_BYTES / 2 && kept <= MOST_BYTES, "{kept}");

            let (fourwave, kernel) = bed.connected_pair(&elsewhere);
            both_at_once(&fourwave, &kernel, 2 << 20);

            let read = pairs.iter().map(|(fourwave, _)| scope.spawn(move || receive(fourwave)));
            let read: Vec<_> = read.collect();
            for (read, sent) in read.into_iter().zip(senders) {
                let read = read.join().expect("no panic").expect("all comes");
                assert_eq!(read, sent.join().expect("no panic"));
            }
        });
    }
    bed.wait_until_empty();
}

/// Bytes that its peers do not read: a program may write no more than its share, and is told when
/// it may go on.
#[test]
fn unsent_bytes_are_bounded() {
    let settings = [("clients.bytes", "\"1MiB\"")];
    let Some(bed) = Bed::with("unsent", |lab| lab, &settings) else { return };
    for v6 in FAMILIES {
        let (full, other) = (bed.runtime(), bed.runtime());
        let listener = bed.listen(&full, bed.server_address(v6, PORT));
        let elsewhere = bed.listen(&other, bed.server_address(v6, PORT + 1));
        let pairs: Vec<_> = (0..STREAMS).map(|_| bed.connected_pair(&listener)).collect();
        let mut written = [0; STREAMS];
        let fill = |written: &mut [u64]| {
            let mut all = 0;
            for ((fourwave, _), (written, seed)) in pairs.iter().zip(written.iter_mut().zip(0..)) {
                fourwave.set_nonblocking(true).expect("the daemon is there");
                let rest = stream(seed).split_off(*written as usize);
                match (&mut &*fourwave).write(&rest) {
                    Ok(count) => (*written, all) = (*written + count as u64, all + count),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            all
        };
        let held = |written: &[u64]| -> u64 {
            let acked = |stream: &fourwave::TcpStream| {
                stream.tcp_info().expect("the daemon is there").bytes_acked
            };
            pairs.iter().zip(written).map(|((stream, _), written)| written - acked(stream)).sum()
        };
        eventually("its share is used up", || {
            let more = fill(&mut written);
            let held = held(&written);
            assert!(held <= MOST_BYTES, "{held}");
            more == 0 && held > MOST_BYTES / 2
        });
        assert!(written.iter().all(|&written| written < LENGTH as u64), "all was taken");

        let (fourwave, kernel) = bed.connected_pair(&elsewhere);
        both_at_once(&fourwave, &kernel, 2 << 20);

        thread::scope(|scope| {
            for ((fourwave, _), (written, seed)) in pairs.iter().zip(written.iter().zip(0..)) {
                fourwave.set_nonblocking(false).expect("the daemon is there");
                scope.spawn(move || {
                    let rest = stream(seed).split_off(*written as usize);
                    (&mut &*fourwave).write_all(&rest).expect("there is room again");
                    fourwave.shutdown(Shutdown::Write).expect("it is connected");
                });
            }
            for ((_, kernel), seed) in pairs.iter().zip(0..) {
                scope.spawn(move || {
                    let expected = receive(&stream(seed)[..]).expect("it is memory");
                    assert_eq!(receive(kernel).expect("all comes"), expected);
                });
            }
        });
    }
    bed.wait_until_empty();
}

/// More than a kernel's socket that nobody reads from takes, and a share of ours.
const LENGTH: usize = 1 << 20;

fn stream(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH];
    Pattern::new(seed).fill(&mut bytes);
    bytes
}

/// Ports, connections and memory by user.
#[test]
fn users_have_what_their_rules_say() {
    const WEB: u32 = 4001;
    const OTHER: u32 = 4002;
    const NOBODY: u32 = 4003;
    const ANYBODY: u32 = 4004;
    let rules = "[\
        {uids = [4001], ports = [\"443\", \"7000-7009\"], connections = 2},\
        {uids = [4002], ports = [\"7010\"]},\
        {uids = [4003], connections = 0}]";
    let settings = [("clients.rules", rules)];
    let Some(bed) = Bed::with("users", |lab| lab, &settings) else { return };
    let socket = bed.control_socket(fourwave_bench::lab::Side::Server);
    let connect_as = |uid| as_user(uid, || Runtime::connect(&socket));
    let [web, other, anybody] = [WEB, OTHER, ANYBODY].map(|uid| connect_as(uid).expect("it may"));
    let refused = |reason| bed.stats().get(&format!("clients_refused{{reason=\"{reason}\"}}"));
    for v6 in FAMILIES {
        let [of_rule, privileged, users] = ["port", "privileged_port", "user"].map(refused);
        let at = |port| bed.server_address(v6, port);
        let bind = |runtime: &Runtime, port| SocketOptions::new().runtime(runtime).bind(at(port));

        for (runtime, port, words) in [
            (&web, 7010, "user 4001 may not bind port 7010 (clients.rules)"),
            (&web, 0, "user 4001 may not bind port 0 (clients.rules)"),
            (&other, 443, "user 4002 may not bind port 443 (clients.rules)"),
            (&other, 7000, "user 4002 may not bind port 7000 (clients.rules)"),
        ] {
            assert_refused(bind(runtime, port), libc::EACCES, words);
        }
        assert_eq!(refused("port"), of_rule + 4);
        assert_refused(bind(&anybody, 443), libc::EACCES, "net.ipv4.ip_unprivileged_port_start");
        assert_eq!(refused("privileged_port"), privileged + 1);
        assert_refused(connect_as(NOBODY), libc::EACCES, "user 4003 may not use fourwave");
        assert_eq!(refused("user"), users + 1);
        // To peers nobody serves these.
        let error = bed.try_kernel_connect(at(7000)).expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);

        // What is theirs is served: by each at its ports, by whom no rule names at any.
        for (runtime, port) in [(&web, 443), (&web, 7000), (&other, 7010), (&anybody, 7020)] {
            let listener = bind(runtime, port).unwrap_or_else(|error| panic!("{port}: {error}"));
            let (mut fourwave, mut kernel) = bed.connected_pair(&listener);
            assert_goes_on(&mut fourwave, &mut kernel);
        }
        // A port is shared with the same user only.
        let share =
            |runtime, port| SocketOptions::new().reuse_port(true).runtime(runtime).bind(at(port));
        let first = share(&web, 7001).expect("it may");
        drop(share(&web, 7001).expect("it is the same user"));
        let root = bed.runtime();
        assert_refused(share(&root, 7001), libc::EADDRINUSE, "");
        drop((first, share(&root, 7002).expect("the rules say nothing of root")));

        // Rules that are about ports say nothing of where to connect; this one has two of them.
        let before = bed.stats().get("connects_refused_quota");
        let both = [(); 2].map(|()| bed.opened_pair(&web, v6));
        let peer = bed.kernel_listen(bed.client_address(v6, 0));
        let to: SocketAddr = peer.local_addr().expect("it is bound");
        let third = SocketOptions::new().runtime(&web).connect_timeout(&to, PATIENCE);
        assert_refused(third, libc::ENOBUFS, "clients.connections");
        let counted = || bed.stats().get("connects_refused_quota") - before;
        eventually_is("that is counted", &1, counted);
        let three = [(); 3].map(|()| bed.opened_pair(&other, v6));
        drop((both, three));
        bed.wait_until_idle();
    }
    drop((web, other, anybody));
    bed.wait_until_empty();
}

/// `clients.max_clients`, of which ordinary users leave some to root.
#[test]
fn programs_are_turned_away_when_there_are_too_many() {
    let settings = [("clients.max_clients", "8")];
    let Some(bed) = Bed::with("programs", |lab| lab, &settings) else { return };
    let socket = bed.control_socket(fourwave_bench::lab::Side::Server);
    let ordinary = || as_user(4001, || Runtime::connect(&socket));
    let mut all: Vec<Runtime> = (0..7).map(|_| ordinary().expect("there is room")).collect();
    let listener = bed.listen(&all[0], bed.server_address(false, PORT));
    assert_refused(ordinary(), libc::EMFILE, "clients.max_clients");
    let root = bed.runtime();
    assert_refused(Runtime::connect(&socket), libc::EMFILE, "clients.max_clients");
    let text = root.stats().expect("it was let in");
    let line = "clients_refused{reason=\"max_clients\"} 2";
    assert!(text.lines().any(|other| other == line), "{text}");

    // Those that are there go on, and one's end is another's room.
    let (mut fourwave, mut kernel) = bed.connected_pair(&listener);
    assert_goes_on(&mut fourwave, &mut kernel);
    drop((root, all.pop()));
    eventually("there is room again", || {
        all.extend(ordinary());
        all.len() == 7
    });
    drop((fourwave, kernel, listener, all));
    bed.wait_until_empty();
}

/// What a program has a fixed number of: listeners, and lanes for threads and pollers.
#[test]
fn listeners_and_lanes_are_limits_of_a_program() {
    let Some(bed) = Bed::new("fixed") else { return };
    let (full, other) = (bed.runtime(), bed.runtime());
    let refused = |reason| bed.stats().get(&format!("clients_refused{{reason=\"{reason}\"}}"));
    let bind =
        |runtime, port| SocketOptions::new().runtime(runtime).bind(bed.server_address(false, port));
    let mut listeners: Vec<_> = (0..64).map(|n| bind(&full, PORT + n).expect("it may")).collect();
    assert_refused(bind(&full, PORT + 64), libc::EMFILE, "all 64 listeners of this program");
    assert_eq!(refused("listeners"), 1);
    drop(bind(&other, PORT + 64).expect("it has none yet"));
    listeners.pop();
    listeners.push(bind(&full, PORT + 64).expect("there is room again"));

    // This thread has one itself.
    let (mut fourwave, mut kernel) = bed.connected_pair(&listeners[0]);
    assert_goes_on(&mut fourwave, &mut kernel);
    let mut pollers = Vec::new();
    let refusal = loop {
        assert!(pollers.len() < 256);
        match Poller::with_runtime(&full) {
            Ok(poller) => pollers.push(poller),
            Err(error) => break Err::<(), _>(error),
        }
    };
    assert_refused(refusal, libc::ENOBUFS, "all 256 lanes");
    assert!(pollers.len() > 250, "{}", pollers.len());
    assert_eq!(refused("lanes"), 1);
    assert_goes_on(&mut fourwave, &mut kernel);
    Poller::with_runtime(&other).expect("another program's are its own");
    pollers.pop();
    pollers.push(Poller::with_runtime(&full).expect("there is room again"));
    drop((fourwave, kernel, listeners, pollers, full, other));
    bed.wait_until_empty();
}
