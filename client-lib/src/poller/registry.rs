//! What a poller watches, and which of it may be ready.

use super::event::{Event, Events, Interest, Readiness, Trigger};
use crate::lane::Lane;
use crate::runtime::Shared;
use fourwave_protocol::conn::{ConnBlock, partial, shut, status};
use fourwave_protocol::wake::publish_fence;
use fourwave_protocol::{Handle, position_of};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

/// Streams per page of the table.
const PAGE: usize = 256;

/// A watched stream.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    generation: u32,
    key: usize,
    interest: Interest,
    trigger: Trigger,
    /// Neither a write nor a look has found extents: not writable until some are granted.
    out_of_grants: bool,
    /// [`Trigger::Once`] has been told.
    told: bool,
    /// To be looked at when its number's turn comes.
    due: bool,
    /// That is only because something may have happened.
    doubtful: bool,
    /// As an edge-triggered one was when it was told last.
    seen: Option<Seen>,
}

/// What edges are seen by, where nobody says that there was one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    tail: u64,
    status: u32,
    writable: bool,
    read_closed: bool,
}

/// What the table has for each connection number.
#[derive(Debug, Clone, Default)]
struct Place {
    stream: Option<Stream>,
    /// The same connection under other keys.
    others: Vec<Stream>,
    /// The number is in the queue. It stays there when the stream leaves.
    queued: bool,
}

impl Place {
    /// Under all keys.
    fn all(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.stream.iter_mut().chain(&mut self.others)
    }

    /// Under all keys, unless it is another connection by now.
    fn of(&mut self, handle: Handle) -> impl Iterator<Item = &mut Stream> {
        self.all().filter(move |stream| stream.generation == handle.generation)
    }

    /// Another key comes first: there was no room for the events of all.
    fn rotate(&mut self) {
        if let (Some(first), Some(next)) = (&mut self.stream, self.others.first_mut()) {
            std::mem::swap(first, next);
            self.others.rotate_left(1);
        }
    }

    fn retain(&mut self, keep: impl Fn(&Stream) -> bool) {
        self.others.retain(&keep);
        self.stream.take_if(|stream| !keep(stream));
        if self.stream.is_none() {
            self.stream = self.others.pop();
        }
    }
}

/// A watched listener, under one key.
#[derive(Debug)]
struct Listener {
    index: u32,
    key: usize,
    interest: Interest,
    trigger: Trigger,
    /// Connections ever queued when it was last reported.
    reported: u64,
    /// [`Trigger::Once`] has been told.
    told: bool,
}

/// All that a poller watches. Streams lie in a table by connection number, in pages that come as
/// they are needed: the daemon gives low numbers first.
#[derive(Debug)]
pub(super) struct Registry {
    pages: Vec<Option<Box<[Place]>>>,
    /// Numbers of streams that may be ready, each at most once, the longest waiting first. A
    /// level-triggered one stays here as long as it is ready.
    queue: VecDeque<u32>,
    listeners: Vec<Listener>,
    /// By worker: streams that wait for extents.
    starved: Vec<Vec<Handle>>,
    /// Sources looked at so far.
    pub(super) examined: u64,
}

impl Registry {
    pub(super) fn new(workers: u32) -> Registry {
        Registry {
            pages: Vec::new(),
            queue: VecDeque::new(),
            listeners: Vec::new(),
            starved: (0..workers).map(|_| Vec::new()).collect(),
            examined: 0,
        }
    }

    /// Watches a stream under this key beside those that it has, or, without `beside`, under this
    /// one alone.
    pub(super) fn set_stream(
        &mut self,
        handle: Handle,
        key: usize,
        (interest, trigger): (Interest, Trigger),
        beside: bool,
    ) {
        let (page, place) = (handle.index as usize / PAGE, handle.index as usize % PAGE);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let page =
            self.pages[page].get_or_insert_with(|| vec![Place::default(); PAGE].into_boxed_slice());
        let new = Stream {
            generation: handle.generation,
            key,
            interest,
            trigger,
            out_of_grants: false,
            told: false,
            due: false,
            doubtful: false,
            seen: None,
        };
        let place = &mut page[place];
        place.retain(|old| beside && old.generation == handle.generation && old.key != key);
        match place.stream {
            None => place.stream = Some(new),
            Some(_) => place.others.push(new),
        }
    }

