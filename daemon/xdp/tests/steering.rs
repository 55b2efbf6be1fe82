//! Attaching, taking over what a crashed daemon left, and leaving nothing behind.

mod support;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use aya::EbpfLoader;
use aya::programs::xdp::XdpMode as AyaMode;
use aya::programs::{ProgramError, Xdp};
use fourwave_xdp::{
    AttachedMode, Object, Program, ProgramLimits, Released, Steering, SteeringConfig,
    SteeringError, Verdict, XdpMode, release,
};
use support::{FAR, Lab, NEAR, Veth, object_bytes};

/// Names of the pins of an instance; empty when it has no folder.
fn pins(lab: &Lab, instance: &str) -> Vec<String> {
    let folder = lab.bpffs().join("fourwave").join(instance);
    let entries = fs::read_dir(folder).into_iter().flatten();
    let names = entries.map(|entry| entry.expect("readable").file_name());
    let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
    names.sort();
    names
}

/// The `prog/xdp` line of `ip link`, if the interface has a program.
fn xdp_line(lab: &Lab, interface: &str) -> Option<String> {
    let arguments = ["-n", lab.near(), "-d", "link", "show", "dev", interface];
    let output = Command::new("ip").args(arguments).output();
    let text = String::from_utf8(output.expect("iproute2 is installed").stdout);
    let text = text.expect("ip speaks UTF-8");
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.starts_with("prog/xdp")).map(str::to_owned)
}

fn with_mode(lab: &Lab, mode: XdpMode) -> SteeringConfig {
    SteeringConfig { mode, ..lab.steering(NEAR, "test") }
}

fn attach(config: &SteeringConfig) -> Steering {
    Steering::attach(config).expect("nothing is in the way")
}

#[test]
fn attaches_natively_pins_and_leaves_nothing() {
    let Some(lab) = Lab::new(Veth::default()) else {
        return;
    };
    let mut steering = attach(&with_mode(&lab, XdpMode::Auto));
    assert_eq!(steering.attached_mode(), AttachedMode::Native);
    assert_eq!(steering.fallback_reason(), None);
    assert!(!steering.reclaimed());
    let line = xdp_line(&lab, NEAR).expect("attached");
    assert!(line.contains("name fourwave"), "{line}");
    assert_eq!(pins(&lab, "test"), ["ADMISSION", "CONFIG", "PORTS", "STATS", "XSKS", "link"]);

    let address = "10.99.0.2".parse().expect("an address");
    steering.serve(address, 7777).expect("there is room");
    steering.unserve(address, 7777).expect("it is served");
    let stats = steering.stats().expect("counters can be read");
    assert_eq!(stats.get(Verdict::SteerTcp), 0);
    assert_eq!(stats.iter().count(), Verdict::ALL.len());

    steering.detach().expect("it is attached");
    assert_eq!(xdp_line(&lab, NEAR), None);
    assert!(!lab.bpffs().join("fourwave").exists());
}

#[test]
fn falls_back_to_generic_and_says_why() {
    // Native XDP on a veth needs each frame in one page.
    let veth = Veth { mtu: 9000, ..Veth::default() };
    let Some(lab) = Lab::new(veth) else {
        return;
    };
    let steering = attach(&with_mode(&lab, XdpMode::Auto));
    assert_eq!(steering.attached_mode(), AttachedMode::Generic);
    let reason = steering.fallback_reason().expect("there is one").to_owned();
    assert!(reason.contains("MTU"), "{reason}");
    steering.detach().expect("it is attached");

    let refused = Steering::attach(&with_mode(&lab, XdpMode::Native)).expect_err("cannot be");
    assert!(matches!(refused, SteeringError::Mode { .. }), "{refused}");
    assert_eq!(xdp_line(&lab, NEAR), None);
    assert!(!lab.bpffs().join("fourwave").exists(), "no folder is left");
}

