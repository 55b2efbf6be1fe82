//! Answers to tools' questions, a slice in each turn.

use super::Worker;
use super::host::Environment;
use crate::inquiry::{Answer, Inquiry, Question, Row};
use crate::port::AppId;
use fourwave_protocol::query::{SocketFilter, SocketKind, SocketState, SocketTimer, TimerKind};
use fourwave_stack::{Cursor, Listed, Reason, SAMPLES, Shard};
use fourwave_tcp::{State, Timer};
use std::sync::Arc;

/// Questions that can be under way at a time. Control asks no more.
pub const MOST_INQUIRIES: usize = 8;

/// Records that are looked at in one turn for one question: some ten microseconds.
const RECORDS_PER_TURN: u32 = 128;

/// Samples of drops that are looked at in one turn for one question.
const DROPS_PER_TURN: usize = 32;

/// The questions under way.
pub(super) struct Inquiries(Vec<Open>);

struct Open {
    inquiry: Arc<Inquiry>,
    cursor: Cursor,
    /// Samples of drops given.
    drops: usize,
}

impl Inquiries {
    pub(super) fn new() -> Inquiries {
        Inquiries(Vec::with_capacity(MOST_INQUIRIES))
    }

    pub(super) fn add(&mut self, inquiry: Arc<Inquiry>) {
        // Withdrawn ones may still be here.
        self.0.retain(|open| !open.inquiry.is_withdrawn());
        self.0.push(Open { inquiry, cursor: Cursor::default(), drops: 0 });
    }

    /// Whether there is something to do about them now.
    pub(super) fn can_go_on(&self, worker: u32) -> bool {
        self.0.iter().any(|open| open.inquiry.has_room(worker) || open.inquiry.is_withdrawn())
    }
}

impl Worker {
    /// Goes on with each question; returns with how many there was something to do.
    pub(super) fn answer_inquiries(&mut self) -> usize {
        if self.inquiries.0.is_empty() {
            return 0;
        }
        let (shard, env, index) = (&self.shard, &self.env, self.index);
        let mut done = 0;
        self.inquiries.0.retain_mut(|open| {
            if open.inquiry.is_withdrawn() {
                done += 1;
                return false;
            }
            if !open.inquiry.has_room(index) {
                return true;
            }
            done += 1;
            let goes_on = match open.inquiry.question() {
                Question::Sockets(filter) => list(shard, env, index, open, &filter),
                Question::Drops => drops(shard, env, index, open),
            };
            let ended = !goes_on && open.inquiry.answer(index, Answer::End);
            open.inquiry.ring();
            !ended
        });
        done
    }
}

/// A slice of the list of flows; whether there is more.
fn list(
    shard: &Shard,
    env: &Environment,
    worker: u32,
    open: &mut Open,
    filter: &SocketFilter,
) -> bool {
    let inquiry = &open.inquiry;
    shard.list(env.now, &mut open.cursor, RECORDS_PER_TURN, |listed| {
        let state = socket_state(listed.state);
        let (local, peer) = (listed.tuple.local.port, listed.tuple.remote.port);
        !filter.takes(state, local, peer)
            || inquiry.answer(worker, Answer::Socket(row(env, state, listed)))
    })
}

/// Some of the samples of drops; whether there are more.
fn drops(shard: &Shard, env: &Environment, worker: u32, open: &mut Open) -> bool {
    for _ in 0..DROPS_PER_TURN {
        // Few enough to be counted off from the beginning each time.
        let Some(reason) = Reason::all().nth(open.drops / SAMPLES) else { return false };
        if let Some(sample) = shard.samples(reason).nth(open.drops % SAMPLES) {
            let age = env.now.saturating_sub(sample.at);
            if !open.inquiry.answer(worker, Answer::Drop(reason, *sample, age)) {
                return true;
            }
        }
        open.drops += 1;
    }
    true
}

fn row(env: &Environment, state: SocketState, listed: &Listed) -> Row {
    let app = listed.app.map(AppId::from_raw);
    let group = app.and_then(|app| env.clients.find(app.group).map(|group| (group, app.conn)));
    // What the client has read it tells the stack only now and then.
    let unread = group.map(|(group, conn)| group.unread(conn)).unwrap_or(0);
    Row {
        tuple: listed.tuple,
        state,
        group: group.filter(|_| !listed.orphan).map(|(group, _)| group.id()),
        holder: group.and_then(|(group, conn)| group.holder_of(conn)),
        receive_queue: clamp(unread),
        send_queue: clamp(listed.send_queue),
        timer: listed.timer.map(|timer| remaining(env.now, &timer)),
        waiting: listed.waiting_since.map(|since| milliseconds(env.now.saturating_sub(since))),
        kind: match listed.app {
            None => SocketKind::Record,
            Some(_) if listed.orphan => SocketKind::Orphan,
            Some(_) if listed.unaccepted => SocketKind::Unaccepted,
            Some(_) => SocketKind::Held,
        },
    }
}

fn clamp(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn milliseconds(nanos: u64) -> u32 {
    clamp(nanos / 1_000_000)
}

fn remaining(now: u64, timer: &Timer) -> SocketTimer {
    SocketTimer {
        kind: match timer.kind {
            fourwave_tcp::TimerKind::Retransmit => TimerKind::Retransmit,
            fourwave_tcp::TimerKind::Keepalive => TimerKind::Keepalive,
            fourwave_tcp::TimerKind::TimeWait => TimerKind::TimeWait,
            fourwave_tcp::TimerKind::Persist => TimerKind::Persist,
        },
        milliseconds: milliseconds(timer.at.saturating_sub(now)),
        retries: timer.retries,
    }
}

fn socket_state(state: State) -> SocketState {
    match state {
        State::Closed => SocketState::Closed,
        State::Listen => SocketState::Listen,
        State::SynSent => SocketState::SynSent,
        State::SynReceived => SocketState::SynReceived,
        State::Established => SocketState::Established,
        State::FinWait1 => SocketState::FinWait1,
        State::FinWait2 => SocketState::FinWait2,
        State::CloseWait => SocketState::CloseWait,
        State::Closing => SocketState::Closing,
        State::LastAck => SocketState::LastAck,
        State::TimeWait => SocketState::TimeWait,
    }
}
