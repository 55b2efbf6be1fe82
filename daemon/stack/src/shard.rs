//! The shard itself: what it is made of, its clock, its size.

use fourwave_tcp::{Nanos, State};

use crate::NoMemory;
use crate::arena::NIL;
use crate::challenge::Challenges;
use crate::config::{Config, SynCookies};
use crate::conn::Output;
use crate::counters::Counters;
use crate::drops::Samples;
use crate::flows::Flows;
use crate::host::Host;
use crate::keys::Keys;
use crate::list::List;
use crate::listen::Listeners;
use crate::pathmtu::PathMtus;
use crate::ports::Ports;
use crate::proven::Proven;
use crate::table::{Flow, Ref};
use crate::wheel::{TICK_NANOS, Wheel};

/// Timers handled in one [`Shard::advance`], so that a burst of expiries does not keep frames
/// waiting.
const TIMERS_PER_ADVANCE: u32 = 1_024;

/// Everything one worker knows about its flows. See the crate's documentation.
pub struct Shard {
    pub(crate) config: Config,
    pub(crate) keys: Keys,
    pub(crate) flows: Flows,
    pub(crate) wheel: Wheel,
    /// Connections that may have something to send, or to be freed.
    pub(crate) dirty: List<Output>,
    /// Active opens whose next hop has no link address yet.
    pub(crate) stranded: List<Output>,
    pub(crate) listeners: Listeners,
    pub(crate) ports: Ports,
    pub(crate) proven: Proven,
    pub(crate) challenges: Challenges,
    pub(crate) path_mtus: PathMtus,
    /// Connections that nobody holds any more.
    pub(crate) orphans: u32,
    /// Connections by the state that they had when they were last settled.
    pub(crate) states: [u32; State::ALL.len()],
    /// FIN_WAIT_2 records without a connection.
    pub(crate) fin_wait_2: u32,
    pub(crate) counters: Counters,
    pub(crate) samples: Samples,
    /// New SYNs are refused.
    pub(crate) draining: bool,
    /// [`Host::path_epoch`] when stranded connections were last tried.
    pub(crate) epoch: u32,
    /// Time of tick 0.
    base: Nanos,
}

/// How many records of each kind there are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Connections with a full control block.
    pub connections: u32,
    /// Of those, the ones that nobody holds any more.
    pub orphans: u32,
    /// SYN_RCVD records.
    pub syn_received: u32,
    /// TIME_WAIT records, FIN_WAIT_2 orphans included.
    pub time_wait: u32,
    /// Armed timers.
    pub timers: u32,
    /// Flows by state, of all kinds of records. Exact after [`Shard::flush`].
    pub states: [u32; State::ALL.len()],
}

impl Shard {
    /// Reserves all memory that the shard will ever use.
    ///
    /// # Errors
    /// [`NoMemory`] when it is not to be had, or a limit is above 2^29.
    ///
    /// # Panics
    /// When `config.worker` is not below `config.workers`.
    pub fn new(config: Config, keys: Keys, now: Nanos) -> Result<Shard, NoMemory> {
        assert!(config.worker < config.workers);
        let flows = config.connections.saturating_add(config.time_wait);
        Ok(Shard {
            flows: Flows::new(&config, keys)?,
            wheel: Wheel::new(),
            dirty: List::new(),
            stranded: List::new(),
            listeners: Listeners::new(config.listeners)?,
            ports: Ports::new(&config.local_ports, flows, keys)?,
            proven: Proven::new(config.syncookies == SynCookies::Off),
            orphans: 0,
            states: [0; State::ALL.len()],
            fin_wait_2: 0,
            challenges: Challenges::default(),
            path_mtus: PathMtus::new()?,
            counters: Counters::default(),
            samples: Samples::new(),
            draining: false,
            epoch: 0,
            base: now,
            keys,
            config,
        })
    }

    /// Takes the memory of the flow table now. Flows are spread over all of it: without this the
    /// first few hundred of them find a page that is not there each, a millisecond or more where
    /// the page is a huge one. Records follow in order and touch a page now and then only.
    pub fn touch(&mut self) {
        self.flows.touch();
    }

    /// Handles timers that are due, a bounded number of them at a time: call it again while
    /// [`Shard::next_deadline`] has passed. What they make due is sent by [`Shard::flush`].
    pub fn advance(&mut self, now: Nanos, host: &mut impl Host) {
        let tick = now.saturating_sub(self.base) / TICK_NANOS;
        for _ in 0..TIMERS_PER_ADVANCE {
            let Some(id) = self.wheel.expire(&mut self.flows.records, tick) else { return };
            match Ref::from_raw(id).flow() {
                Some(Flow::Conn(index)) => self.handle_conn_timer(now, index, host),
                Some(Flow::Request(index)) => self.handle_request_timer(now, index, host),
                Some(Flow::TimeWait(index)) => self.end_time_wait(index),
                None => unreachable!("the wheel holds only identifiers of records"),
            }
        }
    }

    /// When [`Shard::advance`] has something to do next: never late, at times early.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.wheel.next().map(|tick| self.base + tick * TICK_NANOS)
    }

    /// Whether [`Shard::flush`] has something to look at.
    pub fn has_output(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Record counts.
    pub fn gauges(&self) -> Gauges {
        let records = &self.flows.records;
        let mut states = self.states;
        states[State::SynReceived as usize] += records.requests.len();
        states[State::FinWait2 as usize] += self.fin_wait_2;
        states[State::TimeWait as usize] += records.time_waits.len() - self.fin_wait_2;
        Gauges {
            states,
            connections: records.conns.len(),
            orphans: self.orphans,
            syn_received: records.requests.len(),
            time_wait: records.time_waits.len(),
            // No more than there are records.
            timers: self.wheel.armed() as u32,
        }
    }

    /// Whether no record of any kind is left.
    pub fn is_empty(&self) -> bool {
        let empty = self.gauges() == Gauges::default();
        assert!(!empty || self.flows.records.locals.is_empty(), "an address outlived its users");
        assert!(!empty || self.ports.is_empty(), "a port outlived its user");
        empty
    }

    /// Whether a listener or a record, TIME_WAIT included, has this local port.
    pub fn uses_port(&self, port: u16) -> bool {
        self.flows.port_users(port) > 0 || self.listeners.uses_port(port)
    }

    /// What has been counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The settings that it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The first tick that is not before `time`.
    pub(crate) fn tick_at(&self, time: Nanos) -> u64 {
        time.saturating_sub(self.base).div_ceil(TICK_NANOS)
    }

    /// The tick that `now` lies in.
    pub(crate) fn tick_of(&self, now: Nanos) -> u64 {
        now.saturating_sub(self.base) / TICK_NANOS
    }
}

const _: () = assert!(
    crate::table::MAX_RECORDS <= crate::wheel::ID_LIMIT / 4 && NIL > crate::wheel::ID_LIMIT
);
