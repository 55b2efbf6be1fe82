//! Who has what: application groups with their lanes and listeners.
//!
//! All decisions about clients' requests and workers' answers are made here, without I/O of its
//! own, so that they are tested without sockets and workers.

use super::Mask;
use super::lanes::Lanes;
use super::link::{Links, Outboxes};
use super::listeners::{Answer, Listeners, Opening, Step};
use super::packets::Peer;
use super::processes::Members;
use super::refusal::{Denied, Refusal};
use crate::messages::{FromWorker, GroupId, ToWorker};
use crate::path::PathTable;
use crate::policy::{Policy, Quota};
use crate::port::{self, Holder, settings};
use crate::served::{ClaimError, Claimant, ServedPorts, Terms};
use fourwave_protocol::control::BindOptions;
use fourwave_protocol::option::ConnOption;
use fourwave_protocol::query::{Owner, Socket};
use fourwave_protocol::{Params, Process, Segment, SegmentError, VERSION};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{Notify, oneshot};

/// Bytes of a program's name that are kept.
const NAME_BYTES: usize = 64;

/// A process of a group.
pub(super) type Client = (GroupId, Process);

/// Everything that control knows about clients.
pub(super) struct Registry {
    pub(super) workers: u32,
    pub(super) policy: Policy,
    pub(super) ports: ServedPorts,
    somaxconn: u32,
    /// Most bytes that a connection offers to receive.
    window: u32,
    tcp: fourwave_tcp::Config,
    pub(super) outboxes: Outboxes,
    pub(super) groups: BTreeMap<GroupId, Group>,
    next: u32,
    pub(super) draining: Option<Mask>,
    resolve: Box<dyn Fn(IpAddr)>,
    /// Told when a worker has drained.
    pub(super) drained: Rc<Notify>,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) peer: Peer,
    pub(super) name: String,
    pub(super) segment: Arc<Segment>,
    /// None of a group that keeps.
    pub(super) members: Members,
    pub(super) lanes: Lanes,
    pub(super) listeners: Listeners,
    /// It has no client: it keeps listeners of one that is gone, for a successor.
    pub(super) keeps: bool,
    /// The client is gone; these workers have nothing of it left.
    pub(super) removed: Option<Mask>,
    /// A worker has found its client hostile: nothing of it is kept.
    pub(super) evicted: bool,
}

/// What a new group's client gets.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) group: GroupId,
    pub(super) process: Process,
    pub(super) params: Params,
    pub(super) memory: OwnedFd,
    /// Told when the client is to be disconnected.
    pub(super) evict: Rc<Notify>,
}

impl Group {
    /// Whom to name for people: one of `holders`, or the process that has been there longest.
    fn owner(&self, holders: &[Process]) -> Owner {
        let one = |(process, _): &(Process, _)| holders.contains(process);
        let member = self.members.live().find(one).or_else(|| self.members.live().next());
        let Peer { pid, uid } = member.map_or(self.peer, |(_, member)| member.peer);
        Owner { pid, uid, name: self.name.clone() }
    }
}

impl Registry {
    pub(super) fn new(
        links: Links,
        policy: Policy,
        ports: ServedPorts,
        (somaxconn, window): (u32, u32),
        tcp: fourwave_tcp::Config,
        resolve: Box<dyn Fn(IpAddr)>,
    ) -> Registry {
        Registry {
            workers: links.len() as u32,
            policy,
            ports,
            somaxconn,
            window,
            tcp,
            outboxes: Outboxes::new(links),
            groups: BTreeMap::new(),
            next: 1,
            draining: None,
            resolve,
            drained: Rc::new(Notify::new()),
        }
    }

    /// Groups, with those whose client is gone and whose connections still end.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether another client of this user may come.
    pub(super) fn has_room(&self, clients: usize, uid: u32) -> bool {
        let groups = self.groups.values().filter(|group| !group.keeps).count();
        clients.max(groups) < self.policy.max_clients(uid)
    }

    pub(super) fn hello(
        &mut self,
        peer: Peer,
        version: u32,
        name: &str,
    ) -> Result<Admitted, Refusal> {
        if version != VERSION {
            let detail = format!(
                "the client library speaks version {version} and fourwaved version {VERSION}: \
                 both must be of one release"
            );
            return Err(Refusal::denied(Denied::Version, Errno::PROTONOSUPPORT, detail));
        }
        self.refuse_when_draining()?;
        let quota = self.policy.admit(peer.uid)?;
        let params = params(self.workers, quota, self.somaxconn, self.window);
        let mut members = Members::default();
        let (process, evict) = members.add(peer).expect("the first of many");
        let (group, memory) = self
            .add(peer, printable(name), params, members)
            .map_err(|error| Refusal::new(Errno::NOMEM, error.to_string()))?;
        let Group { name, peer: Peer { pid, uid }, .. } = &self.groups[&group];
        tracing::info!(group = group.0, pid, uid, name, "a client has come");
        Ok(Admitted { group, process, params, memory, evict })
    }

