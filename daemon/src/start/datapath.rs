//! The way of a frame before TCP: the XDP program and the queues' sockets.

use super::StartError;
use super::parts;
use super::program::Program;
use super::sockets::Sockets;
use crate::config::Config;
use crate::control::Totals;
use crate::path::view::LinkView;
use fourwave_xdp::{AttachedMode, Gate, Queue, QueueConfig, Steering};

/// Everything between the NIC and the workers.
pub(super) struct DataPath {
    pub(super) program: Program,
    pub(super) sockets: Sockets,
    /// One per worker, in their order, each with its gate.
    pub(super) queues: Vec<(Queue, Gate)>,
}

/// What is counted below the workers.
pub(super) struct Counted {
    pub(super) program: Program,
    pub(super) sockets: Sockets,
}

impl Counted {
    /// Adds all of it.
    pub(super) fn add_to(&self, totals: &mut Totals) {
        self.program.add_to(totals);
        self.sockets.add_to(totals);
    }
}

impl DataPath {
    /// Attaches the program to an interface that has `available` queues, and opens `queues` of
    /// them. No port is served yet. On an error the interface is as it was.
    pub(super) fn open(
        config: &Config,
        link: &LinkView,
        queues: &[u32],
        available: u32,
    ) -> Result<DataPath, StartError> {
        let (interface, mtu) = (link.name.as_str(), link.mtu);
        let too_large = || StartError::Mtu { interface: interface.to_owned(), mtu };
        let frame_size = parts::frame_size(mtu).ok_or_else(too_large)?;
        let steering = Steering::attach(&parts::steering(config, interface, available))?;
        report(&steering, interface);
        let generic = steering.attached_mode() == AttachedMode::Generic;
        // From here on it is taken off whatever happens.
        let program = Program::new(steering);
        let mut sockets = Sockets::default();
        let mut opened = Vec::new();
        for queue in queues {
            let settings = parts::queue(config, interface, *queue, frame_size, generic);
            let gate = program.gate(*queue, config.rx_syn_limit)?;
            let queue = open_queue(&settings, &program)?;
            let keep = sockets.keep(&queue);
            keep.map_err(|error| StartError::System("cannot duplicate a descriptor", error))?;
            opened.push((queue, gate));
        }
        Ok(DataPath { program, sockets, queues: opened })
    }
}

/// The queues to take, and how many the interface has.
pub(super) fn queues(config: &Config, link: &LinkView) -> Result<(Vec<u32>, u32), StartError> {
    let channels = fourwave_xdp::channels(&link.name)
        .map_err(|error| StartError::System("cannot count the interface's queues", error))?;
    // A driver that does not tell: what the device was made with.
    let available = channels.map_or(link.rx_queues, |channels| channels.rx.min(channels.tx));
    let unfit = || StartError::Queues {
        interface: link.name.clone(),
        wanted: config.queues.to_string(),
        available,
    };
    let queues = config.queues.resolve(available).ok_or_else(unfit)?;
    if queues.len() < available as usize {
        let taken = queues.len();
        tracing::warn!(taken, available, "frames for a served port on other queues are lost");
    }
    Ok((queues, available))
}

fn report(steering: &Steering, interface: &str) {
    if steering.reclaimed() {
        tracing::warn!(interface, "took over the XDP program of a daemon that had crashed");
    }
    match (steering.attached_mode(), steering.fallback_reason()) {
        (AttachedMode::Native, _) => tracing::info!(interface, "XDP program attached, native"),
        (AttachedMode::Generic, None) => tracing::info!(interface, "XDP program attached, generic"),
        (AttachedMode::Generic, Some(reason)) => {
            tracing::warn!(interface, reason, "XDP program attached, generic: native failed");
        }
    }
}

fn open_queue(settings: &QueueConfig, program: &Program) -> Result<Queue, StartError> {
    let queue = Queue::open(settings)?;
    program.set_socket(settings.queue, &queue)?;
    let zero_copy = queue.is_zero_copy();
    tracing::info!(queue = settings.queue, zero_copy, "queue opened");
    Ok(queue)
}
