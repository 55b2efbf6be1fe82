//! One application group at one worker: its connections and extents. Its other parts have files of
//! their own.

mod lanes;
mod listeners;
mod processes;
mod telling;

pub use listeners::Accepted;
pub use processes::Close;

use super::conn::{Conn, Life, Memory};
use super::extents::ExtentPool;
use super::holds::Holders;
use super::lane::Lane;
use super::listener::Listener;
use super::notify::{Notices, READ, WRITE};
use super::tables::Tables;
use super::{AppId, Evict, settings};
use crate::messages::GroupId;
use core::net::SocketAddr;
use core::sync::atomic::Ordering;
use fourwave_protocol::conn::{ConnBlock, status};
use fourwave_protocol::option::ConnOption;
use fourwave_protocol::report::Report;
use fourwave_protocol::{ExtentId, Handle, Segment};
use fourwave_tcp::Settings;
use std::sync::Arc;

const NONE: u32 = u32::MAX;

/// A group as one worker knows it.
#[derive(Debug)]
pub struct Group {
    id: GroupId,
    worker: u32,
    segment: Arc<Segment>,
    conns: Vec<Conn>,
    free: u32,
    used: u32,
    /// One past the highest slot that was ever used.
    top: u32,
    /// Where the search for idle connections that hold extents goes on.
    searched: u32,
    memory: Memory,
    lanes: Vec<Option<Lane>>,
    /// Numbers of the lanes that there are.
    attached: Vec<u16>,
    listeners: Vec<Option<Listener>>,
    holders: Holders,
    evicted: Option<Evict>,
    reported: bool,
}

/// What the stack reports about a connection, in the terms of the shared block.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// Bytes received in order, as a stream offset.
    pub receive_tail: u64,
    /// Bytes that the peer has acknowledged, as a stream offset.
    pub send_acked: u64,
    /// Bytes that may be written and not acknowledged.
    pub send_space: u32,
    /// Status bits to add.
    pub status: u32,
    /// errno, 0 for none.
    pub error: u32,
}

impl Group {
    /// A group with its segment, as worker `worker` sees it. Allocates all that it will need:
    /// to be made by the control thread.
    pub fn new(id: GroupId, worker: u32, segment: Arc<Segment>) -> Group {
        let params = *segment.layout().params();
        let conns = (1..=params.connections)
            .map(|next| Conn::free(if next == params.connections { NONE } else { next }))
            .collect();
        Group {
            id,
            worker,
            conns,
            free: 0,
            used: 0,
            top: 0,
            searched: 0,
            memory: Memory {
                pool: ExtentPool::new(worker * params.extents, params.extents),
                tables: Tables::new(worker * params.tables, params.tables, params.table_slots),
            },
            lanes: (0..params.lanes).map(|_| None).collect(),
            attached: Vec::with_capacity(params.lanes as usize),
            listeners: (0..params.listeners).map(|_| None).collect(),
            holders: Holders::new(),
            evicted: None,
            reported: false,
            segment,
        }
    }

    /// Its name.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// Why it is to be evicted, if it is.
    pub fn evicted(&self) -> Option<Evict> {
        self.evicted
    }

    /// The client did what no correct client does: from now on nothing of it is listened to.
    pub fn evict(&mut self, why: Evict) {
        self.evicted.get_or_insert(why);
    }

    /// Why it is to be evicted: once, for who passes it on.
    pub fn report_eviction(&mut self) -> Option<Evict> {
        let why = self.evicted.filter(|_| !self.reported)?;
        self.reported = true;
        Some(why)
    }

    /// Whether it is to be evicted and nobody was told.
    pub fn has_eviction_to_report(&self) -> bool {
        self.evicted.is_some() && !self.reported
    }

    /// Connections that hold a slot.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Whether every connection slot and every extent is free (grants revoked).
    pub fn is_empty(&self) -> bool {
        self.used == 0 && self.memory.pool.is_whole() && self.memory.tables.is_whole()
    }

    /// Tells the clients' threads to ring this worker from now on, because it is about to sleep.
    pub fn prepare_sleep(&self) {
        self.segment.worker_sleeper(self.worker).prepare();
    }

    /// Takes [`prepare_sleep`](Self::prepare_sleep) back.
    pub fn awake(&self) {
        self.segment.worker_sleeper(self.worker).awake();
    }

    /// What handle names connection `index` now.
    pub fn handle(&self, index: u32) -> Handle {
        Handle {
            index: self.worker * self.segment.layout().params().connections + index,
            generation: self.conns[index as usize].generation,
        }
    }

    /// The connection that a client names: its index here, or `None` if the handle is stale.
    ///
    /// # Errors
    /// [`Evict::ConnectionIndex`] for an index that is none of this worker's.
    pub fn resolve(&self, handle: Handle) -> Result<Option<u32>, Evict> {
        let first = self.worker * self.segment.layout().params().connections;
        let index = handle.index.wrapping_sub(first);
        let conn = self.conns.get(index as usize).ok_or(Evict::ConnectionIndex)?;
        let live =
            conn.generation == handle.generation && matches!(conn.life, Life::Open | Life::Ended);
        Ok(live.then_some(index))
    }

