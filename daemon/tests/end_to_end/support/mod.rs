//! What the tests have in common: a lab with a daemon, and bounds on waiting.

pub mod bpf;
pub mod bytes;
pub mod carrier;
pub mod icmp;
pub mod kernel;
pub mod roles;
pub mod sniff;
mod stats;

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use fourwave::{Runtime, SocketOptions};
use fourwave_bench::lab::{DaemonOptions, Lab, LabConfig, LabError, ProcessRef, Side};

use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Pid, Signal, kill_process};
pub use stats::Stats;

/// Whatever takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long a daemon may take to stop: its drain, then the resets.
pub const STOP_GRACE: Duration = Duration::from_secs(15);

/// Both address families: IPv4, then IPv6.
pub const FAMILIES: [bool; 2] = [false, true];

/// The daemon's settings where a test says nothing else, in TOML. Its tables are as small as the
/// tests allow: each daemon reserves them when it starts.
///
/// Nothing outlives a listener where a test is not about that: ports refuse at once.
const SETTINGS: [(&str, &str); 7] = [
    ("drain_timeout", "\"1s\""),
    ("limits.connections", "16384"),
    ("limits.syn", "8192"),
    ("clients.connections", "16384"),
    ("clients.bytes", "\"128MiB\""),
    ("clients.accept_grace", "\"0s\""),
    ("tcp.max_tw_buckets", "262144"),
];

/// Whether `FOURWAVE_SOAK` asks for the larger scale.
pub fn soaking() -> bool {
    std::env::var_os("FOURWAVE_SOAK").is_some_and(|value| value != "0")
}

/// Two namespaces with a daemon in the server's, for one test. Dropping it removes everything.
pub struct Bed {
    lab: Lab,
    /// Which end has the daemon.
    side: Side,
    /// The daemon's settings besides those that follow from the lab, in TOML.
    settings: BTreeMap<String, String>,
    /// Held while this exists: the machine bears one lab at a time. Dropped last.
    _turn: File,
}

impl Bed {
    /// A lab whose names begin with `fwe-NAME-`, with a running daemon. `None`, said on stderr,
    /// without the privilege for it.
    pub fn new(name: &str) -> Option<Bed> {
        Bed::with(name, |lab| lab, &[])
    }

    /// As [`Bed::new`], with changes to the lab and to the daemon's settings.
    pub fn with(
        name: &str,
        change: impl FnOnce(LabConfig) -> LabConfig,
        settings: &[(&str, &str)],
    ) -> Option<Bed> {
        let mut bed = Bed::without_daemon(name, change, settings)?;
        bed.start_daemon();
        Some(bed)
    }

