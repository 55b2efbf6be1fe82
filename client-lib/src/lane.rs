//! A lane: one set of rings with each worker, and the doorbells beside them.
//!
//! A lane belongs to one thread or one [`Poller`](crate::Poller). Others may still post through
//! it and take its grants, so its private indices are behind a lock that is nearly always free.

use crate::aside::OwnDescriptor;
use crate::control::unexpected;
use crate::error::explained;
use crate::fork::{self, Mutex, MutexGuard};
use crate::runtime::{LanesGuard, Shared};
use fourwave_protocol::command::{Command, Event, decode_grant};
use fourwave_protocol::control::{Reply, Request};
use fourwave_protocol::report::Report;
use fourwave_protocol::ring::{Consumer, Producer};
use fourwave_protocol::{Corrupt, ExtentId, Handle};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering, fence};
use std::time::Instant;

/// Tag of the control socket in the epoll set; workers use their number.
const CONTROL: u64 = 1 << 32;
/// Tag of the event descriptor through which this process wakes the lane.
const KICK: u64 = 2 << 32;

/// Yields with a full command ring between two looks at whether the daemon lives.
const YIELDS_PER_PROBE: u32 = 64;

#[derive(Debug)]
pub(crate) struct Lane {
    index: AtomicU16,
    /// The [`epoch`](fork::epoch) of the process whose lane it is.
    epoch: AtomicU32,
    /// Readable when a doorbell, the control socket's end or a kick wants attention.
    epoll: OwnDescriptor,
    /// The client's end of one socket pair per worker.
    doorbells: Vec<OwnDescriptor>,
    kick: OwnDescriptor,
    /// Whether the owner sleeps or is about to; for kicks from this process.
    asleep: AtomicBool,
    /// How long spinning is worth it at the moment, microseconds.
    pub(crate) spin_micros: AtomicU32,
    /// Grants that others have taken and not posted yet ([`Loan`]).
    lent: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// It is about to be given back to the daemon: nothing is lent any more.
    retired: bool,
    workers: Vec<PerWorker>,
    next_token: u32,
    /// The connect that the owner waits for, and its answer.
    opening: Option<(u32, Option<Opened>)>,
    /// The question that the owner waits to see answered.
    asking: Option<Asking>,
}

/// A question about a connection.
#[derive(Debug, Clone, Copy)]
struct Asking {
    token: u32,
    worker: u32,
    answered: bool,
}

/// The answer to [`Command::Connect`]: the new connection, or an errno.
pub(crate) type Opened = Result<Handle, i32>;

#[derive(Debug, Default)]
struct PerWorker {
    commands: Producer,
    events: Consumer,
    grants: Consumer,
    /// `WantGrants` was posted and not answered yet.
    wanted: bool,
}

impl State {
    fn new(workers: usize) -> State {
        let workers = (0..workers).map(|_| PerWorker::default()).collect();
        State { retired: false, workers, next_token: 0, opening: None, asking: None }
    }
}

/// A grant of another thread's lane is being used. The lane is not given back to the daemon, which
/// would take its grants back, before that has been posted.
#[derive(Debug)]
pub(crate) struct Loan(Arc<Lane>);

impl Drop for Loan {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in retire(); what was posted comes before the end.
        self.0.lent.fetch_sub(1, Ordering::Release);
    }
}

/// A lane that the daemon has attached: its number, and its doorbells.
#[derive(Debug)]
pub(crate) struct Gift {
    index: u16,
    doorbells: Vec<OwnDescriptor>,
}

impl Gift {
    /// `None` if doorbells are missing: for want of descriptors, as a rule.
    pub(crate) fn new(shared: &Shared, index: u16, doorbells: Vec<OwnDescriptor>) -> Option<Gift> {
        let is_whole = doorbells.len() == shared.params().workers as usize;
        is_whole.then_some(Gift { index, doorbells })
    }

    /// Asks the daemon for one.
    fn request(shared: &Shared) -> io::Result<Gift> {
        let (reply, doorbells) = shared.request(&Request::AttachLane)?;
        let Reply::Attached { lane } = reply else { return Err(unexpected(&reply)) };
        Gift::new(shared, lane, doorbells).ok_or_else(|| {
            explained(
                Errno::PROTO.raw_os_error(),
                "the fourwave daemon sent a lane without its doorbells",
            )
        })
    }
}

/// What a lane is made of, besides what it remembers.
struct Parts {
    index: u16,
    epoll: OwnDescriptor,
    doorbells: Vec<OwnDescriptor>,
    kick: OwnDescriptor,
}

