//! All records of a shard and the table that finds them.

use fourwave_wire::{Addr, FourTuple};

use crate::NoMemory;
use crate::arena::{Arena, Record};
use crate::config::Config;
use crate::conn::Conn;
use crate::keys::Keys;
use crate::locals::Locals;
use crate::synrcvd::Request;
use crate::table::{Chain, Flow, MAX_RECORDS, Ref, Table};
use crate::timewait::TimeWait;
use crate::wheel::{Timer, Timers};

/// The arenas, apart from the table so that the table can walk them.
pub(crate) struct Records {
    pub(crate) conns: Arena<Conn>,
    pub(crate) requests: Arena<Request>,
    pub(crate) time_waits: Arena<TimeWait>,
    pub(crate) locals: Locals,
}

/// Records, table, and how many records use each local port.
pub(crate) struct Flows {
    pub(crate) records: Records,
    table: Table,
    ports: Box<[u32]>,
}

impl Flows {
    pub(crate) fn new(config: &Config, keys: Keys) -> Result<Flows, NoMemory> {
        let sizes = [config.connections, config.syn_received, config.time_wait];
        if sizes.iter().any(|&size| size > MAX_RECORDS) {
            return Err(NoMemory);
        }
        Ok(Flows {
            records: Records {
                conns: Arena::new(config.connections)?,
                requests: Arena::new(config.syn_received)?,
                time_waits: Arena::new(config.time_wait)?,
                locals: Locals::new(config.local_addresses, keys)?,
            },
            table: Table::new(sizes.iter().sum())?,
            ports: vec![0; 1 << 16].into_boxed_slice(),
        })
    }

    /// The record of a four-tuple.
    #[inline]
    pub(crate) fn find(&self, hash: u64, tuple: &FourTuple) -> Option<Flow> {
        let mut at = self.table.head(hash);
        while let Some(flow) = at.flow() {
            if self.records.matches(flow, tuple) {
                return Some(flow);
            }
            at = self.records.next(flow);
        }
        None
    }

    pub(crate) fn insert(&mut self, hash: u64, flow: Flow, port: u16) {
        self.table.insert(&mut self.records, hash, flow);
        self.ports[usize::from(port)] += 1;
    }

    pub(crate) fn remove(&mut self, hash: u64, flow: Flow, port: u16) {
        self.table.remove(&mut self.records, hash, flow);
        self.ports[usize::from(port)] -= 1;
    }

    /// `new` takes the place of `old`, a record of the same four-tuple.
    pub(crate) fn replace(&mut self, hash: u64, old: Flow, new: Flow) {
        self.table.replace(&mut self.records, hash, old, new);
    }

    /// How many records have this local port.
    pub(crate) fn port_users(&self, port: u16) -> u32 {
        self.ports[usize::from(port)]
    }
}

impl Records {
    #[inline]
    fn matches(&self, flow: Flow, tuple: &FourTuple) -> bool {
        match flow {
            Flow::Conn(index) => self.conns[index].tuple == *tuple,
            Flow::Request(index) => self.requests[index].tuple == *tuple,
            Flow::TimeWait(index) => {
                let record = &self.time_waits[index];
                record.remote_port == tuple.remote.port
                    && record.local_port == tuple.local.port
                    && record.remote == tuple.remote.addr
                    && *self.local_addr(record) == tuple.local.addr
            }
        }
    }

    pub(crate) fn local_addr(&self, record: &TimeWait) -> &Addr {
        self.locals.addr(record.local)
    }
}

impl Chain for Records {
    #[inline]
    fn next(&self, flow: Flow) -> Ref {
        Ref::from_raw(match flow {
            Flow::Conn(index) => self.conns[index].link(),
            Flow::Request(index) => self.requests[index].link(),
            Flow::TimeWait(index) => self.time_waits[index].link(),
        })
    }

    #[inline]
    fn set_next(&mut self, flow: Flow, next: Ref) {
        match flow {
            Flow::Conn(index) => self.conns[index].set_link(next.raw()),
            Flow::Request(index) => self.requests[index].set_link(next.raw()),
            Flow::TimeWait(index) => self.time_waits[index].set_link(next.raw()),
        }
    }
}

impl Timers for Records {
    #[inline]
    fn timer(&mut self, id: u32) -> &mut Timer {
        match Ref::from_raw(id).flow() {
            Some(Flow::Conn(index)) => &mut self.conns[index].timer,
            Some(Flow::Request(index)) => &mut self.requests[index].timer,
            Some(Flow::TimeWait(index)) => &mut self.time_waits[index].timer,
            None => unreachable!("the wheel holds only identifiers of records"),
        }
    }
}
