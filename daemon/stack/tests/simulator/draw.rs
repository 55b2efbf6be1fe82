//! What a seed decides before anything happens: how bad the link is, how both hosts are set up.

use fourwave_stack::{Config, SynCookies};
use fourwave_tcp::{CongestionControl, Ecn, Nanos, Settings};

use crate::rng::Rng;

pub(crate) const MICROS: Nanos = 1_000;
pub(crate) const MILLIS: Nanos = 1_000 * MICROS;
pub(crate) const SECONDS: Nanos = 1_000 * MILLIS;
/// What both hosts believe that the way takes.
pub(crate) const LINK_MTU: u16 = 1_500;

/// How bad the link is. "Per mille" counts frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) loss_per_mille: u64,
    /// Starts a time of at most `burst` in which all is lost.
    pub(crate) burst_per_mille: u64,
    pub(crate) burst: Nanos,
    pub(crate) duplicate_per_mille: u64,
    /// Held back for up to four times the delay.
    pub(crate) reorder_per_mille: u64,
    pub(crate) damage_per_mille: u64,
    pub(crate) pad_per_mille: u64,
    pub(crate) delay: Nanos,
    pub(crate) jitter: Nanos,
    /// Bytes a second; 0: no limit.
    pub(crate) rate: u64,
    /// The longest wait for the line.
    pub(crate) queue: Nanos,
    /// A wait for the line that makes it mark frames which can be marked (RFC 3168).
    pub(crate) mark_from: Nanos,
    /// Marks those, whether or not they wait.
    pub(crate) mark_per_mille: u64,
    /// Largest IP packet.
    pub(crate) mtu: u16,
    /// Nobody is told of packets that are too large.
    pub(crate) is_blackhole: bool,
}

impl Faults {
    pub(crate) fn draw(rng: &mut Rng) -> Faults {
        let is_lossy = rng.chance(550);
        let some = |rng: &mut Rng, per_mille, from: &[u64]| {
            if rng.chance(per_mille) { rng.pick(from) } else { 0 }
        };
        let small = rng.chance(120);
        Faults {
            loss_per_mille: if is_lossy { rng.pick(&[0, 1, 10, 50, 150]) } else { 0 },
            burst_per_mille: if is_lossy { some(rng, 300, &[1, 5]) } else { 0 },
            burst: rng.pick(&[MILLIS, 50 * MILLIS, 2 * SECONDS]),
            duplicate_per_mille: some(rng, 500, &[1, 20, 200]),
            reorder_per_mille: some(rng, 300, &[1, 20, 200]),
            damage_per_mille: if is_lossy { some(rng, 300, &[1, 10, 100]) } else { 0 },
            pad_per_mille: some(rng, 200, &[500]),
            delay: rng.pick(&[10 * MICROS, 500 * MICROS, 20 * MILLIS]),
            jitter: some(rng, 500, &[100 * MICROS, 5 * MILLIS, 60 * MILLIS]),
            rate: some(rng, 300, &[100_000, 2_000_000, 100_000_000]),
            queue: rng.pick(&[20 * MILLIS, 200 * MILLIS]),
            mark_from: rng.pick(&[MILLIS, 20 * MILLIS, SECONDS]),
            mark_per_mille: some(rng, 300, &[1, 50]),
            // The least that IPv6 allows, and that an IPv4 host believes.
            mtu: if small { rng.pick(&[1_280, 1_400, 1_492]) } else { LINK_MTU },
            is_blackhole: rng.chance(200),
        }
    }
}

