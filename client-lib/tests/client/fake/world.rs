//! All that the daemon knows: one client's segment, lanes, listeners and connections.

use super::connection::{Closed, Connection};
use super::{CLOSED_PORT, LAST_WORKER_PORT, NO_ROUTE_PORT, SILENT_PORT};
use fourwave_protocol::accept::{AcceptProducer, Waiting};
use fourwave_protocol::command::{Command, Event, encode_grant};
use fourwave_protocol::conn::status;
use fourwave_protocol::option::ConnOption;
use fourwave_protocol::report::{ConnInfo, Report};
use fourwave_protocol::ring::{Consumer, Producer};
use fourwave_protocol::wake::publish_fence;
use fourwave_protocol::{ExtentId, Handle, Params, Process, Segment};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// By `ConnOption::index`.
pub(crate) type Options = [u32; ConnOption::ALL.len()];

pub(crate) struct World {
    params: Params,
    segment: Option<Arc<Segment>>,
    lanes: BTreeMap<u16, Lane>,
    listeners: Vec<Option<Listener>>,
    connections: Vec<Connection>,
    /// Numbers that are not open, by worker.
    unused: Vec<BTreeSet<u32>>,
    /// By worker.
    free: Vec<Vec<ExtentId>>,
    granted: HashSet<ExtentId>,
    closed: HashMap<(u32, u32), Closed>,
    /// The processes that were forked.
    forks: u32,
    /// Connections that each process holds.
    holds: HashMap<Process, HashSet<u32>>,
    clock: u64,
    /// Bytes written to doorbells of clients.
    pub(crate) rings: u64,
    /// Whether lanes are given extents.
    pub(crate) granting: bool,
}

struct Lane {
    process: Process,
    workers: Vec<LaneWorker>,
    /// Something was posted since it was last rung.
    touched: bool,
}

struct LaneWorker {
    doorbell: Arc<OwnedFd>,
    commands: Consumer,
    events: Producer,
    grants: Producer,
    wants: bool,
    presets: Options,
}

struct Listener {
    address: SocketAddr,
    backlog: Option<u32>,
    options: Options,
    queues: Vec<AcceptProducer>,
    /// Indices of the connections in the queues.
    waiting: Vec<VecDeque<u32>>,
    holders: HashSet<Process>,
    pushed: u32,
    woken: u16,
}

impl World {
    pub(crate) fn new(params: Params) -> World {
        World {
            params,
            segment: None,
            lanes: BTreeMap::new(),
            listeners: Vec::new(),
            connections: Vec::new(),
            unused: Vec::new(),
            free: Vec::new(),
            granted: HashSet::new(),
            closed: HashMap::new(),
            forks: 0,
            holds: HashMap::new(),
            clock: 0,
            rings: 0,
            granting: true,
        }
    }

    pub(crate) fn params(&self) -> Params {
        self.params
    }

    fn segment(&self) -> Arc<Segment> {
        Arc::clone(self.segment.as_ref().expect("a client"))
    }
}

/// What the control socket asks for.
impl World {
    pub(crate) fn welcome(&mut self) -> OwnedFd {
        let (segment, memory) = Segment::create("fake", self.params).unwrap();
        let p = self.params;
        self.connections = (0..p.workers * p.connections).map(|_| Connection::default()).collect();
        let numbers = |w| (w * p.connections..(w + 1) * p.connections).collect();
        self.unused = (0..p.workers).map(numbers).collect();
        let extents = |w| (w * p.extents..(w + 1) * p.extents).map(ExtentId::from_index).collect();
        self.free = (0..p.workers).map(extents).collect();
        self.listeners = (0..p.listeners).map(|_| None).collect();
        self.segment = Some(Arc::new(segment));
        self.holds = HashMap::from([(Process::FIRST, HashSet::new())]);
        memory
    }

    pub(crate) fn forget_client(&mut self) {
        self.segment = None;
        self.lanes.clear();
        self.listeners.clear();
    }

