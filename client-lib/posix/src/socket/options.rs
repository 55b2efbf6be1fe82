//! `getsockopt` and `setsockopt`.

use super::{Domain, Socket, State, lock, timeout};
use crate::error::{Errno, Result, errno, explain};
use crate::kernel;
use crate::table::{self, Owner};
use fourwave::SocketOptions;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Options of a socket that has no address yet.
#[derive(Debug)]
pub(super) struct Chosen {
    options: SocketOptions,
    /// Level and name of those that the kernel took and that mean nothing here.
    foreign: Vec<(i32, i32)>,
}

impl Chosen {
    /// As Linux begins, which is not as std begins.
    pub(super) fn default_options() -> SocketOptions {
        SocketOptions::new().reuse_address(false)
    }

    fn new() -> Chosen {
        Chosen { options: Chosen::default_options(), foreign: Vec::new() }
    }

    /// The options; says which of them are lost.
    pub(super) fn options(&self) -> SocketOptions {
        for (level, name) in &self.foreign {
            explain(&format!(
                "a fourwave socket does not have the option {name} of level {level}, which was \
                 set before it was one; it has no effect"
            ));
        }
        self.options.clone()
    }
}

impl Socket {
    /// `setsockopt(2)` on a socket that is still fresh, and must be one of ours: what is not
    /// offered is refused.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for what is not offered, `EINVAL` for a value that Linux does not take either.
    pub fn choose(&self, fd: RawFd, level: i32, name: i32, value: &[u8]) -> Result<()> {
        if self.own_timeout(level, name).is_none() {
            let mut chosen = lock(&self.chosen);
            let chosen = chosen.get_or_insert_with(|| Box::new(Chosen::new()));
            chosen.options.setsockopt(level, name, value).map_err(errno)?;
        }
        self.set_own(level, name, value)?;
        // It is the kernel's socket that is asked while this one is fresh.
        kernel::setsockopt(fd, level, name, value)
    }

    /// The kernel has taken an option of a socket that is still fresh and may become either's:
    /// remembers it. What is not offered here is explained when it becomes ours.
    pub fn note_choice(&self, level: i32, name: i32, value: &[u8]) {
        if self.own_timeout(level, name).is_some() {
            // The kernel has checked it.
            let _ = self.set_own(level, name, value);
            return;
        }
        let mut chosen = lock(&self.chosen);
        let chosen = chosen.get_or_insert_with(|| Box::new(Chosen::new()));
        let foreign = chosen.options.setsockopt(level, name, value).is_err();
        chosen.foreign.retain(|other| *other != (level, name));
        if foreign {
            chosen.foreign.push((level, name));
        }
    }

    /// `setsockopt(2)`; the client library's `OPTIONS.md` has the table.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for what is not offered, `EINVAL` and `EDOM` for values that Linux does not
    /// take either; `ENETDOWN` when the daemon is gone.
    pub fn setsockopt(&self, fd: RawFd, level: i32, name: i32, value: &[u8]) -> Result<()> {
        if self.own_timeout(level, name).is_some() {
            return self.set_own(level, name, value);
        }
        let state = self.state.load();
        if let Some(option) = Before::of(level, name)
            && !matches!(**state, State::Fresh | State::Kernel)
        {
            let is_stream = matches!(**state, State::Stream(_));
            return self.set_late(fd, option, is_stream, value);
        }
        match &**state {
            State::Fresh | State::Kernel => self.choose(fd, level, name, value),
            State::Bound(listener) | State::Listening(listener) => {
                listener.setsockopt(level, name, value).map_err(errno)
            }
            State::Stream(stream) => stream.stream.setsockopt(level, name, value).map_err(errno),
        }
    }

    /// `getsockopt(2)`: writes as much of the value as fits, returns how much.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for what is not offered, `ENETDOWN` when the daemon is gone.
    pub fn getsockopt(&self, fd: RawFd, level: i32, name: i32, value: &mut [u8]) -> Result<usize> {
        if let Some(own) = self.own_timeout(level, name) {
            let bytes = timeval(timeout(own));
            let length = bytes.len().min(value.len());
            value[..length].copy_from_slice(&bytes[..length]);
            return Ok(length);
        }
        let state = self.state.load();
        if let Some(option) = Before::of(level, name) {
            return self.get_before(fd, option, value);
        }
        let asked = match &**state {
            State::Fresh | State::Kernel => {
                return kernel::getsockopt(fd, level, name, value);
            }
            State::Bound(listener) => {
                if (level, name) == (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) {
                    Ok(int(0, value))
                } else {
                    listener.getsockopt(level, name, value)
                }
            }
            State::Listening(listener) => listener.getsockopt(level, name, value),
            State::Stream(stream) => stream.stream.getsockopt(level, name, value),
        };
        asked.map_err(errno)
    }

