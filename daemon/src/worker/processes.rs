//! Processes of a group: forked, and gone one by one.

use super::Worker;
use super::host::conn_from_raw;
use crate::messages::{FromWorker, GroupId};
use crate::port::{AppId, Close, Holder};
use fourwave_protocol::Process;

/// Connections of a process that is gone which are let go in one turn, so that others are not held
/// up.
const RELEASES_PER_TURN: usize = 256;

/// A process that is gone, and what it still holds.
pub(super) struct Departing {
    slot: u32,
    group: GroupId,
    holder: Box<Holder>,
    next: u32,
    /// Whether all that others had posted when it went is worked on.
    settled: bool,
}

impl Worker {
    /// Takes in what a group's processes have accepted.
    pub(super) fn collect_accepted(&mut self, slot: u32) {
        let Some(group) = self.env.clients.group(slot) else { return };
        let (shard, forsaken) = (&mut self.shard, &mut self.forsaken);
        group.collect_accepted(|accepted| {
            shard.accepted(accepted.listener, conn_from_raw(accepted.stack));
            if !accepted.held {
                forsaken.push(accepted.index);
            }
        });
        self.close_forsaken(slot);
    }

    /// Closes what a process has accepted that is gone.
    pub(super) fn close_forsaken(&mut self, slot: u32) {
        while let Some(index) = self.forsaken.pop() {
            self.close_connection(slot, index, false);
        }
    }

    /// A process begins that holds what its parent holds now.
    pub(super) fn fork(&mut self, id: GroupId, parent: Process, child: Box<Holder>) {
        let process = child.process();
        if let Some(slot) = self.env.clients.slot_of(id) {
            self.collect_accepted(slot);
            for lane in self.lanes_of(slot, |other| other == parent) {
                self.finish_lane(slot, lane);
            }
            let group = self.env.clients.of(AppId { group: slot, conn: 0 });
            group.add_process(child, Some(parent));
        }
        self.env.outbox.send(FromWorker::Forked { group: id, process, worker: self.index });
    }

    /// A process is gone; its lanes were removed before.
    pub(super) fn remove_process(&mut self, id: GroupId, process: Process) {
        let slot = self.env.clients.slot_of(id);
        let group = slot.and_then(|slot| self.env.clients.group(slot));
        let (Some(slot), Some(group)) = (slot, group) else {
            let worker = self.index;
            self.env.outbox.send(FromWorker::ProcessRemoved { group: id, process, worker });
            return;
        };
        let holder = group.remove_process(process);
        self.collect_accepted(slot);
        match holder {
            Some(holder) => {
                let settled = false;
                self.departing.push(Departing { slot, group: id, holder, next: 0, settled });
            }
            None => {
                let worker = self.index;
                self.env.outbox.send(FromWorker::ProcessRemoved { group: id, process, worker });
            }
        }
    }

    /// Lets go what processes held that are gone, some in each turn.
    pub(super) fn release_departing(&mut self) -> usize {
        let mut done = 0;
        let mut departing = std::mem::take(&mut self.departing);
        departing.retain_mut(|gone| {
            let (group, worker) = (gone.group, self.index);
            // A group that is gone, or going, as a whole closes all there is.
            let here = self.env.clients.find(gone.slot).is_some_and(|found| found.id() == group);
            let whole = here && self.leaving.iter().all(|leaving| leaving.id() != group);
            if whole && self.release_some(gone, &mut done) {
                return true;
            }
            let process = gone.holder.process();
            self.env.outbox.send(FromWorker::ProcessRemoved { group, process, worker });
            false
        });
        self.departing = departing;
        done
    }

    /// Whether there is more.
    fn release_some(&mut self, gone: &mut Departing, done: &mut usize) -> bool {
        let slot = gone.slot;
        for _ in 0..RELEASES_PER_TURN {
            let Some(index) = gone.holder.next(gone.next) else { return false };
            gone.next = index + 1;
            *done += 1;
            let group = self.env.clients.of(AppId { group: slot, conn: index });
            if !gone.settled && group.was_writing(index, gone.holder.process()) {
                // What others wrote before it began must be known before its leavings are removed.
                gone.settled = true;
                for lane in self.lanes_of(slot, |_| true) {
                    self.finish_lane(slot, lane);
                }
            }
            let group = self.env.clients.of(AppId { group: slot, conn: index });
            match group.let_go_for(&mut gone.holder, index) {
                Close::Last => {
                    // Its last word about what it read may be a lie.
                    let abort = group.evicted().is_some() || group.look_at_head(index).is_err();
                    self.close_connection(slot, index, abort);
                }
                Close::Others => {
                    let process = gone.holder.process();
                    group.pass_events_on(slot, index, process, &mut self.env.notices);
                }
                Close::NotHeld => {}
            }
        }
        true
    }

    fn lanes_of(&mut self, slot: u32, which: impl Fn(Process) -> bool) -> Vec<u16> {
        let group = self.env.clients.of(AppId { group: slot, conn: 0 });
        let of = |lane: &u16| group.process_of(*lane).is_some_and(&which);
        group.attached().iter().copied().filter(of).collect()
    }
}
