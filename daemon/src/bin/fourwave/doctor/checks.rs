//! What is wrong: one function per question that people ask, each a pure function of the facts.

use super::census::{Group, Groups};
use super::facts::Facts;
use super::{Finding, Severity, programs};
use fourwave_protocol::query::{Socket, SocketKind, SocketState};
use std::fmt::Display;
use std::hash::Hash;
use std::time::Duration;

/// Owners and peers that are named; the rest is a number.
const NAMED: usize = 5;

/// A peer that has closed half and says nothing for so long may be gone.
const HALF_CLOSED_PATIENCE_MS: u32 = 60_000;

/// Fewer handshakes under way than this are no flood, whoever they are from.
const FLOOD: u64 = 256;

/// Fewer frames than this say nothing about how the NIC deals them out.
const DOUBT_AFTER: u64 = 10_000;

/// Tables that are fuller than this, per cent, are worth a word.
const NEARLY_FULL: u64 = 80;

/// Bytes of memory of a TIME_WAIT record, its place in the index included.
const TIME_WAIT_BYTES: u64 = 59;

/// Every check, in the order of the life of a connection. A program that has not closed for longer
/// than `patience` after its peer did has most likely forgotten to.
pub(super) fn all(facts: &Facts, patience: Duration) -> Vec<Finding> {
    vec![
        packets(facts),
        queues(facts),
        handshakes(facts),
        accept_queues(facts),
        successors(facts),
        tables(facts),
        programs::programs(facts),
        zero_windows(facts),
        close_wait(facts, patience),
        closing(facts),
        fin_wait_2(facts),
        half_closed(facts),
        time_wait(facts),
        local_ports(facts),
        local_programs(facts),
    ]
}

/// Frames that the kernel dropped before a worker saw them.
fn packets(facts: &Facts) -> Finding {
    let id = "packets";
    let names = ["xsk_rx_fill_ring_empty_descs", "xsk_rx_dropped", "xsk_rx_ring_full"];
    // The kernel counts one frame under several names; the XDP program's SYNs are others.
    let syns = "xdp_drop_syn";
    let lost = names.map(|name| facts.counters.get(name)).into_iter().max().unwrap_or(0)
        + facts.counters.get(syns);
    let now =
        names.map(|name| facts.growth(name)).into_iter().max().unwrap_or(0) + facts.growth(syns);
    let severity = match (now, lost) {
        (0, _) => Severity::Fine,
        (1.., _) => Severity::Problem,
    };
    let summary = match (now, lost) {
        (0, 0) => "No frame was lost on the way to the workers.".to_owned(),
        (0, _) => format!("{} were lost on the way to the workers, none just now.", frames(lost)),
        (1.., _) => format!(
            "The workers do not keep up: {} were lost within {}.",
            frames(now),
            watched(facts)
        ),
    };
    let finding = Finding::new(id, severity, summary)
        .number("lost", lost)
        .number("lost_now", now)
        .number("syns_lost_now", facts.growth(syns));
    match severity {
        Severity::Fine => finding,
        Severity::Warning | Severity::Problem => finding
            .detail(
                "A frame that is lost costs its connection a retransmission or a timeout. SYNs are \
                 dropped first (`rx_syn_limit`), so that connections that exist go on: these clients \
                 try again after a second.",
            )
            .advise(
                "More queues with a core each (`ethtool -L`, `queues`, `cpus`), more packet memory \
                 (`umem_frames`), or `scheduler = \"fifo:10\"` if other programs use the cores.",
            ),
    }
}

/// Frames that arrive at other workers than their connections'.
fn queues(facts: &Facts) -> Finding {
    let id = "queues";
    let received = facts.counters.get("frames_received");
    let handed = facts.counters.get("frames_handed_over");
    let (workers, by_rss) = (facts.counters.get("workers"), facts.counters.get("workers_by_rss"));
    let finding = |severity, summary| {
        Finding::new(id, severity, summary)
            .number("frames", received)
            .number("handed_over", handed)
            .number("workers_by_rss", by_rss)
    };
    if workers < 2 {
        return finding(Severity::Fine, "One worker has all connections.".to_owned());
    }
    if by_rss == 0 {
        let summary = format!(
            "Connections belong to workers by a keyed hash, as the NIC's RSS is not known: {handed} \
             of {received} frames were handed from worker to worker."
        );
        return finding(Severity::Fine, summary);
    }
    if received >= DOUBT_AFTER && handed > received / 4 {
        let summary = format!(
            "The NIC deals frames out otherwise than its driver said when fourwaved started: \
             {handed} of {received} arrived at another worker than their connection's."
        );
        return finding(Severity::Warning, summary)
            .detail("Each of them is copied to its worker: that costs CPU time, and nothing else.")
            .advise(
                "If key or table were changed (`ethtool -X`), restart fourwaved. `ethtool -x` shows \
                 them, `ethtool -n` flows that are steered one by one.",
            );
    }
    let summary =
        format!("Frames arrive where their connections are: {handed} of {received} did not.");
    finding(Severity::Fine, summary)
}

