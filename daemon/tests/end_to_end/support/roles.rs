//! Programs that tests start: this very test executable, told by the environment what to be.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use fourwave_bench::lab::{LabError, ProcessRef, Ready, Side};
use fourwave_bench::server::{self, ServerConfig};

use super::bytes::{Pattern, receive};
use super::{Bed, PATIENCE, eventually};

const ROLE: &str = "FOURWAVE_TEST_ROLE";
const ADDRESS: &str = "FOURWAVE_TEST_ADDRESS";
const SIZE: &str = "FOURWAVE_TEST_SIZE";

/// What a child says when it has done its part and keeps its connection open.
const HANGS: &str = "the child hangs";

/// Bytes that an echo server echoes before it closes.
pub const ECHO_SIZE: usize = 64;

/// What a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Echo-and-close server on fourwave.
    FourwaveEcho,
    /// The same on kernel sockets.
    KernelEcho,
    /// Accepts a connection through fourwave, leaves what comes unread, hangs.
    Unread,
    /// Accepts a connection through fourwave, writes [`WRITTEN`] bytes of [`WRITTEN_SEED`], hangs.
    Written,
    /// Accepts a connection through fourwave and writes the same pattern without end.
    Endless,
    /// Forks as its peers ask it to: see [`crate::forking`].
    Forks,
    /// Forks while its threads serve: see [`crate::fork_load`].
    ForkLoad,
    /// Listens, forks two children that accept, and lets go of the listener.
    Prefork,
    /// Listens through fourwave at every address, with `SO_REUSEPORT`, and never accepts.
    Hoard,
    /// Listens through fourwave with a backlog of the size, greets each peer ([`GREETING`]), and
    /// tells it what came from it, when all has ([`Sum`](super::bytes::Sum)).
    Summing,
    /// As many connections through fourwave to the address as the size says, each then like those
    /// of [`Role::Summing`] without the greeting.
    Dialling,
}

/// Bytes that [`Role::Written`] leaves behind: what fits in a connection's send buffer.
pub const WRITTEN: usize = 48 * 1024;
/// What [`Role::Summing`] says to whom it has accepted.
pub const GREETING: [u8; 1] = *b".";
/// The pattern of what is written.
pub const WRITTEN_SEED: u64 = 99;

impl Role {
    const ALL: [(Role, &'static str); 11] = [
        (Role::FourwaveEcho, "fourwave-echo"),
        (Role::KernelEcho, "kernel-echo"),
        (Role::Unread, "unread"),
        (Role::Written, "written"),
        (Role::Endless, "endless"),
        (Role::Forks, "forks"),
        (Role::ForkLoad, "fork-load"),
        (Role::Prefork, "prefork"),
        (Role::Hoard, "hoard"),
        (Role::Summing, "summing"),
        (Role::Dialling, "dialling"),
    ];

    /// Its name, in the lab too.
    pub fn name(self) -> &'static str {
        let known = Role::ALL.iter().find(|(role, _)| *role == self);
        known.expect("every role has a name").1
    }
}

impl Bed {
    /// Starts a child at one end and waits until it says that it is ready.
    pub fn start(&mut self, side: Side, role: Role, addresses: &[SocketAddr]) -> ProcessRef {
        self.start_echo(side, role, addresses, ECHO_SIZE)
    }

    /// As [`Bed::start`]; an echo server closes after `size` bytes.
    pub fn start_echo(
        &mut self,
        side: Side,
        role: Role,
        addresses: &[SocketAddr],
        size: usize,
    ) -> ProcessRef {
        self.try_start(side, role, addresses, size).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_start(
        &mut self,
        side: Side,
        role: Role,
        addresses: &[SocketAddr],
        size: usize,
    ) -> Result<ProcessRef, LabError> {
        let executable = std::env::current_exe().expect("/proc is mounted");
        // What an earlier child of this role said does not count.
        let _ = std::fs::remove_file(self.log_of(role));
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let mut command: Command = self.node(side).command(executable);
        command
            .args(["--exact", "support::roles::child", "--nocapture"])
            .env(ROLE, role.name())
            .env(ADDRESS, addresses.join(","))
            .env(SIZE, size.to_string())
            .env("FOURWAVE_SOCKET", self.control_socket(Side::Server));
        self.spawn(role.name(), command, Ready::Prints(server::READY))
    }

    fn log_of(&self, role: Role) -> PathBuf {
        self.folder().join(format!("{}.log", role.name()))
    }

    /// Waits until the child has done its part of a connection.
    pub fn wait_until_it_hangs(&self, role: Role) {
        let log = self.log_of(role);
        let hangs = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains(HANGS));
        eventually(format!("{} gets to its end", role.name()), hangs);
    }
}

