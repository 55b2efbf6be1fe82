//! What goes through the rings between a lane and a worker.
//!
//! A command is four words, an event two. Decoding never panics: a client may write anything.

use crate::conn::{ip_from_words, ip_to_words};
use crate::option::ConnOption;
use crate::{ExtentId, Handle};
use core::net::SocketAddr;

/// Words of a command entry.
pub const COMMAND_WORDS: usize = 4;
/// Words of an event entry.
pub const EVENT_WORDS: usize = 2;
/// Words of a grant entry.
pub const GRANT_WORDS: usize = 1;

/// From a client thread to the worker that owns the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Bytes up to stream offset `tail` are in the send extents. The receive head is read too.
    Send {
        /// Which connection.
        handle: Handle,
        /// Stream offset just after the last byte written.
        tail: u64,
        /// Extent of that byte; its link names the extent of the page before, and so on.
        last: Option<ExtentId>,
    },
    /// The application has read much: look at the receive head, the window may open.
    Consumed {
        /// Which connection.
        handle: Handle,
    },
    /// No more bytes will be written (FIN after what is queued). Carries the tail because the
    /// last `Send` may have gone through another lane and arrive later.
    ShutdownWrite {
        /// Which connection.
        handle: Handle,
        /// As in `Send`: where the stream ends.
        tail: u64,
        /// As in `Send`.
        last: Option<ExtentId>,
    },
    /// The handle is gone.
    Close {
        /// Which connection.
        handle: Handle,
        /// As in `Send`: where the stream ends.
        tail: u64,
        /// As in `Send`.
        last: Option<ExtentId>,
        /// Reset instead of FIN.
        abort: bool,
    },
    /// Open a connection; answered by [`Event::Opened`] or [`Event::Refused`].
    Connect {
        /// Returned in the answer.
        token: u32,
        /// Where to.
        peer: SocketAddr,
    },
    /// Set an option of a connection.
    SetOption {
        /// Which connection.
        handle: Handle,
        /// Which option.
        option: ConnOption,
        /// Its value, one that [`ConnOption::allows`].
        value: u32,
    },
    /// Set an option of the connection that the next [`Command::Connect`] of this lane opens.
    Preset {
        /// Which option.
        option: ConnOption,
        /// As in `SetOption`.
        value: u32,
    },
    /// Report on a connection: answered by [`Event::Reported`], when a
    /// [`Report`](crate::report::Report) lies in the lane's block.
    Ask {
        /// Returned in the answer.
        token: u32,
        /// Which connection.
        handle: Handle,
    },
    /// The lane has no send extents left and wants an event when it has.
    WantGrants,
}

/// From a worker to a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Something about the connection changed: look at its block.
    Ready {
        /// Which connection.
        handle: Handle,
    },
    /// A connection waits on this listener.
    Acceptable {
        /// Index of the listener in the segment.
        listener: u32,
    },
    /// Answer to [`Command::Connect`]: the handshake has begun.
    Opened {
        /// The command's token.
        token: u32,
        /// The new connection.
        handle: Handle,
    },
    /// Answer to [`Command::Connect`]: no handshake was begun.
    Refused {
        /// The command's token.
        token: u32,
        /// Why, as an errno.
        errno: u32,
    },
    /// Send extents were granted after [`Command::WantGrants`].
    Granted,
    /// Answer to [`Command::Ask`]: the lane's block holds the report, until the lane asks again.
    Reported {
        /// The command's token.
        token: u32,
    },
}

mod op {
    pub(super) const SEND: u64 = 1;
    pub(super) const CONSUMED: u64 = 2;
    pub(super) const SHUTDOWN_WRITE: u64 = 3;
    pub(super) const CLOSE: u64 = 4;
    pub(super) const CONNECT: u64 = 5;
    pub(super) const SET_OPTION: u64 = 6;
    pub(super) const WANT_GRANTS: u64 = 7;
    pub(super) const PRESET: u64 = 8;
    pub(super) const ASK: u64 = 9;

    pub(super) const READY: u64 = 1;
    pub(super) const ACCEPTABLE: u64 = 2;
    pub(super) const OPENED: u64 = 3;
    pub(super) const REFUSED: u64 = 4;
    pub(super) const GRANTED: u64 = 5;
    pub(super) const REPORTED: u64 = 6;
}

