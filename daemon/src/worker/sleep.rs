//! Sleeping until there is work: on the AF_XDP socket, the daemon's bell and the clients'
//! doorbells at once.

use super::{Scheduling, Worker};
use crate::port::Clients;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io;
use std::mem::MaybeUninit;

/// Longest sleep, nanoseconds: a bound for what is looked at now and then only.
const LONGEST: u64 = 500_000_000;

const RECEIVE: u64 = u64::MAX;
const BELL: u64 = u64::MAX - 1;

/// The set of descriptors that end a sleep.
pub(super) struct Sleep {
    set: OwnedFd,
}

impl Sleep {
    pub(super) fn new(receive: BorrowedFd<'_>, bell: BorrowedFd<'_>) -> io::Result<Sleep> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&set, receive, EventData::new_u64(RECEIVE), EventFlags::IN)?;
        epoll::add(&set, bell, EventData::new_u64(BELL), EventFlags::IN)?;
        Ok(Sleep { set })
    }

    /// Adds a lane's doorbell; it leaves the set by being closed.
    pub(super) fn watch(&self, doorbell: BorrowedFd<'_>, slot: u32, lane: u16) {
        let data = EventData::new_u64(u64::from(slot) << 16 | u64::from(lane));
        // Fails only out of memory; the lane is then served when something else wakes us.
        if let Err(error) = epoll::add(&self.set, doorbell, data, EventFlags::IN) {
            tracing::error!(%error, "cannot watch a client's doorbell");
        }
    }
}

impl Worker {
    /// Sleeps until something happens or `until` (nanoseconds, CLOCK_MONOTONIC) has come. Does
    /// not sleep if there turns out to be work after all.
    pub(super) fn sleep(&mut self, now: u64, until: Option<u64>) {
        self.bell.prepare();
        for group in self.env.clients.iter() {
            group.prepare_sleep();
        }
        if !self.has_work() {
            let longest = now + LONGEST;
            let timeout = until.unwrap_or(longest).min(longest).saturating_sub(now);
            self.counters.sleeps += 1;
            self.wait(timeout);
        }
        self.bell.awake();
        for group in self.env.clients.iter() {
            group.awake();
        }
    }

    /// The second look, after announcing sleep.
    fn has_work(&mut self) -> bool {
        self.rx.ready()
            || !self.inbox.is_empty()
            || self.exchange.waits(self.index)
            || self.inquiries.can_go_on(self.index)
            || self.env.clients.have_work()
    }

    fn wait(&mut self, timeout: u64) {
        let timeout = Timespec {
            tv_sec: (timeout / 1_000_000_000) as i64,
            tv_nsec: (timeout % 1_000_000_000) as i64,
        };
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); 32];
        // EINTR and the like: the next turn looks at everything anyway.
        let Ok((ready, _)) = epoll::wait(&self.sleep.set, &mut events[..], Some(&timeout)) else {
            return;
        };
        for event in ready {
            match event.data.u64() {
                RECEIVE => {}
                BELL => self.bell.clear(),
                client => clear_doorbell(&self.sleep.set, &self.env.clients, client),
            }
        }
    }
}

fn clear_doorbell(set: &OwnedFd, clients: &Clients, data: u64) {
    let (slot, lane) = ((data >> 16) as u32, data as u16);
    let Some(group) = clients.find(slot) else { return };
    if !group.drain_doorbell(lane) {
        // The client's end is closed: control will remove the lane; until then it must not keep
        // us awake.
        if let Some(doorbell) = group.doorbell(lane) {
            let _ = epoll::delete(set, doorbell.as_fd());
        }
    }
}

/// Pins the calling thread and sets how it is scheduled. What the kernel refuses is said and
/// gone without: the worker works anyway.
pub(super) fn place_thread(cpu: Option<usize>, scheduling: Scheduling) {
    if let Some(cpu) = cpu {
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
            tracing::warn!(cpu, %error, "cannot pin the worker");
        }
    }
    let result = match scheduling {
        Scheduling::Normal => Ok(()),
        Scheduling::Nice(nice) => set_nice(nice),
        Scheduling::Fifo(priority) => set_fifo(priority),
    };
    if let Err(error) = result {
        tracing::warn!(?scheduling, %error, "cannot set the worker's scheduling");
    }
}

fn set_nice(nice: i32) -> io::Result<()> {
    // On Linux a nice value belongs to the thread.
    let thread = rustix::thread::gettid();
    Ok(rustix::process::setpriority_process(Some(thread), nice)?)
}

fn set_fifo(priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: a plain system call on the calling thread (pid 0) with a valid structure.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
