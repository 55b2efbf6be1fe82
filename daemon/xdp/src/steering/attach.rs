//! The program on an interface.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use aya::programs::links::FdLink;
use aya::programs::xdp::{XdpLink, XdpMode as AyaMode};

use super::error::{SteeringError, program_cause};
use super::gate::Gate;
use super::program::{PROGRAM_NAME, Program, SteeringStats};
use super::reclaim::{Found, LINK_PIN, detach_link, lock, look, remove_pinned};
use super::{AttachedMode, SteeringConfig, XdpMode};
use crate::bpffs::{self, PinFolder};
use crate::{interface, sys};

/// An attached and pinned XDP program.
///
/// Dropping it, or dying, leaves program, link and pins in place: frames for served ports are
/// then dropped instead of being answered with resets by the kernel, until a new daemon attaches
/// or [`release`](super::release) is called. [`detach`](Self::detach) removes everything.
#[derive(Debug)]
pub struct Steering {
    program: Program,
    link: OwnedFd,
    folder: PinFolder,
    mode: AttachedMode,
    fallback_reason: Option<String>,
    reclaimed: bool,
}

impl Steering {
    /// Loads the program, attaches it to the interface and pins it. No port is served yet.
    ///
    /// What a crashed daemon of the same instance left is taken over: its link gets the new
    /// program in one step if the mode fits, and is removed if not.
    ///
    /// # Errors
    /// See [`SteeringError`]; on an error the interface is as it was, except that a crashed
    /// predecessor's program may be gone.
    pub fn attach(config: &SteeringConfig) -> Result<Self, SteeringError> {
        let index =
            interface::index(&config.interface).map_err(|error| match error.raw_os_error() {
                Some(libc::ENODEV) => {
                    SteeringError::NoSuchInterface { interface: config.interface.clone() }
                }
                _ => SteeringError::os("look the interface up", error),
            })?;
        bpffs::ensure_mounted(&config.bpffs)
            .map_err(|error| SteeringError::os("mount the bpffs", error))?;
        let folder = lock(config)?;
        match attach_in(config, index, &folder) {
            Ok(Attached { program, link, mode, fallback_reason, reclaimed }) => {
                Ok(Self { program, link, folder, mode, fallback_reason, reclaimed })
            }
            Err(error) => {
                // What a predecessor left and we could not take over stays as it is. That the
                // folder stays too would be no worse than the error itself.
                let _ = folder.remove_if_empty();
                Err(error)
            }
        }
    }

    /// How the program is attached.
    #[must_use]
    pub fn attached_mode(&self) -> AttachedMode {
        self.mode
    }

    /// Why it is not native although [`XdpMode::Auto`] tried that first.
    #[must_use]
    pub fn fallback_reason(&self) -> Option<&str> {
        self.fallback_reason.as_deref()
    }

    /// Whether a crashed predecessor's program was found and replaced.
    #[must_use]
    pub fn reclaimed(&self) -> bool {
        self.reclaimed
    }

    /// See [`Program::serve`].
    ///
    /// # Errors
    /// See there.
    pub fn serve(&mut self, addr: IpAddr, port: u16) -> Result<(), SteeringError> {
        self.program.serve(addr, port)
    }

    /// See [`Program::unserve`].
    ///
    /// # Errors
    /// See there.
    pub fn unserve(&mut self, addr: IpAddr, port: u16) -> Result<(), SteeringError> {
        self.program.unserve(addr, port)
    }

    /// See [`Program::set_xsk`].
    ///
    /// # Errors
    /// See there.
    pub fn set_xsk(&mut self, queue: u32, socket: impl AsFd) -> Result<(), SteeringError> {
        self.program.set_xsk(queue, socket)
    }

    /// See [`Program::clear_xsk`].
    ///
    /// # Errors
    /// See there.
    pub fn clear_xsk(&mut self, queue: u32) -> Result<(), SteeringError> {
        self.program.clear_xsk(queue)
    }

    /// See [`Program::gate`].
    ///
    /// # Errors
    /// See there.
    pub fn gate(&mut self, queue: u32, most: u32) -> Result<Gate, SteeringError> {
        self.program.gate(queue, most)
    }

    /// See [`Program::stats`].
    ///
    /// # Errors
    /// See there.
    pub fn stats(&self) -> Result<SteeringStats, SteeringError> {
        self.program.stats()
    }

    /// Takes the program off the interface and removes the pins. When it returns, every frame
    /// goes to the kernel. Call it before the sockets are closed.
    ///
    /// # Errors
    /// Only what should not happen; the pins are removed even if the link could not be.
    pub fn detach(self) -> Result<(), SteeringError> {
        let detached = detach_link(self.link.as_fd());
        let removed =
            self.folder.remove().map_err(|error| SteeringError::os("remove the pins", error));
        detached.and(removed)
    }
}

/// A [`Steering`] without its folder.
struct Attached {
    program: Program,
    link: OwnedFd,
    mode: AttachedMode,
    fallback_reason: Option<String>,
    reclaimed: bool,
}

