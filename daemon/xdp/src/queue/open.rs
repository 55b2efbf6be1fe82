//! From a configuration to a bound socket.

use std::error::Error;
use std::ffi::CString;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt;
use rustix::net::xdp::XdpOptionsFlags;
use xsk_rs::config::{
    BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig,
};
use xsk_rs::{Socket, Umem};

use super::{CopyMode, HugePages, Queue, QueueConfig, QueueError, Receiver, Sender};
use crate::{interface, sys};

/// The kernel tears a closed socket down asynchronously, and its queue is busy until then. It needs
/// the lock of all network devices for that, which others may have for long.
const BUSY_TRIES: u32 = 250;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Bytes that the kernel accounts for a frame besides its data, generously.
const SK_BUFF: usize = 1024;

pub(super) fn open(config: &QueueConfig) -> Result<Queue, QueueError> {
    config.check()?;
    check_interface(config)?;
    for _ in 1..BUSY_TRIES {
        match open_once(config) {
            Err(QueueError::QueueBusy { .. }) => thread::sleep(BUSY_PAUSE),
            other => return other,
        }
    }
    open_once(config)
}

/// What would otherwise fail without saying why, or succeed and do nothing.
fn check_interface(config: &QueueConfig) -> Result<(), QueueError> {
    match interface::channels(&config.interface) {
        Ok(Some(found)) if config.queue >= found.rx.min(found.tx) => Err(QueueError::NoSuchQueue {
            interface: config.interface.clone(),
            queue: config.queue,
            rx: found.rx,
            tx: found.tx,
        }),
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            Err(QueueError::NoSuchInterface { interface: config.interface.clone() })
        }
        Err(error) => Err(os(config, "ask for the number of queues", error)),
    }
}

fn open_once(config: &QueueConfig) -> Result<Queue, QueueError> {
    let huge_pages = match config.huge_pages {
        HugePages::Off => false,
        HugePages::Try => config.fits_huge_pages(),
        HugePages::Require => true,
    };
    match open_with(config, huge_pages) {
        Err(QueueError::NoHugePages { .. }) if config.huge_pages == HugePages::Try => {
            open_with(config, false)
        }
        other => other,
    }
}

fn open_with(config: &QueueConfig, huge_pages: bool) -> Result<Queue, QueueError> {
    let invalid =
        |error: &dyn Error| os(config, "configure the socket", io::Error::other(error.to_string()));
    let rx_ring = QueueSize::new(config.rx_frames).map_err(|error| invalid(&error))?;
    let tx_ring = QueueSize::new(config.tx_frames).map_err(|error| invalid(&error))?;
    // Each ring has room for all frames that can ever be in it, so none can overflow. In the fill
    // ring a frame can seem to be twice for a moment: the kernel publishes received frames before
    // it publishes that it took their places there.
    let fill_ring = QueueSize::new(2 * config.rx_frames).map_err(|error| invalid(&error))?;
    let umem_config = UmemConfig::builder()
        .frame_size(FrameSize::new(config.frame_size).map_err(|error| invalid(&error))?)
        .fill_queue_size(fill_ring)
        .comp_queue_size(tx_ring)
        .build()
        .map_err(|error| invalid(&error))?;
    let socket_config = SocketConfig::builder()
        .rx_queue_size(rx_ring)
        .tx_queue_size(tx_ring)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(bind_flags(config))
        .build();
    let frames = NonZeroU32::new(config.rx_frames + config.tx_frames)
        .expect("check() lets no configuration without frames pass");
    let name = CString::new(config.interface.as_str())
        .expect("check() lets no name with a zero byte pass");

    let (umem, mut descriptors) = Umem::new(umem_config, frames, huge_pages)
        .map_err(|error| explain_umem(config, huge_pages, cause(error)))?;
    // SAFETY: the UMEM is new and not shared, and no program is loaded by libxdp.
    let (tx, rx, rings) =
        unsafe { Socket::new(socket_config, &umem, &Interface::new(name), config.queue) }
            .map_err(|error| explain_socket(config, cause(error)))?;
    let (fill, completion) = rings.expect("a UMEM that is not shared comes with its rings");

    let tx_frames = descriptors.split_off(config.rx_frames as usize);
    // SAFETY: the descriptors come from this UMEM, and each goes to one half only.
    let rx = unsafe { Receiver::new(umem.clone(), rx, fill, &descriptors) };
    // SAFETY: as above.
    let mut tx = unsafe { Sender::new(umem, tx, completion, tx_frames) };
    let zero_copy =
        is_zero_copy(tx.as_fd()).map_err(|error| os(config, "ask for the copy mode", error))?;
    tx.set_mode(zero_copy, config.need_wakeup);
    relax_limits(&tx, config);
    Ok(Queue { rx, tx, zero_copy, huge_pages })
}

