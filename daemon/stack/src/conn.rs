//! The record of a connection with a full control block: found, timed, listed, freed.

use fourwave_tcp::{Config, Error, Events, Nanos, Settings, State, Tcb};
use fourwave_wire::{Addr, FourTuple, Link};

use crate::arena::{Arena, NIL, Record};
use crate::counters::Dropped;
use crate::host::{ConnId, Host, PathError, Update};
use crate::list::{Links, Nodes};
use crate::shard::Shard;
use crate::table::{Flow, Ref};
use crate::timewait::Substate;
use crate::wheel::Timer;

/// A connection. What a lookup compares comes first.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Conn {
    pub(crate) tuple: FourTuple,
    link: u32,
    generation: u32,
    /// Its listener while it waits to be accepted, else [`NIL`].
    pub(crate) listener: u32,
    /// The host's number for it.
    pub(crate) app: u64,
    /// What the flow table needs of the hash.
    pub(crate) hash: u32,
    pub(crate) timer: Timer,
    /// On the shard's dirty list, or on its stranded list.
    pub(crate) output: Links,
    /// On its listener's list of connections not yet accepted.
    pub(crate) waiting: Links,
    /// [`Shard::route_epoch`] when `route` was looked up.
    epoch: u32,
    route: Link,
    /// Whether `route` means anything.
    routed: bool,
    /// Whether `output` is on the stranded list.
    stranded: bool,
    /// Its local port is claimed for an active open, see [`crate::ports`].
    pub(crate) port_claimed: bool,
    /// The state that it counts under in [`Shard::states`].
    counted: u8,
    pub(crate) tcb: Tcb,
}

/// Events that are counted and of which samples are kept.
const FAILURES: Events = Events(Events::RESET.0 | Events::REFUSED.0 | Events::TIMED_OUT.0);

/// Which list: what has something to send, or waits for a way to send it.
pub(crate) struct Output;
/// Which list: completed, not yet accepted.
pub(crate) struct Waiting;

impl Conn {
    /// A record that was never used.
    pub(crate) fn blank() -> Conn {
        Conn {
            tuple: FourTuple::default(),
            link: 0,
            generation: 0,
            listener: NIL,
            app: 0,
            hash: 0,
            timer: Timer::IDLE,
            output: Links::APART,
            waiting: Links::APART,
            epoch: 0,
            route: Link::default(),
            routed: false,
            stranded: false,
            port_claimed: false,
            counted: 0,
            tcb: Tcb::blank(),
        }
    }

    /// Makes a new connection of an old one, all but its control block, which is made in its place.
    pub(crate) fn begin(&mut self, tuple: FourTuple, hash: u32) {
        let Conn {
            tuple: this_tuple,
            link: _,
            generation: _,
            listener,
            app,
            hash: this_hash,
            timer,
            output,
            waiting,
            epoch,
            route,
            routed,
            stranded,
            port_claimed,
            counted,
            tcb: _,
        } = self;
        (*this_tuple, *this_hash) = (tuple, hash);
        (*listener, *app) = (NIL, 0);
        (*timer, *output, *waiting) = (Timer::IDLE, Links::APART, Links::APART);
        (*epoch, *route) = (0, Link::default());
        (*routed, *stranded, *port_claimed) = (false, false, false);
        *counted = 0;
    }

    /// Its control block is there: what was chosen for it, and what a router told of its path.
    pub(crate) fn start(
        &mut self,
        cfg: &Config,
        now: Nanos,
        settings: &Settings,
        path_mtu: Option<u16>,
    ) {
        self.tcb.begin(cfg, now, settings);
        if let Some(mtu) = path_mtu {
            self.tcb.set_path_mtu(cfg, now, mtu);
        }
    }

    /// Gives it a way to the peer, good until the epoch changes.
    pub(crate) fn set_route(&mut self, route: Link, epoch: u32) {
        self.route = route;
        self.epoch = epoch;
        self.routed = true;
    }

    pub(crate) fn id(&self, index: u32) -> ConnId {
        ConnId { index, generation: self.generation }
    }
}

impl Record for Conn {
    fn link(&self) -> u32 {
        self.link
    }
    fn set_link(&mut self, link: u32) {
        self.link = link;
    }
    fn generation(&self) -> u32 {
        self.generation
    }
    fn set_generation(&mut self, generation: u32) {
        self.generation = generation;
    }
}

