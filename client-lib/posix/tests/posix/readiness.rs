//! poll, select and epoll over both kinds of descriptors.

use crate::fake::{CLOSED_PORT, Fake, World};
use crate::{FAKE, Fd, LANES, accepted, address, alone, arrive, errno, listener, sends};
use fourwave_posix::select::Sets;
use fourwave_posix::{Domain, Errno, Socket, epoll, find, poll};
use rustix::fd::{AsRawFd, OwnedFd};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const NOW: Option<Duration> = Some(Duration::ZERO);
const IN: i16 = libc::POLLIN;
const OUT: i16 = libc::POLLOUT;

fn entry(fd: RawFd, events: i16) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

/// What each has now.
fn now(fds: &[(RawFd, i16)]) -> Vec<i16> {
    let mut fds: Vec<_> = fds.iter().map(|(fd, events)| entry(*fd, *events)).collect();
    let count = poll::poll(&mut fds, NOW, None).unwrap();
    let told: Vec<_> = fds.iter().map(|entry| entry.revents).collect();
    assert_eq!(count, told.iter().filter(|events| **events != 0).count());
    told
}

#[test]
fn both_kinds_are_polled() {
    let (fd, handle) = accepted();
    let (read, write) = rustix::pipe::pipe().unwrap();
    let pipe = read.as_raw_fd();
    let all = [(fd.0, IN | OUT), (pipe, IN), (-1, IN), (fd.0, IN)];
    assert!(!poll::concerns(&[entry(pipe, IN)]) && poll::concerns(&[entry(fd.0, IN)]));
    assert_eq!(now(&all), [OUT, 0, 0, 0]);
    rustix::io::write(&write, b"x").unwrap();
    sends(handle, b"y");
    assert_eq!(now(&all), [IN | OUT, IN, 0, IN]);
    FAKE.with(|world| world.peer_closes(handle));
    assert_eq!(now(&[(fd.0, IN | libc::POLLRDHUP)]), [IN | libc::POLLRDHUP]);
    FAKE.with(|world| world.fail(handle, Errno::CONNRESET));
    assert_eq!(now(&[(fd.0, 0)]), [libc::POLLERR | libc::POLLHUP]);
    let (listener, port) = listener();
    assert_eq!(now(&[(listener.0, IN | OUT)]), [0]);
    arrive(port);
    assert_eq!(now(&[(listener.0, IN | OUT)]), [IN]);
}

#[test]
fn either_kind_ends_a_wait() {
    let (fd, handle) = accepted();
    let (read, write) = rustix::pipe::pipe().unwrap();
    let mut fds = [entry(fd.0, IN), entry(read.as_raw_fd(), IN)];
    for round in 0..20 {
        let ours = round % 2 == 0;
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let count = poll::poll(&mut fds, None, None).unwrap();
                (count, fds[0].revents, fds[1].revents)
            });
            thread::sleep(Duration::from_millis(round % 3));
            if ours {
                sends(handle, b"x");
            } else {
                rustix::io::write(&write, b"x").unwrap();
            }
            let told = waiter.join().unwrap();
            assert_eq!(told, if ours { (1, IN, 0) } else { (1, 0, IN) });
        });
        if ours {
            fd.recv(&mut [0]).unwrap();
        } else {
            rustix::io::read(&read, &mut [0; 1]).unwrap();
        }
    }
    let short = Some(Duration::from_millis(3));
    assert_eq!(poll::poll(&mut fds, short, None), Ok(0));
}

#[test]
fn sets_have_both_kinds() {
    let (fd, handle) = accepted();
    sends(handle, b"x");
    let (read, _write) = rustix::pipe::pipe().unwrap();
    let mut reads = [0u64; 16];
    for fd in [fd.0, read.as_raw_fd()] {
        reads[fd as usize / 64] |= 1 << (fd % 64);
    }
    let mut writes = reads;
    let sets = Sets { nfds: 1024, read: Some(&mut reads), write: Some(&mut writes), except: None };
    assert!(sets.concern());
    assert_eq!(sets.select(None, None), Ok(2));
    let mut expected = [0u64; 16];
    expected[fd.0 as usize / 64] |= 1 << (fd.0 % 64);
    assert_eq!((reads, writes), (expected, expected));
}

