use super::super::census::tests::{retried, socket};
use super::*;
use fourwave_protocol::query::{Owner, SocketTimer, TimerKind};

const PATIENCE: Duration = Duration::from_secs(10);

fn facts(sockets: impl IntoIterator<Item = Socket>) -> Facts {
    let mut facts = Facts { watched: Duration::from_secs(1), ..Facts::default() };
    for socket in sockets {
        facts.census.add(&socket, |port| port == 80);
    }
    facts
}

fn grown(mut facts: Facts, name: &str, by: u64) -> Facts {
    facts.counters.set(name, by);
    facts
}

fn listening(waiting: u32, backlog: u32) -> Socket {
    Socket {
        receive_queue: waiting,
        send_queue: backlog,
        peer: None,
        kind: SocketKind::Listener { syn_queue: 3, v6_only: false, kept: false },
        ..socket(SocketState::Listen, "10.0.0.1")
    }
}

fn text(finding: &Finding) -> String {
    [std::slice::from_ref(&finding.summary), &finding.details, &finding.advice].concat().join("\n")
}

#[test]
fn an_idle_daemon_is_well() {
    let findings = all(&facts([]), PATIENCE);
    assert!(findings.iter().all(|finding| finding.severity == Severity::Fine), "{findings:?}");
    let mut ids: Vec<&str> = findings.iter().map(|finding| finding.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), findings.len(), "each check has a name of its own");
}

#[test]
fn close_wait_is_the_programs_fault_after_a_while() {
    let waiting = |waiting_ms| Socket {
        waiting_ms: Some(waiting_ms),
        ..socket(SocketState::CloseWait, "10.0.0.9")
    };
    let finding = close_wait(&facts([waiting(9_000)]), PATIENCE);
    assert_eq!(finding.severity, Severity::Fine);
    let finding = close_wait(&facts([waiting(9_000), waiting(90_000)]), PATIENCE);
    assert_eq!(finding.severity, Severity::Problem);
    let said = text(&finding);
    for part in ["2 connections in CLOSE_WAIT, for up to 90 s", "web (pid 7): 2", "20 bytes"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let unaccepted = Socket { kind: SocketKind::Unaccepted, ..waiting(30_000) };
    assert!(
        text(&close_wait(&facts([unaccepted]), PATIENCE)).contains("not accepted from port 80")
    );
}

#[test]
fn a_full_accept_queue_names_who_does_not_accept() {
    assert_eq!(accept_queues(&facts([listening(0, 0)])).severity, Severity::Fine);
    assert_eq!(accept_queues(&facts([listening(1, 128)])).severity, Severity::Fine);
    assert_eq!(accept_queues(&facts([listening(100, 128)])).severity, Severity::Warning);
    // Full at backlog + 1, as in Linux.
    assert_eq!(accept_queues(&facts([listening(128, 128)])).severity, Severity::Warning);
    let finding = accept_queues(&facts([listening(129, 128)]));
    assert_eq!(finding.severity, Severity::Problem);
    assert!(text(&finding).contains("10.0.0.1:80 of web (pid 7): 129 connections wait"));
    let overflown = grown(facts([listening(0, 128)]), "ListenOverflows", 4);
    assert_eq!(accept_queues(&overflown).severity, Severity::Problem);
    let mut long_ago = overflown;
    long_ago.earlier.set("ListenOverflows", 4);
    assert_eq!(accept_queues(&long_ago).severity, Severity::Fine);
}

#[test]
fn what_waits_for_a_successor_is_not_the_old_programs_fault() {
    let kept = |waiting| Socket {
        kind: SocketKind::Listener { syn_queue: 0, v6_only: false, kept: true },
        ..listening(waiting, 128)
    };
    assert_eq!(successors(&facts([listening(129, 128)])).severity, Severity::Fine);
    assert_eq!(successors(&facts([kept(0)])).severity, Severity::Fine);
    let full = facts([kept(129)]);
    assert_eq!(accept_queues(&full).severity, Severity::Fine);
    let finding = successors(&full);
    assert_eq!(finding.severity, Severity::Warning);
    let said = text(&finding);
    for part in ["10.0.0.1:80, left by web (pid 7): 129 connections", "within 2s"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let finding = successors(&grown(facts([]), "unaccepted_resets", 4));
    assert_eq!(finding.severity, Severity::Problem);
    assert!(text(&finding).starts_with("4 connections were reset"), "{finding:?}");
}

fn flood(count: u32) -> Vec<Socket> {
    let peer = |number| std::net::Ipv4Addr::from(0x0b00_0000 + number).to_string();
    (0..count).map(|number| retried(SocketState::SynReceived, &peer(number), 2)).collect()
}

#[test]
fn a_flood_is_told_from_lost_acks() {
    let many = facts(flood(1000));
    let finding = handshakes(&many);
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.summary.contains("SYN flood"), "{finding:?}");

    let mut without_cookies = grown(facts(flood(300)), "TCPReqQFullDrop", 50);
    without_cookies.config.tcp.syncookies = 0;
    let finding = handshakes(&without_cookies);
    assert_eq!(finding.severity, Severity::Problem);
    assert!(text(&finding).contains("`tcp.syncookies = 1`"), "{finding:?}");

    let few = (0..20).map(|_| retried(SocketState::SynReceived, "10.0.0.9", 2));
    let finding = handshakes(&facts(few.clone()));
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.summary.starts_with("20 of 20 handshakes"), "{finding:?}");
    assert!(text(&finding).contains("None of these peers"), "{finding:?}");
    let works = socket(SocketState::Established, "10.0.0.9");
    let finding = handshakes(&facts(few.chain([works])));
    assert!(text(&finding).contains("the path to them loses packets"), "{finding:?}");

    let busy = (0..400).map(|_| retried(SocketState::SynReceived, "10.0.0.9", 0));
    assert_eq!(handshakes(&facts(busy.clone())).severity, Severity::Fine);
    let full = grown(facts(busy), "SyncookiesSent", 9);
    assert!(handshakes(&full).summary.contains("than SYN queues hold"));
}

