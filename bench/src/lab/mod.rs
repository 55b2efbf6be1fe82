//! Two network namespaces joined by a veth pair, with programs in them.
//!
//! The command line, the comparison and the integration tests of other packages all build their
//! labs here:
//!
//! ```no_run
//! use fourwave_bench::lab::{Lab, LabConfig};
//! # fn main() -> Result<(), fourwave_bench::lab::LabError> {
//! let lab = Lab::up(LabConfig::private("mytest"))?;
//! let listener = lab.server().run(|| std::net::TcpListener::bind("10.99.0.2:80"))?;
//! # drop(listener);
//! // Dropping the lab ends its programs and removes links and namespaces.
//! # Ok(())
//! # }
//! ```

mod config;
mod daemon;
mod error;
mod link;
mod netns;
mod preload;
mod process;
mod programs;
mod remove;
mod state;
mod status;
mod tune;

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command};

use serde::{Deserialize, Serialize};

pub use config::{Cidr, LabConfig, MiddleConfig, NodeConfig};
pub use daemon::{DaemonOptions, ensure_daemon};
pub use error::LabError;
pub use netns::Netns;
pub use preload::Preload;
pub use process::ProcessRef;
pub use programs::{Ready, bench_binary, daemon_binary, preload_library};
pub use remove::{down, remove_orphans};
pub use state::Recorded;
pub use status::{NodeStatus, Status};

use state::State;

/// The two ends of a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Where the servers are.
    Server,
    /// Where the load comes from.
    Client,
}

/// One end of a lab: its namespace, interface and addresses.
#[derive(Clone, Debug)]
pub struct Node {
    netns: Netns,
    config: NodeConfig,
    queues: u32,
}

impl Node {
    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Name of its end of the veth pair.
    pub fn interface(&self) -> &str {
        &self.config.interface
    }

    /// All its addresses of one family, in the order of the configuration.
    pub fn addresses(&self, v6: bool) -> Vec<IpAddr> {
        let addresses = self.config.addresses.iter().map(|cidr| cidr.address);
        addresses.filter(|address| address.is_ipv6() == v6).collect()
    }

    /// Its first IPv4 address.
    ///
    /// # Panics
    /// When the lab was configured without one.
    pub fn v4(&self) -> IpAddr {
        link::first_of_family(&self.config.addresses, false).expect("the node has an IPv4 address")
    }

    /// Its first IPv6 address.
    ///
    /// # Panics
    /// When the lab was configured without one.
    pub fn v6(&self) -> IpAddr {
        link::first_of_family(&self.config.addresses, true).expect("the node has an IPv6 address")
    }

    /// Runs `work` inside the namespace, on a thread of its own.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        self.netns.run(work).map_err(LabError::Namespace)
    }

    /// A command that will run inside the namespace, with the rest of the machine as it is.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.netns.command(program)
    }

    /// Receive work of this end's interface goes to the CPUs of `mask`; 0 leaves it where the
    /// frames arrive, which on veth is the sender's CPU.
    ///
    /// # Errors
    /// When sysfs refuses.
    pub fn set_rps(&self, mask: u64) -> Result<(), LabError> {
        self.run(|| tune::set_rps(self.interface(), self.queues, mask))?
    }

    /// The present mask of [`Node::set_rps`], as the kernel prints it.
    ///
    /// # Errors
    /// When sysfs refuses.
    pub fn rps(&self) -> Result<String, LabError> {
        self.run(|| tune::rps(self.interface()))?
    }
}

/// The namespace between the two ends of a relayed lab.
#[derive(Clone, Debug)]
pub struct Middle {
    netns: Netns,
    config: MiddleConfig,
}

impl Middle {
    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The interfaces that lead to the server and to the client.
    pub fn interfaces(&self) -> [&str; 2] {
        self.config.interfaces.each_ref().map(|name| &**name)
    }

    fn ends(&self) -> impl Iterator<Item = (&Netns, &str)> {
        self.interfaces().into_iter().map(|interface| (&self.netns, interface))
    }
}

/// A lab that is up.
///
/// One that is not [persistent](LabConfig::persistent) is removed when this is dropped.
#[derive(Debug)]
pub struct Lab {
    state: State,
    server: Node,
    client: Node,
    middle: Option<Middle>,
    /// Programs that this very process started, to be reaped.
    children: Vec<Child>,
    removed: bool,
}

impl Lab {
    /// Builds a lab. What a crashed one of the same name left is removed first.
    ///
    /// # Errors
    /// [`LabError::InUse`] when one of this name is up, [`LabError::ForeignNamespace`] when a
    /// namespace of the wanted name is somebody else's, and whatever the kernel refuses. Nothing
    /// is left behind then.
    pub fn up(config: LabConfig) -> Result<Lab, LabError> {
        let _lock = state::lock()?;
        if let Some(old) = State::load(&config.name)? {
            if let Some(owner) = old.owner.filter(ProcessRef::is_alive) {
                return Err(LabError::InUse { name: config.name, pid: owner.pid });
            }
            remove::remove(&old)?;
        }
        if let Some(name) = config.namespaces().find(|name| Netns::exists(name)) {
            return Err(LabError::ForeignNamespace { name: name.to_owned() });
        }
        let state = State::new(config);
        state.save()?;
        match build(&state.config) {
            Ok((server, client, middle)) => {
                Ok(Lab { state, server, client, middle, children: Vec::new(), removed: false })
            }
            Err(error) => {
                // The error that made us give up says more than one from tidying up after it.
                let _ = remove::remove(&state);
                Err(error)
            }
        }
    }

