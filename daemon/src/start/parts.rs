//! From the configuration's words to those of the crates that do the work.

use crate::config::{
    Config, CongestionControl, NO_CHALLENGE_ACK_LIMIT, PollMode, RxChecksum, Scheduler, XdpMode,
    ZeroCopy,
};
use crate::worker::{Polling, Scheduling};
use fourwave_stack::SynCookies;
use fourwave_tcp::{Ecn, Nanos};
use fourwave_wire::ChecksumPolicy;
use fourwave_xdp::{CopyMode, HugePages, QueueConfig, SteeringConfig};
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

/// Bytes of a frame that are not for the IP packet: what the kernel keeps, and a link header
/// with two VLAN tags.
const NOT_PACKET: u32 = QueueConfig::HEADROOM + 22;

/// The size of frames that hold packets of `mtu` bytes; `None` if none does.
pub(super) fn frame_size(mtu: u32) -> Option<u32> {
    [2048, 4096].into_iter().find(|size| mtu <= size - NOT_PACKET)
}

/// Largest MTU of the interface.
pub(super) const MAX_MTU: u32 = 4096 - NOT_PACKET;

/// The name of the instance in `runtime_dir`: one path component, another one for every folder.
pub(super) fn instance(runtime_dir: &Path) -> String {
    let mut name = String::new();
    for byte in runtime_dir.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' if name.is_empty() => {}
            b'/' => name.push('-'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => name.push(char::from(*byte)),
            // Writing to a String does not fail.
            other => drop(write!(name, "_{other:02x}")),
        }
    }
    name
}

pub(super) fn steering(config: &Config, interface: &str, queues: u32) -> SteeringConfig {
    let mut steering = SteeringConfig::new(interface, instance(&config.runtime_dir));
    steering.bpffs.clone_from(&config.bpffs);
    steering.limits.queues = queues;
    steering.mode = match config.xdp_mode {
        XdpMode::Auto => fourwave_xdp::XdpMode::Auto,
        XdpMode::Native => fourwave_xdp::XdpMode::Native,
        XdpMode::Generic => fourwave_xdp::XdpMode::Generic,
    };
    steering
}

pub(super) fn queue(
    config: &Config,
    interface: &str,
    queue: u32,
    frame_size: u32,
    generic: bool,
) -> QueueConfig {
    QueueConfig {
        rx_frames: config.umem_frames / 2,
        tx_frames: config.umem_frames / 2,
        frame_size,
        copy_mode: match (config.zero_copy, generic) {
            (ZeroCopy::On, _) => CopyMode::ZeroCopy,
            (ZeroCopy::Off, _) | (ZeroCopy::Auto, true) => CopyMode::Copy,
            (ZeroCopy::Auto, false) => CopyMode::Auto,
        },
        huge_pages: match config.huge_pages {
            true => HugePages::Require,
            false => HugePages::Off,
        },
        ..QueueConfig::new(interface, queue)
    }
}

pub(super) fn polling(config: &Config) -> Polling {
    match config.poll {
        PollMode::Busy => Polling::Busy,
        PollMode::Adaptive => Polling::Adaptive(Duration::from_micros(config.spin_us.into())),
        PollMode::Interrupt => Polling::Interrupt,
    }
}

pub(super) fn scheduling(config: &Config) -> Scheduling {
    match config.scheduler {
        Scheduler::Normal => Scheduling::Normal,
        Scheduler::Nice(value) => Scheduling::Nice(value.into()),
        Scheduler::Fifo(priority) => Scheduling::Fifo(priority.into()),
    }
}

/// The settings of one of `workers` shards.
pub(super) fn stack(
    config: &Config,
    workers: u32,
    local_ports: RangeInclusive<u16>,
) -> fourwave_stack::Config {
    fourwave_stack::Config {
        connections: config.limits.connections,
        syn_received: config.limits.syn,
        time_wait: config.tcp.max_tw_buckets.div_ceil(workers),
        listeners: config.limits.listeners,
        local_ports,
        checksum: match config.rx_checksum {
            RxChecksum::Verify => ChecksumPolicy::Verify,
            RxChecksum::Trust => ChecksumPolicy::Trust,
        },
        syncookies: match config.tcp.syncookies {
            0 => SynCookies::Off,
            1 => SynCookies::OnOverflow,
            // Checked to be 2.
            _ => SynCookies::Always,
        },
        max_syn_backlog: config.tcp.max_syn_backlog,
        abort_on_overflow: config.tcp.abort_on_overflow,
        max_orphans: config.tcp.max_orphans.div_ceil(workers),
        // 2 is the loopback interface, whose frames never pass here.
        tw_reuse: config.tcp.tw_reuse == 1,
        tw_reuse_delay: nanos(config.tcp.tw_reuse_delay),
        challenge_ack_limit: match config.tcp.challenge_ack_limit {
            NO_CHALLENGE_ACK_LIMIT => None,
            limit => Some(limit.div_ceil(workers)),
        },
        rfc1337: config.tcp.rfc1337,
        mtu_expires: nanos(config.tcp.mtu_expires),
        tcp: tcp(config),
        ..fourwave_stack::Config::default()
    }
}

