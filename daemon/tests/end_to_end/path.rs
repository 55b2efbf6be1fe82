//! What lies between the two ends: routers that mark, links that take small packets only, and routers
//! that do not say so.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use fourwave_bench::lab::{LabConfig, Node, Side};

use crate::support::carrier::{Carrier, Fate, ecn, mark, packet, tcp, too_big};
use crate::support::{Bed, FAMILIES, eventually};
use crate::transfer::both_at_once;

/// Bytes each way.
const LENGTH: u64 = 400_000;

const ECE: u8 = 0x40;
const CWR: u8 = 0x80;
const ECT_0: u8 = 0b10;

/// A setting of a node's kernel, below `/proc/sys/net`.
fn set(node: &Node, name: &str, value: &str) {
    let write = || fs::write(format!("/proc/sys/net/{name}"), value);
    node.run(write).expect("the namespace can be entered").expect("the kernel has this setting");
}

/// What a node's kernel counts, from `/proc/net/netstat` and `/proc/net/snmp6`.
fn kernel_counts(node: &Node) -> BTreeMap<String, u64> {
    // Not /proc/net, which is the process's, whatever namespace the thread is in.
    let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    let texts = node.run(|| ["netstat", "snmp6"].map(read)).expect("the namespace can be entered");
    let [text, of_v6]: [String; 2] = texts.map(|text| text.expect("it is there"));
    let lines: Vec<&str> = text.lines().collect();
    let mut counts = BTreeMap::new();
    for line in of_v6.lines() {
        let (name, value) = line.split_once(char::is_whitespace).expect("a name and a value");
        counts.insert(name.to_owned(), value.trim().parse().expect("a number"));
    }
    for pair in lines.chunks_exact(2) {
        let names = pair[0].split_whitespace().skip(1);
        let values = pair[1].split_whitespace().skip(1).map(|value| value.parse().unwrap_or(0));
        counts.extend(names.map(str::to_owned).zip(values));
    }
    counts
}

/// What a carrier saw of fourwave's segments.
#[derive(Default)]
struct Seen {
    markable_data: AtomicU32,
    markable_other: AtomicU32,
    reactions: AtomicU32,
    echoes: AtomicU32,
}

impl Seen {
    fn note(&self, frame: &[u8]) {
        let Some((flags, len)) = tcp(packet(frame)) else { return };
        let count = |counter: &AtomicU32, on: bool| {
            counter.fetch_add(u32::from(on), Ordering::Relaxed);
        };
        let markable = ecn(packet(frame)) == ECT_0;
        count(&self.markable_data, markable && len > 0);
        count(&self.markable_other, markable && len == 0);
        let is_syn = flags & 2 != 0;
        count(&self.reactions, !is_syn && len > 0 && flags & CWR != 0);
        count(&self.echoes, !is_syn && flags & ECE != 0);
    }

    fn get(&self) -> [u32; 4] {
        [&self.markable_data, &self.markable_other, &self.reactions, &self.echoes]
            .map(|counter| counter.load(Ordering::Relaxed))
    }
}

