//! Routes, addresses, neighbours and links, read from the kernel over rtnetlink and followed.
//!
//! A [`Watcher`] keeps a mirror and publishes an immutable [`PathTable`] after every change,
//! several changes in one where they come close together. It never writes to the kernel's
//! tables, except that it asks for a neighbour to be resolved (`NTF_USE`), as sending a packet
//! would.

mod mirror;
mod parse;
mod resolve;

use crate::path::view::LinkView;
use crate::path::{PathTable, View};
use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use mirror::Mirror;
use resolve::Limiter;
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::sys::{AsyncSocket, SocketAddr};
use rtnetlink::{Handle, MulticastGroup};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Changes that come within this time are published together.
const COALESCE: Duration = Duration::from_millis(2);
/// The least time between two tables.
const INTERVAL: Duration = Duration::from_millis(10);
/// Reading everything anew takes at most this part of the time, however large the tables are.
const DUTY: u32 = 10;
/// How long to wait before trying again after an error.
const RETRY: Duration = Duration::from_millis(500);
/// Requests to resolve that can wait; more are lost, and asked for again.
const REQUESTS: usize = 256;
/// Receive buffer for notifications, bytes. When it overflows, everything is read anew.
const RECEIVE_BUFFER: usize = 4 << 20;

const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
];

/// Why the kernel's tables cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// There is no interface of that name in this network namespace.
    #[error("there is no interface {0:?} in this network namespace (`ip link` lists them)")]
    NoInterface(String),
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    /// A request failed.
    #[error("netlink: {0}")]
    Request(#[from] rtnetlink::Error),
}

type Notifications = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// Follows the kernel's tables for one interface.
pub struct Watcher {
    handle: Handle,
    notifications: Notifications,
    mirror: Mirror,
    limiter: Limiter,
    tables: watch::Sender<Arc<PathTable>>,
    requests: mpsc::Receiver<IpAddr>,
}

/// The other end of a [`Watcher`].
#[derive(Debug, Clone)]
pub struct Paths {
    /// The newest table.
    pub tables: watch::Receiver<Arc<PathTable>>,
    requests: mpsc::Sender<IpAddr>,
}

impl Paths {
    /// Asks the kernel for the MAC of `address`. Can be called at any rate: the watcher sees to
    /// it that the kernel is asked seldom enough.
    pub fn resolve(&self, address: IpAddr) {
        // Full: the worker will ask again.
        let _ = self.requests.try_send(address);
    }

    /// For tests: paths that nobody follows, with the other ends.
    #[cfg(test)]
    pub(crate) fn detached() -> (Paths, watch::Sender<Arc<PathTable>>, mpsc::Receiver<IpAddr>) {
        let (sender, tables) = watch::channel(Arc::new(PathTable::empty()));
        let (requests, receiver) = mpsc::channel(REQUESTS);
        (Paths { tables, requests }, sender, receiver)
    }
}

impl Watcher {
    /// Reads everything once. Must be called in a tokio runtime; [`Watcher::run`] then follows.
    ///
    /// # Errors
    /// Any of [`NetlinkError`].
    pub async fn start(interface: &str) -> Result<(Watcher, Paths), NetlinkError> {
        // Notifications are asked for before the tables are read, so that none is missed.
        let notifications = subscribe()?;
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let mut mirror = Mirror::read(&handle, interface).await?;
        let (tables, receiver) = watch::channel(Arc::new(mirror.table()));
        let (sender, requests) = mpsc::channel(REQUESTS);
        let limiter = Limiter::default();
        let watcher = Watcher { handle, notifications, mirror, limiter, tables, requests };
        Ok((watcher, Paths { tables: receiver, requests: sender }))
    }

    /// The interface.
    pub fn link(&self) -> Option<&LinkView> {
        let interface = self.mirror.interface();
        self.view().links.iter().find(|link| link.index == interface)
    }

    /// What the kernel said last.
    pub fn view(&self) -> &View {
        self.mirror.view()
    }

    /// Follows the kernel until every [`Paths`] is gone.
    pub async fn run(mut self) {
        let mut not_before = Instant::now();
        loop {
            if !self.gather(not_before).await {
                return;
            }
            let begin = Instant::now();
            let pause = match self.mirror.refresh(&self.handle).await {
                Ok(()) => {
                    self.tables.send_replace(Arc::new(self.mirror.table()));
                    INTERVAL.max(begin.elapsed() * DUTY)
                }
                Err(error) => {
                    tracing::error!(%error, "cannot read the kernel's routes and addresses");
                    RETRY
                }
            };
            not_before = Instant::now() + pause;
        }
    }

    /// Takes messages and requests until something has changed and it is time to say so; `false`
    /// when nobody is interested any more.
    async fn gather(&mut self, not_before: Instant) -> bool {
        let mut due = None;
        loop {
            if due.is_none() && self.mirror.dirty().any() {
                due = Some(not_before.max(Instant::now() + COALESCE));
            }
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = wait => return true,
                request = self.requests.recv() => match request {
                    Some(address) => self.resolve(address),
                    None => return false,
                },
                message = self.notifications.next() => match message {
                    Some((message, _)) => self.note(message),
                    None => self.resubscribe().await,
                },
            }
        }
    }

    fn note(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) {
        let Some(neighbour) = self.mirror.note(message) else { return };
        // The kernel checks a neighbour again only when it sends there itself. Gateways are
        // always in use by us, so their MACs are kept true.
        if neighbour.stale {
            let table = Arc::clone(&self.tables.borrow());
            let gateway = (neighbour.device, neighbour.address.into());
            if table.gateways().any(|other| other == gateway) {
                self.resolve(neighbour.address);
            }
        }
    }

    fn resolve(&mut self, address: IpAddr) {
        let device = self.tables.borrow().device_of(address.into());
        let Some(device) = device else { return };
        if !self.limiter.admit(address, Instant::now().into_std()) {
            return;
        }
        // As sending a packet would: the entry is made if need be, and solicitations begin.
        let request = self
            .handle
            .neighbours()
            .add(device, address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        tokio::spawn(async move {
            if let Err(error) = request.execute().await {
                tracing::debug!(%address, %error, "the kernel will not resolve a neighbour");
            }
        });
    }

    /// The notifications have ended: the socket's buffer overflowed, most likely.
    async fn resubscribe(&mut self) {
        tracing::warn!("netlink notifications were lost; reading everything anew");
        loop {
            match subscribe() {
                Ok(notifications) => {
                    self.notifications = notifications;
                    self.mirror.distrust();
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "cannot follow the kernel's routes and addresses");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

fn subscribe() -> Result<Notifications, NetlinkError> {
    let (mut connection, _, notifications) = rtnetlink::new_multicast_connection(&GROUPS)?;
    let socket = connection.socket_mut().socket_mut();
    // The larger size needs CAP_NET_ADMIN, which the daemon has; without it the default stays.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&*socket, RECEIVE_BUFFER);
    tokio::spawn(connection);
    Ok(notifications)
}

#[cfg(test)]
mod tests;