    pub(super) fn remove_stream(&mut self, handle: Handle) {
        if let Some(place) = self.place(handle.index) {
            place.retain(|stream| stream.generation != handle.generation);
        }
    }

    /// Watches a stream no longer under this key; whether it had another one.
    pub(super) fn remove_key(&mut self, handle: Handle, key: usize) -> bool {
        let Some(place) = self.place(handle.index) else { return false };
        let has_other = place.of(handle).any(|stream| stream.key != key);
        if has_other {
            place.retain(|stream| stream.key != key);
        }
        has_other
    }

    /// What a stream is watched for under any of its keys.
    pub(super) fn interest(&mut self, handle: Handle) -> Interest {
        self.streams(handle).fold(Interest::NONE, |all, stream| all | stream.interest)
    }

    fn place(&mut self, index: u32) -> Option<&mut Place> {
        let page = self.pages.get_mut(index as usize / PAGE)?.as_mut()?;
        page.get_mut(index as usize % PAGE)
    }

    /// The stream with this handle, under all its keys, unless it is another by now.
    pub(super) fn streams(&mut self, handle: Handle) -> impl Iterator<Item = &mut Stream> {
        self.place(handle.index).into_iter().flat_map(move |place| place.of(handle))
    }

    /// Something happened to a stream: it is looked at in the next round.
    pub(super) fn mark(&mut self, handle: Handle) {
        self.enqueue(handle, false);
    }

    /// Something may have happened to a stream that others watch too.
    pub(super) fn nudge(&mut self, handle: Handle) {
        self.enqueue(handle, true);
    }

    fn enqueue(&mut self, handle: Handle, doubtful: bool) {
        let Some(place) = self.place(handle.index) else { return };
        let mut is_here = false;
        for stream in place.of(handle) {
            let due = std::mem::replace(&mut stream.due, true);
            stream.doubtful = doubtful && (!due || stream.doubtful);
            is_here = true;
        }
        if is_here && !std::mem::replace(&mut place.queued, true) {
            self.queue.push_back(handle.index);
        }
    }

    /// A write found no extents of this worker.
    pub(super) fn starve(&mut self, handle: Handle, worker: u32) {
        let mut is_new = false;
        for stream in self.streams(handle) {
            is_new |= !std::mem::replace(&mut stream.out_of_grants, true);
        }
        if is_new {
            self.starved[worker as usize].push(handle);
        }
    }

    /// A look found none: asks for some.
    fn ask_for_extents(&mut self, shared: &Shared, lane: &Lane, handle: Handle) {
        let worker = shared.worker_of(handle);
        self.starve(handle, worker);
        // It fails without a daemon, which whoever looks next finds out.
        let _ = lane.want_grants(shared, worker);
    }

    /// Extents of this worker came.
    pub(super) fn feed(&mut self, worker: u32) {
        for handle in std::mem::take(&mut self.starved[worker as usize]) {
            self.streams(handle).for_each(|stream| stream.out_of_grants = false);
            self.mark(handle);
        }
    }

    /// The poller has another lane: it is told there about all streams, and looks at all of them.
    /// The caller makes the fence.
    pub(super) fn begin_anew(&mut self, shared: &Shared, lane: &Lane) {
        self.starved.iter_mut().for_each(Vec::clear);
        self.queue.clear();
        for (page, places) in self.pages.iter_mut().enumerate() {
            for (place, at) in places.iter_mut().flat_map(|places| places.iter_mut()).zip(0..) {
                let number = (page * PAGE) as u32 + at;
                place.queued = false;
                if place.stream.is_none() {
                    continue;
                }
                for stream in place.all() {
                    (stream.out_of_grants, stream.due) = (false, true);
                }
                let block = shared.segment.connection(number).expect("the daemon gave it");
                block.client.wake_reader.store(lane.index() + 1, Ordering::Relaxed);
                place.queued = true;
                self.queue.push_back(number);
            }
        }
    }

