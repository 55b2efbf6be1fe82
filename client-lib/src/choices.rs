//! Options of connections: chosen before a socket exists, set and asked for afterwards.

use crate::error::os;
use fourwave_protocol::option::{ConnOption, congestion};
use rustix::io::Errno;
use std::io;
use std::time::Duration;

/// `EINVAL` for a value that an option cannot have.
pub(crate) fn check(option: ConnOption, value: u32) -> io::Result<()> {
    if option.allows(value) { Ok(()) } else { Err(os(Errno::INVAL)) }
}

/// Options of a socket that does not exist yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choices([Option<u32>; ConnOption::ALL.len()]);

impl Choices {
    pub(crate) fn set(&mut self, option: ConnOption, value: u32) {
        self.0[option.index()] = Some(value);
    }

    pub(crate) fn get(&self, option: ConnOption) -> Option<u32> {
        self.0[option.index()]
    }

    /// What was chosen, in the order of the codes.
    ///
    /// # Errors
    /// `EINVAL` for the first value that its option cannot have.
    pub(crate) fn checked(&self) -> io::Result<Vec<(ConnOption, u32)>> {
        let chosen = ConnOption::ALL.into_iter().filter_map(|option| {
            let value = self.get(option)?;
            Some(check(option, value).map(|()| (option, value)))
        });
        chosen.collect()
    }
}

/// `SO_KEEPALIVE` with its three numbers; what is not said is as configured (2 h, 75 s, 9).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    time: Option<Duration>,
    interval: Option<Duration>,
    retries: Option<u32>,
}

impl TcpKeepalive {
    /// As configured.
    pub const fn new() -> TcpKeepalive {
        TcpKeepalive { time: None, interval: None, retries: None }
    }

    /// `TCP_KEEPIDLE`: silence before the first probe, in whole seconds.
    #[must_use]
    pub const fn with_time(self, time: Duration) -> TcpKeepalive {
        TcpKeepalive { time: Some(time), ..self }
    }

    /// `TCP_KEEPINTVL`: time between probes, in whole seconds.
    #[must_use]
    pub const fn with_interval(self, interval: Duration) -> TcpKeepalive {
        TcpKeepalive { interval: Some(interval), ..self }
    }

    /// `TCP_KEEPCNT`: unanswered probes before the connection is given up.
    #[must_use]
    pub const fn with_retries(self, retries: u32) -> TcpKeepalive {
        TcpKeepalive { retries: Some(retries), ..self }
    }

