//! One frame in a buffer that is used again, and what a router does with one that is too large.

use fourwave_wire::Sum;

/// Room for the largest frame, and to spare.
const ROOM: usize = 2_048;
const ETHERNET: usize = 14;
/// What is quoted of a packet that is too large: IP header without options, then 8 bytes.
const V4_QUOTE: usize = 28;
const V6_QUOTE: usize = 48;

/// A frame. No frame here has VLAN tags.
pub(crate) struct Frame {
    buffer: Vec<u8>,
    len: usize,
}

impl Frame {
    pub(crate) fn new(buffer: Option<Vec<u8>>) -> Frame {
        Frame { buffer: buffer.unwrap_or_else(|| vec![0; ROOM]), len: 0 }
    }

    /// The whole buffer, to be filled; then [`Frame::set_len`].
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    pub(crate) fn set_len(&mut self, len: usize) {
        self.len = len;
    }

    pub(crate) fn set(&mut self, bytes: &[u8]) {
        self.buffer[..bytes.len()].copy_from_slice(bytes);
        self.len = bytes.len();
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }

    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// What the link's MTU counts.
    pub(crate) fn packet_len(&self) -> usize {
        self.len - ETHERNET
    }

    pub(crate) fn cut(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Adds bytes that mean nothing.
    pub(crate) fn pad(&mut self, len: usize) {
        self.buffer[self.len..self.len + len].fill(0xa5);
        self.len += len;
    }
}

pub(crate) fn is_v6(frame: &[u8]) -> bool {
    frame[12] == 0x86
}

/// RFC 3168 §5: says that the frame met congestion, if its sender can be told that; else `false`.
pub(crate) fn mark(frame: &mut [u8]) -> bool {
    const CE: u8 = 3;
    let ip = &mut frame[ETHERNET..];
    // The two low bits of the traffic class.
    let (at, shift) = if ip[0] >> 4 == 6 { (1, 4) } else { (1, 0) };
    if ip[at] >> shift & CE == 0 {
        return false;
    }
    ip[at] |= CE << shift;
    if ip[0] >> 4 == 4 {
        ip[10..12].fill(0);
        let sum = Sum::new().add_bytes(&ip[..20]).finish();
        ip[10..12].copy_from_slice(&sum);
    }
    true
}

/// RFC 792 and RFC 4443: the packet in `frame` is larger than `mtu`.
pub(crate) fn too_big(frame: &[u8], mtu: u16, out: &mut Frame) {
    let v6 = is_v6(frame);
    let packet = &frame[ETHERNET..];
    let (ip_len, quote) = if v6 { (40, &packet[..V6_QUOTE]) } else { (20, &packet[..V4_QUOTE]) };
    let at = ETHERNET + ip_len;
    let end = at + 8 + quote.len();
    let bytes = &mut out.room()[..end];
    bytes.fill(0);
    bytes[..6].copy_from_slice(&frame[6..12]);
    bytes[6..12].copy_from_slice(&frame[..6]);
    bytes[12..14].copy_from_slice(&frame[12..14]);
    let [len_high, len_low] = ((8 + quote.len() + if v6 { 0 } else { 20 }) as u16).to_be_bytes();
    let [mtu_high, mtu_low] = mtu.to_be_bytes();
    bytes[at + 8..].copy_from_slice(quote);
    let ip = &mut bytes[ETHERNET..];
    let sum = if v6 {
        ip[0] = 0x60;
        ip[4..8].copy_from_slice(&[len_high, len_low, 58, 64]);
        ip[8..24].copy_from_slice(&packet[24..40]);
        ip[24..40].copy_from_slice(&packet[8..24]);
        ip[40..48].copy_from_slice(&[2, 0, 0, 0, 0, 0, mtu_high, mtu_low]);
        Sum::new()
            .add_bytes(&ip[8..40])
            .add_u16(u16::from_be_bytes([len_high, len_low]))
            .add_u16(58)
    } else {
        ip[..4].copy_from_slice(&[0x45, 0, len_high, len_low]);
        ip[8..10].copy_from_slice(&[64, 1]);
        ip[12..16].copy_from_slice(&packet[16..20]);
        ip[16..20].copy_from_slice(&packet[12..16]);
        let header = Sum::new().add_bytes(&ip[..20]).finish();
        ip[10..12].copy_from_slice(&header);
        ip[20..28].copy_from_slice(&[3, 4, 0, 0, 0, 0, mtu_high, mtu_low]);
        Sum::new()
    };
    let sum = sum.add_bytes(&bytes[at..end]).finish();
    bytes[at + 2..at + 4].copy_from_slice(&sum);
    out.set_len(end);
}

/// Makes the checksums of a frame right, if it can be told where they are.
pub(crate) fn mend_checksums(frame: &mut [u8]) {
    let Some(packet) = frame.get_mut(ETHERNET..) else { return };
    let (ip_len, protocol) = match packet.first() {
        Some(0x45) if packet.len() >= 20 => (20, packet[9]),
        Some(first) if first >> 4 == 6 && packet.len() >= 40 => (40, packet[6]),
        _ => return,
    };
    let (ip, rest) = packet.split_at_mut(ip_len);
    let addresses = if ip_len == 20 {
        ip[10..12].fill(0);
        let sum = Sum::new().add_bytes(ip).finish();
        ip[10..12].copy_from_slice(&sum);
        &ip[12..20]
    } else {
        &ip[8..40]
    };
    let at = match protocol {
        6 => 16,
        1 | 58 => 2,
        _ => return,
    };
    let len = match ip_len {
        20 => usize::from(u16::from_be_bytes([ip[2], ip[3]])).saturating_sub(20),
        _ => usize::from(u16::from_be_bytes([ip[4], ip[5]])),
    };
    let Some(rest) = rest.get_mut(..len).filter(|rest| rest.len() > at + 2) else { return };
    rest[at..at + 2].fill(0);
    // Of ICMP for IPv4 no address is summed.
    let sum = if protocol == 1 {
        Sum::new()
    } else {
        Sum::new().add_bytes(addresses).add_u16(u16::from(protocol)).add_u16(len as u16)
    };
    let sum = sum.add_bytes(rest).finish();
    rest[at..at + 2].copy_from_slice(&sum);
}