impl Nodes<Output> for Arena<Conn> {
    fn links(&mut self, id: u32) -> &mut Links {
        &mut self[id].output
    }
}

impl Nodes<Waiting> for Arena<Conn> {
    fn links(&mut self, id: u32) -> &mut Links {
        &mut self[id].waiting
    }
}

impl Shard {
    /// Tells the host what came of an input.
    pub(crate) fn report(&mut self, now: Nanos, index: u32, events: Events, host: &mut impl Host) {
        if events.is_empty() {
            return;
        }
        if events.intersects(FAILURES) {
            self.count_failure(now, index, events);
        }
        let conn = &self.flows.records.conns[index];
        let update = Update {
            rcv_tail: conn.tcb.rcv_tail(),
            snd_acked: conn.tcb.snd_acked(),
            send_space: conn.tcb.send_space(&self.config.tcp),
            events,
            error: conn.tcb.error(),
        };
        host.update(conn.app, &update);
    }

    #[cold]
    fn count_failure(&mut self, now: Nanos, index: u32, events: Events) {
        let tuple = self.flows.records.conns[index].tuple;
        for (event, dropped) in [
            (Events::RESET, Dropped::EstabResets),
            (Events::REFUSED, Dropped::AttemptFails),
            (Events::TIMED_OUT, Dropped::AbortOnTimeout),
        ] {
            if events.contains(event) {
                self.dropped(now, dropped, tuple);
            }
        }
    }

    /// Puts the connection on the dirty list, for [`Shard::flush`] to look at.
    pub(crate) fn mark_dirty(&mut self, index: u32) {
        let conns = &mut self.flows.records.conns;
        if conns[index].output.is_linked() {
            if !conns[index].stranded {
                return;
            }
            self.unlist(index);
        }
        self.dirty.push_back(&mut self.flows.records.conns, index);
    }

    /// Whether the connection has a way to its peer; looks again when routes have changed. A way
    /// that worked is kept while its next hop is being resolved anew.
    pub(crate) fn has_route(&mut self, now: Nanos, index: u32, host: &mut impl Host) -> bool {
        let epoch = self.route_epoch(host);
        let conn = &mut self.flows.records.conns[index];
        if conn.routed && conn.epoch == epoch {
            return true;
        }
        conn.epoch = epoch;
        let peer = conn.tuple.remote.addr;
        let learned = self.path_mtus.get(|| self.keys.address_hash(&peer), &peer);
        match host.path(Some(conn.tuple.local.addr), conn.tuple.remote.addr) {
            Ok(path) => {
                conn.set_route(path.link, epoch);
                let mtu = learned.map_or(path.mtu, |learned| learned.min(path.mtu));
                conn.tcb.set_path_mtu(&self.config.tcp, now, mtu);
            }
            Err(PathError::NoRoute | PathError::Unresolved { .. }) => {}
        }
        conn.routed
    }

    /// What a route is good for: until this changes. Both parts only go up.
    pub(crate) fn route_epoch(&self, host: &impl Host) -> u32 {
        host.path_epoch().wrapping_add(self.path_mtus.epoch())
    }

    /// What a router told of the path to `peer`, if one did.
    pub(crate) fn path_mtu(&self, peer: &Addr) -> Option<u16> {
        self.path_mtus.get(|| self.keys.address_hash(peer), peer)
    }

    /// A router told of the path to `peer`: for its other connections, and those to come.
    pub(crate) fn learn_path_mtu(&mut self, now: Nanos, peer: Addr, mtu: u16) {
        let hash = self.keys.address_hash(&peer);
        self.path_mtus.learn(hash, peer, mtu, now.saturating_add(self.config.mtu_expires));
    }

    /// The link header to send with.
    pub(crate) fn route(&self, index: u32) -> Link {
        self.flows.records.conns[index].route
    }

    /// Takes the connection off the dirty or the stranded list.
    pub(crate) fn unlist(&mut self, index: u32) {
        let conns = &mut self.flows.records.conns;
        let stranded = std::mem::take(&mut conns[index].stranded);
        let list = if stranded { &mut self.stranded } else { &mut self.dirty };
        list.remove(conns, index);
    }

    /// Sets a connection aside until routes change or it has waited too long.
    pub(crate) fn strand(&mut self, now: Nanos, index: u32) {
        let conns = &mut self.flows.records.conns;
        conns[index].stranded = true;
        self.stranded.push_back(conns, index);
        if !conns[index].timer.is_armed() {
            let tick = self.tick_at(now.saturating_add(self.config.neighbour_timeout));
            let id = Ref::from(Flow::Conn(index)).raw();
            self.wheel.arm(&mut self.flows.records, id, tick);
        }
    }

