//! The application's side: what is done to a connection by its number.

use fourwave_tcp::{Info, Nanos, OutOfRange, Settings, State, Tcb};
use fourwave_wire::FourTuple;

use crate::conn::Conn;
use crate::counters::Dropped;
use crate::host::ConnId;
use crate::shard::Shard;
use crate::table::Flow;

/// Why a call about a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The connection is gone.
    #[error("the connection is gone")]
    Stale,
    /// The stream offset is one that the connection cannot have: whoever gave it is wrong.
    #[error("stream offset out of range")]
    OutOfRange,
}

impl From<OutOfRange> for CommandError {
    fn from(_: OutOfRange) -> Self {
        CommandError::OutOfRange
    }
}

impl Shard {
    /// The application has written its stream up to offset `tail`.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn send(&mut self, conn: ConnId, tail: u64) -> Result<(), CommandError> {
        let index = self.index(conn)?;
        let tcb = &mut self.flows.records.conns[index].tcb;
        tcb.set_send_tail(&self.config.tcp, tail)?;
        self.mark_dirty(index);
        Ok(())
    }

    /// The application has read its stream up to offset `head`.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn consumed(&mut self, conn: ConnId, head: u64) -> Result<(), CommandError> {
        let index = self.index(conn)?;
        let tcb = &mut self.flows.records.conns[index].tcb;
        tcb.set_consumed(head)?;
        self.mark_dirty(index);
        Ok(())
    }

    /// The receive window that suits the connection, if that is a larger one than there is: to be
    /// asked after [`Shard::consumed`], and answered by [`Shard::set_receive_window`].
    ///
    /// # Errors
    /// [`CommandError::Stale`].
    pub fn tune_receive(&mut self, now: Nanos, conn: ConnId) -> Result<Option<u32>, CommandError> {
        let index = self.index(conn)?;
        Ok(self.flows.records.conns[index].tcb.tune_receive(&self.config.tcp, now))
    }

    /// The receive window may be `bytes`: as much as was asked for, or as there is memory for.
    ///
    /// # Errors
    /// [`CommandError::Stale`].
    pub fn set_receive_window(&mut self, conn: ConnId, bytes: u32) -> Result<(), CommandError> {
        let index = self.index(conn)?;
        self.flows.records.conns[index].tcb.set_receive_window(&self.config.tcp, bytes);
        self.mark_dirty(index);
        Ok(())
    }

    /// Lets an idle connection fall back to the first receive window. `false`: it is not idle.
    ///
    /// # Errors
    /// [`CommandError::Stale`].
    pub fn rest_receive(&mut self, now: Nanos, conn: ConnId) -> Result<bool, CommandError> {
        let index = self.index(conn)?;
        Ok(self.flows.records.conns[index].tcb.rest_receive(&self.config.tcp, now))
    }

    /// FIN after what has been written.
    ///
    /// # Errors
    /// [`CommandError::Stale`].
    pub fn shutdown_write(&mut self, conn: ConnId) -> Result<(), CommandError> {
        let index = self.index(conn)?;
        // Nothing that an application would hear of can follow.
        let _ = self.flows.records.conns[index].tcb.shutdown_write();
        self.mark_dirty(index);
        Ok(())
    }

    /// The application holds the connection no more: a reset if it leaves bytes unread or lingers for
    /// no time, else FIN after what has been written. Over [`Config::max_orphans`](crate::Config::max_orphans) it is
    /// reset.
    ///
    /// # Errors
    /// [`CommandError::Stale`].
    pub fn close(&mut self, now: Nanos, conn: ConnId) -> Result<(), CommandError> {
        let index = self.index(conn)?;
        let tcb = &mut self.flows.records.conns[index].tcb;
        self.orphans += u32::from(!tcb.is_orphan());
        let unread =
            tcb.receive_queue() > 0 && !matches!(tcb.state(), State::TimeWait | State::Closed);
        // Nobody is left to hear of it.
        let _ = tcb.close(&self.config.tcp, now);
        let state = tcb.state();
        if unread {
            self.drop_conn(now, index, Dropped::AbortOnClose);
        }
        let lingers = match state {
            State::SynReceived
            | State::Established
            | State::CloseWait
            | State::FinWait1
            | State::Closing
            | State::LastAck => true,
            // It is freed, or becomes a small record, at the next flush.
            State::Closed | State::Listen | State::SynSent | State::FinWait2 | State::TimeWait => {
                false
            }
        };
        if lingers && self.orphans > self.config.max_orphans {
            self.drop_conn(now, index, Dropped::AbortOnMemory);
            self.reset(index);
        } else {
            self.mark_dirty(index);
        }
        Ok(())
    }

    /// Resets the connection.
    ///
    /// # Errors
    /// [`CommandError::Stale`].
    pub fn abort(&mut self, conn: ConnId) -> Result<(), CommandError> {
        let index = self.index(conn)?;
        self.counters.abort_on_data += 1;
        self.reset(index);
        Ok(())
    }

    /// The application has made other choices for the connection.
    ///
    /// # Errors
    /// [`CommandError::Stale`].
    pub fn apply(
        &mut self,
        now: Nanos,
        conn: ConnId,
        settings: &Settings,
    ) -> Result<(), CommandError> {
        let index = self.index(conn)?;
        self.flows.records.conns[index].tcb.apply(&self.config.tcp, now, settings);
        self.mark_dirty(index);
        Ok(())
    }

    /// Acknowledgements at once for a while, or not.
    ///
    /// # Errors
    /// [`CommandError::Stale`].
    pub fn set_quickack(&mut self, conn: ConnId, on: bool) -> Result<(), CommandError> {
        let index = self.index(conn)?;
        self.flows.records.conns[index].tcb.set_quickack(&self.config.tcp, on);
        self.mark_dirty(index);
        Ok(())
    }

    /// What the connection knows about itself.
    ///
    /// # Errors
    /// [`CommandError::Stale`].
    pub fn info(&self, now: Nanos, conn: ConnId) -> Result<Info, CommandError> {
        self.record(conn).map(|record| record.tcb.info(&self.config.tcp, now))
    }

    /// The state of the connection.
    ///
    /// # Errors
    /// [`CommandError::Stale`].
    pub fn tcb(&self, conn: ConnId) -> Result<&Tcb, CommandError> {
        self.record(conn).map(|record| &record.tcb)
    }

    /// The state of a flow, whatever record stands for it; `None` when none does.
    pub fn state(&self, tuple: &FourTuple) -> Option<State> {
        let records = &self.flows.records;
        Some(match self.flows.find(self.keys.flow_hash(tuple), tuple)? {
            Flow::Conn(index) => records.conns[index].tcb.state(),
            Flow::Request(_) => State::SynReceived,
            Flow::TimeWait(index) => records.time_waits[index].state(),
        })
    }

    /// Both ends of the connection.
    ///
    /// # Errors
    /// [`CommandError::Stale`].
    pub fn tuple(&self, conn: ConnId) -> Result<FourTuple, CommandError> {
        self.record(conn).map(|record| record.tuple)
    }

    /// Resets every connection; the resets go out in [`Shard::flush`]. Handshakes under way and
    /// TIME_WAIT records stay.
    pub fn abort_all(&mut self) {
        self.abort_where(|_| true);
    }

    /// Resets every connection whose number at the host `doomed` names. O(connections).
    pub fn abort_where(&mut self, mut doomed: impl FnMut(u64) -> bool) {
        for index in 0..self.flows.records.conns.high_water() {
            let conns = &self.flows.records.conns;
            if conns.is_live(index) && doomed(conns[index].app) {
                self.reset(index);
            }
        }
    }

    /// From now on, or no longer, every SYN is answered by a reset, as if nobody listened.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    fn drop_conn(&mut self, now: Nanos, index: u32, dropped: Dropped) {
        let tuple = self.flows.records.conns[index].tuple;
        self.dropped(now, dropped, tuple);
    }

    pub(crate) fn reset(&mut self, index: u32) {
        // Whoever asked for it knows.
        let _ = self.flows.records.conns[index].tcb.abort();
        self.mark_dirty(index);
    }

    fn record(&self, conn: ConnId) -> Result<&Conn, CommandError> {
        let conns = &self.flows.records.conns;
        conns.get(conn.index, conn.generation).ok_or(CommandError::Stale)
    }

    fn index(&self, conn: ConnId) -> Result<u32, CommandError> {
        self.record(conn).map(|_| conn.index)
    }
}