fn frames(count: u64) -> String {
    format!("{count} frames")
}

pub(super) fn watched(facts: &Facts) -> String {
    format!("{:.1} s", facts.watched.as_secs_f64())
}

/// SYN_RCVD: a flood, lost ACKs, or nothing unusual.
fn handshakes(facts: &Facts) -> Finding {
    let id = "syn_rcvd";
    let group = facts.census.handshakes.total();
    let peers = facts.census.handshakes.len() as u64;
    let cookies = facts.growth("SyncookiesSent");
    let dropped = facts.growth("TCPReqQFullDrop") + facts.growth("syn_peer_not_proven");
    let finding = |severity, summary: String| {
        Finding::new(id, severity, summary)
            .number("syn_rcvd", group.sockets)
            .number("peers", peers)
            .number("unanswered", group.retried)
            .number("cookies_sent_now", cookies)
            .number("dropped_now", dropped)
    };
    // A flood comes from addresses that never answer, each of them once or twice.
    let spread = peers * 2 >= group.sockets;
    let flooded = cookies > 0 || dropped > 0 || (group.sockets >= FLOOD && spread);
    if flooded && spread {
        let severity = if dropped > 0 { Severity::Problem } else { Severity::Warning };
        let summary = format!(
            "It looks like a SYN flood: {} handshakes under way from {peers} addresses, {} of them \
             without an answer to our SYN-ACK.",
            group.sockets, group.retried,
        );
        let finding = finding(severity, summary);
        return match facts.config.tcp.syncookies {
            0 => finding
                .detail(format!("{dropped} SYNs were dropped within {}.", watched(facts)))
                .advise("`tcp.syncookies = 1` answers them without memory, and lets others in."),
            _ => finding.detail(format!(
                "{cookies} were answered by cookies within {}: they take no memory, and others get \
                 in.",
                watched(facts)
            )),
        };
    }
    if flooded {
        let summary = format!(
            "More connections begin than SYN queues hold: {} handshakes under way from {peers} \
             addresses.",
            group.sockets
        );
        return finding(Severity::Warning, summary)
            .details(named(&facts.census.handshakes, "handshakes"))
            .advise(
                "A larger backlog in the program's `listen`, up to `tcp.somaxconn`: it limits the \
                 SYN queue too.",
            );
    }
    // Peers that do get through, and yet some handshakes of theirs wait for the last ACK.
    let known = facts.census.handshakes.keys().any(|peer| facts.census.established.contains(peer));
    if group.retried * 4 > group.sockets && group.sockets >= 8 {
        let whose = if known {
            "Some of these peers have other connections that work: the path to them loses packets."
        } else {
            "None of these peers has a connection that works: our SYN-ACKs do not reach them, or a \
             firewall drops their answers."
        };
        let summary = format!(
            "{} of {} handshakes under way wait for an ACK that does not come.",
            group.retried, group.sockets
        );
        return finding(Severity::Warning, summary)
            .detail(whose)
            .details(named(&facts.census.handshakes, "handshakes"))
            .advise("`fourwave capture port PORT` shows whether the ACKs arrive.");
    }
    finding(Severity::Fine, format!("{} handshakes are under way.", group.sockets))
}

/// The largest groups, one a line, and how many there are besides.
fn named<K: Eq + Hash + Ord + Clone + Display>(
    groups: &Groups<K>,
    what: &'static str,
) -> Vec<String> {
    let largest = groups.largest(NAMED);
    let line = |(key, group): &(&K, &Group)| {
        let mut line = format!("{key}: {} {what}", group.sockets);
        if group.retried > 0 {
            line += &format!(", {} retried without an answer", group.retried);
        }
        if group.longest_ms >= 1000 {
            line += &format!(", for up to {}", time(group.longest_ms));
        }
        line
    };
    let mut lines: Vec<String> = largest.iter().map(line).collect();
    let shown: u64 = largest.iter().map(|(_, group)| group.sockets).sum();
    let rest = groups.total().sockets - shown;
    if rest > 0 {
        lines.push(format!("and {rest} more"));
    }
    lines
}

