//! The daemon under comparison: its configuration and its own counters.

use std::collections::HashMap;

use super::{CompareConfig, CompareError};
use crate::lab::{DaemonOptions, Lab, Side};

/// What the daemon counts, added up over its workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct DaemonCounters(HashMap<String, u64>);

impl DaemonCounters {
    /// Asks the daemon on the server's side.
    pub(super) fn read(lab: &Lab) -> Result<DaemonCounters, CompareError> {
        let runtime = fourwave::Runtime::connect(lab.control_socket(Side::Server));
        let text = runtime.and_then(|runtime| runtime.stats());
        Ok(DaemonCounters::parse(&text.map_err(CompareError::io("the daemon's counters"))?))
    }

    /// Lines of `name value`; a worker's name or labels may follow the name in braces.
    fn parse(text: &str) -> DaemonCounters {
        let mut counters: HashMap<String, u64> = HashMap::new();
        for line in text.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let name = name.split('{').next().unwrap_or(name).trim();
            if let Ok(value) = value.parse::<u64>() {
                *counters.entry(name.to_owned()).or_default() += value;
            }
        }
        DaemonCounters(counters)
    }

    /// How far `name` has come since `earlier`.
    ///
    /// # Errors
    /// When the daemon does not count it: a zero would be a claim.
    pub(super) fn since(
        &self,
        earlier: &DaemonCounters,
        name: &'static str,
    ) -> Result<u64, CompareError> {
        match (self.0.get(name), earlier.0.get(name)) {
            (Some(now), Some(then)) => Ok(now.saturating_sub(*then)),
            (None, _) | (_, None) => Err(CompareError::NoCounter { name }),
        }
    }
}

/// The daemon's configuration: the defaults, on the server's CPU, with what the user asked for.
pub(super) fn configuration(config: &CompareConfig, lab: &Lab) -> String {
    let options = DaemonOptions {
        ports: Vec::new(),
        cpus: vec![config.server_cpu; config.lab.queues as usize],
        keys: config.daemon_keys.clone(),
    };
    lab.daemon_config(Side::Server, &options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_workers_are_added_up() {
        let before = DaemonCounters::parse("RetransSegs 1\n");
        let text =
            "# a comment\nRetransSegs{worker=\"0\"} 3\nRetransSegs{worker=\"1\"} 4\nother x\n";
        let after = DaemonCounters::parse(text);
        assert_eq!(after.since(&before, "RetransSegs").unwrap(), 6);
        assert!(matches!(
            after.since(&before, "other"),
            Err(CompareError::NoCounter { name: "other" })
        ));
    }
}
