//! A daemon's life: checks, start, service, and leaving the machine as it was.
//!
//! Order matters. The lock comes first, so that nothing of a live daemon is touched; the program
//! is attached before the sockets that it feeds, and no port is served before a worker is there;
//! clients come last. At the end it goes backwards.

mod checks;
mod datapath;
mod lock;
mod notify;
mod owners;
mod parts;
mod program;
mod sockets;

pub use checks::Unfit;
pub use lock::{Lock, LockError};

use crate::config::{Config, PortRange};
use crate::control::{Control, Door, Links, Parts, WorkerLink};
use crate::metrics::{self, MetricsError};
use crate::netlink::{NetlinkError, Paths, Watcher};
use crate::policy::Policy;
use crate::served::{ClaimError, ServedPorts};
use crate::worker::{self, Common, Setup, WorkerHandle};
use datapath::{Counted, DataPath};
use fourwave_stack::{Keys, Owners};
use fourwave_xdp::{Gate, Queue, QueueError, SteeringError};
use notify::notify;
use program::Program;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::rc::Rc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No interface is configured.
    #[error("no interface: set `interface` in the configuration, or give --interface")]
    NoInterface,
    /// The folder is another daemon's, or cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The machine lacks something.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Routes, addresses and links cannot be read.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The interface has not the queues that are configured.
    #[error("queues: {interface} has {available} queue(s); {wanted} cannot be taken")]
    Queues {
        /// The interface.
        interface: String,
        /// What is configured.
        wanted: String,
        /// What there is.
        available: u32,
    },
    /// Packets of the interface are larger than a frame.
    #[error("the MTU of {interface} is {mtu}; frames hold at most {}: lower it", parts::MAX_MTU)]
    Mtu {
        /// The interface.
        interface: String,
        /// Its MTU.
        mtu: u32,
    },
    /// The XDP program cannot be attached.
    #[error(transparent)]
    Steering(#[from] SteeringError),
    /// A queue cannot be opened.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The ports of outgoing connections cannot be kept.
    #[error("local_ports: {0}")]
    LocalPorts(#[from] ClaimError),
    /// The metrics endpoint cannot be opened.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The control socket cannot be opened.
    #[error("cannot open the control socket in {0}: {1}")]
    Door(std::path::PathBuf, io::Error),
    /// The workers cannot be started.
    #[error("cannot start the workers: {0}")]
    Workers(io::Error),
    /// The process lacks something that every process has.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

/// Runs a daemon until it is told to stop by SIGTERM, SIGINT or SIGHUP.
///
/// # Errors
/// Any of [`StartError`]; the machine is then as it was.
pub fn run(config: &Config) -> Result<(), StartError> {
    let interface = config.interface.as_deref().ok_or(StartError::NoInterface)?;
    let lock = Lock::acquire(&config.runtime_dir)?;
    check_machine(config)?;
    checks::raise_limits();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::System("cannot make a runtime", error))?;
    let local = LocalSet::new();
    let workers = local.block_on(&runtime, async {
        let mut stop = Stop::new()?;
        let daemon = tokio::select! {
            daemon = start(config, interface, &lock) => daemon?,
            () = stop.wait() => return Ok(Vec::new()),
        };
        Ok::<_, StartError>(daemon.serve(config, &mut stop).await)
    })?;
    // With the tasks go the last shares in the workers' handles.
    drop((local, runtime));
    for worker in workers {
        if let Ok(worker) = Rc::try_unwrap(worker) {
            worker.join();
        }
    }
    tracing::info!("stopped: the machine is as it was");
    Ok(())
}

/// Removes what a crashed daemon has left.
///
/// # Errors
/// When a live daemon holds the instance, or something cannot be removed.
pub fn release(config: &Config) -> Result<(), StartError> {
    let interface = config.interface.as_deref().ok_or(StartError::NoInterface)?;
    let lock = Lock::acquire(&config.runtime_dir)?;
    let instance = parts::instance(&config.runtime_dir);
    let released = fourwave_xdp::release(&config.bpffs, &instance, interface)?;
    let socket = lock.socket_path();
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(StartError::Door(config.runtime_dir.clone(), error));
        }
        Ok(()) | Err(_) => {}
    }
    tracing::info!(program = released.program, pins = released.pins, "released {interface}");
    Ok(())
}

/// What can be said before anything is changed.
fn check_machine(config: &Config) -> Result<(), StartError> {
    checks::kernel(&rustix::system::uname().release().to_string_lossy())?;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    checks::privileges(&read("/proc/self/status"))?;
    let kernel = read("/proc/sys/net/ipv4/ip_local_port_range");
    checks::local_ports(&config.local_ports, &kernel)?;
    Ok(())
}

/// A daemon that runs.
struct Daemon {
    program: Program,
    workers: Vec<Rc<WorkerHandle>>,
    control: Rc<Control>,
    door: Door,
}