    pub(crate) fn attach(&mut self, process: Process) -> Option<(u16, Vec<OwnedFd>)> {
        let lane = (0..self.params.lanes as u16).find(|lane| !self.lanes.contains_key(lane))?;
        let mut theirs = Vec::new();
        let workers = (0..self.params.workers).map(|_| {
            let flags = SocketFlags::CLOEXEC;
            let (ours, other) =
                socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
            theirs.push(other);
            LaneWorker {
                doorbell: Arc::new(ours),
                commands: Consumer::new(),
                events: Producer::new(),
                grants: Producer::new(),
                wants: false,
                presets: Options::default(),
            }
        });
        let workers = workers.collect();
        self.lanes.insert(lane, Lane { process, workers, touched: false });
        self.refill();
        Some((lane, theirs))
    }

    pub(crate) fn detach(&mut self, lane: u16) {
        // What it posted last is still done.
        self.turn();
        self.lanes.remove(&lane);
        for worker in 0..self.params.workers {
            self.segment().clear_rings(lane, worker).unwrap();
        }
    }

    pub(crate) fn bind(
        &mut self,
        address: SocketAddr,
        process: Process,
    ) -> Option<(u32, SocketAddr)> {
        let taken =
            |port| self.listeners.iter().flatten().any(|other| other.address.port() == port);
        let port = match address.port() {
            0 => (40_000..).find(|&port| !taken(port))?,
            port if taken(port) => return None,
            port => port,
        };
        let index = self.listeners.iter().position(Option::is_none)?;
        let address = SocketAddr::new(address.ip(), port);
        let segment = self.segment();
        let queues = (0..self.params.workers)
            .map(|worker| {
                // Its former use has left the indices where they are.
                let ring = segment.accept_ring(index as u32, worker);
                assert_eq!(ring.pushed(), 0, "one use of each listener is enough for tests");
                AcceptProducer::new()
            })
            .collect();
        let listener = Listener {
            address,
            backlog: None,
            options: Options::default(),
            queues,
            waiting: vec![VecDeque::new(); self.params.workers as usize],
            holders: HashSet::from([process]),
            pushed: 0,
            woken: 0,
        };
        self.listeners[index] = Some(listener);
        Some((index as u32, address))
    }

    pub(crate) fn listen(&mut self, listener: u32, backlog: u32) {
        self.listeners[listener as usize].as_mut().unwrap().backlog = Some(backlog);
    }

    pub(crate) fn set_listener_option(&mut self, listener: u32, option: ConnOption, value: u32) {
        let listener = self.listeners[listener as usize].as_mut().unwrap();
        listener.options[option.index()] = value;
    }

    pub(crate) fn listener_options(&self, listener: u32) -> Options {
        self.listeners[listener as usize].as_ref().unwrap().options
    }

    pub(crate) fn close_listener(&mut self, listener: u32, process: Process) {
        // What was accepted until now is known for good.
        self.collect_accepted();
        let own = self.listeners[listener as usize].as_mut().unwrap();
        assert!(own.holders.remove(&process), "closed a listener that it does not hold");
        if own.holders.is_empty() {
            self.listeners[listener as usize] = None;
        }
    }

    /// A process that holds what `parent` holds, when all that this has said is done.
    pub(crate) fn fork(&mut self, parent: Process) -> Process {
        self.turn();
        self.forks += 1;
        let child = Process::first(self.forks as usize);
        let held = self.holds[&parent].clone();
        for &index in &held {
            self.change_holders(index, 1);
        }
        self.holds.insert(child, held);
        for listener in self.listeners.iter_mut().flatten() {
            if listener.holders.contains(&parent) {
                listener.holders.insert(child);
            }
        }
        child
    }

    /// A process is gone, others are not.
    pub(crate) fn forget_process(&mut self, process: Process) {
        self.turn();
        self.lanes.retain(|_, lane| lane.process != process);
        for index in self.holds[&process].clone() {
            self.let_go(process, self.handle(index), false);
        }
        self.holds.remove(&process);
        for listener in &mut self.listeners {
            if let Some(own) = listener
                && own.holders.remove(&process)
                && own.holders.is_empty()
            {
                *listener = None;
            }
        }
    }
}

/// What a test does as the network.
impl World {
    /// The number of the listener on this port, and its backlog.
    pub(crate) fn listener(&self, port: u16) -> Option<(u32, Option<u32>)> {
        let index = self.listeners.iter().position(|listener| {
            listener.as_ref().is_some_and(|listener| listener.address.port() == port)
        })?;
        Some((index as u32, self.listeners[index].as_ref()?.backlog))
    }

