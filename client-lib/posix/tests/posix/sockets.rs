//! socket, bind, listen, accept, connect, send, receive, options.

use crate::fake::{CLOSED_PORT, SILENT_PORT};
use crate::{FAKE, Fd, LANES, accepted, address, alone, arrive, errno, listener, pair, sends};
use fourwave_posix::{Domain, Errno, Socket, last_explanation};
use std::io::{IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_fresh_socket_is_nothing_yet() {
    let fd = Fd::socket();
    assert!(fd.with(Socket::is_fresh) && !fd.with(Socket::is_served));
    assert_eq!(errno(fd.recv(&mut [0])), Errno::NOTCONN);
    assert_eq!(errno(fd.send(b"x")), Errno::PIPE);
    assert_eq!(errno(fd.with(|socket| socket.accept(0))), Errno::INVAL);
    assert_eq!(errno(fd.with(Socket::peer)), Errno::NOTCONN);
    assert_eq!(errno(fd.with(|socket| socket.shutdown(libc::SHUT_WR))), Errno::NOTCONN);
    assert_eq!(fd.with(|socket| socket.local(fd.0)), Ok("0.0.0.0:0".parse().unwrap()));
    let v6 = "[fd99::2]:80".parse().unwrap();
    assert_eq!(errno(fd.with(|socket| socket.bind(fd.0, v6))), Errno::AFNOSUPPORT);
    assert_eq!(errno(fd.connect(v6)), Errno::AFNOSUPPORT);
    fd.with(Socket::leave_to_kernel).unwrap();
    assert_eq!(errno(fd.with(|socket| socket.bind(fd.0, address(80)))), Errno::INVAL);
}

#[test]
fn listening_takes_steps() {
    let fd = Fd::socket();
    fd.with(|socket| socket.bind(fd.0, address(0))).unwrap();
    let local = fd.with(|socket| socket.local(fd.0)).unwrap();
    assert!(local.port() >= 40_000, "a free port was found");
    assert_eq!(errno(fd.with(|socket| socket.bind(fd.0, address(0)))), Errno::INVAL);
    assert_eq!(errno(fd.with(|socket| socket.accept(0))), Errno::INVAL, "not listening yet");
    let listens = |fd: &Fd| {
        let mut value = [9; 4];
        fd.with(|socket| {
            socket.getsockopt(fd.0, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, &mut value)
        })
        .unwrap();
        i32::from_ne_bytes(value)
    };
    assert_eq!(listens(&fd), 0);
    fd.with(|socket| socket.listen(fd.0, 5)).unwrap();
    assert_eq!(listens(&fd), 1);
    fd.with(|socket| socket.listen(fd.0, 6)).unwrap();
    let other = Fd::socket();
    assert_eq!(errno(other.with(|socket| socket.bind(other.0, local))), Errno::ADDRINUSE);
    assert!(last_explanation().unwrap().contains("the port is taken"));
    assert_eq!(errno(fd.connect(address(1))), Errno::ISCONN);
    assert_eq!(errno(fd.send(b"x")), Errno::PIPE);
    assert_eq!(errno(fd.recv(&mut [0])), Errno::NOTCONN);
}

/// Connections that come just while somebody looks whether there are any.
#[test]
fn a_nonblocking_listener_loses_no_connection() {
    const CONNECTIONS: u32 = 500;
    let (listener, port) = listener();
    fourwave_posix::fcntl(listener.0, &listener.found(), libc::F_SETFL, libc::O_NONBLOCK as usize)
        .unwrap();
    thread::scope(|scope| {
        let peers = scope.spawn(|| {
            for _ in 0..CONNECTIONS {
                arrive(port);
                // One at a time, so that the queue is empty most of the time.
                thread::sleep(Duration::from_micros(50));
            }
        });
        let mut accepted = 0;
        loop {
            let over = peers.is_finished();
            match listener.with(|socket| socket.accept(libc::SOCK_CLOEXEC)) {
                Ok((fd, _)) => {
                    accepted += 1;
                    drop(Fd(fd));
                }
                Err(errno) => {
                    assert_eq!(errno, Errno::AGAIN);
                    if over {
                        break;
                    }
                }
            }
        }
        assert_eq!(accepted, CONNECTIONS);
    });
}

#[test]
fn accepting_gives_numbers_of_the_kernel() {
    let (listener, port) = listener();
    arrive(port);
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let (fd, peer) = listener.with(|socket| socket.accept(flags)).unwrap();
    let fd = Fd(fd);
    assert_eq!(fd.with(Socket::peer), Ok(peer));
    assert_eq!(fd.with(|socket| socket.local(fd.0)), Ok(address(port)));
    // SAFETY: asks only.
    let (kept, status) = unsafe {
        let mut status = std::mem::zeroed::<libc::stat>();
        assert_eq!(libc::fstat(fd.0, &raw mut status), 0);
        (libc::fcntl(fd.0, libc::F_GETFD), status)
    };
    assert_eq!(kept, libc::FD_CLOEXEC);
    assert_eq!(status.st_mode & libc::S_IFMT, libc::S_IFSOCK);
    assert!(fd.with(Socket::is_nonblocking), "as asked for");
    assert_eq!(errno(fd.recv(&mut [0])), Errno::AGAIN);
    assert_eq!(errno(listener.with(|socket| socket.accept(1 << 30))), Errno::INVAL);
    let fd = Fd::socket().nonblocking();
    fd.with(|socket| socket.bind(fd.0, address(0))).unwrap();
    fd.with(|socket| socket.listen(fd.0, 5)).unwrap();
    assert_eq!(errno(fd.with(|socket| socket.accept(0))), Errno::AGAIN);
}

#[test]
fn flags_of_receiving() {
    let (fd, handle) = accepted();
    let recv = |buf: &mut [u8], flags| fd.with(|socket| socket.recv(buf, flags));
    let mut buf = [0; 8];
    assert_eq!(errno(recv(&mut buf, libc::MSG_DONTWAIT)), Errno::AGAIN);
    sends(handle, b"abcdef");
    assert_eq!((recv(&mut buf, libc::MSG_PEEK), &buf[..6]), (Ok(6), &b"abcdef"[..]));
    assert_eq!(fd.with(Socket::unread), Ok(6));
    assert_eq!((recv(&mut buf[..2], libc::MSG_TRUNC), &buf[..2]), (Ok(2), &b"ab"[..]));
    let (mut one, mut two) = ([0; 1], [0; 2]);
    let mut bufs = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
    assert_eq!(fd.with(|socket| socket.receive(&mut bufs, 0)).unwrap().bytes, 3);
    assert_eq!((one, two), (*b"c", *b"de"));
    assert_eq!(errno(recv(&mut buf, libc::MSG_OOB)), Errno::INVAL);
    assert_eq!(errno(recv(&mut buf, libc::MSG_ERRQUEUE)), Errno::AGAIN);
    thread::scope(|scope| {
        scope.spawn(|| {
            for part in [&b"gh"[..], b"i", b"jkl"] {
                thread::sleep(Duration::from_millis(1));
                sends(handle, part);
            }
        });
        let mut all = [0; 7];
        assert_eq!((recv(&mut all, libc::MSG_WAITALL), &all), (Ok(7), b"fghijkl"));
    });
    // As in Linux, what is not known is ignored.
    sends(handle, b"m");
    assert_eq!(recv(&mut buf, libc::MSG_DONTROUTE | libc::MSG_MORE | 1 << 30), Ok(1));
    sends(handle, b"m");
    FAKE.with(|world| world.peer_closes(handle));
    assert_eq!(recv(&mut buf, libc::MSG_WAITALL), Ok(1), "the end comes first");
    assert_eq!(recv(&mut buf, 0), Ok(0));
}

#[test]
fn peeking_can_wait_for_all() {
    const PEEK: i32 = libc::MSG_PEEK | libc::MSG_WAITALL;
    let (fd, handle) = accepted();
    let recv = |buf: &mut [u8], flags| fd.with(|socket| socket.recv(buf, flags));
    let mut buf = [0; 8];
    sends(handle, b"ab");
    assert_eq!(recv(&mut buf, PEEK | libc::MSG_DONTWAIT), Ok(2), "what is there");
    thread::scope(|scope| {
        scope.spawn(|| {
            for part in [&b"cd"[..], b"e", b"fghij"] {
                thread::sleep(Duration::from_millis(1));
                sends(handle, part);
            }
        });
        assert_eq!((recv(&mut buf, PEEK), &buf), (Ok(8), b"abcdefgh"));
    });
    // Part of what was read has not been reported yet: the window opens for what is waited for.
    let first = [7; 40_000];
    sends(handle, &first);
    let mut bulk = vec![0; 20_010];
    assert_eq!(recv(&mut bulk, libc::MSG_WAITALL), Ok(20_010));
    thread::scope(|scope| {
        let reader = scope.spawn(|| recv(&mut bulk, PEEK));
        thread::sleep(Duration::from_millis(2));
        sends(handle, &first);
        assert_eq!(reader.join().unwrap(), Ok(20_010));
    });
    let time = [0i64.to_ne_bytes(), 3000i64.to_ne_bytes()].concat();
    fd.with(|socket| socket.setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &time)).unwrap();
    let mut all = vec![0; 1 << 20];
    assert!(recv(&mut all, PEEK).unwrap() >= 32 * 1024, "more is not waited for");
    while recv(&mut all, libc::MSG_DONTWAIT).is_ok() {}
    assert_eq!(errno(recv(&mut buf, PEEK)), Errno::AGAIN);
    sends(handle, b"xyz");
    assert_eq!(recv(&mut buf, PEEK), Ok(3), "the time is over");
    FAKE.with(|world| world.peer_closes(handle));
    assert_eq!(recv(&mut buf, PEEK), Ok(3), "the end comes first");
    assert_eq!((recv(&mut buf, 0), recv(&mut buf, PEEK)), (Ok(3), Ok(0)));
}