    /// Makes a group, which every worker is told of. One without processes keeps listeners.
    pub(super) fn add(
        &mut self,
        peer: Peer,
        name: String,
        params: Params,
        members: Members,
    ) -> Result<(GroupId, OwnedFd), SegmentError> {
        let group = GroupId(self.next);
        let (segment, memory) = Segment::create(&format!("fourwave-{}", group.0), params)?;
        let segment = Arc::new(segment);
        self.next += 1;
        let first = members.live().next().map(|(process, _)| process);
        self.outboxes.broadcast(|worker| {
            let mut group = port::Group::new(group, worker, Arc::clone(&segment));
            if let Some(first) = first {
                group.add_process(Box::new(Holder::new(first, params.connections)), None);
            }
            ToWorker::AddGroup { group: Box::new(group) }
        });
        let record = Group {
            peer,
            name,
            segment,
            members,
            lanes: Lanes::new(params.lanes),
            listeners: Listeners::new(params.listeners),
            keeps: first.is_none(),
            removed: None,
            evicted: false,
        };
        self.groups.insert(group, record);
        Ok((group, memory))
    }

    /// A new lane: its index, and the client's ends of its doorbells, one per worker.
    pub(super) fn attach_lane(
        &mut self,
        (group, process): Client,
    ) -> Result<(u16, Vec<OwnedFd>), Refusal> {
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for _ in 0..self.workers {
            let (a, b) = doorbell().map_err(|errno| {
                Refusal::new(errno, format!("fourwaved cannot make a socket pair: {errno}"))
            })?;
            ours.push(Some(a));
            theirs.push(b);
        }
        let record = self.record(group)?;
        let lanes = record.segment.layout().params().lanes;
        let lane = record.lanes.attach(process).ok_or_else(|| {
            let detail =
                format!("all {lanes} lanes (threads and pollers) of this program are used");
            // As the client library knows it: who waits can do so without a lane.
            Refusal::denied(Denied::Lanes, Errno::NOBUFS, detail)
        })?;
        for (worker, doorbell) in ours.iter_mut().enumerate() {
            if let Some(doorbell) = doorbell.take() {
                let message = ToWorker::AddLane { group, process, lane, doorbell };
                self.outboxes.send(worker, message);
            }
        }
        Ok((lane, theirs))
    }

    /// A lane for a process that is about to be forked, so that it need not ask: nearly every child
    /// goes on with a connection at once. Not while few are left for those who do ask.
    pub(super) fn attach_first_lane(&mut self, client: Client) -> Option<(u16, Vec<OwnedFd>)> {
        let many_left = self.groups.get(&client.0)?.lanes.are_many_left();
        many_left.then(|| self.attach_lane(client).ok()).flatten()
    }

    pub(super) fn detach_lane(
        &mut self,
        (group, process): Client,
        lane: u16,
    ) -> Result<(), Refusal> {
        if !self.record(group)?.lanes.detach(lane, process) {
            return Err(Refusal::new(Errno::INVAL, format!("lane {lane} is not attached")));
        }
        self.outboxes.broadcast(|_| ToWorker::RemoveLane { group, lane });
        Ok(())
    }

    /// Claims an address for a new listener; returns its index and where it is bound.
    pub(super) fn bind(
        &mut self,
        (group, process): Client,
        address: SocketAddr,
        options: BindOptions,
    ) -> Result<(u32, SocketAddr), Refusal> {
        self.refuse_when_draining()?;
        let record = self.record(group)?;
        let uid = record.peer.uid;
        // A fork may have given privileges up since.
        let now = record.members.get(process).ok_or_else(no_group)?.peer.uid;
        for uid in [uid, now] {
            self.policy.may_bind(uid, address.port())?;
        }
        // ::ffff:10.0.0.1 is 10.0.0.1; the scope of a link-local address stays.
        let address = match address.ip().to_canonical() {
            IpAddr::V4(v4) => SocketAddr::from((v4, address.port())),
            IpAddr::V6(_) => address,
        };
        let record = self.record(group)?;
        let listeners = record.segment.layout().params().listeners;
        let listener = record.listeners.free().ok_or_else(|| {
            let detail = format!("all {listeners} listeners of this program are used");
            Refusal::denied(Denied::Listeners, Errno::MFILE, detail)
        })?;
        let claimant = Claimant { group, listener };
        let terms = Terms {
            v6_only: options.v6_only,
            reuse_address: options.reuse_address,
            shared_by: options.reuse_port.then_some(uid),
        };
        let claimed = self.ports.claim(claimant, address, terms);
        if let Err(ClaimError::Remembered(_)) = &claimed {
            self.give_up_kept(uid, address, options.v6_only);
        }
        let bound = claimed.map_err(|error| Refusal::new(error.errno(), error.to_string()))?;
        self.record(group)?.listeners.insert(listener, process, bound, options);
        tracing::debug!(group = group.0, address = %bound, "bound");
        Ok((listener, bound))
    }

