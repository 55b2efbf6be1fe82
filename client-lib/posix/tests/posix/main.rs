//! POSIX semantics against a daemon in the same process. No privilege needed.

mod descriptors;
#[allow(dead_code, reason = "the client library's tests use all of it")]
#[path = "../../../tests/client/fake/mod.rs"]
mod fake;
mod readiness;
mod sockets;

use fake::Fake;
use fourwave_posix::{Domain, Errno, Found, Result, Socket, find};
use fourwave_protocol::Handle;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

/// How many lanes the daemon has in a process of a test of its own.
const LANES: &str = "FOURWAVE_TEST_LANES";

/// Runs a test in a process of its own, with this variable set; `true` in that process.
fn alone(name: &str, variable: &str, value: &str) -> bool {
    if std::env::var_os(variable).is_some() {
        return true;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--test-threads=1"])
        .env(variable, value)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// The process's daemon, which all tests share.
static FAKE: LazyLock<Fake> = LazyLock::new(|| {
    let fake = Fake::with_params(fourwave_protocol::Params {
        lanes: std::env::var(LANES).map_or(64, |lanes| lanes.parse().unwrap()),
        listeners: 128,
        ..Fake::params(2)
    });
    // SAFETY: no other thread of the process reads the environment before this is done: all of
    // them come here first.
    unsafe { std::env::set_var("FOURWAVE_SOCKET", fake.path()) };
    // SAFETY: the function may be called at any time.
    unsafe { libc::atexit(remove_folder) };
    OWNER.store(std::process::id(), Ordering::Relaxed);
    fake
});

/// The process whose folder `FAKE` has, not one that was forked from it.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// What is static is not dropped in the end.
extern "C" fn remove_folder() {
    if OWNER.load(Ordering::Relaxed) == std::process::id() {
        let _ = FAKE.path().parent().map(std::fs::remove_dir_all);
    }
}

/// A descriptor that is closed in the end.
#[derive(Debug)]
struct Fd(RawFd);

impl Fd {
    fn socket() -> Fd {
        LazyLock::force(&FAKE);
        Fd(Socket::create(Domain::V4, libc::SOCK_CLOEXEC).unwrap())
    }

    fn nonblocking(self) -> Fd {
        fourwave_posix::fcntl(self.0, &self.found(), libc::F_SETFL, libc::O_NONBLOCK as usize)
            .unwrap();
        self
    }

    fn found(&self) -> Found {
        find(self.0).expect("it is ours")
    }

    fn with<R>(&self, call: impl FnOnce(&Socket) -> R) -> R {
        call(self.found().socket().unwrap())
    }

    fn send(&self, bytes: &[u8]) -> Result<usize> {
        self.with(|socket| socket.send(&[std::io::IoSlice::new(bytes)], 0))
    }

    fn recv(&self, buf: &mut [u8]) -> Result<usize> {
        self.with(|socket| socket.recv(buf, 0))
    }

    fn connect(&self, address: SocketAddr) -> Result<()> {
        self.with(|socket| socket.connect(self.0, address))
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        let _ = fourwave_posix::close(self.0);
    }
}

/// A listener, with its port. Never closed: the daemon of the tests uses each listener once.
fn listener() -> (std::mem::ManuallyDrop<Fd>, u16) {
    static PORT: AtomicU16 = AtomicU16::new(5000);
    let fd = Fd::socket();
    let port = PORT.fetch_add(1, Ordering::SeqCst);
    fd.with(|socket| socket.bind(fd.0, address(port))).unwrap();
    fd.with(|socket| socket.listen(fd.0, 5)).unwrap();
    (std::mem::ManuallyDrop::new(fd), port)
}

fn address(port: u16) -> SocketAddr {
    ([10, 99, 0, 2], port).into()
}

/// A peer connects.
fn arrive(port: u16) -> Handle {
    static STAMP: AtomicU64 = AtomicU64::new(1);
    FAKE.arrive(port, 0, STAMP.fetch_add(1, Ordering::SeqCst))
}

/// An accepted socket, blocking, and the peer's end of it.
fn accepted() -> (Fd, Handle) {
    let (listener, port) = listener();
    let handle = arrive(port);
    let (fd, _) = listener.with(|socket| socket.accept(libc::SOCK_CLOEXEC)).unwrap();
    (Fd(fd), handle)
}

/// Two ends of one connection.
fn pair() -> (Fd, Fd) {
    let (listener, port) = listener();
    let client = Fd::socket();
    client.connect(address(port)).unwrap();
    let (server, _) = listener.with(|socket| socket.accept(libc::SOCK_CLOEXEC)).unwrap();
    (client, Fd(server))
}

fn sends(handle: Handle, bytes: &[u8]) {
    FAKE.with(|world| world.peer_sends(handle, bytes));
}

/// The result of a call that must fail.
fn errno<T: std::fmt::Debug>(result: Result<T>) -> Errno {
    result.unwrap_err()
}