    /// A peer has connected to `port`, by way of `worker`, at time `stamp`.
    pub(crate) fn arrive(&mut self, port: u16, worker: u32, stamp: u64) -> Handle {
        let (listener, _) = self.listener(port).expect("somebody listens");
        let local = self.listeners[listener as usize].as_ref().unwrap().address;
        let peer = SocketAddr::new([10, 99, 0, 1].into(), 1024 + (stamp % 60_000) as u16);
        let index = self.open(worker, local, peer, status::CONNECTED).expect("a free connection");
        self.connections[index as usize].options = self.listener_options(listener);
        self.enqueue(listener, worker, index, stamp);
        self.handle(index)
    }

    /// Several of them, one after the other.
    pub(crate) fn arrive_all(&mut self, port: u16, worker: u32, stamps: Range<u64>) {
        for stamp in stamps {
            self.arrive(port, worker, stamp);
        }
    }

    /// The peer sends bytes.
    pub(crate) fn peer_sends(&mut self, handle: Handle, bytes: &[u8]) {
        self.connections[handle.index as usize].inbox.extend(bytes);
        self.pump();
    }

    /// The peers of many connections send the same bytes.
    pub(crate) fn peers_send(&mut self, handles: &[Handle], bytes: &[u8]) {
        for handle in handles {
            self.connections[handle.index as usize].inbox.extend(bytes);
        }
        self.pump();
    }

    /// The peer sends a FIN after its bytes.
    pub(crate) fn peer_closes(&mut self, handle: Handle) {
        self.connections[handle.index as usize].fin = true;
        self.pump();
    }

    /// The connection fails.
    pub(crate) fn fail(&mut self, handle: Handle, errno: Errno) {
        let segment = self.segment();
        let block = segment.connection(handle.index).unwrap();
        block.daemon.error.store(errno.raw_os_error() as u32, Ordering::Relaxed);
        self.connections[handle.index as usize].add_status(block, status::FAILED);
    }

    /// The handshake that a client began is done.
    pub(crate) fn complete(&mut self, handle: Handle) {
        let segment = self.segment();
        let block = segment.connection(handle.index).unwrap();
        self.connections[handle.index as usize].add_status(block, status::CONNECTED);
    }

    /// Whether the peer acknowledges nothing for now.
    pub(crate) fn hold_acks(&mut self, handle: Handle, hold: bool) {
        self.connections[handle.index as usize].hold_acks = hold;
        self.pump();
    }

    /// Asks the client to report every `bytes` bytes that it has read.
    pub(crate) fn report_at(&mut self, handle: Handle, bytes: u32) {
        let segment = self.segment();
        let block = segment.connection(handle.index).unwrap();
        block.daemon.report_at.store(bytes, Ordering::Relaxed);
    }

    /// Lets each direction of a connection buffer up to `window` bytes.
    pub(crate) fn grow(&mut self, handle: Handle, window: u64) {
        let segment = self.segment();
        let block = segment.connection(handle.index).unwrap();
        let connection = &mut self.connections[handle.index as usize];
        connection.window = window;
        connection.changed_write = true;
        // Release: as in Connection::acknowledge().
        block.daemon.send_limit.store(connection.send_limit(), Ordering::Release);
    }

    /// All that the client has sent on a connection whose peer is the test.
    pub(crate) fn sent(&self, handle: Handle) -> Vec<u8> {
        self.connections[handle.index as usize].sent.clone()
    }

    pub(crate) fn is_fin_sent(&self, handle: Handle) -> bool {
        self.connections[handle.index as usize].fin_sent
    }

    pub(crate) fn consumed(&self, handle: Handle) -> u32 {
        self.connections[handle.index as usize].consumed
    }

    /// Extents that a connection holds, both ways.
    pub(crate) fn held(&self, handle: Handle) -> usize {
        let connection = &self.connections[handle.index as usize];
        connection.receive.len() + connection.send.len()
    }

    pub(crate) fn closed(&self, handle: Handle) -> Option<Closed> {
        self.closed.get(&(handle.index, handle.generation)).cloned()
    }

