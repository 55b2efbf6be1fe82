//! Taking received bytes out of the extents.

use crate::connection::{Connection, in_time, own_patience};
use crate::error::{os, would_block};
use crate::patience::Patience;
use fourwave_protocol::command::Command;
use fourwave_protocol::conn::{shut, status};
use fourwave_protocol::{EXTENT_BYTES, FIRST_WINDOW, position_of};
use rustix::io::Errno;
use std::io::{self, IoSliceMut};
use std::sync::atomic::Ordering;

/// A reader that has drained the queue reports less too, if that gives an extent back.
const REPORT_DRAINED_AT: u64 = EXTENT_BYTES as u64;

/// Bytes that are waited for at the most without being taken: there must be a window for them.
pub(crate) const MOST_PEEKED: u64 = FIRST_WINDOW / 2;

/// Whether reading takes the bytes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Take,
    Peek,
    /// Not before the buffers can be filled, as far as that can be [waited for](MOST_PEEKED), or
    /// the stream has ended.
    PeekAll,
}

impl Connection {
    /// `recv`: waits for bytes unless non-blocking. 0 is the end of the stream.
    pub(crate) fn receive(&self, bufs: &mut [IoSliceMut<'_>], mode: Mode) -> io::Result<usize> {
        match self.try_receive(bufs, mode)? {
            Some(count) => Ok(count),
            None => self.wait_and_receive(bufs, mode, own_patience(&self.nonblocking, &self.read)),
        }
    }

    /// The same, waiting as told.
    pub(crate) fn receive_with(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        mode: Mode,
        patience: Patience,
    ) -> io::Result<usize> {
        match self.try_receive(bufs, mode)? {
            Some(count) => Ok(count),
            None => self.wait_and_receive(bufs, mode, patience),
        }
    }

    fn wait_and_receive(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        mode: Mode,
        patience: Patience,
    ) -> io::Result<usize> {
        let Some(limit) = patience.limit() else {
            self.shared.probe()?;
            return Err(would_block());
        };
        in_time(self.wait_for_reading(limit, |_| self.try_receive(bufs, mode))?)
    }

    /// Bytes that were received and not read.
    pub(crate) fn unread(&self) -> io::Result<usize> {
        self.shared.check()?;
        let block = self.block();
        let tail = block.receive_tail();
        // Relaxed: a reader beside us makes the number old in any case.
        let head = block.client.receive_head.load(Ordering::Relaxed);
        Ok(usize::try_from(tail.saturating_sub(head)).unwrap_or(usize::MAX))
    }

    /// Reads what is there; `None` if nothing is and more can come.
    fn try_receive(&self, bufs: &mut [IoSliceMut<'_>], mode: Mode) -> io::Result<Option<usize>> {
        let _reader = self.section(&self.block().client.reader)?;
        // The status before the tail: with PEER_CLOSED in it, the tail is final.
        let state = self.status()?;
        let block = self.block();
        let tail = block.receive_tail();
        // Relaxed: only we write it, under the lock.
        let head = block.client.receive_head.load(Ordering::Relaxed);
        let wanted = bufs.iter().map(|buf| buf.len() as u64).sum::<u64>();
        if wanted == 0 {
            return Ok(Some(0));
        }
        if head == tail {
            let ended = state & (status::PEER_CLOSED | status::FAILED) != 0;
            return match self.take_failure(state) {
                Some(failure) => Err(failure),
                None if ended || self.is_shut(shut::READ) => Ok(Some(0)),
                None => {
                    self.report_if(REPORT_DRAINED_AT)?;
                    Ok(None)
                }
            };
        }
        if mode == Mode::PeekAll
            && tail - head < wanted.min(MOST_PEEKED)
            && state & (status::PEER_CLOSED | status::FAILED) == 0
            && !self.is_shut(shut::READ)
        {
            // What was read before is given back, or the window may be too small.
            self.report_if(1)?;
            return Ok(None);
        }
        let mut at = head;
        for buf in bufs {
            at += self.copy_out(at, tail, buf)? as u64;
        }
        if mode == Mode::Take {
            block.publish_receive_head(at);
            // Relaxed: under the lock.
            self.unreported.fetch_add(at - head, Ordering::Relaxed);
            let least = block.daemon.report_at.load(Ordering::Relaxed);
            self.report_if(u64::from(least))?;
        }
        Ok(Some((at - head) as usize))
    }

    /// Copies bytes from offset `at` on, as many as there are and fit; returns how many.
    fn copy_out(&self, mut at: u64, tail: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() && at < tail {
            let position = position_of(at);
            let here = (buf.len() - done)
                .min(EXTENT_BYTES - position)
                .min(usize::try_from(tail - at).unwrap_or(usize::MAX));
            let segment = &self.shared.segment;
            let extent = segment.receive_extent(self.block(), at).ok_or_else(|| os(Errno::IO))?;
            let out = &mut buf[done..done + here];
            segment.read_extent(extent, position, out);
            done += here;
            at += here as u64;
        }
        Ok(done)
    }

    /// Tells the daemon that bytes were read, if they are at least `least`.
    fn report_if(&self, least: u64) -> io::Result<()> {
        // Relaxed: under the lock.
        if self.unreported.load(Ordering::Relaxed) < least {
            return Ok(());
        }
        self.unreported.store(0, Ordering::Relaxed);
        let command = Command::Consumed { handle: self.handle };
        self.shared.with_lane(|lane| self.post(lane, command))
    }
}
