//! What control tells a worker, and what a worker tells control.

use super::Worker;
use super::bell::Bell;
use super::listeners::Place;
use crate::messages::{FromWorker, GroupId, ToWorker};
use crate::port::{AppId, Evict, Life};
use crossbeam::queue::ArrayQueue;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::sync::Arc;

/// Connections of a leaving group that are closed in one turn, so that others are not held up.
const CLOSES_PER_TURN: usize = 256;

/// Turns for one look for groups that are to be evicted. A worker does not sleep before it has told.
const TURNS_PER_REPORT: u64 = 8;

/// The way to control: a bounded queue, and what did not fit it yet.
pub(super) struct Outbox {
    queue: Arc<ArrayQueue<FromWorker>>,
    /// Answers that must not be lost. As long as there are groups and listeners at the most.
    backlog: VecDeque<FromWorker>,
    bell: Arc<Bell>,
}

impl Outbox {
    pub(super) fn new(queue: Arc<ArrayQueue<FromWorker>>, bell: Arc<Bell>) -> Outbox {
        Outbox { queue, backlog: VecDeque::new(), bell }
    }

    /// Sends a message that must arrive.
    pub(super) fn send(&mut self, message: FromWorker) {
        self.backlog.push_back(message);
        self.flush();
    }

    /// Sends a message that will be repeated if it is lost.
    pub(super) fn offer(&mut self, message: FromWorker) {
        if self.queue.push(message).is_ok() {
            self.bell.ring_always();
        }
    }

    /// Sends on what did not fit before.
    pub(super) fn flush(&mut self) {
        while let Some(message) = self.backlog.pop_front() {
            if let Err(message) = self.queue.push(message) {
                self.backlog.push_front(message);
                return;
            }
            self.bell.ring_always();
        }
    }
}

/// A group whose client is gone: its connections are closed bit by bit.
pub(super) struct Leaving {
    slot: u32,
    id: GroupId,
    next: u32,
}

impl Leaving {
    pub(super) fn id(&self) -> GroupId {
        self.id
    }
}

impl Worker {
    /// Works on control's messages; returns how many there were.
    pub(super) fn handle_control(&mut self) -> usize {
        let mut done = 0;
        while let Some(message) = self.inbox.pop() {
            self.handle_message(message);
            done += 1;
        }
        self.env.outbox.flush();
        if self.counters.turns.is_multiple_of(TURNS_PER_REPORT) {
            self.report_evictions();
        }
        done += self.close_leaving();
        done += self.release_departing();
        done += self.answer_inquiries();
        done
    }

    fn handle_message(&mut self, message: ToWorker) {
        match message {
            ToWorker::Paths(paths) => self.env.paths = paths,
            ToWorker::AddGroup { group } => {
                self.env.clients.add(group);
            }
            ToWorker::RemoveGroup { group, keeper } => self.remove_group(group, keeper),
            ToWorker::Fork { group, parent, child } => self.fork(group, parent, child),
            ToWorker::RemoveProcess { group, process } => self.remove_process(group, process),
            ToWorker::AddLane { group, process, lane, doorbell } => {
                let Some(slot) = self.env.clients.slot_of(group) else { return };
                let group = self.env.clients.of(AppId { group: slot, conn: 0 });
                group.add_lane(lane, process, doorbell);
                if let Some(doorbell) = group.doorbell(lane) {
                    self.sleep.watch(doorbell, slot, lane);
                }
            }
            ToWorker::RemoveLane { group, lane } => {
                if let Some(slot) = self.env.clients.slot_of(group) {
                    self.finish_lane(slot, lane);
                    self.catch_up(slot);
                    let group = self.env.clients.of(AppId { group: slot, conn: 0 });
                    group.remove_lane(lane);
                    group.pass_wake_ups_on(slot, lane, &mut self.env.notices);
                }
                self.env.outbox.send(FromWorker::LaneRemoved { group, lane, worker: self.index });
            }
            ToWorker::Listen { group, listener, address, v6_only, shared, settings, former } => {
                let place = (group, listener);
                let error = self.listen(place, address, v6_only, shared, former).err();
                self.configure(group, listener, &settings);
                let error = error.map(Errno::raw_os_error);
                let worker = self.index;
                self.env.outbox.send(FromWorker::Listening { group, listener, worker, error });
            }
            ToWorker::Configure { group, listener, settings, told: _told } => {
                self.configure(group, listener, &settings);
            }
            ToWorker::Unlisten { group, listener, keeper } => {
                if let Some(slot) = self.env.clients.slot_of(group) {
                    self.unlisten(slot, listener, keeper, false);
                }
                let worker = self.index;
                self.env.outbox.send(FromWorker::Unlistened { group, listener, worker });
            }
            ToWorker::ReportIdle { port } => self.idle_ports.push(port),
            ToWorker::Look { told } => {
                self.report_idle();
                self.env.outbox.send(FromWorker::Looked { told });
            }
            ToWorker::Tap(tap) => self.env.taps.add(tap),
            ToWorker::Inquire(inquiry) => self.inquiries.add(inquiry),
            ToWorker::Drain => self.drain(),
            ToWorker::Stop => self.stopping = true,
        }
    }