    /// The connection that a client opens and that is not closed.
    pub(crate) fn only_open(&self) -> Option<Handle> {
        let index = self.connections.iter().position(|connection| connection.open)?;
        Some(self.handle(index as u32))
    }

    /// The open connection that was made to this address.
    #[allow(dead_code, reason = "asked for by the tests of descriptors")]
    pub(crate) fn to_peer(&self, peer: SocketAddr) -> Option<Handle> {
        let segment = self.segment();
        let mut open = (0..).zip(&self.connections).filter(|(_, connection)| connection.open);
        let (index, _) = open.find(|(index, _)| {
            segment.connection(*index).is_some_and(|block| block.addresses.peer() == peer)
        })?;
        Some(self.handle(index))
    }

    /// What a connection's option was set to last.
    pub(crate) fn option(&self, handle: Handle, option: ConnOption) -> u32 {
        self.connections[handle.index as usize].options[option.index()]
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.connections.iter().filter(|connection| connection.open).count()
    }

    pub(crate) fn open_by_worker(&self) -> Vec<usize> {
        let workers = self.connections.chunks(self.params.connections as usize);
        workers.map(|own| own.iter().filter(|connection| connection.open).count()).collect()
    }

    pub(crate) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    fn open(&mut self, worker: u32, local: SocketAddr, peer: SocketAddr, bits: u32) -> Option<u32> {
        // The lowest, as the daemon does.
        let index = self.unused[worker as usize].pop_first()?;
        let segment = self.segment();
        let block = segment.connection(index).unwrap();
        let old = &self.connections[index as usize];
        let (generation, event) = (old.generation + 1, old.event);
        let mut fresh = Connection { open: true, generation, event, ..Connection::default() };
        block.reset(generation, local, peer);
        block.daemon.send_limit.store(fresh.send_limit(), Ordering::Relaxed);
        fresh.status = bits;
        block.publish_status(bits);
        self.connections[index as usize] = fresh;
        Some(index)
    }

    fn handle(&self, index: u32) -> Handle {
        Handle { index, generation: self.connections[index as usize].generation }
    }

    fn enqueue(&mut self, listener: u32, worker: u32, index: u32, stamp: u64) {
        // What was taken gives its places back.
        self.collect_accepted();
        let (segment, handle) = (self.segment(), self.handle(index));
        let ring = segment.accept_ring(listener, worker);
        let own = self.listeners[listener as usize].as_mut().unwrap();
        assert!(own.queues[worker as usize].push(&ring, Waiting { handle, stamp }));
        own.waiting[worker as usize].push_back(index);
        own.pushed += 1;
    }

    /// Notes who has accepted what.
    fn collect_accepted(&mut self) {
        let Some(segment) = self.segment.clone() else { return };
        for number in 0..self.listeners.len() {
            for worker in 0..self.params.workers {
                let ring = segment.accept_ring(number as u32, worker);
                while let Some(own) = &mut self.listeners[number]
                    && let Some(process) = own.queues[worker as usize].taken(&ring).unwrap()
                {
                    let index = own.waiting[worker as usize].pop_front().unwrap();
                    self.hold(process, index);
                }
            }
        }
    }

    fn hold(&mut self, process: Process, index: u32) {
        assert!(self.holds.get_mut(&process).expect("a process").insert(index));
        self.change_holders(index, 1);
    }

    fn change_holders(&mut self, index: u32, by: i32) {
        let segment = self.segment();
        let holders = &segment.connection(index).unwrap().daemon.holders;
        let now = holders.load(Ordering::Relaxed).strict_add_signed(by);
        holders.store(now, Ordering::Relaxed);
    }

    /// A process closes a connection.
    fn let_go(&mut self, process: Process, handle: Handle, abort: bool) {
        if !self.is_current(handle) {
            return;
        }
        let held = self.holds.get_mut(&process).unwrap().remove(&handle.index);
        assert!(held, "closed a connection that it does not hold");
        self.change_holders(handle.index, -1);
        if !self.holds.values().any(|held| held.contains(&handle.index)) {
            self.close(handle.index / self.params.connections, handle, abort);
        }
    }

    /// How far the clients have read.
    pub(crate) fn read(&self, handle: Handle) -> u64 {
        self.segment().connection(handle.index).unwrap().receive_head()
    }

