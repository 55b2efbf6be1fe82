//! A mirror of what the kernel knows about links, addresses, routes and neighbours.

use super::NetlinkError;
use super::parse::{self, NeighbourView};
use crate::path::{PathTable, Routes, View};
use futures::TryStreamExt;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{Handle, RouteMessageBuilder};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// What must be read anew. Neighbours change often and one by one, so that their messages are
/// followed; the rest is dumped again, which cannot go wrong in the details.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Dirty {
    /// Links, addresses or routes.
    routes: bool,
    /// The mirror's neighbours have changed.
    neighbours: bool,
    /// Messages about neighbours were lost.
    lost: bool,
}

impl Dirty {
    /// Whether there is anything to do.
    pub(super) fn any(self) -> bool {
        self.routes || self.neighbours || self.lost
    }
}

/// The mirror, for the interface numbered `interface`.
pub(super) struct Mirror {
    interface: u32,
    view: View,
    routes: Arc<Routes>,
    epoch: u32,
    dirty: Dirty,
}

impl Mirror {
    /// Reads everything once. `interface` is a name.
    pub(super) async fn read(handle: &Handle, interface: &str) -> Result<Mirror, NetlinkError> {
        let mut view = View::default();
        dump_routes(handle, &mut view).await?;
        dump_neighbours(handle, &mut view).await?;
        let link = view.links.iter().find(|link| link.name == interface);
        let index = link.ok_or_else(|| NetlinkError::NoInterface(interface.to_owned()))?.index;
        let routes = Arc::new(Routes::build(index, &view));
        Ok(Mirror { interface: index, view, routes, epoch: 1, dirty: Dirty::default() })
    }

    /// What the kernel said last.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// The kernel's number of our interface.
    pub(super) fn interface(&self) -> u32 {
        self.interface
    }

    pub(super) fn dirty(&self) -> Dirty {
        self.dirty
    }

    /// Everything has to be read anew: messages were lost.
    pub(super) fn distrust(&mut self) {
        self.dirty = Dirty { routes: true, neighbours: true, lost: true };
    }

    /// Takes note of a message; returns a neighbour that it was about.
    pub(super) fn note(
        &mut self,
        message: NetlinkMessage<RouteNetlinkMessage>,
    ) -> Option<NeighbourView> {
        let NetlinkPayload::InnerMessage(message) = message.payload else { return None };
        match message {
            RouteNetlinkMessage::NewNeighbour(message) => {
                let neighbour = parse::neighbour(&message)?;
                self.dirty.neighbours |= set_neighbour(&mut self.view, neighbour);
                Some(neighbour)
            }
            RouteNetlinkMessage::DelNeighbour(message) => {
                let gone = NeighbourView { mac: None, ..parse::neighbour(&message)? };
                self.dirty.neighbours |= set_neighbour(&mut self.view, gone);
                Some(gone)
            }
            // Links, addresses and routes; anything else is not subscribed to.
            _ => {
                self.dirty.routes = true;
                None
            }
        }
    }

    /// Reads what is dirty. On failure it stays dirty.
    pub(super) async fn refresh(&mut self, handle: &Handle) -> Result<(), NetlinkError> {
        if self.dirty.routes {
            let mut view = View::default();
            dump_routes(handle, &mut view).await?;
            self.routes = Arc::new(Routes::build(self.interface, &view));
            view.neighbours = std::mem::take(&mut self.view.neighbours);
            self.view = view;
        }
        if self.dirty.lost {
            let mut view = View::default();
            dump_neighbours(handle, &mut view).await?;
            self.view.neighbours = view.neighbours;
        }
        self.dirty = Dirty::default();
        Ok(())
    }

    /// The table of what is known now, with an epoch of its own.
    pub(super) fn table(&mut self) -> PathTable {
        self.epoch = self.epoch.wrapping_add(1);
        PathTable::new(self.epoch, Arc::clone(&self.routes), &self.view)
    }
}

/// Whether that changed anything.
fn set_neighbour(view: &mut View, neighbour: NeighbourView) -> bool {
    let key = (neighbour.device, neighbour.address);
    match neighbour.mac {
        Some(mac) => view.neighbours.insert(key, mac) != Some(mac),
        None => view.neighbours.remove(&key).is_some(),
    }
}

async fn dump_routes(handle: &Handle, view: &mut View) -> Result<(), NetlinkError> {
    let mut links = handle.link().get().execute();
    while let Some(message) = links.try_next().await? {
        view.links.push(parse::link(&message));
    }
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await? {
        view.addresses.extend(parse::address(&message));
    }
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    for all in [v4, v6] {
        let mut routes = handle.route().get(all).execute();
        while let Some(message) = routes.try_next().await? {
            view.routes.extend(parse::route(&message));
        }
    }
    Ok(())
}

async fn dump_neighbours(handle: &Handle, view: &mut View) -> Result<(), NetlinkError> {
    let mut neighbours = handle.neighbours().get().execute();
    while let Some(message) = neighbours.try_next().await? {
        if let Some(neighbour) = parse::neighbour(&message) {
            set_neighbour(view, neighbour);
        }
    }
    Ok(())
}