#[test]
fn sending_waits_unless_told() {
    let (fd, handle) = accepted();
    FAKE.with(|world| world.hold_acks(handle, true));
    let bytes = vec![7; 300_000];
    let send = |flags| fd.with(|socket| socket.send(&[IoSlice::new(&bytes)], flags));
    let first = send(libc::MSG_DONTWAIT).unwrap();
    assert!(first > 0 && first < bytes.len());
    assert_eq!(errno(send(libc::MSG_DONTWAIT)), Errno::AGAIN);
    assert_eq!(errno(send(libc::MSG_OOB)), Errno::OPNOTSUPP);
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(libc::MSG_NOSIGNAL | libc::MSG_MORE));
        thread::sleep(Duration::from_millis(2));
        FAKE.with(|world| world.hold_acks(handle, false));
        assert_eq!(sender.join().unwrap(), Ok(bytes.len()));
    });
    fd.with(|socket| socket.shutdown(libc::SHUT_WR)).unwrap();
    assert_eq!(errno(send(0)), Errno::PIPE);
    FAKE.until(|world| world.is_fin_sent(handle).then_some(()));
    assert_eq!(FAKE.with(|world| world.sent(handle).len()), first + bytes.len());
}

#[test]
fn times_run_out() {
    let (fd, handle) = accepted();
    let set = |name, micros: i64| {
        let value = [0i64.to_ne_bytes(), micros.to_ne_bytes()].concat();
        fd.with(|socket| socket.setsockopt(fd.0, libc::SOL_SOCKET, name, &value))
    };
    set(libc::SO_RCVTIMEO, 3000).unwrap();
    set(libc::SO_SNDTIMEO, 3000).unwrap();
    assert_eq!(errno(set(libc::SO_RCVTIMEO, 1_000_000)), Errno::DOM);
    let start = Instant::now();
    assert_eq!(errno(fd.recv(&mut [0])), Errno::AGAIN);
    assert!(start.elapsed() >= Duration::from_millis(3));
    FAKE.with(|world| world.hold_acks(handle, true));
    let part = fd.send(&vec![0; 300_000]).unwrap();
    assert!(part < 300_000);
    assert_eq!(errno(fd.send(b"x")), Errno::AGAIN);
    let mut value = [0; 16];
    let got =
        fd.with(|socket| socket.getsockopt(fd.0, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &mut value));
    assert_eq!((got, value[8..10].to_vec()), (Ok(16), 3000i16.to_ne_bytes().to_vec()));
}

