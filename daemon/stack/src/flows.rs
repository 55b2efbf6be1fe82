//! All records of a shard and the table that finds them.

use fourwave_wire::{Addr, Endpoint, FourTuple};

use crate::NoMemory;
use crate::arena::Arena;
use crate::config::Config;
use crate::conn::Conn;
use crate::keys::Keys;
use crate::locals::Locals;
use crate::synrcvd::Request;
use crate::table::{Flow, MAX_RECORDS, Ref, Table};
use crate::timewait::TimeWait;
use crate::wheel::{Timer, Timers};

/// The arenas.
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

    /// See [`Table::touch`].
    pub(crate) fn touch(&mut self) {
        self.table.touch();
    }

    /// The record of a four-tuple.
    #[inline]
    pub(crate) fn find(&self, hash: u64, tuple: &FourTuple) -> Option<Flow> {
        self.table.find(hash, |flow| self.records.matches(flow, tuple))
    }

    pub(crate) fn insert(&mut self, hash: u64, flow: Flow, port: u16) {
        self.table.insert(hash, flow);
        self.ports[usize::from(port)] += 1;
    }

    pub(crate) fn remove(&mut self, hash: u64, flow: Flow, port: u16) {
        self.table.remove(hash, flow);
        self.ports[usize::from(port)] -= 1;
    }

    /// `new` takes the place of `old`, a record of the same four-tuple.
    pub(crate) fn replace(&mut self, hash: u64, old: Flow, new: Flow) {
        self.table.replace(hash, old, new);
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

    pub(crate) fn time_wait_tuple(&self, index: u32) -> FourTuple {
        let record = &self.time_waits[index];
        FourTuple {
            local: Endpoint { addr: *self.local_addr(record), port: record.local_port },
            remote: Endpoint { addr: record.remote, port: record.remote_port },
        }
    }

    pub(crate) fn local_addr(&self, record: &TimeWait) -> &Addr {
        self.locals.addr(record.local)
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
