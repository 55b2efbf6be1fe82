//! A worker's own plain counters, and how control gets to read them.

use crate::port::Evict;
use core::sync::atomic::{AtomicU64, Ordering};
use fourwave_stack::Shard;
use fourwave_tcp::State;

/// Counted by the worker outside of the stack.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counters {
    pub(super) frames_received: u64,
    pub(super) frames_handed_over: u64,
    pub(super) frames_taken_over: u64,
    pub(super) unowned: u64,
    /// Whether flows are owned as the NIC's RSS deals them out.
    pub(super) by_rss: bool,
    pub(super) commands: u64,
    pub(super) stale_handles: u64,
    pub(super) refused_draining: u64,
    pub(super) refused_quota: u64,
    pub(super) tx_device_drops: u64,
    pub(super) turns: u64,
    pub(super) sleeps: u64,
    evicted: [u64; Evict::ALL.len()],
}

impl Counters {
    pub(super) fn new(by_rss: bool) -> Counters {
        Counters { by_rss, ..Counters::default() }
    }

    pub(super) fn count_eviction(&mut self, why: Evict) {
        self.evicted[why as usize] += 1;
    }

    fn for_each(&self, mut each: impl FnMut(&'static str, Option<&'static str>, u64)) {
        each("frames_received", None, self.frames_received);
        each("frames_handed_over", None, self.frames_handed_over);
        each("frames_taken_over", None, self.frames_taken_over);
        each("frames_without_owner", None, self.unowned);
        each("workers_by_rss", None, self.by_rss.into());
        each("commands", None, self.commands);
        each("stale_handles", None, self.stale_handles);
        each("connects_refused_draining", None, self.refused_draining);
        each("connects_refused_quota", None, self.refused_quota);
        each("tx_device_drops", None, self.tx_device_drops);
        each("turns", None, self.turns);
        each("sleeps", None, self.sleeps);
        for why in Evict::ALL {
            each("clients_evicted", Some(why.name()), self.evicted[why as usize]);
        }
    }
}

/// A counter's name and, if it is one of a family, its reason.
pub type Name = (&'static str, Option<&'static str>);

/// What a worker has published: names fixed at start, values stored one by one. A reader may see
/// values of two moments; each by itself is true.
#[derive(Debug)]
pub struct Published {
    names: Vec<Name>,
    values: Vec<AtomicU64>,
}

impl Published {
    pub(super) fn new(shard: &Shard) -> Published {
        let mut names = Vec::new();
        visit(shard, &Counters::default(), |name, _| names.push(name));
        let values = names.iter().map(|_| AtomicU64::new(0)).collect();
        Published { names, values }
    }

    /// Worker: publishes what there is now.
    pub(super) fn publish(&self, shard: &Shard, counters: &Counters) {
        let mut values = self.values.iter();
        visit(shard, counters, |_, value| {
            if let Some(cell) = values.next() {
                // Relaxed: a figure for people, ordered with nothing.
                cell.store(value, Ordering::Relaxed);
            }
        });
    }

    /// Control: names and values.
    pub(super) fn read(&self) -> Vec<(Name, u64)> {
        let values = self.values.iter().map(|cell| cell.load(Ordering::Relaxed));
        self.names.iter().copied().zip(values).collect()
    }
}

fn visit(shard: &Shard, counters: &Counters, mut each: impl FnMut(Name, u64)) {
    shard.counters().for_each(|name, reason, value| each((name, reason), value));
    let gauges = shard.gauges();
    each(("connections", None), gauges.connections.into());
    each(("orphans", None), gauges.orphans.into());
    each(("syn_received", None), gauges.syn_received.into());
    each(("time_wait", None), gauges.time_wait.into());
    each(("timers", None), gauges.timers.into());
    for state in State::ALL {
        if let Some(label) = state_label(state) {
            each(("sockets", Some(label)), gauges.states[state as usize].into());
        }
    }
    counters.for_each(|name, reason, value| each((name, reason), value));
}

/// A state's label in metrics; the first two are no flow's.
fn state_label(state: State) -> Option<&'static str> {
    match state {
        State::Closed | State::Listen => None,
        State::SynSent => Some("syn_sent"),
        State::SynReceived => Some("syn_received"),
        State::Established => Some("established"),
        State::FinWait1 => Some("fin_wait_1"),
        State::FinWait2 => Some("fin_wait_2"),
        State::CloseWait => Some("close_wait"),
        State::Closing => Some("closing"),
        State::LastAck => Some("last_ack"),
        State::TimeWait => Some("time_wait"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::explain;

    #[test]
    fn everything_that_is_published_is_explained() {
        let config = fourwave_stack::Config {
            connections: 1,
            syn_received: 1,
            time_wait: 1,
            ..fourwave_stack::Config::default()
        };
        let shard = Shard::new(config, fourwave_stack::Keys::generate(|| 7), 0).unwrap();
        let names = Published::new(&shard).names;
        assert!(names.len() > 80);
        for (name, label) in names {
            assert!(explain(name, label).is_some() || label.is_some(), "{name} {label:?}");
            assert!(explain(name, None).is_some(), "{name}");
        }
    }
}
