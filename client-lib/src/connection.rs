//! One connection as this process sees it: what all clones of a stream share.

use crate::choices::{Choices, check, linger_time};
use crate::error::{explained, gone, os, would_block};
use crate::family::Family;
use crate::fork::{Interrupted, Mutex, lock_interruptibly};
use crate::lane::Lane;
use crate::park::{Interest as Waiting, Unasked, block_on};
use crate::patience::{Limit, Patience};
use crate::poller::{Interest, Readiness};
use crate::runtime::Shared;
use crate::watch::Watcher;
use fourwave_protocol::command::Command;
use fourwave_protocol::conn::{ConnBlock, shut, status};
use fourwave_protocol::lock::Lock;
use fourwave_protocol::option::ConnOption;
use fourwave_protocol::report::Report;
use fourwave_protocol::{ExtentId, Handle};
use rustix::io::Errno;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

/// Closed when the last clone of its stream is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handle: Handle,
    pub(crate) worker: u32,
    family: Family,
    pub(crate) nonblocking: AtomicBool,
    pub(crate) read: Side,
    pub(crate) write: Side,
    /// Bytes read since the daemon was told.
    pub(crate) unreported: AtomicU64,
    /// `SO_LINGER` as this process has set or inherited it, as [`ConnOption::Linger`] says it.
    /// The daemon has it too, for a process that dies.
    linger: AtomicU32,
    failure_told: AtomicBool,
    pub(crate) watchers: Mutex<Vec<Watcher>>,
}

/// What the two directions have alike.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// Held by the thread that waits, so that only one at a time asks to be woken.
    turn: Mutex<()>,
    /// Nanoseconds, 0 for none.
    timeout: AtomicU64,
}

impl Side {
    pub(crate) fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        let nanos = match timeout {
            None => 0,
            Some(Duration::ZERO) => return Err(io::ErrorKind::InvalidInput.into()),
            Some(timeout) => u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX),
        };
        self.timeout.store(nanos, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        match self.timeout.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

/// How often closing waits, for some milliseconds each, while another process is writing.
const CLOSING_PATIENCE: u32 = 100;

/// What `ENOBUFS` from an active open means.
const NO_ROOM: &str = "no room for another connection: this program has as many as \
     clients.connections allows, or fourwaved as many as limits.connections";

/// How long a thread sleeps at a time beside a connection that another process holds too: the
/// daemon tells one of those who wait, the one that has asked last.
const SHARED_NAP: Duration = Duration::from_millis(20);

/// One of the block's locks is held.
pub(crate) struct Section<'a>(&'a Lock);

impl Drop for Section<'_> {
    fn drop(&mut self) {
        self.0.unlock();
    }
}

impl Connection {
    pub(crate) fn new(
        shared: Arc<Shared>,
        handle: Handle,
        family: Family,
        linger: u32,
    ) -> Connection {
        let worker = shared.worker_of(handle);
        Connection {
            shared,
            handle,
            worker,
            family,
            nonblocking: AtomicBool::new(false),
            read: Side::default(),
            write: Side::default(),
            unreported: AtomicU64::new(0),
            linger: AtomicU32::new(linger),
            failure_told: AtomicBool::new(false),
            watchers: Mutex::new(Vec::new()),
        }
    }

    /// Begins to connect to `peer`; returns when the daemon has sent the SYN. Local ports and room
    /// for connections are shared out among the workers: only when none has any left it fails.
    pub(crate) fn open(
        shared: &Arc<Shared>,
        peer: SocketAddr,
        choices: &Choices,
        deadline: Option<Instant>,
    ) -> io::Result<Connection> {
        let linger = choices.get(ConnOption::Linger).unwrap_or(0);
        let choices = choices.checked()?;
        let opened = shared.with_own_lane(|lane| {
            let (workers, first) = (shared.params().workers, shared.next_worker());
            let mut opened = None;
            for turn in 0..workers {
                let worker = (first + turn) % workers;
                for &(option, value) in &choices {
                    lane.post(shared, worker, Command::Preset { option, value })?;
                }
                lane.post_connect(shared, worker, peer)?;
                let limit = deadline.into();
                let answer = block_on(shared, lane, limit, &Unasked, || lane.take_opened(shared));
                lane.abandon_connect();
                opened = answer?;
                if !matches!(opened, Some(Err(errno)) if is_used_up(errno)) {
                    break;
                }
            }
            Ok(opened)
        })?;
        match opened {
            Some(Ok(handle)) => {
                Ok(Connection::new(Arc::clone(shared), handle, Family::of(peer), linger))
            }
            Some(Err(errno)) if errno == Errno::NOBUFS.raw_os_error() => {
                Err(explained(errno, NO_ROOM))
            }
            Some(Err(errno)) => Err(io::Error::from_raw_os_error(errno)),
            None => Err(os(Errno::TIMEDOUT)),
        }
    }

