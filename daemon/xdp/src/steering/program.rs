//! The program and its maps, loaded but not attached.

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::Arc;

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};
use fourwave_ebpf_common::{Config, LAYOUT, PortKey, SERVED, Verdict, map_names};

use super::error::{SteeringError, map_cause};
use super::gate::{Gate, Mapping};
use crate::sys;

/// Name of the program, in the object and in the kernel.
pub(super) const PROGRAM_NAME: &str = "fourwave";

/// A compiled XDP program.
#[derive(Clone, Debug)]
pub struct Object(Cow<'static, [u8]>);

impl Object {
    /// The one that was committed with this source.
    #[must_use]
    pub fn embedded() -> Self {
        Self(Cow::Borrowed(aya::include_bytes_aligned!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../ebpf/fourwave.bpf.o"
        ))))
    }

    /// Another one, such as a fresh build to be tested.
    ///
    /// # Errors
    /// Those of reading the file; what is in it is only seen when it is loaded.
    pub fn from_file(path: &Path) -> io::Result<Self> {
        Ok(Self(Cow::Owned(std::fs::read(path)?)))
    }
}

/// Sizes of the program's maps, fixed while it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramLimits {
    /// NIC queues that can have a socket.
    pub queues: u32,
    /// Pairs of address and port that can be served. The kernel allocates entries as they come.
    pub ports: u32,
}

impl Default for ProgramLimits {
    fn default() -> Self {
        Self { queues: 64, ports: 262_144 }
    }
}

/// The XDP program and its maps in the kernel.
#[derive(Debug)]
pub struct Program {
    ebpf: Ebpf,
    limits: ProgramLimits,
    admission: Arc<Mapping>,
}

/// How often the verifier is asked when it is interrupted; libbpf does it as often.
const VERIFY_ATTEMPTS: u32 = 5;

fn was_interrupted(error: &ProgramError) -> bool {
    match error {
        ProgramError::LoadError { io_error, .. } => io_error.kind() == io::ErrorKind::WouldBlock,
        _ => false,
    }
}

type Ports<'a> = HashMap<&'a mut MapData, [u8; PortKey::SIZE], u32>;

