//! What each counter and gauge says, in a sentence: for `fourwave stats` and for Prometheus.

use crate::control::Denied;
use crate::port::Evict;
use fourwave_ebpf_common::Verdict;

/// Those that are not the stack's.
const TEXTS: &[(&str, &str)] = &[
    ("connections", "Connections with a full control block, now."),
    ("orphans", "Of those, the ones that no application holds any more, now."),
    ("syn_received", "Handshakes under way that a small record keeps, now."),
    ("time_wait", "Records of TIME_WAIT, and of FIN_WAIT_2 without an application, now."),
    ("timers", "Armed timers, now."),
    ("sockets", "Flows of all kinds by TCP state, now."),
    ("clients", "Programs connected to the control socket, now."),
    ("groups", "Application groups, with those that are gone and still close, now."),
    ("listeners", "Listeners, now."),
    ("accept_queue", "Connections that wait for accept, by listener, now."),
    ("accept_backlog", "The limit of that: the listener's backlog (one more fits)."),
    ("syn_queue", "Handshakes under way in the SYN queue, by listener, now."),
    ("frames_received", "Frames taken from the NIC queues."),
    ("frames_handed_over", "Frames that arrived at a worker which does not own their connection."),
    ("frames_taken_over", "Frames that owners took from other workers."),
    ("frames_without_owner", "Frames that belong to no connection: refused, or ICMP."),
    (
        "workers_by_rss",
        "Workers that own the flows which the NIC's RSS brings to their queue, now; 0: a keyed hash.",
    ),
    ("commands", "Commands of clients."),
    ("stale_handles", "Commands about connections that were gone already."),
    ("connects_refused_draining", "Active opens refused because the daemon is about to stop."),
    ("connects_refused_quota", "Active opens refused by the client's quota (clients.connections)."),
    ("turns", "Rounds of the workers' poll loops."),
    ("sleeps", "How often a worker found nothing to do and slept."),
    ("clients_evicted", "Clients disconnected because they wrote what no correct client writes."),
    (
        "clients_refused",
        "Programs, or what they asked for, refused by a rule or a limit; they were told which.",
    ),
    ("tx_device_drops", "Frames that the device dropped on their way out; they are sent again."),
    (
        "xsk_rx_dropped",
        "Frames that the kernel dropped before an AF_XDP socket; with copies, those without a \
         buffer too.",
    ),
    (
        "xsk_rx_invalid_descs",
        "Descriptors in a fill ring that the kernel refused: a fault of ours.",
    ),
    ("xsk_tx_invalid_descs", "Descriptors in a TX ring that the kernel refused: a fault of ours."),
    ("xsk_rx_ring_full", "Frames that found no place in a worker's RX ring: a fault of ours."),
    (
        "xsk_rx_fill_ring_empty_descs",
        "Frames lost because the worker had not taken earlier ones in time (umem_frames, scheduler).",
    ),
    ("xsk_tx_ring_empty_descs", "How often the kernel looked for a frame to send and found none."),
];

/// What a counter or gauge says; `label` is its reason or state if it is one of a family.
pub fn explain(name: &str, label: Option<&str>) -> Option<&'static str> {
    if let Some(text) = fourwave_stack::explain(name, label) {
        return Some(text);
    }
    if let Some(verdict) = name.strip_prefix("xdp_") {
        let known = Verdict::ALL.into_iter().find(|known| known.name() == verdict);
        return known.map(Verdict::explain);
    }
    if name == "clients_evicted"
        && let Some(label) = label
    {
        return Evict::ALL.into_iter().find(|why| why.name() == label).map(Evict::reason);
    }
    if name == "clients_refused"
        && let Some(label) = label
    {
        return Denied::ALL.into_iter().find(|why| why.name() == label).map(Denied::explain);
    }
    TEXTS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// What tells the members of a family apart.
pub fn label(name: &str) -> &'static str {
    match name {
        "sockets" => "state",
        "accept_queue" | "accept_backlog" | "syn_queue" => "listener",
        _ => "reason",
    }
}