    /// As [`Bed::with`], without starting the daemon.
    pub fn without_daemon(
        name: &str,
        change: impl FnOnce(LabConfig) -> LabConfig,
        settings: &[(&str, &str)],
    ) -> Option<Bed> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI has to run these tests as root");
            // Not eprintln!, which the test harness keeps to itself.
            let _ = writeln!(io::stderr(), "skipped: needs root");
            return None;
        }
        let turn = take_turn().expect("a lock file can be made");
        let config = change(LabConfig::private(&format!("fwe-{name}-")));
        let lab = Lab::up(config).unwrap_or_else(|error| panic!("{error}"));
        let log = std::env::var("FOURWAVE_TEST_LOG").ok().map(|filter| format!("{filter:?}"));
        let log = log.as_ref().map(|filter| ("log", filter.as_str()));
        let all = SETTINGS.iter().copied().chain(log).chain(settings.iter().copied());
        let settings = all.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Some(Bed { lab, side: Side::Server, settings, _turn: turn })
    }

    /// Puts the daemon that is started next at this end.
    pub fn move_daemon(&mut self, side: Side) {
        self.side = side;
    }

    /// Starts the daemon, which must be ready in time.
    pub fn start_daemon(&mut self) -> ProcessRef {
        self.try_start_daemon().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts the daemon.
    pub fn try_start_daemon(&mut self) -> Result<ProcessRef, LabError> {
        let options = DaemonOptions { keys: self.settings.clone(), ..DaemonOptions::default() };
        let config = self.lab.daemon_config(self.side, &options);
        self.lab.start_daemon(self.side, &config)
    }

    /// Stops the daemon with SIGTERM.
    pub fn stop_daemon(&mut self) {
        self.lab.stop(&self.daemon_role(), STOP_GRACE).unwrap_or_else(|error| panic!("{error}"));
    }

    /// What the daemon has logged.
    pub fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.daemon_log_path()).expect("the daemon has a log")
    }

    fn daemon_log_path(&self) -> PathBuf {
        self.lab.folder().join(format!("{}.log", self.daemon_role()))
    }

    fn daemon_role(&self) -> String {
        format!("fourwaved-{}", self.side.name())
    }

    /// An application group of its own at the daemon. It works from every namespace.
    pub fn runtime(&self) -> Runtime {
        Runtime::connect(self.lab.control_socket(self.side)).expect("the daemon takes clients")
    }

    /// What the daemon counts, as its workers published it a moment ago: wait for what is to come.
    /// The connection that asks is a client too, until this returns.
    pub fn stats(&self) -> Stats {
        Stats::parse(&self.runtime().stats().expect("the daemon gives its counters"))
    }

    /// As [`Bed::stats`], from one client for all looks.
    pub fn looks(&self) -> impl Fn() -> Stats {
        let runtime = self.runtime();
        move || Stats::parse(&runtime.stats().expect("the daemon gives its counters"))
    }

    /// Waits until no handshake and no connection is left (those in TIME_WAIT aside), and no
    /// client but the one that asks.
    pub fn wait_until_empty(&self) {
        let names = ["connections", "syn_received", "groups"];
        let look = self.looks();
        let left = || {
            let stats = look();
            names.map(|name| stats.get(name))
        };
        eventually_is("connections, handshakes and clients go", &[0, 0, 1], left);
        self.lab.check_programs().unwrap_or_else(|error| panic!("{error}"));
    }

    /// As [`Bed::wait_until_empty`], where listeners of clients that are gone are kept yet.
    pub fn wait_until_idle(&self) {
        let left = || {
            let stats = self.stats();
            ["connections", "syn_received"].map(|name| stats.get(name))
        };
        eventually_is("connections and handshakes go", &[0, 0], left);
        self.lab.check_programs().unwrap_or_else(|error| panic!("{error}"));
    }

    /// A socket address of the server.
    pub fn server_address(&self, v6: bool, port: u16) -> SocketAddr {
        SocketAddr::new(if v6 { self.lab.server().v6() } else { self.lab.server().v4() }, port)
    }

    /// A socket address of the client.
    pub fn client_address(&self, v6: bool, port: u16) -> SocketAddr {
        SocketAddr::new(if v6 { self.lab.client().v6() } else { self.lab.client().v4() }, port)
    }

    /// A fourwave listener.
    pub fn listen(&self, runtime: &Runtime, address: SocketAddr) -> fourwave::TcpListener {
        let options = SocketOptions::new().runtime(runtime);
        options.bind(address).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// A kernel connection from the client's namespace; its calls give up after [`PATIENCE`].
    pub fn kernel_connect(&self, to: SocketAddr) -> std::net::TcpStream {
        self.try_kernel_connect(to).unwrap_or_else(|error| panic!("{to}: {error}"))
    }

    /// As [`Bed::kernel_connect`], so many, to a listener where none waits yet. Each is in the
    /// accept queue before the next begins: to the kernel a connection is there before that, when
    /// it has a place in the SYN queue.
    pub fn fill_accept_queue(&self, to: SocketAddr, count: u64) -> Vec<std::net::TcpStream> {
        let connect = |number| {
            let stream = self.kernel_connect(to);
            eventually_is("connections wait", &number, || self.accept_queue(to));
            stream
        };
        (1..=count).map(connect).collect()
    }

    /// How many connections wait at a listener.
    pub fn accept_queue(&self, listener: SocketAddr) -> u64 {
        self.stats().get(&format!("accept_queue{{listener=\"{listener}\"}}"))
    }

    /// As [`Bed::kernel_connect`].
    pub fn try_kernel_connect(&self, to: SocketAddr) -> io::Result<std::net::TcpStream> {
        let connect = || std::net::TcpStream::connect_timeout(&to, PATIENCE);
        let stream = self.lab.client().run(connect).expect("the namespace can be entered")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// As [`Bed::kernel_connect`], from an address and port of the client.
    pub fn try_kernel_connect_from(
        &self,
        from: SocketAddr,
        to: SocketAddr,
    ) -> io::Result<std::net::TcpStream> {
        let connect = || kernel_connect_from(from, to);
        self.lab.client().run(connect).expect("the namespace can be entered")
    }

    /// A kernel listener in the client's namespace.
    pub fn kernel_listen(&self, address: SocketAddr) -> std::net::TcpListener {
        let bind = || std::net::TcpListener::bind(address);
        let listener = self.lab.client().run(bind).expect("the namespace can be entered");
        listener.unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// A connection that the kernel opened to `listener`: fourwave's end, the kernel's end.
    pub fn connected_pair(
        &self,
        listener: &fourwave::TcpListener,
    ) -> (fourwave::TcpStream, std::net::TcpStream) {
        let kernel = self.kernel_connect(listener.local_addr().expect("it is bound"));
        (accept(listener), kernel)
    }

    /// A connection that fourwave opened to a kernel listener: fourwave's end, the kernel's end.
    pub fn opened_pair(
        &self,
        runtime: &Runtime,
        v6: bool,
    ) -> (fourwave::TcpStream, std::net::TcpStream) {
        let listener = self.kernel_listen(self.client_address(v6, 0));
        let stream = connect(runtime, listener.local_addr().expect("it is bound"));
        let (kernel, _) = within("accept", move || listener.accept()).expect("it is connected");
        kernel.set_read_timeout(Some(PATIENCE)).expect("not zero");
        kernel.set_write_timeout(Some(PATIENCE)).expect("not zero");
        (stream, kernel)
    }
}

/// A kernel connection in the namespace of the calling thread, from a given address and port.
pub fn kernel_connect_from(from: SocketAddr, to: SocketAddr) -> io::Result<std::net::TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    // Before connect, which is bounded by the time to send.
    let stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    rustix::net::bind(&stream, &from)?;
    rustix::net::connect(&stream, &to)?;
    Ok(stream)
}

impl Drop for Bed {
    /// Shows what the daemon says about a failure, before its log goes with the lab.
    fn drop(&mut self) {
        if thread::panicking() {
            let log = std::fs::read_to_string(self.daemon_log_path());
            eprintln!("the daemon's log:\n{}", log.unwrap_or_else(|error| error.to_string()));
        }
    }
}

impl Deref for Bed {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl DerefMut for Bed {
    fn deref_mut(&mut self) -> &mut Lab {
        &mut self.lab
    }
}

/// The role in the lab of a daemon that was not moved; it names its log.
pub const DAEMON: &str = "fourwaved-server";

/// The next connection of a fourwave listener; its calls give up after [`PATIENCE`].
pub fn accept(listener: &fourwave::TcpListener) -> fourwave::TcpStream {
    let listener = listener.try_clone().expect("the daemon is there");
    let (stream, _) = within("accept", move || listener.accept()).expect("the daemon is there");
    be_patient(stream)
}

/// A connection from fourwave; its calls give up after [`PATIENCE`].
pub fn connect(runtime: &Runtime, to: SocketAddr) -> fourwave::TcpStream {
    let options = SocketOptions::new().runtime(runtime);
    let stream = options.connect_timeout(&to, PATIENCE);
    be_patient(stream.unwrap_or_else(|error| panic!("{to}: {error}")))
}

/// A kernel connection that the accept queue has no room for: it waits until somebody accepts.
pub fn connect_later(
    bed: &Bed,
    to: SocketAddr,
) -> thread::JoinHandle<io::Result<std::net::TcpStream>> {
    let netns = bed.client().netns().clone();
    thread::spawn(move || {
        let connect = || std::net::TcpStream::connect_timeout(&to, PATIENCE);
        netns.run(connect).expect("it can be entered")
    })
}

fn be_patient(stream: fourwave::TcpStream) -> fourwave::TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
    stream
}

/// Runs `work` on another thread and fails if it takes longer than [`PATIENCE`]. The thread of
/// work that hangs is left behind.
pub fn within<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    let thread = thread::spawn(move || {
        // Nobody waits any more if this fails.
        let _ = done.send(work());
    });
    match result.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("the thread sends its result before it ends"),
        },
    }
}