/// First word: operation in the low byte, a 24-bit argument, and a 32-bit argument above.
fn head(op: u64, small: u32, large: u32) -> u64 {
    op | u64::from(small & 0xff_ffff) << 8 | u64::from(large) << 32
}

fn handle_of(word0: u64, word1: u64) -> Handle {
    Handle { index: (word0 >> 32) as u32, generation: word1 as u32 }
}

impl Command {
    /// The entry that carries this command.
    pub fn encode(self) -> [u64; COMMAND_WORDS] {
        let plain = |op, small, h: Handle, argument| {
            [head(op, small, h.index), u64::from(h.generation), argument, 0]
        };
        let written = |op, small, h: Handle, tail, last: Option<ExtentId>| {
            let last = last.map_or(0, |extent| u64::from(extent.raw()));
            [head(op, small, h.index), u64::from(h.generation), tail, last]
        };
        match self {
            Command::Send { handle, tail, last } => written(op::SEND, 0, handle, tail, last),
            Command::Consumed { handle } => plain(op::CONSUMED, 0, handle, 0),
            Command::ShutdownWrite { handle, tail, last } => {
                written(op::SHUTDOWN_WRITE, 0, handle, tail, last)
            }
            Command::Close { handle, tail, last, abort } => {
                written(op::CLOSE, u32::from(abort), handle, tail, last)
            }
            Command::Connect { token, peer } => {
                let [high, low] = ip_to_words(peer.ip());
                [head(op::CONNECT, u32::from(peer.port()), token), high, low, 0]
            }
            Command::SetOption { handle, option, value } => {
                plain(op::SET_OPTION, option.code().into(), handle, u64::from(value))
            }
            Command::Preset { option, value } => {
                [head(op::PRESET, option.code().into(), value), 0, 0, 0]
            }
            Command::Ask { token, handle } => plain(op::ASK, 0, handle, u64::from(token)),
            Command::WantGrants => [op::WANT_GRANTS, 0, 0, 0],
        }
    }

    /// The command in an entry, `None` if it is none.
    pub fn decode(words: [u64; COMMAND_WORDS]) -> Option<Command> {
        let handle = handle_of(words[0], words[1]);
        let small = (words[0] >> 8) as u32 & 0xff_ffff;
        let tail = words[2];
        let last = || u32::try_from(words[3]).ok().map(ExtentId::from_raw);
        Some(match words[0] & 0xff {
            op::SEND => Command::Send { handle, tail, last: last()? },
            op::CONSUMED => Command::Consumed { handle },
            op::SHUTDOWN_WRITE => Command::ShutdownWrite { handle, tail, last: last()? },
            op::CLOSE => Command::Close { handle, tail, last: last()?, abort: small != 0 },
            op::CONNECT => Command::Connect {
                token: (words[0] >> 32) as u32,
                peer: SocketAddr::new(ip_from_words([words[1], words[2]]), small as u16),
            },
            op::SET_OPTION => {
                let (option, value) = option_of(small, words[2])?;
                Command::SetOption { handle, option, value }
            }
            op::PRESET => {
                let (option, value) = option_of(small, words[0] >> 32)?;
                Command::Preset { option, value }
            }
            op::ASK => Command::Ask { token: u32::try_from(words[2]).ok()?, handle },
            op::WANT_GRANTS => Command::WantGrants,
            _ => return None,
        })
    }
}

/// An option and a value that it can have.
fn option_of(code: u32, value: u64) -> Option<(ConnOption, u32)> {
    let (option, value) = (ConnOption::from_code(code)?, u32::try_from(value).ok()?);
    option.allows(value).then_some((option, value))
}

impl Event {
    /// The entry that carries this event.
    pub fn encode(self) -> [u64; EVENT_WORDS] {
        match self {
            Event::Ready { handle } => {
                [head(op::READY, 0, handle.index), u64::from(handle.generation)]
            }
            Event::Acceptable { listener } => [head(op::ACCEPTABLE, 0, listener), 0],
            Event::Opened { token, handle } => [
                head(op::OPENED, 0, handle.index),
                u64::from(handle.generation) | u64::from(token) << 32,
            ],
            Event::Refused { token, errno } => [head(op::REFUSED, errno, token), 0],
            Event::Granted => [op::GRANTED, 0],
            Event::Reported { token } => [head(op::REPORTED, 0, token), 0],
        }
    }

