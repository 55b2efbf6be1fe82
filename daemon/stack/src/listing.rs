//! A look at every flow, a bounded part at a time, while the shard goes on working.

use fourwave_tcp::{Nanos, State, Timer, TimerKind};
use fourwave_wire::{Endpoint, FourTuple};

use crate::arena::{Arena, Record};
use crate::shard::Shard;
use crate::wheel::TICK_NANOS;

/// Where a listing goes on. Flows that come and go between two parts may or may not be seen; one
/// that is there all the time is seen once, unless its state moves it to another arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    arena: u8,
    index: u32,
}

/// One flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Both ends.
    pub tuple: FourTuple,
    /// Its state; FIN_WAIT_2 may be a small record's.
    pub state: State,
    /// The host's number for it, if it has a full control block.
    pub app: Option<u64>,
    /// Closed by the application, and not over.
    pub orphan: bool,
    /// On its listener's accept queue.
    pub unaccepted: bool,
    /// In-order bytes that the application has not said it has read.
    pub receive_queue: u64,
    /// Bytes written and not acknowledged.
    pub send_queue: u64,
    /// The timer that runs.
    pub timer: Option<Timer>,
    /// See [`Tcb::waiting_since`](fourwave_tcp::Tcb::waiting_since).
    pub waiting_since: Option<Nanos>,
}

impl Shard {
    /// Calls `each` for flows from `cursor` on, looking at `budget` records, and moves it on.
    /// Stops early, before the flow in question, when `each` says `false`. Whether there is more.
    pub fn list(
        &self,
        now: Nanos,
        cursor: &mut Cursor,
        mut budget: u32,
        mut each: impl FnMut(&Listed) -> bool,
    ) -> bool {
        let records = &self.flows.records;
        while budget > 0 {
            let index = cursor.index;
            let (live, end) = match cursor.arena {
                0 => look(&records.conns, index),
                1 => look(&records.requests, index),
                2 => look(&records.time_waits, index),
                _ => return false,
            };
            let listed = match cursor.arena {
                _ if !live => None,
                0 => self.listed_conn(index),
                1 => Some(self.listed_request(now, index)),
                _ => Some(self.listed_record(now, index)),
            };
            if listed.is_some_and(|listed| !each(&listed)) {
                return true;
            }
            *cursor = match end {
                true => Cursor { arena: cursor.arena + 1, index: 0 },
                false => Cursor { index: index + 1, ..*cursor },
            };
            budget -= 1;
        }
        true
    }

    /// `None` for a connection that is about to be freed.
    fn listed_conn(&self, index: u32) -> Option<Listed> {
        let conn = &self.flows.records.conns[index];
        let tcb = &conn.tcb;
        (tcb.state() != State::Closed).then(|| Listed {
            tuple: conn.tuple,
            state: tcb.state(),
            app: Some(conn.app),
            orphan: tcb.is_orphan(),
            unaccepted: conn.waiting.is_linked(),
            receive_queue: tcb.receive_queue(),
            send_queue: tcb.send_queue(),
            timer: tcb.timer(),
            waiting_since: tcb.waiting_since(),
        })
    }

    fn listed_request(&self, now: Nanos, index: u32) -> Listed {
        let request = &self.flows.records.requests[index];
        let at = self.time_of(now, &request.timer);
        let retries = request.retransmits();
        let timer = Timer { kind: TimerKind::Retransmit, at, retries };
        bare(request.tuple, State::SynReceived, timer)
    }

    fn listed_record(&self, now: Nanos, index: u32) -> Listed {
        let records = &self.flows.records;
        let record = &records.time_waits[index];
        let tuple = FourTuple {
            local: Endpoint { addr: *records.local_addr(record), port: record.local_port },
            remote: Endpoint { addr: record.remote, port: record.remote_port },
        };
        let at = self.time_of(now, &record.timer);
        bare(tuple, record.state(), Timer { kind: TimerKind::TimeWait, at, retries: 0 })
    }

    /// When an armed timer fires.
    fn time_of(&self, now: Nanos, timer: &crate::wheel::Timer) -> Nanos {
        let left = timer.deadline().wrapping_sub(self.tick_of(now) as u32) as i32;
        // Not negative; due already counts as now.
        now + Nanos::from(left.max(0) as u32) * TICK_NANOS
    }
}

/// Whether there is a live record at `index`, and whether the arena ends there.
fn look<T: Record>(arena: &Arena<T>, index: u32) -> (bool, bool) {
    (arena.is_live(index), index + 1 >= arena.high_water())
}

fn bare(tuple: FourTuple, state: State, timer: Timer) -> Listed {
    Listed {
        tuple,
        state,
        app: None,
        orphan: false,
        unaccepted: false,
        receive_queue: 0,
        send_queue: 0,
        timer: Some(timer),
        waiting_since: None,
    }
}
