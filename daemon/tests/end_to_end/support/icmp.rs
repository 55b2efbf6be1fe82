//! Echo requests, so that no `ping` program is needed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto};

/// Sends one echo request from the calling thread's namespace and waits for its reply.
///
/// # Errors
/// `EAGAIN` when none comes in time.
pub fn ping(to: IpAddr, number: u16, timeout: Duration) -> io::Result<()> {
    let (family, protocol, request, reply) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129),
    };
    let socket = rustix::net::socket(family, SocketType::RAW, Some(protocol))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(timeout))?;
    let id = (std::process::id() as u16).to_be_bytes();
    let [high, low] = number.to_be_bytes();
    let mut packet = [request, 0, 0, 0, id[0], id[1], high, low];
    if to.is_ipv4() {
        // The kernel fills ICMPv6's checksum in, but not this one.
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum);
    }
    rustix::net::sendto(&socket, &packet, SendFlags::empty(), &SocketAddr::new(to, 0))?;
    let deadline = Instant::now() + timeout;
    // Others' packets come to a raw socket as well.
    while Instant::now() < deadline {
        let mut buffer = [0; 256];
        let (count, _) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        // IPv4 gives the header too, without options here.
        let message = &buffer[if to.is_ipv4() { 20 } else { 0 }..count];
        if message.first() == Some(&reply) && message.get(4..8) == Some(&packet[4..8]) {
            return Ok(());
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// RFC 1071, for an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    (!(((sum & 0xffff) + (sum >> 16)) as u16)).to_be_bytes()
}