/// An epoll instance.
struct Instance(OwnedFd);

impl Instance {
    fn new() -> Instance {
        Instance(rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap())
    }

    fn control(&self, operation: i32, fd: RawFd, events: i32, data: u64) -> Result<(), Errno> {
        let event = libc::epoll_event { events: events as u32, u64: data };
        let found = find(fd).expect("it is ours");
        epoll::control(self.0.as_raw_fd(), operation, fd, &found, Some(event))
    }

    fn add(&self, fd: &Fd, events: i32, data: u64) {
        self.control(libc::EPOLL_CTL_ADD, fd.0, events, data).unwrap();
    }

    /// A kernel's descriptor.
    fn add_kernel(&self, fd: RawFd, data: u64) {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: data };
        // SAFETY: the call reads the event.
        let done =
            unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        assert_eq!(done, 0);
    }

    fn wait_for(&self, room: usize, timeout: Option<Duration>) -> Vec<(u64, i32)> {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; room];
        let epfd = self.0.as_raw_fd();
        let found = find(epfd).expect("a socket of ours is in it");
        let count = epoll::wait(epfd, &found, &mut events, timeout, None).unwrap();
        events[..count].iter().map(|event| (event.u64, { event.events } as i32)).collect()
    }

    fn now(&self) -> Vec<(u64, i32)> {
        self.wait_for(8, NOW)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        fourwave_posix::forget(self.0.as_raw_fd());
    }
}

#[test]
fn levels_edges_and_once() {
    let instance = Instance::new();
    let data = u64::MAX - 5;
    for (flags, then) in [(0, true), (libc::EPOLLET, false), (libc::EPOLLONESHOT, false)] {
        let (fd, handle) = accepted();
        instance.add(&fd, libc::EPOLLIN | flags, data);
        assert_eq!(instance.now(), []);
        sends(handle, b"x");
        assert_eq!(instance.now(), [(data, libc::EPOLLIN)]);
        assert_eq!(instance.now().len(), usize::from(then));
        sends(handle, b"y");
        assert_eq!(instance.now().len(), usize::from(flags != libc::EPOLLONESHOT));
        instance.control(libc::EPOLL_CTL_MOD, fd.0, libc::EPOLLIN | flags, 7).unwrap();
        assert_eq!(instance.now(), [(7, libc::EPOLLIN)]);
        instance.control(libc::EPOLL_CTL_MOD, fd.0, libc::EPOLLOUT, 8).unwrap();
        assert_eq!(instance.now(), [(8, libc::EPOLLOUT)]);
        let twice = instance.control(libc::EPOLL_CTL_ADD, fd.0, libc::EPOLLIN, 1);
        assert_eq!(errno(twice), Errno::EXIST);
        instance.control(libc::EPOLL_CTL_DEL, fd.0, 0, 0).unwrap();
        assert_eq!(instance.now(), []);
        assert_eq!(errno(instance.control(libc::EPOLL_CTL_DEL, fd.0, 0, 0)), Errno::NOENT);
        assert_eq!(errno(instance.control(libc::EPOLL_CTL_MOD, fd.0, 0, 0)), Errno::NOENT);
    }
}