impl Parts {
    fn attach(shared: &Shared, gift: Option<Gift>) -> io::Result<Parts> {
        let Gift { index, doorbells } = gift.map_or_else(|| Gift::request(shared), Ok)?;
        let kick = OwnDescriptor::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let epoll = OwnDescriptor::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let add = |fd: BorrowedFd<'_>, tag, flags| {
            epoll::add(&epoll, fd, epoll::EventData::new_u64(tag), flags)
        };
        for (worker, doorbell) in doorbells.iter().enumerate() {
            add(doorbell.as_fd(), worker as u64, epoll::EventFlags::IN)?;
        }
        // No flags: a hang-up is reported always, replies for others are not.
        add(shared.control.as_fd(), CONTROL, epoll::EventFlags::empty())?;
        add(kick.as_fd(), KICK, epoll::EventFlags::IN)?;
        Ok(Parts { index, epoll, doorbells, kick })
    }
}

/// Why a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Somebody rang, or might have.
    Rung,
    /// The time is over.
    TimedOut,
    /// A signal was handled.
    Interrupted,
}

impl Lane {
    /// Makes a lane of what was given, or asks the daemon for one.
    pub(crate) fn attach(shared: &Shared, gift: Option<Gift>) -> io::Result<Lane> {
        let Parts { index, epoll, doorbells, kick } = Parts::attach(shared, gift)?;
        let state = Mutex::new(State::new(doorbells.len()));
        Ok(Lane {
            index: AtomicU16::new(index),
            epoch: AtomicU32::new(fork::epoch()),
            epoll,
            doorbells,
            kick,
            asleep: AtomicBool::new(false),
            spin_micros: AtomicU32::new(u32::MAX),
            lent: AtomicU32::new(0),
            state,
        })
    }

    /// In a child: whether it is still the parent's.
    pub(crate) fn is_inherited(&self) -> bool {
        self.epoch.load(Ordering::Relaxed) != fork::epoch()
    }

