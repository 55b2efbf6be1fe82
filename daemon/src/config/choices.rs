//! Values that are one of a few words.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// How a worker waits for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PollMode {
    /// Never sleeps: a whole core, the lowest latency.
    Busy,
    /// Spins for `spin_us` after the last work, then sleeps.
    Adaptive,
    /// Sleeps as soon as there is nothing to do.
    Interrupt,
}

/// Where the XDP program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver if it can, else in the kernel's generic hook.
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the kernel's generic hook.
    Generic,
}

/// Whether frames are shared with the NIC without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZeroCopy {
    /// If the driver can.
    Auto,
    /// Or not at all.
    On,
    /// Never.
    Off,
}

/// What is done about the checksums of received frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RxChecksum {
    /// A frame with a wrong checksum is dropped and counted.
    Verify,
    /// They are believed: for links on which the peer leaves them to hardware that is not there.
    Trust,
}

/// What decides how much may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CongestionControl {
    /// RFC 9438.
    Cubic,
    /// NewReno, RFC 5681 and RFC 6582.
    Reno,
}

/// How the kernel schedules the worker threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// As every thread.
    Normal,
    /// As every thread, with this nice value (-20 to 19).
    Nice(i8),
    /// `SCHED_FIFO` with this priority (1 to 99): before every normal thread of the core.
    Fifo(u8),
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scheduler::Normal => f.write_str("normal"),
            Scheduler::Nice(value) => write!(f, "nice:{value}"),
            Scheduler::Fifo(priority) => write!(f, "fifo:{priority}"),
        }
    }
}

impl FromStr for Scheduler {
    type Err = String;

    fn from_str(text: &str) -> Result<Scheduler, String> {
        let value = |number: &str, range: std::ops::RangeInclusive<i8>| {
            number.parse().ok().filter(|value| range.contains(value))
        };
        match text.split_once(':') {
            None if text == "normal" => Some(Scheduler::Normal),
            Some(("nice", number)) => value(number, -20..=19).map(Scheduler::Nice),
            Some(("fifo", number)) => {
                value(number, 1..=99).map(|priority| Scheduler::Fifo(priority.unsigned_abs()))
            }
            None | Some(_) => None,
        }
        .ok_or_else(|| {
            format!("{text:?} is not one of \"normal\", \"nice:-20\" to \"nice:19\", \"fifo:1\" to \"fifo:99\"")
        })
    }
}

impl Serialize for Scheduler {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scheduler {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scheduler, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which queues of the interface the daemon takes: `"all"`, the first N, or a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"all\", a number of queues, or a list of queues")]
pub enum Queues {
    /// The word `"all"`.
    All(All),
    /// Queues 0 to N − 1.
    First(u32),
    /// These.
    List(Vec<u32>),
}

/// The word `"all"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum All {
    /// The only one.
    #[serde(rename = "all")]
    All,
}

impl Queues {
    /// The queues of an interface that has `available` of them; `None` if some are not there,
    /// or none is asked for, or one is named twice.
    pub fn resolve(&self, available: u32) -> Option<Vec<u32>> {
        let queues = match self {
            Queues::All(All::All) => (0..available).collect(),
            Queues::First(count) => (0..*count).collect(),
            Queues::List(list) => list.clone(),
        };
        let twice = |i: usize| queues[..i].contains(&queues[i]);
        let fits = !queues.is_empty()
            && queues.iter().all(|queue| *queue < available)
            && !(0..queues.len()).any(twice);
        fits.then_some(queues)
    }
}

impl fmt::Display for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Queues::All(All::All) => f.write_str("all"),
            Queues::First(count) => write!(f, "the first {count}"),
            Queues::List(list) => write!(f, "{list:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedulers() {
        for text in ["normal", "nice:-10", "nice:19", "fifo:1", "fifo:99"] {
            assert_eq!(text.parse::<Scheduler>().unwrap().to_string(), text);
        }
        for wrong in ["", "fifo", "fifo:0", "fifo:100", "fifo:-1", "nice:20", "normal:1", "rr:1"] {
            assert!(wrong.parse::<Scheduler>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn queues() {
        assert_eq!(Queues::All(All::All).resolve(3), Some(vec![0, 1, 2]));
        assert_eq!(Queues::First(2).resolve(3), Some(vec![0, 1]));
        assert_eq!(Queues::First(4).resolve(3), None);
        assert_eq!(Queues::First(0).resolve(3), None);
        assert_eq!(Queues::List(vec![2, 0]).resolve(3), Some(vec![2, 0]));
        assert_eq!(Queues::List(vec![2, 2]).resolve(3), None);
        assert_eq!(Queues::List(vec![3]).resolve(3), None);
    }
}
