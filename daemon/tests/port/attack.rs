//! One group at one worker. The network's and the daemon's own steps are as the worker makes them;
//! the client's are honest, or anything at all.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fourwave_protocol::command::{Command, Event, decode_grant};
use fourwave_protocol::conn::status;
use fourwave_protocol::option::ConnOption;
use fourwave_protocol::process::MAX_PROCESSES;
use fourwave_protocol::report::Report;
use fourwave_protocol::ring::{Consumer, Producer};
use fourwave_protocol::{EXTENT_BYTES, ExtentId, Handle, Params, Process, Segment, position_of};
use fourwave_tcp::Settings;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::messages::GroupId;
use crate::port::{Accepted, AppId, Change, Clients, Close, Evict, Group, Holder, Life, Notices};
use crate::rng::Rng;

/// The second of two, so that a wrong base shows.
const WORKER: u32 = 1;
const WORKERS: u32 = 2;
const LANES: u16 = 4;
const LISTENERS: u32 = 2;
const CONNECTIONS: u32 = 6;
const ACCEPT_ENTRIES: u32 = 8;
/// Bytes of an accept ring: header and entries, in whole pages.
const ACCEPT_BYTES: usize = 4096;
/// What the stack calls listener 0.
const FIRST_LISTENER: u32 = 5;

fn params() -> Params {
    Params {
        workers: WORKERS,
        lanes: LANES.into(),
        listeners: LISTENERS,
        accept_entries: ACCEPT_ENTRIES,
        connections: CONNECTIONS,
        extents: 96,
        tables: 2,
        table_slots: 32,
        command_entries: 8,
        grant_entries: 16,
    }
}

/// A connection as the stack would have it.
struct Flow {
    receive_tail: u64,
    /// One past what was stored in order.
    stored: u64,
    acked: u64,
}

/// A lane as its process has it.
struct Lane {
    process: Process,
    commands: Producer,
    events: Consumer,
    grants: Consumer,
    _doorbell: OwnedFd,
}

pub(crate) struct Attack {
    rng: Rng,
    steps: usize,
    clients: Clients,
    notices: Notices,
    slot: u32,
    segment: Arc<Segment>,
    memory: OwnedFd,
    /// By the stack's name.
    flows: BTreeMap<u64, Flow>,
    next_flow: u64,
    /// Connections that wait at each listener, as the stack counts them.
    waiting: [u32; LISTENERS as usize],
    lanes: BTreeMap<u16, Lane>,
    processes: Vec<Process>,
    names: u32,
}

impl Attack {
    pub(crate) fn new(rng: Rng, steps: usize) -> Attack {
        let (segment, memory) = Segment::create("attack", params()).expect("it is small");
        let segment = Arc::new(segment);
        let mut group = Group::new(GroupId(1), WORKER, Arc::clone(&segment));
        group.add_process(Box::new(Holder::new(Process::FIRST, CONNECTIONS)), None);
        for listener in 0..LISTENERS {
            group.listen(listener, FIRST_LISTENER + listener, &Settings::default());
        }
        let mut clients = Clients::new();
        let slot = clients.add(Box::new(group));
        let mut attack = Attack {
            rng,
            steps,
            clients,
            notices: Notices::default(),
            slot,
            segment,
            memory,
            flows: BTreeMap::new(),
            next_flow: 1,
            waiting: [0; LISTENERS as usize],
            lanes: BTreeMap::new(),
            processes: vec![Process::FIRST],
            names: 1,
        };
        attack.add_lane();
        attack
    }

    /// Attacks, and sees that nothing is left afterwards. Whether the group was evicted.
    pub(crate) fn run(mut self) -> bool {
        // Some clients are honest all the time.
        let lies = self.rng.pick(&[0, 0, 1, 5]);
        for _ in 0..self.steps {
            if self.rng.is_over() {
                break;
            }
            match self.rng.below(10) {
                0..4 => self.network(),
                4 => self.control(),
                _ if self.rng.below(10) < lies => self.lie(),
                _ => self.client(),
            }
            if self.rng.chance(500) {
                self.turn();
            }
        }
        self.end()
    }

