//! The server on kernel sockets with io_uring: multishot accept, and for each connection one chain
//! of receive, send and close that is handed over at once and completes in silence.
//!
//! A server that closes only at the peer's end (`size` 0) sends and receives in turn: the two are
//! linked, so that one completion per request comes back.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, cqueue, opcode, types};

use super::{Readiness, ServerConfig, kernel, on_all_cpus};
use crate::machine::now_ns;
use crate::stamps::Stamps;

/// Entries of the submission queue; completions have four times as many.
const ENTRIES: u32 = 4096;

/// Bytes of a connection's buffer when no size is given.
const PIECE: usize = 16 * 1024;

/// In the upper half of `user_data`; the lower half is a descriptor.
const ACCEPT: u64 = 1 << 32;
const RECEIVE: u64 = 2 << 32;
/// A part of a chain other than its receive, or a close: only its failure is told.
const REST: u64 = 3 << 32;

/// Whether io_uring can be used here.
///
/// # Errors
/// Why not, in words for people.
pub fn check() -> Result<(), String> {
    match IoUring::new(8) {
        Ok(_) => Ok(()),
        Err(error) => {
            let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
            let setting = setting.map_or("absent".to_owned(), |text| text.trim().to_owned());
            Err(format!("io_uring cannot be used ({error}; kernel.io_uring_disabled is {setting})"))
        }
    }
}

/// Serves until the process is ended.
///
/// # Errors
/// When it cannot listen, or io_uring fails.
pub fn serve(config: &ServerConfig) -> io::Result<()> {
    on_all_cpus(config, |readiness| serve_thread(config, readiness))
}

struct Server {
    ring: IoUring,
    listeners: Vec<OwnedFd>,
    size: usize,
    /// By descriptor.
    buffers: Vec<Box<[u8]>>,
    stamps: Option<Stamps>,
}

fn serve_thread(config: &ServerConfig, readiness: &Readiness<'_>) -> io::Result<()> {
    let mut listeners = Vec::new();
    for &address in &config.listen {
        let listener = kernel::listen(address, config)?;
        // It completes accepts itself: one that does not block would complete them at once.
        rustix::io::ioctl_fionbio(&listener, false)?;
        listeners.push(listener);
    }
    let stamps = config.stamps()?;
    let mut server =
        Server { ring: ring()?, listeners, size: config.size, buffers: Vec::new(), stamps };
    for index in 0..server.listeners.len() {
        server.accept_from(index)?;
    }
    readiness.listening()?;
    server.run()
}

/// With the flags of a ring that only one thread uses, where the kernel knows them.
fn ring() -> io::Result<IoUring> {
    let tuned = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(4 * ENTRIES)
        .build(ENTRIES);
    tuned.or_else(|_| IoUring::builder().setup_cqsize(4 * ENTRIES).build(ENTRIES))
}

impl Server {
    fn run(&mut self) -> io::Result<()> {
        let mut completions: Vec<(u64, i32, u32)> = Vec::new();
        loop {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
            let queue = self.ring.completion();
            completions
                .extend(queue.map(|entry| (entry.user_data(), entry.result(), entry.flags())));
            for (data, result, flags) in completions.drain(..) {
                self.handle(data, result, flags)?;
            }
        }
    }

    fn handle(&mut self, data: u64, result: i32, flags: u32) -> io::Result<()> {
        let fd = (data & u64::from(u32::MAX)) as RawFd;
        match data & !u64::from(u32::MAX) {
            ACCEPT => {
                if result >= 0 {
                    self.begin(result)?;
                }
                // It ended: for want of descriptors or memory, which connections that close give
                // back, or because the completion queue was full.
                if !cqueue::more(flags) {
                    self.accept_from(fd as usize)?;
                }
                Ok(())
            }
            RECEIVE if self.size == 0 && result > 0 => self.echo(fd, result as usize),
            // The peer's end, its reset, or less than a whole request: no chain goes on after that.
            RECEIVE => self.close(fd),
            // A send that failed ends its chain, so that the descriptor is still ours; what was
            // cancelled for that is told by it.
            _ if result == -libc::ECANCELED => Ok(()),
            _ if result < 0 => self.close(fd),
            _ => Ok(()),
        }
    }

    fn accept_from(&mut self, index: usize) -> io::Result<()> {
        let listener = types::Fd(self.listeners[index].as_raw_fd());
        let accept = opcode::AcceptMulti::new(listener).flags(libc::SOCK_CLOEXEC).build();
        self.push(&[accept.user_data(ACCEPT | index as u64)])
    }

    fn begin(&mut self, fd: RawFd) -> io::Result<()> {
        if let Some(stamps) = &mut self.stamps
            && stamps.is_due()
        {
            let now = now_ns();
            if let Some(peer) = peer_of(fd) {
                stamps.put(peer, now);
            }
        }
        let index = usize::try_from(fd).expect("an accepted descriptor is not negative");
        while self.buffers.len() <= index {
            let length = if self.size == 0 { PIECE } else { self.size };
            self.buffers.push(vec![0; length].into_boxed_slice());
        }
        if self.size == 0 {
            let receive = self.receive(fd, 0);
            return self.push(&[receive]);
        }
        let silent_link = Flags::IO_LINK | Flags::SKIP_SUCCESS;
        let receive = self.receive(fd, libc::MSG_WAITALL).flags(silent_link);
        let send = self.send(fd, self.size).flags(silent_link);
        let close = close(fd);
        self.push(&[receive, send, close])
    }

    fn echo(&mut self, fd: RawFd, length: usize) -> io::Result<()> {
        let send = self.send(fd, length).flags(Flags::IO_LINK | Flags::SKIP_SUCCESS);
        let receive = self.receive(fd, 0);
        self.push(&[send, receive])
    }

    fn close(&mut self, fd: RawFd) -> io::Result<()> {
        self.push(&[close(fd)])
    }

    fn receive(&mut self, fd: RawFd, flags: i32) -> Entry {
        let buffer = &mut self.buffers[fd as usize];
        opcode::Recv::new(types::Fd(fd), buffer.as_mut_ptr(), buffer.len() as u32)
            .flags(flags)
            .build()
            .user_data(RECEIVE | fd as u64)
    }

    fn send(&mut self, fd: RawFd, length: usize) -> Entry {
        let buffer = &self.buffers[fd as usize][..length];
        opcode::Send::new(types::Fd(fd), buffer.as_ptr(), length as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .user_data(REST | fd as u64)
    }

    /// Hands over entries that belong together.
    fn push(&mut self, entries: &[Entry]) -> io::Result<()> {
        loop {
            // SAFETY: an entry's buffer is that of its descriptor. Buffers live as long as the
            // server, never move or shrink, and a descriptor's is used by one chain at a time: the
            // number comes again only after that chain's close.
            if unsafe { self.ring.submission().push_multiple(entries) }.is_ok() {
                return Ok(());
            }
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn close(fd: RawFd) -> Entry {
    let close = opcode::Close::new(types::Fd(fd)).build();
    close.flags(Flags::SKIP_SUCCESS).user_data(REST | fd as u64)
}

fn peer_of(fd: RawFd) -> Option<SocketAddr> {
    // SAFETY: accept has just given it, and nothing closes it before its chain is handed over.
    let stream = unsafe { TcpStream::from_raw_fd(fd) };
    let peer = stream.peer_addr().ok();
    debug_assert_eq!(stream.as_fd().as_raw_fd(), fd);
    // It stays open.
    let _ = stream.into_raw_fd();
    peer
}

/// Interrupted, or completions have to be taken first.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN))
}