#[test]
fn connecting_takes_its_time() {
    let (_listener, port) = listener();
    let blocking = Fd::socket();
    blocking.connect(address(port)).unwrap();
    assert_eq!(blocking.with(Socket::peer), Ok(address(port)));
    assert_eq!(errno(blocking.connect(address(port))), Errno::ISCONN);

    let later = Fd::socket().nonblocking();
    assert_eq!(errno(later.connect(address(SILENT_PORT))), Errno::INPROGRESS);
    assert_eq!(errno(later.connect(address(SILENT_PORT))), Errno::ALREADY);
    assert_eq!(errno(later.with(Socket::peer)), Errno::NOTCONN);
    assert_eq!(errno(later.send(b"x")), Errno::AGAIN);
    assert_eq!(errno(later.recv(&mut [0])), Errno::AGAIN);
    // No other test connects there.
    let handle = FAKE.with(|world| world.to_peer(address(SILENT_PORT))).unwrap();
    FAKE.with(|world| world.complete(handle));
    assert_eq!(later.connect(address(SILENT_PORT)), Ok(()), "the end is told once");
    assert_eq!(errno(later.connect(address(SILENT_PORT))), Errno::ISCONN);
}

#[test]
fn a_refused_connect_can_be_tried_again() {
    let fd = Fd::socket();
    let set = |name, value: i32| {
        let bytes = value.to_ne_bytes();
        fd.with(|socket| socket.setsockopt(fd.0, libc::IPPROTO_TCP, name, &bytes))
    };
    set(libc::TCP_NODELAY, 1).unwrap();
    assert_eq!(errno(set(libc::TCP_FASTOPEN, 1)), Errno::NOPROTOOPT);
    assert_eq!(errno(fd.connect(address(CLOSED_PORT))), Errno::CONNREFUSED);
    assert!(fd.with(Socket::is_fresh));
    let (_listener, port) = listener();
    fd.connect(address(port)).unwrap();
    let mut value = [0; 4];
    fd.with(|socket| socket.getsockopt(fd.0, libc::IPPROTO_TCP, libc::TCP_NODELAY, &mut value))
        .unwrap();
    assert_eq!(i32::from_ne_bytes(value), 1, "what was set before is kept");

    let later = Fd::socket().nonblocking();
    assert_eq!(errno(later.connect(address(CLOSED_PORT))), Errno::INPROGRESS);
    let error = |fd: &Fd| {
        let mut value = [0; 4];
        fd.with(|socket| socket.getsockopt(fd.0, libc::SOL_SOCKET, libc::SO_ERROR, &mut value))
            .unwrap();
        i32::from_ne_bytes(value)
    };
    FAKE.until(|_| (error(&later) == libc::ECONNREFUSED).then_some(()));
    assert_eq!(error(&later), 0, "told once");
}

