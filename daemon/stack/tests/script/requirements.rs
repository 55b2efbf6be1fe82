//! The table of requirements (`daemon/tcp/requirements.md`) names what exists, and all numbers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::language::Script;

/// How many of each kind RFC 9293 has.
const KINDS: [(&str, u32); 4] = [("MUST", 69), ("SHLD", 31), ("MAY", 18), ("REC", 1)];

/// Everything that is wrong with the table, a line each.
pub(crate) fn check(scripts: &[Script]) -> Result<(), String> {
    let daemon = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(daemon.join("tcp/requirements.md"))
        .map_err(|error| format!("requirements.md: {error}"))?;
    let scripts: BTreeSet<&str> = scripts.iter().map(|script| script.name.as_str()).collect();
    let mut missing: BTreeSet<String> = KINDS
        .iter()
        .flat_map(|(kind, count)| (1..=*count).map(move |number| format!("{kind}-{number}")))
        .collect();
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(page.lines()) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let mut complain = |what: String| wrong.push(format!("requirements.md:{number}: {what}"));
        let names = line.split('`').skip(1).step_by(2);
        for name in names.filter(|name| name.contains('/') && line.starts_with('|')) {
            if let Err(error) = look_up(&daemon, &scripts, name) {
                complain(error);
            }
        }
        let [_, id, what, place, tests, _] = cells[..] else { continue };
        if !KINDS.iter().any(|(kind, _)| id.starts_with(&format!("{kind}-"))) {
            continue;
        }
        if !missing.remove(id) {
            complain(format!("{id} is no number, or here twice"));
        }
        let declined = place.contains("not obeyed") || place.contains("not taken");
        if what.is_empty() || (tests == "–") == tests.contains('`') {
            complain(format!("{id}: say what, and a test or –"));
        }
        if !declined && (!place.contains('`') || tests == "–") && id != "SHLD-13" {
            complain(format!("{id}: obeyed where, tested by what?"));
        }
    }
    wrong.extend(missing.into_iter().map(|id| format!("{id} has no row")));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// `file.rs::function`, or a script.
fn look_up(daemon: &Path, scripts: &BTreeSet<&str>, name: &str) -> Result<(), String> {
    let (file, function) = name.split_once("::").unwrap_or((name, ""));
    if !file.ends_with(".rs") {
        let known = scripts.contains(name) || daemon.join(name).exists();
        return if known { Ok(()) } else { Err(format!("no script {name}")) };
    }
    let source = fs::read_to_string(daemon.join(file)).map_err(|_| format!("no file {file}"))?;
    let defines = |line: &str| {
        let after = line.split_once("fn ").map(|(_, rest)| rest);
        after.is_some_and(|rest| {
            rest.strip_prefix(function).is_some_and(|rest| rest.starts_with(['(', '<']))
        })
    };
    if function.is_empty() || source.lines().any(defines) {
        Ok(())
    } else {
        Err(format!("no function {function} in {file}"))
    }
}
