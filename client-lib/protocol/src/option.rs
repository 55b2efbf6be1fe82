//! Options of a connection, as numbers that cross the boundary. Both sides hold values to the same
//! limits: a client to give an error, the daemon because it believes nothing.

use serde::{Deserialize, Serialize};

/// What can be set on a connection, before it is opened, or on a listener for all that it accepts.
/// The limits are Linux's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum ConnOption {
    /// `TCP_NODELAY`: small segments do not wait for acknowledgements. 0 or 1.
    NoDelay = 1,
    /// `TCP_CORK`: no small segments for the time being. 0 or 1.
    Cork = 2,
    /// `TCP_QUICKACK`: acknowledge at once for a while. 0 or 1.
    QuickAck = 3,
    /// `SO_KEEPALIVE`. 0 or 1.
    KeepAlive = 4,
    /// `TCP_KEEPIDLE`, seconds.
    KeepIdle = 5,
    /// `TCP_KEEPINTVL`, seconds.
    KeepInterval = 6,
    /// `TCP_KEEPCNT`.
    KeepCount = 7,
    /// `TCP_USER_TIMEOUT`, milliseconds; 0 is none.
    UserTimeout = 8,
    /// `TCP_MAXSEG`; 0 leaves it to the path.
    MaxSegment = 9,
    /// `TCP_LINGER2`, seconds; 0 is the configured time, `u32::MAX` no time at all.
    FinTimeout = 10,
    /// `TCP_SYNCNT`.
    SynCount = 11,
    /// `TCP_CONGESTION`: [`congestion::RENO`] or [`congestion::CUBIC`].
    Congestion = 12,
    /// `SO_LINGER`: seconds plus one; 0 is off.
    Linger = 13,
    /// `SO_RCVBUF`: bytes that may wait to be read; more than the daemon allows is what it allows.
    ReceiveBuffer = 14,
    /// `SO_SNDBUF`: bytes that may wait to be acknowledged; likewise.
    SendBuffer = 15,
    /// `IP_TOS`, the bits of ECN clear.
    Tos = 16,
    /// `IPV6_TCLASS`, the bits of ECN clear.
    TrafficClass = 17,
    /// `IP_TTL`: of IPv4 packets; 0 is the configured one.
    Ttl = 18,
    /// `IPV6_UNICAST_HOPS`: of IPv6 packets; likewise.
    HopLimit = 19,
}

/// Values of [`ConnOption::Congestion`].
pub mod congestion {
    /// NewReno.
    pub const RENO: u32 = 1;
    /// CUBIC.
    pub const CUBIC: u32 = 2;
}

/// `TCP_LINGER2` as `u32::MAX`: an orphan does not wait for the peer's FIN.
pub const NO_FIN_TIMEOUT: u32 = u32::MAX;

impl ConnOption {
    /// Every option, in the order of the codes, which begin with 1.
    pub const ALL: [ConnOption; 19] = [
        ConnOption::NoDelay,
        ConnOption::Cork,
        ConnOption::QuickAck,
        ConnOption::KeepAlive,
        ConnOption::KeepIdle,
        ConnOption::KeepInterval,
        ConnOption::KeepCount,
        ConnOption::UserTimeout,
        ConnOption::MaxSegment,
        ConnOption::FinTimeout,
        ConnOption::SynCount,
        ConnOption::Congestion,
        ConnOption::Linger,
        ConnOption::ReceiveBuffer,
        ConnOption::SendBuffer,
        ConnOption::Tos,
        ConnOption::TrafficClass,
        ConnOption::Ttl,
        ConnOption::HopLimit,
    ];

    /// Its number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The option with this number.
    pub fn from_code(code: u32) -> Option<ConnOption> {
        let index = usize::try_from(code).ok()?.checked_sub(1)?;
        ConnOption::ALL.get(index).copied()
    }

    /// Its place in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        usize::from(self.code()) - 1
    }

    /// Whether it can have this value.
    pub fn allows(self, value: u32) -> bool {
        const MAX_SECONDS: u32 = 32_767;
        const MAX_COUNT: u32 = 127;
        const INT_MAX: u32 = i32::MAX as u32;
        match self {
            ConnOption::NoDelay
            | ConnOption::Cork
            | ConnOption::QuickAck
            | ConnOption::KeepAlive => value <= 1,
            ConnOption::KeepIdle | ConnOption::KeepInterval => (1..=MAX_SECONDS).contains(&value),
            ConnOption::KeepCount | ConnOption::SynCount => (1..=MAX_COUNT).contains(&value),
            ConnOption::UserTimeout => value <= INT_MAX,
            // Linux's TCP_MIN_MSS and MAX_TCP_WINDOW.
            ConnOption::MaxSegment => value == 0 || (88..=32_767).contains(&value),
            // Linux's TCP_FIN_TIMEOUT_MAX.
            ConnOption::FinTimeout => value <= 120 || value == NO_FIN_TIMEOUT,
            ConnOption::Congestion => matches!(value, congestion::RENO | congestion::CUBIC),
            ConnOption::Linger => value <= INT_MAX,
            ConnOption::ReceiveBuffer | ConnOption::SendBuffer => (1..=INT_MAX).contains(&value),
            ConnOption::Tos | ConnOption::TrafficClass => value <= 0xff && value & 3 == 0,
            ConnOption::Ttl | ConnOption::HopLimit => value <= 0xff,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn codes_match_the_list() {
        for (index, option) in ConnOption::ALL.into_iter().enumerate() {
            assert_eq!(option.index(), index);
            assert_eq!(ConnOption::from_code(u32::from(option.code())), Some(option));
        }
        assert_eq!(ConnOption::from_code(0), None);
        assert_eq!(ConnOption::from_code(20), None);
        assert_eq!(ConnOption::from_code(u32::MAX), None);
    }

    #[test]
    fn values_have_linuxs_limits() {
        for (option, allowed, refused) in [
            (ConnOption::NoDelay, &[0, 1][..], &[2][..]),
            (ConnOption::KeepIdle, &[1, 32_767], &[0, 32_768]),
            (ConnOption::KeepCount, &[1, 127], &[0, 128]),
            (ConnOption::UserTimeout, &[0, 1, i32::MAX as u32], &[1 << 31]),
            (ConnOption::MaxSegment, &[0, 88, 32_767], &[1, 87, 32_768]),
            (ConnOption::FinTimeout, &[0, 120, u32::MAX], &[121]),
            (ConnOption::Congestion, &[1, 2], &[0, 3]),
            (ConnOption::ReceiveBuffer, &[1, i32::MAX as u32], &[0, 1 << 31]),
            (ConnOption::Tos, &[0, 0xb8, 0xfc], &[1, 2, 0xff, 0x100]),
            (ConnOption::Ttl, &[0, 1, 255], &[256, u32::MAX]),
        ] {
            assert!(allowed.iter().all(|&value| option.allows(value)), "{option:?}");
            assert!(!refused.iter().any(|&value| option.allows(value)), "{option:?}");
        }
    }
}