    pub(super) fn has_listener(&self, index: u32) -> bool {
        self.listeners.iter().any(|listener| listener.index == index)
    }

    /// As [`set_stream`](Self::set_stream).
    pub(super) fn set_listener(
        &mut self,
        index: u32,
        key: usize,
        (interest, trigger): (Interest, Trigger),
        beside: bool,
    ) {
        self.listeners
            .retain(|listener| listener.index != index || (beside && listener.key != key));
        self.listeners.push(Listener { index, key, interest, trigger, reported: 0, told: false });
    }

    pub(super) fn listener_numbers(&self) -> Vec<u32> {
        self.listeners.iter().map(|listener| listener.index).collect()
    }

    /// As [`remove_key`](Self::remove_key).
    pub(super) fn remove_listener_key(&mut self, index: u32, key: usize) -> bool {
        let is_other = |listener: &Listener| listener.index == index && listener.key != key;
        let has_other = self.listeners.iter().any(is_other);
        if has_other {
            self.listeners.retain(|listener| listener.index != index || listener.key != key);
        }
        has_other
    }

    pub(super) fn remove_listener(&mut self, index: u32) {
        self.listeners.retain(|listener| listener.index != index);
    }

    /// Asks for an event for the next connection of each listener. The caller makes the fence.
    pub(super) fn arm_listeners(&self, shared: &Shared, lane: &Lane) {
        for listener in &self.listeners {
            shared.segment.listener(listener.index).wait(lane.index());
        }
    }

    pub(super) fn disarm_listeners(&self, shared: &Shared, lane: &Lane) {
        for listener in &self.listeners {
            shared.segment.listener(listener.index).unwait(lane.index());
        }
    }

    /// Whether [`collect`](Self::collect) would find anything.
    pub(super) fn is_ready(&mut self, shared: &Shared, lane: &Lane) -> bool {
        self.examined += self.listeners.len() as u64;
        if self.listeners.iter().any(|listener| listener.look(shared).is_some()) {
            return true;
        }
        while let Some(&index) = self.queue.front() {
            self.examined += 1;
            let place = self.queued_place(index);
            let mut starving = None;
            for stream in place.all().filter(|stream| stream.due) {
                let look = stream.look(shared, lane, index);
                stream.due = look.ready.is_some();
                starving = starving.or(look.starving);
            }
            let is_due = place.all().any(|stream| stream.due);
            place.queued = is_due;
            if let Some(handle) = starving {
                self.ask_for_extents(shared, lane, handle);
            }
            if is_due {
                return true;
            }
            self.queue.pop_front();
        }
        false
    }

    /// Reports what is ready, as far as there is room.
    pub(super) fn collect(&mut self, shared: &Shared, lane: &Lane, events: &mut Events) {
        for listener in &mut self.listeners {
            if events.is_full() {
                return;
            }
            self.examined += 1;
            if let Some(queued) = listener.look(shared) {
                listener.reported = queued;
                listener.told = true;
                events.push(Event { key: listener.key, ready: Readiness::of_listener(true) });
            }
        }
        // Those that stay in the queue go to its end: they are not looked at twice in a round.
        for _ in 0..self.queue.len() {
            if events.is_full() {
                return;
            }
            let Some(index) = self.queue.pop_front() else { return };
            self.examined += 1;
            let place = self.queued_place(index);
            let (mut starving, mut is_cut_short) = (None, false);
            for stream in place.all().filter(|stream| stream.due) {
                is_cut_short = events.is_full();
                if is_cut_short {
                    break;
                }
                starving = starving.or(stream.report(shared, lane, index, events));
            }
            if is_cut_short {
                place.rotate();
            }
            let is_due = place.all().any(|stream| stream.due);
            place.queued = is_due;
            if is_due {
                self.queue.push_back(index);
            }
            if let Some(handle) = starving {
                self.ask_for_extents(shared, lane, handle);
            }
        }
    }