    /// Waits until the handshake is done; `ETIMEDOUT` when patience ends before.
    pub(crate) fn finish_opening(&self, patience: Patience) -> io::Result<()> {
        let look = || {
            let state = self.status()?;
            if let Some(failure) = self.take_failure(state) {
                return Err(failure);
            }
            // The failure was told before.
            if state & status::FAILED != 0 {
                return Err(os(Errno::CONNABORTED));
            }
            Ok((state & status::CONNECTED != 0).then_some(()))
        };
        let done = match patience.limit() {
            Some(limit) => self.wait_for_writing(limit, |_| look())?,
            None => look()?,
        };
        done.ok_or_else(|| os(Errno::TIMEDOUT))
    }

    pub(crate) fn block(&self) -> &ConnBlock {
        let block = self.shared.segment.connection(self.handle.index);
        block.expect("the daemon names connections that exist")
    }

    /// Bits of [`status`], or `ENETDOWN`.
    pub(crate) fn status(&self) -> io::Result<u32> {
        self.shared.check()?;
        Ok(self.block().status())
    }

    /// What it is ready for now.
    pub(crate) fn readiness(&self) -> io::Result<Readiness> {
        self.shared.check()?;
        Ok(Readiness::of_stream(self.block(), || self.shared.has_grant(self.worker)))
    }

    /// Bytes that were written and that the peer has not acknowledged.
    pub(crate) fn unacknowledged(&self) -> io::Result<usize> {
        self.shared.check()?;
        let block = self.block();
        // Relaxed: numbers that are old at once. The acknowledged one first: the other is not behind.
        let acked = block.daemon.send_acked.load(Ordering::Relaxed);
        let written = block.client.send_tail.load(Ordering::Relaxed);
        Ok(usize::try_from(written.saturating_sub(acked)).unwrap_or(usize::MAX))
    }

    /// The connection's error, for the first who asks.
    pub(crate) fn take_failure(&self, state: u32) -> Option<io::Error> {
        if state & status::FAILED == 0 || self.failure_told.swap(true, Ordering::Relaxed) {
            return None;
        }
        match self.block().daemon.error.load(Ordering::Relaxed) {
            0 => None,
            errno => Some(io::Error::from_raw_os_error(errno as i32)),
        }
    }

    /// What a close says of the stream's end.
    fn end_of_stream(&self) -> (u64, Option<ExtentId>) {
        let writer = &self.block().client.writer;
        let mut patience = CLOSING_PATIENCE;
        let goes_on = || {
            patience -= 1;
            patience > 0
        };
        if !writer.lock(self.shared.process(), goes_on) {
            // Another process writes and has stopped meanwhile. It will say itself how far it came.
            return (0, None);
        }
        let written = self.written();
        writer.unlock();
        written
    }

