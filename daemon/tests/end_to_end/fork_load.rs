//! A program that forks while its other threads accept, read, write and close: no connection ends
//! early, late or without its bytes, whoever dies in between.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use fourwave::TcpListener;
use fourwave_bench::lab::Side;
use fourwave_bench::server::READY;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::support::bytes::Pattern;
use crate::support::roles::{Role, say};
use crate::support::{Bed, FAMILIES, eventually_is, soaking};

const PORT: u16 = 7779;

/// Bytes that a peer sends and gets back.
const SIZE: usize = 64;

/// Threads of the program.
pub const THREADS: usize = 3;

/// Peers at a time: more than the program has threads.
const PEERS: u64 = 6;

/// What a peer asks for, in one byte before its bytes.
mod ask {
    /// Who accepted answers.
    pub const PLAIN: u8 = b'p';
    /// A child answers.
    pub const CHILD: u8 = b'c';
    /// Who accepted answers and closes; a child that holds the connection too says [`LATER`](super::LATER)
    /// before it goes.
    pub const LATER: u8 = b'l';
    /// A child writes [`NOISE`](super::NOISE) until it is killed, then who accepted answers.
    pub const NOISE: u8 = b'n';
    /// A child accepts and answers others until it is killed, then who accepted answers.
    pub const VICTIM: u8 = b'v';
}

/// The last byte of a connection that was held longer than by who closed it first.
const LATER: u8 = b'.';
/// What a child writes until it is killed: no byte of an answer, which the highest bit tells apart.
const NOISE: [u8; 7] = [b'~'; 7];

/// [`Role::ForkLoad`].
pub fn serve(listen: &[SocketAddr]) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    // Nobody needs to wait for the children.
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    say(READY)?;
    thread::scope(|scope| {
        let serve = |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            loop {
                if let Err(error) = serve_one(&listener, Some(&mut random)) {
                    // It shows in the program's log; a peer misses its answer.
                    eprintln!("{error}");
                }
            }
        };
        for seed in 1..THREADS as u64 {
            scope.spawn(move || -> ! { serve(seed) });
        }
        serve(0)
    })
}

/// Serves the next peer. A child that is not to have children has no `random`.
fn serve_one(listener: &TcpListener, random: Option<&mut StdRng>) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    let (mut what, mut bytes) = ([0], [0; SIZE]);
    stream.read_exact(&mut what)?;
    stream.read_exact(&mut bytes)?;
    let Some(random) = random else {
        stream.write_all(&bytes)?;
        return if what[0] == ask::LATER { stream.write_all(&[LATER]) } else { Ok(()) };
    };
    let moment = Duration::from_micros(random.random_range(0..3000));
    match what[0] {
        ask::PLAIN => stream.write_all(&bytes),
        ask::CHILD => fork(|| stream.write_all(&bytes)).map(drop),
        ask::LATER => {
            stream.write_all(&bytes)?;
            fork(|| {
                thread::sleep(moment);
                stream.write_all(&[LATER])
            })
            .map(drop)
        }
        ask::NOISE => {
            let child = fork(|| {
                loop {
                    (&stream).write_all(&NOISE)?;
                }
            })?;
            thread::sleep(moment);
            kill(child);
            stream.write_all(&bytes)
        }
        ask::VICTIM => {
            let child = fork(|| {
                loop {
                    serve_one(listener, None)?;
                }
            })?;
            thread::sleep(moment);
            kill(child);
            stream.write_all(&bytes)
        }
        other => panic!("asked for {other}"),
    }
}

/// Runs `child` in a forked process, which ends with it.
fn fork(child: impl FnOnce() -> io::Result<()>) -> io::Result<Pid> {
    // SAFETY: the child runs only what follows, and leaves by _exit(). Of what other threads may
    // have locked it uses malloc, which glibc sees to, and the library.
    match unsafe { libc::fork() } {
        0 => {
            let code = i32::from(child().is_err());
            // SAFETY: ends the process.
            unsafe { libc::_exit(code) }
        }
        pid => Pid::from_raw(pid.max(0)).ok_or_else(io::Error::last_os_error),
    }
}

