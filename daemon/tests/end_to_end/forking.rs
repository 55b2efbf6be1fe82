//! Programs that fork: every process of a group has its own share of the group's sockets.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use fourwave::{TcpListener, TcpStream};
use fourwave_bench::lab::{ProcessRef, Side};
use fourwave_bench::server::READY;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::roles::{Role, say};
use crate::support::{Bed, FAMILIES, PATIENCE, eventually_is};

const PORT: u16 = 7778;

/// What a peer asks [`Role::Forks`] for, in one byte.
mod ask {
    /// The child goes on with the connection, the parent lets go of it.
    pub const CHILD: u8 = b'c';
    /// The parent goes on with it; the child exits at once.
    pub const PARENT: u8 = b'p';
    /// The parent goes on with it; the child hangs until it is killed.
    pub const HANG: u8 = b'h';
    /// The parent exits; the child goes on with everything.
    pub const DAEMONIZE: u8 = b'd';
    /// The child becomes another program; the parent lets go of the connection.
    pub const EXEC: u8 = b'e';
    /// A child's child goes on with the connection, all others let go of it.
    pub const GRANDCHILD: u8 = b'g';
    /// Other threads wait for the listener and the connection meanwhile; the child serves both.
    pub const THREADS: u8 = b't';
    /// Nothing: who accepted answers.
    pub const NOTHING: u8 = b'n';
}

/// Runs `child` in a forked process, which ends with it.
fn fork(child: impl FnOnce() -> io::Result<()>) -> i32 {
    // SAFETY: the child runs only what follows, and leaves by _exit().
    match unsafe { libc::fork() } {
        -1 => panic!("{}", io::Error::last_os_error()),
        0 => {
            let code = i32::from(child().is_err());
            // SAFETY: ends the process.
            unsafe { libc::_exit(code) }
        }
        pid => pid,
    }
}

/// Says who it is, echoes what comes, until the peer has closed.
fn go_on(stream: &mut TcpStream) -> io::Result<()> {
    writeln!(stream, "{}", std::process::id())?;
    let mut bytes = [0; 100];
    loop {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            count => stream.write_all(&bytes[..count])?,
        }
    }
}

fn hang() -> io::Result<()> {
    loop {
        std::thread::sleep(PATIENCE);
    }
}

/// [`Role::Forks`].
pub fn serve(listen: &[SocketAddr]) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    say(READY)?;
    // Nobody waits for the children.
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    loop {
        let (stream, _) = listener.accept()?;
        serve_one(&listener, stream)?;
    }
}

fn serve_one(listener: &TcpListener, mut stream: TcpStream) -> io::Result<()> {
    let mut what = [0];
    stream.read_exact(&mut what)?;
    match what[0] {
        ask::CHILD => {
            fork(|| go_on(&mut stream));
        }
        ask::PARENT => {
            fork(|| Ok(()));
            go_on(&mut stream)?;
        }
        ask::HANG => {
            let child = fork(hang);
            writeln!(stream, "{child}")?;
            go_on(&mut stream)?;
        }
        ask::DAEMONIZE => {
            fork(|| {
                go_on(&mut stream)?;
                drop(stream);
                loop {
                    serve_one(listener, listener.accept()?.0)?;
                }
            });
            // SAFETY: ends the process.
            unsafe { libc::_exit(0) }
        }
        ask::EXEC => {
            fork(|| Err(Command::new("sleep").arg("60").exec()));
        }
        ask::GRANDCHILD => {
            fork(|| {
                fork(|| go_on(&mut stream));
                Ok(())
            });
        }
        ask::THREADS => {
            let reader = stream.try_clone()?;
            let acceptor = listener.try_clone()?;
            // Both sleep in the library, with its locks, when the process forks.
            std::thread::spawn(move || (&reader).read(&mut [0; 1]));
            std::thread::spawn(move || acceptor.accept());
            std::thread::sleep(Duration::from_millis(50));
            fork(|| {
                writeln!(stream, "{}", std::process::id())?;
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                stream.write_all(&byte)?;
                let (mut other, _) = listener.accept()?;
                other.read_exact(&mut byte)?;
                go_on(&mut other)
            });
            // The parent's threads would take what is the child's.
            // SAFETY: ends the process.
            unsafe { libc::_exit(0) }
        }
        ask::NOTHING => go_on(&mut stream)?,
        other => panic!("asked for {other}"),
    }
    Ok(())
}

/// [`Role::Prefork`].
pub fn prefork(listen: &[SocketAddr]) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    for _ in 0..2 {
        fork(|| {
            loop {
                let (mut stream, _) = listener.accept()?;
                let mut what = [0];
                stream.read_exact(&mut what)?;
                go_on(&mut stream)?;
            }
        });
    }
    drop(listener);
    say(READY)?;
    hang()
}

/// A peer's end.
struct Peer {
    stream: std::net::TcpStream,
    lines: BufReader<std::net::TcpStream>,
}

impl Peer {
    fn ask(bed: &Bed, address: SocketAddr, what: u8) -> Peer {
        let mut stream = bed.kernel_connect(address);
        stream.write_all(&[what]).expect("it is connected");
        let lines = BufReader::new(stream.try_clone().expect("a descriptor is free"));
        Peer { stream, lines }
    }

    fn number(&mut self) -> i32 {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the program says who it is");
        line.trim().parse().unwrap_or_else(|_| panic!("a number, not {line:?}"))
    }

    fn echoes(&mut self) {
        self.stream.write_all(b"there?").expect("it is connected");
        let mut bytes = [0; 6];
        self.lines.read_exact(&mut bytes).expect("it comes back");
        assert_eq!(&bytes, b"there?");
    }

