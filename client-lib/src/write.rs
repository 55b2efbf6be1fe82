//! Putting bytes to send into extents.

use crate::connection::{Connection, in_time, own_patience};
use crate::error::{os, would_block};
use crate::lane::{Lane, Loan};
use crate::patience::{Limit, Patience};
use crate::poller::{Core, watch_room};
#[cfg(feature = "tokio")]
use crate::poller::{Readiness, has_room};
use fourwave_protocol::command::Command;
use fourwave_protocol::conn::{shut, status};
use fourwave_protocol::{EXTENT_BYTES, ExtentId, position_of};
use rustix::io::Errno;
use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;

/// Why not all bytes could be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocked {
    /// The connection's buffer is full, or the connection is not made yet.
    Window,
    /// There are no extents.
    Grants,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    bytes: usize,
    blocked: Option<Blocked>,
}

impl Connection {
    /// `send`: writes what fits when non-blocking, all of it otherwise.
    ///
    /// As on Linux, a blocking call that was cut short by an error or its timeout returns the
    /// bytes written before; the next one gives the error.
    pub(crate) fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send_with(bufs, || own_patience(&self.nonblocking, &self.write))
    }

    /// The same, waiting as told; asked only if there is not room for everything.
    pub(crate) fn send_with(
        &self,
        bufs: &[IoSlice<'_>],
        patience: impl FnOnce() -> Patience,
    ) -> io::Result<usize> {
        let mut limit = None;
        let first = self.shared.with_lane(|lane| {
            let first = self.try_send(lane, bufs, 0)?;
            let Some(why) = first.blocked else { return Ok(first) };
            limit = patience().limit();
            match limit {
                None => self.retry_watched(lane, bufs, first.bytes, why),
                Some(_) => Ok(first),
            }
        })?;
        match (first.blocked, limit) {
            (None, _) => Ok(first.bytes),
            (Some(_), None) if first.bytes > 0 => Ok(first.bytes),
            (Some(_), None) => {
                self.shared.probe()?;
                Err(would_block())
            }
            (Some(_), Some(limit)) => self.send_all(bufs, first.bytes, limit),
        }
    }

    /// Goes on until everything is written.
    fn send_all(&self, bufs: &[IoSlice<'_>], mut done: usize, limit: Limit) -> io::Result<usize> {
        let result = self.wait_for_writing(limit, |lane| {
            let progress = self.try_send(lane, bufs, done)?;
            done += progress.bytes;
            match progress.blocked {
                None => Ok(Some(())),
                Some(Blocked::Window) => Ok(None),
                Some(Blocked::Grants) => {
                    lane.want_grants(&self.shared, self.worker)?;
                    Ok(None)
                }
            }
        });
        match result.and_then(in_time) {
            Ok(()) => Ok(done),
            Err(_) if done > 0 => Ok(done),
            Err(error) => Err(error),
        }
    }

    /// A non-blocking write found no room: the poller, if one watches, shall hear of room. Looks
    /// once more afterwards, because room may have come before it was asked for.
    fn retry_watched(
        &self,
        lane: &Lane,
        bufs: &[IoSlice<'_>],
        done: usize,
        why: Blocked,
    ) -> io::Result<Progress> {
        let blocked = Progress { bytes: done, blocked: Some(why) };
        let watchers = self.write_watchers();
        let want_grants =
            || watchers.iter().try_for_each(|core| core.want_grants(self.handle, self.worker));
        for core in &watchers {
            core.no_room(self.handle);
        }
        match (why, watchers.first()) {
            (Blocked::Window, Some(core)) => {
                watch_room(self.block(), core.lane());
                let more = self.try_send(lane, bufs, done)?;
                let bytes = done + more.bytes;
                if more.blocked == Some(Blocked::Grants) {
                    want_grants()?;
                }
                Ok(Progress { bytes, blocked: more.blocked })
            }
            // No second look needed: the answer to the question comes in any case.
            (Blocked::Grants, Some(_)) => {
                want_grants()?;
                Ok(blocked)
            }
            (Blocked::Grants, None) => {
                lane.want_grants(&self.shared, self.worker)?;
                Ok(blocked)
            }
            (Blocked::Window, None) => Ok(blocked),
        }
    }

    /// What it is ready for. If it cannot be written, it is as if a write had found that out.
    #[cfg(feature = "tokio")]
    pub(crate) fn writability(&self) -> io::Result<Readiness> {
        let ready = self.readiness()?;
        let watchers = self.write_watchers();
        let Some(core) = watchers.first().filter(|_| !ready.is_writable()) else {
            return Ok(ready);
        };
        watchers.iter().for_each(|core| core.no_room(self.handle));
        watch_room(self.block(), core.lane());
        let ready = self.readiness()?;
        if !ready.is_writable() && has_room(self.block()) {
            watchers.iter().try_for_each(|core| core.want_grants(self.handle, self.worker))?;
        }
        Ok(ready)
    }

    /// Writes what fits of `bufs`, without their first `skip` bytes, and posts it.
    fn try_send(&self, lane: &Lane, bufs: &[IoSlice<'_>], skip: usize) -> io::Result<Progress> {
        let _writer = self.section(&self.block().client.writer)?;
        let state = self.status()?;
        if state & (status::FAILED | status::WRITE_CLOSED) != 0 || self.is_shut(shut::WRITE) {
            return Err(self.take_failure(state).unwrap_or_else(|| os(Errno::PIPE)));
        }
        if state & status::CONNECTED == 0 {
            return Ok(Progress { bytes: 0, blocked: Some(Blocked::Window) });
        }
        let client = &self.block().client;
        // Relaxed: only we write it, under the lock.
        let start = client.send_tail.load(Ordering::Relaxed);
        let last = self.block().send_extent();
        let mut writer =
            Writer { connection: self, lane, tail: start, last, loans: Vec::new(), watcher: None };
        let (mut skip, mut blocked) = (skip, None);
        for buf in bufs {
            let from = skip.min(buf.len());
            skip -= from;
            blocked = writer.put(&buf[from..])?;
            if blocked.is_some() {
                break;
            }
        }
        let Writer { tail, last, .. } = writer;
        if tail != start {
            // Relaxed: the daemon takes both from the command only.
            client.send_tail.store(tail, Ordering::Relaxed);
            client.send_extent.store(last.map_or(0, ExtentId::raw), Ordering::Relaxed);
            self.block().leave_open_extent(tail);
            self.post(lane, Command::Send { handle: self.handle, tail, last })?;
        }
        Ok(Progress { bytes: (tail - start) as usize, blocked })
    }
}

/// Copies bytes behind the send tail. The caller holds the lock of the writing side.
struct Writer<'a> {
    connection: &'a Connection,
    lane: &'a Lane,
    tail: u64,
    /// Extent of the byte before the tail; may be another's by now if it was full.
    last: Option<ExtentId>,
    /// Of extents of other lanes; until everything is posted. Before the poller, whose end waits for
    /// what it has lent.
    loans: Vec<Loan>,
    /// The poller whose grants may be used too, once it was looked for.
    watcher: Option<Option<std::sync::Arc<Core>>>,
}

impl Writer<'_> {
    /// Copies what fits; says why when that is not all.
    fn put(&mut self, mut bytes: &[u8]) -> io::Result<Option<Blocked>> {
        let block = self.connection.block();
        // Acquire: pairs with the daemon's Release; slots below the limit are free.
        let limit = block.daemon.send_limit.load(Ordering::Acquire);
        while !bytes.is_empty() {
            let room = usize::try_from(limit.saturating_sub(self.tail)).unwrap_or(usize::MAX);
            if room == 0 {
                return Ok(Some(Blocked::Window));
            }
            let Some(extent) = self.extent()? else { return Ok(Some(Blocked::Grants)) };
            let position = position_of(self.tail);
            let here = bytes.len().min(room).min(EXTENT_BYTES - position);
            self.connection.shared.segment.write_extent(extent, position, &bytes[..here]);
            bytes = &bytes[here..];
            self.tail += here as u64;
        }
        Ok(None)
    }

    /// The extent of the tail: the one that is partly filled, or a fresh one.
    fn extent(&mut self) -> io::Result<Option<ExtentId>> {
        if position_of(self.tail) != 0 {
            // Filled in this very write, by the buffer before this one; or open to us; or our
            // own from before, taken back by the daemon when it was drained.
            let block = self.connection.block();
            let own = block.client.send_tail.load(Ordering::Relaxed);
            if own != self.tail || block.take_open_extent(self.tail) {
                return Ok(self.last);
            }
        }
        let Some(extent) = self.grant()? else { return Ok(None) };
        // Relaxed: published by the Release that posts the bytes.
        let before = self.last.map_or(0, ExtentId::raw);
        self.connection.shared.segment.link(extent).store(before, Ordering::Relaxed);
        self.last = Some(extent);
        Ok(Some(extent))
    }

    fn grant(&mut self) -> io::Result<Option<ExtentId>> {
        let Connection { shared, worker, .. } = self.connection;
        if let Some(extent) = self.lane.take_grant(shared, *worker)? {
            return Ok(Some(extent));
        }
        let find = || self.connection.write_watchers().into_iter().next();
        if let Some(core) = self.watcher.get_or_insert_with(find)
            && let Some(extent) = core.lane().take_grant(shared, *worker)?
        {
            return Ok(Some(extent));
        }
        Ok(shared.borrow_grant(*worker)?.map(|(extent, loan)| {
            self.loans.push(loan);
            extent
        }))
    }
}
