//! What a machine must have before anything is changed on it, and limits that we may raise.

use crate::config::PortRange;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt;
use std::path::Path;

/// Something that the machine lacks; says what helps.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Linux before 5.11.
    #[error("Linux {0} is too old: fourwaved needs 5.11 or later")]
    Kernel(String),
    /// Rights that the process does not have.
    #[error(
        "fourwaved may not do its work: it lacks {0}. Run it as root, or give it these capabilities (the unit in deploy/ does)"
    )]
    Privileges(Missing),
    /// Outgoing connections would use ports of the kernel's.
    #[error(
        "local_ports = \"{ours}\" overlaps the kernel's own ports {kernel} \
         (net.ipv4.ip_local_port_range): choose a range outside, or \"\" for no outgoing \
         connections"
    )]
    LocalPorts {
        /// Those of the configuration.
        ours: PortRange,
        /// The kernel's.
        kernel: PortRange,
    },
    /// CPUs of the configuration on which the process may not run.
    #[error("cpus: CPU {cpu} is not among those that fourwaved may use ({allowed:?})")]
    Cpu {
        /// The one that is not there.
        cpu: usize,
        /// Those that are.
        allowed: Vec<usize>,
    },
    /// More or fewer CPUs than queues.
    #[error("cpus: there are {cpus} CPUs for {queues} queues; give one for each, or []")]
    CpuCount {
        /// How many are configured.
        cpus: usize,
        /// How many are needed.
        queues: usize,
    },
}

/// Capabilities that are missing, with what each is for.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing(Vec<(&'static str, &'static str)>);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, purpose)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name} (to {purpose})")?;
        }
        Ok(())
    }
}

/// Bit in the capability sets, name, and what it is for. CAP_SYS_ADMIN includes those that were
/// split from it.
const NEEDED: [(u32, &str, &str); 4] = [
    (12, "CAP_NET_ADMIN", "attach the XDP program and to resolve neighbours"),
    (13, "CAP_NET_RAW", "open AF_XDP sockets"),
    (39, "CAP_BPF", "load the XDP program"),
    (38, "CAP_PERFMON", "load an XDP program that reads packets"),
];
const CAP_SYS_ADMIN: u32 = 21;
const SPLIT_FROM_SYS_ADMIN: [u32; 2] = [39, 38];

/// Checks `release` (as `uname -r` prints it).
pub(super) fn kernel(release: &str) -> Result<(), Unfit> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let version = (numbers.next(), numbers.next());
    match version {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < (5, 11) => {
            Err(Unfit::Kernel(release.to_owned()))
        }
        // A name that is no number is left to the checks that follow.
        _ => Ok(()),
    }
}

/// Checks the effective capabilities in `status` (the text of `/proc/self/status`).
pub(super) fn privileges(status: &str) -> Result<(), Unfit> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else {
        return Ok(());
    };
    let has = |bit: u32| effective >> bit & 1 != 0;
    let may = |bit: &u32| has(*bit) || SPLIT_FROM_SYS_ADMIN.contains(bit) && has(CAP_SYS_ADMIN);
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|(bit, ..)| !may(bit))
        .map(|(_, name, purpose)| (*name, *purpose))
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Unfit::Privileges(Missing(missing))),
    }
}

/// Checks the ports of outgoing connections against the kernel's (the text of
/// `ip_local_port_range`).
pub(super) fn local_ports(ours: &PortRange, kernel: &str) -> Result<(), Unfit> {
    let mut bounds = kernel.split_whitespace().map(str::parse::<u16>);
    let kernel = match (bounds.next(), bounds.next()) {
        (Some(Ok(first)), Some(Ok(last))) => PortRange::new(first, last),
        _ => None,
    };
    match kernel {
        Some(kernel) if kernel.overlaps(ours) => {
            Err(Unfit::LocalPorts { ours: ours.clone(), kernel })
        }
        Some(_) | None => Ok(()),
    }
}

