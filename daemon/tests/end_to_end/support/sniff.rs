//! IP packets as they pass a node.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::time::Instant;

use fourwave_bench::lab::Node;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketType};

use super::PATIENCE;

/// All packets from now on.
pub struct Sniffer(OwnedFd);

impl Sniffer {
    pub fn on(node: &Node) -> Sniffer {
        const ETH_P_ALL: u16 = 3;
        let protocol = NonZeroU32::new(u32::from(ETH_P_ALL.to_be())).map(Protocol::from_raw);
        let open = || rustix::net::socket(AddressFamily::PACKET, SocketType::DGRAM, protocol);
        let socket = node.run(open).expect("the namespace can be entered").expect("root may");
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).expect("not zero");
        Sniffer(socket)
    }

    /// TOS or traffic class of the next `count` TCP packets from this address.
    pub fn classes(&self, from: IpAddr, count: usize) -> Vec<u8> {
        self.headers(from, count).into_iter().map(|header| header.class).collect()
    }

    /// Headers of the next `count` TCP packets from this address.
    pub fn headers(&self, from: IpAddr, count: usize) -> Vec<Header> {
        let deadline = Instant::now() + PATIENCE;
        let mut headers = Vec::new();
        let mut buffer = [0; 2048];
        while headers.len() < count {
            assert!(Instant::now() < deadline, "only {} packets from {from}", headers.len());
            let (_, len) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty())
                .expect("packets come");
            headers.extend(header(&buffer[..len.min(buffer.len())], from));
        }
        headers
    }
}

/// What of a packet's header is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// TOS or traffic class.
    pub class: u8,
    /// TTL or hop limit.
    pub ttl: u8,
}

fn header(packet: &[u8], from: IpAddr) -> Option<Header> {
    const TCP: u8 = 6;
    match (packet.first()? >> 4, from) {
        (4, IpAddr::V4(from)) if packet.get(9) == Some(&TCP) => {
            let header = Header { class: packet[1], ttl: packet[8] };
            (packet.get(12..16)? == from.octets()).then_some(header)
        }
        (6, IpAddr::V6(from)) if packet.get(6) == Some(&TCP) => {
            let header = Header { class: packet[0] << 4 | packet[1] >> 4, ttl: packet[7] };
            (packet.get(8..24)? == from.octets()).then_some(header)
        }
        _ => None,
    }
}
