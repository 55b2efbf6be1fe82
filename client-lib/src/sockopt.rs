//! `setsockopt` and `getsockopt` with Linux's numbers, for programs that bring those along.

use crate::choices::{buffer_value, congestion_name, congestion_value};
use crate::error::os;
use fourwave_protocol::option::{ConnOption, NO_FIN_TIMEOUT};
use rustix::io::Errno;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Levels.
const SOL_SOCKET: i32 = 1;
const IPPROTO_IP: i32 = 0;
const IPPROTO_TCP: i32 = 6;
const IPPROTO_IPV6: i32 = 41;

/// Longest name of a congestion control, the zero at its end included (`TCP_CA_NAME_MAX`).
const CA_NAME_MAX: usize = 16;

/// What a number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// An `int` that the daemon knows.
    Number(ConnOption),
    /// `SO_LINGER`.
    Linger,
    /// `TCP_LINGER2`.
    FinTimeout,
    /// `TCP_CONGESTION`.
    Congestion,
    /// `SO_RCVBUF` or `SO_SNDBUF`.
    Buffer(ConnOption),
    /// `SO_RCVTIMEO`.
    ReadTimeout,
    /// `SO_SNDTIMEO`.
    WriteTimeout,
    /// `TCP_INFO`.
    Info,
    /// `SO_ERROR`.
    Error,
    /// `SO_TYPE`.
    Type,
    /// `SO_PROTOCOL`.
    Protocol,
    /// `SO_DOMAIN`.
    Domain,
    /// `SO_ACCEPTCONN`.
    Listens,
    /// `SO_OOBINLINE`: always on.
    OobInline,
    /// `SO_RCVLOWAT`: always 1.
    ReceiveLeast,
    /// `SO_SNDLOWAT`: always 1, in Linux too.
    SendLeast,
    /// `TCP_DEFER_ACCEPT`.
    DeferAccept,
}

impl Name {
    /// `None` for what is not offered.
    fn of(level: i32, name: i32) -> Option<Name> {
        Some(match (level, name) {
            (SOL_SOCKET, 3) => Name::Type,
            (SOL_SOCKET, 4) => Name::Error,
            (SOL_SOCKET, 7) => Name::Buffer(ConnOption::SendBuffer),
            (SOL_SOCKET, 8) => Name::Buffer(ConnOption::ReceiveBuffer),
            (SOL_SOCKET, 9) => Name::Number(ConnOption::KeepAlive),
            (SOL_SOCKET, 10) => Name::OobInline,
            (SOL_SOCKET, 13) => Name::Linger,
            (SOL_SOCKET, 18) => Name::ReceiveLeast,
            (SOL_SOCKET, 19) => Name::SendLeast,
            (SOL_SOCKET, 20) => Name::ReadTimeout,
            (SOL_SOCKET, 21) => Name::WriteTimeout,
            (SOL_SOCKET, 30) => Name::Listens,
            (SOL_SOCKET, 38) => Name::Protocol,
            (SOL_SOCKET, 39) => Name::Domain,
            (IPPROTO_IP, 1) => Name::Number(ConnOption::Tos),
            (IPPROTO_IP, 2) => Name::Number(ConnOption::Ttl),
            (IPPROTO_IPV6, 16) => Name::Number(ConnOption::HopLimit),
            (IPPROTO_IPV6, 67) => Name::Number(ConnOption::TrafficClass),
            (IPPROTO_TCP, 1) => Name::Number(ConnOption::NoDelay),
            (IPPROTO_TCP, 2) => Name::Number(ConnOption::MaxSegment),
            (IPPROTO_TCP, 3) => Name::Number(ConnOption::Cork),
            (IPPROTO_TCP, 4) => Name::Number(ConnOption::KeepIdle),
            (IPPROTO_TCP, 5) => Name::Number(ConnOption::KeepInterval),
            (IPPROTO_TCP, 6) => Name::Number(ConnOption::KeepCount),
            (IPPROTO_TCP, 7) => Name::Number(ConnOption::SynCount),
            (IPPROTO_TCP, 8) => Name::FinTimeout,
            (IPPROTO_TCP, 9) => Name::DeferAccept,
            (IPPROTO_TCP, 11) => Name::Info,
            (IPPROTO_TCP, 12) => Name::Number(ConnOption::QuickAck),
            (IPPROTO_TCP, 13) => Name::Congestion,
            (IPPROTO_TCP, 18) => Name::Number(ConnOption::UserTimeout),
            _ => return None,
        })
    }
}

