//! The flood itself: SYNs through a packet socket, each from another made-up peer.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fourwave_wire::{Endpoint, Flags, FourTuple, FrameHead, Link, Options, Timestamps, build};

use crate::load::xdp::path::Path;
use crate::packet::{BATCH, Frame, PacketSocket};

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct FloodConfig {
    /// The server.
    pub target: SocketAddr,
    /// SYNs in all.
    pub syns: u64,
    /// SYNs a second.
    pub rate: f64,
}

/// What was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// SYNs.
    pub syns: u64,
    /// In so long.
    pub elapsed: Duration,
}

/// Sends the flood from the calling thread and its network namespace, until it is over or
/// `cancelled` becomes true. The peers are of the networks set aside for benchmarks
/// (198.18.0.0/15, RFC 2544; 2001:2::/48, RFC 5180), so that nobody is there to answer.
///
/// # Errors
/// When the way to the server cannot be told, or the kernel takes no frames.
pub fn send(config: &FloodConfig, cancelled: &AtomicBool) -> io::Result<Sent> {
    let Path { interface, link } = Path::find(config.target)?;
    let socket = PacketSocket::open(&interface)?;
    let mut frames: Vec<Frame> = (0..BATCH).map(|_| Frame::new()).collect();
    let begin = Instant::now();
    let mut sent = 0;
    while sent < config.syns && !cancelled.load(Ordering::Relaxed) {
        let due = (begin.elapsed().as_secs_f64() * config.rate) as u64;
        let count = due.min(config.syns).saturating_sub(sent).min(BATCH as u64) as usize;
        if count == 0 {
            thread::sleep(Duration::from_micros(100));
            continue;
        }
        for (frame, number) in frames[..count].iter_mut().zip(sent..) {
            make_up(frame, config.target, link, number);
        }
        match socket.send(frames[..count].iter().map(Frame::bytes))? {
            0 => thread::yield_now(),
            taken => sent += taken as u64,
        }
    }
    Ok(Sent { syns: sent, elapsed: begin.elapsed() })
}

/// The SYN of peer `number`, as a Linux client would send it.
fn make_up(frame: &mut Frame, target: SocketAddr, link: Link, number: u64) {
    // An odd factor makes another number of each; the bits spread over address and port.
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let host = (mixed >> 16) as u32;
    let source = match target {
        SocketAddr::V4(_) => {
            SocketAddr::from((Ipv4Addr::from_bits(0xc612_0000 | host & 0x1_ffff), mixed as u16))
        }
        SocketAddr::V6(_) => {
            let network = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0).to_bits();
            SocketAddr::from((Ipv6Addr::from_bits(network | u128::from(host)), mixed as u16))
        }
    };
    let head = FrameHead {
        link,
        tuple: FourTuple { local: Endpoint::from(source), remote: Endpoint::from(target) },
        ttl: 64,
        seq: (mixed >> 32) as u32,
        flags: Flags::SYN,
        window: 64_240,
        options: Options {
            mss: Some(if target.is_ipv4() { 1460 } else { 1440 }),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(Timestamps { value: number as u32, echo: 0 }),
            ..Options::default()
        },
        ..FrameHead::default()
    };
    let mut room = [0; 128];
    let length = build(&mut room, &head, 0, |_| {}).expect("a SYN fits");
    frame.fill(&room[..length]);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fourwave_wire::{ChecksumPolicy, Inbound, parse};

    use super::*;

    #[test]
    fn every_peer_is_another_and_none_is_real() {
        for target in ["10.99.0.2:80", "[fd99::2]:80"] {
            let target = target.parse().unwrap();
            let mut frame = Frame::new();
            let mut peers = BTreeSet::new();
            for number in 0..10_000 {
                make_up(&mut frame, target, Link::default(), number);
                let parsed = parse(frame.bytes(), ChecksumPolicy::Verify);
                let Ok(Inbound::Tcp(tcp)) = parsed else { panic!("no TCP frame") };
                assert_eq!(
                    (tcp.segment.flags, tcp.segment.options.mss.is_some()),
                    (Flags::SYN, true)
                );
                assert_eq!(SocketAddr::from(tcp.tuple.local), target);
                let peer = SocketAddr::from(tcp.tuple.remote);
                match peer {
                    SocketAddr::V4(v4) => assert!((18..=19).contains(&v4.ip().octets()[1])),
                    SocketAddr::V6(v6) => assert_eq!(v6.ip().segments()[..3], [0x2001, 2, 0]),
                }
                peers.insert(peer);
            }
            assert!(peers.len() > 9_990, "{}", peers.len());
        }
    }
}
