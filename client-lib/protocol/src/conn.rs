//! The block that a connection has in the segment.
//!
//! Daemon and client write different cache lines; each field says who writes it.

use crate::lock::Lock;
use crate::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use crate::{EXTENT_SLOTS, ExtentId, FIRST_WINDOW, Process};
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Bits of [`ConnBlock::status`].
pub mod status {
    /// The handshake is complete: bytes can flow.
    pub const CONNECTED: u32 = 1 << 0;
    /// The peer's FIN was received: after `receive_tail` comes end of file.
    pub const PEER_CLOSED: u32 = 1 << 1;
    /// The connection is dead; the block's error says why.
    pub const FAILED: u32 = 1 << 2;
    /// Our FIN is queued or sent: writing gives `EPIPE`.
    pub const WRITE_CLOSED: u32 = 1 << 3;
    /// The peer has acknowledged all that we sent and our FIN.
    pub const ALL_ACKED: u32 = 1 << 4;
}

/// Bits of [`ClientLine::shut`]: directions for which `shutdown` was called.
pub mod shut {
    /// Reading gives the end of the stream.
    pub const READ: u32 = 1 << 0;
    /// Writing gives `EPIPE`.
    pub const WRITE: u32 = 1 << 1;
}

/// What [`DaemonLine::report_at`] starts as: half of the first window.
const REPORT_AT: u32 = FIRST_WINDOW as u32 / 2;

/// State of the last, partly filled send extent ([`ClientLine::open_extent`]).
///
/// Small writes share an extent, but an idle and drained connection holds none. Whoever moves
/// the word from [`open`](partial::open) by compare-and-swap decides: the client to
/// [`BUSY`](partial::BUSY) while it appends, the daemon to [`RELEASED`](partial::RELEASED) when
/// everything was acknowledged and the extent goes back to the pool.
///
/// The open word carries the send tail. So the daemon can only release an extent whose last byte
/// it knows: one that was appended to since, by a `Send` still in its ring, does not compare
/// equal.
pub mod partial {
    /// No extent to append to: the next write takes a new one.
    pub const RELEASED: u32 = 0;
    /// A client thread is appending.
    pub const BUSY: u32 = 2;

    /// The extent of the send tail `tail` can be appended to. 31 bits of the tail are enough:
    /// the two sides are never more than a window apart.
    pub const fn open(tail: u64) -> u32 {
        (tail as u32) << 1 | 1
    }
}

/// What the daemon says.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct DaemonLine {
    /// Which connection this is; moves on when the block is reused.
    pub generation: AtomicU32,
    /// Bits of [`status`]. Stored last (Release), loaded first (Acquire).
    pub status: AtomicU32,
    /// Stream offset up to which received bytes are there to be read.
    pub receive_tail: AtomicU64,
    /// Stream offset up to which the client may write.
    pub send_limit: AtomicU64,
    /// Stream offset up to which the peer has acknowledged.
    pub send_acked: AtomicU64,
    /// errno of a failed connection, 0 for none.
    pub error: AtomicU32,
    /// The table that names its receive extents instead of the block's slots, plus one; 0 for none.
    receive_table: AtomicU32,
    /// Bytes read that are worth telling the daemon of.
    pub report_at: AtomicU32,
    /// Processes that hold the connection, as far as the daemon knows; 0 while it waits to be
    /// accepted.
    pub holders: AtomicU32,
}

/// What the client says.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct ClientLine {
    /// Stream offset up to which the client has read.
    pub receive_head: AtomicU64,
    /// Stream offset up to which the client has written; kept here for all of the group's
    /// threads and processes. The daemon believes only the tails in commands.
    pub send_tail: AtomicU64,
    /// Lane to tell when there is something to read, plus one; 0 for none.
    pub wake_reader: AtomicU16,
    /// Lane to tell when there is room to write or the connection is made, plus one; 0 for none.
    pub wake_writer: AtomicU16,
    /// One of [`partial`]; both sides write it.
    pub open_extent: AtomicU32,
    /// Extent of the last byte written, for all of the group's threads and processes; it may be
    /// another's by now. The daemon believes only the ones in commands.
    pub send_extent: AtomicU32,
    /// Held by who reads: from the look at `receive_head` until it has been moved.
    pub reader: Lock,
    /// Held by who writes: from the look at `send_tail` until the command with the new one is
    /// posted. While a dead process has it, `send_tail`, `send_extent` and `open_extent` are the
    /// daemon's to put right.
    pub writer: Lock,
    /// Bits of [`shut`]; for all of the group's threads and processes.
    pub shut: AtomicU32,
}