    /// A connection.
    pub fn conn(&self, index: u32) -> &Conn {
        &self.conns[index as usize]
    }

    /// The first connection at or after `from` that holds a slot.
    pub fn next_used(&self, from: u32) -> Option<u32> {
        (from..self.conns.len() as u32).find(|&index| self.conns[index as usize].life != Life::Free)
    }

    fn block(&self, index: u32) -> &ConnBlock {
        block(&self.segment, self.worker, index)
    }

    /// Makes room for a connection; `None` when the group's quota is used up.
    pub fn open(
        &mut self,
        stack: u64,
        listener: Option<u32>,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Option<u32> {
        let settings = match listener.map(|listener| &self.listeners[listener as usize]) {
            Some(Some(listener)) => listener.settings,
            Some(None) | None => Settings::default(),
        };
        self.open_with(stack, listener, &settings, local, peer)
    }

    fn open_with(
        &mut self,
        stack: u64,
        listener: Option<u32>,
        settings: &Settings,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Option<u32> {
        let index = self.free;
        let conn = self.conns.get_mut(index as usize)?;
        self.free = conn.next_free;
        self.used += 1;
        self.top = self.top.max(index + 1);
        conn.begin(stack, listener, settings);
        let (generation, limit) = (conn.generation, conn.send_limit());
        let block = self.block(index);
        block.reset(generation, local, peer);
        block.daemon.send_limit.store(limit, Ordering::Relaxed);
        if listener.is_some() {
            self.add_status(index, status::CONNECTED);
        }
        Some(index)
    }

    /// The settings of an active open, before the client knows of it.
    pub fn begin_with(&mut self, index: u32, settings: &Settings) {
        let conn = &mut self.conns[index as usize];
        conn.begin_with(settings);
        let limit = conn.send_limit();
        self.block(index).daemon.send_limit.store(limit, Ordering::Relaxed);
    }

    /// The application makes a choice for a connection; all of them.
    pub fn choose(&mut self, index: u32, option: ConnOption, value: u32) -> Settings {
        let conn = &mut self.conns[index as usize];
        settings::set(&mut conn.settings, option, value);
        let chosen = conn.settings;
        if option == ConnOption::SendBuffer {
            conn.resize_send_buffer();
            let limit = conn.send_limit();
            // Release: pairs with the client's Acquire load of send_limit.
            self.block(index).daemon.send_limit.store(limit, Ordering::Release);
        }
        chosen
    }

    /// The application makes a choice for the connection that a lane opens next.
    pub fn preset(&mut self, lane: u16, option: ConnOption, value: u32) {
        if let Some(lane) = &mut self.lanes[usize::from(lane)] {
            settings::set(&mut lane.preset, option, value);
        }
    }

    /// The choices for the connection that a lane opens now.
    pub fn take_preset(&mut self, lane: u16) -> Settings {
        let lane = self.lanes[usize::from(lane)].as_mut();
        lane.map(|lane| std::mem::take(&mut lane.preset)).unwrap_or_default()
    }

    /// What connections of a listener begin with from now on; the stack's name of the listener.
    pub fn configure(&mut self, listener: u32, settings: &Settings) -> Option<u32> {
        let listener = self.listeners[listener as usize].as_mut()?;
        listener.settings = *settings;
        listener.stack
    }

    /// Leaves a report for a lane, before the event that tells of it.
    pub fn leave_report(&self, lane: u16, report: &Report) {
        if let Some(lane) = &self.lanes[usize::from(lane)] {
            lane.leave_report(&self.segment, report);
        }
    }

    /// The stack chose its name, and the ends, of a connection opened before it could.
    pub fn bind_active(&mut self, index: u32, stack: u64, local: SocketAddr, peer: SocketAddr) {
        self.conns[index as usize].stack = stack;
        self.block(index).addresses.set(local, peer);
    }

    fn add_status(&mut self, index: u32, bits: u32) {
        let conn = &mut self.conns[index as usize];
        if conn.status & bits != bits {
            conn.status |= bits;
            block(&self.segment, self.worker, index).publish_status(conn.status);
        }
    }

    /// Bytes that were delivered and that the client has not read, by what it says right now:
    /// a figure for people, believed only as far as it is possible.
    pub fn unread(&self, index: u32) -> u64 {
        let conn = &self.conns[index as usize];
        if !matches!(conn.life, Life::Open | Life::Ended) {
            return 0;
        }
        let (head, tail) = (conn.receive_head(), conn.receive_tail());
        tail - self.block(index).receive_head().clamp(head, tail)
    }

    /// Keeps received bytes; see the stack's `Host::store`.
    pub fn store(&mut self, index: u32, offset: u64, bytes: &[u8]) -> bool {
        let conn = &mut self.conns[index as usize];
        let block = block(&self.segment, self.worker, index);
        if conn.life != Life::Open {
            return false;
        }
        // The client may have read since: its extents are what is stored into next.
        match conn.look_at_head(block, &mut self.memory) {
            Ok(()) => conn.store(&self.segment, block, &mut self.memory, offset, bytes),
            Err(why) => {
                self.evict(why);
                false
            }
        }
    }

    /// Copies bytes to send; see the stack's `Payload::load`.
    pub fn load(&self, index: u32, offset: u64, out: &mut [u8]) {
        let conn = &self.conns[index as usize];
        conn.load(&self.segment, &self.memory.pool, offset, out);
    }

    /// Publishes what the stack reports.
    pub fn change(&mut self, app: AppId, change: &Change, notices: &mut Notices) {
        let conn = &mut self.conns[app.conn as usize];
        let block = block(&self.segment, self.worker, app.conn);
        let Change { send_acked, send_space, .. } = *change;
        conn.acknowledge(block, &mut self.memory.pool, send_acked, send_space);
        if conn.life == Life::Orphan {
            return;
        }
        let mut changed = WRITE;
        if change.receive_tail != conn.receive_tail() {
            conn.deliver(block, change.receive_tail);
            changed |= READ;
        }
        if change.error != 0 {
            block.daemon.error.store(change.error, Ordering::Relaxed);
        }
        if change.status & !conn.status != 0 {
            changed |= READ;
        }
        conn.pending.changed |= changed;
        if !conn.pending.listed {
            conn.pending.listed = true;
            notices.connection(app);
        }
        self.add_status(app.conn, change.status);
    }

    /// Looks how far the client has read. The offset from which the stack may offer a window,
    /// if it is another one than this gave last time.
    ///
    /// # Errors
    /// [`Evict::ReceiveHead`].
    pub fn look_at_head(&mut self, index: u32) -> Result<Option<u64>, Evict> {
        let conn = &mut self.conns[index as usize];
        conn.look_at_head(block(&self.segment, self.worker, index), &mut self.memory)?;
        Ok(conn.take_new_base())
    }

    /// The stack wants to offer a receive window of `bytes`: returns how much of it the group's
    /// memory backs.
    pub fn back_window(&mut self, index: u32, bytes: u32) -> u32 {
        self.conns[index as usize].back_window(&mut self.memory, bytes)
    }

    /// The next connection that holds extents, going round all slots from call to call; looks
    /// at `budget` slots at the most and counts them off. A client says only now and then how far
    /// it has read; this finds those that have read all and then fell silent.
    pub fn next_holder(&mut self, budget: &mut u32) -> Option<u32> {
        while *budget > 0 && self.top > 0 {
            *budget -= 1;
            let index = self.searched % self.top;
            self.searched = index + 1;
            let conn = &self.conns[index as usize];
            if conn.life == Life::Open && (conn.held() > 0 || conn.is_backed()) {
                return Some(index);
            }
        }
        None
    }

    /// Takes over what the client says it has written.
    ///
    /// # Errors
    /// [`Evict::SendTail`] or [`Evict::SendExtent`].
    pub fn take_written(
        &mut self,
        index: u32,
        tail: u64,
        last: Option<ExtentId>,
    ) -> Result<(), Evict> {
        let conn = &mut self.conns[index as usize];
        let lanes = &mut self.lanes;
        conn.take_written(&self.segment, &mut self.memory.pool, tail, last, |lane| {
            if let Some(lane) = &mut lanes[usize::from(lane)] {
                lane.used_grant();
            }
        })?;
        if conn.life == Life::Ended {
            conn.drop_unsent(block(&self.segment, self.worker, index), &mut self.memory.pool);
        }
        Ok(())
    }

    /// Our FIN was asked for: the client cannot write any more.
    pub fn close_writing(&mut self, index: u32) {
        self.add_status(index, status::WRITE_CLOSED);
    }

    /// A connection that did not begin here after all.
    pub fn abandon(&mut self, index: u32) {
        self.free_slot(index);
    }

    /// The client gave its handle up.
    pub fn close(&mut self, index: u32) {
        let conn = &mut self.conns[index as usize];
        match conn.life {
            Life::Open => {
                conn.life = Life::Orphan;
                conn.release_receive(block(&self.segment, self.worker, index), &mut self.memory);
            }
            Life::Ended => self.free_slot(index),
            Life::Orphan | Life::Free => unreachable!("close of a handle that is gone"),
        }
    }

    /// The stack is done with the connection.
    pub fn ended(&mut self, index: u32) {
        let conn = &mut self.conns[index as usize];
        match conn.life {
            Life::Open => {
                conn.life = Life::Ended;
                conn.drop_unsent(block(&self.segment, self.worker, index), &mut self.memory.pool);
                conn.back_window(&mut self.memory, 0);
            }
            Life::Orphan => self.free_slot(index),
            Life::Ended | Life::Free => unreachable!("the stack ended a connection twice"),
        }
    }

    fn free_slot(&mut self, index: u32) {
        let conn = &mut self.conns[index as usize];
        conn.release_receive(block(&self.segment, self.worker, index), &mut self.memory);
        conn.release_send(&mut self.memory.pool);
        conn.life = Life::Free;
        conn.next_free = self.free;
        self.free = index;
        self.used -= 1;
    }
}

fn block(segment: &Segment, worker: u32, index: u32) -> &ConnBlock {
    let first = worker * segment.layout().params().connections;
    segment.connection(first + index).expect("one of this worker's connections")
}
