//! The real program in the kernel, on frames of each kind (`BPF_PROG_TEST_RUN`).

mod support;

#[path = "../../../ebpf/common/tests/support/mod.rs"]
mod kinds;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use fourwave_ebpf_common::{Config, classify};
use fourwave_xdp::{
    Action, Object, Program, ProgramLimits, Queue, QueueConfig, SteeringError, SteeringStats,
    Verdict,
};
use kinds::samples::samples;
use kinds::{ANY4_PORT, ANY6_PORT, HOST4, HOST6, PORT, Served};
use support::{Lab, NEAR, Veth, have_root, object};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

fn served() -> [(IpAddr, u16); 4] {
    [
        (IpAddr::from(HOST4), PORT),
        (IpAddr::from(HOST6), PORT),
        (Ipv4Addr::UNSPECIFIED.into(), ANY4_PORT),
        (Ipv6Addr::UNSPECIFIED.into(), ANY6_PORT),
    ]
}

fn program() -> Program {
    let mut program =
        Program::load(&object(), ProgramLimits::default(), true).expect("the verifier accepts it");
    for (addr, port) in served() {
        program.serve(addr, port).expect("there is room");
    }
    program
}

/// The verdicts counted between two readings.
fn counted(before: &SteeringStats, after: &SteeringStats) -> Vec<(Verdict, u64)> {
    let growth = Verdict::ALL.map(|verdict| (verdict, after.get(verdict) - before.get(verdict)));
    growth.into_iter().filter(|(_, frames)| *frames > 0).collect()
}

/// Runs one frame and says what was done and counted.
fn run(program: &Program, frame: &[u8]) -> (u32, Vec<(Verdict, u64)>) {
    let before = program.stats().expect("counters can be read");
    let action = program.test(frame).expect("the kernel takes the frame");
    let after = program.stats().expect("counters can be read");
    (action, counted(&before, &after))
}

/// What the program does and counts when no socket is bound.
fn without_socket(verdict: Verdict) -> (u32, Vec<(Verdict, u64)>) {
    match verdict.action() {
        Action::Pass => (XDP_PASS, vec![(verdict, 1)]),
        Action::Drop => (XDP_DROP, vec![(verdict, 1)]),
        Action::Steer => (XDP_DROP, vec![(Verdict::DropNoSocket, 1)]),
    }
}

#[test]
fn each_kind_of_frame_is_counted_under_its_verdict() {
    if !have_root() {
        return;
    }
    let program = program();
    for sample in samples() {
        let found = run(&program, &sample.frame);
        assert_eq!(found, without_socket(sample.verdict), "{}", sample.name);
    }
}

#[test]
fn with_a_socket_the_same_frames_are_redirected() {
    let Some(_lab) = Lab::new(Veth::default()) else {
        return;
    };
    let mut program = program();
    let queue = Queue::open(&QueueConfig::new(NEAR, 0)).expect("a veth has queue 0");
    program.set_xsk(0, &queue).expect("slot 0 exists");
    let steered = |program: &Program| {
        let all = samples().into_iter();
        let steered = all.filter(|sample| sample.verdict.action() == Action::Steer);
        let results = steered.map(|sample| (run(program, &sample.frame), sample));
        results.collect::<Vec<_>>()
    };
    for (found, sample) in steered(&program) {
        let expected = (XDP_REDIRECT, vec![(sample.verdict, 1)]);
        assert_eq!(found, expected, "{}", sample.name);
    }
    program.clear_xsk(0).expect("slot 0 exists");
    program.clear_xsk(0).expect("clearing twice is no error");
    for (found, sample) in steered(&program) {
        assert_eq!(found, without_socket(sample.verdict), "{}", sample.name);
    }
    drop(queue);
}

/// As many SYNs as may wait are redirected; then they are dropped, until the worker has come round.
/// Nothing else is.
#[test]
fn a_gate_bounds_the_syns_that_wait() {
    let Some(_lab) = Lab::new(Veth::default()) else {
        return;
    };
    let mut program = program();
    let queue = Queue::open(&QueueConfig::new(NEAR, 0)).expect("a veth has queue 0");
    program.set_xsk(0, &queue).expect("slot 0 exists");
    let find = |verdict| samples().into_iter().find(|sample| sample.verdict == verdict);
    let syn = find(Verdict::SteerSyn).expect("there is one");
    let other = find(Verdict::SteerTcp).expect("there is one");
    let redirected = |verdict| (XDP_REDIRECT, vec![(verdict, 1)]);
    let dropped = (XDP_DROP, vec![(Verdict::DropSyn, 1)]);

    let mut gate = program.gate(0, 3).expect("slot 0 exists");
    for now in 1..4 {
        for _ in 0..3 {
            assert_eq!(run(&program, &syn.frame), redirected(Verdict::SteerSyn));
        }
        for _ in 0..2 {
            assert_eq!(run(&program, &syn.frame), dropped);
            assert_eq!(run(&program, &other.frame), redirected(Verdict::SteerTcp));
        }
        // These frames never come to the ring. Once it is seen how many were let through, and
        // once that they are gone.
        gate.turn(now, 0, || 0);
        gate.turn(now, 0, || 0);
    }
    // With frames before the mark it stays shut until they have been taken.
    for _ in 0..3 {
        run(&program, &syn.frame);
    }
    gate.turn(4, 0, || 2);
    gate.turn(4, 1, || unreachable!("the mark has not been reached"));
    assert_eq!(run(&program, &syn.frame), dropped);
    gate.turn(4, 1, || 0);
    assert_eq!(run(&program, &syn.frame), redirected(Verdict::SteerSyn));

    let _none = program.gate(0, 0).expect("slot 0 exists");
    for _ in 0..100 {
        assert_eq!(run(&program, &syn.frame), redirected(Verdict::SteerSyn));
    }
    let beyond = program.gate(64, 1).expect_err("there are 64");
    assert!(matches!(beyond, SteeringError::NoSuchQueue { queue: 64, .. }), "{beyond}");
}