/// Settings of one host; the seed decides both hosts' `shared` ones together.
pub(crate) fn host_config(rng: &mut Rng, cookies: SynCookies, ports: u16) -> Config {
    Config {
        connections: rng.pick(&[4, 64, 64, 64]),
        syn_received: rng.pick(&[2, 32, 32]),
        time_wait: rng.pick(&[1, 64]),
        listeners: 1,
        local_addresses: 2,
        local_ports: 20_000..=20_000 + ports - 1,
        syncookies: cookies,
        max_syn_backlog: rng.pick(&[2, 64]),
        max_orphans: if rng.chance(50) { 1 } else { 64 },
        tw_reuse: rng.chance(300),
        challenge_ack_limit: if rng.chance(300) { Some(rng.pick(&[1, 1_000])) } else { None },
        abort_on_overflow: rng.chance(100),
        rfc1337: rng.chance(500),
        tcp: tcp_config(rng),
        ..Config::default()
    }
}

fn tcp_config(rng: &mut Rng) -> fourwave_tcp::Config {
    let window = rng.pick(&[1_000, 6_000, 65_536, 65_536, 300_000, 2 << 20]);
    // A scale that leaves the window with a few steps to be told in.
    let coarsest = u32::ilog2(window / 64) as u8;
    fourwave_tcp::Config {
        timestamps: rng.chance(700),
        window_scaling: rng.chance(900),
        sack: rng.chance(800),
        ecn: rng.pick(&[Ecn::Off, Ecn::On, Ecn::On, Ecn::Accept]),
        congestion_control: rng.pick(&[CongestionControl::Cubic, CongestionControl::NewReno]),
        nagle: rng.chance(600),
        slow_start_after_idle: rng.chance(500),
        window_scale: rng.pick(&[0, 2, 7, 7, 14]).min(coarsest),
        recv_window_max: window,
        send_buffer: rng.pick(&[2_000, 20_000, 256 << 10, 1 << 20]),
        initial_window: rng.pick(&[1, 2, 10]),
        quick_acks: rng.pick(&[0, 16]),
        delayed_ack: rng.pick(&[MILLIS, 40 * MILLIS, 200 * MILLIS]),
        rto_min: rng.pick(&[10 * MILLIS, 200 * MILLIS]),
        time_wait: rng.pick(&[SECONDS, 60 * SECONDS]),
        fin_timeout: rng.pick(&[SECONDS, 60 * SECONDS]),
        challenge_interval: rng.pick(&[MILLIS, 500 * MILLIS]),
        ..fourwave_tcp::Config::default()
    }
}

/// What an application might choose for a connection, sensible or not.
pub(crate) fn settings(rng: &mut Rng) -> Settings {
    let mut settings = Settings::default();
    settings.keepalive_time = rng.pick(&[0, 1, 60]);
    settings.keepalive_interval = rng.pick(&[0, 1]);
    settings.keepalive_probes = rng.pick(&[0, 1, 9]);
    settings.user_timeout = rng.pick(&[0, 0, 1, 10_000]);
    settings.linger = rng.pick(&[0, 0, 1, 5]);
    settings.fin_timeout = rng.pick(&[0, -1, 1, 1_000]);
    settings.recv_buffer = rng.pick(&[0, 1, 2_000, 1 << 30]);
    settings.send_buffer = rng.pick(&[0, 1, 2_000, 1 << 30]);
    settings.max_segment = rng.pick(&[0, 88, 1_000]);
    settings.tos = rng.pick(&[0, 0xfc]);
    settings.traffic_class = rng.pick(&[0, 0xfc]);
    settings.set_nodelay(rng.chance(500));
    settings.set_cork(rng.chance(300));
    settings.set_keepalive(rng.chance(500));
    settings
        .set_congestion_control(rng.pick(&[CongestionControl::Cubic, CongestionControl::NewReno]));
    settings
}

/// Choices that leave a conversation whole: they change how it looks, not whether it ends well.
pub(crate) fn harmless_settings(rng: &mut Rng) -> Settings {
    let mut settings = settings(rng);
    settings.user_timeout = 0;
    settings.linger = 0;
    settings.fin_timeout = 0;
    settings.max_segment = 0;
    settings.recv_buffer = rng.pick(&[0, 4_000, 1 << 30]);
    settings.keepalive_probes = 9;
    settings
}
