//! The load generator on kernel sockets: one thread, epoll, non-blocking connects.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sockopt};

use super::pace::{Pace, Turn, nanos};
use super::report::{LoadReport, Outcome};
use super::sources::Sources;
use super::{LoadConfig, Until};
use crate::machine::{self, NetCounters, now_ns};
use crate::stamps::Stamps;

/// Events taken from epoll at once.
const EVENTS: usize = 256;

/// Ports of other programs that are skipped in a row before bind's error counts.
const SKIP_LIMIT: u32 = 64;

/// The payload of a connection begins at one of this many places of the pattern, so that bytes
/// that come out of another connection are noticed.
const PATTERNS: usize = 256;

/// An open loop polls instead of sleeping when its next start is nearer than this: a sleep would
/// end late, and the lateness would count as the server's.
const SPIN_NS: u64 = 100_000;

/// One connection in flight.
struct Connection {
    socket: OwnedFd,
    /// When it started or should have.
    from: u64,
    asked: u64,
    address: Option<SocketAddr>,
    connected: bool,
    replied: bool,
    sent: usize,
    received: usize,
    /// Its payload's place in the pattern.
    pattern: usize,
    generation: u64,
}

struct Generator<'a> {
    config: &'a LoadConfig,
    epoll: OwnedFd,
    sources: Option<Sources>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// (deadline, index, generation) in the order of deadlines.
    deadlines: VecDeque<(u64, usize, u64)>,
    pattern: Vec<u8>,
    scratch: Vec<u8>,
    in_flight: usize,
    stamps: Option<Stamps>,
    /// No connection begins another request.
    closing: bool,
    report: LoadReport,
}

/// Makes the load from the calling thread and its network namespace.
///
/// # Errors
/// When epoll or `/proc` fail. What happens to single connections is in the report.
pub fn run(config: &LoadConfig) -> io::Result<LoadReport> {
    let mut generator = Generator {
        config,
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        sources: Sources::new(config.sources.clone(), config.first_source),
        connections: Vec::new(),
        free: Vec::new(),
        deadlines: VecDeque::new(),
        pattern: (0..config.size + PATTERNS).map(|i| (i * 7 + i / 251) as u8).collect(),
        // One byte more than a connection may get, so that more is noticed.
        scratch: vec![0; (config.size + 1).min(256 * 1024)],
        in_flight: 0,
        stamps: config.open_stamps()?,
        closing: false,
        report: LoadReport::default(),
    };
    let (counters, busy) = (NetCounters::read()?, machine::busy_ns()?);
    generator.run()?;
    let mut report = generator.report;
    report.machine_busy_ns = machine::busy_ns()?.saturating_sub(busy);
    report.client_retransmits = NetCounters::read()?.since(&counters, "TcpRetransSegs");
    report.next_source = generator.sources.map_or(0, |sources| sources.position());
    Ok(report)
}