#[test]
fn peers_that_do_not_answer_are_named() {
    let calm = facts([retried(SocketState::FinWait1, "10.0.0.9", 0)]);
    assert_eq!(closing(&calm).severity, Severity::Fine);
    let late = facts([
        retried(SocketState::FinWait1, "10.0.0.9", 3),
        retried(SocketState::LastAck, "10.0.0.8", 0),
    ]);
    let finding = closing(&late);
    assert_eq!(finding.severity, Severity::Warning);
    assert!(text(&finding).contains("10.0.0.9: 1 connections, 1 retried"), "{finding:?}");
    assert!(finding.summary.contains("1 of 2"), "{finding:?}");
}

#[test]
fn both_kinds_of_fin_wait_2() {
    let held = |waiting_ms| Socket {
        waiting_ms: Some(waiting_ms),
        ..socket(SocketState::FinWait2, "10.0.0.9")
    };
    assert_eq!(half_closed(&facts([held(1000)])).severity, Severity::Fine);
    let finding = half_closed(&facts([held(300_000)]));
    assert_eq!(finding.severity, Severity::Warning);
    assert!(text(&finding).contains("for up to 5 min"), "{finding:?}");
    let record = Socket { kind: SocketKind::Record, owner: None, ..held(0) };
    let many = vec![record; 10_001];
    assert_eq!(fin_wait_2(&facts(many[1..].to_vec())).severity, Severity::Fine);
    let finding = fin_wait_2(&facts(many));
    assert_eq!(finding.severity, Severity::Warning);
    assert!(text(&finding).contains("10.0.0.9: 10001"), "{finding:?}");
}

