//! What clients ask for. Every command is copied out of shared memory before it is looked at,
//! and everything in it is checked; see [`crate::port`].

use super::Worker;
use super::host::{conn_from_raw, conn_to_raw};
use crate::port::{AppId, Close, Evict, Life};
use core::net::SocketAddr;
use fourwave_protocol::command::{Command, Event};
use fourwave_protocol::{ExtentId, Handle};
use fourwave_stack::ConnectError;
use fourwave_wire::Endpoint;
use rustix::io::Errno;

/// Commands taken from one lane in one turn, so that no lane holds up the others.
const COMMANDS_PER_LANE: usize = 64;

/// Connection slots of a group that are looked at for idle extents at a time.
const RECLAIM_SLOTS: u32 = 256;

impl Worker {
    /// Works on what waits in the command rings; returns how much that was.
    pub(super) fn handle_commands(&mut self) -> usize {
        let mut done = 0;
        let turn = self.counters.turns;
        for slot in 0..self.env.clients.slots() {
            if !self.env.clients.is_due(slot, turn) {
                continue;
            }
            let Some(group) = self.env.clients.group(slot) else { continue };
            if group.evicted().is_some() {
                continue;
            }
            let all = group.is_silent();
            self.collect_accepted(slot);
            let count = self.env.clients.find(slot).map_or(0, |group| group.attached().len());
            // Who comes first gets the send extents that are left: not always the same.
            let first = self.counters.turns as usize;
            for position in (0..count).map(|n| (first + n) % count) {
                // Lanes come and go through control's messages only, never in this loop.
                let group = self.env.clients.of(AppId { group: slot, conn: 0 });
                let lane = group.attached()[position];
                if !all && !group.is_due(lane, turn) {
                    continue;
                }
                match self.handle_lane(slot, lane) {
                    Ok(count) => done += count,
                    Err(why) => self.evict(slot, why),
                }
            }
            self.env.clients.looked_at(slot, turn);
        }
        done
    }

    fn handle_lane(&mut self, slot: u32, lane: u16) -> Result<usize, Evict> {
        let mut done = 0;
        while done < COMMANDS_PER_LANE {
            let Some(group) = self.env.clients.group(slot) else { break };
            // An answer must find room: one place is kept for every command taken.
            if group.evicted().is_some() || !group.has_event_room(lane)? {
                break;
            }
            let Some(words) = group.pop_command(lane)? else { break };
            let command = Command::decode(words).ok_or(Evict::UnknownCommand)?;
            self.handle_command(slot, lane, command)?;
            done += 1;
        }
        if let Some(group) = self.env.clients.group(slot) {
            group.refill(slot, lane, &mut self.env.notices)?;
        }
        Ok(done)
    }