#[test]
fn generic_on_request() {
    let Some(lab) = Lab::new(Veth::default()) else {
        return;
    };
    let steering = attach(&with_mode(&lab, XdpMode::Generic));
    assert_eq!(steering.attached_mode(), AttachedMode::Generic);
    assert_eq!(steering.fallback_reason(), None);
    steering.detach().expect("it is attached");
}

#[test]
fn what_a_crash_left_stays_until_it_is_taken_over() {
    let Some(lab) = Lab::new(Veth::default()) else {
        return;
    };
    // (mode of the one that crashed, mode of its successor)
    let pairs = [
        (XdpMode::Native, XdpMode::Auto),
        (XdpMode::Generic, XdpMode::Auto),
        (XdpMode::Native, XdpMode::Generic),
        (XdpMode::Generic, XdpMode::Generic),
    ];
    for (before, after) in pairs {
        drop(attach(&with_mode(&lab, before)));
        let left = xdp_line(&lab, NEAR).expect("dropping does not detach");
        let steering = attach(&with_mode(&lab, after));
        assert!(steering.reclaimed());
        let expected = match after {
            XdpMode::Auto | XdpMode::Native => AttachedMode::Native,
            XdpMode::Generic => AttachedMode::Generic,
        };
        assert_eq!(steering.attached_mode(), expected, "{before} then {after}");
        let line = xdp_line(&lab, NEAR).expect("attached");
        assert_ne!(line, left, "the program is a new one");
        steering.detach().expect("it is attached");
        assert_eq!(xdp_line(&lab, NEAR), None, "{before} then {after}");
    }
}

#[test]
fn release_removes_everything_once() {
    let Some(lab) = Lab::new(Veth::default()) else {
        return;
    };
    let nothing = release(&lab.bpffs(), "test", NEAR).expect("nothing is no error");
    assert_eq!(nothing, Released::default());
    drop(attach(&with_mode(&lab, XdpMode::Auto)));
    let all = Released { program: true, pins: true };
    let released = release(&lab.bpffs(), "test", NEAR).expect("its daemon is dead");
    assert_eq!(released, all);
    assert_eq!(xdp_line(&lab, NEAR), None);
    assert!(!lab.bpffs().join("fourwave").exists());
    let nothing = release(&lab.bpffs(), "test", NEAR).expect("nothing is no error");
    assert_eq!(nothing, Released::default());
}

#[test]
fn an_interface_that_went_away_is_no_obstacle() {
    let Some(lab) = Lab::new(Veth::default()) else {
        return;
    };
    let on = |interface: &str| lab.steering(interface, "test");
    lab.ip_near(&["link", "add", "fwx2", "type", "veth", "peer", "name", "fwx3"]);
    drop(attach(&on("fwx2")));
    lab.ip_near(&["link", "del", "fwx2"]);
    let released = release(&lab.bpffs(), "test", "fwx2").expect("only the pins are left");
    assert!(released.pins);

    lab.ip_near(&["link", "add", "fwx2", "type", "veth", "peer", "name", "fwx3"]);
    drop(attach(&on("fwx2")));
    lab.ip_near(&["link", "del", "fwx2"]);
    let steering = attach(&on(NEAR));
    steering.detach().expect("it is attached");
}

#[test]
fn a_new_interface_in_the_configuration_frees_the_old_one() {
    let Some(lab) = Lab::new(Veth::default()) else {
        return;
    };
    lab.ip_near(&["link", "add", "fwx2", "type", "veth", "peer", "name", "fwx3"]);
    drop(attach(&lab.steering("fwx2", "test")));
    let steering = attach(&lab.steering(NEAR, "test"));
    assert!(steering.reclaimed());
    assert_eq!(xdp_line(&lab, "fwx2"), None);
    steering.detach().expect("it is attached");
}

