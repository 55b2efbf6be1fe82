//! The XDP program while the daemon runs: shared by those who change it, taken off at the end.

use crate::control::Totals;
use crate::served::{Steer, SteerError};
use fourwave_xdp::{Gate, Steering, SteeringError, SteeringStats};
use std::cell::RefCell;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::rc::Rc;

/// The attached program. It is detached with the last of its clones, or before, by
/// [`Program::detach`].
#[derive(Clone)]
pub(super) struct Program(Rc<Guard>);

struct Guard(RefCell<Option<Steering>>);

impl Program {
    pub(super) fn new(steering: Steering) -> Program {
        Program(Rc::new(Guard(RefCell::new(Some(steering)))))
    }

    /// Leaves every frame to the kernel again, and nothing on the machine.
    pub(super) fn detach(&self) {
        self.0.detach();
    }

    /// Lets frames of a NIC queue go to this socket.
    pub(super) fn set_socket(&self, queue: u32, socket: impl AsFd) -> Result<(), SteeringError> {
        match self.0.0.borrow_mut().as_mut() {
            Some(steering) => steering.set_xsk(queue, socket),
            None => Ok(()),
        }
    }

    /// Bounds the SYNs that wait for the worker of a NIC queue.
    pub(super) fn gate(&self, queue: u32, most: u32) -> Result<Gate, SteeringError> {
        match self.0.0.borrow_mut().as_mut() {
            Some(steering) => steering.gate(queue, most),
            None => Err(SteeringError::NoSuchQueue { queue, queues: 0 }),
        }
    }

    /// Frames by verdict; `None` when they cannot be read.
    pub(super) fn stats(&self) -> Option<SteeringStats> {
        self.0.0.borrow().as_ref()?.stats().ok()
    }

    /// Adds the frames by verdict.
    pub(super) fn add_to(&self, totals: &mut Totals) {
        let Some(stats) = self.stats() else { return };
        for (verdict, frames) in stats.iter() {
            totals.add(format!("xdp_{}", verdict.name()), frames);
        }
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Steering) -> Result<(), SteeringError>,
    ) -> Result<(), SteerError> {
        match self.0.0.borrow_mut().as_mut() {
            Some(steering) => change(steering).map_err(|error| SteerError(error.to_string())),
            // Detached: nothing is served any more.
            None => Ok(()),
        }
    }
}

impl Steer for Program {
    fn serve(&mut self, address: IpAddr, port: u16) -> Result<(), SteerError> {
        self.change(|steering| steering.serve(address, port))
    }

    fn unserve(&mut self, address: IpAddr, port: u16) -> Result<(), SteerError> {
        self.change(|steering| steering.unserve(address, port))
    }
}

impl Guard {
    fn detach(&self) {
        let Some(steering) = self.0.borrow_mut().take() else { return };
        if let Err(error) = steering.detach() {
            tracing::error!(%error, "cannot take the XDP program off: run fourwaved --release");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.detach();
    }
}