#[test]
fn time_wait_says_who_closes_first_and_whether_that_matters() {
    let record = |port| {
        let socket = socket(SocketState::TimeWait, "10.0.0.9");
        let local = ([10, 0, 0, 1], port).into();
        Socket { local, owner: None, kind: SocketKind::Record, ..socket }
    };
    let finding = time_wait(&facts([record(80), record(80), record(61_000)]));
    assert_eq!(finding.severity, Severity::Fine);
    assert!(finding.summary.contains("on 2 incoming and 1 outgoing"), "{finding:?}");
    assert!(text(&finding).contains("That is no problem"), "{finding:?}");
    assert_eq!(finding.numbers["bytes"], 177);
    let mut small = facts(vec![record(80); 90]);
    small.config.tcp.max_tw_buckets = 100;
    assert_eq!(time_wait(&small).severity, Severity::Warning);
    let over = grown(small, "TCPTimeWaitOverflow", 5);
    let finding = time_wait(&over);
    assert_eq!(finding.severity, Severity::Problem);
    assert!(text(&finding).contains("`tcp.max_tw_buckets`"), "{finding:?}");
}

#[test]
fn ports_that_run_out_and_tables_that_are_full() {
    let mut none_left = grown(facts([]), "no_local_port", 3);
    none_left.config.tcp.tw_reuse = 2;
    let finding = local_ports(&none_left);
    assert_eq!(finding.severity, Severity::Problem);
    assert!(text(&finding).contains("`tcp.tw_reuse = 1`"), "{finding:?}");

    let mut full = grown(facts([]), "connections", 85);
    full.config.limits.connections = 50;
    full.counters.set("workers", 2);
    assert_eq!(tables(&full).severity, Severity::Warning);
    full.counters.set("connections", 79);
    assert_eq!(tables(&full).severity, Severity::Fine);
    let finding = tables(&grown(full, "connections_full", 1));
    assert_eq!(finding.severity, Severity::Problem);
    assert!(text(&finding).contains("`limits.connections`"), "{finding:?}");
}

#[test]
fn lost_frames_and_closed_windows() {
    assert_eq!(packets(&grown(facts([]), "xsk_rx_dropped", 2)).severity, Severity::Problem);
    let timer = SocketTimer { kind: TimerKind::Persist, milliseconds: 5, retries: 4 };
    let stuck = Socket { timer: Some(timer), ..socket(SocketState::Established, "10.0.0.9") };
    let finding = zero_windows(&facts([stuck]));
    assert_eq!(finding.severity, Severity::Warning);
    assert!(text(&finding).contains("10.0.0.9: 1"), "{finding:?}");
}

#[test]
fn a_nic_that_deals_out_otherwise_is_noticed() {
    let with = |workers, by_rss, received, handed| {
        let mut facts = facts([]);
        for (name, value) in [
            ("workers", workers),
            ("workers_by_rss", by_rss),
            ("frames_received", received),
            ("frames_handed_over", handed),
        ] {
            facts.counters.set(name, value);
        }
        queues(&facts)
    };
    for fine in [(1, 0, 9_999_999, 0), (2, 0, 20_000, 10_000), (2, 2, 20_000, 4_000), (2, 2, 9, 9)]
    {
        let (workers, by_rss, received, handed) = fine;
        let finding = with(workers, by_rss, received, handed);
        assert_eq!(finding.severity, Severity::Fine, "{finding:?}");
    }
    let finding = with(2, 2, 20_000, 10_000);
    assert_eq!(finding.severity, Severity::Warning);
    assert!(text(&finding).contains("restart fourwaved"), "{finding:?}");
}

#[test]
fn a_hidden_owner_is_explained() {
    let hidden = Socket { owner: None::<Owner>, ..listening(129, 128) };
    assert!(text(&accept_queues(&facts([hidden]))).contains("ask as root"));
}

#[test]
fn connects_over_the_quota_are_named() {
    let finding = tables(&grown(facts([]), "connects_refused_quota", 4));
    assert_eq!(finding.severity, Severity::Problem);
    assert!(text(&finding).contains("Raise `clients.connections`."));
}
