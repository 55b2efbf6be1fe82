//! fourwave beside the kernel, through the whole path: kernel client, veth, XDP, AF_XDP, daemon,
//! shared memory, library, server.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fourwave_bench::compare::{self, CompareConfig, Comparison, Contender, Progress, Rps};
use fourwave_bench::lab::{LabConfig, daemon_binary};

/// Whether this can run. Where CI is set it must.
fn possible() -> bool {
    let problem = match daemon_binary() {
        _ if !rustix::process::geteuid().is_root() => "building a lab needs root".to_owned(),
        Ok(_) => return true,
        Err(error) => error.to_string(),
    };
    assert!(std::env::var_os("CI").is_none(), "{problem}");
    eprintln!("skipped: {problem}");
    false
}

fn compare(name: &str, v6: bool) -> Comparison {
    let cpus = fourwave_bench::machine::cpus().unwrap();
    let config = CompareConfig {
        lab: LabConfig::private(name),
        contenders: vec![Contender::Kernel, Contender::Fourwave],
        rounds: 2,
        duration: Duration::from_millis(500),
        warm_up: Duration::from_millis(200),
        concurrency: 32,
        rate: None,
        size: 64,
        v6,
        server_cpu: *cpus.last().unwrap(),
        client_cpu: cpus[0],
        rps: Rps::Off,
        daemon_keys: BTreeMap::new(),
    };
    compare::run(&config, &AtomicBool::new(false), &Progress::hidden()).unwrap()
}

#[test]
fn both_servers_serve_without_an_error() {
    if !possible() {
        return;
    }
    for (name, v6) in [("fwt-both4-", false), ("fwt-both6-", true)] {
        let comparison = compare(name, v6);
        let servers: Vec<&str> = comparison.rows.iter().map(|row| row.server).collect();
        assert_eq!(servers, ["kernel", "fourwave"]);
        for row in &comparison.rows {
            assert!(row.connections_per_second > 0.0, "{row:?}");
            assert_eq!(row.errors, 0, "{row:?}");
        }
        let settings = &comparison.settings;
        assert!(settings.time_wait_overflow.values().all(|&count| count == 0), "{settings:?}");
        let fourwave = settings.fourwave.as_ref().unwrap();
        assert!(["native", "generic"].contains(&fourwave.xdp_mode), "{fourwave:?}");
        let ratio = comparison.ratios["kernel_client_cps"];
        assert!(ratio.min <= ratio.median && ratio.median <= ratio.max, "{ratio:?}");
    }
}