/// `900 ms`, `12 s`, `3 min`, `2 h`.
fn time(milliseconds: u32) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

/// Listeners whose programs do not accept.
fn accept_queues(facts: &Facts) -> Finding {
    let id = "accept_queue";
    let overflows = facts.growth("ListenOverflows");
    let before = facts.counters.get("ListenOverflows");
    // Over the backlog it is full: backlog + 1 fit.
    let is_full = |socket: &&Socket| socket.receive_queue > socket.send_queue;
    let is_filling = |socket: &&Socket| {
        !is_full(socket) && socket.receive_queue > 1 && socket.receive_queue > socket.send_queue / 2
    };
    let held = || facts.census.listeners.iter().filter(|socket| !is_kept(socket));
    let full: Vec<&Socket> = held().filter(is_full).collect();
    let filling: Vec<&Socket> = held().filter(is_filling).collect();
    let finding = |severity, summary: String| {
        Finding::new(id, severity, summary)
            .number("full", full.len() as u64)
            .number("filling", filling.len() as u64)
            .number("overflows_now", overflows)
            .number("overflows", before)
    };
    let advice = "The program accepts too slowly, or not at all: look at what its accepting threads \
                  do. A larger backlog only helps against short bursts (`tcp.somaxconn` caps it).";
    if !full.is_empty() || overflows > 0 {
        let summary = match full.len() {
            0 => format!("Accept queues overflow: {overflows} times within {}.", watched(facts)),
            1 => "An accept queue is full: new connections to it are refused.".to_owned(),
            many => format!("{many} accept queues are full: new connections are refused."),
        };
        let lines = full.iter().chain(&filling).map(|socket| listener(socket));
        return finding(Severity::Problem, summary)
            .details(lines)
            .advise(advice)
            .advise("`fourwave drops ListenOverflows` shows whose connections they were.");
    }
    if !filling.is_empty() {
        let lines = filling.iter().map(|socket| listener(socket));
        return finding(Severity::Warning, "Accept queues are more than half full.".to_owned())
            .details(lines)
            .advise(advice);
    }
    let summary = match before {
        0 => "Accept queues never overflowed.".to_owned(),
        _ => format!("Accept queues have room; they have overflowed {before} times in all."),
    };
    finding(Severity::Fine, summary)
}

/// Listeners whose programs have closed them, or are gone: kept for a while, for a successor.
fn successors(facts: &Facts) -> Finding {
    let id = "successor";
    let kept: Vec<&Socket> = facts.census.listeners.iter().filter(|it| is_kept(it)).collect();
    let waiting: u64 = kept.iter().map(|socket| u64::from(socket.receive_queue)).sum();
    let reset = facts.growth("unaccepted_resets");
    let grace = facts.config.clients.accept_grace;
    let finding = |severity, summary| {
        Finding::new(id, severity, summary)
            .number("kept", kept.len() as u64)
            .number("waiting", waiting)
            .number("reset_now", reset)
            .number("reset", facts.counters.get("unaccepted_resets"))
    };
    let advice = format!(
        "Start the program again within {grace:?} of its end (`clients.accept_grace`, which can be \
         made longer), as the same user."
    );
    if reset > 0 {
        let summary = format!(
            "{reset} connections were reset within {}: their program ended before it had accepted \
             them, and no other took its place.",
            watched(facts)
        );
        let lines = kept.iter().map(|socket| listener(socket));
        return finding(Severity::Problem, summary).details(lines).advise(advice);
    }
    if waiting > 0 {
        let summary = format!("{waiting} connections wait at ports where nobody listens any more.");
        let lines = kept.iter().map(|socket| listener(socket));
        return finding(Severity::Warning, summary).details(lines).advise(advice);
    }
    let summary = match kept.len() {
        0 => "Every port that is served has a program that listens.".to_owned(),
        count => format!("{count} listeners wait for a successor, no connection does."),
    };
    finding(Severity::Fine, summary)
}

fn is_kept(socket: &Socket) -> bool {
    matches!(socket.kind, SocketKind::Listener { kept: true, .. })
}

