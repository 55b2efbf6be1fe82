//! Telling clients what changed: events first, then at most one ring per sleeping lane.
//!
//! Changes are collected while a batch is worked on and delivered once at its end, after one
//! fence for all of them (see [`fourwave_protocol::wake`]).

use super::{AppId, Clients};

/// What changed about a connection since its client was last told, and the event that may still
/// lie unread in a ring.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pending {
    /// Bits [`READ`] and [`WRITE`].
    pub(super) changed: u8,
    /// Whether the connection is on the list of [`Notices`].
    pub(super) listed: bool,
    /// Lane and ordinal of the last event for who reads, and for who writes: with one place for
    /// both, a lane of each would be told of every change, whether it takes its events or not.
    pub(super) last: [Option<(u16, u64)>; 2],
}

/// There is something to read, or an end or error to notice.
pub(super) const READ: u8 = 1;
/// There is room to write, or the connection was made or failed.
pub(super) const WRITE: u8 = 2;

/// The lists of one loop. They keep their capacity; a list longer than ever before grows once.
#[derive(Debug, Default)]
pub struct Notices {
    connections: Vec<AppId>,
    listeners: Vec<(u32, u32)>,
    lanes: Vec<(u32, u16)>,
}

impl Notices {
    /// Room for `connections` changes in one loop without growing.
    pub fn with_capacity(connections: usize) -> Notices {
        Notices {
            connections: Vec::with_capacity(connections),
            listeners: Vec::with_capacity(64),
            lanes: Vec::with_capacity(256),
        }
    }

    /// The connection changed; called once until delivered.
    pub(super) fn connection(&mut self, app: AppId) {
        self.connections.push(app);
    }

    /// A connection was pushed on this listener's queue; called once until delivered.
    pub(super) fn listener(&mut self, group: u32, listener: u32) {
        self.listeners.push((group, listener));
    }

    /// Something was posted to this lane.
    pub(super) fn lane(&mut self, group: u32, lane: u16) {
        self.lanes.push((group, lane));
    }

    /// Whether there is nothing to deliver.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.listeners.is_empty() && self.lanes.is_empty()
    }

    /// Posts the events that clients have asked for, and rings the lanes that sleep.
    pub fn deliver(&mut self, clients: &mut Clients) {
        if self.is_empty() {
            return;
        }
        // Orders what was published before this loop's looks at who waits.
        fourwave_protocol::wake::publish_fence();
        let mut kept = 0;
        for position in 0..self.connections.len() {
            let app = self.connections[position];
            let Some(group) = clients.group(app.group) else { continue };
            if !group.tell_connection(app, &mut self.lanes) {
                self.connections[kept] = app;
                kept += 1;
            }
        }
        self.connections.truncate(kept);
        for (slot, listener) in self.listeners.drain(..) {
            if let Some(group) = clients.group(slot) {
                group.tell_listener(slot, listener, &mut self.lanes);
            }
        }
        // Orders the events before the looks at the sleep flags.
        fourwave_protocol::wake::publish_fence();
        for (slot, lane) in self.lanes.drain(..) {
            if let Some(group) = clients.group(slot) {
                group.wake_lane(lane);
                // It will answer.
                clients.stir(slot);
            }
        }
    }
}
