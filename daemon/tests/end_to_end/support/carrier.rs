//! Carries frames between the two ends of a relayed lab by a rule: a router that marks, drops or
//! complains.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use fourwave_bench::packet::{BATCH, Frame, PacketSocket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use fourwave_bench::lab::Side;

use super::Bed;

/// What becomes of a frame.
#[derive(Debug)]
pub enum Fate {
    /// It goes on, as the rule left it.
    Pass,
    Drop,
    /// It is dropped, and its sender gets this frame.
    Answer(Vec<u8>),
}

/// Frames are carried while this exists.
#[derive(Debug)]
pub struct Carrier {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// How long the carrier sleeps before it looks whether it is to stop.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

impl Carrier {
    /// Starts carrying. The lab of `bed` must be relayed.
    pub fn start(
        bed: &Bed,
        mut rule: impl FnMut(Side, &mut Vec<u8>) -> Fate + Send + 'static,
    ) -> Carrier {
        let middle = bed.middle().expect("the lab is relayed");
        let open = || middle.interfaces().map(PacketSocket::open);
        let [server, client] = middle.netns().run(open).expect("the namespace can be entered");
        let sockets = [server, client].map(|socket| socket.expect("a packet socket can be made"));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut polled =
                    sockets.each_ref().map(|socket| PollFd::new(socket, PollFlags::IN));
                poll(&mut polled, Some(&NAP))?;
                carry([Side::Server, Side::Client], &sockets, &mut rule)?;
            }
            Ok(())
        };
        let thread = thread::Builder::new().name("carrier".into()).spawn(work);
        Carrier { stop, thread: Some(thread.expect("a thread can be started")) }
    }
}

fn carry(
    ends: [Side; 2],
    sockets: &[PacketSocket; 2],
    rule: &mut impl FnMut(Side, &mut Vec<u8>) -> Fate,
) -> io::Result<()> {
    let mut frames: [Frame; BATCH] = std::array::from_fn(|_| Frame::new());
    for (index, from) in ends.into_iter().enumerate() {
        let count = sockets[index].receive(&mut frames)?;
        for frame in &frames[..count] {
            let mut bytes = frame.bytes().to_vec();
            let (socket, bytes) = match rule(from, &mut bytes) {
                Fate::Pass => (&sockets[1 - index], bytes),
                Fate::Drop => continue,
                Fate::Answer(answer) => (&sockets[index], answer),
            };
            // No room is a loss like any other.
            socket.send(std::iter::once(&bytes[..]))?;
        }
    }
    Ok(())
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let result = self.thread.take().map(JoinHandle::join);
        if let Some(Ok(Err(error))) = result {
            eprintln!("carrier: {error}");
        }
    }
}

/// The IP packet of an untagged frame.
pub fn packet(frame: &[u8]) -> &[u8] {
    &frame[14..]
}

/// The two bits of ECN in an IP packet.
pub fn ecn(packet: &[u8]) -> u8 {
    let tos = if packet[0] >> 4 == 4 { packet[1] } else { packet[1] >> 4 };
    tos & 3
}

/// Marks the packet of a frame that can be marked: there was congestion (RFC 3168).
pub fn mark(frame: &mut [u8]) {
    let packet = &mut frame[14..];
    if packet[0] >> 4 == 4 {
        packet[1] |= 3;
        packet[10..12].fill(0);
        let sum = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum);
    } else {
        packet[1] |= 3 << 4;
    }
}

/// TCP's control bits, and how much data follows the header; `None` for what is no TCP.
pub fn tcp(packet: &[u8]) -> Option<(u8, usize)> {
    let (protocol, header, total) = if packet[0] >> 4 == 4 {
        let header = usize::from(packet[0] & 0xf) * 4;
        (packet[9], header, usize::from(u16::from_be_bytes([packet[2], packet[3]])))
    } else {
        (packet[6], 40, 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])))
    };
    let segment = packet.get(header..total).filter(|_| protocol == 6)?;
    Some((segment[13], segment.len() - usize::from(segment[12] >> 4) * 4))
}

/// What a router says about a packet that is larger than its next link's `mtu`: RFC 792 with
/// RFC 1191, RFC 4443. It quotes as much as routers have to.
pub fn too_big(frame: &[u8], mtu: u16) -> Vec<u8> {
    let quoted = packet(frame);
    let mut answer = [&frame[6..12], &frame[..6], &frame[12..14]].concat();
    let quote = &quoted[..quoted.len().min(64)];
    if quoted[0] >> 4 == 4 {
        let mut message = vec![3, 4, 0, 0, 0, 0];
        message.extend(mtu.to_be_bytes());
        message.extend(quote);
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum);
        let len = (20 + message.len() as u16).to_be_bytes();
        let mut header = vec![0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, 1, 0, 0];
        header.extend(&quoted[16..20]);
        header.extend(&quoted[12..16]);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum);
        answer.extend(header);
        answer.extend(message);
    } else {
        let mut message = vec![2, 0, 0, 0, 0, 0];
        message.extend(mtu.to_be_bytes());
        message.extend(quote);
        let len = (message.len() as u16).to_be_bytes();
        let (source, destination) = (&quoted[24..40], &quoted[8..24]);
        let pseudo = [source, destination, &[0, 0], &len, &[0, 0, 0, 58], &message].concat();
        let sum = checksum(&pseudo);
        message[2..4].copy_from_slice(&sum);
        answer.extend([0x60, 0, 0, 0, len[0], len[1], 58, 64]);
        answer.extend(source);
        answer.extend(destination);
        answer.extend(message);
    }
    answer
}

/// RFC 1071, for an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    (!((sum + (sum >> 16)) as u16)).to_be_bytes()
}