    /// Processes that hold a connection.
    pub(crate) fn holders(&self, handle: Handle) -> usize {
        self.holds.values().filter(|held| held.contains(&handle.index)).count()
    }

    pub(crate) fn processes(&self) -> usize {
        self.holds.len()
    }
}

/// What workers do.
impl World {
    /// Does all there is to do; `false` if there was nothing.
    pub(crate) fn turn(&mut self) -> bool {
        let Some(segment) = self.segment.clone() else { return false };
        self.collect_accepted();
        let mut commands = Vec::new();
        for (&number, lane) in &mut self.lanes {
            for (worker, own) in (0..).zip(&mut lane.workers) {
                let ring = segment.command_ring(number, worker);
                while let Some(words) = own.commands.pop(&ring).unwrap() {
                    commands.push((number, worker, Command::decode(words).expect("a command")));
                }
            }
        }
        // What was accepted before it was closed.
        self.collect_accepted();
        for &(lane, worker, command) in &commands {
            self.command(lane, worker, command);
        }
        self.pump();
        self.refill();
        self.deliver();
        !commands.is_empty()
    }

    fn command(&mut self, lane: u16, worker: u32, command: Command) {
        match command {
            Command::Send { handle, tail, last } => self.written(worker, handle, tail, last),
            Command::Consumed { handle } => {
                if self.is_current(handle) {
                    self.connections[handle.index as usize].consumed += 1;
                }
            }
            Command::ShutdownWrite { handle, tail, last } => {
                self.written(worker, handle, tail, last);
                self.pump();
                self.send_fin(handle);
            }
            Command::Close { handle, tail, last, abort } => {
                self.written(worker, handle, tail, last);
                self.pump();
                self.let_go(self.lanes[&lane].process, handle, abort);
            }
            Command::Connect { token, peer } => self.connect(lane, worker, token, peer),
            Command::SetOption { handle, option, value } => {
                if self.is_current(handle) {
                    self.connections[handle.index as usize].options[option.index()] = value;
                }
            }
            Command::Preset { option, value } => {
                let own = &mut self.lanes.get_mut(&lane).unwrap().workers[worker as usize];
                own.presets[option.index()] = value;
            }
            Command::Ask { token, handle } => self.report(lane, worker, token, handle),
            Command::WantGrants => {
                self.lanes.get_mut(&lane).unwrap().workers[worker as usize].wants = true;
            }
        }
    }

    fn is_current(&self, handle: Handle) -> bool {
        let connection = &self.connections[handle.index as usize];
        connection.open && connection.generation == handle.generation
    }

    fn written(&mut self, worker: u32, handle: Handle, tail: u64, last: Option<ExtentId>) {
        assert_eq!(handle.index / self.params.connections, worker, "sent to the wrong worker");
        if self.is_current(handle) {
            let segment = self.segment();
            let granted = &mut self.granted;
            self.connections[handle.index as usize].written(&segment, tail, last, |extent| {
                assert!(granted.remove(&extent), "used an extent that was not granted");
            });
        }
    }

    fn send_fin(&mut self, handle: Handle) {
        if !self.is_current(handle) {
            return;
        }
        let segment = self.segment();
        let block = segment.connection(handle.index).unwrap();
        let connection = &mut self.connections[handle.index as usize];
        connection.add_status(block, status::WRITE_CLOSED);
        connection.fin_sent = true;
    }

    fn close(&mut self, worker: u32, handle: Handle, abort: bool) {
        if !self.is_current(handle) {
            return;
        }
        let connection = &mut self.connections[handle.index as usize];
        let reset = abort || !connection.inbox.is_empty();
        // Whatever back-pressure there was: a closed connection's bytes are on their way.
        let rest = connection.take_sent(self.segment.as_ref().unwrap(), usize::MAX);
        connection.sent.extend(&rest);
        connection.release(&mut self.free[worker as usize]);
        connection.open = false;
        self.unused[worker as usize].insert(handle.index);
        let sent = std::mem::take(&mut connection.sent);
        let partner = connection.partner.take();
        self.closed.insert((handle.index, handle.generation), Closed { abort, sent });
        if let Some(partner) = partner {
            let other = &mut self.connections[partner];
            other.partner = None;
            other.inbox.extend(rest);
            other.fin = true;
            if reset {
                let handle = self.handle(partner as u32);
                self.fail(handle, Errno::CONNRESET);
            }
        }
    }

