//! Listeners of a group: what waits at them, and what was accepted.

use super::processes::holding;
use super::{Group, block};
use crate::port::AppId;
use crate::port::conn::Life;
use crate::port::listener::{Ended, Listener, Unaccepted};
use crate::port::notify::Notices;
use core::net::SocketAddr;
use fourwave_protocol::accept::Waiting;
use fourwave_tcp::Settings;

/// A connection that a process took off an accept queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The listener, as the stack names it.
    pub listener: u32,
    /// The connection, as the stack names it.
    pub stack: u64,
    /// The connection, as the group does.
    pub index: u32,
    /// Whether it is held now. If not, its process is gone, and it is to be closed.
    pub held: bool,
}

impl Group {
    /// Puts a connection on its listener's accept queue. `false`: the queue cannot take it.
    pub fn push_accept(&mut self, app: AppId, stamp: u64, notices: &mut Notices) -> bool {
        let handle = self.handle(app.conn);
        let conn = &self.conns[app.conn as usize];
        let Some(index) = conn.listener else { return false };
        let Some(listener) = &mut self.listeners[index as usize] else { return false };
        let first = listener.pushed == 0;
        let unaccepted = Unaccepted { stack: conn.stack, index: app.conn, stamp };
        let pushed = listener.push(&self.segment, Waiting { handle, stamp }, unaccepted);
        if pushed && first {
            notices.listener(app.group, index);
        }
        pushed
    }

    /// Opens listener `index` of the segment, known to the stack as `stack`; connections
    /// begin with `settings`.
    pub fn listen(&mut self, index: u32, stack: u32, settings: &Settings) {
        let worker = self.worker;
        let listener = self.listeners[index as usize]
            .get_or_insert_with(|| Listener::new(&self.segment, index, worker));
        listener.stack = Some(stack);
        listener.settings = *settings;
    }

    /// The stack's name of listener `index`, if it is open here.
    pub fn stack_listener(&self, index: u32) -> Option<u32> {
        self.listeners.get(index as usize)?.as_ref()?.stack
    }

    /// Listeners that are open here, by the stack's names.
    pub fn open_listeners(&self) -> impl Iterator<Item = (u32, u32)> {
        self.listeners
            .iter()
            .enumerate()
            .filter_map(|(index, listener)| Some((index as u32, listener.as_ref()?.stack?)))
    }

    /// Ends listener `index`; what waits in its queue is the caller's to move or to
    /// [close](Self::close). Calls `accepted` as [`collect_accepted`](Self::collect_accepted)
    /// does, for what was taken until now.
    pub fn unlisten(&mut self, index: u32, mut accepted: impl FnMut(Accepted)) -> Option<Ended> {
        let Group { segment, listeners, holders, conns, worker, .. } = self;
        let listener = listeners[index as usize].as_mut()?;
        let stack = listener.stack.take()?;
        let mut hold = holding(segment, *worker, holders, conns);
        let (waiting, broken) = listener.close(segment, |connection, process| {
            accepted(hold(stack, connection, process));
        });
        let settings = listener.settings;
        drop(hold);
        if let Some(why) = broken {
            self.evict(why);
        }
        Some(Ended { stack, waiting, settings })
    }

    /// See [`Clients::adopt`](super::Clients::adopt).
    pub(in crate::port) fn adopt(
        &mut self,
        source: &Group,
        index: u32,
        listener: u32,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Option<u32> {
        let theirs = &source.conns[index as usize];
        if theirs.life != Life::Open || theirs.is_used() {
            return None;
        }
        // It goes on as it began, whatever the listener is that it waits at now.
        let settings = &theirs.settings;
        let ours = self.open_with(theirs.stack, Some(listener), settings, local, peer)?;
        let conn = &mut self.conns[ours as usize];
        let block = block(&self.segment, self.worker, ours);
        let to = (&*self.segment, block, &mut self.memory);
        if !conn.copy_received(to, theirs, (&source.segment, &source.memory)) {
            self.free_slot(ours);
            return None;
        }
        self.add_status(ours, theirs.status);
        Some(ours)
    }

    /// A connection that nobody had accepted is another group's now.
    pub fn disown(&mut self, index: u32) {
        self.free_slot(index);
    }

    /// A connection that nobody has accepted waits at another listener.
    pub fn set_listener(&mut self, index: u32, listener: u32) {
        self.conns[index as usize].listener = Some(listener);
    }

    /// Calls `each` for every connection that was accepted since last time.
    pub fn collect_accepted(&mut self, mut each: impl FnMut(Accepted)) {
        let Group { segment, listeners, holders, conns, worker, .. } = self;
        let mut hold = holding(segment, *worker, holders, conns);
        let mut broken = None;
        for listener in listeners.iter_mut().flatten() {
            let Some(stack) = listener.stack else { continue };
            let accepted = listener.accepted(segment, |connection, process| {
                each(hold(stack, connection, process));
            });
            broken = broken.or(accepted.err());
        }
        drop(hold);
        if let Some(why) = broken {
            self.evict(why);
        }
    }

    /// Whether a connection waits to be accepted.
    pub fn has_waiting(&self) -> bool {
        self.listeners.iter().flatten().any(Listener::has_waiting)
    }
}