#[test]
fn ends_and_failures() {
    let instance = Instance::new();
    let (fd, handle) = accepted();
    instance.add(&fd, libc::EPOLLRDHUP, 1);
    sends(handle, b"x");
    assert_eq!(instance.now(), []);
    FAKE.with(|world| world.peer_closes(handle));
    assert_eq!(instance.now(), [(1, libc::EPOLLRDHUP)]);
    instance.control(libc::EPOLL_CTL_MOD, fd.0, 0, 2).unwrap();
    assert_eq!(instance.now(), []);
    FAKE.with(|world| world.fail(handle, Errno::CONNRESET));
    assert_eq!(instance.now(), [(2, libc::EPOLLERR | libc::EPOLLHUP)]);
    // A number that is used again is another socket's.
    let number = fd.0;
    drop(fd);
    assert_eq!(instance.now(), []);
    let mut next = accepted();
    let mut others = Vec::new();
    while next.0.0 != number && others.len() < 8 {
        others.push(std::mem::replace(&mut next, accepted()));
    }
    instance.add(&next.0, libc::EPOLLIN, 3);
    sends(next.1, b"x");
    assert_eq!(instance.now(), [(3, libc::EPOLLIN)]);
}

#[test]
fn connects_end_in_an_event() {
    let instance = Instance::new();
    let fd = Fd::socket().nonblocking();
    assert_eq!(errno(fd.connect(address(CLOSED_PORT))), Errno::INPROGRESS);
    instance.add(&fd, libc::EPOLLOUT, 1);
    let told = instance.wait_for(4, None);
    assert_eq!(told, [(1, libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP)]);
}

#[test]
fn the_kernels_are_not_forgotten() {
    for room in [1, 2, 8] {
        let instance = Instance::new();
        let (fd, handle) = accepted();
        let (read, write) = rustix::pipe::pipe().unwrap();
        instance.add_kernel(read.as_raw_fd(), 1);
        instance.add(&fd, libc::EPOLLIN, 2);
        assert_eq!(instance.wait_for(room, Some(Duration::from_millis(2))), []);
        rustix::io::write(&write, b"x").unwrap();
        assert_eq!(instance.wait_for(room, None), [(1, libc::EPOLLIN)]);
        sends(handle, b"y");
        // One of ours that is always ready does not keep the kernel's out.
        let told: Vec<_> = (0..64).flat_map(|_| instance.wait_for(room, None)).collect();
        assert!(told.contains(&(1, libc::EPOLLIN)), "{room}: {told:?}");
        assert!(told.contains(&(2, libc::EPOLLIN)));
        rustix::io::read(&read, &mut [0; 1]).unwrap();
        assert_eq!(instance.wait_for(room, None), [(2, libc::EPOLLIN)]);
    }
}

/// Redis has room for as many events as it may have clients.
#[test]
fn much_room_is_used() {
    let instance = Instance::new();
    let sockets: Vec<_> = (0..5).map(|_| accepted()).collect();
    let (read, write) = rustix::pipe::pipe().unwrap();
    instance.add_kernel(read.as_raw_fd(), 99);
    for (data, (fd, _)) in (0..).zip(&sockets) {
        instance.add(fd, libc::EPOLLIN, data);
    }
    for room in [6, 16, 1024, 2048, 10_128] {
        for (_, handle) in &sockets {
            sends(*handle, b"x");
        }
        let mut told = instance.wait_for(room, NOW);
        told.sort_unstable();
        let expected: Vec<_> = (0..3).map(|data| (data, libc::EPOLLIN)).collect();
        assert_eq!(told[..3], expected, "{room}");
        assert!(room < 10 || told.len() == 5, "{room}: {told:?}");
    }
    rustix::io::write(&write, b"x").unwrap();
    let told: Vec<_> = (0..64).flat_map(|_| instance.wait_for(10_128, None)).collect();
    assert!(told.contains(&(99, libc::EPOLLIN)), "the kernel's too");
}