fn attach_in(
    config: &SteeringConfig,
    index: u32,
    folder: &PinFolder,
) -> Result<Attached, SteeringError> {
    let found = look(&config.interface, index, folder)?;
    let reclaimed = !matches!(found, Found::Nothing);
    let mut program = Program::load(&config.object, config.limits, config.icmp_errors)?;
    let (link, mode, fallback_reason) = match found {
        Found::Ours { link, mode } if fits(config.mode, mode) => {
            (replace(&mut program, link)?, mode, None)
        }
        Found::Ours { link, .. } => {
            drop(link);
            remove_pinned(folder)?;
            create(&mut program, config, index)?
        }
        Found::Nothing | Found::Removed => create(&mut program, config, index)?,
    };
    let link = pin(&program, link, folder).inspect_err(|_| {
        // The link goes with the error, and half of the pins are of no use.
        let _ = folder.clear();
    })?;
    Ok(Attached { program, link, mode, fallback_reason, reclaimed })
}

fn fits(wanted: XdpMode, attached: AttachedMode) -> bool {
    match wanted {
        XdpMode::Auto => attached == AttachedMode::Native,
        XdpMode::Native => attached == AttachedMode::Native,
        XdpMode::Generic => attached == AttachedMode::Generic,
    }
}

/// Puts the new program in place of the one that `link` holds: some drivers reset the NIC when
/// a program comes or goes, but not when one replaces another.
fn replace(program: &mut Program, link: FdLink) -> Result<FdLink, SteeringError> {
    let refuse = |error| SteeringError::bpf("replace a predecessor's program", error);
    let link = XdpLink::try_from(link)
        .map_err(|error| SteeringError::os("take a link over", std::io::Error::other(error)))?;
    let xdp = program.xdp()?;
    let id = xdp.attach_to_link(link).map_err(refuse)?;
    let link = xdp.take_link(id).map_err(refuse)?;
    fd_link(link)
}

/// Attaches to an interface that has no program, in the mode that is asked for.
fn create(
    program: &mut Program,
    config: &SteeringConfig,
    index: u32,
) -> Result<(FdLink, AttachedMode, Option<String>), SteeringError> {
    match config.mode {
        XdpMode::Native => {
            let link = create_in(program, config, index, AyaMode::Driver)?;
            Ok((link, AttachedMode::Native, None))
        }
        XdpMode::Generic => {
            let link = create_in(program, config, index, AyaMode::Skb)?;
            Ok((link, AttachedMode::Generic, None))
        }
        XdpMode::Auto => match create_in(program, config, index, AyaMode::Driver) {
            Ok(link) => Ok((link, AttachedMode::Native, None)),
            Err(SteeringError::Mode { reason, .. }) => {
                let link = create_in(program, config, index, AyaMode::Skb)?;
                Ok((link, AttachedMode::Generic, Some(reason)))
            }
            Err(error) => Err(error),
        },
    }
}

fn create_in(
    program: &mut Program,
    config: &SteeringConfig,
    index: u32,
    mode: AyaMode,
) -> Result<FdLink, SteeringError> {
    let xdp = program.xdp()?;
    let id = match xdp.attach_to_if_index(index, mode) {
        Ok(id) => id,
        Err(error) => {
            let code = program_cause(&error).and_then(std::io::Error::raw_os_error);
            return Err(match code {
                // Somebody attached since we looked.
                Some(libc::EBUSY | libc::EEXIST | libc::EPERM) => {
                    SteeringError::bpf("attach the XDP program", error)
                }
                code => SteeringError::Mode {
                    interface: config.interface.clone(),
                    mode: config.mode,
                    reason: explain(&error.to_string(), code),
                },
            });
        }
    };
    let link =
        xdp.take_link(id).map_err(|error| SteeringError::bpf("attach the XDP program", error))?;
    fd_link(link)
}

/// A link that can be pinned; aya has another kind for kernels without XDP links.
fn fd_link(link: XdpLink) -> Result<FdLink, SteeringError> {
    FdLink::try_from(link)
        .map_err(|_| SteeringError::KernelTooOld { missing: "it has no XDP links" })
}

/// The kernel's answer to an attempt to attach, with what veth and most drivers mean by it.
fn explain(error: &str, code: Option<i32>) -> String {
    let hint = match code {
        Some(libc::EOPNOTSUPP) => "the driver has no native XDP",
        Some(libc::ERANGE) => "the MTU, or that of a veth's peer, is too large for native XDP",
        Some(libc::ENOSPC) => "a veth needs at least as many RX queues as its peer has TX queues",
        _ => return error.to_owned(),
    };
    format!("{hint} ({error})")
}

/// Pins the maps and, last, the link: what has a pinned link has everything.
fn pin(program: &Program, link: FdLink, folder: &PinFolder) -> Result<OwnedFd, SteeringError> {
    folder.clear().map_err(|error| SteeringError::os("remove a predecessor's pins", error))?;
    for (name, map) in program.maps() {
        map.pin(folder.pin(name)).map_err(|error| SteeringError::pin("pin a map", error))?;
    }
    let path = folder.pin(LINK_PIN);
    let link = link.pin(&path).map_err(|error| SteeringError::pin("pin the link", error))?;
    // A descriptor of our own: aya keeps its one to itself, and detaching needs one.
    let descriptor = sys::bpf_object_get(&path)
        .map_err(|error| SteeringError::os("open the pinned link", error))?;
    drop(link);
    Ok(descriptor)
}

const _: () =
    assert!(PROGRAM_NAME.len() < 16, "the kernel cuts longer names, and reclaiming compares them");
