//! Ethernet II with up to two VLAN tags.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{array, u16_at};

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

/// An Ethernet address.
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
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether this is a group address (multicast or broadcast).
    #[inline]
    pub fn is_group(&self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One VLAN tag (IEEE 802.1Q).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Tag {
    /// Tag protocol identifier: 0x8100 or 0x88a8.
    pub protocol: u16,
    /// Priority, drop eligibility and VLAN number.
    pub control: u16,
}

impl Tag {
    /// The VLAN number, 0–4095.
    pub fn vlan(&self) -> u16 {
        self.control & 0x0fff
    }
}

/// The link header of a frame, either as received or as to be sent.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Link {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
    /// Tags, outermost first; only the first [`Link::vlan_count`] mean anything.
    pub vlan: [Tag; 2],
    /// How many tags there are; 2 is the most, larger values count as 2.
    pub vlan_count: u8,
    /// Unused, zero: keeps the record free of padding.
    pub reserved: u8,
}

impl Link {
    /// An untagged header.
    pub fn new(dst: Mac, src: Mac) -> Link {
        Link { dst, src, ..Link::default() }
    }

    /// The header for an answer: back to where it came from, on the same VLAN.
    #[inline]
    pub fn reply(&self) -> Link {
        Link { dst: self.src, src: self.dst, ..*self }
    }

    /// The tags in use, outermost first.
    #[inline]
    pub fn tags(&self) -> &[Tag] {
        &self.vlan[..usize::from(self.vlan_count.min(2))]
    }

    /// Length of the header on the wire: 14, 18 or 22 bytes.
    #[inline]
    pub fn header_len(&self) -> usize {
        14 + 4 * self.tags().len()
    }

    /// Writes the header; `out` has exactly [`Link::header_len`] bytes.
    #[inline]
    pub(crate) fn emit(&self, out: &mut [u8], ethertype: u16) {
        out[..6].copy_from_slice(&self.dst.0);
        out[6..12].copy_from_slice(&self.src.0);
        let mut at = 12;
        for tag in self.tags() {
            out[at..at + 2].copy_from_slice(&tag.protocol.to_be_bytes());
            out[at + 2..at + 4].copy_from_slice(&tag.control.to_be_bytes());
            at += 4;
        }
        out[at..at + 2].copy_from_slice(&ethertype.to_be_bytes());
    }
}

/// Splits a frame into link header, ethertype and what follows; `None` if it is too short.
///
/// A third tag is left as the ethertype, which is then no IP.
#[inline]
pub(crate) fn split(frame: &[u8]) -> Option<(Link, u16, &[u8])> {
    let link = Link::new(Mac(array(frame, 0)?), Mac(array(frame, 6)?));
    let ethertype = u16_at(frame, 12)?;
    if is_tag(ethertype) {
        return split_tagged(frame, link, ethertype);
    }
    Some((link, ethertype, frame.get(14..)?))
}

fn split_tagged(frame: &[u8], mut link: Link, outer: u16) -> Option<(Link, u16, &[u8])> {
    link.vlan[0] = Tag { protocol: outer, control: u16_at(frame, 14)? };
    link.vlan_count = 1;
    let ethertype = u16_at(frame, 16)?;
    if !is_tag(ethertype) {
        return Some((link, ethertype, frame.get(18..)?));
    }
    link.vlan[1] = Tag { protocol: ethertype, control: u16_at(frame, 18)? };
    link.vlan_count = 2;
    Some((link, u16_at(frame, 20)?, frame.get(22..)?))
}

fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_QINQ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_a_round_trip() {
        for count in 0..=2u8 {
            let mut link = Link::new(Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
            link.vlan_count = count;
            for (i, tag) in link.vlan.iter_mut().take(usize::from(count)).enumerate() {
                let protocol = if i == 0 && count == 2 { ETHERTYPE_QINQ } else { ETHERTYPE_VLAN };
                *tag = Tag { protocol, control: 0x2000 + i as u16 };
            }
            let mut frame = [0; 30];
            let len = link.header_len();
            link.emit(&mut frame[..len], ETHERTYPE_IPV6);
            let (parsed, ethertype, rest) = split(&frame).unwrap();
            assert_eq!((parsed, ethertype, rest.len()), (link, ETHERTYPE_IPV6, 30 - len));
            assert_eq!(parsed.reply().reply(), link);
        }
    }

    #[test]
    fn a_cut_tag_is_refused_and_a_third_is_no_ip() {
        let mut frame = [0; 26];
        frame[12..14].copy_from_slice(&[0x81, 0x00]);
        assert!(split(&frame[..16]).is_none());
        frame[16..18].copy_from_slice(&[0x81, 0x00]);
        frame[20..22].copy_from_slice(&[0x81, 0x00]);
        assert_eq!(split(&frame).unwrap().1, ETHERTYPE_VLAN);
    }
}
