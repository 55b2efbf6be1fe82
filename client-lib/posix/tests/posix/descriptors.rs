//! Numbers: close, dup, fcntl, ioctl; copying between them.

use crate::{FAKE, Fd, accepted, address, alone, errno, listener, pair, sends};
use fourwave_posix::{Errno, Socket, close, dup, dup_to, fcntl, find, ioctl, sendfile, splice};
use rustix::fd::AsFd;
use std::io::{Seek, Write};
use std::os::fd::IntoRawFd;

#[test]
fn numbers_share_what_they_stand_for() {
    let (fd, handle) = accepted();
    let copy = Fd(dup(fd.0, &fd.found(), 0, true).unwrap());
    let high = Fd(fcntl(fd.0, &fd.found(), libc::F_DUPFD, 300).unwrap());
    assert!(high.0 >= 300 && copy.0 != fd.0);
    fcntl(copy.0, &copy.found(), libc::F_SETFL, libc::O_NONBLOCK as usize).unwrap();
    assert_eq!(fcntl(fd.0, &fd.found(), libc::F_GETFL, 0), Ok(libc::O_RDWR | libc::O_NONBLOCK));
    assert_eq!(errno(high.recv(&mut [0])), Errno::AGAIN);
    assert_eq!(fcntl(copy.0, &copy.found(), libc::F_GETFD, 0), Ok(libc::FD_CLOEXEC));
    assert_eq!(fcntl(high.0, &high.found(), libc::F_GETFD, 0), Ok(0));
    drop((fd, high));
    sends(handle, b"x");
    assert_eq!(copy.recv(&mut [0]), Ok(1), "it lives as long as one of them");
    let asynchronous = libc::O_ASYNC as usize;
    assert_eq!(errno(fcntl(copy.0, &copy.found(), libc::F_SETFL, asynchronous)), Errno::INVAL);
    drop(copy);
    FAKE.until_closed(handle);
}

#[test]
fn dup_to_replaces() {
    let ((one, first), (two, second)) = (accepted(), accepted());
    assert_eq!(dup_to(one.0, one.0, None), Ok(one.0));
    assert_eq!(errno(dup_to(one.0, one.0, Some(0))), Errno::INVAL);
    assert_eq!(dup_to(one.0, two.0, Some(libc::O_CLOEXEC)), Ok(two.0));
    FAKE.until_closed(second);
    sends(first, b"ab");
    assert_eq!((one.recv(&mut [0]), two.recv(&mut [0])), (Ok(1), Ok(1)));
    // A kernel's descriptor takes the place of ours.
    let (read, _write) = rustix::pipe::pipe().unwrap();
    let number = two.0;
    assert_eq!(dup_to(std::os::fd::AsRawFd::as_raw_fd(&read), number, None), Ok(number));
    assert!(find(number).is_none());
    assert_eq!(errno(close(number)), Errno::BADF, "not one of ours any more");
    drop(one);
    FAKE.until_closed(first);
    // Once closed, the number may be another test's.
    std::mem::forget(two);
    // SAFETY: made by dup_to() above.
    unsafe { libc::close(number) };
}

#[test]
fn ranges_are_closed() {
    let (fd, handle) = accepted();
    // No other test has numbers as high as this.
    let high = fcntl(fd.0, &fd.found(), libc::F_DUPFD, 700).unwrap();
    drop(fd);
    fourwave_posix::forget_range(700, i32::MAX);
    assert!(find(high).is_none());
    FAKE.until_closed(handle);
    // SAFETY: nothing stands behind it any more.
    unsafe { libc::close(high) };
}

/// `close(0)`, `open("/dev/null")` is how programs get a new standard input.
#[test]
fn standard_descriptors_are_not_kept() {
    if !alone("descriptors::standard_descriptors_are_not_kept", "FOURWAVE_TEST_ALONE", "1") {
        return;
    }
    let (fd, _) = accepted();
    for standard in [0, 2] {
        // SAFETY: nothing of this process reads or writes it.
        unsafe { libc::close(standard) };
        let copy = dup(fd.0, &fd.found(), 0, false).unwrap();
        assert_eq!(copy, standard, "the lowest");
        close(copy).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(null.into_raw_fd(), standard);
    }
    let number = fd.0;
    drop(fd);
    assert!(fourwave_posix::is_kept(number), "others are");
}

/// An `ioctl` whose argument is an `int`, which is not aligned.
fn ask(fd: &Fd, request: libc::c_ulong, argument: &mut i32) -> fourwave_posix::Result<i32> {
    let mut bytes = [0; 5];
    bytes[1..].copy_from_slice(&argument.to_ne_bytes());
    // SAFETY: a pointer to four bytes.
    let done = unsafe { ioctl(fd.0, &fd.found(), request, bytes[1..].as_mut_ptr() as usize) };
    *argument = i32::from_ne_bytes(*bytes[1..].first_chunk().unwrap());
    done
}