/// The two ends of a connection. Written once, before the client learns of it.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct AddressLine {
    local: [AtomicU64; 2],
    peer: [AtomicU64; 2],
    ports: AtomicU32,
}

/// All that daemon and client share about one connection besides its bytes.
///
/// Zeroed memory is a block that was never used.
#[repr(C)]
#[derive(Debug)]
pub struct ConnBlock {
    /// Written by the daemon.
    pub daemon: DaemonLine,
    /// Written by the client.
    pub client: ClientLine,
    /// Receive extents by slot; written by the daemon before it moves `receive_tail`.
    pub receive_slots: [AtomicU32; EXTENT_SLOTS],
    /// Written by the daemon.
    pub addresses: AddressLine,
}

impl AddressLine {
    /// Daemon: sets both ends.
    pub fn set(&self, local: SocketAddr, peer: SocketAddr) {
        for (cells, address) in [(&self.local, local), (&self.peer, peer)] {
            for (cell, word) in cells.iter().zip(ip_to_words(address.ip())) {
                cell.store(word, Ordering::Relaxed);
            }
        }
        let ports = u32::from(local.port()) << 16 | u32::from(peer.port());
        self.ports.store(ports, Ordering::Relaxed);
    }

    /// Our end.
    pub fn local(&self) -> SocketAddr {
        let port = (self.ports.load(Ordering::Relaxed) >> 16) as u16;
        SocketAddr::new(ip_from_words(load(&self.local)), port)
    }

    /// The peer's end.
    pub fn peer(&self) -> SocketAddr {
        let port = self.ports.load(Ordering::Relaxed) as u16;
        SocketAddr::new(ip_from_words(load(&self.peer)), port)
    }
}

/// An address as two words, the first half first; IPv4 as an IPv4-mapped IPv6 address.
pub fn ip_to_words(ip: IpAddr) -> [u64; 2] {
    let v6 = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let bits = v6.to_bits();
    [(bits >> 64) as u64, bits as u64]
}

/// The address that [`ip_to_words`] wrote.
pub fn ip_from_words([high, low]: [u64; 2]) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).to_canonical()
}

fn load(cells: &[AtomicU64; 2]) -> [u64; 2] {
    [cells[0].load(Ordering::Relaxed), cells[1].load(Ordering::Relaxed)]
}

impl ConnBlock {
    /// Daemon: makes the block ready for a new connection of generation `generation`.
    /// The client learns of it only through a ring, whose Release publishes this.
    pub fn reset(&self, generation: u32, local: SocketAddr, peer: SocketAddr) {
        self.daemon.receive_tail.store(0, Ordering::Relaxed);
        self.daemon.send_limit.store(0, Ordering::Relaxed);
        self.daemon.send_acked.store(0, Ordering::Relaxed);
        self.daemon.error.store(0, Ordering::Relaxed);
        self.daemon.receive_table.store(0, Ordering::Relaxed);
        self.daemon.report_at.store(REPORT_AT, Ordering::Relaxed);
        self.client.receive_head.store(0, Ordering::Relaxed);
        self.client.send_tail.store(0, Ordering::Relaxed);
        self.client.wake_reader.store(0, Ordering::Relaxed);
        self.client.wake_writer.store(0, Ordering::Relaxed);
        self.client.open_extent.store(partial::RELEASED, Ordering::Relaxed);
        self.client.send_extent.store(0, Ordering::Relaxed);
        self.client.reader.reset();
        self.client.writer.reset();
        self.client.shut.store(0, Ordering::Relaxed);
        self.daemon.holders.store(0, Ordering::Relaxed);
        self.addresses.set(local, peer);
        self.daemon.generation.store(generation, Ordering::Relaxed);
        // Release: pairs with the Acquire in status().
        self.daemon.status.store(0, Ordering::Release);
    }

    /// Client: bits of [`status`]. What the daemon wrote before them is visible afterwards.
    pub fn status(&self) -> u32 {
        // Acquire: pairs with the Release in publish_status().
        self.daemon.status.load(Ordering::Acquire)
    }

    /// Daemon: publishes status bits after everything that they stand for.
    pub fn publish_status(&self, bits: u32) {
        // Release: pairs with the Acquire in status().
        self.daemon.status.store(bits, Ordering::Release);
    }

    /// Client: offset up to which bytes can be read now.
    pub fn receive_tail(&self) -> u64 {
        // Acquire: pairs with the Release in publish_receive_tail(); bytes and slots are there.
        self.daemon.receive_tail.load(Ordering::Acquire)
    }