#[test]
fn sleepers_are_woken_by_both_kinds() {
    let instance = Instance::new();
    let (fd, handle) = accepted();
    let (listener, port) = listener();
    let (read, write) = rustix::pipe::pipe().unwrap();
    instance.add_kernel(read.as_raw_fd(), 1);
    instance.add(&fd, libc::EPOLLIN | libc::EPOLLET, 2);
    instance.add(&listener, libc::EPOLLIN | libc::EPOLLEXCLUSIVE, 3);
    for round in 0..30 {
        thread::scope(|scope| {
            let waiter = scope.spawn(|| instance.wait_for(8, None));
            thread::sleep(Duration::from_millis(round % 2));
            let expected = match round % 3 {
                0 => {
                    rustix::io::write(&write, b"x").unwrap();
                    1
                }
                1 => {
                    sends(handle, b"x");
                    2
                }
                _ => {
                    arrive(port);
                    3
                }
            };
            assert_eq!(waiter.join().unwrap(), [(expected, libc::EPOLLIN)]);
        });
        match round % 3 {
            0 => drop(rustix::io::read(&read, &mut [0; 1]).unwrap()),
            1 => {}
            _ => {
                let (fd, _) = listener.with(|socket| socket.accept(0)).unwrap();
                drop(Fd(fd));
            }
        }
    }
}

#[test]
fn a_socket_is_in_several_instances_and_polled() {
    let (one, two) = (Instance::new(), Instance::new());
    let (fd, handle) = accepted();
    one.add(&fd, libc::EPOLLIN | libc::EPOLLET, 1);
    two.add(&fd, libc::EPOLLIN, 2);
    thread::scope(|scope| {
        let sleepers = [
            scope.spawn(|| one.wait_for(4, None)),
            scope.spawn(|| two.wait_for(4, None)),
            scope.spawn(|| {
                let mut entries = [entry(fd.0, IN)];
                poll::poll(&mut entries, None, None).unwrap();
                vec![(3, entries[0].revents.into())]
            }),
        ];
        thread::sleep(Duration::from_millis(2));
        sends(handle, b"x");
        let told = sleepers.map(|sleeper| sleeper.join().unwrap());
        let expected = [1, 2, 3].map(|data| vec![(data, libc::EPOLLIN)]);
        assert_eq!(told, expected);
    });
    assert_eq!(one.now(), []);
    assert_eq!(two.now(), [(2, libc::EPOLLIN)]);
}

#[test]
fn threads_share_an_instance() {
    let instance = Instance::new();
    let sockets: Vec<_> = (0..4).map(|_| accepted()).collect();
    for (data, (fd, _)) in (0..).zip(&sockets) {
        instance.add(fd, libc::EPOLLIN | libc::EPOLLONESHOT, data);
    }
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..4).map(|_| scope.spawn(|| instance.wait_for(1, None))).collect();
        thread::sleep(Duration::from_millis(2));
        for (_, handle) in &sockets {
            sends(*handle, b"x");
        }
        let mut told: Vec<_> =
            waiters.into_iter().flat_map(|waiter| waiter.join().unwrap()).collect();
        told.sort_unstable();
        let expected: Vec<_> = (0..4).map(|data| (data, libc::EPOLLIN)).collect();
        assert_eq!(told, expected, "each by one thread");
    });
}

#[test]
fn an_instance_can_be_polled() {
    let instance = Instance::new();
    let (fd, handle) = accepted();
    instance.add(&fd, libc::EPOLLIN, 1);
    let epfd = instance.0.as_raw_fd();
    assert_eq!(now(&[(epfd, IN)]), [0]);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut entries = [entry(epfd, IN)];
            poll::poll(&mut entries, None, None).map(|count| (count, entries[0].revents))
        });
        thread::sleep(Duration::from_millis(2));
        sends(handle, b"x");
        assert_eq!(waiter.join().unwrap(), Ok((1, IN)));
    });
    assert_eq!(now(&[(epfd, IN)]), [IN]);
    fd.recv(&mut [0]).unwrap();
    assert_eq!(now(&[(epfd, IN)]), [0]);
}

