//! epoll instances that watch descriptors of the kernel's and of ours.
//!
//! The instance is the kernel's, under the number that the program got for it, until a socket of
//! ours is added. From then on a [`Poller`] stands beside it, whose descriptor is in the kernel's
//! set. Waiting looks at the poller in memory, and makes a system call only when there is nothing,
//! or now and then to be fair to the kernel's descriptors.

use crate::description::{Description, Found};
use crate::error::{Errno, Result, errno};
use crate::fork;
use crate::kernel::{self, Mask};
use crate::socket::{Socket, Watchable};
use crate::table::{self, Owner};
use arc_swap::ArcSwap;
use fourwave::{Event, Events, Interest, Poller, Readiness, Runtime, Slept, Trigger};
use rustix::fd::AsFd;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Waits that find something of ours before the kernel is asked too.
const UNFAIR_WAITS: u32 = 16;

/// Events of each side taken at once, at the most: what a program has room for beyond that waits.
const MOST_EVENTS: usize = 1024;

const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;
const READ: u32 = IN | libc::EPOLLRDNORM as u32;
const WRITE: u32 = OUT | libc::EPOLLWRNORM as u32;
const PEER_CLOSED: u32 = libc::EPOLLRDHUP as u32;
const FAILED: u32 = libc::EPOLLERR as u32;
const CLOSED: u32 = libc::EPOLLHUP as u32;
const EDGE: u32 = libc::EPOLLET as u32;
const ONCE: u32 = libc::EPOLLONESHOT as u32;

/// What stands beside a kernel epoll instance.
#[derive(Debug)]
pub struct Epoll {
    /// Another one when the daemon has gone and a socket of the next one is added.
    poller: ArcSwap<Poller>,
    entries: Mutex<Entries>,
    /// There may be entries of a daemon that is gone beside those of another.
    orphans: AtomicBool,
    /// Waits since the kernel was asked.
    unfair: AtomicU32,
    /// [`fork::generation`] of the process whose poller is in the kernel's set. Parent and child
    /// share that; the child's poller stays out of it, or it would wake the parent.
    generation: u32,
}

/// What the program has said of each socket.
#[derive(Debug, Default)]
struct Entries {
    slots: Vec<Slot>,
    free: Vec<usize>,
    by_number: HashMap<RawFd, usize>,
}

#[derive(Debug)]
struct Slot {
    entry: Option<Entry>,
    /// Of the entry: an event of a former one is not the program's any more.
    generation: u32,
}

#[derive(Debug)]
struct Entry {
    fd: RawFd,
    socket: Weak<Description>,
    events: u32,
    data: u64,
    /// Its daemon is gone, and this was told.
    lost: bool,
    /// Of a daemon before that of the poller.
    orphan: bool,
}

impl Entry {
    /// Whether the end of its daemon is to be told.
    fn has_news_of_loss(&self) -> bool {
        let quiet = self.events & (EDGE | ONCE) != 0 && self.lost;
        self.socket.strong_count() > 0 && !quiet
    }
}

impl Entries {
    /// The slot of this number, if it is for this socket.
    fn of(&self, fd: RawFd, socket: &Found) -> Option<usize> {
        let index = *self.by_number.get(&fd)?;
        let entry = self.slots[index].entry.as_ref()?;
        std::ptr::eq(entry.socket.as_ptr(), Arc::as_ptr(socket.arc())).then_some(index)
    }

    /// Enters an entry; returns its key.
    fn add(&mut self, entry: Entry) -> usize {
        // The number was another socket's. If that lives on under another number, it stays.
        if let Some(old) = self.by_number.get(&entry.fd).copied()
            && self.slots[old].entry.as_ref().is_some_and(|old| old.socket.strong_count() == 0)
        {
            self.remove(old);
        }
        let index = self.free.pop().unwrap_or(self.slots.len());
        if index == self.slots.len() {
            self.slots.push(Slot { entry: None, generation: 0 });
        }
        self.by_number.insert(entry.fd, index);
        self.slots[index].entry = Some(entry);
        self.key(index)
    }

    fn remove(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        if let Some(entry) = slot.entry.take() {
            if self.by_number.get(&entry.fd) == Some(&index) {
                self.by_number.remove(&entry.fd);
            }
            self.free.push(index);
        }
    }