#[test]
fn requests() {
    let (fd, handle) = accepted();
    let mut number = 5;
    assert_eq!((ask(&fd, libc::FIONREAD, &mut number), number), (Ok(0), 0));
    sends(handle, b"abc");
    assert_eq!((ask(&fd, libc::FIONREAD, &mut number), number), (Ok(0), 3));
    for on in [true, false] {
        assert_eq!(ask(&fd, libc::FIONBIO, &mut on.into()), Ok(0));
        assert_eq!(fd.with(Socket::is_nonblocking), on);
    }
    assert_eq!(errno(ask(&fd, libc::TCGETS, &mut number)), Errno::NOTTY);
    FAKE.with(|world| world.hold_acks(handle, true));
    fd.send(b"kept").unwrap();
    assert_eq!((ask(&fd, libc::TIOCOUTQ, &mut number), number), (Ok(0), 4));
    FAKE.with(|world| world.hold_acks(handle, false));
    FAKE.until(|_| {
        ask(&fd, libc::TIOCOUTQ, &mut number).unwrap();
        (number == 0).then_some(())
    });
    assert_eq!((ask(&fd, libc::FIOASYNC, &mut 0), number), (Ok(0), 0));
    assert_eq!(errno(ask(&fd, libc::FIOASYNC, &mut 1)), Errno::NOTTY);
    // Of an interface: `struct ifreq` has its name first.
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    let index = libc::SIOCGIFINDEX as libc::c_ulong;
    // SAFETY: as large as the request wants it.
    let told = unsafe { ioctl(fd.0, &fd.found(), index, request.as_mut_ptr() as usize) };
    assert_eq!((told, request[16]), (Ok(0), 1));
    let (listener, _) = listener();
    for request in [libc::FIONREAD, libc::TIOCOUTQ] {
        assert_eq!(errno(ask(&listener, request, &mut number)), Errno::INVAL);
    }
    for request in [libc::FIONREAD, libc::FIONBIO, libc::FIOASYNC] {
        // SAFETY: null is allowed.
        assert_eq!(errno(unsafe { ioctl(fd.0, &fd.found(), request, 0) }), Errno::FAULT);
    }
    let fresh = Fd::socket();
    assert_eq!(ask(&fresh, libc::FIONBIO, &mut 1), Ok(0));
    assert!(fresh.with(Socket::is_nonblocking));
    let flags = fcntl(fresh.0, &fresh.found(), libc::F_GETFL, 0).unwrap();
    assert_ne!(flags & libc::O_NONBLOCK, 0, "the kernel's socket too");
}

/// What is known of a number decides who gets it next.
#[test]
fn numbers_that_exec_keeps_are_not_mixed_with_others() {
    if !alone(
        "descriptors::numbers_that_exec_keeps_are_not_mixed_with_others",
        "FOURWAVE_TEST_ALONE",
        "1",
    ) {
        return;
    }
    let flags = |fd: &Fd| fcntl(fd.0, &fd.found(), libc::F_GETFD, 0).unwrap();
    let (one, _) = accepted();
    assert_eq!(flags(&one), libc::FD_CLOEXEC);
    assert_eq!(ask(&one, libc::FIONCLEX, &mut 0), Ok(0));
    assert_eq!(flags(&one), 0);
    drop(one);
    let (two, _) = accepted();
    assert_eq!(flags(&two), libc::FD_CLOEXEC);
    assert_eq!(ask(&two, libc::FIONCLEX, &mut 0), Ok(0));
    assert_eq!(ask(&two, libc::FIOCLEX, &mut 0), Ok(0));
    let number = two.0;
    drop(two);
    let (three, _) = accepted();
    assert_eq!((three.0, flags(&three)), (number, libc::FD_CLOEXEC));
}

#[test]
fn what_carries_the_sockets_is_not_replaced() {
    // Other tests make and close such numbers.
    if !alone("descriptors::what_carries_the_sockets_is_not_replaced", "FOURWAVE_TEST_ALONE", "1") {
        return;
    }
    let (fd, handle) = accepted();
    let null = std::fs::File::open("/dev/null").unwrap();
    let own: Vec<_> = fourwave_posix::own_descriptors().collect();
    assert!(own.len() > 3);
    for number in own {
        for old in [fd.0, std::os::fd::AsRawFd::as_raw_fd(&null)] {
            assert_eq!(errno(dup_to(old, number, None)), Errno::BADF);
        }
    }
    sends(handle, b"x");
    assert_eq!(fd.recv(&mut [0]), Ok(1));
}

