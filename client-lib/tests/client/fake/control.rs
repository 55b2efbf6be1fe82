//! The control socket's other end.

use super::Inner;
use fourwave_protocol::control::{MAX_DESCRIPTORS, MAX_MESSAGE, Reply, Request, decode, encode};
use fourwave_protocol::{Process, VERSION};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use std::io::IoSlice;
use std::iter;
use std::mem::MaybeUninit;
use std::path::Path;

pub(super) fn listen(path: &Path) -> OwnedFd {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&socket, 8).unwrap();
    socket
}

/// Serves one client after the other, with all its processes.
pub(super) fn serve(inner: &Inner, listener: &OwnedFd) {
    let mut processes = Vec::new();
    while let Some(ready) = wait(inner, listener, &processes) {
        if ready == 0 {
            let client = rustix::net::accept_with(listener, SocketFlags::CLOEXEC).unwrap();
            processes.push((client, Process::FIRST));
        } else if !serve_one(inner, &mut processes, ready - 1) {
            let (_, process) = processes.remove(ready - 1);
            match processes.is_empty() {
                true => inner.world.lock().forget_client(),
                false => inner.world.lock().forget_process(process),
            }
        }
        // The worker's thread learns of new doorbells.
        inner.ring();
    }
}

/// Answers a request of a process; `false`: it is gone.
fn serve_one(inner: &Inner, processes: &mut Vec<(OwnedFd, Process)>, at: usize) -> bool {
    let mut buffer = [0; MAX_MESSAGE];
    let (client, process) = &processes[at];
    let Ok((_, count @ 1..)) = rustix::net::recv(client, &mut buffer[..], RecvFlags::empty())
    else {
        return false;
    };
    let request = decode(&buffer[..count]).unwrap();
    if request == Request::Fork {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (ours, theirs) =
            rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None).unwrap();
        let mut world = inner.world.lock();
        let child = world.fork(*process);
        // As from a daemon that has few left: every other child has to ask.
        let given = if child.slot() % 2 == 1 { world.attach(child) } else { None };
        drop(world);
        let (lane, doorbells) = given.unzip();
        let fds: Vec<_> = iter::once(theirs).chain(doorbells.into_iter().flatten()).collect();
        send(client, &Reply::Forked { process: child, lane }, &fds);
        processes.push((ours, child));
        return true;
    }
    let (replies, fds) = answer(inner, &request, *process);
    for reply in &replies {
        send(client, reply, &fds);
    }
    true
}

/// Waits until there is something to read: 0 for a new client, the place of a process plus one;
/// `None` when the daemon is to end.
fn wait(inner: &Inner, listener: &OwnedFd, processes: &[(OwnedFd, Process)]) -> Option<usize> {
    loop {
        // One client at a time.
        let new = if processes.is_empty() { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(listener, new)];
        fds.extend(processes.iter().map(|(fd, _)| PollFd::new(fd, PollFlags::IN)));
        let tick = rustix::event::Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        let ready = rustix::event::poll(&mut fds, Some(&tick)).unwrap() > 0;
        if inner.stopped() {
            return None;
        }
        if ready {
            return fds.iter().position(|fd| !fd.revents().is_empty());
        }
    }
}

fn send(client: &OwnedFd, reply: &Reply, fds: &[OwnedFd]) {
    let mut buffer = [0; MAX_MESSAGE];
    let packet = encode(reply, &mut buffer).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    if !fds.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    let parts = [IoSlice::new(packet)];
    // A client that is gone needs no answer.
    let _ = rustix::net::sendmsg(client, &parts, &mut ancillary, SendFlags::NOSIGNAL);
}

fn answer(inner: &Inner, request: &Request, process: Process) -> (Vec<Reply>, Vec<OwnedFd>) {
    let mut world = inner.world.lock();
    let error = |errno: rustix::io::Errno, detail: &str| {
        vec![Reply::Error { errno: errno.raw_os_error(), detail: detail.to_owned() }]
    };
    match *request {
        Request::Hello { version, .. } => {
            assert_eq!(version, VERSION);
            let memory = world.welcome();
            (vec![Reply::Welcome { params: world.params(), process }], vec![memory])
        }
        Request::AttachLane => match world.attach(process) {
            Some((lane, doorbells)) => (vec![Reply::Attached { lane }], doorbells),
            None => (error(rustix::io::Errno::NOBUFS, "no lane left"), vec![]),
        },
        Request::DetachLane { lane } => {
            world.detach(lane);
            (vec![Reply::Done], vec![])
        }
        Request::Bind { address, .. } => match world.bind(address, process) {
            Some((listener, address)) => (vec![Reply::Bound { listener, address }], vec![]),
            None => (error(rustix::io::Errno::ADDRINUSE, "the port is taken"), vec![]),
        },
        Request::Listen { listener, backlog } => {
            world.listen(listener, backlog);
            (vec![Reply::Done], vec![])
        }
        Request::Fork => panic!("answered before"),
        Request::Arrived | Request::DeferAccept { .. } => (vec![Reply::Done], vec![]),
        Request::SetOption { listener, option, value } => {
            world.set_listener_option(listener, option, value);
            (vec![Reply::Done], vec![])
        }
        Request::Options { listener } => {
            (vec![Reply::Options { values: world.listener_options(listener) }], vec![])
        }
        Request::CloseListener { listener } => {
            world.close_listener(listener, process);
            (vec![Reply::Done], vec![])
        }
        Request::Stats => {
            let text = |text: &str, more| Reply::Text { text: text.to_owned(), more };
            (vec![text("one 1\n", true), text("two 2\n", false)], vec![])
        }
        Request::Settings | Request::Query { .. } | Request::Capture { .. } => {
            panic!("only tools ask this")
        }
    }
}