    fn key(&self, index: usize) -> usize {
        (self.slots[index].generation as usize) << 32 | index
    }

    fn by_key(&self, key: usize) -> Option<&Entry> {
        let slot = self.slots.get(key & u32::MAX as usize)?;
        (slot.generation as usize == key >> 32).then_some(slot.entry.as_ref()).flatten()
    }
}

/// A kernel epoll instance that watches the kernel's socket of one that is not decided yet.
#[derive(Debug)]
pub(crate) struct Early {
    epfd: RawFd,
    fd: RawFd,
    events: u32,
    data: u64,
}

impl Early {
    pub(crate) fn is_of(&self, epfd: RawFd, fd: RawFd) -> bool {
        (self.epfd, self.fd) == (epfd, fd)
    }

    pub(crate) fn is_same(&self, other: &Early) -> bool {
        self.is_of(other.epfd, other.fd)
    }

    /// The socket is ours now, or once more: so is its place.
    pub(crate) fn move_over(self, socket: &Socket) {
        let same = |found: &Found| found.socket().is_ok_and(|own| std::ptr::eq(own, socket));
        // The number may be another's by now.
        let Some(found) = crate::find(self.fd).filter(same) else { return };
        if kernel::epoll_ctl(self.epfd, libc::EPOLL_CTL_DEL, self.fd, None).is_err() {
            // It was closed or removed meanwhile; or it was ours, and connecting has failed.
            if let Some(instance) = crate::find(self.epfd)
                && let Some(epoll) = instance.epoll()
            {
                epoll.restore(self.fd, &found, socket);
            }
        } else {
            let event = libc::epoll_event { events: self.events, u64: self.data };
            // What cannot be watched is found out by the program when it asks again.
            let _ = control(self.epfd, libc::EPOLL_CTL_ADD, self.fd, &found, Some(event));
        }
    }
}

/// `epoll_ctl(2)` for a number that was found, on an instance of the kernel's or of ours.
///
/// # Errors
/// `EEXIST`, `ENOENT` and `EINVAL` as the kernel; `ENOBUFS` when the daemon has no lane left for
/// the instance.
pub fn control(
    epfd: RawFd,
    operation: i32,
    fd: RawFd,
    found: &Found,
    event: Option<libc::epoll_event>,
) -> Result<()> {
    let Some(socket) = found.served() else {
        // Its place from before a connect that has failed.
        let place = crate::find(epfd)
            .is_some_and(|instance| instance.epoll().is_some_and(|epoll| epoll.leave(fd, found)));
        let operation = match (place, operation) {
            (true, libc::EPOLL_CTL_DEL) => {
                if let Ok(socket) = found.socket() {
                    socket.unwatched_early(epfd, fd);
                }
                return Ok(());
            }
            (true, libc::EPOLL_CTL_MOD) => libc::EPOLL_CTL_ADD,
            _ => operation,
        };
        kernel::epoll_ctl(epfd, operation, fd, event)?;
        if let Ok(socket) = found.socket()
            && socket.is_fresh()
        {
            match event {
                Some(event) if operation != libc::EPOLL_CTL_DEL => {
                    let (events, data) = (event.events, event.u64);
                    socket.watched_early(Early { epfd, fd, events, data });
                }
                Some(_) | None => socket.unwatched_early(epfd, fd),
            }
        }
        return Ok(());
    };
    if operation != libc::EPOLL_CTL_DEL && event.is_none() {
        return Err(Errno::FAULT);
    }
    let instance = instance(epfd, operation == libc::EPOLL_CTL_ADD)?;
    let Some(epoll) = instance.epoll() else { return Err(Errno::INVAL) };
    match (operation, event) {
        (libc::EPOLL_CTL_ADD, Some(event)) => {
            epoll.add((epfd, &instance), fd, found, event)?;
            if socket.is_connecting() {
                let (events, data) = (event.events, event.u64);
                socket.watched_early(Early { epfd, fd, events, data });
            }
            Ok(())
        }
        (libc::EPOLL_CTL_MOD, Some(event)) => epoll.modify(fd, found, socket, event),
        (libc::EPOLL_CTL_DEL, _) => epoll.delete(fd, found, socket),
        _ => Err(Errno::INVAL),
    }
}

