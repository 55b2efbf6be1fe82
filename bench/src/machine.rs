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

/// What one CPU has done since boot, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// In processes and for them in the kernel.
    pub processes_ns: u64,
    /// In interrupts and in what follows them (softirq).
    pub interrupts_ns: u64,
}

impl CpuTimes {
    /// All CPUs, by number. One that is offline has zeros.
    ///
    /// # Errors
    /// When `/proc/stat` cannot be read.
    pub fn read() -> io::Result<Vec<CpuTimes>> {
        Ok(CpuTimes::parse(&fs::read_to_string("/proc/stat")?))
    }

    /// Time that was not idle.
    pub fn busy_ns(&self) -> u64 {
        self.processes_ns + self.interrupts_ns
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &CpuTimes) -> CpuTimes {
        CpuTimes {
            processes_ns: self.processes_ns.saturating_sub(earlier.processes_ns),
            interrupts_ns: self.interrupts_ns.saturating_sub(earlier.interrupts_ns),
        }
    }

    fn parse(stat: &str) -> Vec<CpuTimes> {
        let mut all = Vec::new();
        for line in stat.lines().filter_map(|line| line.strip_prefix("cpu")) {
            let mut fields = line.split_whitespace().map(|field| field.parse::<u64>().unwrap_or(0));
            // The line of the sum has no number after `cpu`.
            if line.starts_with(' ') {
                continue;
            }
            let number = usize::try_from(fields.next().unwrap_or(0)).unwrap_or(0);
            let fields: Vec<u64> = fields.collect();
            if let &[user, nice, system, _idle, _iowait, irq, softirq, ..] = fields.as_slice() {
                all.resize(all.len().max(number + 1), CpuTimes::default());
                all[number] = CpuTimes {
                    processes_ns: (user + nice + system) * tick_ns(),
                    interrupts_ns: (irq + softirq) * tick_ns(),
                };
            }
        }
        all
    }
}

/// Nanoseconds of a tick of `/proc`.
fn tick_ns() -> u64 {
    1_000_000_000 / rustix::param::clock_ticks_per_second()
}

/// CPU time and context switches of a process, all threads that live together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessTimes {
    /// On a CPU, exactly, with the interrupts that came meanwhile.
    pub running_ns: u64,
    /// Ready to run while others ran.
    pub waiting_ns: u64,
    /// User and system time as `/proc/stat` counts it, in ticks: without interrupts.
    pub counted_ns: u64,
    /// Context switches, its own and forced ones.
    pub switches: u64,
    /// The CPUs that its threads ran on last, as a bit mask of the first 64.
    pub cpus: u64,
}

impl ProcessTimes {
    /// Those of `pid` now.
    ///
    /// # Errors
    /// When it has ended.
    pub fn read(pid: i32) -> io::Result<ProcessTimes> {
        let mut times = ProcessTimes::default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            // A thread that ends while we look took its figures along.
            let read = |name| fs::read_to_string(task.join(name)).unwrap_or_default();
            times.add(&read("schedstat"), &read("stat"), &read("status"));
        }
        Ok(times)
    }

    fn add(&mut self, schedstat: &str, stat: &str, status: &str) {
        let mut scheduled = schedstat.split_whitespace().flat_map(str::parse::<u64>);
        self.running_ns += scheduled.next().unwrap_or(0);
        self.waiting_ns += scheduled.next().unwrap_or(0);
        // The name, which may hold anything, ends with the last `)`; state is the third field.
        let fields: Vec<&str> =
            stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse().ok());
        self.counted_ns += (field(14).unwrap_or(0) + field(15).unwrap_or(0)) * tick_ns();
        self.cpus |= field(39).filter(|cpu| *cpu < 64).map_or(0, |cpu: u64| 1 << cpu);
        for line in status.lines().filter(|line| line.contains("ctxt_switches")) {
            let count = line.rsplit(['\t', ' ']).next().and_then(|count| count.parse().ok());
            self.switches += count.unwrap_or(0_u64);
        }
    }

    /// What was added since `earlier`; the CPUs are those of now.
    #[must_use]
    pub fn since(&self, earlier: &ProcessTimes) -> ProcessTimes {
        ProcessTimes {
            running_ns: self.running_ns.saturating_sub(earlier.running_ns),
            waiting_ns: self.waiting_ns.saturating_sub(earlier.waiting_ns),
            counted_ns: self.counted_ns.saturating_sub(earlier.counted_ns),
            switches: self.switches.saturating_sub(earlier.switches),
            cpus: self.cpus,
        }
    }
}