/// Options that count when an address is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BeforeBinding {
    /// `SO_REUSEADDR`.
    ReuseAddress,
    /// `SO_REUSEPORT`.
    ReusePort,
    /// `IPV6_V6ONLY`.
    V6Only,
}

/// Which of them it is, if any.
pub(crate) fn before_binding(level: i32, name: i32) -> Option<BeforeBinding> {
    Some(match (level, name) {
        (SOL_SOCKET, 2) => BeforeBinding::ReuseAddress,
        (SOL_SOCKET, 15) => BeforeBinding::ReusePort,
        (IPPROTO_IPV6, 26) => BeforeBinding::V6Only,
        _ => return None,
    })
}

/// The value of an option that is on or off.
pub(crate) fn flag(value: &[u8]) -> io::Result<bool> {
    Ok(int(value)? != 0)
}

/// What the calls need of a socket.
pub(crate) trait Socket {
    fn set(&self, option: ConnOption, value: u32) -> io::Result<()>;
    fn get(&self, option: ConnOption) -> io::Result<u32>;
    /// Those that only one kind of socket has, or that are no option of the daemon's: sets it.
    fn set_own(&self, name: Name, timeout: Option<Duration>) -> io::Result<()>;
    /// Likewise: its value as bytes.
    fn get_own(&self, name: Name) -> io::Result<Vec<u8>>;
    /// Whether it has this option.
    fn has(&self, name: Name) -> bool;
}

/// `setsockopt(2)`.
pub(crate) fn set(socket: &impl Socket, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let name = Name::of(level, name).filter(|name| socket.has(*name));
    let name = name.ok_or_else(|| os(Errno::NOPROTOOPT))?;
    match name {
        Name::Number(option) => socket.set(option, number(option, int(value)?)?),
        Name::Buffer(option) => {
            // As in Linux: a negative number is a very large one.
            socket.set(option, buffer_value(int(value)? as u32 as usize))
        }
        Name::Linger => {
            let (on, seconds) = (int(value)?, int(value.get(4..).unwrap_or_default())?);
            let seconds = u32::try_from(seconds).unwrap_or(i32::MAX as u32 - 1);
            let value = if on == 0 { 0 } else { seconds.min(i32::MAX as u32 - 1) + 1 };
            socket.set(ConnOption::Linger, value)
        }
        Name::FinTimeout => {
            let value = match int(value)? {
                ..0 => NO_FIN_TIMEOUT,
                // As Linux, which takes more than two minutes for two minutes.
                seconds => (seconds as u32).min(120),
            };
            socket.set(ConnOption::FinTimeout, value)
        }
        Name::Congestion => {
            let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
            if value.is_empty() {
                return Err(os(Errno::INVAL));
            }
            let value = congestion_value(&value[..end]).ok_or_else(|| os(Errno::NOENT))?;
            socket.set(ConnOption::Congestion, value)
        }
        Name::ReadTimeout | Name::WriteTimeout => socket.set_own(name, timeval(value)?),
        Name::DeferAccept => {
            // As in Linux: a negative number is none.
            let seconds = u64::try_from(int(value)?).unwrap_or(0);
            socket.set_own(name, Some(Duration::from_secs(seconds)))
        }
        Name::OobInline if int(value)? != 0 => Ok(()),
        // As in Linux: none means one.
        Name::ReceiveLeast if matches!(int(value)?, 0 | 1) => Ok(()),
        Name::OobInline
        | Name::ReceiveLeast
        | Name::SendLeast
        | Name::Info
        | Name::Error
        | Name::Type
        | Name::Protocol
        | Name::Domain
        | Name::Listens => Err(os(Errno::NOPROTOOPT)),
    }
}

