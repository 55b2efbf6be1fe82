//! One application group at one worker: its connections, listeners, lanes and extents.

use super::conn::{Conn, Life, Memory};
use super::extents::ExtentPool;
use super::holds::{Holder, Holders};
use super::lane::Lane;
use super::listener::{Ended, Listener, Unaccepted};
use super::notify::{Notices, READ, WRITE};
use super::tables::Tables;
use super::{AppId, Evict, settings};
use crate::messages::GroupId;
use core::net::SocketAddr;
use core::sync::atomic::Ordering;
use fourwave_protocol::accept::{MAX_LANES, Waiting};
use fourwave_protocol::command::{COMMAND_WORDS, Event};
use fourwave_protocol::conn::{ConnBlock, status};
use fourwave_protocol::option::ConnOption;
use fourwave_protocol::report::Report;
use fourwave_protocol::{ExtentId, Handle, Process, Segment};
use fourwave_tcp::Settings;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
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
            // Nobody will send these.
            conn.release_send(&mut self.memory.pool);
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
        conn.release_send(&mut self.memory.pool);
        match conn.life {
            Life::Open => {
                conn.life = Life::Ended;
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
    pub(super) fn adopt(
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

    /// Whether a connection waits to be accepted.
    pub fn has_waiting(&self) -> bool {
        self.listeners.iter().flatten().any(Listener::has_waiting)
    }

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
        if self.lanes[usize::from(lane)].take().is_some() {
            self.attached.retain(|&other| other != lane);
            self.memory.pool.revoke(Some(lane));
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
        self.memory.pool.revoke(None);
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
            lane.want_grants();
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

    /// Posts the event that a changed connection's client waits for. `false`: the ring is full,
    /// to be tried again.
    pub(super) fn tell_connection(&mut self, app: AppId, lanes: &mut Vec<(u32, u16)>) -> bool {
        let handle = self.handle(app.conn);
        let block = block(&self.segment, self.worker, app.conn);
        let conn = &mut self.conns[app.conn as usize];
        let wanted = [(READ, &block.client.wake_reader), (WRITE, &block.client.wake_writer)];
        let mut told = true;
        if matches!(conn.life, Life::Open | Life::Ended) && self.evicted.is_none() {
            for (bit, word) in wanted {
                // Relaxed: ordered by the fence in Notices::deliver() and the client's own.
                let Some(lane) = word.load(Ordering::Relaxed).checked_sub(1) else { continue };
                if conn.pending.changed & bit == 0 {
                    continue;
                }
                let Some(Some(target)) = self.lanes.get_mut(usize::from(lane)) else { continue };
                match tell(target, &self.segment, handle, lane, &mut conn.pending.last) {
                    Ok(Told::Posted { first }) if first => lanes.push((app.group, lane)),
                    Ok(Told::Posted { .. } | Told::Pending) => {}
                    Ok(Told::Full) => told = false,
                    Err(why) => self.evicted = Some(why),
                }
            }
        }
        if told {
            conn.pending.changed = 0;
            conn.pending.listed = false;
        }
        told
    }

    /// Wakes as many of the lanes waiting on a listener as connections were pushed.
    pub(super) fn tell_listener(&mut self, slot: u32, index: u32, lanes: &mut Vec<(u32, u16)>) {
        let Some(listener) = &mut self.listeners[index as usize] else { return };
        let waiters = self.segment.listener(index);
        let mut left = std::mem::take(&mut listener.pushed);
        // Lanes that are gone are passed over. A hostile client may set their bits again and again.
        for _ in 0..left as usize + MAX_LANES {
            if left == 0 {
                break;
            }
            let Some(lane) = waiters.take_waiter(listener.last_woken) else { break };
            listener.last_woken = lane;
            let Some(Some(target)) = self.lanes.get_mut(usize::from(lane)) else { continue };
            left -= 1;
            let first = !target.touched;
            match target.post(&self.segment, Event::Acceptable { listener: index }) {
                Ok(Some(_)) if first => lanes.push((slot, lane)),
                // A full ring is not empty: the lane will look at all it waits for.
                Ok(_) => {}
                Err(why) => self.evicted = Some(why),
            }
        }
    }

    /// Rings a lane's doorbell if it sleeps.
    pub(super) fn wake_lane(&mut self, lane: u16) {
        if let Some(Some(lane)) = self.lanes.get_mut(usize::from(lane)) {
            lane.wake(&self.segment);
        }
    }
}

enum Told {
    Posted { first: bool },
    Pending,
    Full,
}

fn tell(
    target: &mut Lane,
    segment: &Segment,
    handle: Handle,
    lane: u16,
    last: &mut Option<(u16, u64)>,
) -> Result<Told, Evict> {
    if let Some((to, ordinal)) = *last
        && to == lane
        && !target.taken(segment, ordinal)?
    {
        return Ok(Told::Pending);
    }
    let first = !target.touched;
    Ok(match target.post(segment, Event::Ready { handle })? {
        Some(ordinal) => {
            *last = Some((lane, ordinal));
            Told::Posted { first }
        }
        None => Told::Full,
    })
}

/// What lets a process hold what it has taken off an accept queue.
fn holding<'a>(
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

fn block(segment: &Segment, worker: u32, index: u32) -> &ConnBlock {
    let first = worker * segment.layout().params().connections;
    segment.connection(first + index).expect("one of this worker's connections")
}