/// What stands beside the instance; made if need be.
fn instance(epfd: RawFd, make: bool) -> Result<Found> {
    static MAKING: Mutex<()> = Mutex::new(());
    if let Some(found) = crate::find(epfd) {
        return Ok(found);
    }
    if !make {
        return Err(Errno::NOENT);
    }
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = crate::find(epfd) {
        return Ok(found);
    }
    if !table::has_room(epfd) {
        return Err(Errno::MFILE);
    }
    let runtime = Runtime::default_instance().map_err(errno)?;
    let poller = Poller::with_runtime(&runtime).map_err(errno)?;
    let bell = poller.as_fd().as_raw_fd();
    let epoll = Epoll {
        poller: ArcSwap::from_pointee(poller),
        entries: Mutex::default(),
        orphans: AtomicBool::new(false),
        unfair: AtomicU32::new(0),
        generation: fork::generation(),
    };
    let description = Arc::new(Description::Epoll(epoll));
    // It fails if it is no epoll instance.
    let event = libc::epoll_event { events: IN, u64: marker(&description) };
    kernel::epoll_ctl(epfd, libc::EPOLL_CTL_ADD, bell, Some(event))?;
    table::insert(epfd, description, Owner::Program);
    let found = crate::find(epfd).ok_or(Errno::BADF)?;
    if let Some(epoll) = found.epoll() {
        // Threads may sleep in the kernel's own call: one wakes, and finds this.
        epoll.poller.load().ring().map_err(errno)?;
    }
    Ok(found)
}

/// What the kernel tells when the poller's descriptor is readable. No event of the program's
/// carries the address of memory that it does not know of.
fn marker(description: &Arc<Description>) -> u64 {
    Arc::as_ptr(description) as usize as u64
}

/// Takes the poller's own events out of what the kernel told; returns how many are left, and
/// whether there were any.
///
/// A caller of the kernel's own call on an instance that has become ours meanwhile uses it too.
pub fn strip(found: &Found, events: &mut [libc::epoll_event]) -> (usize, bool) {
    let marker = marker(found.arc());
    let mut kept = 0;
    for index in 0..events.len() {
        if events[index].u64 != marker {
            events[kept] = events[index];
            kept += 1;
        }
    }
    (kept, kept < events.len())
}

/// `epoll_pwait2(2)` on an instance that was found: waits for at most `timeout` (`None`: for
/// ever), with `mask` as the signal mask while it sleeps. Returns the number of events.
///
/// # Errors
/// `EINVAL` without room for events; `EINTR`; `EBADF`.
pub fn wait(
    epfd: RawFd,
    found: &Found,
    events: &mut [libc::epoll_event],
    timeout: Option<Duration>,
    mask: Option<&libc::sigset_t>,
) -> Result<usize> {
    let Some(epoll) = found.epoll() else { return Err(Errno::INVAL) };
    if events.is_empty() {
        return Err(Errno::INVAL);
    }
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let left = if timeout == Some(Duration::ZERO) { timeout } else { left };
        match epoll.wait_once(epfd, found, events, left, mask)? {
            0 if left.is_none_or(|left| !left.is_zero()) => {}
            count => return Ok(count),
        }
    }
}

impl Epoll {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the socket into the poller.
    fn enter(&self, socket: &Socket, key: usize, events: u32) -> Result<()> {
        let (interest, trigger) = (interest(events), trigger(events));
        let poller = self.poller.load();
        // Beside the same socket's under other numbers.
        let entered = socket.with_source(|source| match source {
            Watchable::Listener(source) => poller.set(source, key, interest, trigger),
            Watchable::Stream(source) => poller.set(source, key, interest, trigger),
        });
        entered.unwrap_or_else(|| Err(io::ErrorKind::InvalidInput.into())).map_err(errno)
    }

    fn add(
        &self,
        (epfd, own): (RawFd, &Found),
        fd: RawFd,
        found: &Found,
        event: libc::epoll_event,
    ) -> Result<()> {
        let socket = found.socket()?;
        let mut entries = self.entries();
        if entries.of(fd, found).is_some() {
            return Err(Errno::EXIST);
        }
        let (events, data) = (event.events, event.u64);
        let socket_ = Arc::downgrade(found.arc());
        let entry = Entry { fd, socket: socket_, events, data, lost: false, orphan: false };
        let key = entries.add(entry);
        let index = key & u32::MAX as usize;
        let entered = match self.enter(socket, key, events) {
            Err(Errno::INVAL) => self
                .renew(epfd, own, &mut entries, index)
                .and_then(|()| self.enter(socket, key, events)),
            entered => entered,
        };
        entered.inspect_err(|_| entries.remove(index))
    }

