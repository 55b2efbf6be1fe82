//! Whole lives of short connections, and what they cost the server.
//!
//! ```text
//!  round 1   SYN ▶            ◀ SYN-ACK
//!  round 2   ACK, request ▶   ◀ reply with FIN      (the server reads, writes, closes)
//!  round 3   ACK, FIN ▶       ◀ ACK                 (the server's side is in TIME_WAIT)
//! ```
//! What the clients do is in the time of a run. So the same clients are run against a server that
//! does nothing, [`Absent`], next to it, and that time is subtracted.
//!
//! A run is measured in slices, in CPU time, and the median slice counts: what else the machine does
//! meanwhile disturbs only some of them.

use std::ops::Range;
use std::time::Instant;

use fourwave_tcp::Nanos;
use fourwave_wire::Flags;

use super::client::{Client, Inbox, PAYLOAD, Templates};
use crate::compare::median;
use crate::machine::cpu_nanos;

const SYN_ACK: Flags = Flags::ACK.union(Flags::SYN);
const REPLY: Flags = Flags::ACK.union(Flags::FIN);

/// Virtual time that each life takes: 200,000 connections a second.
const LIFE_NANOS: Nanos = 5_000;

/// Lives in one slice of a run.
const SLICE: u32 = 512;

/// A server in memory.
pub(super) trait Engine {
    /// Takes frames, lets its applications do what they have to, and sends what is due.
    fn round(&mut self, now: Nanos, inbox: &Inbox);

    /// The frames that the last round sent.
    fn sent(&self) -> impl Iterator<Item = &[u8]>;

    /// What the end of TIME_WAIT needs before the next lives; returns the nanoseconds that it took,
    /// which are no part of a life.
    fn recycle(&mut self, _now: Nanos) -> u64 {
        0
    }
}

/// Clients that live one life after the other, `in_flight` at a time.
pub(super) struct Lives {
    templates: Templates,
    clients: Vec<Client>,
    inbox: Inbox,
    /// Virtual time.
    pub(super) now: Nanos,
    /// The clients; after the last one the first comes again.
    numbers: Range<u32>,
    so_far: u32,
    verify: bool,
}

impl Lives {
    pub(super) fn new(numbers: Range<u32>) -> Lives {
        Lives {
            templates: Templates::new(),
            clients: vec![Client::default()],
            inbox: Inbox::new(2),
            now: 1_000_000_000,
            numbers,
            so_far: 0,
            verify: false,
        }
    }

    /// From now on so many live at a time.
    pub(super) fn set_in_flight(&mut self, in_flight: usize) {
        self.clients.resize(in_flight, Client::default());
        self.inbox = Inbox::new(2 * in_flight);
    }

    /// Runs one batch and looks at all that the server sends.
    pub(super) fn check(&mut self, engine: &mut impl Engine) {
        self.verify = true;
        self.batch(engine);
        self.verify = false;
    }

    /// Runs `count` lives, rounded up to whole slices; returns the nanoseconds of one, the client's
    /// part included.
    pub(super) fn run(&mut self, engine: &mut impl Engine, count: u32) -> f64 {
        let batches = SLICE.div_ceil(self.clients.len() as u32);
        let slices = count.div_ceil(batches * self.clients.len() as u32);
        let slice = |_| {
            let start = cpu_nanos();
            let excluded: Vec<f64> = (0..batches).map(|_| self.batch(engine) as f64).collect();
            let nanos = (cpu_nanos() - start) as f64;
            // Times by the clock: one in which another program ran says nothing.
            let excluded = median(&excluded).unwrap_or(0.0) * f64::from(batches);
            (nanos - excluded).max(0.0) / (f64::from(batches) * self.clients.len() as f64)
        };
        median(&(0..slices).map(slice).collect::<Vec<_>>()).unwrap_or(0.0)
    }

    /// Runs `count` lives; returns the nanoseconds of one's last round: ACK and FIN are taken, the
    /// ACK is sent, and a TIME_WAIT record takes the connection's place.
    pub(super) fn run_to_last_round(&mut self, engine: &mut impl Engine, count: u32) -> f64 {
        let batches = self.batches(count);
        let batch = |_| {
            self.open_batch(engine);
            self.serve_batch(engine);
            self.say_goodbye();
            let start = Instant::now();
            engine.round(self.now, &self.inbox);
            let nanos = start.elapsed().as_nanos() as f64;
            self.take(engine, Flags::ACK, 0);
            nanos / self.clients.len() as f64
        };
        median(&(0..batches).map(batch).collect::<Vec<_>>()).unwrap_or(0.0)
    }