    fn report(&mut self, lane: u16, worker: u32, token: u32, handle: Handle) {
        assert!(self.is_current(handle), "asked about a connection that is not its own");
        let connection = &self.connections[handle.index as usize];
        let is_live = connection.status & status::FAILED == 0;
        let info = ConnInfo {
            state: 1,
            send_mss: 1448,
            congestion_window: 14_480,
            slow_start_threshold: u64::from(u32::MAX),
            rtt: 12_345_000,
            bytes_acked: connection.send_acked,
            ..ConnInfo::default()
        };
        let info = if is_live { info } else { ConnInfo::default() };
        let report = Report { options: connection.options, is_live, info };
        self.segment().report(lane, worker).store(&report);
        self.post(lane, worker, Event::Reported { token });
    }

    fn connect(&mut self, lane: u16, worker: u32, token: u32, peer: SocketAddr) {
        let is_last = worker + 1 == self.segment().layout().params().workers;
        let is_used_up = peer.port() == LAST_WORKER_PORT && !is_last;
        if peer.port() == NO_ROUTE_PORT || is_used_up {
            let errno = Errno::ADDRNOTAVAIL.raw_os_error() as u32;
            return self.post(lane, worker, Event::Refused { token, errno });
        }
        let local = SocketAddr::new([10, 99, 0, 2].into(), 61_000);
        let index = self.open(worker, local, peer, 0).expect("a free connection");
        let handle = self.handle(index);
        let own = &mut self.lanes.get_mut(&lane).unwrap().workers[worker as usize];
        self.connections[index as usize].options = std::mem::take(&mut own.presets);
        self.hold(self.lanes[&lane].process, index);
        self.post(lane, worker, Event::Opened { token, handle });
        match (peer.port(), self.listener(peer.port())) {
            (SILENT_PORT, _) => {}
            (CLOSED_PORT, _) | (_, None) => self.fail(handle, Errno::CONNREFUSED),
            (_, Some((listener, _))) => {
                self.clock += 1;
                let stamp = self.clock;
                let other = self.open(worker, peer, local, status::CONNECTED).expect("room");
                self.connections[index as usize].partner = Some(other as usize);
                self.connections[other as usize].partner = Some(index as usize);
                self.complete(handle);
                self.enqueue(listener, worker, other, stamp);
            }
        }
    }

    fn post(&mut self, lane: u16, worker: u32, event: Event) {
        let segment = self.segment();
        let target = self.lanes.get_mut(&lane).unwrap();
        target.touched = true;
        let own = &mut target.workers[worker as usize];
        let ring = segment.event_ring(lane, worker);
        assert!(own.events.push(&ring, event.encode()).unwrap(), "an event ring overflowed");
    }

    /// Moves bytes: out of send extents to the peer, and into receive extents, until they rest.
    fn pump(&mut self) {
        if let Some(segment) = self.segment.clone() {
            while self.pump_once(&segment) {}
        }
    }

    fn pump_once(&mut self, segment: &Segment) -> bool {
        let mut moved = false;
        for index in 0..self.connections.len() {
            if !self.connections[index].open {
                continue;
            }
            let worker = index / self.params.connections as usize;
            let block = segment.connection(index as u32).unwrap();
            let partner = self.connections[index].partner;
            let room = match partner {
                Some(other) => {
                    let other = &self.connections[other];
                    (other.window as usize).saturating_sub(other.inbox.len())
                }
                None => usize::MAX,
            };
            let connection = &mut self.connections[index];
            let bytes = connection.take_sent(segment, room);
            moved |= !bytes.is_empty();
            connection.acknowledge(block, &mut self.free[worker]);
            let ended = connection.fin_sent && connection.send_taken == connection.send_tail;
            let all_acked = ended && !connection.hold_acks;
            if all_acked && connection.status & status::ALL_ACKED == 0 {
                connection.add_status(block, status::ALL_ACKED);
            }
            match partner {
                Some(other) => {
                    let other = &mut self.connections[other];
                    other.inbox.extend(bytes);
                    moved |= ended && !other.fin;
                    other.fin |= ended;
                }
                None => connection.sent.extend(bytes),
            }
            self.connections[index].deliver(segment, index as u32, &mut self.free[worker]);
        }
        moved
    }

