//! fourwave beside the kernel, through the whole path: kernel client, veth, XDP, AF_XDP, daemon,
//! shared memory, library, server.

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use fourwave_bench::compare::{self, CompareConfig, Comparison, Contender, Progress, Rps};
use fourwave_bench::lab::{DaemonOptions, Lab, LabConfig, Ready, Side, bench_binary};
use fourwave_bench::limit::{self, LimitConfig};
use fourwave_bench::load::xdp::XdpMode;
use fourwave_bench::load::{self, LoadConfig, Until, Via};
use fourwave_bench::machine::ProcessTimes;
use fourwave_bench::server;
use support::possible;

fn compare(name: &str, via: Via, v6: bool, duration: Duration) -> Comparison {
    let cpus = fourwave_bench::machine::cpus().unwrap();
    let config = CompareConfig {
        lab: LabConfig::private(name),
        via,
        contenders: vec![Contender::Kernel, Contender::Fourwave],
        rounds: 2,
        duration,
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

/// Compares with loads so long that either server completes connections in them.
fn compare_until_served(name: &str, via: Via, v6: bool) -> Comparison {
    let mut duration = Duration::from_millis(500);
    loop {
        let comparison = compare(name, via, v6, duration);
        for row in &comparison.rows {
            assert_eq!(row.errors, 0, "{row:?}");
        }
        if comparison.rows.iter().all(|row| row.connections_per_second > 0.0) {
            return comparison;
        }
        // Something else may have had the CPUs all the while.
        assert!(duration < Duration::from_secs(10), "in {duration:?}: {:?}", comparison.rows);
        duration *= 2;
    }
}

#[test]
fn both_servers_serve_without_an_error() {
    if !possible() {
        return;
    }
    let runs = [
        ("fwt-both4-", Via::Kernel, false, "kernel_client_cps"),
        ("fwt-both6-", Via::Kernel, true, "kernel_client_cps"),
        ("fwt-bothx-", Via::Xdp, false, "best_placement_cps"),
    ];
    for (name, via, v6, ratio) in runs {
        let comparison = compare_until_served(name, via, v6);
        let servers: Vec<&str> = comparison.rows.iter().map(|row| row.server).collect();
        assert_eq!(servers, ["kernel", "fourwave"]);
        let settings = &comparison.settings;
        assert!(settings.time_wait_overflow.values().all(|&count| count == 0), "{settings:?}");
        let fourwave = settings.fourwave.as_ref().unwrap();
        assert!(["native", "generic"].contains(&fourwave.xdp_mode), "{fourwave:?}");
        let ratio = comparison.ratios[ratio];
        assert!(ratio.min <= ratio.median && ratio.median <= ratio.max, "{ratio:?}");
    }
}

#[test]
fn connections_from_frames_reach_both_servers() {
    if !possible() {
        return;
    }
    let mut lab = Lab::up(LabConfig::private("fwt-xdp-")).unwrap();
    let config = lab.daemon_config(Side::Server, &DaemonOptions::default());
    lab.start_daemon(Side::Server, &config).unwrap();
    for (server, port) in [("kernel", 7778), ("fourwave", 7777)] {
        let mut command = lab.server().command(bench_binary().unwrap());
        command.arg(format!("serve-{server}")).arg("--size=64");
        command.env("FOURWAVE_SOCKET", lab.control_socket(Side::Server));
        for address in [lab.server().v4(), lab.server().v6()] {
            command.arg(format!("--listen={}", SocketAddr::new(address, port)));
        }
        lab.spawn(server, command, Ready::Prints(server::READY)).unwrap();
        for v6 in [false, true] {
            let target = if v6 { lab.server().v6() } else { lab.server().v4() };
            let config = LoadConfig {
                sources: lab.client().addresses(v6),
                first_source: 0,
                size: 64,
                concurrency: 16,
                rate: None,
                until: Until::Connections(2000),
                timeout: Duration::from_secs(30),
                ..LoadConfig::new(SocketAddr::new(target, port))
            };
            let run = || load::xdp::run(&config, XdpMode::Auto, &AtomicBool::new(false));
            let report = lab.client().run(run).unwrap().unwrap();
            assert_eq!((report.completed, report.error_count()), (2000, 0), "{report:?}");
            assert_eq!(report.connect_latency.count(), 2000);
            // SYN, request and FIN; what was sent again comes on top.
            assert!(report.frames_sent >= 3 * 2000 + report.client_retransmits, "{report:?}");
        }
    }
    let status = lab.status().unwrap();
    assert_eq!(status.client.xdp, None, "the program is taken off again");
}

#[test]
fn the_limit_is_measured_without_an_error() {
    if !possible() {
        return;
    }
    let cpus = fourwave_bench::machine::cpus().unwrap();
    let config = LimitConfig {
        lab: LabConfig::private("fwt-lim-"),
        duration: Duration::from_millis(500),
        concurrency: 16,
        size: 64,
        v6: false,
        xdp_mode: "generic".to_owned(),
        server_cpu: *cpus.last().unwrap(),
        client_cpu: cpus[0],
        rps: Rps::Off,
    };
    let limit = limit::run(&config, &AtomicBool::new(false)).unwrap();
    assert_eq!(limit.errors, 0, "{limit:?}");
    // It answers every SYN, request and FIN.
    assert!(limit.frames_answered_per_second > 2.9 * limit.connections_per_second, "{limit:?}");
}

/// It is there while others are measured.
#[test]
fn a_responder_without_a_load_leaves_its_cpu_to_others() {
    if !possible() {
        return;
    }
    let mut lab = Lab::up(LabConfig::private("fwt-rest-")).unwrap();
    let listen = SocketAddr::new(lab.server().v4(), 7777);
    let mut command = lab.server().command(bench_binary().unwrap());
    command
        .arg("serve-reflector")
        .arg(format!("--interface={}", lab.server().interface()))
        .arg(format!("--listen={listen}"));
    let responder = lab.spawn("reflector", command, Ready::Prints(server::READY)).unwrap();
    let cpu = || ProcessTimes::read(responder.pid).unwrap().running_ns;
    // Starting it takes some, and time that a host takes from its guest counts as the running
    // thread's. One that polls without a load has no such pause however long one looks.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let before = cpu();
        std::thread::sleep(Duration::from_millis(600));
        let taken = Duration::from_nanos(cpu() - before);
        if taken < Duration::from_millis(200) {
            break;
        }
        assert!(Instant::now() < deadline, "{taken:?} of 600 ms");
    }
}