    /// The persistent lab called `name`, which another process built.
    ///
    /// # Errors
    /// [`LabError::NotUp`] when there is none, [`LabError::NotRoot`].
    pub fn attach(name: &str) -> Result<Lab, LabError> {
        require_root()?;
        let not_up = || LabError::NotUp { name: name.to_owned() };
        let state = State::load(name)?.ok_or_else(not_up)?;
        let open = |config: &NodeConfig| -> Result<Node, LabError> {
            let netns = Netns::open(&config.namespace).map_err(|_| not_up())?;
            Ok(Node { netns, config: config.clone(), queues: state.config.queues })
        };
        let (server, client) = (open(&state.config.server)?, open(&state.config.client)?);
        let middle = state.config.middle.clone().map(|config| {
            let netns = Netns::open(&config.namespace).map_err(|_| not_up())?;
            Ok::<_, LabError>(Middle { netns, config })
        });
        let middle = middle.transpose()?;
        Ok(Lab { state, server, client, middle, children: Vec::new(), removed: false })
    }

    /// The end with the servers.
    pub fn server(&self) -> &Node {
        &self.server
    }

    /// The end with the load.
    pub fn client(&self) -> &Node {
        &self.client
    }

    /// What lies between the two ends, if they are not joined directly.
    pub fn middle(&self) -> Option<&Middle> {
        self.middle.as_ref()
    }

    /// One of the two ends.
    pub fn node(&self, side: Side) -> &Node {
        match side {
            Side::Server => &self.server,
            Side::Client => &self.client,
        }
    }

    /// How it was configured.
    pub fn config(&self) -> &LabConfig {
        &self.state.config
    }

    /// Its folder: logs, configurations and runtime folders of its programs. It goes with the lab.
    pub fn folder(&self) -> PathBuf {
        state::folder(&self.state.config.name)
    }

    /// Writes `note` down for [`Lab::note`] of a process that attaches later.
    ///
    /// # Errors
    /// When the state file cannot be written.
    pub fn set_note(&mut self, note: &str) -> Result<(), LabError> {
        note.clone_into(&mut self.state.note);
        self.state.save()
    }

    /// What the builder wrote down with [`Lab::set_note`].
    pub fn note(&self) -> &str {
        &self.state.note
    }

    /// Ends its programs and removes links, namespaces and files.
    ///
    /// # Errors
    /// The first thing that could not be removed; the rest is removed all the same.
    pub fn down(mut self) -> Result<(), LabError> {
        self.remove()
    }

    fn remove(&mut self) -> Result<(), LabError> {
        self.removed = true;
        let _lock = state::lock()?;
        let result = remove::remove(&self.state);
        for child in &mut self.children {
            // It has ended: this only takes the zombie away.
            let _ = child.wait();
        }
        result
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.removed
            && !self.state.config.persistent
            && let Err(error) = self.remove()
        {
            eprintln!("lab `{}`: {error}", self.state.config.name);
        }
    }
}

/// Namespaces and links need it; asked first, so that the answer names the reason.
fn require_root() -> Result<(), LabError> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(LabError::NotRoot) }
}

fn build(config: &LabConfig) -> Result<(Node, Node, Option<Middle>), LabError> {
    let make = |node: &NodeConfig| -> Result<Node, LabError> {
        let netns = Netns::create(&node.namespace).map_err(LabError::Namespace)?;
        netns.run(tune::set_sysctls).map_err(LabError::Namespace)??;
        Ok(Node { netns, config: node.clone(), queues: config.queues })
    };
    let (server, client) = (make(&config.server)?, make(&config.client)?);
    let middle = config.middle.as_ref().map(|config| -> Result<Middle, LabError> {
        let netns = Netns::create(&config.namespace).map_err(LabError::Namespace)?;
        netns.run(tune::be_silent).map_err(LabError::Namespace)??;
        Ok(Middle { netns, config: config.clone() })
    });
    let middle = middle.transpose()?;
    link::connect(config, &server.netns, &client.netns, middle.as_ref())?;
    if !config.offloads {
        for node in [&server, &client] {
            node.run(|| tune::offloads_off(node.interface()))??;
        }
        for (netns, interface) in middle.iter().flat_map(Middle::ends) {
            let off = || tune::offloads_off(interface);
            netns.run(off).map_err(LabError::Namespace)??;
        }
    }
    Ok((server, client, middle))
}
