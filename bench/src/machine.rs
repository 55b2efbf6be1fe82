//! What the machine says about itself: CPU time, TCP counters, load, pins.

use std::collections::HashMap;
use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit};
use rustix::thread::CpuSet;

/// Counters of the calling thread's network namespace, named as `nstat` names them
/// (`TcpRetransSegs`, `TcpExtTCPTimeWaitOverflow`).
#[derive(Clone, Debug, Default)]
pub struct NetCounters(HashMap<String, u64>);

impl NetCounters {
    /// Reads them now.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn read() -> io::Result<NetCounters> {
        // Not `/proc/net`: that is the namespace of the process's first thread.
        let mut counters = NetCounters::default();
        for file in ["/proc/thread-self/net/snmp", "/proc/thread-self/net/netstat"] {
            counters.parse(&fs::read_to_string(file)?);
        }
        Ok(counters)
    }

    /// Lines come in pairs: `Tcp: name name …`, `Tcp: value value …`.
    fn parse(&mut self, text: &str) {
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.chunks_exact(2) {
            let (Some((prefix, names)), Some((_, values))) =
                (pair[0].split_once(": "), pair[1].split_once(": "))
            else {
                continue;
            };
            for (name, value) in names.split(' ').zip(values.split(' ')) {
                // Some are -1 for "no limit"; none that we want is.
                if let Ok(value) = value.parse() {
                    self.0.insert(format!("{prefix}{name}"), value);
                }
            }
        }
    }

    /// One counter; 0 for a name that this kernel does not have.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// How far `name` has come since `earlier`.
    pub fn since(&self, earlier: &NetCounters, name: &str) -> u64 {
        self.get(name).saturating_sub(earlier.get(name))
    }
}

/// Time in nanoseconds that all CPUs together have spent on anything but idling, since boot.
///
/// # Errors
/// When `/proc/stat` cannot be read or has another form.
pub fn busy_ns() -> io::Result<u64> {
    let ticks = parse_busy_ticks(&fs::read_to_string("/proc/stat")?)
        .ok_or_else(|| io::Error::other("/proc/stat has no `cpu` line"))?;
    Ok(ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second()))
}

/// user + nice + system + irq + softirq: neither idle nor iowait nor stolen; guest time is in user.
fn parse_busy_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .flat_map(str::parse)
        .collect();
    let &[user, nice, system, _idle, _iowait, irq, softirq, ..] = fields.as_slice() else {
        return None;
    };
    Some(user + nice + system + irq + softirq)
}

/// Load average over one minute.
///
/// # Errors
/// When `/proc/loadavg` cannot be read.
pub fn load_average() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let first = text.split(' ').next().and_then(|number| number.parse().ok());
    first.ok_or_else(|| io::Error::other("/proc/loadavg has another form"))
}

/// Bytes of memory that this process holds now.
///
/// # Errors
/// When `/proc/self/statm` cannot be read or has another form.
pub fn resident_bytes() -> io::Result<u64> {
    resident_bytes_of(rustix::process::getpid().as_raw_pid())
}

/// Bytes of memory that a process holds now.
///
/// # Errors
/// When `/proc/PID/statm` cannot be read or has another form.
pub fn resident_bytes_of(pid: i32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| io::Error::other("/proc/PID/statm has another form"))?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// The processor's name, empty where the machine does not tell.
pub fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    line.map(|line| line.trim_start_matches([' ', '\t', ':']).to_owned()).unwrap_or_default()
}

/// CPUs that the calling thread may use.
///
/// # Errors
/// Whatever `sched_getaffinity` says.
pub fn cpus() -> io::Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Pins the calling thread, and the threads and processes it starts, to one CPU.
///
/// # Errors
/// `EINVAL` when there is no such CPU or it may not be used.
pub fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Raises the limit of open files to what the process may have.
///
/// # Errors
/// Whatever `setrlimit` says.
pub fn raise_open_files() -> io::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
    Ok(rustix::process::setrlimit(Resource::Nofile, all)?)
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // The monotonic clock starts near zero and never goes back.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Nanoseconds that the calling thread has had a CPU.
pub fn cpu_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    // It starts at zero and never goes back.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_come_from_pairs_of_lines() {
        let mut counters = NetCounters::default();
        counters.parse("Tcp: MaxConn RetransSegs\nTcp: -1 12\nTcpExt: A B\nTcpExt: 3 4\n");
        assert_eq!(counters.get("TcpRetransSegs"), 12);
        assert_eq!(counters.get("TcpExtB"), 4);
        assert_eq!(counters.get("TcpMaxConn"), 0);
    }

    #[test]
    fn this_kernel_has_the_counters_that_we_judge_by() {
        let counters = NetCounters::read().unwrap();
        for name in ["TcpRetransSegs", "TcpExtTCPTimeWaitOverflow", "TcpExtListenOverflows"] {
            assert!(counters.0.contains_key(name), "{name}");
        }
    }

    #[test]
    fn idle_iowait_and_steal_are_not_busy() {
        let stat = "cpu  1 2 4 1000 2000 8 16 4000 32 64\ncpu0 0 0 0 0 0 0 0 0 0 0\n";
        assert_eq!(parse_busy_ticks(stat), Some(31));
        assert_eq!(parse_busy_ticks("intr 1"), None);
    }
}