impl Generator<'_> {
    fn run(&mut self) -> io::Result<()> {
        let begin = now_ns();
        let mut pace = Pace::new(self.config, begin);
        let mut window_open = true;
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            let now = now_ns();
            let wake = match self.start_due(&mut pace, now) {
                Turn::Start { .. } => unreachable!("start_due() goes on until nothing may start"),
                Turn::Wait { until } => until,
                Turn::Stop => {
                    if window_open && matches!(self.config.until, Until::Elapsed(_)) {
                        window_open = false;
                        self.close_window(now - begin);
                    }
                    if self.in_flight == 0 {
                        break;
                    }
                    None
                }
            };
            self.wait(&mut events, now, wake)?;
            let now = now_ns();
            for event in &events {
                self.handle(event, now);
            }
            self.expire(now);
        }
        if window_open {
            self.close_window(now_ns() - begin);
        }
        self.report.started = pace.started();
        self.report.shed = pace.shed();
        Ok(())
    }

    fn close_window(&mut self, length: u64) {
        self.report.window_ns = length;
        self.report.completed_in_window = self.report.completed;
        self.report.replies_in_window = self.report.reply_latency.count();
        self.closing = true;
    }

    /// Starts all that may start now; returns why no more.
    fn start_due(&mut self, pace: &mut Pace, now: u64) -> Turn {
        loop {
            match pace.turn(now, self.in_flight) {
                Turn::Start { due } => {
                    if let Err(error) = self.start(due) {
                        self.report.end(Outcome::Errno(error.raw_os_error()));
                    }
                }
                other @ (Turn::Wait { .. } | Turn::Stop) => return other,
            }
        }
    }

    fn start(&mut self, due: Option<u64>) -> Result<(), Errno> {
        let family =
            if self.config.target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        let address = self.bind(&socket)?;
        let from = due.unwrap_or_else(now_ns);
        let mut target = self.config.target;
        let further = (self.report.started % u64::from(self.config.ports.max(1))) as u16;
        target.set_port(target.port().wrapping_add(further));
        match rustix::net::connect(&socket, &target) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &socket, EventData::new_u64(index as u64), interest)
            .inspect_err(|_| self.free.push(index))?;
        self.report.started += 1;
        let generation = self.report.started;
        let pattern = generation as usize % PATTERNS;
        self.deadlines.push_back((now_ns() + nanos(self.config.timeout), index, generation));
        self.connections[index] = Some(Connection {
            socket,
            from,
            asked: 0,
            address,
            connected: false,
            replied: false,
            sent: 0,
            received: 0,
            pattern,
            generation,
        });
        self.in_flight += 1;
        Ok(())
    }

    /// Takes the next address and port; skips ports that other programs have.
    fn bind(&mut self, socket: &OwnedFd) -> Result<Option<SocketAddr>, Errno> {
        let Some(sources) = &mut self.sources else { return Ok(None) };
        let mut skipped = 0;
        loop {
            let pair = sources.next_pair();
            match rustix::net::bind(socket, &pair) {
                Err(Errno::ADDRINUSE) if skipped < SKIP_LIMIT => {
                    skipped += 1;
                    self.report.ports_skipped += 1;
                }
                result => return result.map(|()| Some(pair)),
            }
        }
    }

    /// Waits for events until `wake`, or until the first deadline.
    fn wait(&self, events: &mut Vec<Event>, now: u64, wake: Option<u64>) -> io::Result<()> {
        let deadline = self.deadlines.front().map(|&(deadline, ..)| deadline);
        let until = [wake, deadline].into_iter().flatten().min();
        let timeout = until.map(|until| {
            let left = until.saturating_sub(now).saturating_sub(SPIN_NS);
            Timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as _ }
        });
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn handle(&mut self, event: &Event, now: u64) {
        let index = event.data.u64() as usize;
        // Slots are not reused before all events of a batch are handled: this one is still its own.
        let Some(connection) = self.connections[index].as_mut() else { return };
        let flags = event.flags;
        if !connection.connected
            && flags.contains(EventFlags::OUT)
            && !flags.contains(EventFlags::ERR)
        {
            connection.connected = true;
            connection.asked = now;
            self.report.connect_latency.record(now.saturating_sub(connection.from));
        }
        let payload = &self.pattern[connection.pattern..][..self.config.size];
        let keep_alive = self.config.keep_alive;
        let advanced = connection.advance(flags, payload, &mut self.scratch, keep_alive);
        let Some(mut outcome) = advanced else { return };
        if outcome == Outcome::Complete {
            let now = now_ns();
            self.report.reply_latency.record(now.saturating_sub(connection.asked));
            let first = !connection.replied;
            connection.replied = true;
            if let (true, Some(stamps), Some(address)) = (first, &self.stamps, connection.address)
                && let Some(accepted) = stamps.get(address, connection.from)
            {
                self.report.accept_latency.record(accepted - connection.from);
            }
            if keep_alive && !self.closing {
                (connection.sent, connection.received, connection.asked) = (0, 0, now);
                match connection.send(payload) {
                    None => return,
                    Some(error) => outcome = error,
                }
            }
        }
        self.end(index, outcome);
    }

    fn end(&mut self, index: usize, outcome: Outcome) {
        self.report.end(outcome);
        self.connections[index] = None;
        self.free.push(index);
        self.in_flight -= 1;
    }

    fn expire(&mut self, now: u64) {
        while let Some(&(deadline, index, generation)) = self.deadlines.front() {
            let live = self.connections[index].as_ref().map(|connection| connection.generation);
            if live == Some(generation) {
                if deadline > now {
                    return;
                }
                self.end(index, Outcome::Timeout);
            }
            self.deadlines.pop_front();
        }
    }
}

impl Connection {
    /// Sends and receives what it can. `Some` when the connection is at its end.
    fn advance(
        &mut self,
        flags: EventFlags,
        payload: &[u8],
        scratch: &mut [u8],
        keep_alive: bool,
    ) -> Option<Outcome> {
        if flags.contains(EventFlags::ERR) {
            let error = match sockopt::socket_error(&self.socket) {
                Ok(Err(error)) | Err(error) => error,
                Ok(Ok(())) => Errno::CONNRESET,
            };
            return Some(Outcome::Errno(error.raw_os_error()));
        }
        if self.connected
            && let Some(failed) = self.send(payload)
        {
            return Some(failed);
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP) {
            let peer_closed = flags.contains(EventFlags::RDHUP);
            return self.receive(peer_closed, payload, scratch, keep_alive);
        }
        None
    }

    /// Sends what the socket takes. `Some` when that fails.
    fn send(&mut self, payload: &[u8]) -> Option<Outcome> {
        while self.sent < payload.len() {
            match rustix::net::send(&self.socket, &payload[self.sent..], SendFlags::NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Some(Outcome::Errno(error.raw_os_error())),
            }
        }
        None
    }

    /// `peer_closed`: the end of the stream is among what waits to be read. With `keep_alive` a
    /// connection is complete when its reply is.
    fn receive(
        &mut self,
        peer_closed: bool,
        payload: &[u8],
        scratch: &mut [u8],
        keep_alive: bool,
    ) -> Option<Outcome> {
        loop {
            let rest = &payload[self.received..];
            let room = scratch.len().min(rest.len() + 1);
            let count = match rustix::io::read(&self.socket, &mut scratch[..room]) {
                Ok(count) => count,
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR) => continue,
                Err(error) => return Some(Outcome::Errno(error.raw_os_error())),
            };
            if count == 0 {
                let complete = rest.is_empty();
                return Some(if complete { Outcome::Complete } else { Outcome::ShortEcho });
            }
            if rest.get(..count) != Some(&scratch[..count]) {
                return Some(Outcome::WrongEcho);
            }
            self.received += count;
            // A short read emptied the socket. If the peer has closed, only the end is left, and
            // it need not be read when all has come; if not, an event will tell of more.
            let emptied = count < room;
            if keep_alive && self.received == payload.len() {
                // More than that would have filled the room, and is noticed by its successor.
                return Some(Outcome::Complete);
            }
            if emptied && peer_closed && self.received == payload.len() {
                return Some(Outcome::Complete);
            }
            if emptied && !peer_closed {
                return None;
            }
        }
    }
}
