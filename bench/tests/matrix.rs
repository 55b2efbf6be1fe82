//! The whole comparison, as short as it can be: that everything is measured and reported, not what.

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use fourwave_bench::compare::Progress;
use fourwave_bench::matrix::{self, MatrixConfig, Scope};
use serde_json::Value;
use support::possible;

/// Names that others read; they do not change.
const RATIOS: [&str; 13] = [
    "server_bound_cps",
    "best_placement_cps",
    "cps_to_limit",
    "p99_connect_half_load",
    "p99_connect_full_load",
    "server_cpu_per_connection",
    "kernel_client_cps",
    "bulk_from_server",
    "bulk_to_server",
    "bulk_from_server_free",
    "bulk_to_server_free",
    "overload_cps",
    "idle_daemon_cpu",
];

#[test]
fn everything_is_measured_and_reported() {
    if !possible() {
        return;
    }
    let cpus = fourwave_bench::machine::cpus().unwrap();
    let [client_cpu, server_cpu] = [cpus[0], *cpus.last().unwrap()];
    if client_cpu == server_cpu {
        eprintln!("skipped: servers and load need a CPU each");
        return;
    }
    let name = format!("fwt-mx{}-", std::process::id());
    let config = MatrixConfig::new(Scope::Quick, name, server_cpu, client_cpu);
    let report = matrix::run(&config, &AtomicBool::new(false), &Progress::hidden()).unwrap();
    assert_eq!(report.failures(), Vec::<String>::new());

    let json: Value = serde_json::from_slice(&serde_json::to_vec(&report).unwrap()).unwrap();
    for name in RATIOS {
        let judged = &json["ratios"][name];
        assert!(judged["ratio"]["median"].as_f64().is_some_and(f64::is_finite), "{name}: {judged}");
        assert!(judged["aim"].is_number() && judged["met"].is_boolean(), "{name}: {judged}");
    }
    let rows = json["rows"].as_array().unwrap();
    let of = |id: &str| -> BTreeSet<&str> {
        let rows = rows.iter().filter(|row| row["id"] == id);
        rows.map(|row| row["server"].as_str().unwrap()).collect()
    };
    assert_eq!(of("server_bound"), BTreeSet::from(["fourwave", "kernel", "limit"]));
    assert_eq!(of("best_placement"), BTreeSet::from(["fourwave", "kernel", "limit"]));
    for id in ["kernel_client", "keep_alive_10", "half_load", "full_load", "overload"] {
        assert_eq!(of(id), BTreeSet::from(["fourwave", "kernel"]), "{id}");
    }
    for row in rows {
        // Of clients that soon give up the kernel may serve none when it is overloaded.
        let may_fail = row["id"] == "overload" && row["server"] == "kernel";
        let fewest = if may_fail { 0.0 } else { f64::MIN_POSITIVE };
        assert!(row["per_second"]["median"].as_f64().unwrap() >= fewest, "{row}");
        // SYN, request and FIN at least, but for connections that stay.
        let keeps = row["id"].as_str().unwrap().starts_with("keep_alive");
        let fewest = if keeps { 0.9 } else { 2.9 };
        for way in ["frames_in", "frames_out"] {
            assert!(row[way].as_f64().unwrap() >= fewest, "{way}: {row}");
        }
        if !keeps && !may_fail && row["server"] != "limit" {
            assert!(row["accept_us"]["count"].as_u64().unwrap() > 0, "{row}");
        }
        // Where the kernel lets us count at all.
        assert!(row["syscalls"].is_null() || row["syscalls"].as_f64().unwrap() > 0.0, "{row}");
    }
    let placed = rows.iter().filter(|row| !row["placed"].is_null());
    for row in placed {
        assert_eq!(row["placed"]["holds"], true, "{row}");
    }
    for memory in json["memory"].as_array().unwrap() {
        assert!(memory["bytes_per_connection"].as_f64().unwrap() > 0.0, "{memory}");
    }
    let series: BTreeSet<&str> = report.scaling.iter().map(|series| series.id).collect();
    let all = ["both", "clients", "idle", "listeners", "threads", "time_wait", "workers"];
    assert_eq!(series, BTreeSet::from(all));
    for point in report.scaling.iter().flat_map(|series| &series.points) {
        assert!(point.per_second > 0.0 && point.to_plain.min > 0.0, "{point:?}");
    }

    let table = matrix::render(&report);
    assert!(table.contains("server_bound_cps") && table.contains("tcp_max_tw_buckets"), "{table}");
    let page = matrix::page(&report);
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(&page, options).unwrap();
    let count =
        |name: &str| document.descendants().filter(|node| node.tag_name().name() == name).count();
    assert!(count("svg") >= 7 + series.len(), "{} charts", count("svg"));
    assert!(count("tr") > rows.len());
    // Nothing is fetched: no address at all but the name of the SVG namespace.
    let without_names = page.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http:", "https:", "src=", "href=", "url(", "@import"] {
        assert!(!without_names.contains(outside), "{outside}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf "));
}