    fn group(&mut self) -> &mut Group {
        self.clients.group(self.slot).expect("it is there")
    }

    fn app(&self, conn: u32) -> AppId {
        AppId { group: self.slot, conn }
    }

    fn evict(&mut self, result: Result<(), Evict>) {
        if let Err(why) = result {
            self.group().evict(why);
        }
    }

    fn is_evicted(&mut self) -> bool {
        self.group().evicted().is_some()
    }

    /// A connection that holds a slot, if any does.
    fn some_used(&mut self) -> Option<u32> {
        let from = self.rng.below(CONNECTIONS.into()) as u32;
        self.group().next_used(from).or_else(|| self.group().next_used(0))
    }
}

/// The network and the stack.
impl Attack {
    fn network(&mut self) {
        match self.rng.below(6) {
            0 => self.arrive(),
            1 | 2 => self.receive(),
            3 => self.acknowledge(),
            4 => self.finish(),
            _ => {
                self.notices.deliver(&mut self.clients);
                let mut budget = 4;
                while let Some(index) = self.group().next_holder(&mut budget) {
                    if self.is_evicted() {
                        break;
                    }
                    let looked = self.group().look_at_head(index).map(|_| ());
                    self.evict(looked);
                    if !self.is_evicted() {
                        let wanted = self.rng.below(1 << 18) as u32;
                        self.group().back_window(index, wanted);
                    }
                }
            }
        }
    }

    fn arrive(&mut self) {
        let listener = self.rng.below(LISTENERS.into()) as u32;
        if self.group().stack_listener(listener).is_none()
            || self.waiting[listener as usize] + 1 >= ACCEPT_ENTRIES
        {
            return;
        }
        let name = self.next_flow;
        let ends = ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:999".parse().unwrap());
        let Some(conn) = self.group().open(name, Some(listener), ends.0, ends.1) else { return };
        self.next_flow += 1;
        self.flows.insert(name, Flow { receive_tail: 0, stored: 0, acked: 0 });
        let app = self.app(conn);
        self.waiting[listener as usize] += 1;
        assert!(self.clients.of(app).push_accept(app, name, &mut self.notices));
    }

    fn live(&mut self) -> Option<(u32, u64)> {
        let conn = self.some_used()?;
        let stack = self.group().conn(conn).stack;
        self.flows.contains_key(&stack).then_some((conn, stack))
    }

    fn receive(&mut self) {
        let Some((conn, stack)) = self.live() else { return };
        let gap = if self.rng.chance(200) { self.rng.below(20_000) } else { 0 };
        let bytes = vec![7; self.rng.below(6000) as usize + 1];
        let at = self.flows[&stack].stored;
        let stored = self.group().store(conn, at + gap, &bytes);
        let flow = self.flows.get_mut(&stack).expect("it is live");
        if stored && gap == 0 {
            flow.stored += bytes.len() as u64;
        }
        if stored && self.rng.chance(800) {
            flow.receive_tail = flow.stored;
        }
        let bits = if self.rng.chance(50) { status::PEER_CLOSED } else { 0 };
        self.change(conn, stack, bits);
    }

    fn acknowledge(&mut self) {
        let Some((conn, stack)) = self.live() else { return };
        let tail = self.group().conn(conn).send_tail();
        let flow = self.flows.get_mut(&stack).expect("it is live");
        let sent = tail - flow.acked;
        let mut out = vec![0; sent.min(5000) as usize];
        let from = flow.acked;
        let more = if self.rng.chance(500) { sent } else { self.rng.below(sent + 1) };
        self.group().load(conn, from, &mut out);
        self.flows.get_mut(&stack).expect("it is live").acked += more;
        self.change(conn, stack, 0);
    }

    fn change(&mut self, conn: u32, stack: u64, bits: u32) {
        let flow = &self.flows[&stack];
        let change = Change {
            receive_tail: flow.receive_tail,
            send_acked: flow.acked,
            send_space: 1 << (12 + self.rng.below(8)),
            status: bits,
            error: 0,
        };
        let app = self.app(conn);
        self.clients.of(app).change(app, &change, &mut self.notices);
    }