#[test]
fn choices_of_a_socket_that_can_become_either() {
    // What the kernel took and fourwave does not have is said when it becomes ours.
    let fd = Fd::socket();
    let on = 1i32.to_ne_bytes();
    fd.with(|socket| {
        socket.note_choice(libc::SOL_SOCKET, libc::SO_KEEPALIVE, &on);
        socket.note_choice(libc::SOL_SOCKET, libc::SO_MARK, &on);
        socket.bind(fd.0, address(0)).unwrap();
    });
    assert!(last_explanation().unwrap().contains("option 36 of level 1"));
    let mut value = [0; 4];
    fd.with(|socket| socket.getsockopt(fd.0, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &mut value))
        .unwrap();
    assert_eq!(i32::from_ne_bytes(value), 1);
    let reuse =
        fd.with(|socket| socket.getsockopt(fd.0, libc::SOL_SOCKET, libc::SO_REUSEADDR, &mut value));
    assert_eq!((reuse, i32::from_ne_bytes(value)), (Ok(4), 0));
    assert_eq!(
        errno(fd.with(|socket| socket.setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_MARK, &on))),
        Errno::NOPROTOOPT
    );
}

/// What was chosen for binding is told afterwards, and by whatever is accepted.
#[test]
fn choices_of_binding_are_inherited() {
    let get = |fd: &Fd, level, name| {
        let mut value = [0; 4];
        let asked = fd.with(|socket| socket.getsockopt(fd.0, level, name, &mut value));
        asked.map(|_| i32::from_ne_bytes(value))
    };
    let set = |fd: &Fd, level, name, value: i32| {
        fd.with(|socket| socket.setsockopt(fd.0, level, name, &value.to_ne_bytes()))
    };
    const ADDRESS: (i32, i32) = (libc::SOL_SOCKET, libc::SO_REUSEADDR);
    const PORT: (i32, i32) = (libc::SOL_SOCKET, libc::SO_REUSEPORT);
    const V6: (i32, i32) = (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY);
    let (first, port) = listener();
    for ((level, name), after) in
        [(ADDRESS, Ok(())), (PORT, Err(Errno::NOPROTOOPT)), (V6, Err(Errno::NOPROTOOPT))]
    {
        assert_eq!(set(&first, level, name, 1), after);
    }
    assert_eq!(set(&first, PORT.0, PORT.1, 0), Ok(()), "so it is");
    assert_eq!((get(&first, ADDRESS.0, ADDRESS.1), get(&first, PORT.0, PORT.1)), (Ok(1), Ok(0)));
    arrive(port);
    let accepted = Fd(first.with(|socket| socket.accept(libc::SOCK_CLOEXEC)).unwrap().0);
    assert_eq!(get(&accepted, ADDRESS.0, ADDRESS.1), Ok(1));
    assert_eq!(errno(get(&accepted, V6.0, V6.1)), Errno::OPNOTSUPP);
    for ((level, name), value) in [(ADDRESS, 0), (PORT, 1)] {
        assert_eq!(set(&accepted, level, name, value), Ok(()));
        assert_eq!(get(&accepted, level, name), Ok(value));
        // The kernel's socket behind the number is everybody's.
        arrive(port);
        let other = Fd(first.with(|socket| socket.accept(libc::SOCK_CLOEXEC)).unwrap().0);
        assert_eq!(get(&other, level, name), Ok(1 - value));
    }
    let short = accepted.with(|socket| socket.setsockopt(accepted.0, PORT.0, PORT.1, &[1]));
    assert_eq!(errno(short), Errno::INVAL);
    let v6 = Socket::create(Domain::V6, libc::SOCK_CLOEXEC).map(Fd).unwrap();
    set(&v6, V6.0, V6.1, 1).unwrap();
    set(&v6, PORT.0, PORT.1, 1).unwrap();
    v6.with(|socket| socket.bind(v6.0, "[::]:0".parse().unwrap())).unwrap();
    assert_eq!((get(&v6, V6.0, V6.1), get(&v6, PORT.0, PORT.1)), (Ok(1), Ok(1)));
    assert_eq!(errno(set(&v6, V6.0, V6.1, 0)), Errno::INVAL);
    // Of one that connects the kernel's own socket knows.
    let (_second, port) = listener();
    let client = Fd::socket();
    set(&client, ADDRESS.0, ADDRESS.1, 1).unwrap();
    client.connect(address(port)).unwrap();
    assert_eq!(get(&client, ADDRESS.0, ADDRESS.1), Ok(1));
    assert_eq!((set(&client, PORT.0, PORT.1, 1), get(&client, PORT.0, PORT.1)), (Ok(()), Ok(1)));
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn handle(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

fn install(signal: i32, flags: i32) {
    // SAFETY: the handler only counts.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
    }
}

/// The thread that reads.
static READER: AtomicU64 = AtomicU64::new(0);

/// Sends the signal to the reading thread again and again.
fn signal_until(signal: i32, over: impl Fn() -> bool) {
    while !over() {
        let thread = READER.load(Ordering::SeqCst);
        if thread != 0 {
            // SAFETY: the thread has not been joined.
            unsafe { libc::pthread_kill(thread, signal) };
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// In a process of its own: handlers are the process's.
#[test]
fn signals_end_waits_unless_they_restart() {
    if !alone("sockets::signals_end_waits_unless_they_restart", "FOURWAVE_TEST_SIGNALS", "1") {
        return;
    }
    // The runtime's own handlers do not restart, for stack overflows, and do not count.
    for fault in [libc::SIGSEGV, libc::SIGBUS] {
        install(fault, 0);
    }
    let (fd, handle) = accepted();
    let reading = || {
        // SAFETY: always there.
        READER.store(unsafe { libc::pthread_self() }, Ordering::SeqCst);
        fd.recv(&mut [0; 8])
    };
    install(libc::SIGUSR1, libc::SA_RESTART);
    thread::scope(|scope| {
        let reader = scope.spawn(reading);
        signal_until(libc::SIGUSR1, || HANDLED.load(Ordering::SeqCst) >= 20);
        sends(handle, b"abc");
        assert_eq!(reader.join().unwrap(), Ok(3), "it went on");
    });
    // Never with a timeout.
    let timeout = |seconds: i64| {
        let value = [seconds.to_ne_bytes(), [0; 8]].concat();
        fd.with(|socket| {
            socket.setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &value).unwrap();
        });
    };
    timeout(20);
    thread::scope(|scope| {
        READER.store(0, Ordering::SeqCst);
        let reader = scope.spawn(reading);
        signal_until(libc::SIGUSR1, || reader.is_finished());
        assert_eq!(errno(reader.join().unwrap()), Errno::INTR);
    });
    timeout(0);
    install(libc::SIGUSR2, 0);
    thread::scope(|scope| {
        READER.store(0, Ordering::SeqCst);
        let reader = scope.spawn(reading);
        signal_until(libc::SIGUSR2, || reader.is_finished());
        assert_eq!(errno(reader.join().unwrap()), Errno::INTR);
    });
    // A thread that waits for another one's turn waits no less.
    thread::scope(|scope| {
        READER.store(0, Ordering::SeqCst);
        let first = scope.spawn(|| fd.recv(&mut [0; 3]));
        thread::sleep(Duration::from_millis(5));
        let second = scope.spawn(reading);
        signal_until(libc::SIGUSR2, || second.is_finished());
        assert_eq!(errno(second.join().unwrap()), Errno::INTR);
        assert!(!first.is_finished());
        sends(handle, b"def");
        assert_eq!(first.join().unwrap(), Ok(3));
    });
    // As in Linux, any handler ends a wait for more when there is something.
    install(libc::SIGUSR2, libc::SA_RESTART);
    sends(handle, b"g");
    thread::scope(|scope| {
        READER.store(0, Ordering::SeqCst);
        let reader = scope.spawn(|| {
            // SAFETY: always there.
            READER.store(unsafe { libc::pthread_self() }, Ordering::SeqCst);
            fd.with(|socket| socket.recv(&mut [0; 8], libc::MSG_WAITALL))
        });
        signal_until(libc::SIGUSR2, || reader.is_finished());
        assert_eq!(reader.join().unwrap(), Ok(1));
    });
}

#[test]
fn bytes_go_both_ways() {
    let (client, server) = pair();
    let bytes: Vec<u8> = (0..200_000).map(|at| (at / 7 + at) as u8).collect();
    thread::scope(|scope| {
        let sender = scope.spawn(|| client.send(&bytes));
        let mut got = vec![0; bytes.len()];
        let received = server.with(|socket| socket.recv(&mut got, libc::MSG_WAITALL));
        assert_eq!(received, Ok(bytes.len()));
        assert!(got == bytes);
        assert_eq!(sender.join().unwrap(), Ok(bytes.len()));
    });
    client.with(|socket| socket.shutdown(libc::SHUT_WR)).unwrap();
    assert_eq!(server.recv(&mut [0]), Ok(0));
    server.send(b"back").unwrap();
    let mut got = [0; 4];
    assert_eq!((client.recv(&mut got), &got), (Ok(4), b"back"));
    let v6 = Socket::create(Domain::V6, libc::SOCK_CLOEXEC).map(Fd).unwrap();
    assert_eq!(v6.with(Socket::domain), Domain::V6);
}

#[test]
fn threads_without_a_lane_wait_all_the_same() {
    if !alone("sockets::threads_without_a_lane_wait_all_the_same", LANES, "4") {
        return;
    }
    let sockets: Vec<_> = (0..12).map(|_| accepted()).collect();
    thread::scope(|scope| {
        let readers: Vec<_> = (sockets.iter())
            .map(|(fd, _)| {
                scope.spawn(|| {
                    let mut entries = [libc::pollfd { fd: fd.0, events: libc::POLLIN, revents: 0 }];
                    assert_eq!(fourwave_posix::poll::poll(&mut entries, None, None), Ok(1));
                    let mut buf = [0; 2];
                    fd.with(|socket| socket.recv(&mut buf, libc::MSG_WAITALL))
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(5));
        for part in [b"a", b"b"] {
            for (_, handle) in &sockets {
                sends(*handle, part);
            }
            thread::sleep(Duration::from_millis(5));
        }
        for reader in readers {
            assert_eq!(reader.join().unwrap(), Ok(2));
        }
    });
}