impl Program {
    /// Loads `object` into the kernel, where nothing runs it yet.
    ///
    /// `icmp_errors`: whether ICMP errors about served flows are steered.
    ///
    /// # Errors
    /// [`SteeringError::NoPrivilege`], [`SteeringError::BadObject`], or what the kernel's
    /// verifier says.
    pub fn load(
        object: &Object,
        limits: ProgramLimits,
        icmp_errors: bool,
    ) -> Result<Self, SteeringError> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(map_names::XSKS, limits.queues.max(1))
            .map_max_entries(map_names::ADMISSION, limits.queues.max(1))
            .map_max_entries(map_names::PORTS, limits.ports.max(1))
            .load(&object.0)
            .map_err(|error| SteeringError::bpf("load the XDP program's maps", error))?;
        let mut config: Array<_, [u8; Config::SIZE]> = map_mut(&mut ebpf, map_names::CONFIG)?;
        let entry =
            Config { layout: LAYOUT, flags: if icmp_errors { Config::ICMP_ERRORS } else { 0 } };
        config
            .set(0, entry.to_bytes(), 0)
            .map_err(|error| SteeringError::bpf("configure the XDP program", error))?;
        let admission = admission(&ebpf, limits.queues.max(1))?;
        let mut program = Self { ebpf, limits, admission: Arc::new(admission) };
        program.verify()?;
        Ok(program)
    }

    /// Lets the kernel's verifier look at the program. A signal to this thread makes the verifier
    /// give up with `EAGAIN`, which says nothing about the program: it is asked again.
    fn verify(&mut self) -> Result<(), SteeringError> {
        for attempt in 1.. {
            match self.xdp()?.load() {
                Ok(()) => break,
                Err(error) if attempt < VERIFY_ATTEMPTS && was_interrupted(&error) => {}
                Err(error) => return Err(SteeringError::bpf("load the XDP program", error)),
            }
        }
        Ok(())
    }

    /// Steers TCP for this local address and port to the sockets; again is no error.
    ///
    /// `0.0.0.0` stands for every IPv4 destination and `::` for every IPv6 one (not for both),
    /// also those that are not this machine's, as it can see when it routes or listens in
    /// promiscuous mode.
    ///
    /// # Errors
    /// [`SteeringError::TooManyPorts`].
    pub fn serve(&mut self, addr: IpAddr, port: u16) -> Result<(), SteeringError> {
        let limit = self.limits.ports;
        let key = key(addr, port).to_bytes();
        let inserted = self.ports()?.insert(key, SERVED, 0);
        inserted.map_err(|error| match map_cause(&error).and_then(io::Error::raw_os_error) {
            Some(libc::E2BIG | libc::ENOSPC) => SteeringError::TooManyPorts { limit },
            _ => SteeringError::bpf("serve a port", error),
        })
    }

    /// Leaves this local address and port to the kernel again; no error if it already was.
    ///
    /// # Errors
    /// Only what should not happen.
    pub fn unserve(&mut self, addr: IpAddr, port: u16) -> Result<(), SteeringError> {
        absent_is_fine(self.ports()?.remove(&key(addr, port).to_bytes()))
            .map_err(|error| SteeringError::bpf("stop serving a port", error))
    }

    /// Makes `socket` the one that gets the steered frames of NIC queue `queue`.
    ///
    /// # Errors
    /// [`SteeringError::NoSuchQueue`]; the kernel's `EINVAL` when it is no AF_XDP socket.
    pub fn set_xsk(&mut self, queue: u32, socket: impl AsFd) -> Result<(), SteeringError> {
        self.xsks(queue)?
            .set(queue, socket.as_fd().as_raw_fd(), 0)
            .map_err(|error| SteeringError::bpf("steer a queue to its socket", error))
    }

    /// Takes the socket of NIC queue `queue` away: its steered frames are dropped and counted.
    ///
    /// # Errors
    /// [`SteeringError::NoSuchQueue`].
    pub fn clear_xsk(&mut self, queue: u32) -> Result<(), SteeringError> {
        absent_is_fine(self.xsks(queue)?.unset(queue))
            .map_err(|error| SteeringError::bpf("take a queue's socket away", error))
    }

    /// Lets `most` SYNs at a time wait for the worker of NIC queue `queue`, who has the gate; more
    /// are dropped and counted ([`Verdict::DropSyn`]). 0, as it is before: any number.
    ///
    /// # Errors
    /// [`SteeringError::NoSuchQueue`].
    pub fn gate(&mut self, queue: u32, most: u32) -> Result<Gate, SteeringError> {
        // Both maps have as many places.
        self.xsks(queue)?;
        Ok(Gate::new(Arc::clone(&self.admission), queue, most))
    }

    /// Frames by verdict since the program was loaded, over all CPUs.
    ///
    /// # Errors
    /// Only what should not happen.
    pub fn stats(&self) -> Result<SteeringStats, SteeringError> {
        let stats: PerCpuArray<_, u64> = map(&self.ebpf, map_names::STATS)?;
        let mut totals = [0; Verdict::ALL.len()];
        for (total, verdict) in totals.iter_mut().zip(Verdict::ALL) {
            let per_cpu = stats
                .get(&verdict.index(), 0)
                .map_err(|error| SteeringError::bpf("read the XDP program's counters", error))?;
            *total = per_cpu.iter().sum();
        }
        Ok(SteeringStats(totals))
    }

    /// Runs the program once on `frame`, from its Ethernet header on, as if queue 0 had received
    /// it, and counts it. Returns the XDP action (1 drop, 2 pass, 4 redirect); no frame moves.
    ///
    /// # Errors
    /// `EINVAL` when the frame is shorter than an Ethernet header or longer than a page allows.
    pub fn test(&self, frame: &[u8]) -> io::Result<u32> {
        let program = self.ebpf.program(PROGRAM_NAME).ok_or(io::ErrorKind::NotFound)?;
        let program = program.fd().map_err(io::Error::other)?;
        sys::bpf_test_run(program.as_fd(), frame)
    }

    /// The program, to attach it.
    pub(super) fn xdp(&mut self) -> Result<&mut Xdp, SteeringError> {
        let program = self.ebpf.program_mut(PROGRAM_NAME);
        program.and_then(|program| program.try_into().ok()).ok_or_else(|| {
            SteeringError::BadObject { reason: format!("it has no XDP program {PROGRAM_NAME:?}") }
        })
    }

    /// The maps, by name, to pin them.
    pub(super) fn maps(&self) -> impl Iterator<Item = (&str, &Map)> {
        self.ebpf.maps()
    }

    fn ports(&mut self) -> Result<Ports<'_>, SteeringError> {
        map_mut(&mut self.ebpf, map_names::PORTS)
    }

    /// The sockets' map, if it has a place for this queue.
    fn xsks(&mut self, queue: u32) -> Result<XskMap<&mut MapData>, SteeringError> {
        let xsks: XskMap<_> = map_mut(&mut self.ebpf, map_names::XSKS)?;
        let queues = xsks.len();
        if queue < queues { Ok(xsks) } else { Err(SteeringError::NoSuchQueue { queue, queues }) }
    }
}