    /// The options that it stands for.
    pub(crate) fn options(&self) -> impl Iterator<Item = (ConnOption, u32)> {
        let numbers = [
            (ConnOption::KeepIdle, self.time.map(seconds)),
            (ConnOption::KeepInterval, self.interval.map(seconds)),
            (ConnOption::KeepCount, self.retries),
        ];
        let numbers = numbers.into_iter().filter_map(|(option, value)| Some((option, value?)));
        // Last: the timer is set by the numbers.
        numbers.chain([(ConnOption::KeepAlive, 1)])
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

/// `SO_LINGER` as it crosses the boundary. Part of a second counts as one: rounded down, it would
/// mean a reset.
pub(crate) fn linger_value(linger: Option<Duration>) -> u32 {
    let Some(time) = linger else { return 0 };
    let seconds = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    const MOST: u64 = i32::MAX as u64 - 1;
    // Not above MOST.
    seconds.min(MOST) as u32 + 1
}

/// Back from [`linger_value`].
pub(crate) fn linger_time(value: u32) -> Option<Duration> {
    value.checked_sub(1).map(|seconds| Duration::from_secs(seconds.into()))
}

/// `TCP_USER_TIMEOUT` in milliseconds. Part of one counts as one: none would mean no limit.
pub(crate) fn timeout_value(timeout: Option<Duration>) -> u32 {
    let millis = timeout.map_or(0, |timeout| timeout.as_nanos().div_ceil(1_000_000));
    u32::try_from(millis).unwrap_or(u32::MAX)
}

/// The number of a congestion control's name.
pub(crate) fn congestion_value(name: &[u8]) -> Option<u32> {
    match name {
        b"reno" => Some(congestion::RENO),
        b"cubic" => Some(congestion::CUBIC),
        _ => None,
    }
}

/// Its name.
pub(crate) fn congestion_name(value: u32) -> &'static str {
    if value == congestion::RENO { "reno" } else { "cubic" }
}

/// The calls that streams and listeners have in common, over `set_option` and `option` of the type.
macro_rules! option_methods {
    ($type:ty) => {
        /// Options. On a listener they are for the connections that it accepts from then on.
        impl $type {
            /// `TCP_NODELAY`: small segments do not wait for acknowledgements.
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
                self.set_option(ConnOption::NoDelay, nodelay.into())
            }

            /// See [`set_nodelay`](Self::set_nodelay).
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn nodelay(&self) -> io::Result<bool> {
                Ok(self.option(ConnOption::NoDelay)? != 0)
            }

            /// `SO_KEEPALIVE`: a peer that is silent for long is asked whether it is there.
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn set_keepalive(&self, keepalive: bool) -> io::Result<()> {
                self.set_option(ConnOption::KeepAlive, keepalive.into())
            }

            /// See [`set_keepalive`](Self::set_keepalive).
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn keepalive(&self) -> io::Result<bool> {
                Ok(self.option(ConnOption::KeepAlive)? != 0)
            }

            /// `SO_KEEPALIVE` on, with its numbers.
            ///
            /// # Errors
            /// `EINVAL` for numbers that Linux does not take: times of 1 to 32767 s, 1 to 127
            /// retries. `ENETDOWN` when the daemon is gone.
            pub fn set_tcp_keepalive(&self, params: &TcpKeepalive) -> io::Result<()> {
                params.options().try_for_each(|(option, value)| check(option, value))?;
                params.options().try_for_each(|(option, value)| self.set_option(option, value))
            }

            /// `TCP_KEEPIDLE`.
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn keepalive_time(&self) -> io::Result<Duration> {
                Ok(Duration::from_secs(self.option(ConnOption::KeepIdle)?.into()))
            }

            /// `TCP_KEEPINTVL`.
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn keepalive_interval(&self) -> io::Result<Duration> {
                Ok(Duration::from_secs(self.option(ConnOption::KeepInterval)?.into()))
            }

            /// `TCP_KEEPCNT`.
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn keepalive_retries(&self) -> io::Result<u32> {
                self.option(ConnOption::KeepCount)
            }

            /// `TCP_USER_TIMEOUT`: how long written data may wait to be acknowledged, or a closed
            /// window to open, before the connection fails with `ETIMEDOUT`. As in Linux it counts
            /// from the first retransmission or probe; `None` leaves it to the number of retries.
            ///
            /// # Errors
            /// `EINVAL` above 2147483647 ms. `ENETDOWN` when the daemon is gone.
            pub fn set_tcp_user_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.set_option(ConnOption::UserTimeout, timeout_value(timeout))
            }

            /// See [`set_tcp_user_timeout`](Self::set_tcp_user_timeout).
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn tcp_user_timeout(&self) -> io::Result<Option<Duration>> {
                let millis = self.option(ConnOption::UserTimeout)?;
                Ok((millis > 0).then(|| Duration::from_millis(millis.into())))
            }

            /// `TCP_CORK`: only full segments are sent until it is off again, or for 200 ms.
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn set_cork(&self, cork: bool) -> io::Result<()> {
                self.set_option(ConnOption::Cork, cork.into())
            }

            /// See [`set_cork`](Self::set_cork).
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn cork(&self) -> io::Result<bool> {
                Ok(self.option(ConnOption::Cork)? != 0)
            }

            /// `TCP_MAXSEG`: the largest segment. It is settled by the handshake: later it is
            /// stored and changes nothing, as in Linux.
            ///
            /// # Errors
            /// `EINVAL` unless 0 (the path decides) or 88 to 32767. `ENETDOWN` when the daemon is
            /// gone.
            pub fn set_mss(&self, mss: u32) -> io::Result<()> {
                self.set_option(ConnOption::MaxSegment, mss)
            }

            /// `TCP_MAXSEG`: of a connection what is sent at most, of a listener what was set.
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn mss(&self) -> io::Result<u32> {
                self.option(ConnOption::MaxSegment)
            }

            /// `SO_RCVBUF`: how many bytes may wait to be read; more than the daemon allows is
            /// what it allows. Window space that the peer was told of is not taken back.
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn set_recv_buffer_size(&self, size: usize) -> io::Result<()> {
                self.set_option(ConnOption::ReceiveBuffer, buffer_value(size))
            }

            /// `SO_RCVBUF`. Twice the bytes that fit, as in Linux, where programs expect that.
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn recv_buffer_size(&self) -> io::Result<usize> {
                Ok(2 * self.option(ConnOption::ReceiveBuffer)? as usize)
            }

            /// `SO_SNDBUF`: how many written bytes may wait to be acknowledged, as
            /// [`set_recv_buffer_size`](Self::set_recv_buffer_size).
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn set_send_buffer_size(&self, size: usize) -> io::Result<()> {
                self.set_option(ConnOption::SendBuffer, buffer_value(size))
            }

            /// `SO_SNDBUF`. Twice the bytes that fit, as in Linux.
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn send_buffer_size(&self) -> io::Result<usize> {
                Ok(2 * self.option(ConnOption::SendBuffer)? as usize)
            }

            /// `IP_TTL` and `IPV6_UNICAST_HOPS`: the TTL of IPv4 packets and the hop limit of IPv6
            /// packets, 1 to 255. As in Linux what is still acknowledged when the connection is over
            /// carries the daemon's.
            ///
            /// # Errors
            /// `EINVAL` for others, `ENETDOWN` when the daemon is gone.
            pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
                if ttl == 0 {
                    return Err(os(Errno::INVAL));
                }
                self.set_option(ConnOption::Ttl, ttl)?;
                self.set_option(ConnOption::HopLimit, ttl)
            }