/// Kills a child and waits until it is gone: it can write yet when the signal is sent.
fn kill(child: Pid) {
    // One that has failed is gone already.
    let _ = kill_process(child, Signal::KILL);
    // Returns when it is gone, with an error: it has no status, because SIGCHLD is ignored.
    let _ = waitpid(Some(child), WaitOptions::empty());
}

/// What is wrong with what a peer got; nothing is.
fn ask(bed: &Bed, address: SocketAddr, what: u8, seed: u64) -> Result<(), String> {
    let mut bytes = [0; SIZE];
    Pattern::new(seed).fill(&mut bytes);
    bytes.iter_mut().for_each(|byte| *byte |= 0x80);
    let mut stream = bed.kernel_connect(address);
    let mut back = Vec::new();
    let exchange = |stream: &mut std::net::TcpStream, back: &mut Vec<u8>| -> io::Result<()> {
        stream.write_all(&[what])?;
        stream.write_all(&bytes)?;
        if seed.is_multiple_of(2) {
            stream.shutdown(Shutdown::Write)?;
        }
        stream.read_to_end(back).map(drop)
    };
    let ended = exchange(&mut stream, &mut back);
    if what == ask::NOISE {
        let noise = back.iter().take_while(|byte| NOISE.contains(byte)).count();
        back.drain(..noise);
    }
    let mut expected = bytes.to_vec();
    if what == ask::LATER {
        expected.push(LATER);
    }
    match ended {
        Ok(()) if back == expected => Ok(()),
        // Every peer would wait as long.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            panic!("asked for {:?}: no end after {} bytes", what as char, back.len())
        }
        ended => {
            let got = back.len();
            Err(format!("asked for {:?}, seed {seed}: {ended:?} after {got} bytes", what as char))
        }
    }
}

/// What a forking server has to do without losing anything.
pub const WITHOUT_LOSS: [u8; 5] = [ask::CHILD, ask::PLAIN, ask::LATER, ask::PLAIN, ask::NOISE];

/// What went wrong with peers that ask for `whats` in turn, each thread beginning elsewhere.
pub fn load(bed: &Bed, address: SocketAddr, whats: &[u8]) -> Vec<String> {
    let each = if soaking() { 5000 } else { 40 };
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let peer = |peer: u64| {
            let next = &next;
            scope.spawn(move || {
                let seeds = (0..each).map(|round| peer * each + round);
                let asked = seeds.filter_map(|seed| {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    ask(bed, address, whats[turn % whats.len()], seed).err()
                });
                asked.collect::<Vec<_>>()
            })
        };
        let peers: Vec<_> = (0..PEERS).map(peer).collect();
        peers.into_iter().flat_map(|peer| peer.join().expect("it connects")).collect()
    })
}

fn storm(name: &str, whats: &[u8], check: impl Fn(&[String])) {
    let Some(mut bed) = Bed::new(name) else { return };
    for address in FAMILIES.map(|is_v6| bed.server_address(is_v6, PORT)) {
        bed.start(Side::Server, Role::ForkLoad, &[address]);
        check(&load(&bed, address, whats));
        // Who asks is a client too.
        eventually_is("children go", &1, || bed.stats().get("clients") - 1);
        bed.stop(Role::ForkLoad.name(), Duration::ZERO).expect("it was started");
        bed.wait_until_empty();
    }
}

#[test]
fn forks_among_busy_threads_lose_nothing() {
    storm("fork-load", &WITHOUT_LOSS, |wrong| {
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

#[test]
fn killed_children_lose_what_they_had_alone() {
    let whats = [ask::PLAIN, ask::VICTIM, ask::PLAIN, ask::CHILD, ask::NOISE, ask::LATER];
    storm("fork-killed", &whats, |wrong| {
        // Each victim has one connection of its own at a time.
        let each = if soaking() { 5000 } else { 40 };
        let victims = (PEERS * each) as usize / whats.len() + 1;
        assert!(wrong.len() <= victims, "{} of {victims}: {wrong:#?}", wrong.len());
    });
}