    /// The stack is done with a connection.
    fn finish(&mut self) {
        let Some((conn, stack)) = self.live() else { return };
        self.change(conn, stack, status::FAILED);
        self.flows.remove(&stack);
        self.group().ended(conn);
    }
}

/// What control tells the worker.
impl Attack {
    fn control(&mut self) {
        match self.rng.below(6) {
            0 => self.add_lane(),
            1 => self.remove_lane(),
            2 => self.fork(),
            3 => self.kill(),
            4 => {
                let listener = self.rng.below(LISTENERS.into()) as u32;
                match self.group().stack_listener(listener) {
                    Some(_) => self.unlisten(listener),
                    None => {
                        let stack = FIRST_LISTENER + listener;
                        self.group().listen(listener, stack, &Settings::default());
                    }
                }
            }
            _ => self.turn(),
        }
    }

    fn add_lane(&mut self) {
        let free = (0..LANES).find(|lane| !self.lanes.contains_key(lane));
        let (Some(lane), false) = (free, self.processes.is_empty()) else { return };
        let process = self.rng.pick(&self.processes);
        let kind = SocketType::STREAM;
        let pair = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
        let (ours, _doorbell) = pair.expect("descriptors are free");
        self.group().add_lane(lane, process, ours);
        let (commands, events, grants) = (Producer::new(), Consumer::new(), Consumer::new());
        self.lanes.insert(lane, Lane { process, commands, events, grants, _doorbell });
    }

    fn remove_lane(&mut self) {
        let lane = self.rng.below(LANES.into()) as u16;
        if self.lanes.contains_key(&lane) {
            self.lose_lane(lane);
        }
    }

    fn lose_lane(&mut self, lane: u16) {
        self.finish_lane(lane);
        let slot = self.slot;
        let group = self.clients.group(slot).expect("it is there");
        group.remove_lane(lane);
        group.pass_wake_ups_on(slot, lane, &mut self.notices);
        self.lanes.remove(&lane);
        for worker in 0..WORKERS {
            self.segment.clear_rings(lane, worker).expect("a hole can be punched");
        }
    }

    fn fork(&mut self) {
        if self.processes.is_empty() || self.names as usize >= MAX_PROCESSES {
            return;
        }
        let parent = self.rng.pick(&self.processes);
        let child = Process::first(self.names as usize);
        self.names += 1;
        self.collect();
        self.finish_lanes(Some(parent));
        self.group().add_process(Box::new(Holder::new(child, CONNECTIONS)), Some(parent));
        self.processes.push(child);
    }

    fn kill(&mut self) {
        if self.processes.len() < 2 {
            return;
        }
        let at = self.rng.below(self.processes.len() as u64) as usize;
        let process = self.processes.swap_remove(at);
        let lanes: Vec<u16> = self.lanes_of(process);
        for lane in lanes {
            self.lose_lane(lane);
        }
        let mut gone = self.group().remove_process(process).expect("it was there");
        self.collect();
        while let Some(index) = gone.next(0) {
            if self.group().was_writing(index, process) {
                self.finish_lanes(None);
            }
            match self.group().let_go_for(&mut gone, index) {
                Close::Last => {
                    let evicted = self.is_evicted();
                    let _abort = evicted || self.group().look_at_head(index).is_err();
                    self.close(index);
                }
                Close::Others => self.pass_events_on(index, process),
                Close::NotHeld => {}
            }
        }
    }

    fn pass_events_on(&mut self, index: u32, gone: Process) {
        let slot = self.slot;
        let group = self.clients.group(slot).expect("it is there");
        group.pass_events_on(slot, index, gone, &mut self.notices);
    }

    fn lanes_of(&self, process: Process) -> Vec<u16> {
        let own = self.lanes.iter().filter(|(_, lane)| lane.process == process);
        own.map(|(&number, _)| number).collect()
    }