/// Frames by verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteeringStats([u64; Verdict::ALL.len()]);

impl SteeringStats {
    /// Frames with this verdict.
    #[must_use]
    pub fn get(&self, verdict: Verdict) -> u64 {
        self.0[verdict.index() as usize]
    }

    /// All verdicts with their number of frames.
    pub fn iter(&self) -> impl Iterator<Item = (Verdict, u64)> {
        Verdict::ALL.into_iter().zip(self.0)
    }
}

/// The memory of the map `ADMISSION`.
fn admission(ebpf: &Ebpf, entries: u32) -> Result<Mapping, SteeringError> {
    match ebpf.map(map_names::ADMISSION) {
        Some(Map::Array(data)) => Mapping::new(data.fd().as_fd(), entries)
            .map_err(|error| SteeringError::os("map the XDP program's admission", error)),
        _ => Err(missing(map_names::ADMISSION)),
    }
}

fn key(addr: IpAddr, port: u16) -> PortKey {
    match addr {
        IpAddr::V4(addr) => PortKey::v4(addr.octets(), port),
        IpAddr::V6(addr) => PortKey::new(addr.octets(), port),
    }
}

/// A map of the object, as the type that it has to be.
fn map<'a, T: TryFrom<&'a Map, Error = MapError>>(
    ebpf: &'a Ebpf,
    name: &'static str,
) -> Result<T, SteeringError> {
    let map = ebpf.map(name).ok_or_else(|| missing(name))?;
    T::try_from(map).map_err(|error| of_another_type(name, &error))
}

/// As [`map`], to be changed.
fn map_mut<'a, T: TryFrom<&'a mut Map, Error = MapError>>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<T, SteeringError> {
    let map = ebpf.map_mut(name).ok_or_else(|| missing(name))?;
    T::try_from(map).map_err(|error| of_another_type(name, &error))
}

fn missing(name: &str) -> SteeringError {
    SteeringError::BadObject { reason: format!("it has no map {name}") }
}

fn of_another_type(name: &str, error: &MapError) -> SteeringError {
    SteeringError::BadObject { reason: format!("its map {name} has another type: {error}") }
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(error) if map_cause(&error).and_then(io::Error::raw_os_error) == Some(libc::ENOENT) => {
            Ok(())
        }
        other => other,
    }
}