    /// Takes one of the block's locks, which order threads and processes that share the connection.
    pub(crate) fn section<'a>(&self, lock: &'a Lock) -> io::Result<Section<'a>> {
        match lock.lock(self.shared.process(), || self.shared.probe().is_ok()) {
            true => Ok(Section(lock)),
            false => Err(gone()),
        }
    }

    /// Whether `shutdown` was called for a direction, one of the bits of [`shut`].
    pub(crate) fn is_shut(&self, direction: u32) -> bool {
        self.block().client.shut.load(Ordering::Relaxed) & direction != 0
    }

    /// Whether other processes hold the connection too.
    fn is_shared(&self) -> bool {
        self.block().daemon.holders.load(Ordering::Relaxed) > 1
    }

    /// How far the stream was written, and the extent of the last byte. To be asked in the writer's
    /// section.
    fn written(&self) -> (u64, Option<ExtentId>) {
        let block = self.block();
        (block.client.send_tail.load(Ordering::Relaxed), block.send_extent())
    }

    pub(crate) fn post(&self, lane: &Lane, command: Command) -> io::Result<()> {
        lane.post(&self.shared, self.worker, command)
    }

    pub(crate) fn peer(&self) -> io::Result<SocketAddr> {
        // As in Linux a connection that has failed or ended has no peer any more.
        let state = self.status()?;
        if state & status::CONNECTED == 0 || is_over(state) {
            return Err(os(Errno::NOTCONN));
        }
        Ok(self.family.show(self.block().addresses.peer()))
    }

    pub(crate) fn local(&self) -> io::Result<SocketAddr> {
        self.shared.check()?;
        Ok(self.family.show(self.block().addresses.local()))
    }

    pub(crate) fn set_option(&self, option: ConnOption, value: u32) -> io::Result<()> {
        check(option, value)?;
        self.shared.check()?;
        let command = Command::SetOption { handle: self.handle, option, value };
        self.shared.with_lane(|lane| self.post(lane, command))?;
        if option == ConnOption::Linger {
            self.linger.store(value, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What the daemon says about the connection, after all that this thread has set.
    pub(crate) fn report(&self) -> io::Result<Report> {
        self.shared.check()?;
        let answer = self.shared.with_own_lane(|lane| {
            lane.post_ask(&self.shared, self.worker, self.handle)?;
            block_on(&self.shared, lane, Limit::NEVER, &Unasked, || lane.take_report(&self.shared))
        })?;
        answer.ok_or_else(gone)
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let state = self.status()?;
        if state & status::CONNECTED == 0 || is_over(state) {
            return Err(os(Errno::NOTCONN));
        }
        let (read, write) = match how {
            Shutdown::Read => (true, false),
            Shutdown::Write => (false, true),
            Shutdown::Both => (true, true),
        };
        let client = &self.block().client;
        if write && !self.is_shut(shut::WRITE) {
            // The lock: no writer is between its look at the flag and its post.
            let section = self.section(&client.writer)?;
            client.shut.fetch_or(shut::WRITE, Ordering::Relaxed);
            let (tail, last) = self.written();
            let command = Command::ShutdownWrite { handle: self.handle, tail, last };
            self.shared.with_lane(|lane| self.post(lane, command))?;
            drop(section);
            self.wake_sleeper(&client.wake_writer);
        }
        if read {
            client.shut.fetch_or(shut::READ, Ordering::Relaxed);
            self.wake_sleeper(&client.wake_reader);
        }
        for (core, _) in self.watchers() {
            core.changed(self.handle);
        }
        Ok(())
    }

    /// Makes a thread of this process look again that sleeps until the daemon wakes it.
    fn wake_sleeper(&self, waiting: &AtomicU16) {
        // SeqCst: pairs with the fence in the sleeper's prepare(): it sees our flag, or we see
        // that it waits.
        fence(Ordering::SeqCst);
        if let Some(lane) = waiting.load(Ordering::Relaxed).checked_sub(1) {
            self.shared.wake_lane(lane);
        }
    }

    /// Tells the daemon to wake `lane`, and wakes the one that it replaces.
    pub(crate) fn set_waker(&self, word: &AtomicU16, lane: u16) {
        let new = lane + 1;
        // Relaxed: the caller makes the fence that orders this before its look.
        let old = word.swap(new, Ordering::Relaxed);
        if let Some(replaced) = old.checked_sub(1)
            && old != new
        {
            self.shared.wake_lane(replaced);
        }
    }

    /// Tells the daemon to wake no lane of this process, and wakes the one that was to be.
    pub(crate) fn clear_waker(&self, word: &AtomicU16) {
        let old = word.load(Ordering::Relaxed);
        if let Some(lane) = old.checked_sub(1)
            && self.shared.has_lane(lane)
            && word.compare_exchange(old, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.shared.wake_lane(lane);
        }
    }
}

/// Closing.
impl Connection {
    /// `SO_LINGER`: sends the FIN and waits until it and all before it are acknowledged. Not when
    /// received bytes are unread: then closing resets, and there is nothing to wait for.
    fn wait_for_the_peer(&self, time: Duration) -> io::Result<()> {
        let state = self.status()?;
        let block = self.block();
        let head = block.client.receive_head.load(Ordering::Relaxed);
        let nothing = state & status::CONNECTED == 0 || state & status::ALL_ACKED != 0;
        if nothing || block.receive_tail() != head {
            return Ok(());
        }
        // Fails on a connection that has failed.
        self.shutdown(Shutdown::Write)?;
        let deadline = Instant::now().checked_add(time);
        let over = status::ALL_ACKED | status::FAILED;
        let limit = deadline.into();
        self.wait_for_writing(limit, |_| Ok((self.status()? & over != 0).then_some(())))?;
        Ok(())
    }
}

/// Waiting in a blocking call.
impl Connection {
    /// Waits for `attempt`, woken when there may be something to read.
    pub(crate) fn wait_for_reading<T>(
        &self,
        limit: Limit,
        attempt: impl FnMut(&Lane) -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        self.wait(&self.read.turn, &Reading(self), limit, attempt)
    }

    /// Waits for `attempt`, woken when there may be room to write.
    pub(crate) fn wait_for_writing<T>(
        &self,
        limit: Limit,
        attempt: impl FnMut(&Lane) -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        self.wait(&self.write.turn, &Writing(self), limit, attempt)
    }

    fn wait<T>(
        &self,
        turn: &Mutex<()>,
        interest: &impl Waiting,
        limit: Limit,
        mut attempt: impl FnMut(&Lane) -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        let turn = loop {
            match lock_interruptibly(turn, limit.deadline) {
                Ok(Some(turn)) => break turn,
                Ok(None) => return Ok(None),
                Err(Interrupted) if limit.interruptible => {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                Err(Interrupted) => {}
            }
        };
        let result = self
            .shared
            .with_own_lane(|lane| block_on(&self.shared, lane, limit, interest, || attempt(lane)));
        drop(turn);
        result
    }
}

struct Reading<'a>(&'a Connection);

impl Waiting for Reading<'_> {
    fn arm(&self, lane: u16) {
        let word = &self.0.block().client.wake_reader;
        // Relaxed: ordered by the fence in prepare(), which follows. A poller's lane is
        // replaced without waking it: disarm() puts it back.
        word.store(lane + 1, Ordering::Relaxed);
    }

    fn disarm(&self, lane: u16) {
        self.0.give_back(lane, &self.0.block().client.wake_reader, |_| true);
    }

    fn nap(&self) -> Option<Duration> {
        self.0.is_shared().then_some(SHARED_NAP)
    }

    // Asked for until taken back.
    fn is_armed(&self, _: u16) -> bool {
        true
    }
}

struct Writing<'a>(&'a Connection);

