//! Tools' questions: passed on to the workers, answers sent on as they come.

use super::Control;
use super::client::send;
use super::packets::{self, Packets, Peer};
use super::refusal::Refusal;
use crate::inquiry::{Answer, Inquiry, Question, Row};
use crate::messages::ToWorker;
use crate::worker::MOST_INQUIRIES;
use fourwave_protocol::VERSION;
use fourwave_protocol::control::Reply;
use fourwave_protocol::query::{
    DropSample, Owner, Query, ROWS_PER_REPLY, SegmentHead, Socket, SocketFilter,
};
use fourwave_stack::{Reason, Sample};
use fourwave_wire::Endpoint;
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;

/// A tool that takes nothing for this long is disconnected: it keeps others from asking.
const PATIENCE: Duration = Duration::from_secs(10);

/// Questions under way of users other than root, so that root can always ask.
const MOST_OF_USERS: usize = MOST_INQUIRIES / 2;

/// Answers a tool's question.
///
/// # Errors
/// Those of the socket, and `TimedOut` for a tool that does not read. It is then disconnected.
pub(super) async fn answer(
    control: &Rc<Control>,
    packets: &Packets,
    peer: Peer,
    version: u32,
    query: Query,
) -> io::Result<()> {
    let asked = match control.ask(peer, version, query) {
        Ok(asked) => asked,
        Err(refusal) => return send(packets, refusal.into()).await,
    };
    let reader = Reader { control, packets, peer };
    match query {
        Query::Sockets(filter) => reader.sockets(&asked, &filter).await,
        Query::Drops => reader.drops(&asked).await,
    }
}

/// A question under way; given up by being dropped.
struct Asked {
    control: Rc<Control>,
    inquiry: Arc<Inquiry>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.inquiry.withdraw();
        self.control.inquiries.set(self.control.inquiries.get() - 1);
        self.control.wake_workers();
    }
}

impl Control {
    fn ask(self: &Rc<Control>, peer: Peer, version: u32, query: Query) -> Result<Asked, Refusal> {
        if version != VERSION {
            let detail = format!(
                "the tool speaks version {version} and fourwaved version {VERSION}: both must \
                 be of one release"
            );
            return Err(Refusal::new(Errno::PROTONOSUPPORT, detail));
        }
        let most = if peer.uid == 0 { MOST_INQUIRIES } else { MOST_OF_USERS };
        if self.inquiries.get() >= most {
            let detail = format!("fourwaved answers {most} questions already: try again");
            return Err(Refusal::new(Errno::BUSY, detail));
        }
        let question = match query {
            Query::Sockets(filter) => Question::Sockets(filter),
            Query::Drops => Question::Drops,
        };
        let inquiry = Inquiry::new(question, self.links.len())
            .map_err(|error| Refusal::new(Errno::NFILE, error.to_string()))?;
        self.inquiries.set(self.inquiries.get() + 1);
        let asked = Asked { control: Rc::clone(self), inquiry };
        let inquiry = &asked.inquiry;
        let mut registry = self.registry.borrow_mut();
        registry.outboxes.broadcast(|_| ToWorker::Inquire(Arc::clone(inquiry)));
        drop(registry);
        Ok(asked)
    }

    pub(super) fn wake_workers(&self) {
        for link in self.links.iter() {
            link.wake();
        }
    }
}

/// The way to the tool.
struct Reader<'a> {
    control: &'a Rc<Control>,
    packets: &'a Packets,
    peer: Peer,
}

