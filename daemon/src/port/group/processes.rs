//! The processes of a group, and who holds which connection.

use super::listeners::Accepted;
use super::{Group, block};
use crate::port::conn::Conn;
use crate::port::holds::{Holder, Holders};
use crate::port::listener::Unaccepted;
use crate::port::notify::Notices;
use core::sync::atomic::Ordering;
use fourwave_protocol::command::Event;
use fourwave_protocol::{Process, Segment};

/// What a process that closes a connection leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// Nobody holds it any more: it ends.
    Last,
    /// Other processes go on with it.
    Others,
    /// The process did not hold it.
    NotHeld,
}

impl Group {
    /// A process begins; it holds what `parent` holds, if it is a fork. What that has accepted was
    /// [collected](Self::collect_accepted) before.
    pub fn add_process(&mut self, holder: Box<Holder>, parent: Option<Process>) {
        let Group { segment, holders, conns, worker, .. } = self;
        holders.add(holder, parent, |index| change_holders(segment, *worker, conns, index, 1));
    }

    /// A process is gone, and its lanes are: what it still holds is to be
    /// [let go](Self::let_go_for), connection by connection. What others had posted before was worked
    /// on; what it has claimed on accept queues can be [collected](Self::collect_accepted) after
    /// this.
    pub fn remove_process(&mut self, process: Process) -> Option<Box<Holder>> {
        for index in 0..self.listeners.len() {
            let Some(listener) = &mut self.listeners[index] else { continue };
            if listener.stack.is_some()
                && let Err(why) = listener.pass_claimed(&self.segment)
            {
                self.evict(why);
            }
        }
        self.holders.remove(process)
    }

    /// Whether `process` was in the middle of a write, to a connection that it or others hold.
    pub fn was_writing(&self, index: u32, process: Process) -> bool {
        self.block(index).client.writer.holder() == Some(process)
    }

    /// A process that is gone holds a connection no longer. If others go on with it, they find
    /// nothing half done.
    pub fn let_go_for(&mut self, gone: &mut Holder, index: u32) -> Close {
        if !gone.remove(index) {
            return Close::NotHeld;
        }
        let left = self.let_go_of(index);
        if left == Close::Others {
            let block = block(&self.segment, self.worker, index);
            let conn = &mut self.conns[index as usize];
            conn.put_right(block, &mut self.memory.pool, gone.process());
        }
        left
    }

    /// A process holds a connection that it opened.
    pub fn hold(&mut self, index: u32, process: Process) {
        if self.holders.hold(process, index) {
            change_holders(&self.segment, self.worker, &mut self.conns, index, 1);
        }
    }

    /// A process gives its handle up.
    pub fn let_go(&mut self, index: u32, process: Process) -> Close {
        match self.holders.release(process, index) {
            true => self.let_go_of(index),
            false => Close::NotHeld,
        }
    }

    fn let_go_of(&mut self, index: u32) -> Close {
        change_holders(&self.segment, self.worker, &mut self.conns, index, -1);
        match self.conns[index as usize].holders {
            0 => Close::Last,
            _ => Close::Others,
        }
    }

    /// A process has let go of a connection that others go on with. If the daemon was to tell this
    /// one, those others may have asked before it did: they are told to ask again.
    pub fn pass_events_on(&mut self, slot: u32, index: u32, gone: Process, notices: &mut Notices) {
        let handle = self.handle(index);
        let client = &block(&self.segment, self.worker, index).client;
        let mut lost = false;
        for word in [&client.wake_reader, &client.wake_writer] {
            // Relaxed: whoever is told below makes the fence when it asks again.
            let told = word.load(Ordering::Relaxed);
            let Some(lane) = told.checked_sub(1) else { continue };
            let lane = self.lanes.get(usize::from(lane)).and_then(Option::as_ref);
            if lane.is_none_or(|lane| lane.process == gone) {
                lost |=
                    word.compare_exchange(told, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            }
        }
        if !lost {
            return;
        }
        for &lane in &self.attached {
            let Some(target) = &mut self.lanes[usize::from(lane)] else { continue };
            if !self.holders.holds(target.process, index) {
                continue;
            }
            let first = !target.touched;
            match target.post(&self.segment, Event::Ready { handle }) {
                Ok(Some(_)) if first => notices.lane(slot, lane),
                // A full ring is not empty: the lane will look at all that it has.
                Ok(_) => {}
                Err(why) => self.evicted = self.evicted.or(Some(why)),
            }
        }
    }

    /// The process to name as a connection's owner.
    pub fn holder_of(&self, index: u32) -> Option<Process> {
        self.holders.holder_of(index)
    }

    /// Whose a lane is.
    pub fn process_of(&self, lane: u16) -> Option<Process> {
        self.lanes[usize::from(lane)].as_ref().map(|lane| lane.process)
    }
}

/// What lets a process hold what it has taken off an accept queue.
pub(super) fn holding<'a>(
    segment: &'a Segment,
    worker: u32,
    holders: &'a mut Holders,
    conns: &'a mut [Conn],
) -> impl FnMut(u32, Unaccepted, Process) -> Accepted + use<'a> {
    move |listener, Unaccepted { stack, index, .. }, process| {
        let held = holders.hold(process, index);
        if held {
            change_holders(segment, worker, conns, index, 1);
        }
        Accepted { listener, stack, index, held }
    }
}

/// Counts a holder in or out, and lets the client know how many there are.
fn change_holders(segment: &Segment, worker: u32, conns: &mut [Conn], index: u32, by: i16) {
    let conn = &mut conns[index as usize];
    conn.holders = conn.holders.strict_add_signed(by);
    // Relaxed: a figure that orders nothing.
    let shared = &block(segment, worker, index).daemon.holders;
    shared.store(conn.holders.into(), Ordering::Relaxed);
}