fn listener(socket: &Socket) -> String {
    let who = match &socket.owner {
        Some(owner) => format!("{} (pid {})", owner.name, owner.pid),
        None => "a program of another user (ask as root)".to_owned(),
    };
    let whose = if is_kept(socket) { ", left by" } else { " of" };
    let syn_queue = match socket.kind {
        SocketKind::Listener { syn_queue, .. } => syn_queue,
        SocketKind::Held | SocketKind::Unaccepted | SocketKind::Orphan | SocketKind::Record => 0,
    };
    format!(
        "{}{whose} {who}: {} connections wait to be accepted, backlog {}; {syn_queue} handshakes",
        socket.local, socket.receive_queue, socket.send_queue,
    )
}

/// The tables that are reserved at start, and the quotas of clients.
fn tables(facts: &Facts) -> Finding {
    let id = "tables";
    let config = &facts.config;
    let workers = facts.counters.get("workers").max(1);
    let per_worker = |limit: u32| u64::from(limit) * workers;
    let tables = [
        ("connections", "connections", per_worker(config.limits.connections), "limits.connections"),
        ("syn_received", "handshakes", per_worker(config.limits.syn), "limits.syn"),
        ("time_wait", "TIME_WAIT records", config.tcp.max_tw_buckets.into(), "tcp.max_tw_buckets"),
        ("orphans", "orphans", config.tcp.max_orphans.into(), "tcp.max_orphans"),
    ];
    let refusals = [
        ("connections_full", "ACKs ignored: no room for another connection", "limits.connections"),
        ("open_refused", "ACKs ignored: the program is over its quota", "clients.connections"),
        (
            "connects_refused_quota",
            "connects refused: the program is over its quota",
            "clients.connections",
        ),
        ("syn_records_full", "SYNs without room for their handshake", "limits.syn"),
        ("TCPTimeWaitOverflow", "closed without TIME_WAIT", "tcp.max_tw_buckets"),
        ("TCPAbortOnMemory", "orphans reset", "tcp.max_orphans"),
    ];
    let mut finding = Finding::new(id, Severity::Fine, "");
    let (mut refused, mut full) = (0_u32, 0_u32);
    for (name, what, key) in refusals {
        let (now, ever) = (facts.growth(name), facts.counters.get(name));
        finding = finding.number(name, ever);
        if now > 0 {
            refused += 1;
            finding = finding
                .detail(format!("{name}: {now} {what} within {} ({ever} in all)", watched(facts)))
                .advise(format!("Raise `{key}`."));
        }
    }
    for (name, what, most, key) in tables {
        let used = facts.counters.get(name);
        finding = finding.number(name, used);
        if used * 100 >= most * NEARLY_FULL && used > 0 {
            full += 1;
            finding = finding
                .detail(format!("{used} {what} of {most} that there is room for"))
                .advise(format!("Raise `{key}`; its memory is reserved at start."));
        }
    }
    finding.advice.dedup();
    (finding.severity, finding.summary) = match (refused, full) {
        (0, 0) => (Severity::Fine, "All tables have room.".to_owned()),
        (0, _) => (Severity::Warning, "A table is nearly full.".to_owned()),
        (1.., _) => (Severity::Problem, "A table is full: connections are refused.".to_owned()),
    };
    finding
}

/// Peers that read nothing.
fn zero_windows(facts: &Facts) -> Finding {
    let id = "zero_window";
    let group = facts.census.zero_window.total();
    let finding = |severity, summary| {
        Finding::new(id, severity, summary).number("connections", group.sockets)
    };
    match group.sockets {
        0 => finding(Severity::Fine, "No peer keeps its window closed.".to_owned()),
        count => finding(
            Severity::Warning,
            format!(
                "{count} connections wait for peers that do not read: their windows are closed."
            ),
        )
        .details(named(&facts.census.zero_window, "connections"))
        .detail("Nothing is wrong here; what the program has written waits in its send buffers.")
        .advise("A timeout in the program, or TCP_USER_TIMEOUT, ends those that never go on."),
    }
}