async fn start(config: &Config, interface: &str, lock: &Lock) -> Result<Daemon, StartError> {
    let (watcher, paths) = Watcher::start(interface).await?;
    let no_interface = || NetlinkError::NoInterface(interface.to_owned());
    let link = watcher.link().ok_or_else(no_interface)?.clone();
    tokio::task::spawn_local(watcher.run());
    let (queues, available) = datapath::queues(config, &link)?;
    let cpus = checks::cpus(&config.cpus, queues.len(), &checks::allowed_cpus())?;
    if let Some(address) = config.metrics_address {
        metrics::serve(address)?;
    }

    let DataPath { program, sockets, queues: opened } =
        DataPath::open(config, &link, &queues, available)?;
    let counted = Rc::new(Counted { program: program.clone(), sockets });

    let addresses = paths.tables.borrow().addresses().iter().copied().map(IpAddr::from).collect();
    let workers = queues.len() as u32;
    let mut ports = ServedPorts::new(Box::new(program.clone()), workers, addresses);
    let local_ports = reserve(&mut ports, &config.local_ports)?;
    let owners = owners::owners(interface, &queues);
    let workers = spawn(config, &paths, opened, owners, &cpus, &local_ports)?;

    let links: Links = Rc::new(
        workers.iter().map(|worker| Box::new(Rc::clone(worker)) as Box<dyn WorkerLink>).collect(),
    );
    let counters = Rc::clone(&counted);
    let control = Control::new(Parts {
        links: Rc::clone(&links),
        queues: queues.iter().map(|queue| format!("{interface}/{queue}")).collect(),
        policy: Policy::new(config.clients.clone(), checks::unprivileged_from()),
        ports,
        somaxconn: config.tcp.somaxconn,
        window: parts::buffer(config.tcp.rmem),
        tcp: parts::tcp(config),
        paths,
        counters: Box::new(move |totals| counters.add_to(totals)),
        settings: config.to_toml(),
    });
    let reactor = |error| StartError::System("cannot watch the workers", error);
    control.start().map_err(reactor)?;
    if config.metrics_address.is_some() {
        tokio::task::spawn_local(publish_metrics(Rc::clone(&control), links, counted));
    }
    let folder = || config.runtime_dir.clone();
    let door =
        Door::open(&lock.socket_path()).map_err(|error| StartError::Door(folder(), error))?;
    tracing::info!(interface, ?queues, ?cpus, "ready");
    notify("READY=1");
    Ok(Daemon { program, workers, control, door })
}

/// Keeps the ports of outgoing connections; returns the longest run of those that can be had.
fn reserve(ports: &mut ServedPorts, range: &PortRange) -> Result<RangeInclusive<u16>, StartError> {
    let kept = parts::longest_run(&ports.reserve(range)?);
    let (wanted, have) = (range.iter().count(), kept.len());
    if have < wanted {
        tracing::warn!(wanted, have, ?kept, "some of local_ports are in use by the kernel");
    }
    Ok(kept)
}

fn spawn(
    config: &Config,
    paths: &Paths,
    queues: Vec<(Queue, Gate)>,
    owners: Owners,
    cpus: &[Option<usize>],
    local_ports: &RangeInclusive<u16>,
) -> Result<Vec<Rc<WorkerHandle>>, StartError> {
    let workers = queues.len() as u32;
    let frame_bytes = queues.iter().map(|(queue, _)| queue.tx.capacity()).max().unwrap_or(0);
    let setups = queues.into_iter().zip(cpus).map(|((queue, gate), cpu)| Setup {
        cpu: *cpu,
        queue,
        gate,
        stack: parts::stack(config, workers, local_ports.clone()),
    });
    let common = Common {
        keys: Keys::generate(random),
        owners,
        polling: parts::polling(config),
        scheduling: parts::scheduling(config),
        paths: paths.tables.borrow().clone(),
        frame_bytes,
    };
    let spawned = worker::spawn(setups.collect(), &common).map_err(StartError::Workers)?;
    Ok(spawned.into_iter().map(Rc::new).collect())
}

/// A number that nobody can guess.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let flags = rustix::rand::GetRandomFlags::empty();
    // Up to 256 bytes are given at once, and never refused, once the kernel has started
    // (getrandom(2)).
    let length = rustix::rand::getrandom(&mut bytes, flags);
    assert_eq!(length, Ok(bytes.len()), "the kernel gives random numbers");
    u64::from_ne_bytes(bytes)
}

async fn publish_metrics(control: Rc<Control>, links: Links, counted: Rc<Counted>) {
    metrics::describe(&links);
    let mut ticks = tokio::time::interval(metrics::INTERVAL);
    loop {
        ticks.tick().await;
        let (steering, sockets) = (counted.program.stats(), counted.sockets.read());
        let (listeners, denials) = (control.listener_gauges(), control.denials());
        metrics::publish(&links, &listeners, &denials, steering.as_ref(), &sockets);
    }
}

impl Daemon {
    /// Serves until told to stop, drains, and takes everything back. The workers' threads then
    /// end by themselves.
    async fn serve(self, config: &Config, stop: &mut Stop) -> Vec<Rc<WorkerHandle>> {
        let Daemon { program, workers, control, door } = self;
        tokio::select! {
            () = control.accept(&door) => {}
            () = stop.wait() => {}
        }
        notify("STOPPING=1");
        drop(door);
        if !config.drain_timeout.is_zero() {
            tracing::info!(timeout = ?config.drain_timeout, "waiting for connections to end");
            tokio::select! {
                () = control.drain() => {}
                () = tokio::time::sleep(config.drain_timeout) => {
                    tracing::info!("some have not ended in time and are reset");
                }
                () = stop.wait() => tracing::info!("told again to stop: connections are reset"),
            }
        }
        // The program goes before the sockets that it feeds.
        program.detach();
        control.stop().await;
        workers
    }
}

/// The signals that end a daemon.
struct Stop([Signal; 3]);

impl Stop {
    fn new() -> Result<Stop, StartError> {
        let listen = |kind| {
            signal(kind).map_err(|error| StartError::System("cannot listen to signals", error))
        };
        Ok(Stop([
            listen(SignalKind::terminate())?,
            listen(SignalKind::interrupt())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn wait(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
