//! On which queue frames arrive: asked with packet sockets, beside everybody else who gets them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use libc::{BPF_ABS, BPF_B, BPF_H, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socket_with};

use crate::{interface, sys};

/// A frame, even one that the kernel has put together of several.
const FRAME_BYTES: usize = 1 << 17;

/// One socket for each queue, which sees the TCP segments that the kernel receives there. Frames
/// that an XDP program takes away are not seen, nor those of drivers that do not tell queues.
#[derive(Debug)]
pub struct Arrivals {
    sockets: Vec<(u32, OwnedFd)>,
    buffer: Vec<u8>,
}

impl Arrivals {
    /// Watches these queues of `interface`, in this thread's network namespace.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW, `ENODEV` when there is no such interface.
    pub fn watch(interface: &str, queues: &[u32]) -> io::Result<Arrivals> {
        let index = interface::index(interface)?;
        let watch = |&queue| Ok((queue, open(index, queue)?));
        let sockets = queues.iter().map(watch).collect::<io::Result<Vec<_>>>()?;
        Ok(Arrivals { sockets, buffer: vec![0; FRAME_BYTES] })
    }

    /// Calls `f` with the queue and the bytes of each frame that comes, until it says that this is
    /// enough or until `patience` has passed.
    ///
    /// # Errors
    /// `ENETDOWN` when the interface goes down, or what poll(2) says.
    pub fn each(
        &mut self,
        patience: Duration,
        mut f: impl FnMut(u32, &[u8]) -> Enough,
    ) -> io::Result<()> {
        let end = Instant::now() + patience;
        loop {
            let mut quiet = true;
            for (queue, socket) in &self.sockets {
                match recv(socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                    Ok((_, length)) => {
                        quiet = false;
                        if f(*queue, &self.buffer[..length]) == Enough::Yes {
                            return Ok(());
                        }
                    }
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if quiet {
                self.wait(left)?;
            }
        }
    }

    fn wait(&self, longest: Duration) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: longest.as_secs().cast_signed(),
            tv_nsec: longest.subsec_nanos().into(),
        };
        let fds = self.sockets.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::IN));
        match poll(&mut fds.collect::<Vec<_>>(), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether [`Arrivals::each`] is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enough {
    /// It is.
    Yes,
    /// More frames are wanted.
    No,
}

fn open(index: u32, queue: u32) -> io::Result<OwnedFd> {
    // Protocol 0: nothing comes before the filter is there and the socket bound.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    sys::packet_ignore_outgoing(socket.as_fd())?;
    sys::attach_filter(socket.as_fd(), &filter(queue))?;
    sys::packet_bind(socket.as_fd(), index)?;
    Ok(socket)
}

/// A classic BPF program that takes whole TCP segments received on `queue`. IPv6 segments behind
/// extension headers are not taken, nor frames whose VLAN tag is still in front.
fn filter(queue: u32) -> [libc::sock_filter; 13] {
    // Negative offsets are the kernel's own fields (`SKF_AD_*`). The queue is one less than what is
    // there; 0 says that the driver does not tell it.
    let queue_field = (libc::SKF_AD_OFF + libc::SKF_AD_QUEUE).cast_unsigned();
    let load = |size, at| op(BPF_LD | BPF_ABS | size, 0, 0, at);
    // How far to skip if it is so, and if not.
    let equal = |yes, no, value| op(BPF_JMP | BPF_JEQ | BPF_K, yes, no, value);
    let any_bit = |yes, no, value| op(BPF_JMP | BPF_JSET | BPF_K, yes, no, value);
    [
        load(BPF_W, queue_field),
        equal(0, 10, queue + 1),
        // The type in the Ethernet header.
        load(BPF_H, 12),
        equal(0, 4, 0x0800),
        // IPv4: no fragment, and TCP.
        load(BPF_H, 20),
        any_bit(6, 0, 0x3fff),
        load(BPF_B, 23),
        equal(3, 4, 6),
        equal(0, 3, 0x86dd),
        load(BPF_B, 20),
        equal(0, 1, 6),
        op(BPF_RET | BPF_K, 0, 0, u32::MAX),
        op(BPF_RET | BPF_K, 0, 0, 0),
    ]
}

fn op(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    // All codes are below 256.
    libc::sock_filter { code: code as u16, jt, jf, k }
}
