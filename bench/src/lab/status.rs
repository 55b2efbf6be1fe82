//! What a lab looks like right now.

use super::error::LabError;
use super::state::Recorded;
use super::{Lab, Node, link, tune};

/// One end of a lab as it is.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Name under `/run/netns`.
    pub namespace: String,
    /// Its end of the veth pair.
    pub interface: String,
    /// Addresses with their prefixes.
    pub addresses: Vec<String>,
    /// Offloads that are on, by `ethtool -K` names.
    pub offloads_on: Vec<&'static str>,
    /// Receive packet steering mask.
    pub rps: String,
    /// The kernel's congestion control.
    pub congestion_control: String,
    /// Where an XDP program runs (`native`, `generic`), if there is one.
    pub xdp: Option<&'static str>,
}

/// A lab as it is.
#[derive(Clone, Debug)]
pub struct Status {
    /// The server's end.
    pub server: NodeStatus,
    /// The client's end.
    pub client: NodeStatus,
    /// Its programs, and whether they live.
    pub programs: Vec<(Recorded, bool)>,
}

impl Lab {
    /// Looks at namespaces, interfaces and programs.
    ///
    /// # Errors
    /// When a namespace or interface is not what the lab made.
    pub fn status(&self) -> Result<Status, LabError> {
        let programs = self.state.processes.iter();
        Ok(Status {
            server: node_status(&self.server)?,
            client: node_status(&self.client)?,
            programs: programs.map(|p| (p.clone(), p.process.is_alive())).collect(),
        })
    }
}

fn node_status(node: &Node) -> Result<NodeStatus, LabError> {
    Ok(NodeStatus {
        namespace: node.netns.name().to_owned(),
        interface: node.interface().to_owned(),
        addresses: node.config.addresses.iter().map(ToString::to_string).collect(),
        offloads_on: node.run(|| tune::offloads_on(node.interface()))??,
        rps: node.rps()?,
        congestion_control: node.run(tune::congestion_control)??,
        xdp: node.run(|| link::xdp_mode(node.interface()))??,
    })
}