    /// Asks the workers which ports are idle by now; closed when all have said it.
    pub(super) fn look_for_idle_ports(&mut self) -> oneshot::Receiver<()> {
        let (told, answer) = oneshot::channel();
        let told = Arc::new(told);
        self.outboxes.broadcast(|_| ToWorker::Look { told: Arc::clone(&told) });
        answer
    }

    /// Lets a listener listen, or changes its backlog (then there is nothing to wait for).
    pub(super) fn listen(
        &mut self,
        client @ (group, _): Client,
        listener: u32,
        backlog: u32,
    ) -> Result<Option<Answer>, Refusal> {
        self.refuse_when_draining()?;
        self.check_held(client, listener)?;
        let backlog = backlog.min(self.somaxconn);
        let claimant = Claimant { group, listener };
        let former = self.take_former(claimant);
        let (place, shared) = former.unzip();
        let record = self.groups.get_mut(&group).ok_or_else(no_group)?;
        let opening = record.listeners.listen(listener, backlog, shared);
        match opening.map_err(|errno| no_listener(errno, listener))? {
            Opening::Already => Ok(None),
            Opening::New { listener: entry, shared, answer } => {
                let (address, v6_only, shares) = (entry.address, entry.v6_only, entry.reuse_port);
                let settings = entry.settings;
                self.outboxes.broadcast(|_| {
                    let (shared, former) = (Arc::clone(&shared), place);
                    ToWorker::Listen { group, listener, address, v6_only, shared, settings, former }
                });
                if let Some((keeper, _)) = place {
                    if !shares {
                        self.gather(claimant);
                    }
                    self.dissolve_empty(keeper);
                }
                Ok(Some(answer))
            }
        }
    }

    /// `TCP_DEFER_ACCEPT`.
    pub(super) fn defer_accept(
        &mut self,
        client @ (group, _): Client,
        listener: u32,
        seconds: u32,
    ) -> Result<(), Refusal> {
        self.check_held(client, listener)?;
        let done = self.record(group)?.listeners.defer_accept(listener, seconds);
        done.map_err(|errno| no_listener(errno, listener))
    }

    /// Sets an option of all that a listener accepts from now on: once the answer is closed, every
    /// worker has heard of it.
    pub(super) fn set_option(
        &mut self,
        client @ (group, _): Client,
        listener: u32,
        option: ConnOption,
        value: u32,
    ) -> Result<oneshot::Receiver<()>, Refusal> {
        if !option.allows(value) {
            let detail = format!("{option:?} cannot be {value}");
            return Err(Refusal::new(Errno::INVAL, detail));
        }
        self.check_held(client, listener)?;
        let settings = self.record(group)?.listeners.choose(listener, option, value);
        let settings = settings.map_err(|errno| no_listener(errno, listener))?;
        let (told, answer) = oneshot::channel();
        let told = Arc::new(told);
        self.outboxes.broadcast(|_| {
            let told = Arc::clone(&told);
            ToWorker::Configure { group, listener, settings, told }
        });
        Ok(answer)
    }

    /// All options of a listener, by [`ConnOption::index`].
    pub(super) fn options(
        &mut self,
        client @ (group, _): Client,
        listener: u32,
    ) -> Result<[u32; ConnOption::ALL.len()], Refusal> {
        self.check_held(client, listener)?;
        let settings = self.record(group)?.listeners.settings(listener);
        let settings = settings.map_err(|errno| no_listener(errno, listener))?;
        Ok(settings::all(&settings, &self.tcp))
    }

