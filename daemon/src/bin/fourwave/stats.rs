//! `fourwave stats`: counters and gauges, over all workers.

use crate::daemon::{Daemon, Failure};
use fourwave_protocol::control::{Reply, Request};
use fourwaved::explain::explain;
use std::io::{self, IsTerminal, Write};

/// Prints counters and gauges over all workers: a table with explanations on a terminal, plain
/// `name value` lines elsewhere.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Plain `name value` lines, on a terminal too
    #[arg(long, conflicts_with_all = ["explain", "json"])]
    raw: bool,
    /// A table with explanations, elsewhere too
    #[arg(long, conflicts_with = "json")]
    explain: bool,
    /// In the table, also what is 0
    #[arg(short, long)]
    all: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
    /// The last cases of what was refused or dropped, as `fourwave drops` prints them
    #[arg(long, conflicts_with_all = ["raw", "explain", "all"])]
    pub(crate) samples: bool,
}

impl Arguments {
    /// For what `--samples` stands for.
    pub(crate) fn drops(&self) -> crate::drops::Arguments {
        crate::drops::Arguments::all(self.json)
    }
}

/// Prints them.
pub(crate) fn run(arguments: &Arguments, daemon: &mut Daemon) -> Result<(), Failure> {
    let text = read(daemon)?;
    let mut out = io::stdout().lock();
    let table = arguments.explain || arguments.all || io::stdout().is_terminal();
    let printed = if arguments.json {
        writeln!(out, "{}", json(&text))
    } else if table && !arguments.raw {
        out.write_all(self::table(&text, arguments.all).as_bytes())
    } else {
        out.write_all(text.as_bytes())
    };
    printed.and_then(|()| out.flush()).map_err(Failure::Output)
}

/// All counters, as the daemon gives them.
pub(crate) fn read(daemon: &mut Daemon) -> Result<String, Failure> {
    daemon.ask(&Request::Stats)?;
    let mut all = String::new();
    loop {
        match daemon.reply()? {
            Reply::Text { text, more } => {
                all += &text;
                if !more {
                    return Ok(all);
                }
            }
            other => return Err(Failure::unexpected(&other)),
        }
    }
}

/// One line of what the daemon gives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counter<'a> {
    /// The whole name.
    pub(crate) full: &'a str,
    pub(crate) name: &'a str,
    /// What tells members of a family apart, and its value for this one.
    pub(crate) label: Option<(&'a str, &'a str)>,
    pub(crate) value: u64,
}

/// Reads `name value` and `name{label="member"} value` lines; others are left out.
pub(crate) fn counters(text: &str) -> impl Iterator<Item = Counter<'_>> {
    text.lines().filter_map(|line| {
        let (full, value) = line.rsplit_once(' ')?;
        let value = value.parse().ok()?;
        let Some((name, rest)) = full.split_once('{') else {
            return Some(Counter { full, name: full, label: None, value });
        };
        let (label, member) = rest.strip_suffix("\"}")?.split_once("=\"")?;
        Some(Counter { full, name, label: Some((label, member)), value })
    })
}

fn table(text: &str, all: bool) -> String {
    let shown: Vec<Counter<'_>> = counters(text).filter(|c| all || c.value > 0).collect();
    let width = shown.iter().map(|counter| counter.full.len()).max().unwrap_or(0);
    let digits = shown.iter().map(|counter| counter.value.to_string().len()).max().unwrap_or(0);
    let line = |counter: &Counter<'_>| {
        let text = explain(counter.name, counter.label.map(|(_, member)| member)).unwrap_or("");
        let Counter { full, value, .. } = counter;
        format!("{full:<width$}  {value:>digits$}  {text}").trim_end().to_owned() + "\n"
    };
    shown.iter().map(line).collect()
}

fn json(text: &str) -> serde_json::Value {
    counters(text)
        .map(|Counter { name, label, value, .. }| {
            let text = explain(name, label.map(|(_, member)| member));
            let mut object = serde_json::json!({ "name": name, "value": value, "text": text });
            if let Some((label, member)) = label {
                object[label] = member.into();
            }
            object
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "InSegs 12\n\
                        ListenDrops 0\n\
                        accept_queue{listener=\"[::]:80\"} 3\n\
                        segments_dropped{reason=\"duplicate\"} 7\n";

    #[test]
    fn lines_are_read_as_they_are_written() {
        let read: Vec<Counter<'_>> = counters(TEXT).collect();
        assert_eq!(read.len(), 4);
        assert_eq!((read[0].name, read[0].label, read[0].value), ("InSegs", None, 12));
        assert_eq!(read[2].label, Some(("listener", "[::]:80")));
        assert_eq!((read[3].name, read[3].value), ("segments_dropped", 7));
        assert_eq!(counters("nonsense\nmore nonsense\n").next(), None);
    }

    #[test]
    fn the_table_explains_what_is_not_zero() {
        let shown = table(TEXT, false);
        let expected =
            "segments_dropped{reason=\"duplicate\"}   7  All of its data had arrived before.";
        assert!(shown.lines().any(|line| line == expected), "{shown}");
        assert!(!shown.contains("ListenDrops"));
        assert!(table(TEXT, true).contains("ListenDrops"));
    }

    #[test]
    fn json_has_labels_apart() {
        let json = json(TEXT);
        assert_eq!(json[2]["listener"], "[::]:80");
        assert_eq!(json[3]["reason"], "duplicate");
        assert_eq!(json[3]["value"], 7);
        assert!(json[0]["text"].as_str().is_some_and(|text| text.starts_with("TCP segments")));
    }
}
