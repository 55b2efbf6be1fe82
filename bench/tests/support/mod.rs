//! What the tests with a daemon have in common.

use std::io::{self, Write};

use fourwave_bench::lab::daemon_binary;

/// Whether a lab with a daemon can be built. Where CI is set it must.
pub(crate) fn possible() -> bool {
    let problem = match daemon_binary() {
        _ if !rustix::process::geteuid().is_root() => "building a lab needs root".to_owned(),
        Ok(_) => return true,
        Err(error) => error.to_string(),
    };
    assert!(std::env::var_os("CI").is_none(), "{problem}");
    // Not eprintln!, which the test harness keeps to itself.
    let _ = writeln!(io::stderr(), "skipped: {problem}");
    false
}