    /// Sends `count` SYNs, rounded up to whole batches, of clients that say no more; returns the
    /// nanoseconds that one of them and its answer take.
    pub(super) fn flood(&mut self, engine: &mut impl Engine, count: u32) -> f64 {
        let batches = self.batches(count);
        let batch = |_| {
            self.send_syns();
            let start = Instant::now();
            engine.round(self.now, &self.inbox);
            let nanos = start.elapsed().as_nanos() as f64;
            self.take(engine, SYN_ACK, 0);
            nanos / self.clients.len() as f64
        };
        median(&(0..batches).map(batch).collect::<Vec<_>>()).unwrap_or(0.0)
    }

    /// Opens `count` connections that stay.
    pub(super) fn open(&mut self, engine: &mut impl Engine, count: u32) {
        for _ in 0..self.batches(count) {
            self.open_batch(engine);
            self.inbox.clear();
            let millis = self.millis();
            for client in &mut self.clients {
                self.templates.ack(client, millis, &mut self.inbox);
            }
            engine.round(self.now, &self.inbox);
            assert_eq!(engine.sent().count(), 0, "an ACK needs no answer");
        }
    }

    /// Lets clients that have gone send another SYN, and then think better of it; returns the
    /// nanoseconds of one's SYN.
    pub(super) fn reopen(&mut self, engine: &mut impl Engine, numbers: &[u32]) -> f64 {
        let mut samples = Vec::new();
        for batch in numbers.chunks_exact(self.clients.len()) {
            let millis = self.millis();
            self.inbox.clear();
            for (client, number) in self.clients.iter_mut().zip(batch) {
                *client = Client::new(*number).later();
                self.templates.syn(client, millis, &mut self.inbox);
            }
            let start = Instant::now();
            engine.round(self.now, &self.inbox);
            samples.push(start.elapsed().as_nanos() as f64 / batch.len() as f64);
            self.take(engine, SYN_ACK, 0);
            self.inbox.clear();
            for client in &mut self.clients {
                self.templates.reset(client, millis, &mut self.inbox);
            }
            engine.round(self.now, &self.inbox);
        }
        median(&samples).unwrap_or(0.0)
    }

    fn batches(&self, count: u32) -> u32 {
        count.div_ceil(self.clients.len() as u32)
    }

    fn batch(&mut self, engine: &mut impl Engine) -> u64 {
        self.open_batch(engine);
        self.serve_batch(engine);
        self.say_goodbye();
        engine.round(self.now, &self.inbox);
        self.take(engine, Flags::ACK, 0);
        engine.recycle(self.now)
    }

    fn open_batch(&mut self, engine: &mut impl Engine) {
        self.send_syns();
        engine.round(self.now, &self.inbox);
        self.take(engine, SYN_ACK, 0);
    }

    fn send_syns(&mut self) {
        self.now += LIFE_NANOS * self.clients.len() as Nanos;
        let millis = self.millis();
        self.inbox.clear();
        for client in &mut self.clients {
            let number = self.so_far % (self.numbers.end - self.numbers.start);
            *client = Client::new(self.numbers.start + number);
            self.so_far += 1;
            self.templates.syn(client, millis, &mut self.inbox);
        }
    }

    fn serve_batch(&mut self, engine: &mut impl Engine) {
        let millis = self.millis();
        self.inbox.clear();
        for client in &mut self.clients {
            self.templates.ack(client, millis, &mut self.inbox);
            self.templates.request(client, millis, &mut self.inbox);
        }
        engine.round(self.now, &self.inbox);
        self.take(engine, REPLY, PAYLOAD as u32);
    }

    fn say_goodbye(&mut self) {
        let millis = self.millis();
        self.inbox.clear();
        for client in &mut self.clients {
            self.templates.ack(client, millis, &mut self.inbox);
            self.templates.fin(client, millis, &mut self.inbox);
        }
    }

    /// Each client has got one frame, in the clients' order.
    fn take(&mut self, engine: &impl Engine, flags: Flags, payload: u32) {
        let mut answered = 0;
        for (client, frame) in self.clients.iter_mut().zip(engine.sent()) {
            client.take(frame, flags, payload);
            assert!(!self.verify || client.knows(frame), "a frame that is not right: {frame:02x?}");
            answered += 1;
        }
        assert_eq!(answered, self.clients.len(), "a client got no answer");
    }

    fn millis(&self) -> u32 {
        (self.now / 1_000_000) as u32
    }
}

/// No server: every client finds the same answer.
pub(super) struct Absent {
    replies: [Vec<u8>; 3],
    round: usize,
    in_flight: usize,
}

impl Absent {
    pub(super) fn new(in_flight: usize) -> Absent {
        let reply = |flags: Flags| {
            let mut frame = vec![0; 130];
            frame[super::client::FLAGS] = flags.0;
            frame
        };
        Absent { replies: [SYN_ACK, REPLY, Flags::ACK].map(reply), round: 2, in_flight }
    }
}

impl Engine for Absent {
    fn round(&mut self, _: Nanos, inbox: &Inbox) {
        std::hint::black_box(inbox);
        self.round = (self.round + 1) % 3;
    }

    fn sent(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::repeat_n(&self.replies[self.round][..], self.in_flight)
    }
}
