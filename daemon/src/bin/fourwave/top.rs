//! `fourwave top`: rates, states and queues, as they are now and again.

use crate::daemon::{Daemon, Failure};
use crate::stats::{Counter, counters, read};
use fourwave_stack::Reason;
use fourwaved::explain::explain;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Shows rates per second, connections by state, listeners' queues and what is being dropped,
/// until Ctrl-C.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Time between two looks
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// End after so many screens
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
}

/// Workers publish every 20 ms; shorter looks show nothing.
fn interval(word: &str) -> Result<Duration, String> {
    let allowed = Duration::from_millis(100)..=Duration::from_secs(3600);
    let interval = humantime::parse_duration(word).map_err(|error| error.to_string())?;
    match allowed.contains(&interval) {
        true => Ok(interval),
        false => Err("100ms to 1h are allowed".to_owned()),
    }
}

/// Shows screens until there were enough.
pub(crate) fn run(arguments: &Arguments, daemon: &mut Daemon) -> Result<(), Failure> {
    // On a terminal each screen takes the place of the one before.
    let clear = if io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    let (mut before, mut at) = (read(daemon)?, Instant::now());
    for _ in 0..arguments.count.unwrap_or(u64::MAX) {
        std::thread::sleep(arguments.interval);
        let (now, read_at) = (read(daemon)?, Instant::now());
        let screen = screen(&before, &now, (read_at - at).as_secs_f64());
        let mut out = io::stdout().lock();
        let shown = out.write_all(format!("{clear}{screen}").as_bytes());
        shown.and_then(|()| out.flush()).map_err(Failure::Output)?;
        (before, at) = (now, read_at);
    }
    Ok(())
}

/// Rates that are always shown.
const RATES: [&str; 10] = [
    "PassiveOpens",
    "ActiveOpens",
    "InSegs",
    "OutSegs",
    "RetransSegs",
    "OutRsts",
    "EstabResets",
    "TW",
    "frames_handed_over",
    "sleeps",
];

/// Two looks at the counters, so many seconds apart, as a screen.
fn screen(before: &str, now: &str, seconds: f64) -> String {
    let before: BTreeMap<&str, u64> = counters(before).map(|c| (c.full, c.value)).collect();
    let now: Vec<Counter<'_>> = counters(now).collect();
    let rate = |counter: &Counter<'_>| {
        let grown = counter.value.saturating_sub(before.get(counter.full).copied().unwrap_or(0));
        (grown as f64 / seconds).round() as u64
    };
    let find = |name: &str| now.iter().find(|counter| counter.full == name);
    let mut text = String::from("PER SECOND\n");
    for pair in RATES.chunks(2) {
        for name in pair {
            // Writing to a String does not fail.
            let _ = write!(text, "  {name:<20} {:>10}", find(name).map_or(0, rate));
        }
        text.push('\n');
    }
    text += "\nCONNECTIONS\n ";
    for counter in now.iter().filter(|counter| counter.name == "sockets") {
        if let Some((_, state)) = counter.label
            && counter.value > 0
        {
            let _ = write!(text, " {state} {}", counter.value);
        }
    }
    let value = |name: &str| find(name).map_or(0, |counter| counter.value);
    let _ = writeln!(text, "  (orphans {}, timers {})", value("orphans"), value("timers"));
    text += "\nLISTENERS                                accepting    of   SYN queue\n";
    for counter in now.iter().filter(|counter| counter.name == "accept_queue") {
        let Some((_, listener)) = counter.label else { continue };
        let of = |name: &str| value(&format!("{name}{{listener=\"{listener}\"}}"));
        let (backlog, syn) = (of("accept_backlog"), of("syn_queue"));
        let _ = writeln!(text, "  {listener:<40} {:>7} {backlog:>5} {syn:>11}", counter.value);
    }
    text += "\nREFUSED OR DROPPED PER SECOND\n";
    for reason in Reason::all() {
        let (name, member) = reason.counter();
        let is = |c: &&Counter<'_>| c.name == name && c.label.map(|(_, member)| member) == member;
        let Some(rate) = now.iter().find(is).map(rate).filter(|rate| *rate > 0) else { continue };
        let why = explain(name, member).unwrap_or("");
        let _ = writeln!(text, "  {:<24} {rate:>10}  {why}", reason.name());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_shows_rates_states_queues_and_drops() {
        let before = "PassiveOpens 100\nListenOverflows 5\n";
        let now = "PassiveOpens 300\n\
                   ListenOverflows 9\n\
                   orphans 2\n\
                   accept_backlog{listener=\"[::]:80\"} 128\n\
                   accept_queue{listener=\"[::]:80\"} 3\n\
                   syn_queue{listener=\"[::]:80\"} 1\n\
                   segments_dropped{reason=\"duplicate\"} 0\n\
                   sockets{state=\"established\"} 7\n\
                   sockets{state=\"time_wait\"} 0\n";
        let screen = screen(before, now, 2.0);
        let words: Vec<Vec<&str>> =
            screen.lines().map(|line| line.split_whitespace().collect()).collect();
        let has = |line: &[&str]| words.iter().any(|words| words.starts_with(line));
        assert!(has(&["PassiveOpens", "100", "ActiveOpens", "0"]), "{screen}");
        assert!(has(&["established", "7", "(orphans", "2,"]), "{screen}");
        assert!(has(&["[::]:80", "3", "128", "1"]), "{screen}");
        assert!(has(&["ListenOverflows", "2", "An", "accept", "queue"]), "{screen}");
        assert!(!screen.contains("duplicate"), "{screen}");
    }

    #[test]
    fn intervals_are_bounded() {
        assert_eq!(interval("2s"), Ok(Duration::from_secs(2)));
        assert!(interval("1ms").unwrap_err().contains("100ms to 1h"));
        assert!(interval("soon").is_err());
    }
}
