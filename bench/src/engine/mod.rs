//! The protocol engine alone: one shard, one thread, frames in memory, no kernel.
//!
//! Measured are the whole life of a short connection (see [`life`]) among few and among very many
//! others, beside smoltcp's; what a TIME_WAIT record takes and costs; and the timer wheel. What is
//! compared is measured in turns, round by round.

mod client;
mod life;
mod ours;
mod report;
mod rival;
mod timers;

use std::collections::BTreeMap;
use std::io;

use fourwave_stack::NoMemory;
use fourwave_tcp::Nanos;
use life::{Absent, Lives};
use ours::Fourwave;
use rival::Smoltcp;
use timers::Random;

pub use report::{EngineReport, Settings, Spread, TimeWaitNanos, render};
pub use timers::TimerNanos;

use crate::machine;

/// Frames that a worker takes in one turn, and so the connections that move on together.
const BATCH: usize = 64;
/// Idle connections beside smoltcp's serving one.
const SMOLTCP_IDLE: usize = 1_000;
/// Runs of lives in each round that a loaded shard has: one and a batch in flight, last rounds.
const TURNS: u32 = 3;
/// TIME_WAIT, and a little.
const TIME_WAIT: Nanos = 61_000_000_000;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Rounds; each measures every contender once.
    pub rounds: usize,
    /// Lives of one contender in one round.
    pub lives: u32,
    /// The same for smoltcp with idle connections, which is slow.
    pub idle_lives: u32,
    /// Established connections of the half-loaded and of the loaded shard.
    pub connections: [u32; 2],
    /// TIME_WAIT records of both.
    pub time_wait: u32,
    /// Timers.
    pub timers: u32,
}

impl EngineConfig {
    /// What figures are made with: some 3 GB of memory, about a minute.
    pub fn full() -> EngineConfig {
        EngineConfig {
            rounds: 9,
            lives: 40_000,
            idle_lives: 3_000,
            connections: [100_000, 1_000_000],
            time_wait: 10_000_000,
            timers: 10_000_000,
        }
    }

    /// A hundredth of that.
    pub fn quick() -> EngineConfig {
        EngineConfig {
            rounds: 3,
            lives: 2_000,
            idle_lives: 200,
            connections: [1_000, 10_000],
            time_wait: 100_000,
            timers: 100_000,
        }
    }
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Not enough memory.
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
    /// What the machine says about itself cannot be read.
    #[error("cannot read what the machine says about itself: {0}")]
    Machine(#[from] io::Error),
}

/// Measures everything. `step` is told what comes next.
///
/// # Errors
/// [`EngineError`].
///
/// # Panics
/// When an engine does not do what a server should: its figures would mean nothing.
pub fn run(config: &EngineConfig, mut step: impl FnMut(&str)) -> Result<EngineReport, EngineError> {
    let settings = Settings::read(config)?;
    step("timers");
    let timers = timers::measure(config.timers);
    step("filling shards");
    let [half, full] = config.connections;
    let mut empty = Served::new(config, 0, 0)?;
    let mut half = Served::new(config, half, config.time_wait)?;
    let mut loaded = Served::new(config, full, config.time_wait)?;
    let mut contenders = Contenders::new();
    let mut samples: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let mut inserts = Vec::new();
    step("lives of short connections");
    for _ in 0..config.rounds {
        for (name, nanos) in contenders.round(config, [&mut empty, &mut half, &mut loaded]) {
            samples.entry(name).or_default().push(nanos);
        }
        inserts.push(loaded.last_round(config));
    }
    step("a flood of SYNs");
    let syn_cookie = Served::new(config, 0, 0)?.flood(config);
    step("TIME_WAIT");
    let takeover = loaded.takeover(config);
    let expire = loaded.expire();
    let time_wait = TimeWaitNanos::new(&inserts, expire, takeover);
    let bytes = loaded.time_wait_bytes;
    Ok(EngineReport::new(settings, &samples, bytes, time_wait, timers, syn_cookie))
}

/// One shard with its clients.
struct Served {
    engine: Fourwave,
    lives: Lives,
    /// Nothing but the lives of a turn is in it.
    is_empty: bool,
    /// Bytes that one of its first TIME_WAIT records took; 0 if it had none.
    time_wait_bytes: f64,
}

impl Served {
    /// With so many connections that stay, and TIME_WAIT records.
    fn new(config: &EngineConfig, connections: u32, time_wait: u32) -> Result<Served, EngineError> {
        // Each turn adds to the records that are there; a shard without any forgets after each.
        let turns = if time_wait == 0 { 1 } else { TURNS * config.rounds as u32 };
        let lives_to_come = (config.lives + 1_024) * turns;
        let mut engine = Fourwave::new(connections, time_wait + lives_to_come, BATCH)?;
        let mut lives = Lives::new(0..u32::MAX);
        lives.set_in_flight(BATCH);
        // Before the first life: a few lives touch every huge page of the flow table.
        let before = machine::resident_bytes()?;
        lives.check(&mut engine);
        lives.run(&mut engine, time_wait);
        let grown = machine::resident_bytes()?.saturating_sub(before);
        let time_wait_bytes = grown as f64 / f64::from(time_wait.max(1));
        lives.open(&mut engine, connections);
        Ok(Served { engine, lives, is_empty: time_wait == 0, time_wait_bytes })
    }

