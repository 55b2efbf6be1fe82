//! What the doctor knows: counters now and a moment ago, the configuration, and all sockets.

use super::census::Census;
use crate::daemon::{Daemon, Failure};
use fourwave_protocol::VERSION;
use fourwave_protocol::control::{Reply, Request};
use fourwave_protocol::query::{Query, SocketFilter, SocketState, States};
use fourwaved::config::Config;
use std::collections::{BTreeSet, HashMap};
use std::thread;
use std::time::Duration;

/// Everything that the checks look at.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) config: Config,
    pub(super) counters: Counters,
    /// A moment before.
    pub(super) earlier: Counters,
    pub(super) watched: Duration,
    pub(super) census: Census,
}

impl Facts {
    /// Asks the daemon, for a little longer than `watch`.
    pub(super) fn gather(daemon: &mut Daemon, watch: Duration) -> Result<Facts, Failure> {
        let settings = daemon.text(&Request::Settings)?;
        let config = toml::from_str(&settings).map_err(|error| {
            Failure::Refused(format!("its configuration has keys of another release: {error}"))
        })?;
        let earlier = Counters::parse(&daemon.text(&Request::Stats)?);
        thread::sleep(watch);
        let census = census(daemon)?;
        let counters = Counters::parse(&daemon.text(&Request::Stats)?);
        Ok(Facts { config, counters, earlier, watched: watch, census })
    }

    /// How far a counter has come while it was watched.
    pub(super) fn growth(&self, name: &str) -> u64 {
        self.counters.get(name).saturating_sub(self.earlier.get(name))
    }
}

/// Listeners first: what they serve tells incoming connections from outgoing ones.
fn census(daemon: &mut Daemon) -> Result<Census, Failure> {
    let mut census = Census::default();
    let listening = States::only(SocketState::Listen);
    for states in [listening, States::ALL.without(listening)] {
        let filter = SocketFilter { states, ..SocketFilter::ALL };
        daemon.ask(&Request::Query { version: VERSION, query: Query::Sockets(filter) })?;
        let served: BTreeSet<u16> =
            census.listeners.iter().map(|listener| listener.local.port()).collect();
        loop {
            match daemon.reply()? {
                Reply::Sockets { rows, more } => {
                    rows.iter().for_each(|row| census.add(row, |port| served.contains(&port)));
                    if !more {
                        break;
                    }
                }
                other => return Err(Failure::unexpected(&other)),
            }
        }
    }
    Ok(census)
}

/// Counters and gauges by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters(HashMap<String, u64>);

impl Counters {
    /// Lines of `name value`.
    fn parse(text: &str) -> Counters {
        let pairs = text.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Counters(pairs.collect())
    }

    /// One of them; 0 for one that this daemon does not have.
    pub(super) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    #[cfg(test)]
    pub(super) fn set(&mut self, name: &str, value: u64) {
        self.0.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_with_their_reasons() {
        let text = "InSegs 5\nsegments_dropped{reason=\"no memory\"} 7\nodd line x\n";
        let counters = Counters::parse(text);
        assert_eq!(counters.get("InSegs"), 5);
        assert_eq!(counters.get("segments_dropped{reason=\"no memory\"}"), 7);
        assert_eq!(counters.get("odd line"), 0);
    }

    #[test]
    fn growth_is_what_came_since() {
        let mut facts = Facts::default();
        facts.earlier.set("ListenOverflows", 3);
        facts.counters.set("ListenOverflows", 10);
        assert_eq!(facts.growth("ListenOverflows"), 7);
        assert_eq!(facts.growth("nothing"), 0);
    }
}
