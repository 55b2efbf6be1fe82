//! The limit: a responder without any state answers each frame of a handshake, request or close as
//! the echo server's TCP would, straight from AF_XDP. No TCP on AF_XDP can be faster.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use fourwave_wire::{
    ChecksumPolicy, Flags, FrameHead, Inbound, Options, TcpFrame, Timestamps, build, parse,
};
use fourwave_xdp::Queue;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::announce;
use crate::frames::{Frames, FramesError, XdpMode, any_like};
use crate::machine::now_ns;

/// Frames that are answered at once.
const BATCH: usize = 64;

/// Its sequence number before any data: all the state that a connection has is in its segments.
const ISS: u32 = 0x5eed_0000;

const WINDOW: u16 = 65_535;
const WINDOW_SCALE: u8 = 7;
const MSS: u16 = 1460;

/// Nanoseconds without a frame after which it sleeps until there is one: others may use its CPU while
/// nobody loads it.
const PATIENCE: u64 = 2_000_000;

/// How long it sleeps before it looks whether it is to end.
const SLEEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Answers the frames for `listen` on `interface` until `cancelled` becomes true. It polls, and
/// sleeps only when none come. Returns how many it has answered.
///
/// # Errors
/// See [`FramesError`].
pub fn serve(
    interface: &str,
    mode: XdpMode,
    listen: SocketAddr,
    cancelled: &AtomicBool,
) -> Result<u64, ReflectorError> {
    let port = std::iter::once(listen.port());
    let mut frames = Frames::take("reflector", interface, mode, any_like(listen.ip()), port)?;
    announce(&[listen])?;
    let (mut answered, mut last) = (0, now_ns());
    while !cancelled.load(Ordering::Relaxed) {
        let now = now_ns();
        match turn(&mut frames.queue, now) {
            0 if now - last > PATIENCE => sleep(&frames.queue)?,
            0 => {}
            some => {
                answered += some;
                last = now;
            }
        }
    }
    frames.leave()?;
    Ok(answered)
}

/// Why there is no reflector.
#[derive(Debug, thiserror::Error)]
pub enum ReflectorError {
    /// No frames.
    #[error(transparent)]
    Frames(#[from] FramesError),
    /// Standard output, or waiting for frames.
    #[error("saying that it is ready, or waiting for frames: {0}")]
    Io(#[from] io::Error),
}

/// Until there is a frame, or somebody may want it to end.
fn sleep(queue: &Queue) -> io::Result<()> {
    match rustix::event::poll(&mut [PollFd::new(queue, PollFlags::IN)], Some(&SLEEP)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn turn(queue: &mut Queue, now: u64) -> u64 {
    let mut answered = 0;
    let (rx, tx) = (&mut queue.rx, &mut queue.tx);
    rx.receive(BATCH, |frame| {
        let Ok(Inbound::Tcp(frame)) = parse(frame, ChecksumPolicy::Verify) else { return };
        let Some((head, payload)) = answer(now, &frame) else { return };
        // Without room it is lost, as on a wire.
        let Some(room) = tx.frame() else { return };
        if let Ok(length) = build(room, &head, payload.len(), |out| out.copy_from_slice(payload)) {
            tx.commit(length);
            answered += 1;
        }
    });
    tx.flush();
    answered
}

/// SYN-ACK to a SYN, the echo with a FIN to a request, an ACK to a FIN.
fn answer<'a>(now: u64, frame: &TcpFrame<'a>) -> Option<(FrameHead, &'a [u8])> {
    let segment = &frame.segment;
    let timestamps = segment
        .options
        .timestamps
        .map(|peer| Timestamps { value: (now / 1_000_000) as u32, echo: peer.value });
    let mut options = Options { timestamps, ..Options::default() };
    let (flags, seq, payload): (_, _, &[u8]) = if segment.flags.contains(Flags::SYN) {
        options.mss = Some(MSS);
        options.window_scale = segment.options.window_scale.map(|_| WINDOW_SCALE);
        options.sack_permitted = segment.options.sack_permitted;
        (Flags::SYN | Flags::ACK, ISS, &[])
    } else if !segment.payload.is_empty() {
        (Flags::ACK | Flags::PSH | Flags::FIN, segment.ack, segment.payload)
    } else if segment.flags.contains(Flags::FIN) {
        (Flags::ACK, segment.ack, &[])
    } else {
        return None;
    };
    let head = FrameHead {
        link: frame.link.reply(),
        tuple: frame.tuple,
        ttl: 64,
        seq,
        ack: segment.seq.wrapping_add(segment.sequence_len()),
        flags,
        window: WINDOW,
        options,
        ..FrameHead::default()
    };
    Some((head, payload))
}
