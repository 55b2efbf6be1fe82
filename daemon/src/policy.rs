//! Who may use the daemon, and how much of it: `[clients]` of the configuration.

use crate::config::{Clients, Rule};
use std::time::Duration;

/// The rules, and what the kernel allows where they say nothing.
#[derive(Debug)]
pub struct Policy {
    clients: Clients,
    /// The kernel's `net.ipv4.ip_unprivileged_port_start`.
    unprivileged_from: u16,
}

/// What an application group may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Connections over all workers.
    pub connections: u32,
    /// Payload memory, bytes.
    pub bytes: u64,
}

/// A user may not do what it asked for; says what would help.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A rule gives the user no connections.
    #[error("user {0} may not use fourwave (clients.rules)")]
    User(u32),
    /// A rule lists the ports of the user, without this one.
    #[error("user {uid} may not bind port {port} (clients.rules)")]
    Rule {
        /// Who asked.
        uid: u32,
        /// For which port.
        port: u16,
    },
    /// Without a rule, the kernel's limit holds.
    #[error(
        "user {uid} may not bind port {port}: ports below {from} are for root \
         (allow it with clients.rules, or with net.ipv4.ip_unprivileged_port_start)"
    )]
    Privileged {
        /// Who asked.
        uid: u32,
        /// For which port.
        port: u16,
        /// First port of ordinary users.
        from: u16,
    },
}

impl Policy {
    /// The policy of a configuration, where the kernel lets ordinary users bind ports from
    /// `unprivileged_from` on.
    pub fn new(clients: Clients, unprivileged_from: u16) -> Policy {
        Policy { clients, unprivileged_from }
    }

    /// Clients that may be connected when one of this user comes. The last eighth is kept for root,
    /// so that no other user can keep the machine's own programs and tools out.
    pub fn max_clients(&self, uid: u32) -> usize {
        let all = self.clients.max_clients as usize;
        if uid == 0 { all } else { all - all / 8 }
    }

    /// How long un-accepted connections outlive their listener.
    pub fn accept_grace(&self) -> Duration {
        self.clients.accept_grace
    }

    /// What a group of this user may have.
    ///
    /// # Errors
    /// [`Refused::User`].
    pub fn admit(&self, uid: u32) -> Result<Quota, Refused> {
        let rule = self.rule(uid);
        let connections = rule.and_then(|rule| rule.connections);
        let connections = connections.unwrap_or(self.clients.connections);
        if connections == 0 {
            return Err(Refused::User(uid));
        }
        let bytes = rule.and_then(|rule| rule.bytes).unwrap_or(self.clients.bytes);
        Ok(Quota { connections, bytes })
    }

    /// Whether this user may bind `port`. Any user may ask for any free port (0), which is never
    /// a privileged one, unless a rule lists the user's ports.
    ///
    /// # Errors
    /// [`Refused::Rule`] or [`Refused::Privileged`].
    pub fn may_bind(&self, uid: u32, port: u16) -> Result<(), Refused> {
        match self.rule(uid).and_then(|rule| rule.ports.as_ref()) {
            Some(ranges) if ranges.iter().any(|range| range.contains(port)) => Ok(()),
            Some(_) => Err(Refused::Rule { uid, port }),
            None if uid == 0 || port == 0 || port >= self.unprivileged_from => Ok(()),
            None => Err(Refused::Privileged { uid, port, from: self.unprivileged_from }),
        }
    }

    fn rule(&self, uid: u32) -> Option<&Rule> {
        let applies = |rule: &&Rule| rule.uids.is_empty() || rule.uids.contains(&uid);
        self.clients.rules.iter().find(applies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &str) -> Policy {
        let text = format!("connections = 100\nbytes = \"1MiB\"\n{rules}");
        Policy::new(toml::from_str(&text).unwrap(), 1024)
    }

    #[test]
    fn without_rules_as_the_kernel() {
        let policy = policy("");
        assert_eq!(policy.admit(1000), Ok(Quota { connections: 100, bytes: 1 << 20 }));
        assert_eq!(policy.may_bind(0, 80), Ok(()));
        assert_eq!(policy.may_bind(1000, 1024), Ok(()));
        assert_eq!(policy.may_bind(1000, 0), Ok(()));
        let refused = policy.may_bind(1000, 80).unwrap_err();
        assert_eq!(refused, Refused::Privileged { uid: 1000, port: 80, from: 1024 });
    }

    #[test]
    fn an_eighth_of_the_clients_is_kept_for_root() {
        let policy = policy("max_clients = 20");
        assert_eq!((policy.max_clients(0), policy.max_clients(1000)), (20, 18));
    }

    #[test]
    fn the_first_rule_that_names_the_user_holds() {
        let policy = policy(
            r#"
            [[rules]]
            uids = [33]
            ports = ["80", "8000-8999"]
            connections = 7
            [[rules]]
            uids = [33, 34]
            bytes = "2MiB"
            [[rules]]
            connections = 0
            "#,
        );
        assert_eq!(policy.admit(33), Ok(Quota { connections: 7, bytes: 1 << 20 }));
        assert_eq!(policy.may_bind(33, 80), Ok(()));
        assert_eq!(policy.may_bind(33, 8999), Ok(()));
        for port in [0, 81, 9000] {
            assert_eq!(policy.may_bind(33, port), Err(Refused::Rule { uid: 33, port }));
        }
        assert_eq!(policy.admit(34), Ok(Quota { connections: 100, bytes: 2 << 20 }));
        assert!(policy.may_bind(34, 80).is_err());
        assert_eq!(policy.admit(0), Err(Refused::User(0)));
    }
}
