//! The control thread: clients, tools, and what the workers have to say to them.
//!
//! Everything runs on one tokio runtime of one thread, so that plain `RefCell`s guard its state;
//! nothing holds one across an `await`. Workers are reached through bounded queues only.

mod capture;
mod client;
mod lanes;
mod link;
mod listeners;
mod packets;
mod processes;
mod query;
mod refusal;
mod registry;
mod stats;
mod succession;

pub use link::{Links, WorkerLink};
pub use packets::Door;
pub use refusal::Denied;
pub use stats::Totals;

use crate::messages::{FromWorker, GroupId, ToWorker};
use crate::netlink::Paths;
use crate::policy::Policy;
use crate::served::ServedPorts;
use fourwave_protocol::query::SocketKind;
use packets::Packets;
use refusal::Denials;
use registry::Registry;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// How soon a message that found a worker's queue full is tried again.
const RETRY: Duration = Duration::from_millis(1);
/// Pause after `accept` has failed, as it does while no descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Clients that are told at a time that there is no room for them: each holds a descriptor while it
/// takes its time to ask.
const MAX_TURNED_AWAY: usize = 64;
/// Messages taken from one worker before other tasks get their turn.
const BATCH: usize = 64;

/// Bits of workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Mask(u64);

impl Mask {
    fn add(&mut self, worker: u32) {
        self.0 |= 1 << worker;
    }

    fn has_all(self, workers: u32) -> bool {
        self.0.count_ones() == workers
    }
}

/// What the control thread is made of.
pub struct Parts {
    /// One per worker, in their order.
    pub links: Links,
    /// Names of the workers' queues, for people.
    pub queues: Vec<String>,
    /// Who may do what.
    pub policy: Policy,
    /// The ports that are served.
    pub ports: ServedPorts,
    /// Largest backlog.
    pub somaxconn: u32,
    /// Most bytes that a connection offers to receive.
    pub window: u32,
    /// The protocol's settings: what options are that nobody has set.
    pub tcp: fourwave_tcp::Config,
    /// Routes and neighbours.
    pub paths: Paths,
    /// Adds counters that are no worker's.
    pub counters: Box<dyn Fn(&mut Totals)>,
    /// The configuration in force, as TOML.
    pub settings: String,
}

/// The control thread's state, shared by its tasks.
pub struct Control {
    registry: RefCell<Registry>,
    links: Links,
    paths: Paths,
    counters: Box<dyn Fn(&mut Totals)>,
    settings: String,
    clients: Cell<usize>,
    /// Questions of tools under way.
    inquiries: Cell<usize>,
    /// Captures under way.
    captures: Cell<usize>,
    denials: Denials,
    /// Clients that are being told that there is no room for them.
    turned_away: Cell<usize>,
    /// Names of the workers' queues.
    queues: Vec<String>,
    /// Told when the workers' queues have become shorter.
    room: Notify,
}

impl Control {
    /// Puts the parts together. The workers know `paths`' table of this moment already.
    pub fn new(parts: Parts) -> Rc<Control> {
        let Parts {
            links,
            queues,
            policy,
            ports,
            somaxconn,
            window,
            tcp,
            paths,
            counters,
            settings,
        } = parts;
        let resolver = paths.clone();
        let resolve = Box::new(move |address| resolver.resolve(address));
        let sizes = (somaxconn, window);
        let registry = Registry::new(Rc::clone(&links), policy, ports, sizes, tcp, resolve);
        Rc::new(Control {
            registry: RefCell::new(registry),
            links,
            paths,
            counters,
            settings,
            clients: Cell::new(0),
            inquiries: Cell::new(0),
            captures: Cell::new(0),
            denials: Denials::default(),
            turned_away: Cell::new(0),
            queues,
            room: Notify::new(),
        })
    }

    /// Starts the tasks that listen to workers and to the kernel. Must be called in a
    /// [`tokio::task::LocalSet`].
    ///
    /// # Errors
    /// When the reactor takes no more descriptors.
    pub fn start(self: &Rc<Control>) -> io::Result<()> {
        for worker in 0..self.links.len() {
            let fd = self.links[worker].notify_fd().try_clone_to_owned()?;
            let fd = packets::register(fd)?;
            tokio::task::spawn_local(Rc::clone(self).listen_to(worker, fd));
        }
        tokio::task::spawn_local(Rc::clone(self).follow_paths());
        tokio::task::spawn_local(Rc::clone(self).retry());
        Ok(())
    }

