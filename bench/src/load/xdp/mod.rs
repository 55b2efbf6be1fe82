//! The load generator on AF_XDP: one thread makes the connections straight from frames, without
//! the kernel's TCP and without ours.
//!
//! It needs so little time per connection that the server is what limits. The client's ports are
//! steered to it by the same XDP program that the daemon uses; everything else, ARP and neighbour
//! discovery among it, stays with the kernel.

mod client;
pub(crate) mod path;

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use fourwave_wire::{ChecksumPolicy, Endpoint, FourTuple, FrameHead, Inbound, Link, build, parse};
use fourwave_xdp::{Queue, Sender};

use super::pace::{Pace, Turn, nanos};
use super::report::LoadReport;
use super::sources::{FIRST_PORT, Sources};
use super::{LoadConfig, Until};
use crate::frames::{Frames, FramesError, any_like};
use crate::machine::{self, now_ns};
use client::{Clients, Outgoing, Output};
use path::Path;

pub use crate::frames::XdpMode;

/// Frames that are looked at before the time is.
const BATCH: usize = 64;

/// Connections that may start in one turn, so that answers do not wait for a burst of starts.
const STARTS: usize = 64;

/// Why there is no load.
#[derive(Debug, thiserror::Error)]
pub enum XdpLoadError {
    /// The way to the server.
    #[error("the way to {target}: {source}")]
    Path {
        /// The server's address.
        target: IpAddr,
        /// What is missing.
        source: io::Error,
    },
    /// No client address of the server's family.
    #[error("no client address was given")]
    NoSource,
    /// The XDP program, or the AF_XDP socket.
    #[error(transparent)]
    Frames(#[from] FramesError),
    /// `/proc`.
    #[error("reading what the machine counts: {0}")]
    Machine(#[source] io::Error),
}

/// Makes the load from the calling thread and its network namespace, until it is over or
/// `cancelled` becomes true. The interface is left as it was.
///
/// # Errors
/// See [`XdpLoadError`]. What happens to single connections is in the report.
pub fn run(
    config: &LoadConfig,
    mode: XdpMode,
    cancelled: &AtomicBool,
) -> Result<LoadReport, XdpLoadError> {
    let target = config.target;
    let failed = |source| XdpLoadError::Path { target: target.ip(), source };
    let path = Path::find(target).map_err(failed)?;
    let sources = Sources::new(config.sources.clone(), config.first_source);
    let sources = sources.ok_or(XdpLoadError::NoSource)?;
    let (any, ports) = (any_like(target.ip()), FIRST_PORT..=u16::MAX);
    let mut frames = Frames::take("load", &path.interface, mode, any, ports)?;
    let stamps = config.open_stamps().map_err(XdpLoadError::Machine)?;
    let clients = Clients::new(config.size, nanos(config.timeout), sources);
    let clients =
        clients.keep_alive(config.keep_alive).hold(config.hold).ports(config.ports).stamps(stamps);
    let report = generate(config, &mut frames.queue, path.link, clients, cancelled);
    let left = frames.leave();
    let report = report?;
    left?;
    Ok(report)
}

fn generate(
    config: &LoadConfig,
    queue: &mut Queue,
    link: Link,
    mut clients: Clients,
    cancelled: &AtomicBool,
) -> Result<LoadReport, XdpLoadError> {
    let Queue { rx, tx, .. } = queue;
    let pattern = clients.pattern().to_vec();
    let remote = config.target.into();
    let mut wire = Wire { tx, link, remote, pattern, size: config.size, sent: 0, no_room: 0 };
    let busy = machine::busy_ns().map_err(XdpLoadError::Machine)?;
    let begin = now_ns();
    let mut pace = Pace::new(config, begin);
    let mut window = None;
    let mut received = 0;
    let coalesce = nanos(config.coalesce);
    let mut flushed = 0;
    loop {
        let now = now_ns();
        received += rx.receive(BATCH, |frame| {
            if let Ok(Inbound::Tcp(frame)) = parse(frame, ChecksumPolicy::Verify) {
                clients.handle(now, &frame.tuple.local, &frame.segment, &mut wire);
            } else {
                clients.report.stray_frames += 1;
            }
        }) as u64;
        clients.handle_time(now, &mut wire);
        let stopped = cancelled.load(Ordering::Relaxed);
        let turn = start_due(&mut pace, &mut clients, now, &mut wire, stopped);
        if now - flushed >= coalesce {
            wire.tx.flush();
            flushed = now;
        }
        if turn == Turn::Stop {
            if window.is_none() && matches!(config.until, Until::Elapsed(_)) {
                window = Some((
                    now - begin,
                    clients.report.completed,
                    clients.report.reply_latency.count(),
                ));
                clients.close_after_replies();
            }
            if clients.in_flight() == 0 || stopped {
                break;
            }
        }
    }
    let whole = (now_ns() - begin, clients.report.completed, clients.report.reply_latency.count());
    let mut report = std::mem::take(&mut clients.report);
    (report.window_ns, report.completed_in_window, report.replies_in_window) =
        window.unwrap_or(whole);
    report.shed = pace.shed();
    report.started = pace.started();
    report.next_source = clients.next_source();
    report.frames_sent = wire.sent;
    report.frames_received = received;
    report.frames_without_room = wire.no_room;
    report.machine_busy_ns =
        machine::busy_ns().map_err(XdpLoadError::Machine)?.saturating_sub(busy);
    Ok(report)
}

/// Starts what may start now, up to a batch.
fn start_due(
    pace: &mut Pace,
    clients: &mut Clients,
    now: u64,
    wire: &mut Wire<'_>,
    stopped: bool,
) -> Turn {
    if stopped {
        return Turn::Stop;
    }
    let mut turn = Turn::Stop;
    for _ in 0..STARTS {
        turn = pace.turn(now, clients.in_flight());
        match turn {
            Turn::Start { due } => clients.start(now, due.unwrap_or(now), wire),
            Turn::Wait { .. } | Turn::Stop => break,
        }
    }
    turn
}

/// Builds frames in the queue's memory.
struct Wire<'a> {
    tx: &'a mut Sender,
    link: Link,
    remote: Endpoint,
    pattern: Vec<u8>,
    size: usize,
    sent: u64,
    no_room: u64,
}

impl Output for Wire<'_> {
    fn send(&mut self, segment: &Outgoing) {
        let Some(room) = self.tx.frame() else {
            self.no_room += 1;
            return;
        };
        let payload = match segment.payload {
            Some(place) => &self.pattern[place..][..self.size],
            None => &[],
        };
        let port = self.remote.port.wrapping_add(segment.port);
        let head = FrameHead {
            link: self.link,
            tuple: FourTuple { local: segment.local, remote: Endpoint { port, ..self.remote } },
            ttl: 64,
            seq: segment.seq,
            ack: segment.ack,
            flags: segment.flags,
            window: segment.window,
            options: segment.options,
            ..FrameHead::default()
        };
        match build(room, &head, payload.len(), |out| out.copy_from_slice(payload)) {
            Ok(length) => {
                self.tx.commit(length);
                self.sent += 1;
            }
            // The command line keeps a request within one segment.
            Err(_too_small) => self.no_room += 1,
        }
    }
}
