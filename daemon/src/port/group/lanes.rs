//! Lanes of a group: doorbells, commands, answers and send extents.

use super::Group;
use crate::port::Evict;
use crate::port::lane::Lane;
use crate::port::notify::Notices;
use fourwave_protocol::Process;
use fourwave_protocol::command::{COMMAND_WORDS, Event};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

impl Group {
    /// Attaches a lane of `process`; `doorbell` is the daemon's end of its socket pair with this
    /// worker.
    pub fn add_lane(&mut self, lane: u16, process: Process, doorbell: OwnedFd) {
        self.remove_lane(lane);
        let mut fresh = Lane::new(&self.segment, (lane, self.worker), process, doorbell);
        let filled = fresh.refill(&self.segment, &mut self.memory.pool);
        self.lanes[usize::from(lane)] = Some(fresh);
        self.attached.push(lane);
        if let Err(why) = filled {
            self.evict(why);
        }
    }

    /// Detaches a lane: its grants return. Control clears its rings before the next use, when
    /// every worker has let go.
    pub fn remove_lane(&mut self, lane: u16) {
        if let Some(gone) = self.lanes[usize::from(lane)].take() {
            self.attached.retain(|&other| other != lane);
            self.memory.pool.revoke(lane, gone.granted());
        }
    }

    /// A lane of slot `slot`'s group is gone, perhaps told of a connection that it will not take
    /// any more: others that wait are told of what is queued.
    pub fn pass_wake_ups_on(&mut self, slot: u32, lane: u16, notices: &mut Notices) {
        for (index, listener) in (0..).zip(&mut self.listeners) {
            let Some(listener) = listener else { continue };
            self.segment.listener(index).unwait(lane);
            if listener.stack.is_some() && listener.has_waiting() {
                if listener.pushed == 0 {
                    notices.listener(slot, index);
                }
                listener.pushed += listener.waiting();
            }
        }
    }

    /// Detaches all lanes, for a group that is gone.
    pub fn remove_lanes(&mut self) {
        for lane in self.attached.drain(..) {
            self.lanes[usize::from(lane)] = None;
        }
        self.memory.pool.revoke_all();
    }

    /// The doorbell of a lane.
    pub fn doorbell(&self, lane: u16) -> Option<BorrowedFd<'_>> {
        self.lanes.get(usize::from(lane))?.as_ref().map(AsFd::as_fd)
    }

    /// Takes the client's rings off a doorbell. `false`: the client's end is closed.
    pub fn drain_doorbell(&self, lane: u16) -> bool {
        match self.lanes.get(usize::from(lane)) {
            Some(Some(lane)) => lane.drain_doorbell(),
            Some(None) | None => false,
        }
    }

    /// Numbers of the lanes that are attached, in no order.
    pub fn attached(&self) -> &[u16] {
        &self.attached
    }

    /// Whether no lane has said anything for long.
    pub fn is_silent(&self) -> bool {
        let mut lanes =
            self.attached.iter().filter_map(|&lane| self.lanes[usize::from(lane)].as_ref());
        lanes.all(Lane::is_silent)
    }

    /// Whether to look for commands of a lane in this turn: not every time after it has been silent
    /// for long.
    pub fn is_due(&self, lane: u16, turn: u64) -> bool {
        self.lanes[usize::from(lane)].as_ref().is_some_and(|lane| lane.is_due(turn))
    }

    /// Commands that a lane's ring holds at the most.
    pub fn most_commands(&self) -> u32 {
        self.segment.layout().params().command_entries
    }

    /// Whether any lane has a command waiting.
    pub fn has_command(&mut self) -> bool {
        self.evicted.is_none()
            && self.attached.iter().any(|&lane| {
                let lane = self.lanes[usize::from(lane)].as_mut();
                lane.is_some_and(|lane| lane.has_command(&self.segment))
            })
    }

    /// The next command of a lane.
    ///
    /// # Errors
    /// [`Evict::RingIndex`].
    pub fn pop_command(&mut self, lane: u16) -> Result<Option<[u64; COMMAND_WORDS]>, Evict> {
        match &mut self.lanes[usize::from(lane)] {
            Some(lane) => lane.pop(&self.segment),
            None => Ok(None),
        }
    }

    /// Whether the lane could be sent an event now.
    ///
    /// # Errors
    /// [`Evict::RingIndex`].
    pub fn has_event_room(&mut self, lane: u16) -> Result<bool, Evict> {
        match &mut self.lanes[usize::from(lane)] {
            Some(lane) => lane.has_event_room(&self.segment),
            None => Ok(false),
        }
    }

    /// Posts an answer to a lane, for which room was seen before.
    ///
    /// # Errors
    /// [`Evict::RingIndex`].
    pub fn answer(
        &mut self,
        slot: u32,
        lane: u16,
        event: Event,
        notices: &mut Notices,
    ) -> Result<(), Evict> {
        if let Some(port) = &mut self.lanes[usize::from(lane)] {
            let told = port.touched;
            let posted = port.post(&self.segment, event)?;
            assert!(posted.is_some(), "room for the answer was checked before the command");
            if !told {
                notices.lane(slot, lane);
            }
        }
        Ok(())
    }

    /// The lane has no send extents left.
    pub fn want_grants(&mut self, lane: u16) {
        if let Some(lane) = &mut self.lanes[usize::from(lane)] {
            lane.want_grants(&self.segment);
        }
    }

    /// Gives a lane send extents if it runs low.
    ///
    /// # Errors
    /// [`Evict::RingIndex`].
    pub fn refill(&mut self, slot: u32, lane: u16, notices: &mut Notices) -> Result<(), Evict> {
        if let Some(port) = &mut self.lanes[usize::from(lane)]
            && port.runs_low()
        {
            let told = port.touched;
            port.refill(&self.segment, &mut self.memory.pool)?;
            if port.touched && !told {
                notices.lane(slot, lane);
            }
        }
        Ok(())
    }
}