/// CLOSE_WAIT: the peer has closed, the program has not.
fn close_wait(facts: &Facts, patience: Duration) -> Finding {
    let id = "close_wait";
    let group = facts.census.close_wait.total();
    let finding = |severity, summary| {
        Finding::new(id, severity, summary)
            .number("close_wait", group.sockets)
            .number("longest_ms", group.longest_ms.into())
            .number("unread_bytes", group.unread)
    };
    if u128::from(group.longest_ms) < patience.as_millis() || group.sockets == 0 {
        let summary = match group.sockets {
            0 => "No connection is in CLOSE_WAIT.".to_owned(),
            count => format!("{count} connections in CLOSE_WAIT, none for long."),
        };
        return finding(Severity::Fine, summary);
    }
    let summary = format!(
        "{} connections in CLOSE_WAIT, for up to {}: the peer has closed, the program has not.",
        group.sockets,
        time(group.longest_ms),
    );
    let mut finding =
        finding(Severity::Problem, summary).details(named(&facts.census.close_wait, "connections"));
    if group.unread > 0 {
        finding = finding.detail(format!("{} bytes have come that it has not read", group.unread));
    }
    finding
        .detail("CLOSE_WAIT never ends by itself: it is not the network's state but the program's.")
        .advise(
            "The program has to read to the end (a read that returns 0) and close: look for a lost \
             descriptor, or a thread that hangs. Ending the program closes them all.",
        )
}

/// FIN_WAIT_1, CLOSING and LAST_ACK: we have closed, and the peer does not acknowledge.
fn closing(facts: &Facts) -> Finding {
    let id = "fin_wait_1";
    let group = facts.census.closing.total();
    let counts = [SocketState::FinWait1, SocketState::Closing, SocketState::LastAck];
    let [fin_wait_1, closing, last_ack] = counts.map(|state| facts.census.count(state));
    let finding = |severity, summary| {
        Finding::new(id, severity, summary)
            .number("fin_wait_1", fin_wait_1)
            .number("closing", closing)
            .number("last_ack", last_ack)
            .number("unanswered", group.retried)
    };
    if group.retried == 0 {
        let summary = format!("{} connections are being closed, no peer is late.", group.sockets);
        return finding(Severity::Fine, summary);
    }
    let summary = format!(
        "{} of {} connections that we have closed wait for peers that do not answer \
         (FIN_WAIT_1 {fin_wait_1}, CLOSING {closing}, LAST_ACK {last_ack}).",
        group.retried, group.sockets,
    );
    let retries = match facts.config.tcp.orphan_retries {
        0 => 8,
        retries => retries,
    };
    finding(Severity::Warning, summary)
        .details(named(&facts.census.closing, "connections"))
        .detail(format!(
            "Those that no program holds are given up after the time of {retries} retransmissions. The \
             peers are gone, or the path to them is."
        ))
        .advise("`tcp.orphan_retries` gives them up sooner.")
}

/// FIN_WAIT_2 of closed connections: the peer has our FIN and sends none.
fn fin_wait_2(facts: &Facts) -> Finding {
    let id = "fin_wait_2";
    let group = facts.census.fin_wait_2.total();
    let timeout = facts.config.tcp.fin_timeout;
    let most = u64::from(facts.config.tcp.max_tw_buckets);
    let many = group.sockets * 10 > most || group.sockets > 10_000;
    let severity = if many { Severity::Warning } else { Severity::Fine };
    let summary = format!(
        "{} closed connections wait for the peer's FIN (FIN_WAIT_2), each for {timeout:?} at most.",
        group.sockets
    );
    let finding = Finding::new(id, severity, summary).number("fin_wait_2", group.sockets);
    if !many {
        return finding;
    }
    finding
        .details(named(&facts.census.fin_wait_2, "connections"))
        .detail("These peers have received our end and keep their own side open.")
        .advise("`tcp.fin_timeout` makes the wait shorter; each takes no more than a small record.")
}

/// FIN_WAIT_2 of connections that a program still holds: it has no end.
fn half_closed(facts: &Facts) -> Finding {
    let id = "half_closed";
    let group = facts.census.half_closed.total();
    let finding = |severity, summary| {
        Finding::new(id, severity, summary)
            .number("half_closed", group.sockets)
            .number("longest_ms", group.longest_ms.into())
    };
    if group.longest_ms < HALF_CLOSED_PATIENCE_MS {
        let summary = format!("{} connections are half-closed by programs here.", group.sockets);
        return finding(Severity::Fine, summary);
    }
    let summary = format!(
        "{} connections are half-closed (shutdown, not close) and wait for the peer, for up to {}.",
        group.sockets,
        time(group.longest_ms)
    );
    finding(Severity::Warning, summary)
        .details(named(&facts.census.half_closed, "connections"))
        .detail("As long as the program holds them, nothing limits that wait.")
        .advise("The program should close them after a while, or turn keepalive on.")
}