#[test]
fn a_running_instance_is_left_alone() {
    let Some(lab) = Lab::new(Veth::default()) else {
        return;
    };
    let steering = attach(&with_mode(&lab, XdpMode::Auto));
    let second = Steering::attach(&with_mode(&lab, XdpMode::Auto)).expect_err("in use");
    assert!(matches!(second, SteeringError::InstanceRunning { .. }), "{second}");
    let released = release(&lab.bpffs(), "test", NEAR).expect_err("in use");
    assert!(matches!(released, SteeringError::InstanceRunning { .. }), "{released}");

    // Another instance, on the same interface.
    let other = Steering::attach(&lab.steering(NEAR, "other")).expect_err("steered already");
    assert!(matches!(other, SteeringError::OtherInstance { .. }), "{other}");
    let released = release(&lab.bpffs(), "other", NEAR).expect_err("not its own");
    assert!(matches!(released, SteeringError::OtherInstance { .. }), "{released}");

    assert!(xdp_line(&lab, NEAR).is_some());
    steering.detach().expect("it is attached");
    assert!(!lab.bpffs().join("fourwave").exists(), "nor a folder of the refused one");
}

#[test]
fn programs_that_come_and_go_meanwhile_are_no_obstacle() {
    let Some(lab) = Lab::new(Veth::default()) else {
        return;
    };
    // Loaded before ours, so that whoever looks for ours meets them.
    let limits = ProgramLimits { queues: 1, ports: 1 };
    let load = |_| Program::load(&Object::embedded(), limits, false).expect("it is verified");
    let passing: Vec<Program> = (0..60).map(load).collect();
    let steering = attach(&with_mode(&lab, XdpMode::Auto));
    thread::scope(|scope| {
        let unloading = scope.spawn(move || drop(passing));
        while !unloading.is_finished() {
            let other =
                Steering::attach(&lab.steering(NEAR, "other")).expect_err("steered already");
            assert!(matches!(other, SteeringError::OtherInstance { .. }), "{other}");
        }
    });
    steering.detach().expect("it is attached");
}

#[test]
fn two_instances_on_two_interfaces() {
    let Some(lab) = Lab::new(Veth::default()) else {
        return;
    };
    lab.enter_far();
    let far = attach(&lab.steering(FAR, "far"));
    lab.enter_near();
    let near = attach(&lab.steering(NEAR, "near"));
    near.detach().expect("it is attached");
    assert_eq!(pins(&lab, "far").len(), 6, "the other's pins stay");
    far.detach().expect("a link knows its interface, whatever the thread's namespace");
    assert!(!lab.bpffs().join("fourwave").exists());
}

/// Our program, but under the name of a stranger.
fn foreign_object() -> Vec<u8> {
    let mut bytes = object_bytes();
    let (ours, theirs) = (b"\0fourwave\0", b"\0stranger\0");
    let at = bytes
        .windows(ours.len())
        .position(|window| window == ours)
        .expect("the program's name is in the string table");
    bytes[at..at + theirs.len()].copy_from_slice(theirs);
    bytes
}

/// Loads a program; the verifier gives up when a signal comes in between, and is asked again.
fn verify(program: &mut Xdp) {
    let interrupted = |error: &ProgramError| match error {
        ProgramError::LoadError { io_error, .. } => io_error.kind() == ErrorKind::WouldBlock,
        _ => false,
    };
    let result =
        (0..5).map(|_| program.load()).find(|result| !result.as_ref().is_err_and(&interrupted));
    result.expect("it is not interrupted each time").expect("the verifier accepts it");
}