/// What was announced for a nested instance is taken back, however the wait ends.
#[test]
fn polling_an_instance_leaves_nothing_behind() {
    let instance = Instance::new();
    let (fd, handle) = accepted();
    instance.add(&fd, libc::EPOLLIN, 1);
    let epfd = instance.0.as_raw_fd();
    for round in 0..500 {
        thread::scope(|scope| {
            let waiter = scope.spawn(|| poll::poll(&mut [entry(epfd, IN)], None, None));
            for _ in 0..round * 10 {
                std::hint::spin_loop();
            }
            sends(handle, b"x");
            assert_eq!(waiter.join().unwrap(), Ok(1));
        });
        fd.recv(&mut [0]).unwrap();
    }
    let state = format!("{:?}", find(epfd).unwrap());
    assert!(state.contains("asleep_beside: 0"), "{state}");
}

#[test]
fn a_daemon_that_came_back_is_watched_by_the_same_instance() {
    if !alone(
        "readiness::a_daemon_that_came_back_is_watched_by_the_same_instance",
        "FOURWAVE_TEST_ALONE",
        "1",
    ) {
        return;
    }
    let mut first = Fake::start(1);
    // SAFETY: no other thread of the process reads the environment now.
    unsafe { std::env::set_var("FOURWAVE_SOCKET", first.path()) };
    let connected = |fake: &Fake, port: u16| {
        let listening = Socket::create(Domain::V4, 0).map(Fd).unwrap();
        listening.with(|socket| socket.bind(listening.0, address(port))).unwrap();
        listening.with(|socket| socket.listen(listening.0, 5)).unwrap();
        let handle = fake.arrive(port, 0, 1);
        let (fd, _) = listening.with(|socket| socket.accept(0)).unwrap();
        (listening, Fd(fd), handle)
    };
    let instance = Instance::new();
    let (read, write) = rustix::pipe::pipe().unwrap();
    instance.add_kernel(read.as_raw_fd(), 9);
    let (_old_listener, old, _) = connected(&first, 80);
    instance.add(&old, libc::EPOLLIN | libc::EPOLLET, 1);
    let (_edge_listener, level, _) = connected(&first, 81);
    instance.add(&level, libc::EPOLLIN, 2);
    assert_eq!(instance.now(), []);
    first.vanish();
    assert_eq!(errno(old.recv(&mut [0])), Errno::NETDOWN);

    let second = Fake::start(1);
    // SAFETY: as above.
    unsafe { std::env::set_var("FOURWAVE_SOCKET", second.path()) };
    let (_new_listener, new, handle) = connected(&second, 80);
    instance.add(&new, libc::EPOLLIN | libc::EPOLLET, 3);
    let failed = libc::EPOLLIN | libc::EPOLLERR | libc::EPOLLHUP;
    assert_eq!(instance.now(), [(1, failed), (2, failed)], "the old ones have failed");
    second.with(|world| world.peer_sends(handle, b"x"));
    assert_eq!(instance.now(), [(2, failed), (3, libc::EPOLLIN)]);
    assert_eq!(now(&[(instance.0.as_raw_fd(), IN)]), [IN]);
    instance.control(libc::EPOLL_CTL_MOD, old.0, libc::EPOLLIN | libc::EPOLLET, 5).unwrap();
    assert_eq!(instance.now(), [(5, failed), (2, failed)]);
    drop(level);
    assert_eq!(instance.now(), []);
    assert_eq!(now(&[(instance.0.as_raw_fd(), IN)]), [0]);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| instance.wait_for(8, None));
        thread::sleep(Duration::from_millis(2));
        second.with(|world| world.peer_sends(handle, b"y"));
        assert_eq!(waiter.join().unwrap(), [(3, libc::EPOLLIN)]);
    });
    rustix::io::write(&write, b"x").unwrap();
    assert_eq!(instance.wait_for(8, None), [(9, libc::EPOLLIN)]);
}