/// TIME_WAIT: who closes first, and whether that is a problem.
fn time_wait(facts: &Facts) -> Finding {
    let id = "time_wait";
    let served = facts.census.time_wait_served;
    let outgoing = facts.census.time_wait_outgoing.total().sockets;
    let count = served + outgoing;
    let overflow = facts.growth("TCPTimeWaitOverflow");
    let most = u64::from(facts.config.tcp.max_tw_buckets);
    let finding = |severity, summary| {
        Finding::new(id, severity, summary)
            .number("time_wait", count)
            .number("of_served_ports", served)
            .number("outgoing", outgoing)
            .number("bytes", count * TIME_WAIT_BYTES)
            .number("overflow_now", overflow)
    };
    let kept = format!(
        "It is kept for {:?} so that late segments do not end up in a new connection, and takes {} \
         of memory ({TIME_WAIT_BYTES} bytes each).",
        facts.config.tcp.time_wait,
        size(count * TIME_WAIT_BYTES),
    );
    let who = match (served >= outgoing, count) {
        (_, 0) => "No connection is in TIME_WAIT.".to_owned(),
        (true, _) => format!(
            "{count} connections are in TIME_WAIT: programs here close first, on {served} incoming \
             and {outgoing} outgoing connections."
        ),
        (false, _) => format!(
            "{count} connections are in TIME_WAIT: programs here close first, mostly on connections \
             that they opened ({outgoing}; {served} incoming)."
        ),
    };
    if overflow > 0 {
        return finding(Severity::Problem, who)
            .detail(format!(
                "There is room for {most}, and {overflow} connections within {} ended without it.",
                watched(facts)
            ))
            .detail(kept)
            .advise("Raise `tcp.max_tw_buckets` above closes per second × `tcp.time_wait`.");
    }
    if count * 100 >= most * NEARLY_FULL {
        return finding(Severity::Warning, who)
            .detail(format!("There is room for {most}."))
            .detail(kept)
            .advise("Raise `tcp.max_tw_buckets` above closes per second × `tcp.time_wait`.");
    }
    let finding = finding(Severity::Fine, who);
    match count {
        0 => finding,
        _ => finding.detail(format!("That is no problem. {kept}")),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// Local ports of outgoing connections: used up towards one peer, most often by TIME_WAIT.
fn local_ports(facts: &Facts) -> Finding {
    let id = "local_ports";
    let refused = facts.growth("no_local_port");
    let ever = facts.counters.get("no_local_port");
    let waiting = &facts.census.time_wait_outgoing;
    let finding = |severity, summary: &str| {
        Finding::new(id, severity, summary)
            .number("refused_now", refused)
            .number("refused", ever)
            .number("outgoing_time_wait", waiting.total().sockets)
    };
    if refused == 0 {
        return finding(Severity::Fine, "Outgoing connections find local ports.");
    }
    let mut finding = finding(
        Severity::Problem,
        "Local ports are used up: outgoing connections fail (EADDRNOTAVAIL).",
    )
    .detail(format!(
        "Within {} a worker had none left {refused} times ({ever} in all). Each has its share; the \
         connection fails when no other worker has one either.",
        watched(facts)
    ))
    .details(named(waiting, "ports in TIME_WAIT"));
    if facts.config.tcp.tw_reuse != 1 {
        finding = finding.advise(
            "`tcp.tw_reuse = 1` takes ports out of TIME_WAIT where timestamps make that safe.",
        );
    }
    finding
        .advise("More ports in `local_ports` (outside the kernel's ip_local_port_range).")
        .advise("Keep connections open and use them again.")
}

/// What surprises people on the same machine.
fn local_programs(facts: &Facts) -> Finding {
    let ports: Vec<String> = {
        let mut ports: Vec<u16> =
            facts.census.listeners.iter().map(|listener| listener.local.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        ports.iter().take(NAMED).map(ToString::to_string).collect()
    };
    let summary = match ports.as_slice() {
        [] => "No port is served.".to_owned(),
        _ => format!("Ports {} are served to the network.", ports.join(", ")),
    };
    Finding::new("local_programs", Severity::Fine, summary).detail(
        "Programs on this machine that use kernel sockets do not reach served ports: what they send \
         to an own address never passes the interface. They have to use fourwave too, or another \
         machine.",
    )
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
