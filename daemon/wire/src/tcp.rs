//! The TCP header: flags and the parsed segment.

use core::fmt;
use core::ops::{BitOr, BitOrAssign};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::Sum;
use crate::ip::{ECN_BITS, ECN_CE, Packet};
use crate::options::Options;
use crate::parse::{ChecksumPolicy, ParseError};

pub(crate) const HEADER_LEN: usize = 20;
pub(crate) const PROTOCOL: u8 = 6;

/// The control bits of a segment (RFC 9293 §3.1, RFC 3168).
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Flags(pub u8);

impl Flags {
    /// No bit set.
    pub const EMPTY: Flags = Flags(0);
    /// No more data from the sender.
    pub const FIN: Flags = Flags(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Flags = Flags(0x02);
    /// Reset the connection.
    pub const RST: Flags = Flags(0x04);
    /// Push.
    pub const PSH: Flags = Flags(0x08);
    /// The acknowledgement field is significant.
    pub const ACK: Flags = Flags(0x10);
    /// The urgent pointer is significant.
    pub const URG: Flags = Flags(0x20);
    /// ECN echo.
    pub const ECE: Flags = Flags(0x40);
    /// Congestion window reduced.
    pub const CWR: Flags = Flags(0x80);

    /// Whether every bit of `other` is set.
    #[inline]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    #[inline]
    pub const fn intersects(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets, usable in constants.
    #[inline]
    pub const fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitOr for Flags {
    type Output = Flags;
    #[inline]
    fn bitor(self, other: Flags) -> Flags {
        self.union(other)
    }
}

impl BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Flags {
    /// One letter a bit, as tcpdump has them: `S`, `F`, `R`, `P`, `.` for ACK, `U`, `E`, `W`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [
            (Flags::SYN, "S"),
            (Flags::FIN, "F"),
            (Flags::RST, "R"),
            (Flags::PSH, "P"),
            (Flags::URG, "U"),
            (Flags::ECE, "E"),
            (Flags::CWR, "W"),
            (Flags::ACK, "."),
        ] {
            if self.contains(bit) {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

/// One TCP segment, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Segment<'a> {
    /// Sequence number of the first byte, or of the SYN.
    pub seq: u32,
    /// Acknowledgement number; meaningful with [`Flags::ACK`].
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// The window field as it is on the wire: not scaled.
    pub window: u16,
    /// Urgent pointer; meaningful with [`Flags::URG`].
    pub urgent: u16,
    /// Options that we know.
    pub options: Options,
    /// Its packet met congestion on the way (CE, RFC 3168 §5).
    pub congested: bool,
    /// Data.
    pub payload: &'a [u8],
}

impl Segment<'_> {
    /// How much sequence space it takes: data, and one each for SYN and FIN (RFC 9293 §3.4).
    #[inline]
    pub fn sequence_len(&self) -> u32 {
        // A payload fits an IP packet, hence 16 bits.
        self.payload.len() as u32
            + u32::from(self.flags.contains(Flags::SYN))
            + u32::from(self.flags.contains(Flags::FIN))
    }
}

/// Source and destination port, then the segment.
#[inline]
pub(crate) fn parse<'a>(
    packet: &Packet<'a>,
    policy: ChecksumPolicy,
) -> Result<(u16, u16, Segment<'a>), ParseError> {
    let bytes = packet.payload;
    let head = bytes.first_chunk::<HEADER_LEN>().ok_or(ParseError::Truncated)?;
    let data_at = usize::from(head[12] >> 4) * 4;
    if data_at < HEADER_LEN || data_at > bytes.len() {
        return Err(ParseError::TcpHeader);
    }
    if policy == ChecksumPolicy::Verify && !packet.sum(PROTOCOL).add_bytes(bytes).is_valid() {
        return Err(ParseError::TcpChecksum);
    }
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let long = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let segment = Segment {
        seq: long(4),
        ack: long(8),
        flags: Flags(head[13]),
        window: word(14),
        urgent: word(18),
        options: Options::parse(&bytes[HEADER_LEN..data_at])?,
        congested: packet.tos & ECN_BITS == ECN_CE,
        payload: &bytes[data_at..],
    };
    Ok((word(0), word(2), segment))
}

/// Stores the checksum of a complete TCP segment whose checksum field is zero.
#[inline]
pub(crate) fn fill_checksum(segment: &mut [u8], pseudo_header: Sum) {
    let checksum = pseudo_header.add_bytes(segment).finish();
    segment[16..18].copy_from_slice(&checksum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn flags_print_as_tcpdump_prints_them() {
        assert_eq!((Flags::SYN | Flags::ACK).to_string(), "S.");
        assert_eq!((Flags::FIN | Flags::PSH | Flags::ACK).to_string(), "FP.");
    }

    #[test]
    fn syn_and_fin_take_sequence_space() {
        let segment =
            Segment { flags: Flags::SYN | Flags::FIN, payload: &[0; 5], ..Segment::default() };
        assert_eq!(segment.sequence_len(), 7);
    }
}