    /// Works on what all lanes of a group hold, before one of them is removed: a thread may have
    /// written into an extent that had been granted to another's lane. Not more than their rings
    /// held, however fast the client goes on.
    pub(super) fn catch_up(&mut self, slot: u32) {
        let group = self.env.clients.of(AppId { group: slot, conn: 0 });
        let lanes = group.attached().to_vec();
        let rounds = group.most_commands() as usize / COMMANDS_PER_LANE + 1;
        for lane in lanes {
            for _ in 0..rounds {
                match self.handle_lane(slot, lane) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(why) => return self.evict(slot, why),
                }
            }
        }
    }

    /// Works on all that a lane has left behind, before it is removed: what a client wrote just
    /// before it exited is still sent.
    pub(super) fn finish_lane(&mut self, slot: u32, lane: u16) {
        let group = self.env.clients.of(AppId { group: slot, conn: 0 });
        if group.evicted().is_some() {
            return;
        }
        loop {
            match self.handle_lane(slot, lane) {
                Ok(0) => return,
                Ok(_) => {}
                Err(why) => return self.evict(slot, why),
            }
        }
    }

    fn handle_command(&mut self, slot: u32, lane: u16, command: Command) -> Result<(), Evict> {
        self.counters.commands += 1;
        match command {
            Command::Send { handle, tail, last } => self.send(slot, handle, tail, last),
            Command::Consumed { handle } => {
                if let Some(index) = self.resolve(slot, handle)? {
                    self.look_at_head(slot, index)?;
                }
                Ok(())
            }
            Command::ShutdownWrite { handle, tail, last } => {
                self.send(slot, handle, tail, last)?;
                self.shutdown_write(slot, handle)
            }
            Command::Close { handle, tail, last, abort } => {
                self.send(slot, handle, tail, last)?;
                self.close(slot, lane, handle, abort)
            }
            Command::Connect { token, peer } => self.connect(slot, lane, token, peer),
            Command::SetOption { handle, option, value } => {
                self.set_option(slot, handle, option, value)
            }
            Command::Preset { option, value } => {
                self.preset(slot, lane, option, value);
                Ok(())
            }
            Command::Ask { token, handle } => self.ask(slot, lane, token, handle),
            Command::WantGrants => {
                if let Some(group) = self.env.clients.group(slot) {
                    group.want_grants(lane);
                }
                Ok(())
            }
        }
    }

    /// The connection that a client names, or `None` (counted) for a stale handle.
    pub(super) fn resolve(&mut self, slot: u32, handle: Handle) -> Result<Option<u32>, Evict> {
        let Some(group) = self.env.clients.group(slot) else { return Ok(None) };
        let index = group.resolve(handle)?;
        if index.is_none() {
            self.counters.stale_handles += 1;
        }
        Ok(index)
    }

    fn send(
        &mut self,
        slot: u32,
        handle: Handle,
        tail: u64,
        last: Option<ExtentId>,
    ) -> Result<(), Evict> {
        let Some(index) = self.resolve(slot, handle)? else { return Ok(()) };
        let group = self.env.clients.of(AppId { group: slot, conn: index });
        let before = group.conn(index).send_tail();
        group.take_written(index, tail, last)?;
        let conn = group.conn(index);
        let (stack, tail, life) = (conn.stack, conn.send_tail(), conn.life);
        if life == Life::Open && tail > before {
            // Stale: the connection ended in this very turn, which `closed` will tell the client.
            let _ = self.shard.send(conn_from_raw(stack), tail);
        }
        self.look_at_head(slot, index)
    }

    /// Looks how far the client has read and opens the receive window accordingly.
    fn look_at_head(&mut self, slot: u32, index: u32) -> Result<(), Evict> {
        let group = self.env.clients.of(AppId { group: slot, conn: index });
        if let Some(base) = group.look_at_head(index)? {
            let stack = conn_from_raw(group.conn(index).stack);
            // Stale: nothing more will be received.
            let _ = self.shard.consumed(stack, base);
            if let Ok(Some(wanted)) = self.shard.tune_receive(self.env.now, stack) {
                let backed = group.back_window(index, wanted);
                let _ = self.shard.set_receive_window(stack, backed);
            }
        }
        Ok(())
    }

    /// Takes back what an idle connection's receive window was promised.
    fn rest(&mut self, slot: u32, index: u32) {
        let group = self.env.clients.of(AppId { group: slot, conn: index });
        let conn = group.conn(index);
        let stack = conn_from_raw(conn.stack);
        if conn.is_backed() && self.shard.rest_receive(self.env.now, stack) == Ok(true) {
            group.back_window(index, 0);
        }
    }

    /// Takes back extents of connections whose client has read all and said nothing since, some
    /// in each call.
    pub(super) fn reclaim_extents(&mut self) {
        for slot in 0..self.env.clients.slots() {
            let mut budget = RECLAIM_SLOTS;
            while let Some(group) = self.env.clients.group(slot)
                && group.evicted().is_none()
                && let Some(index) = group.next_holder(&mut budget)
            {
                match self.look_at_head(slot, index) {
                    Ok(()) => self.rest(slot, index),
                    Err(why) => self.evict(slot, why),
                }
            }
        }
    }

    fn shutdown_write(&mut self, slot: u32, handle: Handle) -> Result<(), Evict> {
        let Some(index) = self.resolve(slot, handle)? else { return Ok(()) };
        let group = self.env.clients.of(AppId { group: slot, conn: index });
        group.close_writing(index);
        let conn = group.conn(index);
        if conn.life == Life::Open {
            let _ = self.shard.shutdown_write(conn_from_raw(conn.stack));
        }
        Ok(())
    }

    /// A process closes its handle; the connection, if nobody else holds it.
    fn close(&mut self, slot: u32, lane: u16, handle: Handle, abort: bool) -> Result<(), Evict> {
        let Some(index) = self.resolve(slot, handle)? else { return Ok(()) };
        match self.let_go(slot, lane, index) {
            Close::Last => {
                let group = self.env.clients.of(AppId { group: slot, conn: index });
                group.look_at_head(index)?;
                self.close_connection(slot, index, abort);
            }
            Close::Others => {
                let group = self.env.clients.of(AppId { group: slot, conn: index });
                if let Some(process) = group.process_of(lane) {
                    group.pass_events_on(slot, index, process, &mut self.env.notices);
                }
            }
            Close::NotHeld => self.counters.stale_handles += 1,
        }
        Ok(())
    }

    fn let_go(&mut self, slot: u32, lane: u16, index: u32) -> Close {
        let group = self.env.clients.of(AppId { group: slot, conn: index });
        let Some(process) = group.process_of(lane) else { return Close::NotHeld };
        match group.let_go(index, process) {
            Close::NotHeld => {
                // It may have been accepted in this very turn.
                self.collect_accepted(slot);
                let group = self.env.clients.of(AppId { group: slot, conn: index });
                group.let_go(index, process)
            }
            left => left,
        }
    }

    /// Closes as the kernel does: RST when received bytes were not read, else FIN.
    pub(super) fn close_connection(&mut self, slot: u32, index: u32, abort: bool) {
        let group = self.env.clients.of(AppId { group: slot, conn: index });
        let conn = group.conn(index);
        let (stack, life, head) = (conn_from_raw(conn.stack), conn.life, conn.receive_head());
        group.close(index);
        if life != Life::Open {
            return;
        }
        // Until now the stack knew where the window begins; for this it must know what was read.
        let _ = self.shard.consumed(stack, head);
        let closed =
            if abort { self.shard.abort(stack) } else { self.shard.close(self.env.now, stack) };
        // An open connection has a control block until Host::closed() says otherwise.
        assert!(closed.is_ok(), "the stack forgot a connection without a word");
    }

    fn connect(&mut self, slot: u32, lane: u16, token: u32, peer: SocketAddr) -> Result<(), Evict> {
        let event = match self.open_active(slot, lane, peer) {
            Ok(handle) => Event::Opened { token, handle },
            Err(errno) => Event::Refused { token, errno: errno.raw_os_error() as u32 },
        };
        match self.env.clients.group(slot) {
            Some(group) => group.answer(slot, lane, event, &mut self.env.notices),
            None => Ok(()),
        }
    }

    fn open_active(&mut self, slot: u32, lane: u16, peer: SocketAddr) -> Result<Handle, Errno> {
        let group = self.env.clients.group(slot).ok_or(Errno::NETDOWN)?;
        let settings = group.take_preset(lane);
        if self.draining {
            self.counters.refused_draining += 1;
            return Err(Errno::NETDOWN);
        }
        let unknown = SocketAddr::new(peer.ip(), 0);
        let Some(index) = group.open(0, None, unknown, peer) else {
            self.counters.refused_quota += 1;
            return Err(Errno::NOBUFS);
        };
        group.begin_with(index, &settings);
        let app = AppId { group: slot, conn: index };
        let remote = Endpoint::from(peer);
        let (now, app_raw) = (self.env.now, app.to_raw());
        match self.shard.connect_with(now, app_raw, None, remote, &settings, &mut self.env) {
            Ok((conn, tuple)) => {
                let group = self.env.clients.of(app);
                group.bind_active(index, conn_to_raw(conn), tuple.local.into(), peer);
                if let Some(process) = group.process_of(lane) {
                    group.hold(index, process);
                }
                Ok(group.handle(index))
            }
            Err(why) => {
                self.env.clients.of(app).abandon(index);
                Err(connect_errno(why))
            }
        }
    }

    /// Marks a group as hostile and tells control, once.
    pub(super) fn evict(&mut self, slot: u32, why: Evict) {
        if let Some(group) = self.env.clients.group(slot) {
            group.evict(why);
        }
    }
}

/// The errno that `connect(2)` gives when no handshake can be begun.
fn connect_errno(why: ConnectError) -> Errno {
    match why {
        ConnectError::NoRoute => Errno::NETUNREACH,
        ConnectError::NoPort => Errno::ADDRNOTAVAIL,
        ConnectError::InUse => Errno::ADDRINUSE,
        ConnectError::NotOwner => Errno::ADDRNOTAVAIL,
        ConnectError::Full => Errno::NOBUFS,
        ConnectError::BadAddress => Errno::INVAL,
    }
}
