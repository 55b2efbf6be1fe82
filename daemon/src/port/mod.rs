//! The client side of one worker: what it knows of each application group, and how it checks
//! all that a client can write.
//!
//! Everything here is private daemon memory; the shared segment is read at a few places only
//! ([`commands`](crate::worker), [`conn`], [`listener`]), each of which loads a value once,
//! checks it and uses the copy. An impossible value ends in [`Evict`]: the group is reset as a
//! whole and nobody else notices.

mod chain;
mod conn;
mod extents;
mod group;
mod holds;
mod lane;
mod listener;
mod notify;
pub mod settings;
mod tables;

pub use conn::{Conn, Life};
pub use group::{Accepted, Change, Close, Group};
pub use holds::Holder;
pub use listener::{Ended, Unaccepted};
pub use notify::Notices;

use crate::messages::GroupId;
use core::net::SocketAddr;
use fourwave_protocol::Corrupt;
use lane::QUIET_TURNS;

/// Why a group is evicted. Each reason is counted under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evict {
    /// A ring index that no correct client writes.
    RingIndex,
    /// An accept queue's index that no correct client writes.
    AcceptIndex,
    /// A command that does not exist.
    UnknownCommand,
    /// A connection index outside of the segment or of this worker's part of it.
    ConnectionIndex,
    /// A send tail that went backwards or beyond the limit.
    SendTail,
    /// A send extent that was not granted, or is in use.
    SendExtent,
    /// A receive head that went backwards or beyond what was delivered.
    ReceiveHead,
}

impl Evict {
    /// Every reason, in the order of the discriminants.
    pub const ALL: [Evict; 7] = [
        Evict::RingIndex,
        Evict::AcceptIndex,
        Evict::UnknownCommand,
        Evict::ConnectionIndex,
        Evict::SendTail,
        Evict::SendExtent,
        Evict::ReceiveHead,
    ];

    /// Name in counters.
    pub fn name(self) -> &'static str {
        match self {
            Evict::RingIndex => "ring_index",
            Evict::AcceptIndex => "accept_index",
            Evict::UnknownCommand => "unknown_command",
            Evict::ConnectionIndex => "connection_index",
            Evict::SendTail => "send_tail",
            Evict::SendExtent => "send_extent",
            Evict::ReceiveHead => "receive_head",
        }
    }

    /// What the client did, for logs.
    pub fn reason(self) -> &'static str {
        match self {
            Evict::RingIndex => "ring index out of range",
            Evict::AcceptIndex => "accept queue index out of range",
            Evict::UnknownCommand => "unknown command",
            Evict::ConnectionIndex => "connection index out of range",
            Evict::SendTail => "send tail out of range",
            Evict::SendExtent => "send extent not granted",
            Evict::ReceiveHead => "receive head out of range",
        }
    }
}

impl From<Corrupt> for Evict {
    fn from(Corrupt: Corrupt) -> Evict {
        Evict::RingIndex
    }
}

/// Names a connection's application side to the stack: slot of the group at this worker, and
/// index of the connection among this worker's connections of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AppId {
    /// Slot in [`Clients`].
    pub group: u32,
    /// Index in the group's connections of this worker.
    pub conn: u32,
}

impl AppId {
    /// As the opaque number that the stack carries.
    pub fn to_raw(self) -> u64 {
        u64::from(self.group) << 32 | u64::from(self.conn)
    }

    /// Back from the opaque number.
    pub fn from_raw(raw: u64) -> AppId {
        AppId { group: (raw >> 32) as u32, conn: raw as u32 }
    }
}

/// All groups that this worker serves.
#[derive(Debug, Default)]
pub struct Clients {
    groups: Vec<Option<Box<Group>>>,
    /// By slot: the turn in which to look for commands next. Kept beside the groups, so that passing
    /// over those that are silent costs nothing.
    look_in: Vec<u64>,
}

impl Clients {
    /// No groups yet.
    pub fn new() -> Clients {
        Clients::default()
    }

    /// Takes a group in; returns its slot.
    pub fn add(&mut self, group: Box<Group>) -> u32 {
        match self.groups.iter().position(Option::is_none) {
            Some(free) => {
                self.groups[free] = Some(group);
                self.look_in[free] = 0;
                free as u32
            }
            None => {
                self.groups.push(Some(group));
                self.look_in.push(0);
                self.groups.len() as u32 - 1
            }
        }
    }

    /// Drops the group in this slot.
    pub fn remove(&mut self, slot: u32) {
        self.groups[slot as usize] = None;
    }

    /// The slot of the group with this id.
    pub fn slot_of(&self, id: GroupId) -> Option<u32> {
        self.groups
            .iter()
            .position(|group| group.as_ref().is_some_and(|group| group.id() == id))
            .map(|slot| slot as u32)
    }

    /// The group in this slot.
    pub fn group(&mut self, slot: u32) -> Option<&mut Group> {
        self.groups.get_mut(slot as usize)?.as_deref_mut()
    }

    /// The group in this slot, to look at.
    pub fn find(&self, slot: u32) -> Option<&Group> {
        self.groups.get(slot as usize)?.as_deref()
    }

    /// Copies connection `index` of one group, which nobody has accepted, into another, as one
    /// that waits at its `listener`: its index there. The old one is still to be
    /// [disowned](Group::disown). `None` when the other has no room, or when the first one's client
    /// has used the connection although it never accepted it.
    pub fn adopt(
        &mut self,
        from: AppId,
        to: u32,
        listener: u32,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Option<AppId> {
        let slots = [from.group as usize, to as usize];
        let [source, target] = self.groups.get_disjoint_mut(slots).ok()?;
        let (source, target) = (source.as_ref()?, target.as_mut()?);
        let conn = target.adopt(source, from.conn, listener, local, peer)?;
        Some(AppId { group: to, conn })
    }

    /// The group of a connection that the stack names: it exists while the stack has one.
    ///
    /// # Panics
    /// If it does not: a bug of ours.
    pub fn of(&mut self, app: AppId) -> &mut Group {
        self.group(app.group).expect("a group outlives its connections")
    }

    /// Whether to look for commands of the group in this slot in turn `turn`.
    pub fn is_due(&self, slot: u32, turn: u64) -> bool {
        self.look_in[slot as usize] <= turn
    }

    /// The group in this slot was looked at in turn `turn`.
    pub fn looked_at(&mut self, slot: u32, turn: u64) {
        let silent = self.find(slot).is_some_and(Group::is_silent);
        self.look_in[slot as usize] = turn + if silent { QUIET_TURNS } else { 1 };
    }

    /// The group in this slot may have something to say: it is looked at in the next turn.
    pub fn stir(&mut self, slot: u32) {
        self.look_in[slot as usize] = 0;
    }

    /// Whether any group has a command waiting, which is taken in the next turn then, or is to be
    /// evicted and nobody was told.
    pub fn have_work(&mut self) -> bool {
        for (group, look_in) in self.groups.iter_mut().zip(&mut self.look_in) {
            let Some(group) = group else { continue };
            if group.has_command() || group.has_eviction_to_report() {
                *look_in = 0;
                return true;
            }
        }
        false
    }

    /// Number of slots, for loops that need the groups one by one.
    pub fn slots(&self) -> u32 {
        self.groups.len() as u32
    }

    /// All groups.
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().flatten().map(Box::as_ref)
    }

    /// All groups, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        self.groups.iter_mut().flatten().map(Box::as_mut)
    }
}

#[cfg(test)]
mod tests;
