//! A lab of its own: built, used by kernel sockets, and gone without a trace.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fourwave_bench::compare::{self, CompareConfig, Contender, Progress, Rps};
use fourwave_bench::lab::{
    Lab, LabConfig, LabError, Netns, ProcessRef, Ready, bench_binary, remove_orphans,
};
use fourwave_bench::load::LoadReport;
use fourwave_bench::load::Via;
use fourwave_bench::server;

/// Whether labs can be built here. Where CI is set they must be.
fn privileged() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI has to give it");
    eprintln!("skipped: building a lab needs root");
    false
}

fn assert_gone(config: &LabConfig) {
    for node in [&config.server, &config.client] {
        assert!(!Netns::exists(&node.namespace), "{} is left", node.namespace);
    }
    let folder = Path::new("/run/fourwave-lab").join(&config.name);
    assert!(!folder.exists(), "{} is left", folder.display());
}

#[test]
fn both_ends_reach_each_other_over_both_families() {
    if !privileged() {
        return;
    }
    let config = LabConfig::private("fwt-reach-").queues(2);
    let lab = Lab::up(config.clone()).unwrap();
    let status = lab.status().unwrap();
    for node in [&status.server, &status.client] {
        assert_eq!(node.offloads_on, Vec::<&str>::new(), "offloads of {}", node.interface);
    }
    for address in [lab.server().v4(), lab.server().v6()] {
        let listener = lab.server().run(|| TcpListener::bind((address, 80))).unwrap().unwrap();
        let mut stream = lab.client().run(|| TcpStream::connect((address, 80))).unwrap().unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        stream.write_all(b"ping").unwrap();
        let mut bytes = [0; 4];
        peer.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"ping");
    }
    // `ip netns` sees them as its own, and the second queue is there.
    let output = Command::new("ip")
        .args(["netns", "exec", lab.server().netns().name(), "ls"])
        .arg(format!("/sys/class/net/{}/queues", lab.server().interface()))
        .output()
        .unwrap();
    let queues = String::from_utf8_lossy(&output.stdout);
    assert!(queues.contains("rx-1") && queues.contains("tx-1"), "{output:?}");
    lab.server().set_rps(1).unwrap();
    assert_eq!(lab.server().rps().unwrap().trim_start_matches(['0', ',']), "1");
    lab.down().unwrap();
    assert_gone(&config);
}

#[test]
fn a_lab_in_use_is_not_taken_and_a_foreign_namespace_not_touched() {
    if !privileged() {
        return;
    }
    let config = LabConfig::private("fwt-use-");
    let lab = Lab::up(config.clone()).unwrap();
    assert!(matches!(Lab::up(config.clone()), Err(LabError::InUse { .. })));
    let mut other = LabConfig::private("fwt-other-");
    other.client.namespace.clone_from(&config.client.namespace);
    assert!(matches!(Lab::up(other.clone()), Err(LabError::ForeignNamespace { .. })));
    assert!(lab.client().run(|| ()).is_ok());
    drop(lab);
    assert_gone(&config);
    assert_gone(&other);
}

