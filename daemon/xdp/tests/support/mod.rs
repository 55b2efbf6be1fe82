//! Two network namespaces, a veth pair between them and a bpffs, for one test each.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test crates, each of which takes what it needs"
)]

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use fourwave_xdp::{Object, SteeringConfig};
use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, capabilities, move_into_link_name_space, set_capabilities,
};

/// What every namespace and temporary folder of these tests starts with.
const PREFIX: &str = "fwx-";

/// The near end of the veth pair, in the namespace that the test's thread is in.
pub const NEAR: &str = "fwx0";
/// The far end, in the other namespace.
pub const FAR: &str = "fwx1";

/// Says so and returns `false` when the tests cannot have namespaces; fails when CI promised
/// that they can.
pub fn have_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(env::var_os("CI").is_none(), "CI has to run these tests as root");
    // Not eprintln!, which the test harness keeps to itself.
    let _ = writeln!(io::stderr(), "skipped: needs root");
    false
}

/// The object under test: the committed one, or that of `FOURWAVE_BPF_OBJECT`.
pub fn object() -> Object {
    Object::from_file(&object_path()).expect("the object is readable")
}

/// Its bytes.
pub fn object_bytes() -> Vec<u8> {
    fs::read(object_path()).expect("the object is readable")
}

fn object_path() -> PathBuf {
    match env::var_os("FOURWAVE_BPF_OBJECT") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ebpf/fourwave.bpf.o"),
    }
}

/// Runs `f` in a thread of its own that has no capability left. It is in the same namespace.
pub fn without_capabilities(f: impl FnOnce() + Send) {
    without(CapabilitySet::all(), f);
}

/// Runs `f` in a thread of its own that lacks these capabilities.
pub fn without(dropped: CapabilitySet, f: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut sets = capabilities(None).expect("a thread can ask for its own");
            sets.effective -= dropped;
            set_capabilities(None, sets).expect("a thread can always give some up");
            f();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// How to make a veth pair.
#[derive(Clone, Copy)]
pub struct Veth {
    pub queues: u32,
    pub mtu: u32,
}

impl Default for Veth {
    fn default() -> Self {
        Self { queues: 1, mtu: 1500 }
    }
}

/// Two namespaces, one of which the calling thread is in, and a bpffs; all gone when dropped.
pub struct Lab {
    near: String,
    far: String,
    folder: PathBuf,
}

impl Lab {
    /// `None` when there is no privilege for it.
    pub fn new(veth: Veth) -> Option<Self> {
        if !have_root() {
            return None;
        }
        remove_what_dead_tests_left();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Relaxed: pairs with nothing, the numbers only have to differ.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", process::id());
        let lab = Self {
            near: format!("{name}-near"),
            far: format!("{name}-far"),
            folder: env::temp_dir().join(&name),
        };
        fs::create_dir(&lab.folder).expect("the name is unique");
        ip(&["netns", "add", &lab.near]);
        ip(&["netns", "add", &lab.far]);
        let (queues, mtu) = (veth.queues.to_string(), veth.mtu.to_string());
        let (queues, mtu) = (queues.as_str(), mtu.as_str());
        #[rustfmt::skip]
        ip(&[
            "-n", &lab.near, "link", "add", NEAR, "mtu", mtu,
            "numrxqueues", queues, "numtxqueues", queues, "type", "veth", "peer", "name", FAR,
            "mtu", mtu, "numrxqueues", queues, "numtxqueues", queues, "netns", &lab.far,
        ]);
        for (namespace, interface) in [(&lab.near, NEAR), (&lab.far, FAR)] {
            // Nothing but what a test sends may be on the wire.
            ip(&["-n", namespace, "link", "set", "dev", interface, "addrgenmode", "none"]);
            ip(&["-n", namespace, "link", "set", "dev", interface, "arp", "off", "up"]);
        }
        lab.enter_near();
        Some(lab)
    }

    /// Name of the namespace of [`NEAR`].
    pub fn near(&self) -> &str {
        &self.near
    }

    /// Puts the calling thread into the namespace of [`NEAR`], and nothing else of it.
    pub fn enter_near(&self) {
        enter(&self.near);
    }

    /// Puts the calling thread into the namespace of [`FAR`].
    pub fn enter_far(&self) {
        enter(&self.far);
    }

    /// Runs `ip` with these arguments in the namespace of [`NEAR`].
    pub fn ip_near(&self, arguments: &[&str]) {
        ip(&[&["-n", &self.near], arguments].concat());
    }

    /// Where this lab's bpffs is, once something has mounted it.
    pub fn bpffs(&self) -> PathBuf {
        self.folder.join("bpf")
    }

    /// Configuration for `interface` with the object under test and this lab's bpffs.
    pub fn steering(&self, interface: &str, instance: &str) -> SteeringConfig {
        SteeringConfig {
            bpffs: self.bpffs(),
            object: object(),
            ..SteeringConfig::new(interface, instance)
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        remove_namespace(&self.near);
        remove_namespace(&self.far);
        remove_folder(&self.folder);
    }
}

fn enter(namespace: &str) {
    let file = File::open(namespace_path(namespace)).expect("the namespace exists");
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("setns as root");
}

fn namespace_path(namespace: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace)
}

pub fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status();
    let status = status.expect("iproute2 is installed");
    assert!(status.success(), "ip {}", arguments.join(" "));
}

fn remove_namespace(namespace: &str) {
    if namespace_path(namespace).exists() {
        ip(&["netns", "del", namespace]);
    }
}

fn remove_folder(folder: &Path) {
    // Nothing is mounted there unless the test got that far.
    let _ = unmount(folder.join("bpf"), UnmountFlags::DETACH);
    fs::remove_dir_all(folder).expect("an unmounted folder can be removed");
}

/// Removes the namespaces and folders of test processes that are gone.
fn remove_what_dead_tests_left() {
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| is_of_dead_test(name)).collect::<Vec<_>>()
    };
    for name in names(Path::new("/run/netns")) {
        // Another test process may be quicker.
        let _ = Command::new("ip").args(["netns", "del", &name]).output();
    }
    for name in names(&env::temp_dir()) {
        let folder = env::temp_dir().join(name);
        let _ = unmount(folder.join("bpf"), UnmountFlags::DETACH);
        let _ = fs::remove_dir_all(folder);
    }
}

fn is_of_dead_test(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    pid.and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}