    /// The socket added at `index` is of a daemon that came after the poller's: so is the poller
    /// from now on.
    fn renew(&self, epfd: RawFd, own: &Found, entries: &mut Entries, index: usize) -> Result<()> {
        let old = self.poller.load_full();
        if old.ring().map_err(errno) != Err(Errno::NETDOWN) {
            return Err(Errno::INVAL);
        }
        let runtime = Runtime::default_instance().map_err(errno)?;
        let new = Poller::with_runtime(&runtime).map_err(errno)?;
        if self.generation == fork::generation() {
            // Not there any more if somebody has waited since.
            let bell = old.as_fd().as_raw_fd();
            let _ = kernel::epoll_ctl(epfd, libc::EPOLL_CTL_DEL, bell, None);
            let event = libc::epoll_event { events: IN, u64: marker(own.arc()) };
            kernel::epoll_ctl(epfd, libc::EPOLL_CTL_ADD, new.as_fd().as_raw_fd(), Some(event))?;
        }
        for (at, slot) in entries.slots.iter_mut().enumerate() {
            if let Some(entry) = &mut slot.entry {
                entry.orphan |= at != index;
            }
        }
        self.orphans.store(true, Ordering::Relaxed);
        // Who sleeps in the kernel's call alone finds this.
        new.ring().map_err(errno)?;
        self.poller.store(Arc::new(new));
        Ok(())
    }

    /// The socket is connecting once more: its place is there still.
    fn restore(&self, fd: RawFd, found: &Found, socket: &Socket) {
        let entries = self.entries();
        let Some(index) = entries.of(fd, found) else { return };
        if let Some(entry) = &entries.slots[index].entry {
            // As when it moves over from the kernel.
            let _ = self.enter(socket, entries.key(index), entry.events);
        }
    }

    /// Takes away the place of a socket that is not served here any more; whether it had one.
    fn leave(&self, fd: RawFd, found: &Found) -> bool {
        let mut entries = self.entries();
        let place = entries.of(fd, found);
        place.inspect(|index| entries.remove(*index)).is_some()
    }

    fn modify(
        &self,
        fd: RawFd,
        found: &Found,
        socket: &Socket,
        event: libc::epoll_event,
    ) -> Result<()> {
        let mut entries = self.entries();
        let index = entries.of(fd, found).ok_or(Errno::NOENT)?;
        let (events, data) = (event.events, event.u64);
        if let Some(entry) = &mut entries.slots[index].entry {
            (entry.events, entry.data, entry.lost) = (events, data, false);
        }
        let key = entries.key(index);
        let (interest, trigger) = (interest(events), trigger(events));
        let poller = self.poller.load();
        let changed = socket.with_source(|source| match source {
            Watchable::Listener(source) => poller.set(source, key, interest, trigger),
            Watchable::Stream(source) => poller.set(source, key, interest, trigger),
        });
        match changed.unwrap_or(Ok(())).map_err(errno) {
            // The next wait tells.
            Err(Errno::NETDOWN) => Ok(()),
            result => result,
        }
    }

    fn delete(&self, fd: RawFd, found: &Found, socket: &Socket) -> Result<()> {
        let mut entries = self.entries();
        let index = entries.of(fd, found).ok_or(Errno::NOENT)?;
        let key = entries.key(index);
        entries.remove(index);
        drop(entries);
        // It is not there any more when its daemon is gone.
        let poller = self.poller.load();
        let _ = socket.with_source(|source| match source {
            Watchable::Listener(source) => poller.unset(source, key),
            Watchable::Stream(source) => poller.unset(source, key),
        });
        Ok(())
    }

