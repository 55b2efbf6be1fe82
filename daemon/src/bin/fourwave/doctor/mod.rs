//! `fourwave doctor`: looks at everything that a running daemon tells, and says in plain words what
//! is wrong, how one can see it, and what helps.
//!
//! [`facts`] gathers, [`checks`] judges (a pure function of the facts), [`report`] writes.

mod census;
mod checks;
mod facts;
mod programs;
mod report;

use crate::daemon::{Daemon, Failure};
use facts::Facts;
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

/// Says what is wrong, and what helps.
///
/// Exits with 0 when nothing is wrong, with 1 when something is, and with 2 when the daemon cannot
/// be asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// For programs
    #[arg(long)]
    json: bool,
    /// Also what was looked at and found well
    #[arg(short, long)]
    all: bool,
    /// How long to watch the counters, in seconds
    #[arg(long, default_value_t = 1.0, value_parser = seconds, value_name = "SECONDS")]
    watch: f64,
    /// How long a program may take to close after its peer has, in seconds
    #[arg(long, default_value_t = 10.0, value_parser = seconds, value_name = "SECONDS")]
    patience: f64,
}

/// Longer watching is what the metrics endpoint is for.
const LONGEST: f64 = 600.0;

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=LONGEST).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err(format!("expected seconds, {LONGEST} at most")),
    }
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    /// Looked at, and as it should be; or worth knowing.
    Fine,
    /// It may become a problem, or is one for somebody else.
    Warning,
    /// Connections are refused, lost or stuck.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    /// A name that does not change, for programs.
    id: &'static str,
    severity: Severity,
    /// What is the case, in one sentence.
    summary: String,
    /// What it means and who causes it.
    details: Vec<String>,
    /// The command or setting that helps.
    advice: Vec<String>,
    /// The numbers behind it, by name.
    numbers: BTreeMap<&'static str, u64>,
}

impl Finding {
    fn new(id: &'static str, severity: Severity, summary: impl Into<String>) -> Finding {
        Finding {
            id,
            severity,
            summary: summary.into(),
            details: Vec::new(),
            advice: Vec::new(),
            numbers: BTreeMap::new(),
        }
    }

    fn detail(mut self, text: impl Into<String>) -> Finding {
        self.details.push(text.into());
        self
    }

    fn details(mut self, texts: impl IntoIterator<Item = String>) -> Finding {
        self.details.extend(texts);
        self
    }

    fn advise(mut self, text: impl Into<String>) -> Finding {
        self.advice.push(text.into());
        self
    }

    fn number(mut self, name: &'static str, value: u64) -> Finding {
        self.numbers.insert(name, value);
        self
    }
}

/// Asks, judges and prints.
pub(crate) fn run(
    arguments: &Arguments,
    connect: impl FnOnce() -> Result<Daemon, Failure>,
) -> Result<ExitCode, Failure> {
    let watch = Duration::from_secs_f64(arguments.watch);
    let facts = Facts::gather(&mut connect()?, watch)?;
    let patience = Duration::from_secs_f64(arguments.patience);
    let mut findings = checks::all(&facts, patience);
    // The worst first; those that are equally bad in the order of the checks.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let wrong = findings.iter().any(|finding| finding.severity != Severity::Fine);
    if arguments.json {
        report::json(&findings)?;
    } else {
        report::text(&findings, arguments.all)?;
    }
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