    fn refill(&mut self) {
        let Some(segment) = self.segment.clone() else { return };
        let mut answers = Vec::new();
        for (&number, lane) in &mut self.lanes {
            for (worker, own) in (0..).zip(&mut lane.workers) {
                let ring = segment.grant_ring(number, worker);
                let free = &mut self.free[worker as usize];
                while self.granting
                    && free.len() > 32
                    && own.grants.room(&ring, u32::MAX).unwrap() > 0
                {
                    let extent = free.pop().unwrap();
                    assert!(own.grants.push(&ring, encode_grant(extent)).unwrap());
                    self.granted.insert(extent);
                }
                let some = own.grants.room(&ring, u32::MAX).unwrap() < ring.capacity();
                if own.wants && some {
                    own.wants = false;
                    answers.push((number, worker));
                }
            }
        }
        for (lane, worker) in answers {
            self.post(lane, worker, Event::Granted);
        }
    }

    /// Posts the events that were asked for, then rings the lanes that sleep.
    pub(crate) fn deliver(&mut self) {
        let Some(segment) = self.segment.clone() else { return };
        self.refill();
        publish_fence();
        for index in 0..self.connections.len() {
            self.tell(&segment, index as u32);
        }
        for index in 0..self.listeners.len() {
            let Some(listener) = &mut self.listeners[index] else { continue };
            let mut woken = Vec::new();
            for _ in 0..std::mem::take(&mut listener.pushed) {
                let waiters = segment.listener(index as u32);
                let Some(lane) = waiters.take_waiter(listener.woken) else { break };
                listener.woken = lane;
                woken.push(lane);
            }
            for lane in woken {
                self.post(lane, 0, Event::Acceptable { listener: index as u32 });
            }
        }
        publish_fence();
        for (&number, lane) in &mut self.lanes {
            if std::mem::take(&mut lane.touched) && segment.lane_sleeper(number).is_sleeping() {
                self.rings += 1;
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                let _ = rustix::net::send(&lane.workers[0].doorbell, &[1], flags);
            }
        }
    }

    fn tell(&mut self, segment: &Segment, index: u32) {
        let worker = index / self.params.connections;
        let handle = self.handle(index);
        let client = &segment.connection(index).unwrap().client;
        let connection = &mut self.connections[index as usize];
        if !connection.open {
            return;
        }
        let read = std::mem::take(&mut connection.changed_read);
        let write = std::mem::take(&mut connection.changed_write);
        for (changed, word) in [(read, &client.wake_reader), (write, &client.wake_writer)] {
            let Some(lane) = word.load(Ordering::Relaxed).checked_sub(1) else { continue };
            let Some(target) = self.lanes.get_mut(&lane).filter(|_| changed) else { continue };
            let own = &mut target.workers[worker as usize];
            let ring = segment.event_ring(lane, worker);
            let last = &mut self.connections[index as usize].event;
            if last.is_some_and(|(to, n)| to == lane && !own.events.taken(&ring, n).unwrap()) {
                continue;
            }
            *last = Some((lane, own.events.next_ordinal()));
            target.touched = true;
            assert!(own.events.push(&ring, Event::Ready { handle }.encode()).unwrap());
        }
    }

    pub(crate) fn prepare_sleep(&self) {
        if let Some(segment) = &self.segment {
            (0..self.params.workers).for_each(|w| segment.worker_sleeper(w).prepare());
        }
    }

    /// Ends a sleep: flags down, doorbells empty.
    pub(crate) fn awake(&self) {
        let Some(segment) = &self.segment else { return };
        (0..self.params.workers).for_each(|w| segment.worker_sleeper(w).awake());
        for own in self.lanes.values().flat_map(|lane| &lane.workers) {
            let _ = rustix::net::recv(&own.doorbell, &mut [0u8; 64][..], RecvFlags::DONTWAIT);
        }
    }

    pub(crate) fn doorbells(&self) -> Vec<Arc<OwnedFd>> {
        let workers = self.lanes.values().flat_map(|lane| &lane.workers);
        workers.map(|own| Arc::clone(&own.doorbell)).collect()
    }
}
