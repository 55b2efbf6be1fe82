//! What clients are refused: in words for them, counted for who runs the machine.

use crate::policy::Refused;
use rustix::io::Errno;
use std::cell::Cell;

/// What a client is refused with: an errno as a socket call would give it, and a text that helps.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) errno: Errno,
    pub(super) detail: String,
    /// The rule or limit that it is for, if it is one.
    pub(super) denied: Option<Denied>,
}

impl Refusal {
    pub(super) fn new(errno: Errno, detail: impl Into<String>) -> Refusal {
        Refusal { errno, detail: detail.into(), denied: None }
    }

    /// One that is counted.
    pub(super) fn denied(denied: Denied, errno: Errno, detail: impl Into<String>) -> Refusal {
        Refusal { denied: Some(denied), ..Refusal::new(errno, detail) }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        let denied = match refused {
            Refused::User(_) => Denied::User,
            Refused::Rule { .. } => Denied::Port,
            Refused::Privileged { .. } => Denied::PrivilegedPort,
        };
        Refusal::denied(denied, Errno::ACCESS, refused.to_string())
    }
}

/// A rule or a limit that a client has met. Each is counted under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// There are as many clients as may be.
    MaxClients,
    /// It is of another release.
    Version,
    /// A rule gives its user nothing.
    User,
    /// The rule of its user does not list the port.
    Port,
    /// No rule gives its user a port that the kernel keeps for root.
    PrivilegedPort,
    /// It has all listeners that a program may have.
    Listeners,
    /// It has all lanes.
    Lanes,
    /// It has all processes.
    Processes,
    /// It sent what is no message, and was disconnected.
    NoMessage,
}

impl Denied {
    /// Every one, in the order of the discriminants.
    pub const ALL: [Denied; 9] = [
        Denied::MaxClients,
        Denied::Version,
        Denied::User,
        Denied::Port,
        Denied::PrivilegedPort,
        Denied::Listeners,
        Denied::Lanes,
        Denied::Processes,
        Denied::NoMessage,
    ];

    /// Name in counters.
    pub fn name(self) -> &'static str {
        match self {
            Denied::MaxClients => "max_clients",
            Denied::Version => "version",
            Denied::User => "user",
            Denied::Port => "port",
            Denied::PrivilegedPort => "privileged_port",
            Denied::Listeners => "listeners",
            Denied::Lanes => "lanes",
            Denied::Processes => "processes",
            Denied::NoMessage => "no_message",
        }
    }

    /// What it counts, in a sentence.
    pub fn explain(self) -> &'static str {
        match self {
            Denied::MaxClients => "There were as many programs as clients.max_clients allows.",
            Denied::Version => "The program's library and fourwaved are of different releases.",
            Denied::User => "A rule of clients.rules gives the user no connections.",
            Denied::Port => "The rule of the user in clients.rules does not list the port.",
            Denied::PrivilegedPort => {
                "No rule of clients.rules gives the user this port, which the kernel keeps for root."
            }
            Denied::Listeners => "The program had all listeners that one may have (64).",
            Denied::Lanes => {
                "The program had all lanes (threads and pollers) that one may have (256)."
            }
            Denied::Processes => "The program had all processes that one may have (256).",
            Denied::NoMessage => "It sent what is no message of the protocol: it was disconnected.",
        }
    }
}

/// How often each was met.
#[derive(Debug, Default)]
pub(super) struct Denials([Cell<u64>; Denied::ALL.len()]);

impl Denials {
    pub(super) fn count(&self, denied: Denied) {
        let cell = &self.0[denied as usize];
        cell.set(cell.get() + 1);
    }

    /// All of them by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Denied::ALL.into_iter().zip(&self.0).map(|(denied, count)| (denied.name(), count.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::explain;

    #[test]
    fn each_is_counted_under_its_own_name_and_explained() {
        let denials = Denials::default();
        for (times, denied) in (1..).zip(Denied::ALL) {
            (0..times).for_each(|_| denials.count(denied));
        }
        let mut names = std::collections::BTreeSet::new();
        for (expected, (name, count)) in (1..).zip(denials.iter()) {
            assert_eq!(count, expected, "{name}");
            assert!(names.insert(name), "{name} twice");
            assert!(explain("clients_refused", Some(name)).is_some(), "{name}");
        }
        assert!(explain("clients_refused", None).is_some());
    }
}