    /// In a child: puts a lane of its own in the place of its parent's. Nobody may be using it.
    pub(crate) fn renew(&self, shared: &Shared, lanes: &mut LanesGuard<'_>) -> io::Result<()> {
        let mut state = self.state.lock();
        let Parts { index, epoll, doorbells, kick } = Parts::attach(shared, lanes.take_gift())?;
        fork::replace(self.epoll.as_fd(), epoll)?;
        fork::replace(self.kick.as_fd(), kick)?;
        for (old, new) in self.doorbells.iter().zip(doorbells) {
            fork::replace(old.as_fd(), new)?;
        }
        *state = State::new(self.doorbells.len());
        self.lent.store(0, Ordering::Relaxed);
        self.asleep.store(false, Ordering::Relaxed);
        self.index.store(index, Ordering::Relaxed);
        self.epoch.store(fork::epoch(), Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn index(&self) -> u16 {
        // Relaxed: changes only while nobody uses it.
        self.index.load(Ordering::Relaxed)
    }

    /// Nobody else posts through the lane, takes events off it, or forks, while `f` runs: for taking
    /// a connection off an accept queue.
    pub(crate) fn exclusively<R>(&self, f: impl FnOnce() -> R) -> R {
        let _state = self.state.lock();
        f()
    }

    /// Before a fork: nothing is posted or taken until [`release`](Self::release).
    pub(crate) fn hold(&self) {
        std::mem::forget::<MutexGuard<'_, State>>(self.state.lock());
    }

    /// In the parent, after a fork.
    pub(crate) fn release(&self) {
        fork::unlock(&self.state);
    }

    /// The descriptor that becomes readable when a sleeping lane is rung.
    pub(crate) fn readiness(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Posts a command and rings the worker if it sleeps. Waits for room if the ring is full:
    /// the daemon never waits for a client, so room comes as long as it lives.
    pub(crate) fn post(&self, shared: &Shared, worker: u32, command: Command) -> io::Result<()> {
        let ring = shared.segment.command_ring(self.index(), worker);
        let words = command.encode();
        let mut yields = 0u32;
        loop {
            let pushed = self.state.lock().workers[worker as usize].commands.push(&ring, words);
            let pushed = pushed.map_err(|Corrupt| shared.set_gone())?;
            self.ring(shared, worker)?;
            if pushed {
                return Ok(());
            }
            yields += 1;
            if yields.is_multiple_of(YIELDS_PER_PROBE) && shared.control.is_hung_up() {
                return Err(shared.set_gone());
            }
            rustix::thread::sched_yield();
        }
    }

    /// Rings a worker's doorbell if it sleeps.
    fn ring(&self, shared: &Shared, worker: u32) -> io::Result<()> {
        if !shared.segment.worker_sleeper(worker).must_ring() {
            return Ok(());
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match rustix::net::send(&self.doorbells[worker as usize], &[1], flags) {
                // EAGAIN: so many rings wait already that one more says nothing new.
                Ok(_) | Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => {
                    return Err(shared.set_gone());
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Takes all events out of the rings and shows them to `each`, with the worker they are
    /// from. Answers to connects and grants are dealt with here.
    pub(crate) fn drain(
        &self,
        shared: &Shared,
        mut each: impl FnMut(u32, Event),
    ) -> io::Result<()> {
        let mut strays = None;
        let mut state = self.state.lock();
        let State { workers, opening, asking, .. } = &mut *state;
        for (worker, own) in (0..).zip(workers) {
            let ring = shared.segment.event_ring(self.index(), worker);
            while let Some(words) = own.events.pop(&ring).map_err(|Corrupt| shared.set_gone())? {
                // An unknown event cannot come from a daemon of this version.
                let Some(event) = Event::decode(words) else { continue };
                match event {
                    Event::Opened { token, handle } => {
                        if !answer(opening, token, Ok(handle)) {
                            strays.get_or_insert_with(Vec::new).push(handle);
                        }
                    }
                    Event::Refused { token, errno } => {
                        answer(opening, token, Err(errno as i32));
                    }
                    Event::Granted => own.wanted = false,
                    Event::Reported { token } => {
                        if let Some(asking) = asking.as_mut().filter(|own| own.token == token) {
                            asking.answered = true;
                        }
                    }
                    Event::Ready { .. } | Event::Acceptable { .. } => {}
                }
                each(worker, event);
            }
        }
        drop(state);
        // Opened after the caller's patience had ended: nobody will ever use it.
        for handle in strays.into_iter().flatten() {
            let worker = shared.worker_of(handle);
            let close = Command::Close { handle, tail: 0, last: None, abort: true };
            self.post(shared, worker, close)?;
        }
        Ok(())
    }

    /// Posts a connect; its answer is asked for with [`take_opened`](Self::take_opened).
    pub(crate) fn post_connect(
        &self,
        shared: &Shared,
        worker: u32,
        peer: SocketAddr,
    ) -> io::Result<()> {
        let token = {
            let mut state = self.state.lock();
            state.next_token = state.next_token.wrapping_add(1);
            let token = state.next_token;
            state.opening = Some((token, None));
            token
        };
        self.post(shared, worker, Command::Connect { token, peer })
    }

    /// The answer to the last connect, when it has come.
    pub(crate) fn take_opened(&self, shared: &Shared) -> io::Result<Option<Opened>> {
        self.drain(shared, |_, _| {})?;
        let mut state = self.state.lock();
        let answer = state.opening.and_then(|(_, answer)| answer);
        if answer.is_some() {
            state.opening = None;
        }
        Ok(answer)
    }

    /// Nobody waits for the last connect any more.
    pub(crate) fn abandon_connect(&self) {
        self.state.lock().opening = None;
    }

    /// Asks the worker about a connection; the answer comes from
    /// [`take_report`](Self::take_report). One question at a time: the lane is the caller's own.
    pub(crate) fn post_ask(&self, shared: &Shared, worker: u32, handle: Handle) -> io::Result<()> {
        let token = {
            let mut state = self.state.lock();
            state.next_token = state.next_token.wrapping_add(1);
            let token = state.next_token;
            state.asking = Some(Asking { token, worker, answered: false });
            token
        };
        self.post(shared, worker, Command::Ask { token, handle })
    }

    /// The answer to the last question, when it has come.
    pub(crate) fn take_report(&self, shared: &Shared) -> io::Result<Option<Report>> {
        self.drain(shared, |_, _| {})?;
        let mut state = self.state.lock();
        let Some(asking) = state.asking.filter(|asking| asking.answered) else { return Ok(None) };
        state.asking = None;
        Ok(Some(shared.segment.report(self.index(), asking.worker).load()))
    }

    /// Takes a send extent that the worker granted.
    pub(crate) fn take_grant(&self, shared: &Shared, worker: u32) -> io::Result<Option<ExtentId>> {
        let ring = shared.segment.grant_ring(self.index(), worker);
        let popped = self.state.lock().workers[worker as usize].grants.pop(&ring);
        Ok(popped.map_err(|Corrupt| shared.set_gone())?.and_then(decode_grant))
    }

    /// The same for a thread that the lane does not belong to; it keeps the loan until it has posted
    /// what it wrote.
    pub(crate) fn lend_grant(
        self: &Arc<Self>,
        shared: &Shared,
        worker: u32,
    ) -> io::Result<Option<(ExtentId, Loan)>> {
        let ring = shared.segment.grant_ring(self.index(), worker);
        let mut state = self.state.lock();
        if state.retired {
            return Ok(None);
        }
        let popped = state.workers[worker as usize].grants.pop(&ring);
        let extent = popped.map_err(|Corrupt| shared.set_gone())?.and_then(decode_grant);
        Ok(extent.map(|extent| {
            // Relaxed: ordered by the lock of the state, which retire() takes too.
            self.lent.fetch_add(1, Ordering::Relaxed);
            (extent, Loan(Arc::clone(self)))
        }))
    }

    /// Before it is given back to the daemon: waits until what it has lent is posted.
    pub(crate) fn retire(&self) {
        self.state.lock().retired = true;
        // Acquire: pairs with the Release of a loan's end.
        while self.lent.load(Ordering::Acquire) > 0 {
            rustix::thread::sched_yield();
        }
    }

    /// Asks for [`Event::Granted`], unless that was done already.
    pub(crate) fn want_grants(&self, shared: &Shared, worker: u32) -> io::Result<()> {
        let wanted = {
            let mut state = self.state.lock();
            std::mem::replace(&mut state.workers[worker as usize].wanted, true)
        };
        if wanted { Ok(()) } else { self.post(shared, worker, Command::WantGrants) }
    }

    /// Announces sleep. The owner looks for work once more after this and before it sleeps.
    pub(crate) fn prepare(&self, shared: &Shared) {
        // Relaxed: the fence in the sleeper's prepare() orders this before the second look.
        self.asleep.store(true, Ordering::Relaxed);
        shared.segment.lane_sleeper(self.index()).prepare();
    }

    /// Whether sleep is announced.
    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    /// Takes the announcement back.
    pub(crate) fn awake(&self, shared: &Shared) {
        shared.segment.lane_sleeper(self.index()).awake();
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Makes the owner look again if it sleeps. For threads of this process, which have changed
    /// something before.
    pub(crate) fn kick(&self) {
        // SeqCst: pairs with the fence in prepare(); what we changed comes before this look.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.ring_bell();
        }
    }

    /// Makes the readiness descriptor readable.
    pub(crate) fn ring_bell(&self) {
        // It can only fail by being full, which wakes just as well.
        let _ = rustix::io::write(&self.kick, &1u64.to_ne_bytes());
    }

    /// Sleeps until the lane is rung or kicked or `deadline` has come.
    pub(crate) fn sleep(&self, shared: &Shared, deadline: Option<Instant>) -> io::Result<Woken> {
        let timeout = deadline.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            let tv_sec = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
            Timespec { tv_sec, tv_nsec: left.subsec_nanos().into() }
        });
        self.wait_doorbells(shared, timeout.as_ref())
    }

    /// Takes old rings off the doorbells, so that only new ones make the descriptor readable.
    pub(crate) fn quieten(&self, shared: &Shared) -> io::Result<()> {
        self.wait_doorbells(shared, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).map(|_| ())
    }

    fn wait_doorbells(&self, shared: &Shared, timeout: Option<&Timespec>) -> io::Result<Woken> {
        let none =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [none; 16];
        let count = match epoll::wait(&self.epoll, &mut events, timeout) {
            Ok(0) => return Ok(Woken::TimedOut),
            Ok(count) => count,
            Err(Errno::INTR) => return Ok(Woken::Interrupted),
            Err(errno) => return Err(errno.into()),
        };
        for event in &events[..count] {
            match event.data.u64() {
                // Only a hang-up is reported for it.
                CONTROL => return Err(shared.set_gone()),
                KICK => {
                    // Nothing to read: another thread was faster.
                    let _ = rustix::io::read(&self.kick, &mut [0u8; 8]);
                }
                worker => self.silence(shared, worker as usize)?,
            }
        }
        Ok(Woken::Rung)
    }

    /// Reads what lies in a doorbell. Bytes that come meanwhile make it readable again.
    fn silence(&self, shared: &Shared, worker: usize) -> io::Result<()> {
        let mut bytes = [0u8; 64];
        loop {
            match rustix::net::recv(&self.doorbells[worker], &mut bytes, RecvFlags::DONTWAIT) {
                Ok((_, 0)) | Err(Errno::CONNRESET) => return Err(shared.set_gone()),
                Ok((_, count)) if count < bytes.len() => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Stores the answer to a connect; `false` if nobody waits for it.
fn answer(opening: &mut Option<(u32, Option<Opened>)>, token: u32, answer: Opened) -> bool {
    match opening {
        Some((expected, slot)) if *expected == token => {
            *slot = Some(answer);
            true
        }
        Some(_) | None => false,
    }
}
