//! A path that loses, repeats, reorders and delays frames, between the two ends of a lab.
//!
//! The lab must have been built with [`LabConfig::relayed`](crate::lab::LabConfig::relayed): its
//! ends then lead to a third namespace, where a thread carries every frame across. The kernel's own
//! means for this (`netem`) is not in every kernel, and is not seeded.

mod direction;
mod fate;

use std::io;
use std::ops::{Add, AddAssign};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use serde::Serialize;

use crate::lab::{Lab, LabError};
use crate::machine;
use crate::packet::{BATCH, Frame, PacketSocket};
use direction::Direction;

pub use fate::{Dice, Fate, Impairment, MOST_OVERTAKING};

/// How soon a relay notices that it is to stop.
const STOP_CHECK: Duration = Duration::from_millis(20);

/// What became of the frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// That came.
    pub frames: u64,
    /// Lost on purpose.
    pub lost: u64,
    /// Sent on twice on purpose.
    pub duplicated: u64,
    /// Held back on purpose until others had overtaken them.
    pub reordered: u64,
    /// Lost because the relay was too slow: figures with these say nothing.
    pub overruns: u64,
}

impl Add for Counters {
    type Output = Counters;

    fn add(self, other: Counters) -> Counters {
        Counters {
            frames: self.frames + other.frames,
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
            overruns: self.overruns + other.overruns,
        }
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Counters) {
        *self = *self + other;
    }
}

/// A running relay. Dropping it stops it.
#[derive(Debug)]
pub struct Relay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Counters>>>,
}

impl Relay {
    /// Starts carrying frames between the two ends of `lab`, on `cpu` if that is given.
    ///
    /// # Errors
    /// [`LabError::NotRelayed`] when the lab's ends are joined directly, and whatever packet
    /// sockets need that is not there.
    pub fn start(
        lab: &Lab,
        impairment: Impairment,
        seed: u64,
        cpu: Option<usize>,
    ) -> Result<Relay, LabError> {
        let middle = lab.middle().ok_or(LabError::NotRelayed)?;
        let open = || -> io::Result<_> {
            let [server, client] = middle.interfaces();
            Ok([PacketSocket::open(server)?, PacketSocket::open(client)?])
        };
        let sockets = middle.netns().run(open).and_then(|sockets| sockets);
        let sockets = sockets.map_err(LabError::Relay)?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        // Two sequences of fates that have nothing to do with each other.
        let directions = [seed, !seed].map(|seed| Direction::new(impairment, seed));
        let work = move || {
            if let Some(cpu) = cpu {
                machine::pin(cpu)?;
            }
            carry(&sockets, directions, &flag)
        };
        let thread = thread::Builder::new().name("relay".into()).spawn(work);
        let thread = Some(thread.map_err(LabError::Relay)?);
        Ok(Relay { stop, thread })
    }

    /// Stops it; returns what became of the frames of both directions.
    ///
    /// # Errors
    /// Whatever the sockets said while it ran.
    pub fn stop(mut self) -> io::Result<Counters> {
        self.finish().unwrap_or_else(|| Ok(Counters::default()))
    }

    fn finish(&mut self) -> Option<io::Result<Counters>> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take()?;
        Some(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.finish() {
            eprintln!("relay: {error}");
        }
    }
}

/// Carries frames from each socket to the other until `stop`.
fn carry(
    sockets: &[PacketSocket; 2],
    mut directions: [Direction; 2],
    stop: &AtomicBool,
) -> io::Result<Counters> {
    let mut batch: Vec<Frame> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let now = machine::now_ns();
        let mut worked = false;
        for (from, direction) in directions.iter_mut().enumerate() {
            worked |= receive(&sockets[from], direction, now, &mut batch)?;
            worked |= send(&sockets[1 - from], direction, now)?;
        }
        if !worked {
            wait(sockets, directions.iter().filter_map(Direction::deadline).min())?;
        }
    }
    let mut counters = directions[0].counters + directions[1].counters;
    for socket in sockets {
        counters.overruns += socket.take_overruns()?;
    }
    Ok(counters)
}

/// Takes one batch from `socket`.
fn receive(
    socket: &PacketSocket,
    direction: &mut Direction,
    now: u64,
    batch: &mut Vec<Frame>,
) -> io::Result<bool> {
    batch.extend((batch.len()..BATCH).map(|_| direction.room()));
    let count = socket.receive(batch)?;
    for frame in batch.drain(..count) {
        direction.take(now, frame);
    }
    Ok(count > 0)
}

/// Sends one batch of what has arrived.
fn send(socket: &PacketSocket, direction: &mut Direction, now: u64) -> io::Result<bool> {
    let count = socket.send(direction.arrived(now))?;
    direction.sent(count);
    Ok(count > 0)
}

/// Until a frame comes, something is due, or it is time to look at the stop flag.
fn wait(sockets: &[PacketSocket; 2], deadline: Option<u64>) -> io::Result<()> {
    let until = deadline.map(|at| Duration::from_nanos(at.saturating_sub(machine::now_ns())));
    let timeout = until.map_or(STOP_CHECK, |until| until.min(STOP_CHECK));
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    let mut fds = sockets.each_ref().map(|socket| PollFd::new(socket, PollFlags::IN));
    match rustix::event::poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