#[test]
fn a_place_outlives_a_connect_that_failed() {
    let instance = Instance::new();
    // For failing only.
    let soon = Some(Duration::from_secs(10));
    let (_listener, port) = listener();
    let fd = Fd::socket().nonblocking();
    let refused = |data| {
        assert_eq!(errno(fd.connect(address(CLOSED_PORT))), Errno::INPROGRESS);
        let told = instance.wait_for(4, soon);
        assert_eq!(told, [(data, libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP)]);
        assert_eq!(errno(fd.connect(address(CLOSED_PORT))), Errno::CONNREFUSED);
    };
    assert_eq!(errno(fd.connect(address(CLOSED_PORT))), Errno::INPROGRESS);
    instance.add(&fd, libc::EPOLLOUT, 1);
    instance.wait_for(4, soon);
    assert_eq!(errno(fd.connect(address(CLOSED_PORT))), Errno::CONNREFUSED);
    // Nothing is said to the instance.
    refused(1);
    // It is changed, or taken away and put back, while there is no connection.
    instance.control(libc::EPOLL_CTL_MOD, fd.0, libc::EPOLLOUT, 2).unwrap();
    refused(2);
    instance.control(libc::EPOLL_CTL_DEL, fd.0, 0, 0).unwrap();
    assert_eq!(errno(instance.control(libc::EPOLL_CTL_DEL, fd.0, 0, 0)), Errno::NOENT);
    instance.control(libc::EPOLL_CTL_ADD, fd.0, libc::EPOLLOUT, 3).unwrap();
    refused(3);
    instance.control(libc::EPOLL_CTL_DEL, fd.0, 0, 0).unwrap();
    assert_eq!(errno(fd.connect(address(port))), Errno::INPROGRESS);
    assert_eq!(instance.now(), []);
    instance.add(&fd, libc::EPOLLOUT, 4);
    assert_eq!(instance.wait_for(4, soon), [(4, libc::EPOLLOUT)]);
}

#[test]
fn a_place_in_an_instance_moves_with_its_socket() {
    let instance = Instance::new();
    let fd = Fd::socket().nonblocking();
    instance.add(&fd, libc::EPOLLOUT, 4);
    assert!(find(instance.0.as_raw_fd()).is_none(), "the kernel's still");
    assert_eq!(errno(fd.connect(address(CLOSED_PORT))), Errno::INPROGRESS);
    let told = instance.wait_for(4, None);
    assert_eq!(told, [(4, libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP)]);
}

#[test]
fn mistakes() {
    let (read, _write) = rustix::pipe::pipe().unwrap();
    let (fd, _) = accepted();
    let pipe = read.as_raw_fd();
    let event = Some(libc::epoll_event { events: 1, u64: 0 });
    let add = libc::EPOLL_CTL_ADD;
    assert_eq!(errno(epoll::control(pipe, add, fd.0, &fd.found(), event)), Errno::INVAL);
    assert_eq!(errno(epoll::control(fd.0, add, fd.0, &fd.found(), event)), Errno::INVAL);
    let instance = Instance::new();
    let epfd = instance.0.as_raw_fd();
    assert_eq!(errno(epoll::control(epfd, add, fd.0, &fd.found(), None)), Errno::FAULT);
    assert_eq!(errno(epoll::control(epfd, 77, fd.0, &fd.found(), event)), Errno::NOENT);
    instance.add(&fd, libc::EPOLLIN, 0);
    let found = find(epfd).unwrap();
    assert_eq!(errno(epoll::wait(epfd, &found, &mut [], NOW, None)), Errno::INVAL);
}

/// Serves echoes from an instance until `over`.
fn serve_echoes(instance: &Instance, flags: i32, over: &AtomicBool) {
    while !over.load(Ordering::SeqCst) {
        for (fd, _) in instance.wait_for(2, Some(Duration::from_millis(50))) {
            let fd = std::mem::ManuallyDrop::new(Fd(fd as RawFd));
            let mut buf = [0; 64];
            loop {
                match fd.recv(&mut buf) {
                    Ok(count) => assert_eq!(fd.send(&buf[..count]), Ok(count)),
                    Err(errno) => {
                        assert_eq!(errno, Errno::AGAIN);
                        break;
                    }
                }
            }
            if flags & libc::EPOLLONESHOT != 0 {
                let again = libc::EPOLLIN | flags;
                instance.control(libc::EPOLL_CTL_MOD, fd.0, again, fd.0 as u64).unwrap();
            }
        }
    }
}

