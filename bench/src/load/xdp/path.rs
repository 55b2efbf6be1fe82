//! The way to the server: through which interface, from and to which link addresses.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use fourwave_wire::{Link, Mac};
use futures::TryStreamExt;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

/// A neighbour that does not answer within this is not there.
const PATIENCE: Duration = Duration::from_secs(3);

/// A way.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    pub(crate) interface: String,
    pub(crate) link: Link,
}

impl Path {
    /// The way to `target` from the calling thread's network namespace, its next hop resolved.
    pub(crate) fn find(target: SocketAddr) -> io::Result<Path> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (connection, handle, _messages) = rtnetlink::new_connection()?;
            let driver = tokio::spawn(connection);
            let path = find(&handle, target).await;
            driver.abort();
            path
        })
    }
}

async fn find(handle: &Handle, target: SocketAddr) -> io::Result<Path> {
    let (index, next_hop) = route(handle, target.ip()).await?;
    let link = handle.link().get().match_index(index).execute().try_next().await;
    let link = link.map_err(io::Error::other)?.ok_or_else(|| missing("the interface"))?;
    let mut interface = None;
    let mut source = None;
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface = Some(name),
            LinkAttribute::Address(address) => source = mac(&address),
            _ => {}
        }
    }
    let interface = interface.ok_or_else(|| missing("the interface's name"))?;
    let source = source.ok_or_else(|| missing("the interface's link address"))?;
    let destination = resolve(handle, index, next_hop, target).await?;
    let link = Link { dst: destination, src: source, ..Link::default() };
    Ok(Path { interface, link })
}

/// The interface's index, and the gateway or the target itself.
async fn route(handle: &Handle, target: IpAddr) -> io::Result<(u32, IpAddr)> {
    let mut request = match target {
        IpAddr::V4(target) => {
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().destination_prefix(target, 32).build()
        }
        IpAddr::V6(target) => {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().destination_prefix(target, 128).build()
        }
    };
    // A question has no protocol, scope or type.
    request.header = rtnetlink::packet_route::route::RouteHeader {
        address_family: request.header.address_family,
        destination_prefix_length: request.header.destination_prefix_length,
        ..Default::default()
    };
    let answer = handle.route().get(request).execute().try_next().await;
    let route = answer.map_err(io::Error::other)?.ok_or_else(|| missing("a route"))?;
    let mut index = None;
    let mut gateway = None;
    for attribute in route.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(oif),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                gateway = Some(IpAddr::V4(address));
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => {
                gateway = Some(IpAddr::V6(address));
            }
            _ => {}
        }
    }
    Ok((index.ok_or_else(|| missing("an interface"))?, gateway.unwrap_or(target)))
}

/// The link address of the next hop. A datagram to the target's discard port makes the kernel ask.
async fn resolve(
    handle: &Handle,
    index: u32,
    next_hop: IpAddr,
    target: SocketAddr,
) -> io::Result<Mac> {
    let unspecified: IpAddr = if target.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((unspecified, 0))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(mac) = neighbour(handle, index, next_hop).await? {
            return Ok(mac);
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::HostUnreachable,
                format!("the next hop {next_hop} does not say its link address"),
            ));
        }
        // It is the question that counts; an answer to the datagram is an ICMP error at most.
        let _ = socket.send_to(&[0], (target.ip(), 9));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn neighbour(handle: &Handle, index: u32, wanted: IpAddr) -> io::Result<Option<Mac>> {
    let version = if wanted.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 };
    let mut all = handle.neighbours().get().set_family(version).execute();
    while let Some(entry) = all.try_next().await.map_err(io::Error::other)? {
        let mut address = None;
        let mut link = None;
        for attribute in &entry.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                    address = Some(IpAddr::V4(*v4));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                    address = Some(IpAddr::V6(*v6));
                }
                NeighbourAttribute::LinkLocalAddress(bytes) => link = mac(bytes),
                _ => {}
            }
        }
        if entry.header.ifindex == index && address == Some(wanted) && link.is_some() {
            return Ok(link);
        }
    }
    Ok(None)
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

fn missing(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("the kernel does not tell {what}"))
}