    fn queued_place(&mut self, index: u32) -> &mut Place {
        self.place(index).expect("only numbers in the table are queued")
    }
}

impl Listener {
    /// Connections ever queued, if it is to be reported.
    fn look(&self, shared: &Shared) -> Option<u64> {
        if !self.interest.is_readable() {
            return None;
        }
        let rings =
            || (0..shared.params().workers).map(|w| shared.segment.accept_ring(self.index, w));
        if rings().all(|ring| ring.is_empty()) {
            return None;
        }
        let queued = rings().map(|ring| ring.pushed()).sum();
        match self.trigger {
            Trigger::Level => Some(queued),
            Trigger::Edge => (queued != self.reported).then_some(queued),
            Trigger::Once => (!self.told).then_some(queued),
        }
    }
}

/// What a look at a stream has found.
#[derive(Debug, Default)]
struct Look {
    /// To be reported now.
    ready: Option<Readiness>,
    /// There is room to write, and no extent to write into: some are to be asked for.
    starving: Option<Handle>,
}

impl Stream {
    /// Reports what is to be reported, for which there is room. Stays due while it is level-triggered
    /// and ready. Returns its handle if there is no extent to write into.
    fn report(
        &mut self,
        shared: &Shared,
        lane: &Lane,
        index: u32,
        events: &mut Events,
    ) -> Option<Handle> {
        let before = (self.trigger == Trigger::Edge).then(|| self.see(shared, index));
        let Look { ready, starving } = self.look(shared, lane, index);
        self.due = ready.is_some() && self.trigger == Trigger::Level;
        let Some(ready) = ready else { return starving };
        events.push(Event { key: self.key, ready });
        self.told = true;
        if let Some(before) = before {
            // Whoever is told of bytes finds those too that have come since. Of anything else only
            // what was told counts as seen.
            let tail = if ready.readable { self.see(shared, index).tail } else { before.tail };
            self.seen = Some(Seen { tail, ..before });
        }
        starving
    }

    /// What is to be reported now. A stream that is to be reported when it can be written and
    /// cannot asks the daemon to say when, and looks again.
    fn look(&mut self, shared: &Shared, lane: &Lane, index: u32) -> Look {
        if self.told && self.trigger == Trigger::Once {
            return Look::default();
        }
        if self.trigger == Trigger::Edge
            && let Some(seen) = self.seen
            // The daemon's word may be of what was told already, because another poller had heard of
            // it. Only for who wants to write it is always news: room may have been used up and have
            // come again.
            && (self.doubtful || !self.interest.is_writable())
        {
            let now = self.see(shared, index);
            if !seen.differs(now) {
                // Not writable any more: when it is again, that is an edge.
                self.seen = Some(now);
                return Look::default();
            }
        }
        let block = shared.segment.connection(index).expect("the daemon gave the number");
        watch_bytes(block, lane);
        let ready = self.readiness(shared, index, block);
        let told = |ready: Readiness| Look { ready: ready.wanted(self.interest), starving: None };
        if !self.interest.is_writable() || self.out_of_grants {
            return told(ready);
        }
        if ready.writable {
            unwatch_room(block, lane);
            return told(ready);
        }
        if has_room(block) {
            // No question about room: the answer to that about extents comes in any case.
            let handle = Handle { index, generation: self.generation };
            return Look { starving: Some(handle), ..told(ready) };
        }
        watch_room(block, lane);
        let ready = self.readiness(shared, index, block);
        let handle = Handle { index, generation: self.generation };
        let starving = (!ready.writable && has_room(block)).then_some(handle);
        Look { starving, ..told(ready) }
    }