#[test]
fn no_wake_up_is_lost() {
    // One instance for several threads, and one more that watches the same sockets.
    for (flags, threads) in [(libc::EPOLLONESHOT | libc::EPOLLET, 3), (libc::EPOLLET, 1), (0, 1)] {
        let (instance, onlooker) = (Instance::new(), Instance::new());
        let over = AtomicBool::new(false);
        let pairs: Vec<_> = (0..4).map(|_| crate::pair()).collect();
        let pairs: Vec<_> =
            pairs.into_iter().map(|(client, server)| (client, server.nonblocking())).collect();
        for (client, server) in &pairs {
            instance.add(server, libc::EPOLLIN | flags, server.0 as u64);
            onlooker.add(server, libc::EPOLLIN | libc::EPOLLET, 1);
            let patience = [20i64.to_ne_bytes(), 0i64.to_ne_bytes()].concat();
            let (level, name) = (libc::SOL_SOCKET, libc::SO_RCVTIMEO);
            client.with(|socket| socket.setsockopt(client.0, level, name, &patience)).unwrap();
        }
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| serve_echoes(&instance, flags, &over));
            }
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    onlooker.wait_for(8, Some(Duration::from_millis(1)));
                }
            });
            let clients: Vec<_> = (pairs.iter())
                .map(|(client, _)| {
                    scope.spawn(|| {
                        for round in 0..300u32 {
                            assert_eq!(client.send(&round.to_ne_bytes()), Ok(4));
                            let mut got = [0; 4];
                            let flags = libc::MSG_WAITALL;
                            let count = client.with(|socket| socket.recv(&mut got, flags));
                            assert_eq!((count, u32::from_ne_bytes(got)), (Ok(4), round));
                        }
                    })
                })
                .collect();
            let ended: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
            over.store(true, Ordering::SeqCst);
            assert!(ended.iter().all(Result::is_ok));
        });
    }
}

#[test]
fn a_wait_for_room_is_one_for_extents_too() {
    if !alone("readiness::a_wait_for_room_is_one_for_extents_too", LANES, "8") {
        return;
    }
    let (fd, handle) = accepted();
    let (other, _) = accepted();
    let (fd, other) = (fd.nonblocking(), other.nonblocking());
    FAKE.with(|world| world.granting = false);
    let mut done = 0;
    loop {
        match other.send(&[1; 5000]) {
            Ok(count) => done += count,
            Err(errno) => break assert_eq!(errno, Errno::AGAIN),
        }
        FAKE.with(World::turn);
    }
    assert!(done > 0);
    assert_eq!(now(&[(fd.0, IN | OUT), (other.0, OUT)]), [0, 0], "a write would give EAGAIN");
    let instance = Instance::new();
    instance.add(&fd, libc::EPOLLIN, 1);
    for events in [libc::EPOLLOUT, libc::EPOLLOUT | libc::EPOLLET] {
        instance.control(libc::EPOLL_CTL_MOD, fd.0, events, 1).unwrap();
        assert_eq!(instance.now(), []);
    }
    let mut fds = [entry(fd.0, OUT)];
    thread::scope(|scope| {
        let waiter = scope.spawn(|| poll::poll(&mut fds, None, None));
        thread::sleep(Duration::from_millis(3));
        FAKE.with(|world| world.granting = true);
        assert_eq!(instance.wait_for(8, None), [(1, libc::EPOLLOUT)]);
        assert_eq!(waiter.join().unwrap(), Ok(1));
    });
    assert_eq!(fds[0].revents, OUT);
    assert_eq!(fd.send(b"x"), Ok(1));
    FAKE.until(|world| (world.sent(handle) == b"x").then_some(()));
}

