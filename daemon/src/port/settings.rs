//! From options as clients number them to the settings that the stack obeys, and back.

use fourwave_protocol::option::{ConnOption, NO_FIN_TIMEOUT, congestion};
use fourwave_tcp::{Config, CongestionControl, Settings};

/// The least that buffers can be set to: half of Linux's `SOCK_MIN_RCVBUF` and `SOCK_MIN_SNDBUF`,
/// which count twice what fits.
const MIN_RECEIVE_BUFFER: u32 = 1152;
const MIN_SEND_BUFFER: u32 = 2304;

/// Sets an option to a value that it [`allows`](ConnOption::allows).
pub fn set(settings: &mut Settings, option: ConnOption, value: u32) {
    let on = value != 0;
    // Those of 8 or 16 bits are limited to what fits.
    match option {
        ConnOption::NoDelay => settings.set_nodelay(on),
        ConnOption::Cork => settings.set_cork(on),
        // The state of a connection, and no setting of it.
        ConnOption::QuickAck => {}
        ConnOption::KeepAlive => settings.set_keepalive(on),
        ConnOption::KeepIdle => settings.keepalive_time = value,
        ConnOption::KeepInterval => settings.keepalive_interval = value,
        ConnOption::KeepCount => settings.keepalive_probes = value as u8,
        ConnOption::UserTimeout => settings.user_timeout = value,
        ConnOption::MaxSegment => settings.max_segment = value as u16,
        ConnOption::FinTimeout => {
            settings.fin_timeout = if value == NO_FIN_TIMEOUT { -1 } else { value as i16 };
        }
        ConnOption::SynCount => settings.syn_retries = value as u8,
        ConnOption::Congestion => settings.set_congestion_control(match value {
            congestion::RENO => CongestionControl::NewReno,
            _ => CongestionControl::Cubic,
        }),
        ConnOption::Linger => settings.linger = value,
        ConnOption::ReceiveBuffer => settings.recv_buffer = value.max(MIN_RECEIVE_BUFFER),
        ConnOption::SendBuffer => settings.send_buffer = value.max(MIN_SEND_BUFFER),
        ConnOption::Tos => settings.tos = value as u8,
        ConnOption::TrafficClass => settings.traffic_class = value as u8,
        ConnOption::Ttl => settings.ttl = value as u8,
        ConnOption::HopLimit => settings.hop_limit = value as u8,
    }
}

/// What an option is: as it was set, or as it is configured.
pub fn get(settings: &Settings, cfg: &Config, option: ConnOption) -> u32 {
    match option {
        ConnOption::NoDelay => settings.nodelay().into(),
        ConnOption::Cork => settings.cork().into(),
        // A new connection begins with quick acknowledgements.
        ConnOption::QuickAck => (cfg.quick_acks > 0).into(),
        ConnOption::KeepAlive => settings.keepalive().into(),
        ConnOption::KeepIdle => settings.keepalive_time(cfg),
        ConnOption::KeepInterval => settings.keepalive_interval(cfg),
        ConnOption::KeepCount => settings.keepalive_probes(cfg).into(),
        ConnOption::UserTimeout => settings.user_timeout,
        ConnOption::MaxSegment => settings.max_segment.into(),
        ConnOption::FinTimeout => match settings.fin_timeout(cfg) {
            Some(time) => u32::try_from(time / 1_000_000_000).unwrap_or(u32::MAX - 1),
            None => NO_FIN_TIMEOUT,
        },
        ConnOption::SynCount => settings.syn_retries(cfg).into(),
        ConnOption::Congestion => match settings.congestion_control(cfg) {
            CongestionControl::NewReno => congestion::RENO,
            CongestionControl::Cubic => congestion::CUBIC,
        },
        ConnOption::Linger => settings.linger,
        ConnOption::ReceiveBuffer => settings.recv_limit(cfg),
        ConnOption::SendBuffer => match settings.send_buffer {
            0 => cfg.send_buffer,
            chosen => chosen.min(cfg.send_buffer),
        },
        ConnOption::Tos => settings.tos.into(),
        ConnOption::TrafficClass => settings.traffic_class.into(),
        ConnOption::Ttl => settings.ip_ttl(true, cfg).into(),
        ConnOption::HopLimit => settings.ip_ttl(false, cfg).into(),
    }
}

/// Every option, by [`ConnOption::index`].
pub fn all(settings: &Settings, cfg: &Config) -> [u32; ConnOption::ALL.len()] {
    ConnOption::ALL.map(|option| get(settings, cfg, option))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_what_is_got() {
        let cfg = Config::default();
        let defaults = all(&Settings::default(), &cfg);
        assert_eq!(defaults[ConnOption::KeepIdle.index()], 7200);
        assert_eq!(defaults[ConnOption::SynCount.index()], 6);
        assert_eq!(defaults[ConnOption::FinTimeout.index()], 60);
        for option in ConnOption::ALL {
            for value in [0, 1, 2, 8, 100, 120, 4096, 32_767, 60_000, NO_FIN_TIMEOUT] {
                if !option.allows(value) || option == ConnOption::QuickAck {
                    continue;
                }
                let mut settings = Settings::default();
                set(&mut settings, option, value);
                let expected = match (option, value) {
                    (ConnOption::FinTimeout, 0) => 60,
                    (ConnOption::Ttl | ConnOption::HopLimit, 0) => 64,
                    (ConnOption::ReceiveBuffer, value) => value.clamp(1152, 65_536),
                    (ConnOption::SendBuffer, value) => value.clamp(2304, cfg.send_buffer),
                    (_, value) => value,
                };
                assert_eq!(get(&settings, &cfg, option), expected, "{option:?} {value}");
                let others = ConnOption::ALL.into_iter().filter(|other| *other != option);
                for other in others {
                    assert_eq!(get(&settings, &cfg, other), defaults[other.index()], "{other:?}");
                }
            }
        }
    }
}