    fn remove_group(&mut self, id: GroupId, keeper: Option<GroupId>) {
        let Some(slot) = self.env.clients.slot_of(id) else {
            self.env.outbox.send(FromWorker::GroupRemoved { group: id, worker: self.index });
            return;
        };
        let lanes = self.env.clients.of(AppId { group: slot, conn: 0 }).attached().to_vec();
        for lane in lanes {
            self.finish_lane(slot, lane);
        }
        let group = self.env.clients.of(AppId { group: slot, conn: 0 });
        group.remove_lanes();
        let open: Vec<u32> = group.open_listeners().map(|(index, _)| index).collect();
        for listener in open {
            self.unlisten(slot, listener, keeper, true);
        }
        self.leaving.push(Leaving { slot, id, next: 0 });
    }

    /// Closes the connections of groups whose client is gone, some in each turn; what the client
    /// had written is still sent. A group is dropped when its last connection has ended.
    fn close_leaving(&mut self) -> usize {
        let mut done = 0;
        let mut position = 0;
        while position < self.leaving.len() {
            let (slot, id) = (self.leaving[position].slot, self.leaving[position].id);
            done += self.close_some(position, slot);
            let group = self.env.clients.of(AppId { group: slot, conn: 0 });
            if group.used() == 0 {
                assert!(group.is_empty(), "an extent outlived its connection");
                self.env.clients.remove(slot);
                self.leaving.swap_remove(position);
                self.env.outbox.send(FromWorker::GroupRemoved { group: id, worker: self.index });
            } else {
                position += 1;
            }
        }
        done
    }

    fn close_some(&mut self, position: usize, slot: u32) -> usize {
        for done in 0..CLOSES_PER_TURN {
            let group = self.env.clients.of(AppId { group: slot, conn: 0 });
            let Some(index) = group.next_used(self.leaving[position].next) else { return done };
            self.leaving[position].next = index + 1;
            // A hostile group is reset; so is one whose last word about what it read is a lie.
            let abort = group.evicted().is_some() || group.look_at_head(index).is_err();
            match group.conn(index).life {
                Life::Open | Life::Ended => self.close_connection(slot, index, abort),
                Life::Orphan | Life::Free => {}
            }
        }
        CLOSES_PER_TURN
    }

    /// Refuses new connections; those that exist go on.
    fn drain(&mut self) {
        self.draining = true;
        for number in 0..self.env.listeners.len() {
            if let Some(Place { slot, index }) = self.env.listeners[number] {
                self.unlisten(slot, index, None, false);
            }
        }
    }

    fn report_evictions(&mut self) {
        for group in self.env.clients.iter_mut() {
            if let Some(why) = group.report_eviction() {
                self.counters.count_eviction(why);
                let (group, reason) = (group.id(), Evict::reason(why));
                self.env.outbox.send(FromWorker::Evicted { group, worker: self.index, reason });
            }
        }
    }

    /// Answers what control waits for; called now and then.
    pub(super) fn report_idle(&mut self) {
        let (shard, outbox, worker) = (&self.shard, &mut self.env.outbox, self.index);
        self.idle_ports.retain(|&port| {
            let used = shard.uses_port(port);
            if !used {
                outbox.send(FromWorker::PortIdle { port, worker });
            }
            used
        });
        if self.draining && self.shard.gauges().connections == 0 {
            self.env.outbox.send(FromWorker::Drained { worker });
            self.draining = false;
        }
    }

    /// Resets everything that is left, and sends those resets.
    pub(super) fn stop(&mut self) {
        self.shard.abort_all();
        // Bounded: the ring empties as the kernel sends, or not at all.
        for _ in 0..1000 {
            let all = self.shard.flush(self.env.now, &mut self.env);
            if self.env.tx.flush() && all {
                break;
            }
        }
    }
}
