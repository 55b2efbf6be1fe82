//! `fourwave-bench engine`: what it writes, not how fast anything is.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_quick_run_writes_every_figure() {
    let folder = std::env::temp_dir().join(format!("fwt-engine-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let json = folder.join("engine.json");
    let output = Command::new(env!("CARGO_BIN_EXE_fourwave-bench"))
        .args(["engine", "--quick", "--rounds", "2", "--json"])
        .arg(&json)
        .output()
        .unwrap();
    let written = std::fs::read_to_string(&json).unwrap_or_default();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("smoltcp") && table.contains("load average"), "{table}");

    let report: Value = serde_json::from_str(&written).unwrap();
    let number = |path: &str| report.pointer(path).and_then(Value::as_f64);
    for path in [
        "/lifecycle_ns",
        "/lifecycle_ns_100k",
        "/lifecycle_ns_loaded",
        "/lifecycle_ns_batched_loaded",
        "/smoltcp_lifecycle_ns",
        "/smoltcp_lifecycle_ns_idle_1000",
        "/time_wait_ns/insert",
        "/time_wait_ns/expire",
        "/time_wait_ns/takeover",
        "/timer_ns/arm",
        "/timer_ns/cancel",
        "/timer_ns/expire",
        "/syn_cookie_ns",
        "/ratios/loaded_by_empty/median",
        "/spread/lifecycle_ns/min",
        "/settings/load_average",
    ] {
        assert!(number(path).is_some(), "{path} is missing: {report:#}");
    }
    // A record is 52 bytes and its share of the index 6.7; the process grows by whole pages.
    let bytes = number("/time_wait_bytes").unwrap();
    assert!((50.0..90.0).contains(&bytes), "{bytes}");
}