    /// The connection's timer has fired: possibly early, because a timer is not moved when its
    /// deadline moves away.
    pub(crate) fn handle_conn_timer(&mut self, now: Nanos, index: u32, host: &mut impl Host) {
        let conn = &mut self.flows.records.conns[index];
        if conn.stranded {
            let tuple = conn.tuple;
            self.dropped(now, Dropped::NeighbourTimeouts, tuple);
            let conn = &mut self.flows.records.conns[index];
            // Nothing was sent, so nothing is to be sent.
            let _ = conn.tcb.abort();
            let update = Update {
                rcv_tail: 0,
                snd_acked: 0,
                send_space: 0,
                events: Events::UNREACHABLE | Events::CLOSED,
                error: Some(Error::HostUnreachable),
            };
            host.update(conn.app, &update);
            self.mark_dirty(index);
            return;
        }
        if conn.tcb.deadline().is_some_and(|deadline| deadline <= now) {
            let reaction = conn.tcb.handle_timer(&self.config.tcp, now);
            self.report(now, index, reaction.events, host);
            self.mark_dirty(index);
            return;
        }
        self.rearm(index);
    }

    /// Makes sure that the timer fires no later than the control block wants.
    pub(crate) fn rearm(&mut self, index: u32) {
        let conn = &self.flows.records.conns[index];
        let Some(deadline) = conn.tcb.deadline() else { return };
        let tick = self.tick_at(deadline);
        let timer = &conn.timer;
        if timer.is_armed() && timer.deadline().wrapping_sub(tick as u32) as i32 <= 0 {
            return;
        }
        let id = Ref::from(Flow::Conn(index)).raw();
        self.wheel.arm(&mut self.flows.records, id, tick);
    }

    /// After everything due has been sent: frees the control block if the protocol is done with
    /// it, or turns it into a TIME_WAIT record.
    pub(crate) fn settle(&mut self, now: Nanos, index: u32, host: &mut impl Host) {
        self.recount(index);
        let tcb = &self.flows.records.conns[index].tcb;
        match tcb.state() {
            State::Closed => self.free(index, host),
            State::TimeWait => self.retire(now, index, Substate::TimeWait, host),
            State::FinWait2 if tcb.is_orphan() => {
                self.retire(now, index, Substate::FinWait2, host);
            }
            State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => self.rearm(index),
        }
    }

    /// A connection begins.
    pub(crate) fn count(&mut self, index: u32) {
        let conn = &mut self.flows.records.conns[index];
        conn.counted = conn.tcb.state() as u8;
        self.states[usize::from(conn.counted)] += 1;
    }

    /// Its state may have changed.
    #[inline]
    fn recount(&mut self, index: u32) {
        let conn = &mut self.flows.records.conns[index];
        let state = conn.tcb.state() as u8;
        if conn.counted != state {
            self.states[usize::from(conn.counted)] -= 1;
            self.states[usize::from(state)] += 1;
            conn.counted = state;
        }
    }

    /// Takes the connection out of the flow table and frees it.
    pub(crate) fn free(&mut self, index: u32, host: &mut impl Host) {
        let conn = &self.flows.records.conns[index];
        let (hash, port) = (u64::from(conn.hash), conn.tuple.local.port);
        self.flows.remove(hash, Flow::Conn(index), port);
        self.release(index, host);
    }

    /// Frees a connection that is in the flow table no more.
    pub(crate) fn release(&mut self, index: u32, host: &mut impl Host) {
        let id = Ref::from(Flow::Conn(index)).raw();
        self.wheel.cancel(&mut self.flows.records, id);
        if self.flows.records.conns[index].output.is_linked() {
            self.unlist(index);
        }
        let conns = &mut self.flows.records.conns;
        let conn = &conns[index];
        let app = conn.app;
        self.states[usize::from(conn.counted)] -= 1;
        self.orphans -= u32::from(conn.tcb.is_orphan());
        if conn.port_claimed {
            self.ports.give_back(&conn.tuple);
        }
        if conn.waiting.is_linked() {
            self.listeners.forget(conn.listener, conns, index);
        }
        conns.remove(index);
        host.closed(app);
    }
}