/// Waits until nothing hangs on the interface. Closing a link's descriptor detaches the program
/// only when no copy is left, and a process that another test is just starting has one until it
/// executes its own program.
fn until_free(lab: &Lab, interface: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Some(line) = xdp_line(lab, interface) {
        assert!(Instant::now() < deadline, "still attached: {line}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_strangers_program_is_refused_by_name() {
    let Some(lab) = Lab::new(Veth::default()) else {
        return;
    };
    let mut ebpf = EbpfLoader::new().load(&foreign_object()).expect("it loads");
    let program = ebpf.program_mut("stranger").expect("it is there");
    let program: &mut Xdp = program.try_into().expect("it is XDP");
    verify(program);
    for mode in [AyaMode::Driver, AyaMode::Skb] {
        let link = program.attach(NEAR, mode).expect("it attaches");
        let line = xdp_line(&lab, NEAR).expect("attached");
        let refused = Steering::attach(&with_mode(&lab, XdpMode::Auto)).expect_err("foreign");
        match &refused {
            SteeringError::Foreign { name, id, .. } => {
                assert_eq!(name, "stranger");
                assert!(line.contains(&format!("id {id} ")), "{line}");
            }
            other => panic!("{other}"),
        }
        let refused = release(&lab.bpffs(), "test", NEAR).expect_err("foreign");
        assert!(matches!(refused, SteeringError::Foreign { .. }), "{refused}");
        assert_eq!(xdp_line(&lab, NEAR), Some(line), "it is still there");
        program.detach(link).expect("it is attached");
        until_free(&lab, NEAR);
    }
}

/// A program of ours that hangs on the interface without a link, as old kernels have it.
#[test]
fn our_program_without_a_link_is_removed() {
    let Some(lab) = Lab::new(Veth::default()) else {
        return;
    };
    // Mounts the bpffs.
    attach(&with_mode(&lab, XdpMode::Auto)).detach().expect("it is attached");
    let mut ebpf = EbpfLoader::new().load(&object_bytes()).expect("it loads");
    let program = ebpf.program_mut("fourwave").expect("it is there");
    let program: &mut Xdp = program.try_into().expect("it is XDP");
    verify(program);
    let pin = lab.bpffs().join("stray");
    program.pin(&pin).expect("the bpffs is mounted");
    let path = pin.to_str().expect("ASCII");
    for mode in ["xdpgeneric", "xdpdrv"] {
        let stray = || lab.ip_near(&["link", "set", "dev", NEAR, mode, "pinned", path]);
        stray();
        let released = release(&lab.bpffs(), "test", NEAR).expect("it is ours");
        assert!(released.program);
        assert_eq!(xdp_line(&lab, NEAR), None);
        stray();
        let steering = attach(&with_mode(&lab, XdpMode::Auto));
        assert!(steering.reclaimed());
        steering.detach().expect("it is attached");
        assert_eq!(xdp_line(&lab, NEAR), None);
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let Some(lab) = Lab::new(Veth::default()) else {
        return;
    };
    let nowhere = Steering::attach(&lab.steering("fwx-none", "test")).expect_err("no such");
    assert!(nowhere.to_string().contains("fwx-none"), "{nowhere}");
    assert!(matches!(nowhere, SteeringError::NoSuchInterface { .. }));
    for instance in ["", "a/b", "..", "a.b"] {
        let bad = Steering::attach(&lab.steering(NEAR, instance)).expect_err("no such name");
        assert!(matches!(bad, SteeringError::BadInstance { .. }), "{bad}");
    }
    let config = SteeringConfig {
        object: Object::from_file(Path::new("/proc/self/comm")).expect("readable"),
        ..lab.steering(NEAR, "test")
    };
    let bad = Steering::attach(&config).expect_err("no program");
    assert!(matches!(bad, SteeringError::Bpf { .. }), "{bad}");
    assert!(!lab.bpffs().join("fourwave").exists(), "no folder is left");
}

#[test]
fn without_privilege_the_error_says_so() {
    let Some(lab) = Lab::new(Veth::default()) else {
        return;
    };
    // Mounts the bpffs, which needs more than attaching does.
    attach(&with_mode(&lab, XdpMode::Auto)).detach().expect("it is attached");
    support::without_capabilities(|| {
        let refused = Steering::attach(&with_mode(&lab, XdpMode::Auto)).expect_err("not allowed");
        assert!(matches!(refused, SteeringError::NoPrivilege { .. }), "{refused:?}");
    });
}
