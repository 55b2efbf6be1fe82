//! The ports that are fourwave's: taken from the kernel, entered into the XDP program's map, and
//! given back when nothing uses them any more.
//!
//! A port goes through these steps, in this order, so that no frame of a served port ever meets
//! a kernel that would answer it:
//!
//! 1. [`ServedPorts::claim`]: a [`Holder`] keeps the kernel away from it, then the map steers it.
//! 2. [`ServedPorts::leave`]: its listener is being closed; another may claim the port already.
//! 3. [`ServedPorts::gone`]: the workers have closed the listener. If it was the last one, they are
//!    asked to tell when no connection and no TIME_WAIT uses the port.
//! 4. [`ServedPorts::idle`]: a worker says so. After the last one, map entry and holder go.

mod diag;
mod holder;
mod owner;

pub use holder::{HoldError, Holder, Taker};
pub use owner::Owner;

use crate::config::PortRange;
use crate::messages::GroupId;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// With more addresses than this, a wildcard listener is entered as a wildcard. Up to it, every
/// address is entered, so that traffic that is only passing through stays the kernel's.
const MAX_EXPANDED: usize = 64;
/// The same for each of the many ports of outgoing connections.
const MAX_EXPANDED_RESERVED: usize = 8;

/// The XDP program's list of served ports.
pub trait Steer {
    /// Steers a port; an unspecified address means every address of its family.
    ///
    /// # Errors
    /// When the kernel refuses; the port is then not steered.
    fn serve(&mut self, address: IpAddr, port: u16) -> Result<(), SteerError>;

    /// Leaves a port to the kernel again.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn unserve(&mut self, address: IpAddr, port: u16) -> Result<(), SteerError>;
}

/// The list of served ports could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot change the list of served ports: {0}")]
pub struct SteerError(pub String);

/// Who claims a port: a listener of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimant {
    /// Whose.
    pub group: GroupId,
    /// Index in the segment.
    pub listener: u32,
}

/// How an address is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// `IPV6_V6ONLY`.
    pub v6_only: bool,
    /// `SO_REUSEADDR`: what is left of a former listener's connections is not in the way.
    pub reuse_address: bool,
    /// `SO_REUSEPORT`, of this user: others of the user may claim the same on these terms.
    pub shared_by: Option<u32>,
}

/// Why a port cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another listener of fourwave has it.
    #[error("{address} is taken by {by} of fourwave")]
    Claimed {
        /// What was asked for.
        address: SocketAddr,
        /// What is there already.
        by: SocketAddr,
    },
    /// Connections of a listener that is gone are still there.
    #[error(
        "{0} has connections of a former listener, perhaps in TIME_WAIT: set SO_REUSEADDR, or wait"
    )]
    Remembered(SocketAddr),
    /// The kernel does not give it.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// It cannot be steered.
    #[error(transparent)]
    Steer(#[from] SteerError),
    /// Traffic to loopback addresses never passes a network interface.
    #[error("{0} is a loopback address: it never passes the network interface")]
    Loopback(IpAddr),
}

impl ClaimError {
    /// What `bind(2)` would give.
    pub fn errno(&self) -> Errno {
        match self {
            ClaimError::Claimed { .. }
            | ClaimError::Remembered(_)
            | ClaimError::Hold(HoldError::Taken { .. }) => Errno::ADDRINUSE,
            ClaimError::Loopback(_) | ClaimError::Hold(HoldError::NotLocal(_)) => {
                Errno::ADDRNOTAVAIL
            }
            ClaimError::Hold(HoldError::Kernel { error, .. }) => *error,
            ClaimError::Hold(HoldError::Diag(_)) | ClaimError::Steer(_) => Errno::NOBUFS,
        }
    }
}

/// All ports of a daemon.
pub struct ServedPorts {
    steer: Box<dyn Steer>,
    /// The machine's addresses.
    addresses: Vec<IpAddr>,
    ports: BTreeMap<u16, Port>,
    workers: u32,
}

/// One port that is ours.
#[derive(Debug, Default)]
struct Port {
    holders: Vec<Holder>,
    claims: Vec<Claim>,
    /// Addresses with which it stands in the map.
    steered: BTreeSet<IpAddr>,
    /// Kept for outgoing connections, for the daemon's life.
    reserved: bool,
    /// Bits of the workers that do not use it any more, once they were asked.
    idle: Option<u64>,
}

#[derive(Debug)]
struct Claim {
    claimant: Claimant,
    address: IpAddr,
    terms: Terms,
    leaving: bool,
}

impl Claim {
    /// Whether both could get the same connection, and have not agreed to share.
    fn conflicts(&self, address: IpAddr, terms: &Terms) -> bool {
        let shared = self.terms.shared_by.is_some() && self.terms.shared_by == terms.shared_by;
        !self.leaving && !shared && self.overlaps(address, terms.v6_only)
    }