/// `getsockopt(2)`: writes as much of the value as fits, returns how much that is.
pub(crate) fn get(
    socket: &impl Socket,
    level: i32,
    name: i32,
    out: &mut [u8],
) -> io::Result<usize> {
    let name = Name::of(level, name).filter(|name| socket.has(*name));
    let name = name.ok_or_else(|| os(Errno::NOPROTOOPT))?;
    let value = match name {
        Name::Number(option) => int_bytes(socket.get(option)?),
        Name::Buffer(option) => int_bytes(socket.get(option)?.saturating_mul(2)),
        Name::Linger => {
            let value = socket.get(ConnOption::Linger)?;
            let seconds = value.saturating_sub(1);
            [int_bytes((value != 0).into()), int_bytes(seconds)].concat()
        }
        Name::FinTimeout => match socket.get(ConnOption::FinTimeout)? {
            NO_FIN_TIMEOUT => (-1i32).to_ne_bytes().to_vec(),
            seconds => int_bytes(seconds),
        },
        Name::Congestion => {
            let mut value = vec![0; CA_NAME_MAX];
            let name = congestion_name(socket.get(ConnOption::Congestion)?);
            value[..name.len()].copy_from_slice(name.as_bytes());
            value
        }
        Name::OobInline | Name::ReceiveLeast | Name::SendLeast => int_bytes(1),
        Name::Type => int_bytes(1),
        Name::Protocol => int_bytes(IPPROTO_TCP as u32),
        Name::ReadTimeout
        | Name::WriteTimeout
        | Name::Info
        | Name::Error
        | Name::Domain
        | Name::Listens
        | Name::DeferAccept => socket.get_own(name)?,
    };
    let len = value.len().min(out.len());
    out[..len].copy_from_slice(&value[..len]);
    Ok(len)
}

/// The value of a socket option that is an `int`.
fn int(value: &[u8]) -> io::Result<i32> {
    match value.first_chunk() {
        Some(bytes) => Ok(i32::from_ne_bytes(*bytes)),
        None => Err(os(Errno::INVAL)),
    }
}

pub(crate) fn int_bytes(value: u32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// What an `int` means to an option.
fn number(option: ConnOption, value: i32) -> io::Result<u32> {
    Ok(match option {
        // As in Linux: whatever is not zero is on.
        ConnOption::NoDelay | ConnOption::Cork | ConnOption::KeepAlive => (value != 0).into(),
        ConnOption::QuickAck => (value & 1) as u32,
        // The two bits of ECN are TCP's own. -1 is the default.
        ConnOption::TrafficClass if value == -1 => 0,
        ConnOption::TrafficClass if !(0..=0xff).contains(&value) => return Err(os(Errno::INVAL)),
        ConnOption::Tos | ConnOption::TrafficClass => (value & 0xfc) as u32,
        // Likewise. 0 is the default to the daemon, and makes no sense as a number.
        ConnOption::Ttl | ConnOption::HopLimit => match value {
            -1 => 0,
            1..=0xff => value as u32,
            _ => return Err(os(Errno::INVAL)),
        },
        ConnOption::KeepIdle
        | ConnOption::KeepInterval
        | ConnOption::KeepCount
        | ConnOption::UserTimeout
        | ConnOption::MaxSegment
        | ConnOption::FinTimeout
        | ConnOption::SynCount
        | ConnOption::Congestion
        | ConnOption::Linger
        | ConnOption::ReceiveBuffer
        | ConnOption::SendBuffer => u32::try_from(value).map_err(|_| os(Errno::INVAL))?,
    })
}

/// `struct timeval`, as 64-bit Linux lays it out; zero is no timeout.
fn timeval(value: &[u8]) -> io::Result<Option<Duration>> {
    let word = |at: usize| value.get(at..)?.first_chunk().map(|bytes| i64::from_ne_bytes(*bytes));
    let (Some(seconds), Some(micros)) = (word(0), word(8)) else { return Err(os(Errno::INVAL)) };
    if !(0..1_000_000).contains(&micros) {
        return Err(os(Errno::DOM));
    }
    // As Linux: a negative time is over at once.
    let Ok(seconds) = u64::try_from(seconds) else { return Ok(Some(Duration::from_nanos(1))) };
    let time = Duration::new(seconds, micros as u32 * 1000);
    Ok((!time.is_zero()).then_some(time))
}

/// Back from [`timeval`].
pub(crate) fn timeval_bytes(timeout: Option<Duration>) -> Vec<u8> {
    let time = timeout.unwrap_or_default();
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    [seconds.to_ne_bytes(), i64::from(time.subsec_micros()).to_ne_bytes()].concat()
}

/// `SO_DOMAIN`: the family of an address.
pub(crate) fn domain(address: &SocketAddr) -> u32 {
    const AF_INET: u32 = 2;
    const AF_INET6: u32 = 10;
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}