#[test]
fn flags_without_an_effect_are_kept() {
    let (fd, _) = accepted();
    let set = |flags: i32| fcntl(fd.0, &fd.found(), libc::F_SETFL, flags as usize);
    let get = || fcntl(fd.0, &fd.found(), libc::F_GETFL, 0).unwrap();
    assert_eq!(set(libc::O_APPEND | libc::O_NONBLOCK | libc::O_CREAT), Ok(0));
    assert_eq!(get(), libc::O_RDWR | libc::O_APPEND | libc::O_NONBLOCK);
    assert_eq!(errno(set(libc::O_DIRECT)), Errno::INVAL);
    assert_eq!((set(0), get()), (Ok(0), libc::O_RDWR));
}

#[test]
fn files_are_sent() {
    let (client, server) = pair();
    let mut file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..150_000).map(|at| (at / 251 + at) as u8).collect();
    file.write_all(&bytes).unwrap();
    file.rewind().unwrap();
    let receive = |count| {
        let mut got = vec![0; count];
        assert_eq!(server.with(|socket| socket.recv(&mut got, libc::MSG_WAITALL)), Ok(count));
        got
    };
    std::thread::scope(|scope| {
        let sender =
            scope.spawn(|| client.with(|socket| sendfile(socket, file.as_fd(), None, 1 << 20)));
        assert!(receive(bytes.len()) == bytes);
        assert_eq!(sender.join().unwrap(), Ok(bytes.len()));
    });
    assert_eq!(file.stream_position().unwrap(), bytes.len() as u64);
    let mut at = 100;
    assert_eq!(client.with(|socket| sendfile(socket, file.as_fd(), Some(&mut at), 50)), Ok(50));
    assert_eq!((at, receive(50)), (150, bytes[100..150].to_vec()));
    assert_eq!(file.stream_position().unwrap(), bytes.len() as u64, "its own place stays");
}

#[test]
fn a_full_socket_takes_part_of_a_file() {
    let (fd, handle) = accepted();
    FAKE.with(|world| world.hold_acks(handle, true));
    let fd = fd.nonblocking();
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let mut at = 0;
    let sent = fd.with(|socket| sendfile(socket, file.as_fd(), Some(&mut at), 1 << 20)).unwrap();
    assert!(sent > 0 && sent < 1 << 20);
    assert_eq!(at, sent as u64);
    let again = fd.with(|socket| sendfile(socket, file.as_fd(), Some(&mut at), 1 << 20));
    assert_eq!((errno(again), at), (Errno::AGAIN, sent as u64));
}

#[test]
fn pipes_are_spliced() {
    let (client, server) = pair();
    let (read, write) = rustix::pipe::pipe().unwrap();
    rustix::io::write(&write, b"through the pipe").unwrap();
    let out = client.with(|socket| splice(socket, read.as_fd(), true, 1000, 0));
    assert_eq!(out, Ok(16));
    let into = server.with(|socket| splice(socket, write.as_fd(), false, 7, 0));
    assert_eq!(into, Ok(7));
    let mut got = [0; 16];
    assert_eq!(rustix::io::read(&read, &mut got).unwrap(), 7);
    assert_eq!(&got[..7], b"through");
    assert_eq!(server.with(Socket::unread), Ok(9));
    let nonblocking = libc::SPLICE_F_NONBLOCK;
    let none = client.with(|socket| splice(socket, read.as_fd(), true, 1000, nonblocking));
    assert_eq!(errno(none), Errno::AGAIN);
    let none = client.with(|socket| splice(socket, write.as_fd(), false, 9, nonblocking));
    assert_eq!(errno(none), Errno::AGAIN);
    // Without the flag an empty pipe is waited for, until it gets something or has no writer left.
    let wait = || client.with(|socket| splice(socket, read.as_fd(), true, 9, 0));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(wait);
        std::thread::sleep(std::time::Duration::from_millis(50));
        rustix::io::write(&write, b"late").unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(4));
        let waiting = scope.spawn(wait);
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(write);
        assert_eq!(waiting.join().unwrap(), Ok(0));
    });
}

#[test]
fn what_a_full_socket_does_not_take_stays_in_the_pipe() {
    let (fd, handle) = accepted();
    FAKE.with(|world| world.hold_acks(handle, true));
    let fd = fd.nonblocking();
    while fd.send(&[0; 4096]).is_ok() {}
    let (read, write) = rustix::pipe::pipe().unwrap();
    rustix::io::write(&write, b"kept").unwrap();
    assert_eq!(errno(fd.with(|socket| splice(socket, read.as_fd(), true, 9, 0))), Errno::AGAIN);
    let mut got = [0; 4];
    assert_eq!((rustix::io::read(&read, &mut got).unwrap(), &got), (4, b"kept"));
}

#[test]
fn an_unknown_number_is_the_kernels() {
    assert!(find(0).is_none() && find(-1).is_none());
    assert_eq!(errno(close(0)), Errno::BADF);
    let fd = Fd::socket();
    assert_eq!(errno(fd.connect(address(crate::fake::NO_ROUTE_PORT))), Errno::ADDRNOTAVAIL);
}