    fn unlisten(&mut self, listener: u32) {
        let mut taken = Vec::new();
        let ended = self.group().unlisten(listener, |accepted| taken.push(accepted));
        let ended = ended.expect("it was open");
        self.note_accepted(taken);
        self.waiting[listener as usize] -= ended.waiting.len() as u32;
        for waiting in ended.waiting {
            self.close(waiting.index);
        }
    }
}

/// What the worker does with commands.
impl Attack {
    fn turn(&mut self) {
        if self.is_evicted() {
            return;
        }
        self.collect();
        for position in 0..self.group().attached().len() {
            let lane = self.group().attached()[position];
            let result = self.handle_lane(lane).map(|_| ());
            self.evict(result);
        }
        self.notices.deliver(&mut self.clients);
    }

    fn collect(&mut self) {
        let mut taken = Vec::new();
        self.group().collect_accepted(|accepted| taken.push(accepted));
        self.note_accepted(taken);
    }

    fn note_accepted(&mut self, taken: Vec<Accepted>) {
        for Accepted { listener, index, held, .. } in taken {
            self.waiting[(listener - FIRST_LISTENER) as usize] -= 1;
            if !held {
                self.close(index);
            }
        }
    }

    fn finish_lanes(&mut self, of: Option<Process>) {
        for lane in self.group().attached().to_vec() {
            if of.is_none() || self.group().process_of(lane) == of {
                self.finish_lane(lane);
            }
        }
    }

    fn finish_lane(&mut self, lane: u16) {
        while !self.is_evicted() {
            match self.handle_lane(lane) {
                Ok(0) => return,
                Ok(_) => {}
                Err(why) => return self.evict(Err(why)),
            }
        }
    }

    fn handle_lane(&mut self, lane: u16) -> Result<usize, Evict> {
        let mut done = 0;
        while done < 64 && !self.is_evicted() && self.group().has_event_room(lane)? {
            let Some(words) = self.group().pop_command(lane)? else { break };
            let command = Command::decode(words).ok_or(Evict::UnknownCommand)?;
            self.handle(lane, command)?;
            done += 1;
        }
        let slot = self.slot;
        self.clients.group(slot).expect("it is there").refill(slot, lane, &mut self.notices)?;
        Ok(done)
    }

    fn handle(&mut self, lane: u16, command: Command) -> Result<(), Evict> {
        match command {
            Command::Send { handle, tail, last } => self.written(handle, tail, last),
            Command::Consumed { handle } => {
                if let Some(index) = self.group().resolve(handle)? {
                    self.group().look_at_head(index)?;
                }
                Ok(())
            }
            Command::ShutdownWrite { handle, tail, last } => {
                self.written(handle, tail, last)?;
                if let Some(index) = self.group().resolve(handle)? {
                    self.group().close_writing(index);
                }
                Ok(())
            }
            Command::Close { handle, tail, last, .. } => {
                self.written(handle, tail, last)?;
                let Some(index) = self.group().resolve(handle)? else { return Ok(()) };
                let Some(process) = self.group().process_of(lane) else { return Ok(()) };
                let mut left = self.group().let_go(index, process);
                if left == Close::NotHeld {
                    self.collect();
                    left = self.group().let_go(index, process);
                }
                match left {
                    Close::Last => {
                        self.group().look_at_head(index)?;
                        self.close(index);
                    }
                    Close::Others => self.pass_events_on(index, process),
                    Close::NotHeld => {}
                }
                Ok(())
            }
            Command::Connect { token, peer } => {
                let settings = self.group().take_preset(lane);
                let name = self.next_flow;
                let event = match self.group().open(0, None, peer, peer) {
                    None => Event::Refused { token, errno: 105 },
                    Some(index) if name.is_multiple_of(5) => {
                        self.group().abandon(index);
                        Event::Refused { token, errno: 101 }
                    }
                    Some(index) => {
                        self.group().begin_with(index, &settings);
                        self.group().bind_active(index, name, peer, peer);
                        self.flows.insert(name, Flow { receive_tail: 0, stored: 0, acked: 0 });
                        if let Some(process) = self.group().process_of(lane) {
                            self.group().hold(index, process);
                        }
                        Event::Opened { token, handle: self.group().handle(index) }
                    }
                };
                self.next_flow += 1;
                self.answer(lane, event)
            }
            Command::SetOption { handle, option, value } => {
                if let Some(index) = self.group().resolve(handle)? {
                    self.group().choose(index, option, value);
                }
                Ok(())
            }
            Command::Preset { option, value } => {
                self.group().preset(lane, option, value);
                Ok(())
            }
            Command::Ask { token, handle } => {
                let _known = self.group().resolve(handle)?;
                self.group().leave_report(lane, &Report::default());
                self.answer(lane, Event::Reported { token })
            }
            Command::WantGrants => {
                self.group().want_grants(lane);
                Ok(())
            }
        }
    }