/// The verifier could have the last word on bounds that the host's reader does not know: whatever
/// the frame, kernel and host have to agree.
#[test]
fn cut_and_damaged_frames_get_the_same_verdict_as_on_the_host() {
    if !have_root() {
        return;
    }
    let program = program();
    let ports = Served::new();
    let mut runs = 0;
    for sample in samples() {
        for step in 0..40 {
            let mut frame = sample.frame.clone();
            // Every byte up to the ports of the longest sample gets its turn in some sample.
            let at = (runs * 7 + 12) % frame.len();
            frame[at] = frame[at].wrapping_add([0, 1, 0x2f, 0xff][step % 4]);
            frame.truncate(frame.len() - step.min(frame.len() - 14));
            let verdict = classify(&frame[..], &ports, Config::default());
            let found = run(&program, &frame);
            assert_eq!(found, without_socket(verdict), "{} {frame:02x?}", sample.name);
            runs += 1;
        }
    }
}

#[test]
fn without_the_flag_icmp_errors_pass() {
    if !have_root() {
        return;
    }
    let mut program =
        Program::load(&object(), ProgramLimits::default(), false).expect("the verifier accepts it");
    for (addr, port) in served() {
        program.serve(addr, port).expect("there is room");
    }
    for sample in samples() {
        if sample.verdict == Verdict::SteerIcmp {
            let expected = (XDP_PASS, vec![(Verdict::PassOther, 1)]);
            assert_eq!(run(&program, &sample.frame), expected, "{}", sample.name);
        }
    }
}

#[test]
fn ports_come_and_go() {
    if !have_root() {
        return;
    }
    let mut program = program();
    let sample = samples()
        .into_iter()
        .find(|sample| sample.verdict == Verdict::SteerTcp)
        .expect("there is one");
    let host = IpAddr::from(HOST4);
    program.serve(host, PORT).expect("serving twice is no error");
    program.unserve(host, PORT).expect("it is served");
    program.unserve(host, PORT).expect("no longer serving is no error");
    let expected = without_socket(Verdict::PassPort);
    assert_eq!(run(&program, &sample.frame), expected);
    // The same address as IPv6 writes it.
    let mapped = Ipv4Addr::from(HOST4).to_ipv6_mapped();
    program.serve(mapped.into(), PORT).expect("there is room");
    let expected = without_socket(Verdict::SteerTcp);
    assert_eq!(run(&program, &sample.frame), expected);
}

#[test]
fn limits_are_reported_as_such() {
    if !have_root() {
        return;
    }
    let limits = ProgramLimits { queues: 2, ports: 2 };
    let mut program = Program::load(&object(), limits, true).expect("the verifier accepts it");
    let host = IpAddr::from(HOST4);
    program.serve(host, 1).expect("the first fits");
    program.serve(host, 2).expect("the second fits");
    let full = program.serve(host, 3).expect_err("the third does not");
    assert!(matches!(full, SteeringError::TooManyPorts { limit: 2 }), "{full}");
    let stdin = std::io::stdin();
    let beyond = program.set_xsk(2, stdin.as_fd()).expect_err("there are 2");
    let expected = matches!(beyond, SteeringError::NoSuchQueue { queue: 2, queues: 2 });
    assert!(expected, "{beyond}");
    let beyond = program.clear_xsk(9).expect_err("there are 2");
    assert!(matches!(beyond, SteeringError::NoSuchQueue { .. }), "{beyond}");
    let no_socket = program.set_xsk(1, stdin.as_fd()).expect_err("not an AF_XDP socket");
    assert!(matches!(no_socket, SteeringError::Bpf { .. }), "{no_socket}");
}

#[test]
fn an_object_of_somebody_else_is_refused() {
    if !have_root() {
        return;
    }
    let file = std::env::current_exe().expect("a test is a file");
    let object = Object::from_file(&file).expect("and readable");
    let refused = Program::load(&object, ProgramLimits::default(), true)
        .expect_err("a test is no BPF program");
    assert!(!matches!(refused, SteeringError::NoPrivilege { .. }), "{refused}");
}
