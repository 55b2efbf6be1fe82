//! Runs the segment scripts of `tests/scripts`, each of them a test of its name; see the README
//! there. `cargo test -p fourwave-stack --test script closing` runs those whose name contains
//! "closing".

#[path = "../common/mod.rs"]
mod common;
mod flow;
mod frames;
mod language;
mod look;
mod opening;
mod requirements;
mod run;
#[path = "../../../tcp/tests/connection/segment.rs"]
mod segment;
mod selftest;
mod setup;
mod transitions;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::language::Script;
use crate::transitions::Taken;

fn main() -> ExitCode {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let scripts = match language::load(&folder) {
        Ok(Ok(scripts)) => Arc::new(scripts),
        Ok(Err(error)) => panic!("{error}"),
        Err(error) => panic!("{}: {error}", folder.display()),
    };
    let mut trials: Vec<Trial> = (0..scripts.len()).map(|i| trial(&scripts, i)).collect();
    let all = Arc::clone(&scripts);
    trials.push(Trial::test("every_transition_is_taken", move || every_transition_is_taken(&all)));
    let all = Arc::clone(&scripts);
    let requirements = move || requirements::check(&all).map_err(Failed::from);
    trials.push(Trial::test("requirements_name_what_exists", requirements));
    let all = Arc::clone(&scripts);
    let ipv6 = move || all.iter().try_for_each(run::run_over_ipv6).map_err(Failed::from);
    trials.push(Trial::test("the_same_holds_over_ipv6", ipv6));
    let selftest = || selftest::check().map_err(Failed::from);
    trials.push(Trial::test("wrong_scripts_fail", selftest));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(scripts: &Arc<Vec<Script>>, index: usize) -> Trial {
    let scripts = Arc::clone(scripts);
    let name = scripts[index].name.clone();
    Trial::test(name, move || run::run(&scripts[index]).map(drop).map_err(Failed::from))
}

/// What the table of transitions allows happens in some script.
fn every_transition_is_taken(scripts: &[Script]) -> Result<(), Failed> {
    let taken: Taken =
        scripts.iter().flat_map(|script| run::run(script).unwrap_or_default()).collect();
    let missing: Taken = transitions::all().difference(&taken).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("no script goes\n{}", transitions::describe(&missing)).into())
}
