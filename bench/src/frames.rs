//! An AF_XDP queue that gets the TCP frames of some ports, for as long as it lives.

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;

use fourwave_xdp::{
    CopyMode, Queue, QueueConfig, QueueError, Steering, SteeringConfig, SteeringError,
};

pub use fourwave_xdp::XdpMode;

/// Frames of the queue, each way: what a full window of connections can have under way.
const FRAMES: u32 = 8192;

/// Why no frames can be had.
#[derive(Debug, thiserror::Error)]
pub enum FramesError {
    /// The XDP program.
    #[error(transparent)]
    Steering(#[from] SteeringError),
    /// The AF_XDP socket.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The network namespace cannot be told.
    #[error("/proc/thread-self/ns/net: {0}")]
    Namespace(#[source] io::Error),
}

/// Queue 0 of an interface, and the XDP program that feeds it.
#[derive(Debug)]
pub struct Frames {
    /// The frames.
    pub queue: Queue,
    steering: Steering,
}

impl Frames {
    /// Takes the TCP frames of `ports` at any address of a family, on `interface` of the calling
    /// thread's network namespace. Everything else stays with the kernel.
    ///
    /// What a crashed program left under the same `purpose` and namespace is taken over.
    ///
    /// # Errors
    /// See [`FramesError`]; the interface is then as it was.
    pub fn take(
        purpose: &str,
        interface: &str,
        mode: XdpMode,
        any: IpAddr,
        ports: impl Iterator<Item = u16>,
    ) -> Result<Frames, FramesError> {
        let namespace = std::fs::metadata("/proc/thread-self/ns/net");
        let namespace = namespace.map_err(FramesError::Namespace)?.ino();
        let mut steering = Steering::attach(&SteeringConfig {
            mode,
            icmp_errors: false,
            ..SteeringConfig::new(interface, format!("{purpose}-{namespace}"))
        })?;
        match fill(&mut steering, interface, any, ports) {
            Ok(queue) => Ok(Frames { queue, steering }),
            Err(error) => {
                // The error that made us give up says more than one from tidying up after it.
                let _ = steering.detach();
                Err(error)
            }
        }
    }

    /// Leaves all frames to the kernel again.
    ///
    /// # Errors
    /// Only what should not happen.
    pub fn leave(self) -> Result<(), FramesError> {
        // Before the socket is closed: a steered frame without a socket is dropped.
        self.steering.detach()?;
        Ok(())
    }
}

fn fill(
    steering: &mut Steering,
    interface: &str,
    any: IpAddr,
    ports: impl Iterator<Item = u16>,
) -> Result<Queue, FramesError> {
    let queue = Queue::open(&QueueConfig {
        rx_frames: FRAMES,
        tx_frames: FRAMES,
        copy_mode: CopyMode::Copy,
        ..QueueConfig::new(interface, 0)
    })?;
    for port in ports {
        steering.serve(any, port)?;
    }
    steering.set_xsk(0, &queue)?;
    Ok(queue)
}

/// The unspecified address of the family of `address`.
pub fn any_like(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}