impl Reader<'_> {
    /// Listeners, which control knows, then the workers' flows.
    async fn sockets(&self, asked: &Asked, filter: &SocketFilter) -> io::Result<()> {
        let listeners: Vec<Socket> = {
            let registry = self.control.registry.borrow();
            let may_know = |owner: &Owner| self.may_know(owner.uid);
            let listeners = registry.listeners(&may_know);
            let takes = |socket: &Socket| filter.takes(socket.state, socket.local.port(), 0);
            listeners.filter(takes).collect()
        };
        let row = |worker, answer| match answer {
            Answer::Socket(row) => {
                let registry = self.control.registry.borrow();
                let owner = row.group.and_then(|group| registry.owner(group, row.holder));
                let owner = owner.filter(|owner| self.may_know(owner.uid));
                Some(socket(worker, &row, owner))
            }
            Answer::Drop(..) | Answer::End => None,
        };
        self.stream(asked, listeners, row, |rows, more| Reply::Sockets { rows, more }).await
    }

    async fn drops(&self, asked: &Asked) -> io::Result<()> {
        let row = |worker, answer| match answer {
            Answer::Drop(reason, sample, age) => Some(drop_row(worker, reason, &sample, age)),
            Answer::Socket(_) | Answer::End => None,
        };
        self.stream(asked, Vec::new(), row, |rows, more| Reply::Drops { rows, more }).await
    }

    /// Sends `rows`, and what the workers answer as it comes.
    async fn stream<T>(
        &self,
        asked: &Asked,
        mut rows: Vec<T>,
        row: impl Fn(usize, Answer) -> Option<T>,
        reply: impl Fn(Vec<T>, bool) -> Reply,
    ) -> io::Result<()> {
        let bell = packets::register(asked.inquiry.as_fd().try_clone_to_owned()?)?;
        let mut left: Vec<usize> = (0..self.control.links.len()).collect();
        loop {
            while rows.len() >= ROWS_PER_REPLY {
                let rest = rows.split_off(ROWS_PER_REPLY);
                self.send(reply(std::mem::replace(&mut rows, rest), true)).await?;
            }
            if left.is_empty() {
                return self.send(reply(rows, false)).await;
            }
            if take(asked, &mut left, &mut rows, &row) {
                self.control.wake_workers();
                continue;
            }
            let mut ready = bell.ready(Interest::READABLE).await?;
            // Cleared first: what comes after is announced again.
            let _ = rustix::io::read(&asked.inquiry, &mut [0u8; 8]);
            ready.clear_ready();
        }
    }

    async fn send(&self, reply: Reply) -> io::Result<()> {
        tokio::time::timeout(PATIENCE, send(self.packets, reply.into())).await?
    }

    /// As in Linux: who holds a socket is told to root, and to who it is.
    fn may_know(&self, uid: u32) -> bool {
        self.peer.uid == 0 || self.peer.uid == uid
    }
}

/// Takes what answers there are, up to a reply's worth; whether there were any.
fn take<T>(
    asked: &Asked,
    left: &mut Vec<usize>,
    rows: &mut Vec<T>,
    row: impl Fn(usize, Answer) -> Option<T>,
) -> bool {
    let mut taken = false;
    left.retain(|&worker| {
        while rows.len() < ROWS_PER_REPLY {
            let Some(answer) = asked.inquiry.take(worker) else { return true };
            taken = true;
            if answer == Answer::End {
                return false;
            }
            rows.extend(row(worker, answer));
        }
        true
    });
    taken
}

fn drop_row(worker: usize, reason: Reason, sample: &Sample, age: u64) -> DropSample {
    let end = |end: Endpoint| (!end.addr.is_unspecified()).then(|| SocketAddr::from(end));
    let head =
        SegmentHead { seq: sample.seq, ack: sample.ack, len: sample.len, flags: sample.flags.0 };
    DropSample {
        reason: reason.name().to_owned(),
        at: since_1970().saturating_sub(age),
        worker: worker as u32,
        local: end(sample.tuple.local),
        peer: end(sample.tuple.remote),
        // Every segment has a flag, or it would not have been looked at; one without is none.
        segment: (head.flags != 0).then_some(head),
    }
}

/// Nanoseconds, UTC.
fn since_1970() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // 584 years fit; a clock before 1970 counts as 1970.
    now.map_or(0, |now| now.as_nanos() as u64)
}

fn socket(worker: usize, row: &Row, owner: Option<Owner>) -> Socket {
    Socket {
        state: row.state,
        receive_queue: row.receive_queue,
        send_queue: row.send_queue,
        local: SocketAddr::from(row.tuple.local),
        peer: Some(SocketAddr::from(row.tuple.remote)),
        owner,
        timer: row.timer,
        waiting_ms: row.waiting,
        worker: Some(worker as u32),
        kind: row.kind,
    }
}
