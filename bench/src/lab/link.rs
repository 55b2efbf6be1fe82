//! The veth pair between the two namespaces, or one from each to the middle, made and configured through netlink.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use rtnetlink::packet_route::link::{
    InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkMessage, LinkXdp, XdpAttached,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::Middle;
use super::config::{Cidr, LabConfig, MiddleConfig};
use super::error::LabError;
use super::netns::Netns;

/// Links and addresses are usable within milliseconds; longer means that something is wrong.
const USABLE_WITHIN: Duration = Duration::from_secs(5);

/// Makes the pair, one end in each namespace, or with a `middle` one pair from each namespace to
/// that; with addresses, up and usable.
pub(super) fn connect(
    config: &LabConfig,
    srv: &Netns,
    cli: &Netns,
    middle: Option<&Middle>,
) -> Result<(), LabError> {
    let [server, client] = [&config.server, &config.client].map(|node| node.interface.as_str());
    match middle {
        None => create_pair(config, (srv, server), (cli, client))?,
        Some(Middle { netns, config: MiddleConfig { interfaces, .. } }) => {
            for (near, far) in [(srv, server), (cli, client)].into_iter().zip(interfaces) {
                create_pair(config, near, (netns, far))?;
                let raise = || -> Result<(), LabError> {
                    on_netlink(async |handle| configure(&handle, far, &[]).await)
                };
                netns.run(raise).map_err(LabError::Namespace)??;
            }
        }
    }
    for (netns, node) in [(srv, &config.server), (cli, &config.client)] {
        let raise = || -> Result<(), LabError> {
            on_netlink(async |handle| configure(&handle, &node.interface, &[]).await)
        };
        netns.run(raise).map_err(LabError::Namespace)??;
    }
    for (netns, node) in [(srv, &config.server), (cli, &config.client)] {
        let finish = || -> Result<(), LabError> {
            on_netlink(async |handle| {
                configure(&handle, &node.interface, &node.addresses).await?;
                wait_for_carrier(&handle, &node.interface).await
            })?;
            wait_for_addresses(&node.addresses)
        };
        netns.run(finish).map_err(LabError::Namespace)??;
    }
    Ok(())
}

/// Deletes `interface` (and with it its peer) in `netns`; one that is not there is no error.
pub(super) fn delete(netns: &Netns, interface: &str) -> Result<(), LabError> {
    let work = || {
        on_netlink(async |handle| match find(&handle, interface).await? {
            Some(link) => Ok(handle.link().del(link.header.index).execute().await?),
            None => Ok(()),
        })
    };
    netns.run(work).map_err(LabError::Namespace)?
}

/// Where the XDP program of `interface` runs, in the calling thread's namespace: `native`,
/// `generic`, …; `None` without one.
pub(super) fn xdp_mode(interface: &str) -> Result<Option<&'static str>, LabError> {
    on_netlink(async |handle| {
        let attributes = find(&handle, interface).await?.map_or(Vec::new(), |link| link.attributes);
        let mode = attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::Xdp(xdp) => xdp.into_iter().find_map(|xdp| match xdp {
                LinkXdp::Attached(XdpAttached::None) => None,
                LinkXdp::Attached(XdpAttached::Driver) => Some("native"),
                LinkXdp::Attached(XdpAttached::SocketBuffer) => Some("generic"),
                LinkXdp::Attached(XdpAttached::Hardware) => Some("hardware"),
                LinkXdp::Attached(_) => Some("several"),
                _ => None,
            }),
            _ => None,
        });
        Ok(mode)
    })
}

/// Runs `work` with a netlink socket of the calling thread's namespace.
fn on_netlink<T>(work: impl AsyncFnOnce(Handle) -> Result<T, LabError>) -> Result<T, LabError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LabError::Runtime)?;
    runtime.block_on(async {
        let (connection, handle, _messages) =
            rtnetlink::new_connection().map_err(LabError::Runtime)?;
        let driver = tokio::spawn(connection);
        let result = work(handle).await;
        driver.abort();
        result
    })
}

/// A veth pair between two namespaces, by the names of its ends.
fn create_pair(
    config: &LabConfig,
    (near, near_end): (&Netns, &str),
    (far, far_end): (&Netns, &str),
) -> Result<(), LabError> {
    let queues = |message: &mut LinkMessage| {
        message.attributes.push(LinkAttribute::NumTxQueues(config.queues));
        message.attributes.push(LinkAttribute::NumRxQueues(config.queues));
    };
    let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(far_end.to_owned())
        .mtu(config.mtu)
        .setns_by_fd(far.as_fd().as_raw_fd())
        .build();
    queues(&mut peer);
    let mut pair = LinkMessageBuilder::<LinkVeth>::new(near_end, far_end)
        .mtu(config.mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    queues(&mut pair);
    let create = || -> Result<(), LabError> {
        on_netlink(async |handle| Ok(handle.link().add(pair).execute().await?))
    };
    near.run(create).map_err(LabError::Namespace)?
}

/// Brings `lo` and `interface` up and adds `addresses` to the latter.
async fn configure(handle: &Handle, interface: &str, addresses: &[Cidr]) -> Result<(), LabError> {
    let index = index_of(handle, interface).await?;
    for address in addresses {
        let mut request = handle.address().add(index, address.address, address.prefix);
        let message = request.message_mut();
        // No duplicate address detection: the address is usable at once.
        message.header.flags |= AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        request.execute().await?;
    }
    for up in [index_of(handle, "lo").await?, index] {
        handle.link().set(LinkUnspec::new_with_index(up).up().build()).execute().await?;
    }
    Ok(())
}

async fn wait_for_carrier(handle: &Handle, interface: &str) -> Result<(), LabError> {
    let deadline = Instant::now() + USABLE_WITHIN;
    loop {
        let link = find(handle, interface).await?;
        if link.is_some_and(|link| link.header.flags.contains(LinkFlags::LowerUp)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(LabError::NoCarrier { interface: interface.to_owned() });
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// An address is usable when a socket can be bound to it.
fn wait_for_addresses(addresses: &[Cidr]) -> Result<(), LabError> {
    let deadline = Instant::now() + USABLE_WITHIN;
    for &Cidr { address, .. } in addresses {
        while let Err(source) = UdpSocket::bind((address, 0)) {
            if source.kind() != io::ErrorKind::AddrNotAvailable || Instant::now() > deadline {
                return Err(LabError::Address { address, source });
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(())
}

async fn index_of(handle: &Handle, interface: &str) -> Result<u32, LabError> {
    match find(handle, interface).await? {
        Some(link) => Ok(link.header.index),
        None => Err(LabError::NoInterface { interface: interface.to_owned() }),
    }
}

async fn find(handle: &Handle, interface: &str) -> Result<Option<LinkMessage>, LabError> {
    let mut links = handle.link().get().match_name(interface.to_owned()).execute();
    match links.try_next().await {
        Ok(link) => Ok(link),
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The first address of `addresses` in the family of `like`.
pub(super) fn first_of_family(addresses: &[Cidr], v6: bool) -> Option<IpAddr> {
    addresses.iter().map(|cidr| cidr.address).find(|address| address.is_ipv6() == v6)
}
