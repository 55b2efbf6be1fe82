//! Frames of every kind, built from parts.

use super::{HOST4, HOST6, PORT};

/// Protocol numbers.
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

/// Addresses of the far end.
pub const PEER4: [u8; 4] = [10, 99, 0, 1];
pub const PEER6: [u8; 16] = [0xfd, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Ethernet around `packet`, with VLAN tags as (ethertype, tag) from the outside in.
pub fn ethernet(tags: &[(u16, u16)], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for (ethertype, tag) in tags {
        frame.extend(ethertype.to_be_bytes());
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

/// An IPv4 packet; `options` are padded to words, `fragment` is the word of flags and offset.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    pub source: [u8; 4],
    pub destination: [u8; 4],
    pub options: Vec<u8>,
    pub fragment: u16,
    pub protocol: u8,
    pub payload: Vec<u8>,
}

impl Ipv4 {
    /// From the peer to the served address.
    pub fn new(protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            source: PEER4,
            destination: HOST4,
            options: Vec::new(),
            fragment: 0x4000,
            protocol,
            payload,
        }
    }

    pub fn packet(&self) -> Vec<u8> {
        let options = self.options.len().next_multiple_of(4);
        let header = 20 + options;
        let mut packet = vec![0x40 | (header / 4) as u8, 0];
        packet.extend(((header + self.payload.len()) as u16).to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([64, self.protocol, 0, 0]);
        packet.extend(self.source);
        packet.extend(self.destination);
        packet.extend(&self.options);
        packet.resize(header, 0);
        packet.extend(&self.payload);
        packet
    }

    pub fn frame(&self) -> Vec<u8> {
        ethernet(&[], 0x0800, &self.packet())
    }
}

/// An IPv6 packet.
#[derive(Clone, Debug)]
pub struct Ipv6 {
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub extensions: Vec<Extension>,
    pub protocol: u8,
    pub payload: Vec<u8>,
}

/// An IPv6 extension header; `words` is the length field as it is.
#[derive(Clone, Copy, Debug)]
pub enum Extension {
    HopByHop { words: u8 },
    Destination { words: u8 },
    Routing { words: u8, segments_left: u8 },
    Fragment { offset: u16, more: bool },
    Authentication { words: u8 },
}

impl Extension {
    fn number(self) -> u8 {
        match self {
            Self::HopByHop { .. } => 0,
            Self::Destination { .. } => 60,
            Self::Routing { .. } => 43,
            Self::Fragment { .. } => 44,
            Self::Authentication { .. } => 51,
        }
    }

    fn bytes(self, next: u8) -> Vec<u8> {
        let (mut bytes, length) = match self {
            Self::HopByHop { words } | Self::Destination { words } => {
                (vec![next, words], (usize::from(words) + 1) * 8)
            }
            Self::Routing { words, segments_left } => {
                (vec![next, words, 4, segments_left], (usize::from(words) + 1) * 8)
            }
            Self::Fragment { offset, more } => {
                let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
                (vec![next, 0, high, low], 8)
            }
            Self::Authentication { words } => (vec![next, words], (usize::from(words) + 2) * 4),
        };
        bytes.resize(length, 0);
        bytes
    }
}

impl Ipv6 {
    /// From the peer to the served address.
    pub fn new(protocol: u8, payload: Vec<u8>) -> Self {
        Self { source: PEER6, destination: HOST6, extensions: Vec::new(), protocol, payload }
    }

    pub fn with(mut self, extensions: &[Extension]) -> Self {
        self.extensions = extensions.to_vec();
        self
    }

    pub fn packet(&self) -> Vec<u8> {
        let mut body = self.payload.clone();
        let mut next = self.protocol;
        for extension in self.extensions.iter().rev() {
            let mut bytes = extension.bytes(next);
            bytes.extend(body);
            body = bytes;
            next = extension.number();
        }
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((body.len() as u16).to_be_bytes());
        packet.extend([next, 64]);
        packet.extend(self.source);
        packet.extend(self.destination);
        packet.extend(body);
        packet
    }

    pub fn frame(&self) -> Vec<u8> {
        ethernet(&[], 0x86dd, &self.packet())
    }
}

pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// A TCP header without options: an acknowledgement.
pub fn tcp(source: u16, destination: u16) -> Vec<u8> {
    flagged(source, destination, ACK)
}

/// A TCP header without options and with these flags.
pub fn flagged(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(source.to_be_bytes());
    segment.extend(destination.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

/// An ICMP or ICMPv6 error of this type about `quoted`.
pub fn icmp_error(kind: u8, quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(quoted);
    message
}

/// The IPv4 packet of ours that a router complains about: from the served port to the peer.
pub fn sent4() -> Ipv4 {
    Ipv4 { source: HOST4, destination: PEER4, ..Ipv4::new(TCP, tcp(PORT, 40_000)) }
}

/// The same over IPv6.
pub fn sent6() -> Ipv6 {
    Ipv6 { source: HOST6, destination: PEER6, ..Ipv6::new(TCP, tcp(PORT, 40_000)) }
}