    /// A process closes a listener. If no other one holds it, it ends, and `told` is dropped when
    /// no worker listens there any more. The group that keeps it, if one does, is to be
    /// [removed](Self::remove) after `accept_grace`.
    pub(super) fn close_listener(
        &mut self,
        client @ (group, process): Client,
        listener: u32,
        told: oneshot::Sender<()>,
    ) -> Result<Option<GroupId>, Refusal> {
        self.check_held(client, listener)?;
        if !self.record(group)?.listeners.let_go(listener, process) {
            return Ok(None);
        }
        let former = self.record(group)?.listeners.former(listener);
        let step = self.record(group)?.listeners.close(listener, Some(told));
        let step = step.map_err(|errno| no_listener(errno, listener))?;
        let keeper = former.and_then(|former| self.keep(group, vec![(listener, former)]));
        self.ports.leave(Claimant { group, listener });
        self.take(step, group, listener, keeper);
        Ok(keeper)
    }

    pub(super) fn take(
        &mut self,
        step: Step,
        group: GroupId,
        listener: u32,
        keeper: Option<GroupId>,
    ) {
        match step {
            Step::Nothing => {}
            Step::Unlisten => {
                self.outboxes.broadcast(|_| ToWorker::Unlisten { group, listener, keeper });
            }
            Step::Gone => self.gone(Claimant { group, listener }),
        }
    }

    pub(super) fn gone(&mut self, claimant: Claimant) {
        if let Some(port) = self.ports.gone(claimant) {
            self.outboxes.broadcast(|_| ToWorker::ReportIdle { port });
        }
    }

    /// All of a group is gone. The group that keeps its listeners, if one does, is to be
    /// removed in the same way after `accept_grace`.
    pub(super) fn remove(&mut self, group: GroupId) -> Option<GroupId> {
        let record = self.groups.get_mut(&group)?;
        if record.removed.is_some() {
            return None;
        }
        record.removed = Some(Mask::default());
        let (peer, keeps) = (record.peer, record.keeps);
        let indices: Vec<u32> = record.listeners.indices().collect();
        let former = |&index: &u32| Some((index, record.listeners.former(index)?));
        let former = indices.iter().filter_map(former).collect();
        let keeper = self.keep(group, former);
        // A successor may bind the same ports at once.
        for listener in indices {
            self.ports.leave(Claimant { group, listener });
        }
        match keeps {
            true => tracing::debug!(group = group.0, "no successor has come"),
            false => tracing::info!(group = group.0, pid = peer.pid, "a client is gone"),
        }
        self.outboxes.broadcast(|_| ToWorker::RemoveGroup { group, keeper });
        keeper
    }

    /// Who holds a connection of a group, as a worker says.
    pub(super) fn owner(&self, group: GroupId, holder: Option<Process>) -> Option<Owner> {
        let group = self.groups.get(&group).filter(|group| !group.keeps)?;
        Some(group.owner(holder.as_slice()))
    }