    /// The event in an entry, `None` if it is none (a daemon of another version).
    pub fn decode(words: [u64; EVENT_WORDS]) -> Option<Event> {
        let handle = handle_of(words[0], words[1]);
        Some(match words[0] & 0xff {
            op::READY => Event::Ready { handle },
            op::ACCEPTABLE => Event::Acceptable { listener: handle.index },
            op::OPENED => Event::Opened { token: (words[1] >> 32) as u32, handle },
            op::REFUSED => {
                Event::Refused { token: handle.index, errno: (words[0] >> 8) as u32 & 0xff_ffff }
            }
            op::GRANTED => Event::Granted,
            op::REPORTED => Event::Reported { token: handle.index },
            _ => return None,
        })
    }
}

/// The entry that grants a send extent.
pub fn encode_grant(extent: ExtentId) -> [u64; GRANT_WORDS] {
    [u64::from(extent.raw())]
}

/// The extent that an entry grants.
pub fn decode_grant([word]: [u64; GRANT_WORDS]) -> Option<ExtentId> {
    u32::try_from(word).ok().and_then(ExtentId::from_raw)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn handle() -> impl Strategy<Value = Handle> {
        any::<(u32, u32)>().prop_map(|(index, generation)| Handle { index, generation })
    }

    fn extent() -> impl Strategy<Value = Option<ExtentId>> {
        any::<u32>().prop_map(ExtentId::from_raw)
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        prop_oneof![
            any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
            // Not an IPv4-mapped address: that one comes back as IPv4.
            any::<([u8; 16], u16)>().prop_map(|(mut ip, port)| {
                ip[0] |= 0x20;
                SocketAddr::from((ip, port))
            }),
        ]
    }

    fn command() -> impl Strategy<Value = Command> {
        prop_oneof![
            (handle(), any::<u64>(), extent()).prop_map(|(handle, tail, last)| Command::Send {
                handle,
                tail,
                last
            }),
            handle().prop_map(|handle| Command::Consumed { handle }),
            (handle(), any::<u64>(), extent())
                .prop_map(|(handle, tail, last)| Command::ShutdownWrite { handle, tail, last }),
            (handle(), any::<u64>(), extent(), any::<bool>()).prop_map(
                |(handle, tail, last, abort)| Command::Close { handle, tail, last, abort }
            ),
            (any::<u32>(), address()).prop_map(|(token, peer)| Command::Connect { token, peer }),
            (handle(), option()).prop_map(|(handle, (option, value))| Command::SetOption {
                handle,
                option,
                value
            }),
            option().prop_map(|(option, value)| Command::Preset { option, value }),
            (any::<u32>(), handle()).prop_map(|(token, handle)| Command::Ask { token, handle }),
            Just(Command::WantGrants),
        ]
    }

    fn option() -> impl Strategy<Value = (ConnOption, u32)> {
        let option = proptest::sample::select(&ConnOption::ALL[..]);
        let value = prop_oneof![0u32..260, any::<u32>()];
        let allowed = |(option, value): &(ConnOption, u32)| option.allows(*value);
        (option, value).prop_filter("a value that it can have", allowed)
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            handle().prop_map(|handle| Event::Ready { handle }),
            any::<u32>().prop_map(|listener| Event::Acceptable { listener }),
            (any::<u32>(), handle()).prop_map(|(token, handle)| Event::Opened { token, handle }),
            (any::<u32>(), 0u32..4096).prop_map(|(token, errno)| Event::Refused { token, errno }),
            Just(Event::Granted),
            any::<u32>().prop_map(|token| Event::Reported { token }),
        ]
    }

    proptest! {
        #[test]
        fn commands_survive(c in command()) {
            prop_assert_eq!(Command::decode(c.encode()), Some(c));
        }

        #[test]
        fn events_survive(e in event()) {
            prop_assert_eq!(Event::decode(e.encode()), Some(e));
        }

        /// Whatever a hostile client writes is decoded without a panic.
        #[test]
        fn anything_can_be_decoded(words in any::<[u64; 4]>()) {
            let _ = Command::decode(words);
            let _ = Event::decode([words[0], words[1]]);
            let _ = decode_grant([words[0]]);
        }
    }
}
