//! Frames for a tool that captures, passed on as the workers give them.

use super::Control;
use super::client::send;
use super::packets::{self, Packets, Peer};
use super::refusal::Refusal;
use crate::messages::ToWorker;
use crate::tap::{Fate, Filter, Slot, Tap};
use crate::worker::MOST_TAPS;
use fourwave_protocol::VERSION;
use fourwave_protocol::capture::{CapturedFrame, FRAME_OVERHEAD, FrameVerdict, REPLY_BYTES, Step};
use fourwave_protocol::control::{MAX_MESSAGE, Reply};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A tool that takes nothing for this long is disconnected: it keeps others from capturing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Least and most bytes of a frame that a tool can ask for.
const SNAPLEN: std::ops::RangeInclusive<u32> = 64..=4096;

const _: () = assert!(*SNAPLEN.end() as usize + FRAME_OVERHEAD <= REPLY_BYTES);

/// Captures for a tool until it shuts its side down. Afterwards it can ask for something else.
///
/// # Errors
/// Those of the socket, and `TimedOut` for a tool that does not read. It is then disconnected.
pub(super) async fn serve(
    control: &Rc<Control>,
    packets: &Packets,
    peer: Peer,
    version: u32,
    filter: &[Step],
    snaplen: u32,
) -> io::Result<()> {
    let capture = match control.capture(peer, version, filter, snaplen) {
        Ok(capture) => capture,
        Err(refusal) => return send(packets, refusal.into()).await,
    };
    let bell = packets::register(capture.tap.as_fd().try_clone_to_owned()?)?;
    send(packets, Reply::Capturing { queues: control.queues.clone() }.into()).await?;
    let mut buffer = Box::new([0; MAX_MESSAGE]);
    loop {
        tokio::select! {
            biased;
            // Whatever it sends, or that it sends no more, is the end.
            _ = packets.receive(&mut buffer) => break,
            rung = clear(&bell) => rung?,
        }
        while let Some(frames) = capture.frames() {
            capture.reply(packets, frames, true).await?;
        }
    }
    capture.tap.withdraw();
    while let Some(frames) = capture.frames() {
        capture.reply(packets, frames, true).await?;
    }
    capture.reply(packets, Vec::new(), false).await
}

/// Waits until the workers have said something.
async fn clear(bell: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut ready = bell.ready(Interest::READABLE).await?;
    // Cleared before frames are taken: what comes after is announced again.
    let _ = rustix::io::read(bell.get_ref(), &mut [0u8; 8]);
    ready.clear_ready();
    Ok(())
}

/// A capture under way; ended by being dropped.
struct Capture {
    control: Rc<Control>,
    tap: Arc<Tap>,
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.tap.withdraw();
        self.control.captures.set(self.control.captures.get() - 1);
        self.control.wake_workers();
    }
}

impl Control {
    fn capture(
        self: &Rc<Control>,
        peer: Peer,
        version: u32,
        filter: &[Step],
        snaplen: u32,
    ) -> Result<Capture, Refusal> {
        if version != VERSION {
            let detail = format!(
                "the tool speaks version {version} and fourwaved version {VERSION}: both must \
                 be of one release"
            );
            return Err(Refusal::new(Errno::PROTONOSUPPORT, detail));
        }
        if peer.uid != 0 && peer.uid != rustix::process::geteuid().as_raw() {
            let detail = format!(
                "user {} may not capture: frames are everybody's. Root may, and the user that \
                 fourwaved runs as",
                peer.uid
            );
            return Err(Refusal::new(Errno::ACCESS, detail));
        }
        let filter = Filter::new(filter);
        let filter = filter.map_err(|error| Refusal::new(Errno::INVAL, error.to_string()))?;
        if self.captures.get() >= MOST_TAPS {
            let detail = format!("{MOST_TAPS} captures are under way already");
            return Err(Refusal::new(Errno::BUSY, detail));
        }
        let snaplen = snaplen.clamp(*SNAPLEN.start(), *SNAPLEN.end()) as usize;
        let tap = Tap::new(filter, self.links.len(), snaplen)
            .map_err(|error| Refusal::new(Errno::NFILE, error.to_string()))?;
        self.captures.set(self.captures.get() + 1);
        let capture = Capture { control: Rc::clone(self), tap };
        let mut registry = self.registry.borrow_mut();
        registry.outboxes.broadcast(|_| ToWorker::Tap(Arc::clone(&capture.tap)));
        drop(registry);
        tracing::info!(pid = peer.pid, uid = peer.uid, "a capture begins");
        Ok(capture)
    }
}

impl Capture {
    /// A reply's worth of frames, if there are any.
    fn frames(&self) -> Option<Vec<CapturedFrame>> {
        let mut frames = Vec::new();
        let mut room = REPLY_BYTES;
        for worker in 0..self.control.links.len() {
            while room >= FRAME_OVERHEAD + *SNAPLEN.end() as usize
                && let Some(slot) = self.tap.take(worker)
            {
                room -= FRAME_OVERHEAD + slot.bytes().len();
                frames.push(frame(worker as u32, &slot));
                self.tap.give_back(worker, slot);
            }
        }
        (!frames.is_empty()).then_some(frames)
    }

    async fn reply(
        &self,
        packets: &Packets,
        frames: Vec<CapturedFrame>,
        more: bool,
    ) -> io::Result<()> {
        let reply = Reply::Captured { frames, counts: self.tap.counts(), more };
        tokio::time::timeout(PATIENCE, send(packets, reply.into())).await?
    }
}

fn frame(worker: u32, slot: &Slot) -> CapturedFrame {
    let (arrived, verdict) = match slot.fate {
        Fate::Sent => (worker, FrameVerdict::Sent),
        Fate::Received { from, dropped } => {
            let dropped = dropped.map(|reason| reason.name().to_owned());
            let verdict = FrameVerdict::Received { handed_to: from.map(|_| worker), dropped };
            (from.unwrap_or(worker), verdict)
        }
    };
    let bytes = slot.bytes().to_vec();
    CapturedFrame { at: slot.at, worker: arrived, verdict, length: slot.length, bytes }
}