/// Runs `work` as a user without privileges, on a thread of its own: of the process, only that
/// thread is the user's.
pub fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    let run = || {
        let uid = rustix::process::Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).expect("root may be anybody");
        work()
    };
    match thread::scope(|scope| scope.spawn(run).join()) {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A process that gets no CPU until this is dropped.
pub struct Stopped(Pid);

impl Stopped {
    pub fn new(pid: i32) -> Stopped {
        let pid = Pid::from_raw(pid).expect("a process");
        kill_process(pid, Signal::STOP).expect("it is there");
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Waits until `condition` holds; fails with `what` if it does not in [`PATIENCE`].
pub fn eventually(what: impl Display, mut condition: impl FnMut() -> bool) {
    eventually_is(what, &true, &mut condition);
}

/// Waits until `look` gives `expected`; fails with `what` if it does not in [`PATIENCE`].
pub fn eventually_is<T: PartialEq + Debug>(
    what: impl Display,
    expected: &T,
    mut look: impl FnMut() -> T,
) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = look();
        if seen == *expected {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {seen:?} does not become {expected:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for the lock that tests of all processes share; closing the file gives it back.
fn take_turn() -> io::Result<File> {
    let path = std::env::temp_dir().join("fourwave-end-to-end.lock");
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    file.lock()?;
    Ok(file)
}