    /// Daemon: publishes received bytes.
    pub fn publish_receive_tail(&self, tail: u64) {
        // Release: pairs with the Acquire in receive_tail().
        self.daemon.receive_tail.store(tail, Ordering::Release);
    }

    /// Client: gives back everything below `head`; the bytes were copied out.
    pub fn publish_receive_head(&self, head: u64) {
        // Release: pairs with the Acquire in receive_head(); our reads are done.
        self.client.receive_head.store(head, Ordering::Release);
    }

    /// Daemon: how far the client says it has read. To be checked before use.
    pub fn receive_head(&self) -> u64 {
        // Acquire: pairs with the Release in publish_receive_head().
        self.client.receive_head.load(Ordering::Acquire)
    }

    /// Receive extent of `slot`.
    pub fn receive_slot(&self, slot: usize) -> Option<ExtentId> {
        ExtentId::from_raw(self.receive_slots[slot].load(Ordering::Relaxed))
    }

    /// Client: the table that names receive extents instead of the block's slots, if one does. To
    /// be asked after [`receive_tail`](Self::receive_tail).
    pub fn receive_table(&self) -> Option<u32> {
        // Acquire: pairs with the Release in publish_receive_table(); the table is filled.
        self.daemon.receive_table.load(Ordering::Acquire).checked_sub(1)
    }

    /// Daemon: lends the connection a table, or takes it back when everything was read.
    pub fn publish_receive_table(&self, table: Option<u32>) {
        // Release: pairs with the Acquire in receive_table().
        self.daemon.receive_table.store(table.map_or(0, |table| table + 1), Ordering::Release);
    }

    /// Client: extent of the last byte written.
    pub fn send_extent(&self) -> Option<ExtentId> {
        // Relaxed: only clients write it, under the lock of their writing side.
        ExtentId::from_raw(self.client.send_extent.load(Ordering::Relaxed))
    }

    /// Client: takes the extent of the send tail `tail` to append to it. `false`: there is none,
    /// the next byte needs a new one.
    pub fn take_open_extent(&self, tail: u64) -> bool {
        self.move_open_extent(partial::open(tail), partial::BUSY)
    }

    /// Client: leaves the extent of the send tail `tail`, open if the tail lies inside of it.
    pub fn leave_open_extent(&self, tail: u64) {
        let word = match crate::position_of(tail) {
            0 => partial::RELEASED,
            _ => partial::open(tail),
        };
        // Release: pairs with the AcqRel in move_open_extent(); what we appended is there.
        self.client.open_extent.store(word, Ordering::Release);
    }

    /// Daemon: takes the last, partly filled extent away, everything below `tail` being
    /// acknowledged. `false`: the client is appending, or has appended more; the extent stays.
    pub fn release_open_extent(&self, tail: u64) -> bool {
        self.move_open_extent(partial::open(tail), partial::RELEASED)
    }

    /// Daemon: breaks the locks of a process that is dead. If it was writing, the stream ends at
    /// `tail` for the client, `last` being the extent of the last byte: what the dead process had
    /// not told the daemon of never was.
    pub fn put_right(&self, dead: Process, tail: u64, last: Option<ExtentId>) {
        self.client.reader.break_for(dead);
        if self.client.writer.holder() == Some(dead) {
            self.client.send_tail.store(tail, Ordering::Relaxed);
            self.client.send_extent.store(last.map_or(0, ExtentId::raw), Ordering::Relaxed);
            match last {
                Some(_) => self.leave_open_extent(tail),
                None => self.client.open_extent.store(partial::RELEASED, Ordering::Relaxed),
            }
            // Its Release publishes this to the next writer.
            self.client.writer.break_for(dead);
        }
    }

    fn move_open_extent(&self, from: u32, to: u32) -> bool {
        // AcqRel: whoever moves the word sees what the other side did before moving it.
        let word = &self.client.open_extent;
        word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_four_cache_lines() {
        assert_eq!(size_of::<ConnBlock>(), 4 * 64);
    }

    #[test]
    fn addresses_of_both_families_survive() {
        for (local, peer) in
            [("10.99.0.2:80", "10.99.0.1:40000"), ("[fd99::2]:443", "[2001:db8::7]:65535")]
        {
            let line = AddressLine {
                local: [AtomicU64::new(0), AtomicU64::new(0)],
                peer: [AtomicU64::new(0), AtomicU64::new(0)],
                ports: AtomicU32::new(0),
            };
            line.set(local.parse().unwrap(), peer.parse().unwrap());
            assert_eq!(line.local(), local.parse().unwrap());
            assert_eq!(line.peer(), peer.parse().unwrap());
        }
    }
}
