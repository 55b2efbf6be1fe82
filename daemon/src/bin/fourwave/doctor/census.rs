//! Counts sockets by state, by who holds them and by peer, in bounded memory: a million of them are
//! looked at one by one and not kept.

use fourwave_protocol::query::{Owner, Socket, SocketKind, SocketState, TimerKind};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

/// Owners, or peers, that are told apart in each state; further ones are counted together.
const MOST_GROUPS: usize = 4096;

/// What all sockets come to.
#[derive(Debug, Default)]
pub(super) struct Census {
    states: [u64; SocketState::ALL.len()],
    pub(super) listeners: Vec<Socket>,
    /// CLOSE_WAIT by owner.
    pub(super) close_wait: Groups<Holder>,
    /// Waiting for the peer's answer (FIN_WAIT_1, CLOSING, LAST_ACK) by peer.
    pub(super) closing: Groups<IpAddr>,
    /// FIN_WAIT_2 that a program still holds, by owner.
    pub(super) half_closed: Groups<Holder>,
    /// FIN_WAIT_2 that nobody holds, by peer.
    pub(super) fin_wait_2: Groups<IpAddr>,
    /// Handshakes by peer.
    pub(super) handshakes: Groups<IpAddr>,
    /// Established and in use, by peer: kept only to tell who does get through.
    pub(super) established: Groups<IpAddr>,
    /// TIME_WAIT by the peer's address, and by whether the port on our side is one that we serve.
    pub(super) time_wait_served: u64,
    /// TIME_WAIT of outgoing connections by the peer's address.
    pub(super) time_wait_outgoing: Groups<IpAddr>,
    /// Sends that wait for a window, by peer.
    pub(super) zero_window: Groups<IpAddr>,
}

/// Who holds a socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Holder {
    /// A program.
    Program { name: String, pid: i32 },
    /// On the accept queue of the program with this port.
    Unaccepted { port: u16 },
    /// We may not know.
    Hidden,
}

impl Holder {
    fn of(socket: &Socket) -> Holder {
        match (&socket.kind, &socket.owner) {
            (SocketKind::Unaccepted, _) => Holder::Unaccepted { port: socket.local.port() },
            (_, Some(Owner { pid, name, .. })) => Holder::Program { name: name.clone(), pid: *pid },
            (_, None) => Holder::Hidden,
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Holder::Program { name, pid } => write!(f, "{name} (pid {pid})"),
            Holder::Unaccepted { port } => write!(f, "nobody yet: not accepted from port {port}"),
            Holder::Hidden => f.write_str("a program of another user (ask as root)"),
        }
    }
}

/// Sockets in one state, by owner or peer.
#[derive(Debug)]
pub(super) struct Groups<K> {
    groups: HashMap<K, Group>,
    /// Those that came after [`MOST_GROUPS`] others.
    pub(super) rest: Group,
}

impl<K> Default for Groups<K> {
    fn default() -> Self {
        Groups { groups: HashMap::new(), rest: Group::default() }
    }
}

/// Sockets that have an owner or a peer in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) sockets: u64,
    /// Bytes in their receive queues.
    pub(super) unread: u64,
    /// The longest time that one of them has been waiting, milliseconds.
    pub(super) longest_ms: u32,
    /// Those whose timer has fired without an answer.
    pub(super) retried: u64,
}

impl Group {
    fn add(&mut self, socket: &Socket) {
        self.sockets += 1;
        self.unread += u64::from(socket.receive_queue);
        self.longest_ms = self.longest_ms.max(socket.waiting_ms.unwrap_or(0));
        self.retried += u64::from(socket.timer.is_some_and(|timer| timer.retries > 0));
    }

    fn merge(&mut self, other: &Group) {
        self.sockets += other.sockets;
        self.unread += other.unread;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
        self.retried += other.retried;
    }
}

impl<K: Eq + Hash + Ord + Clone> Groups<K> {
    fn add(&mut self, key: K, socket: &Socket) {
        if self.groups.len() >= MOST_GROUPS && !self.groups.contains_key(&key) {
            self.rest.add(socket);
        } else {
            self.groups.entry(key).or_default().add(socket);
        }
    }

    /// All together.
    pub(super) fn total(&self) -> Group {
        let mut total = self.rest;
        self.groups.values().for_each(|group| total.merge(group));
        total
    }

    /// How many owners or peers there are, as far as they are told apart.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.groups.contains_key(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.groups.keys()
    }

    /// The largest groups, largest first.
    pub(super) fn largest(&self, count: usize) -> Vec<(&K, &Group)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        // By key too, so that the same facts always read the same.
        groups.sort_by(|a, b| b.1.sockets.cmp(&a.1.sockets).then_with(|| a.0.cmp(b.0)));
        groups.truncate(count);
        groups
    }
}

