//! One lane of a group at this worker: private ring cursors, the doorbell, send grants.

use super::Evict;
use super::extents::ExtentPool;
use fourwave_protocol::command::{COMMAND_WORDS, Event, encode_grant};
use fourwave_protocol::report::Report;
use fourwave_protocol::ring::{Consumer, Producer};
use fourwave_protocol::{Process, Segment};
use fourwave_tcp::Settings;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{RecvFlags, SendFlags};

/// Most send extents that a lane holds unused at one worker, to begin with.
const GRANT_TARGET: u32 = 64;
/// The part of all extents that a lane may hold unused once fewer have not been enough.
const GRANT_SHARE: u32 = 16;
/// Fewest that it is given where there are enough, so that one full send window can be written.
const GRANT_FLOOR: u32 = 16;

/// Looks for commands in vain after which a lane is looked at less often: most lanes of a daemon with
/// many programs say nothing for seconds, and a look costs a cache miss.
const QUIET_LOOKS: u32 = 256;
/// Turns for one look at such a lane. It is looked at every time again once it has said something, or
/// was told something and will answer.
pub(super) const QUIET_TURNS: u64 = 8;

/// What the worker keeps of a lane.
#[derive(Debug)]
pub(super) struct Lane {
    lane: u16,
    worker: u32,
    /// Whose it is.
    pub(super) process: Process,
    doorbell: OwnedFd,
    commands: Consumer,
    events: Producer,
    grants: Producer,
    /// Extents granted and not yet used.
    granted: u32,
    /// Up to how many it is given. Doubles whenever they have not lasted until the worker came round:
    /// an application that has the worker's CPU in between serves hundreds of connections.
    target: u32,
    /// The client ran out of send extents and asked to be told.
    wants_grants: bool,
    /// Looks for commands in vain since it said, or was told, something.
    quiet: u32,
    /// What the connection begins with that it opens next.
    pub(super) preset: Settings,
    /// Something was published since the doorbell was last considered.
    pub(super) touched: bool,
}

impl Lane {
    pub(super) fn new(
        segment: &Segment,
        (lane, worker): (u16, u32),
        process: Process,
        doorbell: OwnedFd,
    ) -> Lane {
        let params = segment.layout().params();
        let share = params.extents / (4 * params.lanes);
        Lane {
            lane,
            worker,
            process,
            doorbell,
            commands: Consumer::new(),
            events: Producer::new(),
            grants: Producer::new(),
            granted: 0,
            target: share.clamp(GRANT_FLOOR, GRANT_TARGET).min(params.grant_entries),
            wants_grants: false,
            quiet: 0,
            preset: Settings::default(),
            touched: false,
        }
    }

    /// Whether it has said nothing for long, and waits for nothing that is given in passing.
    pub(super) fn is_silent(&self) -> bool {
        self.quiet >= QUIET_LOOKS && !self.wants_grants
    }

    /// Whether to look for commands in this turn.
    pub(super) fn is_due(&self, turn: u64) -> bool {
        !self.is_silent() || turn.wrapping_add(self.lane.into()).is_multiple_of(QUIET_TURNS)
    }

    /// The next command, copied out of shared memory.
    pub(super) fn pop(&mut self, segment: &Segment) -> Result<Option<[u64; COMMAND_WORDS]>, Evict> {
        let command = self.commands.pop(&segment.command_ring(self.lane, self.worker))?;
        self.quiet = if command.is_some() { 0 } else { self.quiet.saturating_add(1) };
        Ok(command)
    }

    /// Whether a command waits, which is taken in the next turn then.
    pub(super) fn has_command(&mut self, segment: &Segment) -> bool {
        // An impossible index counts as work: pop() will say so.
        let waits = self
            .commands
            .available(&segment.command_ring(self.lane, self.worker))
            .map_or(true, |waiting| waiting > 0);
        if waits {
            self.quiet = 0;
        }
        waits
    }

    /// Whether an event could be posted now.
    pub(super) fn has_event_room(&mut self, segment: &Segment) -> Result<bool, Evict> {
        Ok(self.events.room(&segment.event_ring(self.lane, self.worker), 1)? > 0)
    }

    /// Posts an event; its ordinal, or `None` when the ring is full.
    pub(super) fn post(&mut self, segment: &Segment, event: Event) -> Result<Option<u64>, Evict> {
        let ordinal = self.events.next_ordinal();
        let ring = segment.event_ring(self.lane, self.worker);
        let posted = self.events.push(&ring, event.encode())?;
        self.touched |= posted;
        self.quiet = 0;
        Ok(posted.then_some(ordinal))
    }

    /// Whether the client has taken the event with this ordinal.
    pub(super) fn taken(&mut self, segment: &Segment, ordinal: u64) -> Result<bool, Evict> {
        Ok(self.events.taken(&segment.event_ring(self.lane, self.worker), ordinal)?)
    }

    /// Leaves a report, of which an event tells afterwards.
    pub(super) fn leave_report(&self, segment: &Segment, report: &Report) {
        segment.report(self.lane, self.worker).store(report);
    }

    /// An extent granted to this lane came back filled.
    pub(super) fn used_grant(&mut self) {
        self.granted = self.granted.strict_sub(1);
    }

    /// Extents that it has been granted and has not used.
    pub(super) fn granted(&self) -> u32 {
        self.granted
    }

    /// The client asks for send extents: it has none left, and is given more from now on.
    pub(super) fn want_grants(&mut self, segment: &Segment) {
        self.wants_grants = true;
        let params = segment.layout().params();
        let most = (params.extents / GRANT_SHARE).min(params.grant_entries);
        self.target = (2 * self.target).min(most).max(self.target);
    }

    /// Whether a refill would be worth its cost.
    pub(super) fn runs_low(&self) -> bool {
        self.wants_grants || self.granted <= self.target / 2
    }

    /// Grants send extents up to the target, as far as the pool gives any.
    pub(super) fn refill(&mut self, segment: &Segment, pool: &mut ExtentPool) -> Result<(), Evict> {
        let ring = segment.grant_ring(self.lane, self.worker);
        let missing = self.target.saturating_sub(self.granted);
        for _ in 0..pool.grant_share(missing, self.wants_grants) {
            if self.grants.room(&ring, 1)? == 0 {
                break;
            }
            let Some(extent) = pool.grant(self.lane) else { break };
            let pushed = self.grants.push(&ring, encode_grant(extent))?;
            assert!(pushed, "there was room");
            self.granted += 1;
        }
        // Not only when some were given just now: the question may have crossed the answer.
        let some = self.granted > 0;
        if some && self.wants_grants && self.post(segment, Event::Granted)?.is_some() {
            self.wants_grants = false;
        }
        Ok(())
    }

    /// Wakes the client if it sleeps. The caller has made the fence after publishing.
    pub(super) fn wake(&mut self, segment: &Segment) {
        self.touched = false;
        if segment.lane_sleeper(self.lane).is_sleeping() {
            // A full socket buffer holds a ring already; a closed one is for control to notice.
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let _ = rustix::net::send(&self.doorbell, &[1], flags);
        }
    }

    /// Takes the rings that the client made off the doorbell. `false`: the other end is closed.
    pub(super) fn drain_doorbell(&self) -> bool {
        let mut bytes = [0u8; 64];
        match rustix::net::recv(&self.doorbell, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((count, _)) => count > 0,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => true,
            Err(_) => false,
        }
    }
}

impl AsFd for Lane {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }
}