#[test]
fn what_a_crashed_owner_left_is_removed() {
    if !privileged() {
        return;
    }
    let config = LabConfig::private("fwt-crash-");
    let lab = Lab::up(config.clone()).unwrap();
    let mut program = lab.server().command("sleep").arg("600").spawn().unwrap();
    let reference = ProcessRef::of(i32::try_from(program.id()).unwrap()).unwrap();
    // As if the owner had been another process, which is gone: nobody cleans up.
    let path = lab.folder().join("state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    state["owner"]["start_time"] = 1.into();
    std::mem::forget(lab);
    fs::write(&path, state.to_string()).unwrap();

    assert!(remove_orphans().unwrap().contains(&config.name));
    assert_gone(&config);
    assert!(!reference.is_alive());
    program.wait().unwrap();
}

#[test]
fn two_thousand_connections_without_an_error_and_nothing_left() {
    if !privileged() {
        return;
    }
    let config = LabConfig::private("fwt-load-");
    let mut lab = Lab::up(config.clone()).unwrap();
    let mut programs = Vec::new();
    for (role, address) in [("v4", lab.server().v4()), ("v6", lab.server().v6())] {
        let mut command = lab.server().command(bench_binary().unwrap());
        let target = SocketAddr::new(address, 7777);
        command.arg("serve-kernel").arg(format!("--listen={target}"));
        programs.push(lab.spawn(role, command, Ready::Prints(server::READY)).unwrap());
        let json = lab.folder().join("load.json");
        let status = lab
            .client()
            .command(bench_binary().unwrap())
            .arg("load")
            .arg(format!("--target={target}"))
            .args(lab.client().addresses(address.is_ipv6()).iter().map(|a| format!("--source={a}")))
            .arg("--connections=2000")
            .arg(format!("--json={}", json.display()))
            .status()
            .unwrap();
        assert!(status.success());
        let report: LoadReport = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
        assert_eq!((report.completed, report.error_count()), (2000, 0), "{:?}", report.errors);
        assert_eq!(report.connect_latency.count(), 2000);
        assert!(report.next_source >= 2000);
    }
    // A program that nobody recorded goes too.
    let mut stray = lab.client().command("sleep").arg("600").spawn().unwrap();
    programs.push(ProcessRef::of(i32::try_from(stray.id()).unwrap()).unwrap());
    assert!(programs.iter().all(ProcessRef::is_alive));
    drop(lab);
    assert!(!programs.iter().any(ProcessRef::is_alive));
    stray.wait().unwrap();
    assert_gone(&config);
}

fn kernel_only(lab: LabConfig) -> CompareConfig {
    CompareConfig {
        via: Via::Kernel,
        lab,
        contenders: vec![Contender::Kernel],
        rounds: 2,
        duration: Duration::from_millis(300),
        warm_up: Duration::from_millis(100),
        concurrency: 16,
        rate: None,
        size: 64,
        v6: false,
        server_cpu: 0,
        client_cpu: 0,
        rps: Rps::Off,
        daemon_keys: BTreeMap::new(),
    }
}

#[test]
fn a_comparison_has_the_documented_form() {
    if !privileged() {
        return;
    }
    let config = kernel_only(LabConfig::private("fwt-cmp-"));
    let comparison = compare::run(&config, &AtomicBool::new(false), &Progress::hidden()).unwrap();
    assert_gone(&config.lab);
    let json = serde_json::to_value(&comparison).unwrap();
    let keys = |value: &serde_json::Value| {
        value.as_object().unwrap().keys().cloned().collect::<Vec<String>>()
    };
    assert_eq!(keys(&json), ["ratios", "rows", "settings"]);
    let row = &json["rows"][0];
    assert_eq!(
        keys(row),
        [
            "client",
            "connect_latency_us",
            "connections_per_second",
            "cpu_us_per_connection",
            "errors",
            "retransmits",
            "server"
        ]
    );
    assert_eq!(keys(&row["connect_latency_us"]), ["p50", "p99", "p999"]);
    assert_eq!((row["client"].as_str(), row["server"].as_str()), (Some("kernel"), Some("kernel")));
    assert_eq!(row["errors"], 0);
    assert!(row["connections_per_second"].as_f64().unwrap() > 0.0);
    let table = compare::render(&comparison);
    assert!(table.contains("too short for a steady TIME_WAIT population"), "{table}");
}

#[test]
fn an_interrupted_comparison_leaves_nothing() {
    if !privileged() {
        return;
    }
    let config = CompareConfig {
        duration: Duration::from_secs(600),
        ..kernel_only(LabConfig::private("fwt-stop-"))
    };
    let cancelled = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        let run = scope.spawn(|| compare::run(&config, &cancelled, &Progress::hidden()));
        thread::sleep(Duration::from_millis(800));
        cancelled.store(true, Ordering::Relaxed);
        run.join().unwrap()
    });
    assert!(matches!(result, Err(compare::CompareError::Cancelled)), "{result:?}");
    assert_gone(&config.lab);
}