    fn answer(&mut self, lane: u16, event: Event) -> Result<(), Evict> {
        let slot = self.slot;
        let group = self.clients.group(slot).expect("it is there");
        group.answer(slot, lane, event, &mut self.notices)
    }

    fn written(&mut self, handle: Handle, tail: u64, last: Option<ExtentId>) -> Result<(), Evict> {
        if let Some(index) = self.group().resolve(handle)? {
            self.group().take_written(index, tail, last)?;
            self.group().look_at_head(index)?;
        }
        Ok(())
    }

    /// Nobody holds a connection any more.
    fn close(&mut self, index: u32) {
        self.group().close(index);
    }
}

/// A client, as the library would be.
impl Attack {
    fn client(&mut self) {
        let own: Vec<u16> = self.lanes.keys().copied().collect();
        if own.is_empty() {
            return;
        }
        let lane = self.rng.pick(&own);
        match self.rng.below(8) {
            0 | 1 => self.accept(lane),
            2 => self.read(),
            3 => self.write(lane),
            4 => self.post_about(lane),
            5 => {
                let token = self.rng.next() as u32;
                let peer = "10.0.0.9:80".parse().unwrap();
                self.post(lane, Command::Connect { token, peer });
            }
            6 => self.drain(lane),
            _ => {
                let listener = self.rng.below(LISTENERS.into()) as u32;
                self.segment.listener(listener).wait(lane);
                self.segment.lane_sleeper(lane).prepare();
                if let Some(conn) = self.some_used() {
                    let client = &self.block(conn).client;
                    client.wake_reader.store(lane + 1, Ordering::Relaxed);
                    client.wake_writer.store(lane + 1, Ordering::Relaxed);
                }
            }
        }
    }

    fn block(&self, conn: u32) -> &fourwave_protocol::conn::ConnBlock {
        self.segment.connection(WORKER * CONNECTIONS + conn).expect("it exists")
    }

    fn post(&mut self, lane: u16, command: Command) {
        let ring = self.segment.command_ring(lane, WORKER);
        if let Some(own) = self.lanes.get_mut(&lane) {
            // A full ring, or one whose other index was spoilt: it is said later.
            let _ = own.commands.push(&ring, command.encode());
        }
    }

    fn accept(&mut self, lane: u16) {
        let listener = self.rng.below(LISTENERS.into()) as u32;
        let process = self.lanes[&lane].process;
        let _ = self.segment.accept_ring(listener, WORKER).pop(process);
    }

    fn read(&mut self) {
        let Some(conn) = self.some_used() else { return };
        let block = self.block(conn);
        let (head, tail) = (block.receive_head(), block.receive_tail());
        let more = self.rng.below(tail.saturating_sub(head) + 1);
        self.block(conn).publish_receive_head(head.wrapping_add(more));
    }