    /// Takes clients in, for ever.
    pub async fn accept(self: &Rc<Control>, door: &Door) {
        loop {
            let (packets, peer) = match door.accept().await {
                Ok(client) => client,
                Err(error) => {
                    tracing::error!(%error, "cannot take a client in");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if !self.has_room(peer.uid) {
                self.denials.count(Denied::MaxClients);
                tracing::warn!(pid = peer.pid, uid = peer.uid, "too many clients: one turned away");
                self.turn_away(packets);
                continue;
            }
            self.serve(client::Session::new(Rc::clone(self), peer), packets);
        }
    }

    fn has_room(&self, uid: u32) -> bool {
        self.registry.borrow().has_room(self.clients.get(), uid)
    }

    /// Tells a client that there is no room for it, in a task of its own, or hangs up at once.
    fn turn_away(self: &Rc<Control>, packets: Packets) {
        if self.turned_away.get() >= MAX_TURNED_AWAY {
            return;
        }
        let control = Rc::clone(self);
        self.turned_away.set(self.turned_away.get() + 1);
        tokio::task::spawn_local(async move {
            client::turn_away(packets).await;
            control.turned_away.set(control.turned_away.get() - 1);
        });
    }

    /// Serves a client, or another process of one, in a task of its own.
    fn serve(self: &Rc<Control>, session: client::Session, packets: Packets) {
        let control = Rc::clone(self);
        self.clients.set(self.clients.get() + 1);
        tokio::task::spawn_local(async move {
            session.serve(packets).await;
            control.clients.set(control.clients.get() - 1);
        });
    }

    /// Refuses what is new, and waits until the last connection has ended (those in TIME_WAIT
    /// aside).
    pub async fn drain(&self) {
        self.registry.borrow_mut().drain();
        let drained = Rc::clone(&self.registry.borrow().drained);
        while !self.registry.borrow().is_drained() {
            drained.notified().await;
        }
    }

    /// Tells every worker to reset its connections and end, and sees to it that all are told.
    pub async fn stop(&self) {
        self.registry.borrow_mut().outboxes.broadcast(|_| ToWorker::Stop);
        while self.registry.borrow_mut().outboxes.flush() {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// All counters, as `name value` lines; the value stands after the last space.
    pub fn stats(&self) -> String {
        let mut totals = Totals::default();
        for ((name, reason), value) in self.links.iter().flat_map(|link| link.counters()) {
            match reason {
                None => totals.add(name, value),
                Some(reason) => totals.add_to_family(name, reason, value),
            }
        }
        totals.add("workers", self.links.len() as u64);
        totals.add("clients", self.clients.get() as u64);
        totals.add("groups", self.registry.borrow().len() as u64);
        for (name, count) in self.denials.iter() {
            totals.add_to_family("clients_refused", name, count);
        }
        for (name, listener, value) in self.listener_gauges() {
            match listener {
                None => totals.add(name, value),
                Some(listener) => totals.add_to_family(name, &listener, value),
            }
        }
        (self.counters)(&mut totals);
        totals.text()
    }

    /// How often clients were refused, by reason.
    pub fn denials(&self) -> Vec<(&'static str, u64)> {
        self.denials.iter().collect()
    }

    /// How long the queues of the listeners are, by address; those that share one are added up.
    pub fn listener_gauges(&self) -> Vec<(&'static str, Option<String>, u64)> {
        let registry = self.registry.borrow();
        let mut count = 0;
        let mut gauges = BTreeMap::new();
        for socket in registry.listeners(&|_| false) {
            let SocketKind::Listener { syn_queue, .. } = socket.kind else { continue };
            count += 1;
            for (name, value) in [
                ("accept_queue", socket.receive_queue),
                ("accept_backlog", socket.send_queue),
                ("syn_queue", syn_queue),
            ] {
                *gauges.entry((name, socket.local.to_string())).or_default() += u64::from(value);
            }
        }
        let gauges = gauges.into_iter().map(|((name, at), value)| (name, Some(at), value));
        [("listeners", None, count)].into_iter().chain(gauges).collect()
    }

    /// Ends the time of a group that keeps listeners for a successor, when it is over.
    fn remove_later(self: &Rc<Control>, keeper: Option<GroupId>) {
        let Some(keeper) = keeper else { return };
        let control = Rc::clone(self);
        let grace = self.registry.borrow().policy.accept_grace();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(grace).await;
            control.registry.borrow_mut().remove(keeper);
        });
    }

    /// Waits until the workers have room for more messages.
    async fn room(&self) {
        while self.registry.borrow().outboxes.is_crowded() {
            self.room.notified().await;
        }
    }

    async fn listen_to(self: Rc<Control>, worker: usize, fd: AsyncFd<OwnedFd>) {
        loop {
            let Ok(mut ready) = fd.readable().await else { return };
            let link = &self.links[worker];
            // Cleared first: what comes after is announced again.
            link.clear();
            ready.clear_ready();
            while self.receive(worker) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Works on some messages of a worker; whether there may be more.
    fn receive(&self, worker: usize) -> bool {
        for _ in 0..BATCH {
            let Some(message) = self.links[worker].receive() else { return false };
            self.handle(message);
        }
        true
    }

    fn handle(&self, message: FromWorker) {
        self.registry.borrow_mut().handle(message);
    }

    async fn follow_paths(self: Rc<Control>) {
        let mut paths = self.paths.clone();
        while paths.tables.changed().await.is_ok() {
            let table = paths.tables.borrow_and_update().clone();
            self.registry.borrow_mut().set_paths(&table);
        }
    }

    async fn retry(self: Rc<Control>) {
        let blocked = Rc::clone(&self.registry.borrow().outboxes.blocked);
        loop {
            blocked.notified().await;
            tokio::time::sleep(RETRY).await;
            self.registry.borrow_mut().outboxes.flush();
            if !self.registry.borrow().outboxes.is_crowded() {
                self.room.notify_waiters();
            }
        }
    }
}

#[cfg(test)]
mod tests;
