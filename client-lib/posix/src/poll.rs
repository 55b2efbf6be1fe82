//! `poll` and `ppoll` over descriptors of the kernel's and of ours.

use crate::blocking::Tick;
use crate::description::{Description, Found};
use crate::error::{Errno, Result, errno};
use crate::kernel::{self, Mask};
use crate::socket::{Socket, Watchable};
use fourwave::{Events, Interest, Poller, Readiness, Runtime, Slept, Trigger};
use rustix::fd::AsFd;
use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const READ: i16 = libc::POLLIN | libc::POLLRDNORM;
const WRITE: i16 = libc::POLLOUT | libc::POLLWRNORM;

thread_local! {
    /// Each thread that polls has a poller, taken out while it is in use.
    static POLLER: RefCell<Option<Poller>> = const { RefCell::new(None) };
}

/// Whether any of the descriptors is served here: else the kernel's own call does.
pub fn concerns(fds: &[libc::pollfd]) -> bool {
    fds.iter().any(|entry| Ours::find(entry.fd).is_some())
}

/// `ppoll(2)`: for at most `timeout` (`None`: for ever), with `mask` as the signal mask while it
/// sleeps. Returns how many entries have something.
///
/// # Errors
/// `EINTR`; otherwise what the kernel says.
pub fn poll(
    fds: &mut [libc::pollfd],
    timeout: Option<Duration>,
    mask: Option<&libc::sigset_t>,
) -> Result<usize> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut set = Set::new(fds);
    let ready = set.look(fds, mask)?;
    if ready > 0 || timeout == Some(Duration::ZERO) {
        return Ok(ready);
    }
    let poller = match thread_poller(&set) {
        Err(Errno::NOBUFS) => return set.look_until(fds, deadline, mask),
        poller => poller?,
    };
    let watched = set.watch(&poller, fds);
    let result = watched.and_then(|()| {
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            match set.sleep(&poller, left, mask).and_then(|()| set.look(fds, None)) {
                Ok(0) if left.is_none_or(|left| !left.is_zero()) => {}
                result => break result,
            }
        }
    });
    set.unwatch(&poller);
    // A thread that is ending keeps no poller.
    let _ = POLLER.try_with(|kept| *kept.borrow_mut() = Some(poller));
    result
}

/// This thread's poller, or a new one.
fn thread_poller(set: &Set) -> Result<Poller> {
    let kept = POLLER.try_with(|kept| kept.borrow_mut().take()).ok().flatten();
    if let Some(poller) = kept
        && set.accepts(&poller)
    {
        return Ok(poller);
    }
    let runtime = Runtime::default_instance().map_err(errno)?;
    Poller::with_runtime(&runtime).map_err(errno)
}

/// A descriptor of ours among those that are polled.
#[derive(Debug)]
struct Ours {
    index: usize,
    found: Found,
    watched: bool,
}

impl Ours {
    fn find(fd: i32) -> Option<Found> {
        let found = crate::find(fd)?;
        match &*found {
            Description::Socket(socket) => socket.is_served().then_some(found),
            Description::Epoll(_) => Some(found),
        }
    }

    fn socket(&self) -> Option<&Socket> {
        self.found.served()
    }
}

/// The descriptors of one call.
#[derive(Debug)]
struct Set {
    ours: Vec<Ours>,
    /// Those of the kernel, and where they come from. Epoll instances are there too.
    theirs: Vec<libc::pollfd>,
    places: Vec<usize>,
}

impl Set {
    fn new(fds: &[libc::pollfd]) -> Set {
        let mut set = Set { ours: Vec::new(), theirs: Vec::new(), places: Vec::new() };
        for (index, entry) in fds.iter().enumerate() {
            let found = Ours::find(entry.fd);
            let is_kernel = found.as_ref().is_none_or(|found| found.epoll().is_some());
            if is_kernel {
                set.theirs.push(libc::pollfd { revents: 0, ..*entry });
                set.places.push(index);
            }
            if let Some(found) = found {
                set.ours.push(Ours { index, found, watched: false });
            }
        }
        set
    }

    /// Looks at all of them; counts those that have something.
    fn look(&mut self, fds: &mut [libc::pollfd], mask: Mask<'_>) -> Result<usize> {
        for entry in &mut *fds {
            entry.revents = 0;
        }
        if !self.theirs.is_empty() {
            kernel::poll(&mut self.theirs, Some(Duration::ZERO), mask)?;
            for (entry, place) in self.theirs.iter().zip(&self.places) {
                fds[*place].revents = entry.revents;
            }
        }
        for ours in &self.ours {
            let entry = &mut fds[ours.index];
            match &*ours.found {
                Description::Socket(socket) => {
                    // Left to the kernel meanwhile: as good as closed.
                    let ready = socket.readiness().unwrap_or(Err(Errno::NOTCONN));
                    entry.revents = events(ready, entry.events);
                }
                Description::Epoll(epoll) => {
                    if epoll.is_ready(entry.fd)? {
                        entry.revents |= entry.events & READ;
                    } else {
                        entry.revents &= !READ;
                    }
                }
            }
        }
        Ok(fds.iter().filter(|entry| entry.revents != 0).count())
    }