    fn lifecycle(&mut self, in_flight: usize, count: u32) -> f64 {
        self.lives.set_in_flight(in_flight);
        let nanos = self.lives.run(&mut self.engine, count);
        if self.is_empty {
            self.forget();
        }
        nanos
    }

    fn last_round(&mut self, config: &EngineConfig) -> f64 {
        self.lives.set_in_flight(BATCH);
        self.lives.run_to_last_round(&mut self.engine, config.lives)
    }

    /// Nanoseconds of a SYN that is answered by a cookie.
    fn flood(&mut self, config: &EngineConfig) -> f64 {
        self.lives.set_in_flight(BATCH);
        let nanos = self.lives.flood(&mut self.engine, config.lives);
        let (cookies, records) = {
            let shard = &self.engine.shard;
            (shard.counters().syn_cookies_sent, shard.gauges().syn_received)
        };
        // As many handshakes as the backlog, and one more, have a record.
        assert_eq!(u64::from(records), BATCH as u64 + 1);
        assert!(cookies + u64::from(records) >= config.lives.into(), "{cookies} cookies");
        nanos
    }

    /// Ends every TIME_WAIT.
    fn forget(&mut self) {
        self.lives.now += TIME_WAIT;
        self.engine.advance(self.lives.now);
    }

    /// Nanoseconds of a SYN that takes a TIME_WAIT record's place, any one's.
    fn takeover(&mut self, config: &EngineConfig) -> f64 {
        self.lives.set_in_flight(BATCH);
        let mut random = Random(5);
        let mut numbers: Vec<u32> =
            (0..config.lives).map(|_| random.below(config.time_wait)).collect();
        // Each only once, in an order that says nothing about where its record is.
        numbers.sort_unstable();
        numbers.dedup();
        random.shuffle(&mut numbers);
        let before = self.engine.shard.counters().time_wait_takeovers;
        let nanos = self.lives.reopen(&mut self.engine, &numbers);
        let taken = self.engine.shard.counters().time_wait_takeovers - before;
        assert_eq!(taken, (numbers.len() / BATCH * BATCH) as u64, "a record was not taken over");
        nanos
    }

    /// Nanoseconds of the end of a TIME_WAIT record, over all that there are.
    fn expire(&mut self) -> f64 {
        let count = self.engine.shard.gauges().time_wait;
        let start = machine::cpu_nanos();
        self.forget();
        let nanos = (machine::cpu_nanos() - start) as f64 / f64::from(count);
        assert_eq!(self.engine.shard.gauges().time_wait, 0, "a record outlived its time");
        nanos
    }
}

/// What takes turns, but for the shards.
struct Contenders {
    smoltcp: (Smoltcp, Lives),
    crowded: (Smoltcp, Lives),
    absent: Lives,
}

impl Contenders {
    fn new() -> Contenders {
        let smoltcp = |idle| {
            let mut engine = Smoltcp::new(idle);
            let mut lives = Lives::new(rival::CLIENTS);
            lives.check(&mut engine);
            (engine, lives)
        };
        Contenders {
            smoltcp: smoltcp(0),
            crowded: smoltcp(SMOLTCP_IDLE),
            absent: Lives::new(0..u32::MAX),
        }
    }

    /// Nanoseconds of a life at each contender, the clients' part taken off.
    fn round(
        &mut self,
        config: &EngineConfig,
        [empty, half, loaded]: [&mut Served; 3],
    ) -> [(&'static str, f64); 10] {
        let lives = config.lives;
        let clients = self.clients(1, lives);
        let batched_clients = self.clients(BATCH, lives);
        let (engine, smoltcp) = &mut self.smoltcp;
        let smoltcp = smoltcp.run(engine, lives);
        let (engine, crowded) = &mut self.crowded;
        let crowded = crowded.run(engine, config.idle_lives);
        [
            ("client_ns", clients),
            ("client_ns_batched", batched_clients),
            ("lifecycle_ns", empty.lifecycle(1, lives) - clients),
            ("smoltcp_lifecycle_ns", smoltcp - clients),
            ("smoltcp_lifecycle_ns_idle_1000", crowded - clients),
            ("lifecycle_ns_100k", half.lifecycle(1, lives) - clients),
            ("lifecycle_ns_loaded", loaded.lifecycle(1, lives) - clients),
            ("lifecycle_ns_batched", empty.lifecycle(BATCH, lives) - batched_clients),
            ("lifecycle_ns_batched_100k", half.lifecycle(BATCH, lives) - batched_clients),
            ("lifecycle_ns_batched_loaded", loaded.lifecycle(BATCH, lives) - batched_clients),
        ]
    }

    fn clients(&mut self, in_flight: usize, count: u32) -> f64 {
        self.absent.set_in_flight(in_flight);
        self.absent.run(&mut Absent::new(in_flight), count)
    }
}
