//! Which kernel sockets use a TCP port: `sock_diag(7)` over netlink.

use rustix::fd::OwnedFd;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::byteorder::network_endian;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const FIN_WAIT2: u8 = 5;
const TIME_WAIT: u8 = 6;
/// Bound and nothing else.
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

/// Bits of all states, among them the one that stands for [`CLOSE`] since Linux 6.8 (13); before,
/// bound sockets are not told.
const ALL_STATES: u32 = 0x3ffe;

/// `struct nlmsghdr`.
#[derive(IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct inet_diag_sockid`: ports and addresses in network order.
#[derive(IntoBytes, FromBytes, Immutable, KnownLayout, Clone, Copy, Default)]
#[repr(C)]
struct SocketId {
    local_port: network_endian::U16,
    remote_port: network_endian::U16,
    local: [u8; 16],
    remote: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// A header and a `struct inet_diag_req_v2`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Request {
    header: Header,
    family: u8,
    protocol: u8,
    extensions: u8,
    padding: u8,
    states: u32,
    id: SocketId,
}

/// `struct inet_diag_msg`.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Message {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: SocketId,
    expires: u32,
    receive_queue: u32,
    send_queue: u32,
    uid: u32,
    inode: u32,
}

/// What a socket does with its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It waits for connections.
    Listener,
    /// It is bound, neither listening nor connected.
    Bound,
    /// A connection that a program has, or whose last bytes the kernel still delivers.
    Connection,
    /// The memory of a connection that is over.
    Remembered,
}

/// A kernel socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) usage: Use,
    pub(super) local: IpAddr,
    pub(super) port: u16,
    pub(super) uid: u32,
    /// 0 when no program has it.
    pub(super) inode: u32,
}

/// Every TCP socket of this network namespace whose local port is `port`; with 0, every one. The
/// kernel looks through all of its sockets for that: milliseconds on a large machine.
pub(super) fn sockets_on(port: u16) -> io::Result<Vec<Socket>> {
    let flags = SocketFlags::CLOEXEC;
    let kind = SocketType::RAW;
    let netlink = rustix::net::socket_with(AddressFamily::NETLINK, kind, flags, Some(SOCK_DIAG))?;
    let mut sockets = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        dump(&netlink, family, port, &mut sockets)?;
    }
    Ok(sockets)
}

fn dump(
    netlink: &OwnedFd,
    family: AddressFamily,
    port: u16,
    sockets: &mut Vec<Socket>,
) -> io::Result<()> {
    let request = Request {
        header: Header {
            length: size_of::<Request>() as u32,
            kind: SOCK_DIAG_BY_FAMILY,
            flags: NLM_F_REQUEST | NLM_F_DUMP,
            sequence: 1,
            port: 0,
        },
        family: family.as_raw() as u8,
        protocol: rustix::net::ipproto::TCP.as_raw().get() as u8,
        extensions: 0,
        padding: 0,
        states: ALL_STATES,
        id: SocketId { local_port: port.into(), ..SocketId::default() },
    };
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(netlink, request.as_bytes(), SendFlags::empty(), &kernel)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (_, length) = rustix::net::recv(netlink, &mut buffer[..], RecvFlags::empty())?;
        if read_packet(&buffer[..length], sockets)? {
            return Ok(());
        }
    }
}

/// Takes the sockets out of one packet; whether it was the last one.
fn read_packet(mut packet: &[u8], sockets: &mut Vec<Socket>) -> io::Result<bool> {
    while !packet.is_empty() {
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let (header, _) = Header::read_from_prefix(packet).map_err(|_| broken())?;
        let length = header.length as usize;
        let body = packet.get(size_of::<Header>()..length).ok_or_else(broken)?;
        match header.kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let (error, _) = i32::read_from_prefix(body).map_err(|_| broken())?;
                return Err(io::Error::from_raw_os_error(-error));
            }
            _ => {
                let (message, _) = Message::read_from_prefix(body).map_err(|_| broken())?;
                sockets.push(socket(&message));
            }
        }
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn socket(message: &Message) -> Socket {
    let [a, b, c, d, ..] = message.id.local;
    let local = match message.family == AddressFamily::INET.as_raw() as u8 {
        true => Ipv4Addr::new(a, b, c, d).into(),
        false => Ipv6Addr::from(message.id.local).to_canonical(),
    };
    let usage = match message.state {
        LISTEN => Use::Listener,
        CLOSE => Use::Bound,
        TIME_WAIT => Use::Remembered,
        // The kernel waits for the peer's FIN, for no program.
        FIN_WAIT2 if message.inode == 0 => Use::Remembered,
        _ => Use::Connection,
    };
    Socket {
        usage,
        local,
        port: message.id.local_port.get(),
        uid: message.uid,
        inode: message.inode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn sizes_are_the_kernels() {
        assert_eq!(size_of::<Header>(), 16);
        assert_eq!(size_of::<Request>(), 16 + 56);
        assert_eq!(size_of::<Message>(), 72);
    }

    #[test]
    fn listeners_and_connections_are_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let of = |usage| {
            let found = sockets_on(address.port()).unwrap();
            found.into_iter().filter(|socket| socket.usage == usage).collect::<Vec<_>>()
        };
        let [found] = of(Use::Listener)[..] else { panic!("one listener") };
        assert_eq!((found.local, found.port), (address.ip(), address.port()));
        let all = sockets_on(0).unwrap();
        assert!(all.iter().any(|socket| socket.inode == found.inode));
        assert_ne!(found.inode, 0);
        assert_eq!(of(Use::Connection), []);
        let client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        drop(listener);
        assert_eq!(of(Use::Listener), []);
        assert_eq!(of(Use::Connection).len(), 1);
        drop(client);
        drop(server);
    }

    #[test]
    fn packets_that_lie_are_errors() {
        for packet in
            [&[1, 2, 3][..], &[200, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0; 16]]
        {
            assert!(read_packet(packet, &mut Vec::new()).is_err(), "{packet:?}");
        }
    }
}
