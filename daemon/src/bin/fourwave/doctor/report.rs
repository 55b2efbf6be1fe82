//! Findings for people and for programs.

use super::{Finding, Severity};
use crate::daemon::Failure;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Writes what is wrong, or with `all` everything that was looked at.
pub(super) fn text(findings: &[Finding], all: bool) -> Result<(), Failure> {
    io::stdout().lock().write_all(rendered(findings, all).as_bytes()).map_err(Failure::Output)
}

#[derive(Serialize)]
struct Json<'a> {
    /// Whether something is wrong.
    wrong: bool,
    findings: &'a [Finding],
}

/// Writes all findings.
pub(super) fn json(findings: &[Finding]) -> Result<(), Failure> {
    let wrong = findings.iter().any(|finding| finding.severity != Severity::Fine);
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &Json { wrong, findings })
        .map_err(|error| Failure::Output(error.into()))?;
    writeln!(out).map_err(Failure::Output)
}

fn rendered(findings: &[Finding], all: bool) -> String {
    let mut text = String::new();
    let shown = findings.iter().filter(|finding| all || finding.severity != Severity::Fine);
    for finding in shown {
        let word = match finding.severity {
            Severity::Problem => "PROBLEM",
            Severity::Warning => "warning",
            Severity::Fine => "fine",
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{word}: {}", finding.summary);
        for detail in &finding.details {
            let _ = writeln!(text, "    {detail}");
        }
        for advice in &finding.advice {
            let _ = writeln!(text, "  → {advice}");
        }
        text.push('\n');
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (problems, warnings) = (count(Severity::Problem), count(Severity::Warning));
    let looked = findings.len();
    let _ = match (problems, warnings) {
        (0, 0) => {
            writeln!(text, "Nothing is wrong: {looked} things were looked at (--all shows them).")
        }
        _ => writeln!(
            text,
            "{problems} problems and {warnings} warnings; {looked} things were looked at."
        ),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fine_is_left_out_unless_asked_for() {
        let findings = [
            Finding::new("a", Severity::Problem, "It is full.")
                .detail("web does not accept.")
                .advise("Restart it."),
            Finding::new("b", Severity::Fine, "All is well."),
        ];
        let expected = "PROBLEM: It is full.\n    web does not accept.\n  → Restart it.\n\n\
                        1 problems and 0 warnings; 2 things were looked at.\n";
        assert_eq!(rendered(&findings, false), expected);
        assert!(rendered(&findings, true).contains("fine: All is well.\n"));
        assert!(rendered(&findings[1..], false).starts_with("Nothing is wrong: 1 things"));
    }
}
