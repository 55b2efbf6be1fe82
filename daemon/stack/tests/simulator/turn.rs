//! What an application does when it gets a turn.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fourwave_stack::{CommandError, Shard};
use fourwave_tcp::{Nanos, Settings};

use crate::app::App;
use crate::draw::MICROS;
use crate::plan::{Close, Plan, Script};

/// A turn of one host's applications.
pub(crate) struct Turn<'a> {
    pub(crate) now: Nanos,
    pub(crate) shard: &'a mut Shard,
    /// When applications want another turn.
    pub(crate) wakes: &'a mut BinaryHeap<Reverse<Nanos>>,
    /// They give up whatever they wait for.
    pub(crate) patience_is_over: bool,
    /// How often they asked for something.
    pub(crate) calls: u64,
}

impl Turn<'_> {
    /// One application, which holds its handle, does what its script says. It has no plan if a
    /// stranger opened its connection.
    pub(crate) fn take(&mut self, app: &mut App, plan: Option<&Plan>) {
        self.calls += 1;
        if app.queued && !app.usable {
            app.usable = true;
            self.shard.accepted(0, app.conn);
        }
        if !app.usable {
            // It may die before it is connected or accepted, or take too long.
            if app.closed || self.patience_is_over {
                app.gave_up = true;
                self.abort(app);
            }
            return;
        }
        let Some(plan) = plan else { return self.abort(app) };
        if app.error.is_some() || self.patience_is_over || app.closed && !app.eof {
            // Gone already, or given up.
            app.gave_up = app.error.is_none();
            return self.abort(app);
        }
        let script = &plan.scripts[app.end];
        self.read(app, script);
        let at_eof = app.eof && app.consumed == app.rcv_tail;
        let may_write = app.consumed >= script.after_read && (!script.after_eof || at_eof);
        let wrote_all = may_write && self.write(app, script);
        let peer_sends = plan.scripts[1 - app.end].send;
        let done = match script.close {
            Close::Sent => wrote_all,
            Close::Exchanged => wrote_all && app.consumed == peer_sends,
            Close::Eof => wrote_all && at_eof,
            Close::Abort(after) if self.now < app.born + after => {
                self.wakes.push(Reverse(app.born + after));
                false
            }
            Close::Abort(_) => return self.abort(app),
        };
        if done {
            app.open = false;
            // Both sides may have shut down before: nothing is left to close.
            let _ = self.shard.close(self.now, app.conn);
        }
    }

    fn read(&mut self, app: &mut App, script: &Script) {
        if script.close == Close::Sent || app.rcv_tail == app.consumed {
            return;
        }
        if self.now < app.next_read {
            self.wakes.push(Reverse(app.next_read));
            return;
        }
        app.consumed = app.rcv_tail;
        app.next_read = self.now + script.read_every;
        // The control block may be gone, its bytes are not.
        let _ = self.shard.consumed(app.conn, app.consumed);
        if let Ok(Some(wanted)) = self.shard.tune_receive(self.now, app.conn) {
            self.shard.set_receive_window(app.conn, wanted).unwrap();
        }
    }

    /// Whether all is written.
    fn write(&mut self, app: &mut App, script: &Script) -> bool {
        let limit = app.snd_acked + u64::from(self.shard.config().tcp.send_buffer);
        let step = (script.send - app.written).min(script.chunk).min(limit - app.written);
        if step > 0 {
            app.written += step;
            self.shard.send(app.conn, app.written).unwrap();
            if app.written < script.send && app.written < limit {
                // Writes and segments interleave.
                self.wakes.push(Reverse(self.now + 100 * MICROS));
            }
        }
        let wrote_all = app.written == script.send;
        if wrote_all && script.shutdown && !app.shut {
            app.shut = true;
            self.shard.shutdown_write(app.conn).unwrap();
        }
        wrote_all
    }

    fn abort(&mut self, app: &mut App) {
        let _ = self.shard.abort(app.conn);
        app.open = false;
    }

    /// The application chooses other options.
    pub(crate) fn choose(&mut self, app: &App, settings: &Settings, quickack: bool) {
        let chosen = self.shard.apply(self.now, app.conn, settings);
        let told = self.shard.set_quickack(app.conn, quickack);
        let _ = self.shard.info(self.now, app.conn);
        assert!(app.closed || (chosen, told) == (Ok(()), Ok(())));
    }

    /// Calls that a connection has to refuse.
    pub(crate) fn ask_too_much(&mut self, app: &App) {
        let buffer = u64::from(self.shard.config().tcp.send_buffer);
        let refused = [
            self.shard.send(app.conn, app.snd_acked + buffer + 1),
            self.shard.send(app.conn, app.written.wrapping_sub(1)),
            self.shard.consumed(app.conn, app.rcv_tail + 1),
            self.shard.consumed(app.conn, u64::MAX),
        ];
        for answer in refused {
            let gone = app.closed && answer == Err(CommandError::Stale);
            assert!(gone || answer == Err(CommandError::OutOfRange), "{answer:?}");
        }
    }
}