#[test]
fn marks_are_echoed_and_reacted_to() {
    let settings = [("tcp.ecn", "1")];
    let Some(bed) = Bed::with("ecn", LabConfig::relayed, &settings) else { return };
    set(bed.client(), "ipv4/tcp_ecn", "1");
    let seen = Arc::new(Seen::default());
    let watched = Arc::clone(&seen);
    let mut count = 0_u32;
    let _carrier = Carrier::start(&bed, move |from, frame| {
        if from == Side::Server {
            watched.note(frame);
        }
        // One in twenty of what can be marked is, in both directions.
        if packet(frame).len() > 20 && ecn(packet(frame)) == ECT_0 {
            count += 1;
            if count.is_multiple_of(20) {
                mark(frame);
            }
        }
        Fate::Pass
    });
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let listener = bed.listen(&runtime, bed.server_address(v6, 7777));
        for (fourwave, kernel) in [bed.connected_pair(&listener), bed.opened_pair(&runtime, v6)] {
            let before = (kernel_counts(bed.client()), seen.get());
            both_at_once(&fourwave, &kernel, LENGTH);
            let after = (kernel_counts(bed.client()), seen.get());
            let grown = |name: &str| after.0[name] - before.0[name];
            // Ours, as the kernel's IP saw them, and its own that were echoed by us.
            let (markable, marked) = match v6 {
                true => ("Ip6InECT0Pkts", "Ip6InCEPkts"),
                false => ("InECT0Pkts", "InCEPkts"),
            };
            for name in [markable, marked, "TCPDeliveredCE"] {
                assert!(grown(name) > 0, "{name}, IPv6: {v6}");
            }
            let [data, other, reactions, echoes] =
                std::array::from_fn(|index| after.1[index] - before.1[index]);
            assert!(data > 0 && reactions > 0 && echoes > 0, "{data} {reactions} {echoes}");
            assert_eq!(other, 0, "only data can be marked");
        }
    }
    eventually("marks are counted", || bed.stats().get("InCEPkts") > 0);
    drop(runtime);
    bed.wait_until_empty();
}

/// The largest packet that a narrow link takes.
const NARROW: usize = 1300;

/// The path has a narrow link, and its router says so or not; how many packets it dropped.
fn narrow(bed: &Bed, says_so: bool) -> (Carrier, Arc<AtomicUsize>) {
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dropped);
    let carrier = Carrier::start(bed, move |from, frame| {
        // The kernel's side of the path is another test's.
        let is_large = from == Side::Server && packet(frame).len() > NARROW;
        if !is_large || tcp(packet(frame)).is_none() {
            return Fate::Pass;
        }
        let is_v4 = packet(frame)[0] >> 4 == 4;
        assert!(!is_v4 || packet(frame)[6] & 0x40 != 0, "routers must not fragment it");
        counter.fetch_add(1, Ordering::Relaxed);
        if says_so { Fate::Answer(too_big(frame, NARROW as u16)) } else { Fate::Drop }
    });
    (carrier, dropped)
}

#[test]
fn a_router_that_complains_is_heard_once_for_all_connections() {
    let Some(bed) = Bed::with("narrow", LabConfig::relayed, &[]) else { return };
    let (_carrier, dropped) = narrow(&bed, true);
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let listener = bed.listen(&runtime, bed.server_address(v6, 7777));
        let before = dropped.load(Ordering::Relaxed);
        let (fourwave, kernel) = bed.connected_pair(&listener);
        both_at_once(&fourwave, &kernel, LENGTH);
        let first = dropped.load(Ordering::Relaxed);
        assert!(first > before, "the link is narrow");
        // The next ones know, in both directions of opening.
        let (fourwave, kernel) = bed.connected_pair(&listener);
        both_at_once(&fourwave, &kernel, LENGTH);
        let (fourwave, kernel) = bed.opened_pair(&runtime, v6);
        both_at_once(&fourwave, &kernel, LENGTH);
        assert_eq!(dropped.load(Ordering::Relaxed), first);
    }
    drop(runtime);
    bed.wait_until_empty();
}

#[test]
fn a_router_that_keeps_silent_is_got_round() {
    let Some(bed) = Bed::with("hole", LabConfig::relayed, &[]) else { return };
    let (_carrier, dropped) = narrow(&bed, false);
    let runtime = bed.runtime();
    for v6 in FAMILIES {
        let listener = bed.listen(&runtime, bed.server_address(v6, 7777));
        let before = dropped.load(Ordering::Relaxed);
        let (fourwave, kernel) = bed.connected_pair(&listener);
        both_at_once(&fourwave, &kernel, LENGTH);
        assert!(dropped.load(Ordering::Relaxed) > before, "the link is narrow");
    }
    drop(runtime);
    bed.wait_until_empty();
}
