//! Listeners at this worker: how they begin, and where their queues go when they end.

use super::Worker;
use super::host::conn_from_raw;
use crate::messages::GroupId;
use crate::port::{AppId, Ended, Unaccepted};
use core::net::SocketAddr;
use fourwave_stack::{ListenError, ListenerShared};
use fourwave_tcp::Settings;
use fourwave_wire::Endpoint;
use rustix::io::Errno;
use std::sync::Arc;

/// A listener of a group: the group's slot, and the listener's index in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slot: u32,
    pub(super) index: u32,
}

impl Worker {
    /// Begins to listen; goes on with the queues of the `former` listener, if that is here, and with
    /// what its connections began with until it is [configured](Self::configure).
    pub(super) fn listen(
        &mut self,
        (group, index): (GroupId, u32),
        address: SocketAddr,
        v6_only: bool,
        shared: Arc<ListenerShared>,
        former: Option<(GroupId, u32)>,
    ) -> Result<(), Errno> {
        if self.draining {
            return Err(Errno::NETDOWN);
        }
        let slot = self.env.clients.slot_of(group).ok_or(Errno::NETDOWN)?;
        let place = Place { slot, index };
        if let Some(former) = former.and_then(|(group, index)| self.place(group, index))
            && self.hand_over(former, place).is_some()
        {
            return Ok(());
        }
        let free = self.env.listeners.iter().position(Option::is_none).ok_or(Errno::NOBUFS)?;
        // The stack tells the families' wildcards apart as the addresses do.
        let local = Endpoint::from(address);
        self.shard.listen(free as u32, local, v6_only, shared).map_err(|error| match error {
            ListenError::InUse => Errno::ADDRINUSE,
            ListenError::BadId => Errno::NOBUFS,
        })?;
        self.install(free as u32, place, &Settings::default());
        self.idle_ports.retain(|&port| port != address.port());
        Ok(())
    }

    /// What connections of a listener begin with from now on, if there is such a listener.
    pub(super) fn configure(&mut self, group: GroupId, listener: u32, settings: &Settings) {
        let Some(slot) = self.env.clients.slot_of(group) else { return };
        let group = self.env.clients.of(AppId { group: slot, conn: 0 });
        if let Some(stack) = group.configure(listener, settings) {
            self.shard.configure_listener(stack, settings);
        }
    }

    /// Ends a listener. What waits in its queues goes to those that share its address, else to
    /// `keeper`, else it is reset. So is all that a hostile group leaves behind. Of a group that
    /// is `leaving` no listener can take over another one's.
    pub(super) fn unlisten(
        &mut self,
        slot: u32,
        index: u32,
        keeper: Option<GroupId>,
        leaving: bool,
    ) {
        let place = Place { slot, index };
        let keep = !self.draining && self.group_is_sound(slot);
        let stack = self.env.clients.group(slot).and_then(|group| group.stack_listener(index));
        let Some(stack) = stack else { return };
        let listeners = &self.env.listeners;
        let stays = |partner: u32| {
            !leaving || listeners[partner as usize].is_some_and(|place| place.slot != slot)
        };
        if keep
            && !self.shard.has_partner(stack, stays)
            && let Some(keeper) = keeper.and_then(|group| self.env.clients.slot_of(group))
            && self.hand_over(place, Place { slot: keeper, index }).is_some()
        {
            return;
        }
        let Some(ended) = self.end(place) else { return };
        let keep = keep && self.group_is_sound(slot);
        for waiting in ended.waiting {
            let partner = self.shard.partner(stack, conn_from_raw(waiting.stack));
            let moved = keep
                && partner.is_some_and(|partner| {
                    let to = self.env.listeners[partner as usize];
                    self.move_waiting(slot, waiting, to.expect("a listener has a place"), partner)
                });
            if !moved {
                self.env.clients.of(AppId { group: slot, conn: 0 }).close(waiting.index);
            }
        }
        // Resets what is left there.
        self.shard.unlisten(self.env.now, stack);
        self.env.listeners[stack as usize] = None;
    }

    /// Gives a listener to another group, queues and all: to the stack, whose name for it this
    /// returns, it stays the same. `None` if there is none.
    fn hand_over(&mut self, from: Place, to: Place) -> Option<u32> {
        let Ended { stack, waiting, settings } = self.end(from)?;
        self.install(stack, to, &settings);
        let sound = self.group_is_sound(from.slot);
        for waiting in waiting {
            if !(sound && self.move_waiting(from.slot, waiting, to, stack)) {
                self.env.clients.of(AppId { group: from.slot, conn: 0 }).close(waiting.index);
                let conn = conn_from_raw(waiting.stack);
                self.shard.refuse_waiting(self.env.now, stack, conn);
            }
        }
        Some(stack)
    }

    /// Moves a connection that nobody has accepted from a group to a listener, perhaps of another
    /// group, which the stack knows as `stack`. `false`, and it is where it was, if there is no
    /// room for it or it has died.
    fn move_waiting(&mut self, slot: u32, waiting: Unaccepted, to: Place, stack: u32) -> bool {
        let conn = conn_from_raw(waiting.stack);
        let old = AppId { group: slot, conn: waiting.index };
        let Ok(tuple) = self.shard.tuple(conn) else { return false };
        let clients = &mut self.env.clients;
        let app = if slot == to.slot {
            Some(old)
        } else {
            clients.adopt(old, to.slot, to.index, tuple.local.into(), tuple.remote.into())
        };
        let Some(app) = app else { return false };
        if !self.shard.move_waiting(self.env.now, conn, stack, app.to_raw()) {
            if app != old {
                clients.of(app).abandon(app.conn);
            }
            return false;
        }
        if app == old {
            clients.of(app).set_listener(app.conn, to.index);
        } else {
            clients.of(old).disown(old.conn);
        }
        // The ring is larger than any backlog; a corrupt one evicts its group, whose connections
        // are then reset.
        clients.of(app).push_accept(app, waiting.stamp, &mut self.env.notices);
        true
    }

    fn end(&mut self, place: Place) -> Option<Ended> {
        let (shard, forsaken) = (&mut self.shard, &mut self.forsaken);
        let ended = self.env.clients.group(place.slot)?.unlisten(place.index, |accepted| {
            shard.accepted(accepted.listener, conn_from_raw(accepted.stack));
            if !accepted.held {
                forsaken.push(accepted.index);
            }
        });
        self.close_forsaken(place.slot);
        ended
    }

    fn install(&mut self, stack: u32, place: Place, settings: &Settings) {
        self.env.listeners[stack as usize] = Some(place);
        let group = self.env.clients.of(AppId { group: place.slot, conn: 0 });
        group.listen(place.index, stack, settings);
    }

    fn place(&self, group: GroupId, index: u32) -> Option<Place> {
        Some(Place { slot: self.env.clients.slot_of(group)?, index })
    }

    fn group_is_sound(&self, slot: u32) -> bool {
        self.env.clients.find(slot).is_some_and(|group| group.evicted().is_none())
    }
}