/// The CPU of each of `queues` workers: those configured, else the allowed ones in order. With
/// fewer CPUs than workers and none configured, several workers share one.
pub(super) fn cpus(
    configured: &[usize],
    queues: usize,
    allowed: &[usize],
) -> Result<Vec<Option<usize>>, Unfit> {
    if configured.is_empty() {
        return Ok((0..queues).map(|queue| allowed.iter().cycle().nth(queue).copied()).collect());
    }
    if configured.len() != queues {
        return Err(Unfit::CpuCount { cpus: configured.len(), queues });
    }
    if let Some(cpu) = configured.iter().find(|cpu| !allowed.contains(cpu)) {
        return Err(Unfit::Cpu { cpu: *cpu, allowed: allowed.to_vec() });
    }
    Ok(configured.iter().copied().map(Some).collect())
}

/// The CPUs that this process may use.
pub(super) fn allowed_cpus() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap_or_default();
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Raises the limits of locked memory (packet memory counts there) and of open files (doorbells,
/// held ports) as far as we may.
pub(super) fn raise_limits() {
    let unlimited = Rlimit { current: None, maximum: None };
    for (resource, wanted) in [(Resource::Memlock, Some(unlimited)), (Resource::Nofile, None)] {
        let limit = getrlimit(resource);
        let hard = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let raised =
            wanted.map_or(Err(rustix::io::Errno::PERM), |wanted| setrlimit(resource, wanted));
        if raised.is_err() {
            // The hard limit is always allowed; what is then too little is said where it is.
            let _ = setrlimit(resource, hard);
        }
    }
}

/// The first port that ordinary users may bind.
pub(super) fn unprivileged_from() -> u16 {
    let path = Path::new("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels() {
        for good in ["5.11.0", "6.1.0-13-amd64", "6.18.44-fc-v669", "10.0", "strange"] {
            assert_eq!(kernel(good), Ok(()), "{good}");
        }
        for old in ["5.10.0-26-amd64", "4.19.0", "3.2"] {
            assert_eq!(kernel(old), Err(Unfit::Kernel(old.to_owned())));
        }
    }

    #[test]
    fn capabilities_are_named_one_by_one() {
        let status = |bits: u64| format!("Name:\tx\nCapPrm:\t0\nCapEff:\t{bits:016x}\n");
        let all = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;
        assert_eq!(privileges(&status(all)), Ok(()));
        assert_eq!(privileges(&status(1 << 12 | 1 << 13 | 1 << 21)), Ok(()));
        let error = privileges(&status(all & !(1 << 13))).unwrap_err().to_string();
        assert!(error.contains("CAP_NET_RAW (to open AF_XDP sockets)"), "{error}");
        assert!(!error.contains("CAP_BPF"), "{error}");
        assert!(privileges(&status(0)).unwrap_err().to_string().contains("CAP_BPF"));
    }

    #[test]
    fn local_ports_keep_off_the_kernels() {
        let range = |text: &str| text.parse::<PortRange>().unwrap();
        assert_eq!(local_ports(&range("61000-65535"), "32768\t60999\n"), Ok(()));
        assert_eq!(local_ports(&range(""), "1024\t65535\n"), Ok(()));
        let error = local_ports(&range("60999-65535"), "32768\t60999\n").unwrap_err().to_string();
        assert!(error.contains("60999-65535") && error.contains("32768-60999"), "{error}");
    }

    #[test]
    fn every_worker_gets_a_cpu() {
        let some = |list: &[usize]| Ok(list.iter().copied().map(Some).collect());
        assert_eq!(cpus(&[], 3, &[2, 5]), some(&[2, 5, 2]));
        assert_eq!(cpus(&[5, 2], 2, &[2, 5]), some(&[5, 2]));
        assert_eq!(cpus(&[5], 2, &[2, 5]), Err(Unfit::CpuCount { cpus: 1, queues: 2 }));
        let error = cpus(&[7], 1, &[2, 5]).unwrap_err().to_string();
        assert!(error.contains("CPU 7") && error.contains("[2, 5]"), "{error}");
        assert!(!allowed_cpus().is_empty());
    }
}