impl Census {
    /// Counts one.
    pub(super) fn add(&mut self, socket: &Socket, is_served: impl Fn(u16) -> bool) {
        self.states[socket.state as usize] += 1;
        let Some(peer) = socket.peer.map(|peer| peer.ip()) else {
            self.listeners.push(socket.clone());
            return;
        };
        if socket.timer.is_some_and(|timer| timer.kind == TimerKind::Persist && timer.retries > 0) {
            self.zero_window.add(peer, socket);
        }
        match socket.state {
            SocketState::CloseWait => self.close_wait.add(Holder::of(socket), socket),
            SocketState::FinWait1 | SocketState::Closing | SocketState::LastAck => {
                self.closing.add(peer, socket);
            }
            SocketState::FinWait2 if socket.kind == SocketKind::Held => {
                self.half_closed.add(Holder::of(socket), socket);
            }
            SocketState::FinWait2 => self.fin_wait_2.add(peer, socket),
            SocketState::SynReceived => self.handshakes.add(peer, socket),
            SocketState::Established => self.established.add(peer, socket),
            SocketState::TimeWait if is_served(socket.local.port()) => self.time_wait_served += 1,
            SocketState::TimeWait => self.time_wait_outgoing.add(peer, socket),
            SocketState::SynSent | SocketState::Closed | SocketState::Listen => {}
        }
    }

    /// How many are in this state.
    pub(super) fn count(&self, state: SocketState) -> u64 {
        self.states[state as usize]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use fourwave_protocol::query::SocketTimer;
    use std::net::SocketAddr;

    /// A connection in this state, held by `web`.
    pub(crate) fn socket(state: SocketState, peer: &str) -> Socket {
        Socket {
            state,
            receive_queue: 10,
            send_queue: 0,
            local: "10.0.0.1:80".parse().unwrap(),
            peer: Some(SocketAddr::new(peer.parse().unwrap(), 5000)),
            owner: Some(Owner { pid: 7, uid: 0, name: "web".to_owned() }),
            timer: None,
            waiting_ms: None,
            worker: Some(0),
            kind: SocketKind::Held,
        }
    }

    /// One whose retransmission timer has fired so often.
    pub(crate) fn retried(state: SocketState, peer: &str, retries: u8) -> Socket {
        let kind = TimerKind::Retransmit;
        let timer = Some(SocketTimer { kind, milliseconds: 100, retries });
        Socket { timer, ..socket(state, peer) }
    }

    #[test]
    fn groups_add_up_and_the_largest_come_first() {
        let mut census = Census::default();
        for (peer, count) in [("10.0.0.9", 1), ("10.0.0.5", 3), ("10.0.0.7", 3)] {
            for waiting in 0..count {
                let waiting_ms = Some(waiting * 1000);
                let socket = retried(SocketState::LastAck, peer, waiting as u8);
                census.add(&Socket { waiting_ms, ..socket }, |_| true);
            }
        }
        let total = census.closing.total();
        let expected = Group { sockets: 7, unread: 70, longest_ms: 2000, retried: 4 };
        assert_eq!(total, expected);
        let largest = census.closing.largest(2);
        let addresses: Vec<String> = largest.iter().map(|(peer, _)| peer.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.5", "10.0.0.7"]);
        assert_eq!(census.count(SocketState::LastAck), 7);
    }

    #[test]
    fn memory_is_bounded() {
        let mut census = Census::default();
        for number in 0..MOST_GROUPS as u32 + 100 {
            let peer = std::net::Ipv4Addr::from(number).to_string();
            census.add(&socket(SocketState::SynReceived, &peer), |_| true);
        }
        assert_eq!(census.handshakes.len(), MOST_GROUPS);
        assert_eq!(census.handshakes.rest.sockets, 100);
        assert_eq!(census.handshakes.total().sockets, MOST_GROUPS as u64 + 100);
    }

    #[test]
    fn holders_are_named() {
        let held = socket(SocketState::CloseWait, "10.0.0.9");
        assert_eq!(Holder::of(&held).to_string(), "web (pid 7)");
        let unaccepted = Socket { kind: SocketKind::Unaccepted, ..held.clone() };
        assert_eq!(Holder::of(&unaccepted).to_string(), "nobody yet: not accepted from port 80");
        let hidden = Socket { owner: None, ..held };
        assert!(Holder::of(&hidden).to_string().contains("root"));
    }
}