/// Not a test: what children run. Does nothing unless it is told what to be.
#[test]
fn child() {
    let Some(name) = std::env::var_os(ROLE) else { return };
    let known = Role::ALL.iter().find(|(_, known)| name == *known);
    let (role, _) = known.expect("a role that exists");
    let addresses = std::env::var(ADDRESS).expect("addresses are given");
    let listen = addresses.split(',').map(|address| address.parse().expect("an address"));
    let size =
        std::env::var(SIZE).ok().and_then(|size| size.parse().ok()).expect("a size is given");
    play(*role, listen.collect(), size).expect("the child plays its role");
}

fn play(role: Role, listen: Vec<SocketAddr>, size: usize) -> io::Result<()> {
    match role {
        Role::FourwaveEcho => server::fourwave::serve(&ServerConfig::new(listen, size)),
        Role::KernelEcho => server::kernel::serve(&ServerConfig::new(listen, size)),
        Role::Unread => {
            let stream = accept_one(&listen)?;
            let unread = stream.peek(&mut [0; 1])?;
            assert_eq!(unread, 1, "there is something to leave unread");
            hang()
        }
        Role::Written => {
            let mut bytes = vec![0; WRITTEN];
            Pattern::new(WRITTEN_SEED).fill(&mut bytes);
            (&accept_one(&listen)?).write_all(&bytes)?;
            hang()
        }
        Role::Forks => crate::forking::serve(&listen),
        Role::ForkLoad => crate::fork_load::serve(&listen),
        Role::Prefork => crate::forking::prefork(&listen),
        Role::Hoard => {
            let options = fourwave::SocketOptions::new().reuse_port(true);
            let listeners = listen.iter().map(|address| options.bind(address));
            let _listeners = listeners.collect::<io::Result<Vec<_>>>()?;
            say(server::READY)?;
            hang()
        }
        Role::Summing => {
            let backlog = u32::try_from(size).expect("it is small");
            let options = fourwave::SocketOptions::new().backlog(backlog);
            let listener = options.bind(listen[0])?;
            say(server::READY)?;
            loop {
                let (mut stream, _) = listener.accept()?;
                stream.write_all(&GREETING)?;
                sum_up(stream);
            }
        }
        Role::Dialling => {
            let connect = |_| fourwave::TcpStream::connect(listen[0]);
            let streams = (0..size).map(connect).collect::<io::Result<Vec<_>>>()?;
            say(server::READY)?;
            streams.into_iter().for_each(sum_up);
            hang()
        }
        Role::Endless => {
            let mut stream = accept_one(&listen)?;
            let mut pattern = Pattern::new(WRITTEN_SEED);
            let mut bytes = vec![0; 4096];
            say(HANGS)?;
            loop {
                pattern.fill(&mut bytes);
                stream.write_all(&bytes)?;
            }
        }
    }
}

/// Serves a connection by a thread of its own.
fn sum_up(stream: fourwave::TcpStream) {
    thread::spawn(move || receive(&stream)?.tell(&stream));
}

/// Listens, says so, and takes one connection. The listener goes when it has come.
fn accept_one(listen: &[SocketAddr]) -> io::Result<fourwave::TcpStream> {
    let listener = fourwave::TcpListener::bind(listen)?;
    say(server::READY)?;
    Ok(listener.accept()?.0)
}

/// Says that the test can go on, and waits for its end.
fn hang() -> io::Result<()> {
    say(HANGS)?;
    loop {
        thread::sleep(PATIENCE);
    }
}

pub fn say(line: &str) -> io::Result<()> {
    // Not println!: that is for the test harness's own output.
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