    /// Waits once; 0 can also mean that it is worth another try.
    fn wait_once(
        &self,
        epfd: RawFd,
        found: &Found,
        out: &mut [libc::epoll_event],
        timeout: Option<Duration>,
        mask: Mask<'_>,
    ) -> Result<usize> {
        if !self.orphans.load(Ordering::Relaxed) {
            return self.wait_with_poller(epfd, found, out, timeout, mask);
        }
        let lost = self.tell_lost(out, |entry| entry.orphan);
        let timeout = if lost > 0 { Some(Duration::ZERO) } else { timeout };
        match self.wait_rest(epfd, found, &mut out[lost..], timeout, mask) {
            Err(_) if lost > 0 => Ok(lost),
            told => told.map(|told| told + lost),
        }
    }

    /// The same, if there is room left.
    fn wait_rest(
        &self,
        epfd: RawFd,
        found: &Found,
        out: &mut [libc::epoll_event],
        timeout: Option<Duration>,
        mask: Mask<'_>,
    ) -> Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        self.wait_with_poller(epfd, found, out, timeout, mask)
    }

    fn wait_with_poller(
        &self,
        epfd: RawFd,
        found: &Found,
        out: &mut [libc::epoll_event],
        timeout: Option<Duration>,
        mask: Mask<'_>,
    ) -> Result<usize> {
        if out.len() == 1 && self.unfair.load(Ordering::Relaxed) >= UNFAIR_WAITS {
            self.unfair.store(0, Ordering::Relaxed);
            let theirs = self.take_theirs(epfd, found, out, 1)?;
            if theirs > 0 {
                return Ok(theirs);
            }
        }
        // What is taken has to be told: each side has its half of the room.
        let apart = out.len() == 1 || self.generation != fork::generation();
        let half = if apart { 0 } else { (out.len() / 2).min(MOST_EVENTS) };
        let mut ours = Events::with_capacity((out.len() - half).min(MOST_EVENTS));
        let mut theirs = 0;
        let mut asked = false;
        let poller = self.poller.load_full();
        let waited = poller.wait_beside(&mut ours, timeout, &mut |left| {
            asked = true;
            if half == 0 {
                return sleep_beside(epfd, &poller, left, mask);
            }
            let count = kernel::epoll_wait(epfd, &mut out[..half], left, mask)?;
            let (own, rung) = strip(found, &mut out[..count]);
            theirs = own;
            Ok(Slept { rung, own: own > 0 })
        });
        match waited.map_err(errno) {
            Ok(_) => {}
            Err(Errno::NETDOWN) => {
                // What the kernel has told by then stays told.
                let timeout = if theirs > 0 { Some(Duration::ZERO) } else { timeout };
                let rest = &mut out[theirs..];
                let told = self.wait_orphaned(epfd, (found, &poller), rest, timeout, mask)?;
                return Ok(theirs + told);
            }
            Err(errno) => return Err(errno),
        }
        let mut count = theirs;
        {
            let entries = self.entries();
            for event in ours.iter() {
                if let Some(told) = entries.tell(event) {
                    out[count] = told;
                    count += 1;
                }
            }
        }
        let unfair = if asked { 0 } else { self.unfair.load(Ordering::Relaxed) + 1 };
        let room = out.len() - count;
        if room > 0 && (!asked && (count == 0 || unfair >= UNFAIR_WAITS) || half == 0 && count == 0)
        {
            self.unfair.store(0, Ordering::Relaxed);
            return Ok(count + self.take_theirs(epfd, found, &mut out[count..], room)?);
        }
        self.unfair.store(unfair, Ordering::Relaxed);
        Ok(count)
    }

    /// What the kernel has now.
    fn take_theirs(
        &self,
        epfd: RawFd,
        found: &Found,
        out: &mut [libc::epoll_event],
        room: usize,
    ) -> Result<usize> {
        if room == 0 {
            return Ok(0);
        }
        let count = kernel::epoll_wait(epfd, out, Some(Duration::ZERO), None)?;
        Ok(strip(found, &mut out[..count]).0)
    }

    /// The daemon is gone: its sockets have failed, and the kernel's descriptors live on.
    fn wait_orphaned(
        &self,
        epfd: RawFd,
        (found, poller): (&Found, &Poller),
        out: &mut [libc::epoll_event],
        timeout: Option<Duration>,
        mask: Mask<'_>,
    ) -> Result<usize> {
        let count = self.tell_lost(out, |_| true);
        // The poller's descriptor says for ever that its daemon is gone.
        let bell = poller.as_fd().as_raw_fd();
        let _ = kernel::epoll_ctl(epfd, libc::EPOLL_CTL_DEL, bell, None);
        let timeout = if count > 0 { Some(Duration::ZERO) } else { timeout };
        if count == out.len() {
            return Ok(count);
        }
        let theirs = kernel::epoll_wait(epfd, &mut out[count..], timeout, mask)?;
        Ok(count + strip(found, &mut out[count..count + theirs]).0)
    }

    /// Tells that sockets have failed with their daemon; returns of how many.
    fn tell_lost(&self, out: &mut [libc::epoll_event], which: impl Fn(&Entry) -> bool) -> usize {
        let mut count = 0;
        let mut entries = self.entries();
        for entry in entries.slots.iter_mut().filter_map(|slot| slot.entry.as_mut()) {
            if !which(entry) || !entry.has_news_of_loss() || count == out.len() {
                continue;
            }
            entry.lost = true;
            let events = FAILED | CLOSED | entry.events & (READ | WRITE | PEER_CLOSED);
            out[count] = libc::epoll_event { events, u64: entry.data };
            count += 1;
        }
        count
    }

    /// Whether a wait would have something.
    pub(crate) fn is_ready(&self, epfd: RawFd) -> Result<bool> {
        let lost = |entry: &Entry| entry.orphan && entry.has_news_of_loss();
        if self.orphans.load(Ordering::Relaxed)
            && self.entries().slots.iter().filter_map(|slot| slot.entry.as_ref()).any(lost)
        {
            return Ok(true);
        }
        match self.poller.load().has_events().map_err(errno) {
            Ok(false) => {}
            Ok(true) | Err(Errno::NETDOWN) => return Ok(true),
            Err(errno) => return Err(errno),
        }
        let mut fds = [libc::pollfd { fd: epfd, events: libc::POLLIN, revents: 0 }];
        Ok(kernel::poll(&mut fds, Some(Duration::ZERO), None)? > 0)
    }

    /// A thread is going to sleep on the instance's number: it is woken for sockets of ours too, as
    /// long as it keeps what this returns. `true`: there is something already.
    pub(crate) fn announce(&self) -> (Announced, io::Result<bool>) {
        let announced = Announced(self.poller.load_full());
        let ready = announced.0.announce();
        (announced, ready)
    }
}