/// User and system time of the calling process and of those of its children that it has waited for.
pub fn own_counted_ns() -> u64 {
    let mut total = 0;
    for who in [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN] {
        // SAFETY: all-zero is a valid `rusage`: integers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is a `rusage` that lives until the call returns.
        if unsafe { libc::getrusage(who, &raw mut usage) } == 0 {
            for time in [usage.ru_utime, usage.ru_stime] {
                total += time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000;
            }
        }
    }
    total
}

/// Packets that each CPU has taken from its receive queues since boot (`softnet_stat`), by number.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn received_by_cpu() -> io::Result<Vec<u64>> {
    Ok(parse_softnet(&fs::read_to_string("/proc/net/softnet_stat")?))
}

/// Hexadecimal columns; the first is the count, the 13th the CPU.
fn parse_softnet(text: &str) -> Vec<u64> {
    let mut all = Vec::new();
    for (line_number, line) in text.lines().enumerate() {
        let columns: Vec<u64> = line
            .split_whitespace()
            .map(|column| u64::from_str_radix(column, 16).unwrap_or(0))
            .collect();
        let cpu = columns.get(12).and_then(|cpu| usize::try_from(*cpu).ok()).unwrap_or(line_number);
        all.resize(all.len().max(cpu + 1), 0);
        all[cpu] = columns.first().copied().unwrap_or(0);
    }
    all
}

/// Frames that `interface` of the calling thread's network namespace has sent.
///
/// # Errors
/// When `/proc` cannot be read or there is no such interface.
pub fn frames_sent(interface: &str) -> io::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
    // Eight columns of what was received, then bytes and packets sent.
    let sent = line.and_then(|line| line.split_whitespace().nth(9)?.parse().ok());
    sent.ok_or_else(|| io::Error::other(format!("/proc/net/dev does not tell of {interface}")))
}

/// Bytes in the kernel's slab caches of these names.
///
/// # Errors
/// When `/proc/slabinfo` cannot be read, which only root may.
pub fn slab_bytes(names: &[&str]) -> io::Result<u64> {
    Ok(parse_slabs(&fs::read_to_string("/proc/slabinfo")?, names))
}

/// `name active total size …`.
fn parse_slabs(text: &str, names: &[&str]) -> u64 {
    let bytes = |line: &str| {
        let mut fields = line.split_whitespace();
        let is_wanted = fields.next().is_some_and(|name| names.contains(&name));
        let mut number = || fields.next()?.parse::<u64>().ok();
        let (active, _, size) = (number()?, number()?, number()?);
        is_wanted.then_some(active * size)
    };
    text.lines().filter_map(bytes).sum()
}

/// Bytes of memory that processes hold now, what they share among them counted once.
///
/// # Errors
/// When `/proc/PID/smaps_rollup` cannot be read or has another form.
pub fn proportional_bytes_of(pid: i32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("smaps_rollup has another form"))
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

/// Runs `work` with the calling thread pinned to `cpus`, which the processes that it starts inherit;
/// then the thread may run where it could before.
///
/// # Errors
/// `EINVAL` when none of them may be used.
pub fn pinned<T>(cpus: &[usize], work: impl FnOnce() -> T) -> io::Result<T> {
    let before = rustix::thread::sched_getaffinity(None)?;
    let mut set = CpuSet::new();
    for &cpu in cpus.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU) {
        set.set(cpu);
    }
    rustix::thread::sched_setaffinity(None, &set)?;
    let result = work();
    rustix::thread::sched_setaffinity(None, &before)?;
    Ok(result)
}