    /// Without a poller: looks now and then.
    fn look_until(
        &mut self,
        fds: &mut [libc::pollfd],
        deadline: Option<Instant>,
        mask: Mask<'_>,
    ) -> Result<usize> {
        let mut tick = Tick::begin();
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            tick.sleep(&mut self.theirs, left, mask)?;
            match self.look(fds, None) {
                Ok(0) if left.is_none_or(|left| !left.is_zero()) => {}
                result => return result,
            }
        }
    }

    /// Whether a poller is for sockets of the same daemon as these.
    fn accepts(&self, poller: &Poller) -> bool {
        let Some(socket) = self.ours.iter().find_map(Ours::socket) else { return true };
        // Entering and leaving at once tells.
        let other = socket.with_source(|source| {
            let (interest, trigger) = (Interest::NONE, Trigger::Edge);
            let entered = match source {
                Watchable::Listener(source) => poller.add(source, 0, interest, trigger),
                Watchable::Stream(source) => poller.add(source, 0, interest, trigger),
            };
            match (entered, source) {
                (Ok(()), Watchable::Listener(source)) => poller.delete(source).is_ok(),
                (Ok(()), Watchable::Stream(source)) => poller.delete(source).is_ok(),
                (Err(error), _) => fourwave::errno(&error) == Some(libc::EEXIST),
            }
        });
        other.unwrap_or(true)
    }

    fn watch(&mut self, poller: &Poller, fds: &[libc::pollfd]) -> Result<()> {
        for ours in &mut self.ours {
            let wanted = interest(fds[ours.index].events);
            let Some(socket) = ours.found.served() else { continue };
            let index = ours.index;
            // Perhaps beside the same socket's other entries.
            let entered = socket.with_source(|source| match source {
                Watchable::Listener(source) => poller.set(source, index, wanted, Trigger::Level),
                Watchable::Stream(source) => poller.set(source, index, wanted, Trigger::Level),
            });
            entered.unwrap_or(Ok(())).map_err(errno)?;
            ours.watched = true;
        }
        Ok(())
    }

    fn unwatch(&mut self, poller: &Poller) {
        for ours in self.ours.iter().filter(|ours| ours.watched) {
            let Some(socket) = ours.found.served() else { continue };
            // Gone already with its daemon.
            let _ = socket.with_source(|source| match source {
                Watchable::Listener(source) => poller.delete(source),
                Watchable::Stream(source) => poller.delete(source),
            });
        }
    }

    /// Waits until something may have happened.
    fn sleep(&mut self, poller: &Poller, timeout: Option<Duration>, mask: Mask<'_>) -> Result<()> {
        let mut events = Events::with_capacity(self.ours.len());
        let nested: Vec<_> = self.ours.iter().filter_map(|ours| ours.found.epoll()).collect();
        let theirs = self.theirs.len();
        let mut fds = self.theirs.clone();
        let bell = poller.as_fd().as_raw_fd();
        fds.push(libc::pollfd { fd: bell, events: libc::POLLIN, revents: 0 });
        let slept = poller.wait_beside(&mut events, timeout, &mut |left| {
            // Taken back whatever comes.
            let mut announced = Vec::new();
            for epoll in &nested {
                let (own, ready) = epoll.announce();
                announced.push(own);
                if ready? {
                    return Ok(Slept { own: true, ..Slept::default() });
                }
            }
            let count = kernel::poll(&mut fds, left, mask).map_err(io::Error::from)?;
            let rung = fds[theirs].revents != 0;
            Ok(Slept { rung, own: count > usize::from(rung) })
        });
        match slept.map_err(errno) {
            // Its sockets say so.
            Ok(_) | Err(Errno::NETDOWN) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

/// What `events` of a `struct pollfd` asks for.
fn interest(events: i16) -> Interest {
    let mut interest = Interest::NONE;
    if events & READ != 0 {
        interest = interest | Interest::READABLE;
    }
    if events & WRITE != 0 {
        interest = interest | Interest::WRITABLE;
    }
    if events & libc::POLLRDHUP != 0 {
        interest = interest | Interest::READ_CLOSED;
    }
    interest
}

/// `revents` of a socket, which are `events` and the failures. A socket that has lost its daemon
/// has failed.
fn events(ready: Result<Readiness>, wanted: i16) -> i16 {
    let always = libc::POLLERR | libc::POLLHUP;
    let Ok(ready) = ready else { return always | wanted & (READ | WRITE | libc::POLLRDHUP) };
    let parts = [
        (ready.is_readable(), READ),
        (ready.is_writable(), WRITE),
        (ready.is_read_closed(), libc::POLLRDHUP),
        (ready.is_error(), libc::POLLERR),
        (ready.is_closed(), libc::POLLHUP),
    ];
    let all = parts.iter().filter(|(is, _)| *is).fold(0, |all, (_, bits)| all | bits);
    all & (wanted | always)
}
