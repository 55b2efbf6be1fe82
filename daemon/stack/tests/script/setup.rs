//! What a script says of the stack before it starts.

use std::str::FromStr;

use fourwave_stack::{Config, SynCookies};
use fourwave_tcp::{CongestionControl, Ecn, Nanos, Settings};

use crate::common::{MILLIS, small};
use crate::language::parse_time;
use crate::segment::number;

/// Settings of the stack and of the path to the peer.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) is_v4: bool,
    mtu: Option<u16>,
}

impl Default for Setup {
    /// What the stack defaults to, with windows that halve at a loss: they are easier to follow.
    fn default() -> Setup {
        let mut config = small();
        config.tcp.congestion_control = CongestionControl::NewReno;
        Setup { config, is_v4: true, mtu: None }
    }
}

impl Setup {
    /// The same over IPv6.
    pub(crate) fn over_ipv6() -> Setup {
        Setup { is_v4: false, ..Setup::default() }
    }

    /// The path's MTU: that of an MSS of 1000, unless said otherwise.
    pub(crate) fn mtu(&self) -> u16 {
        self.mtu.unwrap_or(if self.is_v4 { 1_040 } else { 1_060 })
    }

    /// `key=value`.
    pub(crate) fn set(&mut self, setting: &str) -> Result<(), String> {
        let (key, value) =
            setting.split_once('=').ok_or_else(|| format!("not KEY=VALUE: {setting}"))?;
        let config = &mut self.config;
        let tcp = &mut config.tcp;
        match key {
            "ipv6" => self.is_v4 = !flag(value)?,
            "mtu" => self.mtu = Some(number(value)?),
            "time_wait_records" => config.time_wait = number(value)?,
            "local_ports" => {
                let port = number(value)?;
                config.local_ports = port..=port;
            }
            "connections" => config.connections = number(value)?,
            "syn_received" => config.syn_received = number(value)?,
            "abort_on_overflow" => config.abort_on_overflow = flag(value)?,
            "max_syn_backlog" => config.max_syn_backlog = number(value)?,
            "max_orphans" => config.max_orphans = number(value)?,
            "tw_reuse" => config.tw_reuse = flag(value)?,
            "tw_reuse_delay" => config.tw_reuse_delay = time(value)?,
            "rfc1337" => config.rfc1337 = flag(value)?,
            "challenge_ack_limit" => config.challenge_ack_limit = Some(number(value)?),
            "syncookies" => {
                config.syncookies = match value {
                    "0" => SynCookies::Off,
                    "1" => SynCookies::OnOverflow,
                    "2" => SynCookies::Always,
                    _ => return Err(format!("0, 1 or 2, not {value}")),
                }
            }
            "congestion_control" => tcp.congestion_control = algorithm(value)?,
            "ip_default_ttl" => tcp.hop_limit = number(value)?,
            "ecn" => {
                tcp.ecn = match value {
                    "0" => Ecn::Off,
                    "1" => Ecn::On,
                    "2" => Ecn::Accept,
                    _ => return Err(format!("0, 1 or 2, not {value}")),
                }
            }
            "rto_initial" => tcp.rto_initial = time(value)?,
            "rto_min" => tcp.rto_min = time(value)?,
            "rto_max" => tcp.rto_max = time(value)?,
            "delayed_ack" => tcp.delayed_ack = time(value)?,
            "fin_timeout" => tcp.fin_timeout = time(value)?,
            "time_wait" => tcp.time_wait = time(value)?,
            "challenge_interval" => tcp.challenge_interval = time(value)?,
            "syn_retries" => tcp.syn_retries = number(value)?,
            "syn_linear_timeouts" => tcp.syn_linear_timeouts = number(value)?,
            "synack_retries" => tcp.synack_retries = number(value)?,
            "retries2" => tcp.retries2 = number(value)?,
            "orphan_retries" => tcp.orphan_retries = number(value)?,
            "keepalive_time" => tcp.keepalive_time = number(value)?,
            "keepalive_interval" => tcp.keepalive_interval = number(value)?,
            "keepalive_probes" => tcp.keepalive_probes = number(value)?,
            "window_scaling" => tcp.window_scaling = flag(value)?,
            "window_scale" => tcp.window_scale = number(value)?,
            "initial_window" => tcp.initial_window = number(value)?,
            "quick_acks" => tcp.quick_acks = number(value)?,
            "recv_window_first" => tcp.recv_window_first = number(value)?,
            "recv_window_max" => tcp.recv_window_max = number(value)?,
            "send_buffer" => tcp.send_buffer = number(value)?,
            "timestamps" => tcp.timestamps = flag(value)?,
            "sack" => tcp.sack = flag(value)?,
            "mtu_probing" => tcp.mtu_probing = flag(value)?,
            "base_mss" => tcp.base_mss = number(value)?,
            "mtu_expires" => config.mtu_expires = time(value)?,
            "slow_start_after_idle" => tcp.slow_start_after_idle = flag(value)?,
            "nagle" => tcp.nagle = flag(value)?,
            _ => return Err(format!("no such setting: {key}")),
        }
        Ok(())
    }
}

/// What an application chooses for its connection: `key=value`, in the units of the socket option.
pub(crate) fn choose(settings: &mut Settings, choice: &str) -> Result<(), String> {
    let (key, value) = choice.split_once('=').ok_or_else(|| format!("not KEY=VALUE: {choice}"))?;
    match key {
        "nodelay" => settings.set_nodelay(flag(value)?),
        "cork" => settings.set_cork(flag(value)?),
        "keepalive" => settings.set_keepalive(flag(value)?),
        "keepalive_time" => settings.keepalive_time = number(value)?,
        "keepalive_interval" => settings.keepalive_interval = number(value)?,
        "keepalive_probes" => settings.keepalive_probes = number(value)?,
        "user_timeout" => settings.user_timeout = number(value)?,
        // The record counts from 1, so that 0 is off.
        "linger" => settings.linger = number::<u32>(value)? + 1,
        "fin_timeout" => settings.fin_timeout = number(value)?,
        "recv_buffer" => settings.recv_buffer = number(value)?,
        "max_segment" => settings.max_segment = number(value)?,
        "syn_retries" => settings.syn_retries = number(value)?,
        "tos" => settings.tos = number(value)?,
        "traffic_class" => settings.traffic_class = number(value)?,
        "ttl" => settings.ttl = number(value)?,
        "hop_limit" => settings.hop_limit = number(value)?,
        "congestion_control" => settings.set_congestion_control(algorithm(value)?),
        _ => return Err(format!("no such choice: {key}")),
    }
    Ok(())
}

fn algorithm(name: &str) -> Result<CongestionControl, String> {
    match name {
        "newreno" => Ok(CongestionControl::NewReno),
        "cubic" => Ok(CongestionControl::Cubic),
        _ => Err(format!("newreno or cubic, not {name}")),
    }
}

pub(crate) fn flag(value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(format!("on or off, not {other}")),
    }
}

fn time(value: &str) -> Result<Nanos, String> {
    parse_time(value).map(|millis| millis * MILLIS).ok_or_else(|| format!("not a time: {value}"))
}

/// One of `words` as `KEY=VALUE`.
pub(crate) fn keyed<T: FromStr>(words: &[&str], key: &str) -> Result<Option<T>, String> {
    let mut settings = words.iter().filter_map(|word| word.split_once('='));
    settings.find(|(name, _)| *name == key).map(|(_, value)| number(value)).transpose()
}