            /// See [`set_ttl`](Self::set_ttl): that of IPv4 packets, the daemon's if none was set.
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn ttl(&self) -> io::Result<u32> {
                self.option(ConnOption::Ttl)
            }

            /// `IP_TOS`: the field of IPv4 packets. As in Linux the two bits of ECN are TCP's own.
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn set_tos(&self, tos: u8) -> io::Result<()> {
                self.set_option(ConnOption::Tos, (tos & !3).into())
            }

            /// See [`set_tos`](Self::set_tos).
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn tos(&self) -> io::Result<u8> {
                // No more can be set.
                Ok(self.option(ConnOption::Tos)? as u8)
            }

            /// `IPV6_TCLASS`: the traffic class of IPv6 packets, the bits of ECN left out.
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn set_tclass(&self, tclass: u8) -> io::Result<()> {
                self.set_option(ConnOption::TrafficClass, (tclass & !3).into())
            }

            /// See [`set_tclass`](Self::set_tclass).
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn tclass(&self) -> io::Result<u8> {
                // No more can be set.
                Ok(self.option(ConnOption::TrafficClass)? as u8)
            }

            /// `TCP_CONGESTION`: `"cubic"` or `"reno"`.
            ///
            /// # Errors
            /// `ENOENT` for another name. `ENETDOWN` when the daemon is gone.
            pub fn set_tcp_congestion(&self, name: &str) -> io::Result<()> {
                let value = congestion_value(name.as_bytes()).ok_or_else(|| os(Errno::NOENT))?;
                self.set_option(ConnOption::Congestion, value)
            }

            /// See [`set_tcp_congestion`](Self::set_tcp_congestion).
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn tcp_congestion(&self) -> io::Result<&'static str> {
                Ok(congestion_name(self.option(ConnOption::Congestion)?))
            }

            /// `SO_LINGER`. `Some` of zero: closing resets the connection, and what was not sent is
            /// lost. A longer time: closing waits until the peer has acknowledged all that was
            /// written, for so long at the most, in whole seconds; as in Linux also when
            /// non-blocking.
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
                self.set_option(ConnOption::Linger, linger_value(linger))
            }

            /// See [`set_linger`](Self::set_linger).
            ///
            /// # Errors
            /// `ENETDOWN` when the daemon is gone.
            pub fn linger(&self) -> io::Result<Option<Duration>> {
                Ok(linger_time(self.option(ConnOption::Linger)?))
            }
        }
    };
}
pub(crate) use option_methods;

/// Bytes of a buffer; 0 is the least there is.
pub(crate) fn buffer_value(size: usize) -> u32 {
    const MOST: usize = i32::MAX as usize;
    // Not above MOST.
    size.clamp(1, MOST) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_unit_are_not_lost() {
        let of = |millis| linger_value(Some(Duration::from_millis(millis)));
        assert_eq!((linger_value(None), of(0), of(1), of(1000), of(1001)), (0, 1, 2, 2, 3));
        assert_eq!(linger_value(Some(Duration::MAX)), i32::MAX as u32);
        assert_eq!(linger_time(of(1001)), Some(Duration::from_secs(2)));
        assert_eq!(timeout_value(Some(Duration::from_nanos(1))), 1);
        assert_eq!(timeout_value(Some(Duration::MAX)), u32::MAX);
        assert_eq!(timeout_value(None), 0);
    }

    #[test]
    fn choices_are_checked() {
        let mut choices = Choices::default();
        choices.set(ConnOption::MaxSegment, 88);
        choices.set(ConnOption::NoDelay, 1);
        let expected = [(ConnOption::NoDelay, 1), (ConnOption::MaxSegment, 88)];
        assert_eq!(choices.checked().unwrap(), expected);
        choices.set(ConnOption::MaxSegment, 87);
        let error = choices.checked().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::INVAL.raw_os_error()));
    }
}