/// As in Linux, what is watched is a number of a socket.
#[test]
fn numbers_of_one_socket_are_watched_apart() {
    let (fd, handle) = accepted();
    let twin = Fd(fourwave_posix::dup(fd.0, &fd.found(), 0, true).unwrap());
    let third = Fd(fourwave_posix::dup(fd.0, &fd.found(), 0, true).unwrap());
    let instance = Instance::new();
    instance.add(&fd, libc::EPOLLIN, 1);
    instance.add(&twin, libc::EPOLLOUT | libc::EPOLLET, 2);
    instance.add(&third, libc::EPOLLIN | libc::EPOLLONESHOT, 3);
    let again = instance.control(libc::EPOLL_CTL_ADD, twin.0, libc::EPOLLIN, 4);
    assert_eq!(errno(again), Errno::EXIST);
    let now = || {
        let mut told = instance.now();
        told.sort_unstable();
        told
    };
    assert_eq!(now(), [(2, libc::EPOLLOUT)]);
    sends(handle, b"x");
    let told = now();
    assert!(told.contains(&(1, libc::EPOLLIN)) && told.contains(&(3, libc::EPOLLIN)), "{told:?}");
    assert_eq!(now(), [(1, libc::EPOLLIN)], "the level alone");
    // Room for one event does not lose the others.
    instance.control(libc::EPOLL_CTL_MOD, third.0, libc::EPOLLIN, 3).unwrap();
    let mut seen = [0; 4];
    for _ in 0..20 {
        for (data, _) in instance.wait_for(1, NOW) {
            seen[data as usize] += 1;
        }
    }
    assert!(seen[1] > 2 && seen[3] > 2, "{seen:?}");
    instance.control(libc::EPOLL_CTL_DEL, fd.0, 0, 0).unwrap();
    assert_eq!(errno(instance.control(libc::EPOLL_CTL_MOD, fd.0, libc::EPOLLIN, 1)), Errno::NOENT);
    assert_eq!(now(), [(3, libc::EPOLLIN)]);
    instance.control(libc::EPOLL_CTL_DEL, third.0, 0, 0).unwrap();
    assert_eq!(now(), []);
    // The one that is left is still told of room.
    let fd = fd.nonblocking();
    FAKE.with(|world| world.hold_acks(handle, true));
    while fd.send(&[0; 4096]).is_ok() {}
    now();
    FAKE.with(|world| world.hold_acks(handle, false));
    assert_eq!(instance.wait_for(8, None), [(2, libc::EPOLLOUT)]);
    let (listener, port) = listener();
    let twin = Fd(fourwave_posix::dup(listener.0, &listener.found(), 0, true).unwrap());
    instance.add(&listener, libc::EPOLLIN, 5);
    instance.add(&twin, libc::EPOLLIN | libc::EPOLLET, 6);
    arrive(port);
    assert_eq!(now(), [(5, libc::EPOLLIN), (6, libc::EPOLLIN)]);
    assert_eq!(now(), [(5, libc::EPOLLIN)]);
    instance.control(libc::EPOLL_CTL_DEL, listener.0, 0, 0).unwrap();
    arrive(port);
    assert_eq!(now(), [(6, libc::EPOLLIN)]);
}

#[test]
fn one_socket_is_polled_twice() {
    let (fd, handle) = accepted();
    let fd = fd.nonblocking();
    let twin = Fd(fourwave_posix::dup(fd.0, &fd.found(), 0, true).unwrap());
    FAKE.with(|world| world.hold_acks(handle, true));
    while fd.send(&[0; 4096]).is_ok() {}
    let mut fds = [entry(fd.0, IN), entry(twin.0, OUT), entry(fd.0, 0)];
    thread::scope(|scope| {
        let waiter = scope.spawn(|| poll::poll(&mut fds, None, None));
        thread::sleep(Duration::from_millis(3));
        FAKE.with(|world| world.hold_acks(handle, false));
        assert_eq!(waiter.join().unwrap(), Ok(1));
    });
    assert_eq!(fds.map(|entry| entry.revents), [0, OUT, 0]);
}