    fn write(&mut self, lane: u16) {
        let Some(conn) = self.some_used() else { return };
        let process = self.lanes[&lane].process;
        let handle = self.group().handle(conn);
        let segment = Arc::clone(&self.segment);
        let block = segment.connection(handle.index).expect("it exists");
        if !block.client.writer.try_lock(process) {
            return;
        }
        let start = block.client.send_tail.load(Ordering::Relaxed);
        let limit = block.daemon.send_limit.load(Ordering::Acquire);
        let mut left = self.rng.below(3 * EXTENT_BYTES as u64).min(limit.saturating_sub(start));
        let (mut tail, mut last) = (start, block.send_extent());
        while left > 0 {
            let open = position_of(tail) != 0 && (tail != start || block.take_open_extent(tail));
            if !open {
                let ring = segment.grant_ring(lane, WORKER);
                let own = self.lanes.get_mut(&lane).expect("it is ours");
                let Ok(Some(words)) = own.grants.pop(&ring) else { break };
                let Some(extent) = decode_grant(words) else { break };
                if extent.index() >= segment.layout().extent_count() {
                    break;
                }
                let before = last.map_or(0, ExtentId::raw);
                segment.link(extent).store(before, Ordering::Relaxed);
                last = Some(extent);
            }
            let here = left.min((EXTENT_BYTES - position_of(tail)) as u64);
            (tail, left) = (tail + here, left - here);
        }
        if self.rng.chance(30) {
            // Killed in the middle of it, some time later.
            block.client.send_tail.store(tail, Ordering::Relaxed);
            return;
        }
        if tail != start {
            block.client.send_tail.store(tail, Ordering::Relaxed);
            block.client.send_extent.store(last.map_or(0, ExtentId::raw), Ordering::Relaxed);
            block.leave_open_extent(tail);
            self.post(lane, Command::Send { handle, tail, last });
        }
        block.client.writer.unlock();
    }

    fn post_about(&mut self, lane: u16) {
        let Some(conn) = self.some_used() else { return };
        let handle = self.group().handle(conn);
        let block = self.block(conn);
        let (tail, last) = (block.client.send_tail.load(Ordering::Relaxed), block.send_extent());
        // Who is in the middle of a write has not said all yet.
        let whole = block.client.writer.holder().is_none();
        let (tail, last) = if whole { (tail, last) } else { (0, None) };
        let option = self.rng.pick(&ConnOption::ALL);
        let value = self.rng.below(1 << 20) as u32;
        let value = if option.allows(value) { value } else { 1 };
        let command = match self.rng.below(7) {
            0 | 1 => Command::Close { handle, tail, last, abort: value.is_multiple_of(2) },
            2 => Command::ShutdownWrite { handle, tail, last },
            3 => Command::Consumed { handle },
            4 if option.allows(value) => Command::SetOption { handle, option, value },
            5 if option.allows(value) => Command::Preset { option, value },
            6 => Command::Ask { token: value, handle },
            _ => Command::WantGrants,
        };
        self.post(lane, command);
    }

    fn drain(&mut self, lane: u16) {
        let ring = self.segment.event_ring(lane, WORKER);
        let own = self.lanes.get_mut(&lane).expect("it is ours");
        while let Ok(Some(_)) = own.events.pop(&ring) {}
    }
}

/// A client, as an enemy would be.
impl Attack {
    fn lie(&mut self) {
        let any = self.rng.next();
        match self.rng.below(6) {
            0 => self.lie_in_a_command(),
            1 => self.lie_in_a_block(any),
            2 => {
                let lane = self.rng.below(LANES.into()) as u16;
                let rings = self.segment.layout().ring_set_bytes(lane, WORKER);
                self.spoil(rings.start, rings.len(), any);
            }
            3 => {
                // The accept rings lie before the lanes' rings.
                let end = self.segment.layout().ring_set_bytes(0, 0).start;
                let listener = self.rng.below(LISTENERS.into()) as u32;
                let at = end - ((LISTENERS - listener) * WORKERS - WORKER) as usize * ACCEPT_BYTES;
                self.spoil(at, 256 + 32 * ACCEPT_ENTRIES as usize, any);
            }
            4 => {
                let extent = self.rng.below(self.segment.layout().extent_count().into()) as u32;
                let to = self.segment.link(ExtentId::from_index(extent));
                to.store(self.rng.below(200) as u32, Ordering::Relaxed);
            }
            _ => {
                let whole = self.segment.layout().ring_set_bytes(LANES - 1, WORKERS - 1).end;
                self.spoil(0, whole, any);
            }
        }
    }