impl Waiting for Writing<'_> {
    fn arm(&self, lane: u16) {
        // As for reading.
        self.0.block().client.wake_writer.store(lane + 1, Ordering::Relaxed);
    }

    fn disarm(&self, lane: u16) {
        self.0.give_back(lane, &self.0.block().client.wake_writer, Interest::is_writable);
    }

    fn nap(&self) -> Option<Duration> {
        self.0.is_shared().then_some(SHARED_NAP)
    }

    // Asked for until taken back.
    fn is_armed(&self, _: u16) -> bool {
        true
    }
}

/// Whether a connection has failed, or come to its end in both directions: to Linux such a socket
/// is closed.
fn is_over(state: u32) -> bool {
    let ended = status::PEER_CLOSED | status::ALL_ACKED;
    state & status::FAILED != 0 || state & ended == ended
}

impl Drop for Connection {
    fn drop(&mut self) {
        for core in self.watchers.get_mut().drain(..).filter_map(|old| old.core()) {
            core.forget_stream(self.handle);
        }
        let linger = linger_time(*self.linger.get_mut());
        // While others hold the connection, nothing ends.
        if let Some(time) = linger.filter(|time| !time.is_zero())
            && !self.is_shared()
        {
            // Whatever goes wrong, the connection is closed next.
            let _ = self.wait_for_the_peer(time);
        }
        if self.shared.check().is_err() {
            return;
        }
        let (tail, last) = self.end_of_stream();
        let abort = linger.is_some_and(|time| time.is_zero());
        let command = Command::Close { handle: self.handle, tail, last, abort };
        // Without a daemon there is nothing to close; no other failure is possible that
        // somebody could mend.
        let _ = self.shared.with_lane(|lane| self.post(lane, command));
    }
}

/// The wait that a socket's own settings ask for.
pub(crate) fn own_patience(nonblocking: &AtomicBool, side: &Side) -> Patience {
    if nonblocking.load(Ordering::Relaxed) {
        return Patience::NONE;
    }
    Patience::until(side.timeout().and_then(|timeout| Instant::now().checked_add(timeout)))
}

/// Turns the end of a blocking call's patience into what std gives.
pub(crate) fn in_time<T>(result: Option<T>) -> io::Result<T> {
    result.ok_or_else(would_block)
}

/// Whether a worker refuses a connection because its share of ports or of room is used up.
fn is_used_up(errno: i32) -> bool {
    [Errno::ADDRNOTAVAIL, Errno::NOBUFS].map(Errno::raw_os_error).contains(&errno)
}
