//! Forks, against the same daemon in the test's own process as the other tests have. A program of
//! its own, because a fork takes every connection to every daemon along.

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../client/fake/mod.rs"]
mod fake;

use fake::Fake;
use fourwave::{Events, Interest, Poller, TcpStream, Trigger};
use fourwave_protocol::Handle;
use parking_lot::{Mutex, MutexGuard};
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

/// A child that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

const PORT: u16 = 7000;

/// One test at a time: a fork takes the other ones' daemons along.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock()
}

/// A forked process, which ends with `what`; killed when it is dropped.
struct Child(i32);

fn fork(what: impl FnOnce()) -> Child {
    // SAFETY: the child runs what follows, in its only thread, and leaves by _exit().
    match unsafe { libc::fork() } {
        -1 => panic!("{}", std::io::Error::last_os_error()),
        0 => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
            // SAFETY: ends the process.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
        pid => Child(pid),
    }
}

impl Child {
    /// Waits for its end, which must be a good one.
    fn succeeds(mut self) {
        let start = Instant::now();
        loop {
            let mut status = 0;
            // SAFETY: `status` outlives the call.
            match unsafe { libc::waitpid(self.0, &raw mut status, libc::WNOHANG) } {
                0 if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(1)),
                0 => panic!("the child hangs"),
                _ => {
                    self.0 = 0;
                    assert_eq!(status, 0, "the child fails");
                    return;
                }
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.0 > 0 {
            // SAFETY: plain system calls on a child of ours that nobody has waited for.
            unsafe {
                libc::kill(self.0, libc::SIGKILL);
                libc::waitpid(self.0, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// A connection that the calling thread has accepted.
fn accepted(fake: &Fake) -> (TcpStream, Handle) {
    let listener = fake.options().bind(("10.99.0.2", PORT)).unwrap();
    let handle = fake.arrive(PORT, 0, 1);
    (listener.accept().unwrap().0, handle)
}

fn until_alone(fake: &Fake) {
    fake.until(|world| (world.processes() == 1).then_some(()));
}

#[test]
fn a_child_accepts_what_its_parent_listens_for() {
    let _turn = alone();
    let fake = Fake::start(2);
    let listener = fake.options().bind(("10.99.0.2", PORT)).unwrap();
    let handle = fake.arrive(PORT, 1, 1);
    let child = fork(|| {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"from the child").unwrap();
        drop(stream);
        // This one waits.
        listener.accept().unwrap().0.write_all(b"again").unwrap();
    });
    drop(listener);
    assert_eq!(fake.until_closed(handle).sent, b"from the child");
    let second = fake.with(|world| world.arrive(PORT, 0, 2));
    assert_eq!(fake.until_closed(second).sent, b"again");
    child.succeeds();
    fake.until(|world| world.listener(PORT).is_none().then_some(()));
    until_alone(&fake);
}

#[test]
fn a_connection_lives_as_long_as_one_of_both_holds_it() {
    let _turn = alone();
    let fake = Fake::start(1);
    let (mut stream, handle) = accepted(&fake);
    stream.write_all(b"parent ").unwrap();
    let child = fork(|| {
        stream.write_all(b"child").unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    });
    fake.until(|world| (world.sent(handle) == b"parent child").then_some(()));
    assert_eq!(fake.with(|world| world.holders(handle)), 2);
    drop(stream);
    fake.until(|world| (world.holders(handle) == 1).then_some(()));
    assert!(fake.with(|world| world.closed(handle)).is_none());
    fake.with(|world| world.peer_sends(handle, b"x"));
    child.succeeds();
    // Not dropped: the child's end is enough.
    assert_eq!(fake.until_closed(handle).sent, b"parent child");
}

#[test]
fn a_fork_without_use_leaves_nothing() {
    let _turn = alone();
    let fake = Fake::start(1);
    let (mut stream, handle) = accepted(&fake);
    let lanes = fake.with(|world| world.lanes());
    for _ in 0..10 {
        fork(|| ()).succeeds();
    }
    until_alone(&fake);
    assert_eq!(fake.with(|world| (world.lanes(), world.holders(handle))), (lanes, 1));
    assert!(std::process::Command::new("true").status().unwrap().success());
    stream.write_all(b"still here").unwrap();
    drop(stream);
    assert_eq!(fake.until_closed(handle).sent, b"still here");
    until_alone(&fake);
}

#[test]
fn two_processes_read_each_byte_once() {
    let _turn = alone();
    let fake = Fake::start(1);
    let (mut stream, handle) = accepted(&fake);
    let (mut from_child, mut to_parent) = std::io::pipe().unwrap();
    const BYTES: usize = 20_000;
    let count = |stream: &mut TcpStream| {
        let (mut seen, mut buffer) = ([0u32; 256], [0; 33]);
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return seen,
                count => buffer[..count].iter().for_each(|&byte| seen[usize::from(byte)] += 1),
            }
        }
    };
    let child = fork(|| {
        let seen = count(&mut stream).map(u32::to_ne_bytes);
        to_parent.write_all(seen.as_flattened()).unwrap();
    });
    let bytes: Vec<u8> = (0..BYTES).map(|n| n as u8).collect();
    for part in bytes.chunks(100) {
        fake.with(|world| world.peer_sends(handle, part));
    }
    fake.with(|world| world.peer_closes(handle));
    let mut seen = count(&mut stream);
    let mut theirs = [0; 1024];
    from_child.read_exact(&mut theirs).unwrap();
    for (mine, theirs) in seen.iter_mut().zip(theirs.as_chunks::<4>().0) {
        *mine += u32::from_ne_bytes(*theirs);
    }
    for (byte, &count) in seen.iter().enumerate() {
        let expected = bytes.iter().filter(|&&it| usize::from(it) == byte).count();
        assert_eq!(count as usize, expected, "byte {byte}");
    }
    child.succeeds();
}

#[test]
fn two_processes_write_whole_pieces() {
    let _turn = alone();
    let fake = Fake::start(1);
    let (mut stream, handle) = accepted(&fake);
    const PIECES: usize = 500;
    let write = |stream: &mut TcpStream, byte: u8| {
        for _ in 0..PIECES {
            stream.write_all(&[byte; 70]).unwrap();
        }
    };
    let child = fork(|| write(&mut stream, b'c'));
    write(&mut stream, b'p');
    child.succeeds();
    fake.until(|world| (world.sent(handle).len() == 2 * PIECES * 70).then_some(()));
    let sent = fake.with(|world| world.sent(handle));
    let pieces = sent.chunks(70).map(|piece| {
        assert!(piece.iter().all(|&byte| byte == piece[0]), "a piece is mixed");
        piece[0]
    });
    assert_eq!(pieces.filter(|&byte| byte == b'c').count(), PIECES);
}

#[test]
fn an_inherited_poller_is_the_childs_own() {
    let _turn = alone();
    let fake = Fake::start(2);
    let listener = fake.options().bind(("10.99.0.2", PORT)).unwrap();
    let handle = fake.arrive(PORT, 0, 1);
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let poller = Poller::with_runtime(&fake.runtime()).unwrap();
    poller.add(&listener, 1, Interest::READABLE, Trigger::Level).unwrap();
    poller.add(&stream, 2, Interest::READABLE, Trigger::Level).unwrap();
    let wait = |poller: &Poller| {
        let mut events = Events::with_capacity(4);
        poller.wait(&mut events, Some(PATIENCE)).unwrap();
        events.iter().map(|event| event.key()).collect::<Vec<_>>()
    };
    let child = fork(|| {
        assert_eq!(wait(&poller), [2]);
        let mut bytes = [0; 10];
        assert_eq!((&stream).read(&mut bytes).unwrap(), 1);
        assert_eq!(wait(&poller), [1]);
        drop(listener.accept().unwrap());
    });
    // The child must have its lane, and sleep on it.
    fake.until(|world| (world.lanes() == 3).then_some(()));
    fake.with(|world| world.peer_sends(handle, b"x"));
    fake.until(|world| (world.read(handle) == 1).then_some(()));
    fake.with(|world| world.arrive(PORT, 1, 2));
    child.succeeds();
    until_alone(&fake);
    // The parent's goes on.
    fake.with(|world| world.peer_sends(handle, b"y"));
    let start = Instant::now();
    while (&stream).read(&mut [0; 1]).is_err() {
        assert!(start.elapsed() < PATIENCE);
    }
    fake.with(|world| world.arrive(PORT, 0, 3));
    assert_eq!(wait(&poller), [1]);
}

#[test]
fn a_child_without_a_daemon_says_so() {
    let _turn = alone();
    let mut fake = Fake::start(1);
    let (mut stream, _) = accepted(&fake);
    fake.vanish();
    let child = fork(|| {
        let error = stream.write(b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NetworkDown);
    });
    child.succeeds();
}

#[test]
fn locks_of_other_threads_are_free_in_the_child() {
    let _turn = alone();
    let fake = Fake::start(1);
    let (stream, handle) = accepted(&fake);
    let reader = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || assert_eq!((&reader).read(&mut [0; 1]).unwrap(), 0));
        std::thread::sleep(Duration::from_millis(20));
        let child = fork(|| {
            stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            let error = (&stream).read(&mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
        });
        child.succeeds();
        fake.with(|world| world.peer_closes(handle));
    });
}