    /// Overwrites a word somewhere.
    fn spoil(&mut self, start: usize, len: usize, any: u64) {
        // Every cache line begins with something.
        let at = match self.rng.chance(500) {
            true => self.rng.below(len as u64 / 128) * 128,
            false => self.rng.below(len as u64 / 8) * 8,
        };
        let word = if self.rng.chance(500) { self.rng.below(16) } else { any };
        let bytes = &word.to_ne_bytes()[..self.rng.pick(&[1, 4, 8])];
        rustix::io::pwrite(&self.memory, bytes, (start as u64) + at).expect("it lies inside");
    }

    fn lie_in_a_command(&mut self) {
        let own: Vec<u16> = self.lanes.keys().copied().collect();
        if own.is_empty() {
            return;
        }
        let lane = self.rng.pick(&own);
        let handle = Handle {
            index: self.rng.below(u64::from(WORKERS * CONNECTIONS) + 1) as u32,
            generation: self.rng.below(4) as u32,
        };
        let handle = match self.some_used() {
            Some(conn) if self.rng.chance(800) => self.group().handle(conn),
            Some(_) | None => handle,
        };
        let last = ExtentId::from_raw(self.rng.below(250) as u32);
        let tail = match self.rng.chance(700) {
            true => self.rng.below(20_000),
            false => self.rng.next(),
        };
        let mut words = match self.rng.below(4) {
            0 => Command::Send { handle, tail, last },
            1 => Command::Close { handle, tail, last, abort: true },
            2 => Command::ShutdownWrite { handle, tail, last },
            _ => Command::Consumed { handle },
        }
        .encode();
        if self.rng.chance(300) {
            let at = self.rng.below(words.len() as u64) as usize;
            words[at] = self.rng.next();
        }
        let ring = self.segment.command_ring(lane, WORKER);
        let _ = self.lanes.get_mut(&lane).expect("it is ours").commands.push(&ring, words);
    }

    fn lie_in_a_block(&mut self, any: u64) {
        let conn = self.rng.below(CONNECTIONS.into()) as u32;
        let near = self.rng.below(20_000);
        let value = if self.rng.chance(700) { near } else { any };
        let what = self.rng.below(9);
        let block = self.block(conn);
        let client = &block.client;
        match what {
            0 => block.publish_receive_head(value),
            1 => client.send_tail.store(value, Ordering::Relaxed),
            2 => client.send_extent.store(value as u32, Ordering::Relaxed),
            3 => client.open_extent.store(value as u32, Ordering::Relaxed),
            4 => client.wake_reader.store(value as u16, Ordering::Relaxed),
            5 => client.wake_writer.store(value as u16, Ordering::Relaxed),
            6 => client.writer.unlock(),
            7 => block.daemon.status.store(value as u32, Ordering::Relaxed),
            _ => {
                let slot = (value % 16) as usize;
                block.receive_slots[slot].store(any as u32, Ordering::Relaxed);
            }
        }
    }
}

/// The end of the group.
impl Attack {
    /// As the worker removes a group. Whether it was evicted.
    fn end(mut self) -> bool {
        self.collect();
        self.finish_lanes(None);
        self.group().remove_lanes();
        let open: Vec<u32> = self.group().open_listeners().map(|(index, _)| index).collect();
        for listener in open {
            self.unlisten(listener);
        }
        assert_eq!(self.waiting, [0; LISTENERS as usize], "the backlog has its places back");
        let mut next = 0;
        while let Some(index) = self.group().next_used(next) {
            next = index + 1;
            let _abort = self.group().look_at_head(index).is_err();
            match self.group().conn(index).life {
                Life::Open | Life::Ended => self.close(index),
                Life::Orphan | Life::Free => {}
            }
        }
        self.notices.deliver(&mut self.clients);
        while let Some(index) = self.group().next_used(0) {
            let stack = self.group().conn(index).stack;
            assert!(self.flows.remove(&stack).is_some(), "a connection without a flow");
            self.group().ended(index);
        }
        let evicted = self.is_evicted();
        assert!(self.flows.is_empty(), "a flow without a connection");
        assert!(self.group().is_empty(), "an extent outlived its connection");
        evicted
    }
}
