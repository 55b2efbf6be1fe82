//! What came of a load, in a form that another process can read and add to others.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency that is told from longer ones: two minutes, in nanoseconds.
const LONGEST_NS: u64 = 120_000_000_000;

/// How one connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All bytes came back, then the end of the stream.
    Complete,
    /// A system call or the peer ended it with this errno.
    Errno(i32),
    /// Other bytes came back than were sent, or more.
    WrongEcho,
    /// The stream ended early.
    ShortEcho,
    /// It took too long.
    Timeout,
}

impl Outcome {
    /// The key in [`LoadReport::errors`]; `None` for a complete connection.
    fn error_name(self) -> Option<String> {
        Some(match self {
            Outcome::Complete => return None,
            Outcome::Errno(errno) => errno_name(errno),
            Outcome::WrongEcho => "wrong echo".into(),
            Outcome::ShortEcho => "short echo".into(),
            Outcome::Timeout => "timeout".into(),
        })
    }
}

/// `ECONNRESET` for 104, for the errors that connections end with; the number for others.
fn errno_name(errno: i32) -> String {
    let known = match errno {
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::ECONNRESET => "ECONNRESET",
        libc::EPIPE => "EPIPE",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::EADDRINUSE => "EADDRINUSE",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::EMFILE => "EMFILE",
        libc::ENOBUFS => "ENOBUFS",
        other => return format!("errno {other}"),
    };
    known.to_owned()
}

/// A latency distribution in nanoseconds, three significant digits.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Latency {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, 3);
        Latency(histogram.expect("the bounds and digits are in range"))
    }
}

impl Latency {
    /// Counts one latency; longer than two minutes counts as two minutes.
    pub fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds);
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Latency) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// The value that `quantile` (0 to 1) of all are not above, in microseconds.
    pub fn microseconds(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// (quantile, microseconds) from the median of all up to the largest, each step halving what
    /// lies above: a curve for people.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let steps = self.0.iter_quantiles(4);
        steps
            .map(|step| (step.quantile_iterated_to(), step.value_iterated_to() as f64 / 1000.0))
            .collect()
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }
}

/// As a list of (nanoseconds, count).
impl Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let recorded = self.0.iter_recorded();
        serializer
            .collect_seq(recorded.map(|step| (step.value_iterated_to(), step.count_at_value())))
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Latency, D::Error> {
        let mut latency = Latency::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            latency.0.saturating_record_n(value, count);
        }
        Ok(latency)
    }
}

/// What came of a load.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// Connections started.
    pub started: u64,
    /// Connections that ended well.
    pub completed: u64,
    /// Those of them that ended while new ones were still started.
    pub completed_in_window: u64,
    /// That time, in nanoseconds.
    pub window_ns: u64,
    /// Failed connections by reason.
    pub errors: BTreeMap<String, u64>,
    /// From the start of connection set-up (open loop: from when it was due) until the socket was
    /// writable.
    pub connect_latency: Latency,
    /// From the same start until the server's `accept` had returned, for some of the connections.
    #[serde(default)]
    pub accept_latency: Latency,
    /// From sending a request until all of its reply was there.
    #[serde(default)]
    pub reply_latency: Latency,
    /// Replies that came while new connections were still started, or until they were to end.
    #[serde(default)]
    pub replies_in_window: u64,
    /// Starts of an open loop that found no room.
    #[serde(default)]
    pub shed: u64,
    /// Nanoseconds that the generator's thread waited for a CPU that others had.
    #[serde(default)]
    pub generator_waited_ns: u64,
    /// CPU time of the whole machine from the first start to the last end, in nanoseconds.
    pub machine_busy_ns: u64,
    /// Segments that the client sent again.
    pub client_retransmits: u64,
    /// Client ports that somebody else had.
    pub ports_skipped: u64,
    /// Frames that a generator without the kernel's TCP has sent.
    #[serde(default)]
    pub frames_sent: u64,
    /// Frames that such a generator has received.
    #[serde(default)]
    pub frames_received: u64,
    /// Frames of those that belonged to no connection.
    #[serde(default)]
    pub stray_frames: u64,
    /// Frames that could not be sent for want of room.
    #[serde(default)]
    pub frames_without_room: u64,
    /// Number of the (address, port) pair for the next load to begin with.
    pub next_source: u64,
}

impl LoadReport {
    /// Counts the end of a connection.
    pub fn end(&mut self, outcome: Outcome) {
        match outcome.error_name() {
            None => self.completed += 1,
            Some(name) => *self.errors.entry(name).or_default() += 1,
        }
    }

    /// Connections completed per second, over the window.
    pub fn connections_per_second(&self) -> f64 {
        self.completed_in_window as f64 * 1e9 / self.window_ns.max(1) as f64
    }

    /// Replies per second, over the window.
    pub fn replies_per_second(&self) -> f64 {
        self.replies_in_window as f64 * 1e9 / self.window_ns.max(1) as f64
    }

    /// Rate and failures in one line, for people.
    pub fn line(&self) -> String {
        let rate = self.connections_per_second();
        match self.error_count() {
            0 => format!("{rate:>8.0} connections/s, 0 errors"),
            count => format!("{rate:>8.0} connections/s, {count} errors: {:?}", self.errors),
        }
    }

    /// Number of failed connections.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_way_between_processes() {
        let mut report =
            LoadReport { started: 3, window_ns: 2_000_000_000, ..LoadReport::default() };
        report.end(Outcome::Complete);
        report.end(Outcome::Errno(libc::ECONNRESET));
        report.end(Outcome::Errno(libc::ECONNRESET));
        report.completed_in_window = report.completed;
        for value in [1_000, 20_000, 20_000, 3_000_000_000, u64::MAX] {
            report.connect_latency.record(value);
        }
        let text = serde_json::to_string(&report).unwrap();
        let back: LoadReport = serde_json::from_str(&text).unwrap();
        assert_eq!(back.errors, BTreeMap::from([("ECONNRESET".to_owned(), 2)]));
        assert_eq!(back.error_count(), 2);
        assert!((back.connections_per_second() - 0.5).abs() < 1e-9);
        for quantile in [0.1, 0.5, 0.99] {
            let (here, there) = (&report.connect_latency, &back.connect_latency);
            assert_eq!(
                here.microseconds(quantile).to_bits(),
                there.microseconds(quantile).to_bits()
            );
        }
        assert_eq!(back.connect_latency.count(), 5);
    }

    #[test]
    fn merged_latencies_have_the_quantiles_of_all() {
        let (mut low, mut high) = (Latency::default(), Latency::default());
        (0..99).for_each(|_| low.record(10_000));
        high.record(1_000_000);
        low.add(&high);
        assert!((low.microseconds(0.5) - 10.0).abs() < 0.02);
        assert!((low.microseconds(0.999) - 1000.0).abs() < 2.0);
    }
}