    /// The other side has closed, in order.
    fn is_over(&mut self) {
        assert_eq!(self.lines.read(&mut [0; 1]).expect("an orderly end"), 0);
    }

    /// Closes, and sees the program close.
    fn end(mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("it is connected");
        self.is_over();
    }
}

fn kill(pid: i32) {
    let pid = Pid::from_raw(pid).expect("not zero");
    kill_process(pid, Signal::KILL).expect("it is there");
}

fn stop(bed: &mut Bed, role: Role) {
    bed.stop(role.name(), Duration::ZERO).expect("it was started");
    bed.wait_until_empty();
}

fn processes(bed: &Bed) -> u64 {
    // Who asks is one too.
    bed.stats().get("clients") - 1
}

#[test]
fn children_share_a_listener() {
    let Some(mut bed) = Bed::new("prefork") else { return };
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        let parent = bed.start(Side::Server, Role::Prefork, &[address]);
        let mut first = Peer::ask(&bed, address, ask::NOTHING);
        let mut second = Peer::ask(&bed, address, ask::NOTHING);
        // Each child has one: it serves one after the other.
        let (one, two) = (first.number(), second.number());
        assert!(one != two && one != parent.pid && two != parent.pid, "{one} {two}");
        first.echoes();
        kill(one);
        first.is_over();
        // The other child does not notice, and takes all that comes.
        second.echoes();
        second.end();
        for _ in 0..3 {
            let mut next = Peer::ask(&bed, address, ask::NOTHING);
            assert_eq!(next.number(), two);
            next.end();
        }
        kill(two);
        eventually_is("the parent is left", &1, || processes(&bed));
        // Which has let go of it. The worker hears a moment later that nobody holds it.
        eventually_is("nobody listens", &Some(libc::ECONNREFUSED), || {
            bed.try_kernel_connect(address).err().and_then(|error| error.raw_os_error())
        });
        stop(&mut bed, Role::Prefork);
    }
}

/// A program that forks as it is asked to, and its address.
fn forks(bed: &mut Bed, v6: bool) -> (ProcessRef, SocketAddr) {
    let address = bed.server_address(v6, PORT);
    (bed.start(Side::Server, Role::Forks, &[address]), address)
}

#[test]
fn a_connection_is_held_by_whoever_goes_on_with_it() {
    let Some(mut bed) = Bed::new("holds") else { return };
    for v6 in FAMILIES {
        let (program, address) = forks(&mut bed, v6);
        // The child, while its parent has let go and goes on accepting.
        let mut child = Peer::ask(&bed, address, ask::CHILD);
        let pid = child.number();
        assert_ne!(pid, program.pid);
        // The parent, whose child exits.
        let mut parent = Peer::ask(&bed, address, ask::PARENT);
        assert_eq!(parent.number(), program.pid);
        eventually_is("the short-lived child goes", &2, || processes(&bed));
        parent.echoes();
        parent.end();
        child.echoes();
        child.end();
        // A child of a child.
        let mut grandchild = Peer::ask(&bed, address, ask::GRANDCHILD);
        let pid = grandchild.number();
        assert_ne!(pid, program.pid);
        grandchild.echoes();
        // Its end comes with the process, too.
        kill(pid);
        grandchild.is_over();
        eventually_is("only the parent is left", &1, || processes(&bed));
        stop(&mut bed, Role::Forks);
    }
}

#[test]
fn a_killed_child_takes_nothing_with_it() {
    let Some(mut bed) = Bed::new("killed-child") else { return };
    let (program, address) = forks(&mut bed, false);
    let mut peer = Peer::ask(&bed, address, ask::HANG);
    let child = peer.number();
    assert_eq!(peer.number(), program.pid);
    kill(child);
    eventually_is("the child goes", &1, || processes(&bed));
    peer.echoes();
    peer.end();
    // Its listener is there as well.
    let mut next = Peer::ask(&bed, address, ask::NOTHING);
    next.number();
    next.end();
    stop(&mut bed, Role::Forks);
}

#[test]
fn a_program_that_goes_into_the_background_keeps_everything() {
    let Some(mut bed) = Bed::new("daemonize") else { return };
    let (program, address) = forks(&mut bed, false);
    let mut peer = Peer::ask(&bed, address, ask::DAEMONIZE);
    let child = peer.number();
    assert_ne!(child, program.pid);
    eventually_is("the parent goes", &1, || processes(&bed));
    peer.echoes();
    peer.end();
    let mut next = Peer::ask(&bed, address, ask::NOTHING);
    assert_eq!(next.number(), child);
    next.echoes();
    next.end();
    kill(child);
    stop(&mut bed, Role::Forks);
}

#[test]
fn another_program_holds_nothing() {
    let Some(mut bed) = Bed::new("exec") else { return };
    let (_, address) = forks(&mut bed, false);
    let mut peer = Peer::ask(&bed, address, ask::EXEC);
    peer.is_over();
    eventually_is("the other program is no client", &1, || processes(&bed));
    stop(&mut bed, Role::Forks);
}

#[test]
fn a_fork_among_threads_is_served() {
    let Some(mut bed) = Bed::new("fork-threads") else { return };
    let (program, address) = forks(&mut bed, false);
    let mut peer = Peer::ask(&bed, address, ask::THREADS);
    let child = peer.number();
    assert_ne!(child, program.pid);
    eventually_is("the parent goes", &1, || processes(&bed));
    peer.stream.write_all(b"x").expect("it is connected");
    let mut byte = [0];
    peer.lines.read_exact(&mut byte).expect("the child echoes it");
    assert_eq!(&byte, b"x");
    let mut next = Peer::ask(&bed, address, ask::NOTHING);
    assert_eq!(next.number(), child);
    next.end();
    peer.is_over();
    stop(&mut bed, Role::Forks);
}