    /// One of those that count when an address is bound.
    fn get_before(&self, fd: RawFd, option: Before, value: &mut [u8]) -> Result<usize> {
        let (level, name) = option.number();
        // The number of an accepted socket stands for a kernel's that knows nothing.
        if self.is_served() && matches!(table::owner(fd), Some(Owner::Lent { .. })) {
            if option == Before::V6Only && self.domain == Domain::V4 {
                // As in Linux, whose setsockopt gives ENOPROTOOPT.
                return Err(Errno::OPNOTSUPP);
            }
            return Ok(int(self.inherited.has(option).into(), value));
        }
        kernel::getsockopt(fd, level, name, value)
    }

    /// Sets one of them on a socket that has an address.
    ///
    /// `SO_REUSEADDR` is for what is accepted from here, and on a connection, which keeps nobody
    /// from binding who has it himself, without an effect.
    fn set_late(&self, fd: RawFd, option: Before, is_stream: bool, value: &[u8]) -> Result<()> {
        let on = i32::from_ne_bytes(*value.first_chunk().ok_or(Errno::INVAL)?) != 0;
        match (option, self.domain) {
            // As in Linux.
            (Before::V6Only, Domain::V6) => return Err(Errno::INVAL),
            (Before::V6Only, Domain::V4) => return Err(Errno::NOPROTOOPT),
            // Others cannot be let in any more.
            (Before::ReusePort, _) if !is_stream && self.inherited.has(option) != on => {
                return Err(Errno::NOPROTOOPT);
            }
            (Before::ReuseAddress | Before::ReusePort, _) => {}
        }
        self.inherited.set(option, on);
        if matches!(table::owner(fd), Some(Owner::Program)) {
            let (level, name) = option.number();
            kernel::setsockopt(fd, level, name, value)?;
        }
        Ok(())
    }

    fn own_timeout(&self, level: i32, name: i32) -> Option<&AtomicU64> {
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => Some(&self.receive_timeout),
            (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => Some(&self.send_timeout),
            _ => None,
        }
    }

    fn set_own(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        let Some(own) = self.own_timeout(level, name) else { return Ok(()) };
        let word = |at: usize| {
            let bytes = value.get(at..).and_then(|rest| rest.first_chunk());
            bytes.map(|bytes| i64::from_ne_bytes(*bytes)).ok_or(Errno::INVAL)
        };
        let (seconds, micros) = (word(0)?, word(8)?);
        if !(0..1_000_000).contains(&micros) {
            return Err(Errno::DOM);
        }
        let nanos = match u64::try_from(seconds) {
            Ok(seconds) => {
                seconds.saturating_mul(1_000_000_000).saturating_add(micros as u64 * 1000)
            }
            // As Linux: a negative time is over at once.
            Err(_) => 1,
        };
        own.store(nanos, Ordering::Relaxed);
        Ok(())
    }
}

/// Options that count when an address is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// `SO_REUSEADDR`.
    ReuseAddress,
    /// `SO_REUSEPORT`.
    ReusePort,
    /// `IPV6_V6ONLY`.
    V6Only,
}

impl Before {
    const ALL: [Before; 3] = [Before::ReuseAddress, Before::ReusePort, Before::V6Only];

    fn of(level: i32, name: i32) -> Option<Before> {
        Before::ALL.into_iter().find(|option| option.number() == (level, name))
    }

    /// Level and name.
    fn number(self) -> (i32, i32) {
        match self {
            Before::ReuseAddress => (libc::SOL_SOCKET, libc::SO_REUSEADDR),
            Before::ReusePort => (libc::SOL_SOCKET, libc::SO_REUSEPORT),
            Before::V6Only => (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
        }
    }
}

/// Which of them are on.
#[derive(Debug, Default)]
pub(super) struct Inherited([AtomicBool; Before::ALL.len()]);

impl Inherited {
    fn has(&self, option: Before) -> bool {
        self.0[option as usize].load(Ordering::Relaxed)
    }

    fn set(&self, option: Before, on: bool) {
        self.0[option as usize].store(on, Ordering::Relaxed);
    }

    /// As they were set on the kernel's socket of this number.
    pub(super) fn ask_kernel(&self, fd: RawFd, domain: Domain) {
        for option in Before::ALL {
            if option != Before::V6Only || domain == Domain::V6 {
                let (level, name) = option.number();
                let mut value = [0; 4];
                let asked = kernel::getsockopt(fd, level, name, &mut value);
                self.set(option, asked.is_ok() && i32::from_ne_bytes(value) != 0);
            }
        }
    }

    pub(super) fn take_from(&self, other: &Inherited) {
        for option in Before::ALL {
            self.set(option, other.has(option));
        }
    }
}

fn int(number: i32, value: &mut [u8]) -> usize {
    let bytes = number.to_ne_bytes();
    let length = bytes.len().min(value.len());
    value[..length].copy_from_slice(&bytes[..length]);
    length
}

/// `struct timeval` of 64-bit Linux.
fn timeval(time: Option<Duration>) -> Vec<u8> {
    let time = time.unwrap_or_default();
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    [seconds.to_ne_bytes(), i64::from(time.subsec_micros()).to_ne_bytes()].concat()
}