    /// Whether another one gets connections to this address too, and stays.
    fn shares_with(&self, other: &Claim) -> bool {
        let terms = |claim: &Claim| (claim.address, claim.terms.v6_only, claim.terms.shared_by);
        self.terms.shared_by.is_some()
            && other.claimant != self.claimant
            && !other.leaving
            && terms(self) == terms(other)
    }

    fn overlaps(&self, address: IpAddr, v6_only: bool) -> bool {
        let covers = |a: IpAddr, only: bool, b: IpAddr| match a.is_unspecified() {
            true => a.is_ipv4() == b.is_ipv4() || a.is_ipv6() && !only,
            false => a == b,
        };
        covers(self.address, self.terms.v6_only, address) || covers(address, v6_only, self.address)
    }
}

impl ServedPorts {
    /// No port yet. `addresses` are the machine's.
    pub fn new(steer: Box<dyn Steer>, workers: u32, addresses: Vec<IpAddr>) -> ServedPorts {
        assert!(workers <= u64::BITS, "one bit per worker");
        ServedPorts { steer, addresses, ports: BTreeMap::new(), workers }
    }

    /// Claims `address`; port 0 takes any free port. Returns it with the port.
    ///
    /// # Errors
    /// Any of [`ClaimError`]; nothing has changed then.
    pub fn claim(
        &mut self,
        claimant: Claimant,
        address: SocketAddr,
        terms: Terms,
    ) -> Result<SocketAddr, ClaimError> {
        let ip = address.ip();
        if ip.is_loopback() {
            return Err(ClaimError::Loopback(ip));
        }
        let known = self.ports.get(&address.port());
        let claims = known.map(|port| &port.claims);
        let other = claims.and_then(|claims| claims.iter().find(|c| c.conflicts(ip, &terms)));
        if let Some(other) = other {
            let by = SocketAddr::new(other.address, address.port());
            return Err(ClaimError::Claimed { address, by });
        }
        if !terms.reuse_address && known.is_some_and(Port::is_remembered) {
            return Err(ClaimError::Remembered(address));
        }
        let fresh = known.is_none();
        let number = self.hold(address, terms.v6_only)?;
        let bound = SocketAddr::new(ip, number);
        if let Err(error) = self.steer(number) {
            if fresh {
                self.drop_if_unused(number);
            }
            return Err(error.into());
        }
        if let Some(port) = self.ports.get_mut(&number) {
            port.claims.push(Claim { claimant, address: ip, terms, leaving: false });
            port.idle = None;
        }
        Ok(bound)
    }

    /// Sees to it that a holder covers `address`; returns the port.
    fn hold(&mut self, address: SocketAddr, v6_only: bool) -> Result<u16, HoldError> {
        let port = self.ports.entry(address.port()).or_default();
        let covered = port.holders.iter().any(|holder| holder.covers(address.ip(), v6_only));
        if covered && address.port() != 0 {
            return Ok(address.port());
        }
        // A wider holder beside narrower ones of ours: all must share for its bind.
        let shared = port.holders.iter().try_for_each(|holder| holder.share(true));
        let holder = shared.and_then(|()| Holder::hold(address, v6_only));
        let closed = port.holders.iter().try_for_each(|holder| holder.share(false));
        let unused = port.holders.is_empty();
        if unused {
            self.ports.remove(&address.port());
        }
        let holder = holder?;
        closed?;
        let number = holder.address().port();
        self.ports.entry(number).or_default().holders.push(holder);
        Ok(number)
    }

    /// Brings the map in line with a port's holders and the machine's addresses.
    fn steer(&mut self, number: u16) -> Result<(), SteerError> {
        let Some(port) = self.ports.get_mut(&number) else { return Ok(()) };
        let limit = if port.reserved { MAX_EXPANDED_RESERVED } else { MAX_EXPANDED };
        let wanted = port.entries(&self.addresses, limit);
        for address in wanted.difference(&port.steered.clone()) {
            self.steer.serve(*address, number)?;
            port.steered.insert(*address);
        }
        for address in port.steered.difference(&wanted.clone()).copied().collect::<Vec<_>>() {
            self.steer.unserve(address, number)?;
            port.steered.remove(&address);
        }
        Ok(())
    }

    /// A listener is being closed: others may claim its address from now on.
    pub fn leave(&mut self, claimant: Claimant) {
        let claims = self.ports.values_mut().flat_map(|port| &mut port.claims);
        for claim in claims.filter(|claim| claim.claimant == claimant) {
            claim.leaving = true;
        }
    }

    /// A listener has ended and its queues are kept by `keeper`: others may claim its address, and
    /// the port stays ours until that one is [`gone`](Self::gone).
    pub fn keep(&mut self, claimant: Claimant, keeper: Claimant) {
        let claims = self.ports.values_mut().flat_map(|port| &mut port.claims);
        for claim in claims.filter(|claim| claim.claimant == claimant) {
            claim.claimant = keeper;
            claim.leaving = true;
        }
    }

    /// Those that share exactly this listener's address with it, and stay.
    pub fn partners(&self, claimant: Claimant) -> impl Iterator<Item = Claimant> {
        let port = self.ports.values().find(|port| port.claim_of(claimant).is_some());
        port.into_iter().flat_map(move |port| {
            let own = port.claim_of(claimant).expect("found by it");
            port.claims.iter().filter(|claim| own.shares_with(claim)).map(|claim| claim.claimant)
        })
    }

