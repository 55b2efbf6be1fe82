//! What a shard needs from where it runs: room for frames, next hops, random numbers, and the
//! application's side of each connection.

use fourwave_tcp::{Buffers, Error, Events};
use fourwave_wire::{Addr, FourTuple, Link};

/// A listener, numbered by whoever calls [`Shard::listen`](crate::Shard::listen).
pub type ListenerId = u32;

/// A connection with a full control block. A number is used again with another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Below [`Config::connections`](crate::Config::connections).
    pub index: u32,
    /// Odd while the connection lives.
    pub generation: u32,
}

/// Room for one outgoing frame, and where payload comes from: two borrows of one host.
pub struct Frame<'a, P> {
    /// At least the path's MTU and 22 bytes of link header.
    pub room: &'a mut [u8],
    /// The send streams.
    pub payload: &'a P,
}

/// The applications' send streams.
pub trait Payload {
    /// Copies the bytes of `app`'s send stream from `offset` on into `out`. They lie below the tail
    /// that was given to [`Shard::send`](crate::Shard::send) and have not been acknowledged. `out`
    /// is not empty.
    fn load(&self, app: u64, offset: u64, out: &mut [u8]);
}

/// The environment of a shard. `app` is a number that the host chose for a connection; it can choose
/// another one with [`Shard::move_waiting`](crate::Shard::move_waiting).
///
/// Calls about one connection come in this order: [`open`](Host::open) (passive only), then any
/// [`store`](Host::store), [`update`](Host::update) and loads of payload, with one
/// [`accept`](Host::accept) (passive only) after the first segment's, then one
/// [`closed`](Host::closed). Updates go on coming after the application has closed its handle, until
/// `closed`.
pub trait Host {
    /// The send streams, lent together with room for a frame.
    type Payload: Payload;

    /// Room for one outgoing frame; `None` while there is none. Asking again without a
    /// [`commit`](Host::commit) gives the same room.
    fn frame(&mut self) -> Option<Frame<'_, Self::Payload>>;

    /// The frame that was last asked for is complete; it takes `len` bytes of its room.
    fn commit(&mut self, len: usize);

    /// The way to `peer`, from `local` if that is given.
    ///
    /// # Errors
    /// [`PathError::Unresolved`] when the next hop's link address is not known; the host then sees
    /// to it that it will be, and that [`path_epoch`](Host::path_epoch) changes.
    fn path(&mut self, local: Option<Addr>, peer: Addr) -> Result<Path, PathError>;

    /// Changes whenever [`path`](Host::path) may answer differently.
    fn path_epoch(&self) -> u32;

    /// Whether the address is this machine's.
    fn is_local(&self, addr: Addr) -> bool;

    /// A uniformly random, unpredictable number.
    fn random(&mut self) -> u64;

    /// Makes room for a connection that has completed its handshake.
    ///
    /// # Errors
    /// [`Refused`] when there is none; the handshake's last ACK then counts as not received.
    fn open(
        &mut self,
        listener: ListenerId,
        conn: ConnId,
        tuple: &FourTuple,
    ) -> Result<u64, Refused>;

    /// Keeps received bytes, see [`Buffers::store`].
    fn store(&mut self, app: u64, offset: u64, bytes: &[u8]) -> bool;

    /// Something about the connection has changed.
    fn update(&mut self, app: u64, update: &Update);

    /// An opened connection belongs on its listener's accept queue, where its place was claimed.
    fn accept(&mut self, listener: ListenerId, conn: ConnId, app: u64);

    /// The control block is gone and the [`ConnId`] means nothing any more. The send stream is not
    /// needed further; received bytes that the application has not read stay its own. This can
    /// come while the application holds the connection open (a reset, or TIME_WAIT after both
    /// sides have shut down).
    fn closed(&mut self, app: u64);
}

/// A way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Link header to send with.
    pub link: Link,
    /// Our address on this way.
    pub source: Addr,
    /// Largest IP packet, bytes.
    pub mtu: u16,
}

/// There is no complete way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// No route leads there.
    NoRoute,
    /// The next hop's link address is not known yet.
    Unresolved {
        /// Our address on this way.
        source: Addr,
        /// Largest IP packet, bytes.
        mtu: u16,
    },
}

/// The host has no room for another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// What has changed about a connection; offsets count from the first byte of each stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// Bytes received in order.
    pub rcv_tail: u64,
    /// Bytes that the peer has acknowledged.
    pub snd_acked: u64,
    /// Bytes beyond those that may be written.
    pub send_space: u32,
    /// What happened.
    pub events: Events,
    /// Why the connection failed, once it has.
    pub error: Option<Error>,
}

/// The receive stream of one connection, for its control block.
pub(crate) struct Stream<'a, H> {
    pub(crate) host: &'a mut H,
    pub(crate) app: u64,
}

impl<H: Host> Buffers for Stream<'_, H> {
    #[inline]
    fn store(&mut self, offset: u64, bytes: &[u8]) -> bool {
        self.host.store(self.app, offset, bytes)
    }
}