/// Raises what would stop the kernel in the middle of a batch in copy mode. Where it cannot be
/// raised, `flush` takes several calls, or a later one, for what is left.
fn relax_limits(tx: &Sender, config: &QueueConfig) {
    // Unknown before Linux 6.17, which takes 32 frames at a time.
    let _ = sys::set_tx_budget(tx.as_fd(), config.tx_frames);
    // Each frame on its way counts as its size and that of its `sk_buff`; the default has room
    // for about a hundred. Needs CAP_NET_ADMIN.
    let bytes = (config.frame_size as usize + SK_BUFF) * config.tx_frames as usize;
    let _ = sockopt::set_socket_send_buffer_size_force(tx.as_fd(), bytes);
}

fn bind_flags(config: &QueueConfig) -> BindFlags {
    let mut flags = match config.copy_mode {
        CopyMode::Auto => BindFlags::empty(),
        CopyMode::Copy => BindFlags::XDP_COPY,
        CopyMode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
    };
    if config.need_wakeup {
        flags |= BindFlags::XDP_USE_NEED_WAKEUP;
    }
    flags
}

fn is_zero_copy(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let options = sockopt::xdp_options(socket)?;
    Ok(options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY))
}

/// The system's error at the bottom of one of xsk-rs.
fn cause(error: impl Error + Send + Sync + 'static) -> io::Error {
    let code = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error);
    match code {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(error),
    }
}

fn explain_umem(config: &QueueConfig, huge_pages: bool, error: io::Error) -> QueueError {
    let bytes = config.bytes();
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => QueueError::NoPrivilege,
        // xdp_umem_account_pages: the only ENOBUFS of registering a UMEM.
        Some(libc::ENOBUFS) => QueueError::LockedMemory { bytes },
        Some(libc::ENOMEM) if huge_pages => QueueError::NoHugePages { bytes },
        Some(libc::ENOMEM) => QueueError::NoMemory { bytes },
        Some(libc::EAFNOSUPPORT | libc::ENOPROTOOPT) => QueueError::KernelTooOld,
        _ => os(config, "register the frames", error),
    }
}

fn explain_socket(config: &QueueConfig, error: io::Error) -> QueueError {
    let interface = config.interface.clone();
    let queue = config.queue;
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => QueueError::NoPrivilege,
        Some(libc::EBUSY) => QueueError::QueueBusy { interface, queue },
        Some(libc::ENETDOWN) => QueueError::InterfaceDown { interface },
        Some(libc::ENODEV) => QueueError::NoSuchInterface { interface },
        Some(libc::EOPNOTSUPP) if config.copy_mode == CopyMode::ZeroCopy => {
            QueueError::NoZeroCopy { interface, queue }
        }
        Some(libc::ENOMEM) => QueueError::NoMemory { bytes: config.bytes() },
        Some(libc::EAFNOSUPPORT | libc::ENOPROTOOPT) => QueueError::KernelTooOld,
        _ => os(config, "bind the socket", error),
    }
}

fn os(config: &QueueConfig, action: &'static str, source: io::Error) -> QueueError {
    QueueError::Os { action, interface: config.interface.clone(), queue: config.queue, source }
}
