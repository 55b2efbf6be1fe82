//! When the next connection may start.

use std::time::Duration;

use super::{LoadConfig, Until};

/// Decides over starts. All times are nanoseconds on the monotonic clock.
#[derive(Debug)]
pub(super) struct Pace {
    begin: u64,
    until: Until,
    in_flight_limit: usize,
    /// Nanoseconds between two starts of an open loop.
    interval: Option<f64>,
    started: u64,
    shed: Option<u64>,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Start a connection; in an open loop it was due at this time.
    Start { due: Option<u64> },
    /// Nothing before this time, or before a connection ends.
    Wait { until: Option<u64> },
    /// No more starts.
    Stop,
}

impl Pace {
    pub(super) fn new(config: &LoadConfig, begin: u64) -> Pace {
        let interval = config.rate.map(|rate| 1e9 / rate);
        let in_flight_limit =
            if interval.is_some() { config.in_flight_limit } else { config.concurrency };
        let shed = (config.shed && interval.is_some()).then_some(0);
        Pace { begin, until: config.until, in_flight_limit, interval, started: 0, shed }
    }

    /// The next step; a `Start` is counted as done.
    pub(super) fn turn(&mut self, now: u64, in_flight: usize) -> Turn {
        let end = match self.until {
            Until::Elapsed(length) => Some(self.begin + nanos(length)),
            Until::Connections(_) => None,
        };
        let over = match self.until {
            Until::Elapsed(_) => end.is_some_and(|end| now >= end),
            Until::Connections(count) => self.started >= count,
        };
        if over {
            return Turn::Stop;
        }
        if in_flight >= self.in_flight_limit {
            self.shed_until(now);
            return Turn::Wait { until: end };
        }
        let due = self.interval.map(|interval| {
            // Whole product each time: adding up intervals would add up rounding errors.
            self.begin + (interval * self.started as f64) as u64
        });
        match due {
            Some(due) if due > now => {
                Turn::Wait { until: Some(end.map_or(due, |end| end.min(due))) }
            }
            _ => {
                self.started += 1;
                Turn::Start { due }
            }
        }
    }

    /// Leaves out what is due and finds no room.
    fn shed_until(&mut self, now: u64) {
        if let (Some(shed), Some(interval)) = (&mut self.shed, self.interval) {
            let due = ((now - self.begin) as f64 / interval) as u64;
            *shed += due.saturating_sub(self.started);
            self.started = self.started.max(due);
        }
    }

    /// Starts that were due and not left out.
    pub(super) fn started(&self) -> u64 {
        self.started - self.shed()
    }

    /// Starts that were left out.
    pub(super) fn shed(&self) -> u64 {
        self.shed.unwrap_or(0)
    }
}

/// Saturates after 584 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rate: Option<f64>, until: Until) -> LoadConfig {
        LoadConfig {
            size: 1,
            concurrency: 2,
            rate,
            until,
            ..LoadConfig::new(([127, 0, 0, 1], 1).into())
        }
    }

    #[test]
    fn a_closed_loop_keeps_its_concurrency() {
        let mut pace = Pace::new(&config(None, Until::Connections(3)), 0);
        assert_eq!(pace.turn(0, 0), Turn::Start { due: None });
        assert_eq!(pace.turn(0, 1), Turn::Start { due: None });
        assert_eq!(pace.turn(0, 2), Turn::Wait { until: None });
        assert_eq!(pace.turn(9, 1), Turn::Start { due: None });
        assert_eq!(pace.turn(9, 0), Turn::Stop);
        assert_eq!(pace.started(), 3);
    }

    #[test]
    fn starts_without_room_can_be_left_out() {
        let until = Until::Elapsed(Duration::from_nanos(10_000));
        let config = LoadConfig { shed: true, in_flight_limit: 1, ..config(Some(1e6), until) };
        let mut pace = Pace::new(&config, 0);
        assert_eq!(pace.turn(0, 0), Turn::Start { due: Some(0) });
        // Those due at 1000, 2000 and 3000.
        assert_eq!(pace.turn(4000, 1), Turn::Wait { until: Some(10_000) });
        assert_eq!(pace.turn(4000, 0), Turn::Start { due: Some(4000) });
        assert_eq!((pace.started(), pace.shed()), (2, 3));
    }

    #[test]
    fn an_open_loop_catches_up_from_when_starts_were_due() {
        let until = Until::Elapsed(Duration::from_nanos(10_000));
        let mut pace = Pace::new(&config(Some(1e6), until), 500);
        assert_eq!(pace.turn(500, 0), Turn::Start { due: Some(500) });
        assert_eq!(pace.turn(600, 1), Turn::Wait { until: Some(1500) });
        // The generator was held up: the starts it missed keep their times.
        assert_eq!(pace.turn(3600, 50), Turn::Start { due: Some(1500) });
        assert_eq!(pace.turn(3600, 51), Turn::Start { due: Some(2500) });
        assert_eq!(pace.turn(3600, 52), Turn::Start { due: Some(3500) });
        assert_eq!(pace.turn(3600, 53), Turn::Wait { until: Some(4500) });
        assert_eq!(pace.turn(10_500, 0), Turn::Stop);
    }
}