    /// Whether a listener's claim covers what another one asks for.
    pub fn is_at(&self, claimant: Claimant, address: SocketAddr, v6_only: bool) -> bool {
        let claim = self.ports.get(&address.port()).and_then(|port| port.claim_of(claimant));
        claim.is_some_and(|claim| claim.overlaps(address.ip(), v6_only))
    }

    /// Whether the claims of these two listeners overlap.
    pub fn overlap(&self, one: Claimant, other: Claimant) -> bool {
        self.ports.values().any(|port| {
            let of = |who| port.claims.iter().find(move |claim| claim.claimant == who);
            of(one)
                .zip(of(other))
                .is_some_and(|(one, other)| one.overlaps(other.address, other.terms.v6_only))
        })
    }

    /// A listener is closed at every worker. Returns the port if it was the last one there: the
    /// workers are to be asked when they do not use it any more.
    #[must_use]
    pub fn gone(&mut self, claimant: Claimant) -> Option<u16> {
        let has = |port: &Port| port.claims.iter().any(|claim| claim.claimant == claimant);
        let (number, port) = self.ports.iter_mut().find(|(_, port)| has(port))?;
        port.claims.retain(|claim| claim.claimant != claimant);
        let ask = port.claims.is_empty() && !port.reserved;
        if ask {
            port.idle = Some(0);
        }
        ask.then_some(*number)
    }

    /// A worker does not use the port any more. After the last worker, the port is the kernel's
    /// again. Says of other ports are out of date and do nothing.
    pub fn idle(&mut self, number: u16, worker: u32) {
        let Some(port) = self.ports.get_mut(&number) else { return };
        let Some(idle) = &mut port.idle else { return };
        *idle |= 1 << worker;
        if idle.count_ones() == self.workers {
            self.drop_if_unused(number);
        }
    }

    /// Gives a port back that nobody claims.
    fn drop_if_unused(&mut self, number: u16) {
        let used = |port: &Port| !port.claims.is_empty() || port.reserved;
        if self.ports.get(&number).is_none_or(used) {
            return;
        }
        let Some(port) = self.ports.remove(&number) else { return };
        // First the map, then the holder: no one else gets the port while it is steered.
        for address in &port.steered {
            if let Err(error) = self.steer.unserve(*address, number) {
                tracing::error!(%error, port = number, "a port stays steered though unused");
            }
        }
        tracing::debug!(port = number, "the port is the kernel's again");
    }

    /// Keeps the ports of `range` for outgoing connections, as far as the kernel has them free,
    /// and returns those.
    ///
    /// # Errors
    /// When the map cannot take them.
    pub fn reserve(&mut self, range: &PortRange) -> Result<Vec<u16>, ClaimError> {
        let mut kept = Vec::new();
        for holder in Holder::hold_free(range.iter())? {
            let number = holder.address().port();
            let port = self.ports.entry(number).or_default();
            port.holders.push(holder);
            port.reserved = true;
            self.steer(number)?;
            kept.push(number);
        }
        Ok(kept)
    }

    /// The machine's addresses have changed.
    pub fn set_addresses(&mut self, addresses: Vec<IpAddr>) {
        if self.addresses == addresses {
            return;
        }
        self.addresses = addresses;
        for number in self.ports.keys().copied().collect::<Vec<_>>() {
            if let Err(error) = self.steer(number) {
                tracing::error!(%error, port = number, "a port is not served on every address");
            }
        }
    }
}

impl Port {
    /// Whether it is ours only because of what former listeners have left.
    fn claim_of(&self, claimant: Claimant) -> Option<&Claim> {
        self.claims.iter().find(|claim| claim.claimant == claimant)
    }

    fn is_remembered(&self) -> bool {
        !self.reserved && self.claims.iter().all(|claim| claim.leaving)
    }

    /// The map entries that its holders ask for.
    fn entries(&self, addresses: &[IpAddr], limit: usize) -> BTreeSet<IpAddr> {
        let mut entries = BTreeSet::new();
        for holder in &self.holders {
            let ip = holder.address().ip();
            if !ip.is_unspecified() {
                entries.insert(ip);
                continue;
            }
            let families: &[IpAddr] = match (ip, holder.covers(V4_ANY, true)) {
                (IpAddr::V6(_), true) => &[V4_ANY, V6_ANY],
                (IpAddr::V6(_), false) => &[V6_ANY],
                (IpAddr::V4(_), _) => &[V4_ANY],
            };
            for any in families {
                let same = |address: &&IpAddr| address.is_ipv4() == any.is_ipv4();
                match addresses.iter().filter(same).count() <= limit {
                    true => entries.extend(addresses.iter().filter(same)),
                    false => entries.extend([*any]),
                }
            }
        }
        entries
    }
}

const V4_ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const V6_ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

#[cfg(test)]
pub(crate) mod tests;