    pub(super) fn see_no_room(&mut self) {
        if let Some(seen) = &mut self.seen {
            seen.writable = false;
        }
    }

    fn see(&self, shared: &Shared, index: u32) -> Seen {
        let block = shared.segment.connection(index).expect("the daemon gave the number");
        let Readiness { writable, read_closed, .. } = self.readiness(shared, index, block);
        Seen { tail: block.receive_tail(), status: block.status(), writable, read_closed }
    }

    fn readiness(&self, shared: &Shared, index: u32, block: &ConnBlock) -> Readiness {
        let handle = Handle { index, generation: self.generation };
        let has_extent = || !self.out_of_grants && shared.has_grant(shared.worker_of(handle));
        Readiness::of_stream(block, has_extent)
    }
}

impl Seen {
    /// Whether something is there now that was not.
    fn differs(self, now: Seen) -> bool {
        self.tail != now.tail
            || self.status != now.status
            || self.read_closed != now.read_closed
            || (now.writable && !self.writable)
    }
}

impl Readiness {
    /// What a connection's block says. `has_extent`: whether there is one to write into, beside the
    /// one that is partly filled.
    pub(crate) fn of_stream(block: &ConnBlock, has_extent: impl FnOnce() -> bool) -> Readiness {
        let state = block.status();
        let read_shut = block.client.shut.load(Ordering::Relaxed) & shut::READ != 0;
        let tail = block.receive_tail();
        // Relaxed: written by this process under a lock; a stale value is put right by the next
        // event, or by the reader that moved it.
        let head = block.client.receive_head.load(Ordering::Relaxed);
        let failed = state & status::FAILED != 0;
        let read_closed = failed || state & status::PEER_CLOSED != 0 || read_shut;
        let connected = state & status::CONNECTED != 0;
        let write_closed = state & status::WRITE_CLOSED != 0;
        Readiness {
            readable: tail != head || read_closed,
            writable: failed
                || write_closed
                || (connected && has_room(block) && (has_open_extent(block) || has_extent())),
            error: failed,
            read_closed,
            closed: failed || (read_closed && write_closed),
        }
    }
}

/// Whether the connection's buffer takes a byte.
pub(crate) fn has_room(block: &ConnBlock) -> bool {
    // Relaxed: as for the head of reading.
    let written = block.client.send_tail.load(Ordering::Relaxed);
    // Acquire: as for writing itself.
    block.daemon.send_limit.load(Ordering::Acquire) > written
}

/// Whether the last extent can be appended to. The daemon may take it back meanwhile, which
/// whoever writes finds out.
fn has_open_extent(block: &ConnBlock) -> bool {
    let written = block.client.send_tail.load(Ordering::Relaxed);
    let word = block.client.open_extent.load(Ordering::Relaxed);
    position_of(written) != 0 && word != partial::RELEASED
}

/// Asks the daemon again to tell this poller's lane about bytes, if nobody is told: another process
/// that held the stream and was told is gone.
fn watch_bytes(block: &ConnBlock, lane: &Lane) {
    let (word, own) = (&block.client.wake_reader, lane.index() + 1);
    if word.load(Ordering::Relaxed) == 0 {
        // Relaxed: ordered by the fence.
        let _ = word.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed);
        publish_fence();
    }
}

/// Asks the daemon to tell this poller's lane about room to write, unless a blocked thread asked
/// already (it hands over when it is done), and makes the fence for the second look.
pub(crate) fn watch_room(block: &ConnBlock, lane: &Lane) {
    let (word, own) = (&block.client.wake_writer, lane.index() + 1);
    // Relaxed: ordered by the fence.
    let _ = word.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed);
    publish_fence();
}

/// No event per acknowledgement while there is room.
fn unwatch_room(block: &ConnBlock, lane: &Lane) {
    let (word, own) = (&block.client.wake_writer, lane.index() + 1);
    if word.load(Ordering::Relaxed) == own {
        let _ = word.compare_exchange(own, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}
