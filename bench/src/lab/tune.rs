//! Settings of a namespace and its interface: sysctls, offloads, receive packet steering.
//!
//! Everything here acts on the namespace of the calling thread.

use std::ffi::c_char;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::net::{AddressFamily, SocketType};

use super::error::LabError;

/// Sysctls of both namespaces, below `/proc/sys/net`. One that this kernel lacks is an error.
///
/// * TIME_WAIT buckets: the default (131072 here) overflows above 2,200 closes/s.
/// * ports that the kernel chooses: as many as leave fourwave's default `local_ports` free.
/// * duplicate address detection off: addresses are usable at once.
const SYSCTLS: &[(&str, &str)] = &[
    ("ipv4/tcp_max_tw_buckets", "16777216"),
    ("ipv4/tcp_max_syn_backlog", "8192"),
    ("ipv4/ip_local_port_range", "1024 60999"),
    ("core/somaxconn", "4096"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
];

/// Offloads that are switched off, with the legacy ethtool commands that set and read them
/// (`linux/ethtool.h`). Scatter-gather goes last: segmentation depends on it.
const OFFLOADS: &[(&str, u32, u32)] = &[
    ("tso", 0x1f, 0x1e),
    ("gso", 0x24, 0x23),
    ("gro", 0x2c, 0x2b),
    ("tx", 0x17, 0x16),
    ("sg", 0x19, 0x18),
];

/// Congestion control of both namespaces: the first of these that the kernel lets a namespace
/// have. A namespace inherits the machine's, and BBR would pace every short connection with a
/// timer. CUBIC is Linux's default, but not allowed to namespaces where another one was made the
/// default; Reno always is, and short connections do not tell them apart.
const CONGESTION_CONTROL: [&str; 2] = ["cubic", "reno"];

const CONGESTION_CONTROL_SYSCTL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Sets the sysctls that every lab wants.
pub(super) fn set_sysctls() -> Result<(), LabError> {
    for (name, value) in SYSCTLS {
        let path = Path::new("/proc/sys/net").join(name);
        fs::write(&path, value).map_err(LabError::file(path))?;
    }
    let mut set = Ok(());
    for name in CONGESTION_CONTROL {
        set = fs::write(CONGESTION_CONTROL_SYSCTL, name);
        if set.is_ok() {
            break;
        }
    }
    set.map_err(LabError::file(CONGESTION_CONTROL_SYSCTL))
}

/// For a namespace that only carries frames: its kernel says nothing of its own on the links.
pub(super) fn be_silent() -> Result<(), LabError> {
    for scope in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
        fs::write(&path, "1").map_err(LabError::file(path))?;
    }
    Ok(())
}

/// The congestion control of new connections.
pub(super) fn congestion_control() -> Result<String, LabError> {
    let name = fs::read_to_string(CONGESTION_CONTROL_SYSCTL);
    Ok(name.map_err(LabError::file(CONGESTION_CONTROL_SYSCTL))?.trim().to_owned())
}

/// Switches checksum and segmentation offloads of `interface` off and checks that they are.
pub(super) fn offloads_off(interface: &str) -> Result<(), LabError> {
    for &(feature, set, get) in OFFLOADS {
        let failed =
            |source| LabError::Offload { interface: interface.to_owned(), feature, source };
        ethtool(interface, set, 0).map_err(failed)?;
        if ethtool(interface, get, 0).map_err(failed)? != 0 {
            return Err(failed(io::Error::other("it stays on")));
        }
    }
    Ok(())
}

/// Which offloads of `interface` are on, by the names that `ethtool -K` takes.
pub(super) fn offloads_on(interface: &str) -> Result<Vec<&'static str>, LabError> {
    let mut on = Vec::new();
    for &(feature, _, get) in OFFLOADS {
        let value = ethtool(interface, get, 0).map_err(|source| LabError::Offload {
            interface: interface.to_owned(),
            feature,
            source,
        })?;
        if value != 0 {
            on.push(feature);
        }
    }
    Ok(on)
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// One legacy ethtool command; returns the value that the kernel left in its argument.
fn ethtool(interface: &str, cmd: u32, data: u32) -> io::Result<u32> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: all-zero is a valid `ifreq`: integers, byte arrays and null pointers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as c_char;
    }
    let mut value = EthtoolValue { cmd, data };
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the name is NUL-terminated (its length was checked above) and `ifru_data` points to
    // a live `ethtool_value`, which is what these commands read and write.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data) }
}

/// Sets the CPUs (bit mask, 0 = off) that process what `interface` receives, for all its queues.
pub(super) fn set_rps(interface: &str, queues: u32, cpus: u64) -> Result<(), LabError> {
    let sysfs = own_sysfs().map_err(LabError::file("sysfs of the namespace"))?;
    for queue in 0..queues {
        let path = rps_path(interface, queue);
        let mask = cpu_mask(cpus);
        open_at(&sysfs, &path, OFlags::WRONLY)
            .and_then(|mut file| file.write_all(mask.as_bytes()))
            .map_err(LabError::file(path))?;
    }
    Ok(())
}

/// Groups of 32 bits, and none more than needed: the kernel refuses groups that it has no CPUs for.
fn cpu_mask(cpus: u64) -> String {
    match cpus >> 32 {
        0 => format!("{cpus:x}"),
        high => format!("{high:x},{:08x}", cpus & 0xffff_ffff),
    }
}

/// The receive packet steering mask of queue 0 of `interface`, as the kernel prints it.
pub(super) fn rps(interface: &str) -> Result<String, LabError> {
    let path = rps_path(interface, 0);
    let mut mask = String::new();
    own_sysfs()
        .and_then(|sysfs| open_at(&sysfs, &path, OFlags::RDONLY)?.read_to_string(&mut mask))
        .map_err(LabError::file(path))?;
    Ok(mask.trim().to_owned())
}

fn rps_path(interface: &str, queue: u32) -> String {
    format!("class/net/{interface}/queues/rx-{queue}/rps_cpus")
}

fn open_at(sysfs: &OwnedFd, path: &str, flags: OFlags) -> io::Result<File> {
    Ok(rustix::fs::openat(sysfs, path, flags | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// A sysfs that shows this thread's namespace, mounted nowhere: `/sys` shows the one it was
/// mounted in, and a thread that enters another namespace keeps seeing that.
fn own_sysfs() -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    Ok(rustix::mount::fsmount(&context, flags, MountAttrFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_masks_have_as_many_groups_as_needed() {
        assert_eq!(cpu_mask(0), "0");
        assert_eq!(cpu_mask(0b10), "2");
        assert_eq!(cpu_mask(1 << 32 | 5), "1,00000005");
    }
}