    /// Every listener, for people; with its owner where `may_know` says so.
    pub(super) fn listeners<'a>(
        &'a self,
        may_know: &'a impl Fn(&Owner) -> bool,
    ) -> impl Iterator<Item = Socket> {
        self.groups.values().flat_map(move |group| {
            group.listeners.listening(group.keeps).map(move |(listener, holders)| Socket {
                owner: Some(group.owner(holders)).filter(may_know),
                ..listener
            })
        })
    }

    /// Works on a worker's message.
    pub(super) fn handle(&mut self, message: FromWorker) {
        let workers = self.workers;
        match message {
            FromWorker::Evicted { group, worker: _, reason } => {
                let Some(record) = self.groups.get_mut(&group) else { return };
                let (Peer { pid, uid }, name) = (record.peer, &record.name);
                tracing::warn!(group = group.0, pid, uid, name, reason, "a client is evicted");
                record.evicted = true;
                record.members.live().for_each(|(_, member)| member.evict.notify_one());
            }
            FromWorker::Forked { group, process, worker } => self.forked(group, process, worker),
            FromWorker::ProcessRemoved { group, process, worker } => {
                self.process_removed(group, process, worker);
            }
            FromWorker::GroupRemoved { group, worker } => self.group_removed(group, worker),
            FromWorker::LaneRemoved { group, lane, worker } => {
                if let Some(Group { lanes, segment, .. }) = self.groups.get_mut(&group) {
                    lanes.removed(lane, worker, workers, segment);
                }
            }
            FromWorker::Listening { group, listener, worker, error } => {
                let Some(record) = self.groups.get_mut(&group) else { return };
                let step = record.listeners.answered(listener, worker, workers, error);
                self.take(step, group, listener, None);
            }
            FromWorker::Unlistened { group, listener, worker } => {
                let Some(record) = self.groups.get_mut(&group) else { return };
                // A group that is being removed is done listener by listener at its end.
                if record.removed.is_none() {
                    let step = record.listeners.unlistened(listener, worker, workers);
                    self.take(step, group, listener, None);
                }
            }
            FromWorker::PortIdle { port, worker } => self.ports.idle(port, worker),
            // Closed with the last worker's.
            FromWorker::Looked { told } => drop(told),
            FromWorker::Resolve { address } => (self.resolve)(address),
            FromWorker::Drained { worker } => {
                if let Some(mask) = &mut self.draining {
                    mask.add(worker);
                    self.drained.notify_one();
                }
            }
        }
    }

    fn group_removed(&mut self, group: GroupId, worker: u32) {
        let Some(record) = self.groups.get_mut(&group) else { return };
        let Some(mask) = &mut record.removed else { return };
        mask.add(worker);
        if !mask.has_all(self.workers) {
            return;
        }
        let listeners = record.listeners.indices();
        self.groups.remove(&group);
        for listener in listeners {
            self.gone(Claimant { group, listener });
        }
        tracing::debug!(group = group.0, "nothing of the client is left");
    }

    /// The machine's routes or addresses have changed.
    pub(super) fn set_paths(&mut self, table: &Arc<PathTable>) {
        let addresses = table.addresses().iter().map(|address| IpAddr::from(*address));
        self.ports.set_addresses(addresses.collect());
        self.outboxes.publish(table);
    }

    /// Refuses whatever is new from now on.
    pub(super) fn drain(&mut self) {
        self.draining = Some(Mask::default());
        self.outboxes.broadcast(|_| ToWorker::Drain);
    }

    /// Whether no connection is left but those in TIME_WAIT.
    pub(super) fn is_drained(&self) -> bool {
        self.draining.is_some_and(|mask| mask.has_all(self.workers))
    }

    fn refuse_when_draining(&self) -> Result<(), Refusal> {
        match self.draining {
            Some(_) => Err(Refusal::new(Errno::NETDOWN, "fourwaved is about to stop")),
            None => Ok(()),
        }
    }

    /// Whether a listener is the client's.
    fn check_held(&mut self, (group, process): Client, listener: u32) -> Result<(), Refusal> {
        match self.record(group)?.listeners.is_held(listener, process) {
            true => Ok(()),
            false => Err(no_listener(Errno::INVAL, listener)),
        }
    }

    fn record(&mut self, group: GroupId) -> Result<&mut Group, Refusal> {
        self.groups.get_mut(&group).ok_or_else(no_group)
    }
}

pub(super) fn no_group() -> Refusal {
    Refusal::new(Errno::NOTCONN, "the client has been disconnected")
}

fn no_listener(errno: Errno, listener: u32) -> Refusal {
    Refusal::new(errno, format!("there is no listener {listener}, or it is being closed"))
}

/// The segment of a group with this quota.
fn params(workers: u32, quota: Quota, somaxconn: u32, window: u32) -> Params {
    Params {
        // backlog + 1 connections fit, and the ring must be larger than that.
        accept_entries: (somaxconn + 2).next_power_of_two(),
        ..Params::for_quota(workers, quota.connections, quota.bytes, window)
    }
}

/// A socket pair: our end, and the client's. Each end has flags of its own, so that nothing that
/// the client does to its end makes ours block.
fn doorbell() -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// A client's word for itself, safe to print.
fn printable(name: &str) -> String {
    let safe = |c: char| if c.is_control() { '?' } else { c };
    let mut name: String = name.chars().map(safe).collect();
    name.truncate(name.floor_char_boundary(NAME_BYTES));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_safe_to_print() {
        assert_eq!(printable("nginx"), "nginx");
        assert_eq!(printable("a\nb\u{1b}[2J"), "a?b?[2J");
        assert_eq!(printable(&"x".repeat(1000)).len(), NAME_BYTES);
        assert_eq!(printable(&"é".repeat(1000)).len(), NAME_BYTES);
        assert_eq!(printable(&format!("x{}", "é".repeat(1000))).len(), NAME_BYTES - 1);
    }

    #[test]
    fn accept_rings_are_larger_than_the_largest_backlog() {
        let quota = Quota { connections: 100, bytes: 1 << 20 };
        for somaxconn in [1, 4095, 4096, 65_535] {
            let params = params(2, quota, somaxconn, 4 << 20);
            assert_eq!(params.check(), Ok(()));
            assert!(params.accept_entries > somaxconn + 1);
        }
    }
}