/// The settings that all connections share.
pub(super) fn tcp(config: &Config) -> fourwave_tcp::Config {
    let tcp = &config.tcp;
    let window = buffer(tcp.rmem);
    fourwave_tcp::Config {
        rto_initial: nanos(tcp.rto_initial),
        rto_min: nanos(tcp.rto_min),
        rto_max: nanos(tcp.rto_max),
        delayed_ack: nanos(tcp.delayed_ack),
        fin_timeout: nanos(tcp.fin_timeout),
        time_wait: nanos(tcp.time_wait),
        syn_retries: tcp.syn_retries,
        synack_retries: tcp.synack_retries,
        hop_limit: tcp.ip_default_ttl,
        retries2: tcp.retries2,
        orphan_retries: match tcp.orphan_retries {
            0 => 8,
            retries => retries,
        },
        syn_linear_timeouts: tcp.syn_linear_timeouts,
        keepalive_time: seconds(tcp.keepalive_time),
        keepalive_interval: seconds(tcp.keepalive_intvl),
        keepalive_probes: tcp.keepalive_probes,
        congestion_control: match tcp.congestion_control {
            CongestionControl::Cubic => fourwave_tcp::CongestionControl::Cubic,
            CongestionControl::Reno => fourwave_tcp::CongestionControl::NewReno,
        },
        initial_window: tcp.initial_window,
        slow_start_after_idle: tcp.slow_start_after_idle,
        mtu_probing: tcp.mtu_probing == 1,
        base_mss: tcp.base_mss,
        ecn: match tcp.ecn {
            0 => Ecn::Off,
            1 => Ecn::On,
            // Checked to be 2.
            _ => Ecn::Accept,
        },
        timestamps: tcp.timestamps,
        window_scaling: tcp.window_scaling,
        sack: tcp.sack,
        recv_window_max: window,
        window_scale: fourwave_tcp::Config::scale_for(window),
        send_buffer: buffer(tcp.wmem),
        ..fourwave_tcp::Config::default()
    }
}

/// A duration that was checked to be some hours at most.
fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// A buffer's size of the configuration, which is 1 GiB at the most.
pub(super) fn buffer(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// A duration of the configuration, all of which are far below 500 years.
fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The longest run of consecutive numbers in `ports`, which are in order; an empty range if there
/// is none.
pub(super) fn longest_run(ports: &[u16]) -> RangeInclusive<u16> {
    let runs = ports.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    // The first of equals.
    let longest = runs.rev().max_by_key(|run| run.len());
    match longest {
        Some([first, .., last]) => *first..=*last,
        Some([only]) => *only..=*only,
        Some([]) | None => RangeInclusive::new(1, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_names_of_their_own() {
        assert_eq!(instance(Path::new("/run/fourwave")), "run-fourwave");
        let names = ["/run/a-b", "/run/a/b", "/run/a_b", "/run/a.b", "/run/a_2db"];
        let names = names.map(|path| instance(Path::new(path)));
        for name in &names {
            assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{name}");
            assert!(!name.contains(['/', '.']), "{name}");
        }
    }

    #[test]
    fn frames_hold_the_mtu() {
        assert_eq!(frame_size(1500), Some(2048));
        assert_eq!(frame_size(1770), Some(2048));
        assert_eq!(frame_size(1771), Some(4096));
        assert_eq!(frame_size(MAX_MTU), Some(4096));
        assert_eq!(frame_size(MAX_MTU + 1), None);
    }

    #[test]
    fn the_longest_run_of_ports() {
        assert_eq!(longest_run(&[1, 2, 4, 5, 6, 9]), 4..=6);
        assert_eq!(longest_run(&[1, 2, 4, 5]), 1..=2);
        assert_eq!(longest_run(&[u16::MAX]), u16::MAX..=u16::MAX);
        assert!(longest_run(&[]).is_empty());
    }

    #[test]
    fn defaults_are_linuxs() {
        let config = Config::default();
        let stack = stack(&config, 3, 61_000..=65_535);
        assert_eq!(stack.time_wait, (16 << 20) / 3 + 1);
        assert_eq!(stack.challenge_ack_limit, None);
        assert_eq!(stack.max_orphans, 65_536 / 3 + 1);
        assert_eq!(stack.syncookies, SynCookies::OnOverflow);
        assert_eq!(stack.tcp, fourwave_tcp::Config::default());
    }

    #[test]
    fn the_window_scale_fits_the_largest_window() {
        for (rmem, scale) in
            [(64 << 10, 1), (1 << 20, 5), (4 << 20, 7), (6 << 20, 7), (1 << 30, 14)]
        {
            let mut config = Config::default();
            config.tcp.rmem = rmem;
            assert_eq!(tcp(&config).window_scale, scale, "{rmem}");
        }
    }
}