/// A thread sleeps, or is about to.
#[derive(Debug)]
pub(crate) struct Announced(Arc<Poller>);

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.retract();
    }
}

/// Sleeps without taking events: there is room for one only, and it may be ours; or the poller's
/// descriptor is not in the kernel's set.
fn sleep_beside(
    epfd: RawFd,
    poller: &Poller,
    timeout: Option<Duration>,
    mask: Mask<'_>,
) -> io::Result<Slept> {
    let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut fds = [entry(epfd), entry(poller.as_fd().as_raw_fd())];
    kernel::poll(&mut fds, timeout, mask)?;
    let rung = fds[1].revents != 0;
    Ok(Slept { rung, own: fds[0].revents != 0 && !rung })
}

impl Entries {
    /// An event as the program has asked for it.
    fn tell(&self, event: Event) -> Option<libc::epoll_event> {
        let entry = self.by_key(event.key())?;
        let events = bits(event.readiness()) & (entry.events | FAILED | CLOSED);
        (events != 0).then_some(libc::epoll_event { events, u64: entry.data })
    }
}

fn bits(ready: Readiness) -> u32 {
    let parts = [
        (ready.is_readable(), READ),
        (ready.is_writable(), WRITE),
        (ready.is_read_closed(), PEER_CLOSED),
        (ready.is_error(), FAILED),
        (ready.is_closed(), CLOSED),
    ];
    parts.iter().filter(|(is, _)| *is).fold(0, |all, (_, bits)| all | bits)
}

fn interest(events: u32) -> Interest {
    let parts = [
        (READ, Interest::READABLE),
        (WRITE, Interest::WRITABLE),
        (PEER_CLOSED, Interest::READ_CLOSED),
    ];
    let asked = parts.iter().filter(|(bits, _)| events & bits != 0);
    asked.fold(Interest::NONE, |all, (_, interest)| all | *interest)
}

fn trigger(events: u32) -> Trigger {
    if events & ONCE != 0 {
        Trigger::Once
    } else if events & EDGE != 0 {
        Trigger::Edge
    } else {
        Trigger::Level
    }
}
