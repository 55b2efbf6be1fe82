//! What the control thread and the workers tell each other, over bounded lock-free queues.
//!
//! Control sends a message about a thing only after the messages that it builds on (a lane after
//! its group), and each queue keeps its order. An answer names the worker that gives it; a thing
//! is gone when every worker has answered.

use crate::inquiry::Inquiry;
use crate::path::PathTable;
use crate::port::{Group, Holder};
use crate::tap::Tap;
use fourwave_protocol::Process;
use fourwave_stack::ListenerShared;
use fourwave_tcp::Settings;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::oneshot;

/// An application group. Numbers are not used again while the daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

/// From control to one worker.
#[derive(Debug)]
pub enum ToWorker {
    /// Routes, addresses or neighbours have changed.
    Paths(Arc<PathTable>),
    /// An application group begins. Made by control, because it allocates.
    AddGroup {
        /// The group as this worker sees it.
        group: Box<Group>,
    },
    /// The client is gone: its connections close as the kernel would close them. Its lanes and
    /// listeners go with it, without answers of their own; answered by
    /// [`FromWorker::GroupRemoved`] when nothing of the group is left.
    RemoveGroup {
        /// Which one.
        group: GroupId,
        /// The group that keeps its listeners, under the same indices, if one does.
        keeper: Option<GroupId>,
    },
    /// A process of a group is about to fork: the new one holds what it holds, when every command
    /// that it has posted until now is worked on; answered by [`FromWorker::Forked`].
    Fork {
        /// Whose.
        group: GroupId,
        /// The process that forks.
        parent: Process,
        /// The new one. Made by control, because it allocates.
        child: Box<Holder>,
    },
    /// A process is gone, and others of its group are not. Its lanes were removed before; what
    /// nobody else holds closes as the kernel would close it; answered by
    /// [`FromWorker::ProcessRemoved`].
    RemoveProcess {
        /// Whose.
        group: GroupId,
        /// Which one.
        process: Process,
    },
    /// A lane begins.
    AddLane {
        /// Whose.
        group: GroupId,
        /// The process that uses it.
        process: Process,
        /// Index in the segment.
        lane: u16,
        /// Our end of this worker's socket pair.
        doorbell: OwnedFd,
    },
    /// A lane is no longer used; answered by [`FromWorker::LaneRemoved`].
    RemoveLane {
        /// Whose.
        group: GroupId,
        /// Index in the segment.
        lane: u16,
    },
    /// A listener begins, or goes on with what a former one of its address has left; answered by
    /// [`FromWorker::Listening`]. Takes back a [`ToWorker::ReportIdle`] for its port.
    Listen {
        /// Whose.
        group: GroupId,
        /// Index in the segment.
        listener: u32,
        /// Where; an unspecified address means every address.
        address: SocketAddr,
        /// An unspecified IPv6 address does not cover IPv4.
        v6_only: bool,
        /// Backlog and queue lengths over all workers; the former listener's, if there is one.
        shared: Arc<ListenerShared>,
        /// What its connections begin with, from the first one on.
        settings: Settings,
        /// The former listener: its keeper, and its index there.
        former: Option<(GroupId, u32)>,
    },
    /// What connections of a listener begin with from now on; answered by letting go of `told`.
    Configure {
        /// Whose.
        group: GroupId,
        /// Index in the segment.
        listener: u32,
        /// Everything that can be chosen.
        settings: Settings,
        /// Closed when the last worker has let go of it.
        told: Arc<oneshot::Sender<()>>,
    },
    /// A listener ends. What waits in its queues goes to one that shares its address, else to
    /// `keeper`, else it is reset; answered by [`FromWorker::Unlistened`].
    Unlisten {
        /// Whose.
        group: GroupId,
        /// Index in the segment.
        listener: u32,
        /// The group that keeps the listener, under the same index, if one does.
        keeper: Option<GroupId>,
    },
    /// Asks for [`FromWorker::PortIdle`] as soon as the worker no longer uses this local port.
    ReportIdle {
        /// Which one.
        port: u16,
    },
    /// Asks to look for idle ports now; answered by [`FromWorker::Looked`].
    Look {
        /// To be passed on.
        told: Arc<oneshot::Sender<()>>,
    },
    /// A tool wants frames, which go through this.
    Tap(Arc<Tap>),
    /// A tool's question, answered through itself.
    Inquire(Arc<Inquiry>),
    /// Refuse new connections; answered by [`FromWorker::Drained`].
    Drain,
    /// Reset every connection, send what is due, end the thread.
    Stop,
}

/// From a worker to control.
#[derive(Debug, Clone)]
pub enum FromWorker {
    /// A client has written what no correct client writes: its socket is to be closed.
    Evicted {
        /// Whose.
        group: GroupId,
        /// Who says so.
        worker: u32,
        /// What it did.
        reason: &'static str,
    },
    /// Nothing of the group is left at this worker.
    GroupRemoved {
        /// Which one.
        group: GroupId,
        /// Who says so.
        worker: u32,
    },
    /// The process is known, and holds what its parent does.
    Forked {
        /// Whose.
        group: GroupId,
        /// The new process.
        process: Process,
        /// Who says so.
        worker: u32,
    },
    /// The process holds nothing any more.
    ProcessRemoved {
        /// Whose.
        group: GroupId,
        /// Which one.
        process: Process,
        /// Who says so.
        worker: u32,
    },
    /// The worker no longer touches the lane's rings.
    LaneRemoved {
        /// Whose.
        group: GroupId,
        /// Index in the segment.
        lane: u16,
        /// Who says so.
        worker: u32,
    },
    /// The listener takes connections at this worker from now on, or cannot.
    Listening {
        /// Whose.
        group: GroupId,
        /// Index in the segment.
        listener: u32,
        /// Who says so.
        worker: u32,
        /// Why it cannot, as an errno.
        error: Option<i32>,
    },
    /// The worker no longer touches the listener's accept ring.
    Unlistened {
        /// Whose.
        group: GroupId,
        /// Index in the segment.
        listener: u32,
        /// Who says so.
        worker: u32,
    },
    /// No listener, handshake, connection or TIME_WAIT of this worker uses the port.
    PortIdle {
        /// Which one.
        port: u16,
        /// Who says so.
        worker: u32,
    },
    /// Every port that is idle by now has been told: passes `told` on, whose receiver finds it
    /// closed when the last worker's has come.
    Looked {
        /// What came with [`ToWorker::Look`].
        told: Arc<oneshot::Sender<()>>,
    },
    /// The MAC of this neighbour is wanted.
    Resolve {
        /// The next hop, as [`PathMiss::Unresolved`](crate::path::PathMiss) names it.
        address: IpAddr,
    },
    /// Draining, and no connection is left but those in TIME_WAIT.
    Drained {
        /// Who says so.
        worker: u32,
    },
}