/// Raises the limit of open files to what the process may have: for root, what the kernel allows.
///
/// # Errors
/// Whatever `setrlimit` says.
pub fn raise_open_files() -> io::Result<()> {
    let most = fs::read_to_string("/proc/sys/fs/nr_open").ok();
    if let Some(most) = most.and_then(|text| text.trim().parse().ok()) {
        let all = Rlimit { current: Some(most), maximum: Some(most) };
        if rustix::process::setrlimit(Resource::Nofile, all).is_ok() {
            return Ok(());
        }
    }
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
    Ok(rustix::process::setrlimit(Resource::Nofile, all)?)
}

/// How many files a process may have open after [`raise_open_files`].
pub fn open_files_limit() -> u64 {
    rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Puts the calling thread, and the threads and processes it starts, before everything that is
/// scheduled as usual (`SCHED_FIFO`).
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE`.
pub fn before_all_others() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: `parameters` lives until the call returns.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
    fn a_pinned_thread_is_free_again() {
        let all = cpus().unwrap();
        let last = *all.last().unwrap();
        assert_eq!(pinned(&[last], cpus).unwrap().unwrap(), [last]);
        assert_eq!(cpus().unwrap(), all);
        assert!(pinned(&[usize::MAX], || ()).is_err());
    }

    #[test]
    fn cpus_are_told_apart() {
        let text = "cpu  9 9 9 9 9 9 9 9\ncpu0 1 2 4 1000 2000 8 16 4000 0 0\n\
                    cpu2 1 0 0 0 0 0 0 0 0 0\nintr 5\n";
        let all = CpuTimes::parse(text);
        let tick = tick_ns();
        assert_eq!(all.len(), 3);
        assert_eq!((all[0].processes_ns, all[0].interrupts_ns), (7 * tick, 24 * tick));
        assert_eq!((all[1], all[2].busy_ns()), (CpuTimes::default(), tick));
        assert!(CpuTimes::read().unwrap()[0].busy_ns() > 0);
    }

    #[test]
    fn a_process_is_the_sum_of_its_threads() {
        let mut times = ProcessTimes::default();
        let after_state = "0 ".repeat(10) + "3 4 " + &"0 ".repeat(23) + "5 0";
        let stat = format!("7 (a b) c) R {after_state}");
        let status = "voluntary_ctxt_switches:\t10\nnonvoluntary_ctxt_switches:\t2\n";
        times.add("100 20 3\n", &stat, status);
        times.add("1 2 3\n", &stat, status);
        assert_eq!((times.running_ns, times.waiting_ns, times.switches), (101, 22, 24));
        assert_eq!((times.counted_ns, times.cpus), (14 * tick_ns(), 1 << 5));
        let mine = ProcessTimes::read(rustix::process::getpid().as_raw_pid()).unwrap();
        assert!(mine.running_ns > 0 && mine.cpus != 0);
    }

    #[test]
    fn softnet_and_slabs() {
        let line = |count: &str, cpu: &str| format!("{count} {}{cpu} 0 0\n", "0 ".repeat(11));
        let text = line("000000ff", "00000001") + &line("10", "0");
        assert_eq!(parse_softnet(&text), [16, 255]);
        let text = "slabinfo - version: 2.1\nTCP 3 8 2048 8 4\ntw_sock_TCP 2 2 256 1 1\n";
        assert_eq!(parse_slabs(text, &["TCP", "tw_sock_TCP"]), 3 * 2048 + 512);
        assert!(frames_sent("lo").is_ok() && frames_sent("l").is_err());
    }

    #[test]
    fn idle_iowait_and_steal_are_not_busy() {
        let stat = "cpu  1 2 4 1000 2000 8 16 4000 32 64\ncpu0 0 0 0 0 0 0 0 0 0 0\n";
        assert_eq!(parse_busy_ticks(stat), Some(31));
        assert_eq!(parse_busy_ticks("intr 1"), None);
    }
}
