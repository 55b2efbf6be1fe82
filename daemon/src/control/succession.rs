//! Listeners whose client is gone, kept for a successor.
//!
//! What a listener leaves behind (handshakes, and connections that nobody has accepted, with the
//! bytes that have come) is given to a group without a client, whose segment nobody else has. To
//! the stack the listener goes on: it answers, and its queues fill. A listener of the same user at
//! the same address takes all of that over; when none has come after `accept_grace`, the group is
//! removed like any other, and what waits there is reset.

use super::listeners::Former;
use super::processes::Members;
use super::registry::Registry;
use crate::messages::GroupId;
use crate::served::Claimant;
use fourwave_protocol::{EXTENT_SLOTS, Params};
use fourwave_stack::ListenerShared;
use std::net::SocketAddr;
use std::sync::Arc;

/// Groups that keep something at a time. A client that opens and closes listeners as fast as it
/// can gets no more; what those leave behind is reset.
const MAX_KEEPERS: usize = 256;
/// Of one user: something is left for the others.
const MAX_KEEPERS_OF_USER: usize = MAX_KEEPERS / 2;

impl Registry {
    /// Gives listeners that end to a new group that keeps them, under the same indices. `None` if
    /// nothing is to be kept.
    pub(super) fn keep(
        &mut self,
        group: GroupId,
        mut former: Vec<(u32, Former)>,
    ) -> Option<GroupId> {
        // To others that listen at the same address the workers give all at once.
        former.retain(|&(listener, _)| !self.has_partner(Claimant { group, listener }));
        let record = self.groups.get(&group)?;
        let keepers = || self.groups.values().filter(|group| group.keeps);
        let of_user = keepers().filter(|group| group.peer.uid == record.peer.uid).count();
        if former.is_empty()
            || record.keeps
            || record.evicted
            || self.draining.is_some()
            || self.policy.accept_grace().is_zero()
            || keepers().count() >= MAX_KEEPERS
            || of_user >= MAX_KEEPERS_OF_USER
        {
            return None;
        }
        let waiting = former.iter().map(|(_, former)| former.shared.backlog() + 1).sum();
        let params = params(record.segment.layout().params(), waiting);
        let (peer, name) = (record.peer, record.name.clone());
        // Its memory is the workers' alone: the descriptor goes at once.
        let keeper = match self.add(peer, name, params, Members::default()) {
            Ok((keeper, _memory)) => keeper,
            Err(error) => {
                tracing::warn!(%error, "no memory to keep un-accepted connections");
                return None;
            }
        };
        for (listener, former) in former {
            let claimant = Claimant { group, listener };
            self.ports.keep(claimant, Claimant { group: keeper, listener });
            if let Some(record) = self.groups.get_mut(&keeper) {
                record.listeners.keep(listener, former);
            }
        }
        Some(keeper)
    }

    /// Whether somebody listens at the same address who does not end with this listener.
    fn has_partner(&self, claimant: Claimant) -> bool {
        let leaves = |group| self.groups.get(&group).is_none_or(|record| record.removed.is_some());
        self.ports.partners(claimant).any(|partner| {
            let record = self.groups.get(&partner.group);
            let listens = record.is_some_and(|it| it.listeners.former(partner.listener).is_some());
            listens && !leaves(partner.group)
        })
    }

    /// Who binds without `SO_REUSEADDR` succeeds nobody: as in Linux, what a former listener of the
    /// same user has left there ends, and is in the way for no longer than that takes.
    pub(super) fn give_up_kept(&mut self, uid: u32, address: SocketAddr, v6_only: bool) {
        for (kept, uid_of_kept) in self.kept() {
            if uid_of_kept == uid && self.ports.is_at(kept, address, v6_only) {
                self.end_kept(kept);
            }
        }
    }

    /// Makes way for a listener that is about to listen: what is kept of former ones where it will
    /// be goes on with it if it is their successor, and ends if not. Returns the keeper and index
    /// of the one that it succeeds, and what the workers share of it.
    pub(super) fn take_former(
        &mut self,
        claimant: Claimant,
    ) -> Option<((GroupId, u32), Arc<ListenerShared>)> {
        let record = self.groups.get(&claimant.group)?;
        if !record.listeners.is_bound(claimant.listener) {
            return None;
        }
        let (uid, place) = (record.peer.uid, record.listeners.address(claimant.listener)?);
        let mut taken = None;
        for (kept, uid_of_kept) in self.kept() {
            if !self.ports.overlap(claimant, kept) {
                continue;
            }
            let Some(record) = self.groups.get_mut(&kept.group) else { continue };
            let same = record.listeners.address(kept.listener) == Some(place);
            if same && uid_of_kept == uid {
                // Of several that shared the address the others wait for more successors, and
                // give all to this one in the end.
                if taken.is_none()
                    && let Some(former) = record.listeners.former(kept.listener)
                {
                    record.listeners.forget(kept.listener);
                    self.gone(kept);
                    taken = Some(((kept.group, kept.listener), former.shared));
                }
                continue;
            }
            self.end_kept(kept);
        }
        taken
    }

    /// A listener that shares its address with nobody listens: what former ones that did have left
    /// there is all its own.
    pub(super) fn gather(&mut self, claimant: Claimant) {
        for (kept, _) in self.kept() {
            if self.ports.overlap(claimant, kept) {
                self.end_kept(kept);
            }
        }
    }

    /// Ends a kept listener. Its queues go to who shares its address at the workers, or are reset.
    fn end_kept(&mut self, kept: Claimant) {
        let Some(record) = self.groups.get_mut(&kept.group) else { return };
        if let Ok(step) = record.listeners.close(kept.listener, None) {
            self.take(step, kept.group, kept.listener, None);
        }
    }

    /// Removes a keeper that has nothing left to keep.
    pub(super) fn dissolve_empty(&mut self, keeper: GroupId) {
        if self.groups.get(&keeper).is_some_and(|group| group.listeners.is_empty()) {
            self.remove(keeper);
        }
    }

    /// Listeners that are kept, and the user that each belongs to.
    fn kept(&self) -> Vec<(Claimant, u32)> {
        let keepers = self.groups.iter().filter(|(_, it)| it.keeps && it.removed.is_none());
        keepers
            .flat_map(|(&group, record)| {
                let uid = record.peer.uid;
                let indices = record.listeners.indices();
                indices.map(move |listener| (Claimant { group, listener }, uid))
            })
            .collect()
    }
}

/// The segment of a keeper: with room for all that may wait, as far as the quota of the client that
/// is gone reached.
fn params(quota: &Params, waiting: u32) -> Params {
    let connections = waiting.min(quota.connections);
    Params {
        lanes: 1,
        connections,
        extents: quota.extents.min(connections.saturating_mul(EXTENT_SLOTS as u32)),
        // Nobody reads, so nothing grows beyond its first window.
        tables: 1,
        command_entries: 1,
        grant_entries: 1,
        ..*quota
    }
}
