//! `sendfile` and `splice`, by copying.

use crate::error::{Errno, Result};
use crate::socket::Socket;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{OFlags, SeekFrom, fcntl_getfl, seek};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, tee};
use std::io::IoSlice;

/// Bytes copied at once.
const CHUNK: usize = 64 * 1024;

/// `sendfile(2)` to a socket of ours. `offset` is where to read instead of the file's own
/// position, and is moved on.
///
/// # Errors
/// What reading the file or sending gives, when nothing was sent before.
pub fn sendfile(
    socket: &Socket,
    file: BorrowedFd<'_>,
    offset: Option<&mut u64>,
    count: usize,
) -> Result<usize> {
    let own = offset.is_none();
    let mut at = match &offset {
        Some(offset) => **offset,
        None => seek(file, SeekFrom::Current(0))?,
    };
    let mut buffer = vec![0; count.min(CHUNK)];
    let mut done = 0;
    let result = loop {
        if done == count {
            break Ok(());
        }
        let want = (count - done).min(CHUNK);
        match rustix::io::pread(file, &mut buffer[..want], at) {
            Ok(0) => break Ok(()),
            Ok(read) => match send(socket, &buffer[..read]) {
                Ok(sent) => {
                    done += sent;
                    at += sent as u64;
                    if sent < read {
                        break Ok(());
                    }
                }
                Err(errno) => break Err(errno),
            },
            Err(Errno::INTR) => {}
            Err(errno) => break Err(errno),
        }
    };
    match offset {
        Some(offset) => *offset = at,
        None if own => {
            seek(file, SeekFrom::Start(at))?;
        }
        None => {}
    }
    match result {
        Err(errno) if done == 0 => Err(errno),
        Ok(()) | Err(_) => Ok(done),
    }
}

fn send(socket: &Socket, bytes: &[u8]) -> Result<usize> {
    socket.send(&[IoSlice::new(bytes)], 0)
}

/// `splice(2)` between a pipe and a socket of ours: `from` the pipe to the socket, or back.
/// `flags` as the call's; only `SPLICE_F_NONBLOCK` matters when copying.
///
/// # Errors
/// `EAGAIN`, or what the pipe and the socket give.
pub fn splice(
    socket: &Socket,
    pipe: BorrowedFd<'_>,
    into_socket: bool,
    count: usize,
    flags: u32,
) -> Result<usize> {
    let nonblocking = flags & libc::SPLICE_F_NONBLOCK != 0;
    if into_socket {
        from_pipe(socket, pipe, count.min(CHUNK), nonblocking)
    } else {
        to_pipe(socket, pipe, count.min(CHUNK), nonblocking)
    }
}

/// Sends what lies in a pipe, and takes away what was sent.
fn from_pipe(
    socket: &Socket,
    pipe: BorrowedFd<'_>,
    count: usize,
    nonblocking: bool,
) -> Result<usize> {
    // Blocking, though never waited for: what is teed is there, and an empty pipe has room for some
    // of it. With one end that does not block, tee(2) would not wait for the caller's pipe either.
    let (read, write): (OwnedFd, OwnedFd) = pipe_with(PipeFlags::CLOEXEC)?;
    let flags = if nonblocking { SpliceFlags::NONBLOCK } else { SpliceFlags::empty() };
    let there = tee(pipe, &write, count, flags)?;
    if there == 0 {
        return Ok(0);
    }
    let mut buffer = vec![0; there];
    let there = rustix::io::read(&read, &mut buffer)?;
    let sent = socket.send(
        &[IoSlice::new(&buffer[..there])],
        if nonblocking { libc::MSG_DONTWAIT } else { 0 },
    )?;
    take(pipe, &mut buffer[..sent])?;
    Ok(sent)
}

/// Reads exactly that much, which is there.
fn take(pipe: impl AsFd, mut bytes: &mut [u8]) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::read(&pipe, &mut *bytes) {
            // Somebody else reads this pipe too.
            Ok(0) => return Ok(()),
            Ok(count) => bytes = &mut bytes[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Writes received bytes into a pipe, and takes away what was written.
fn to_pipe(
    socket: &Socket,
    pipe: BorrowedFd<'_>,
    count: usize,
    nonblocking: bool,
) -> Result<usize> {
    let mut buffer = vec![0; count];
    let wait = if nonblocking { libc::MSG_DONTWAIT } else { 0 };
    let there = socket.recv(&mut buffer, libc::MSG_PEEK | wait)?;
    if there == 0 {
        return Ok(0);
    }
    let status = fcntl_getfl(pipe)?;
    let was_blocking = !status.contains(OFlags::NONBLOCK);
    let bytes = &buffer[..there];
    let written = if nonblocking && was_blocking {
        // What fits into an empty pipe does not block; more is not tried.
        let mut fds = [rustix::event::PollFd::new(&pipe, rustix::event::PollFlags::OUT)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if rustix::event::poll(&mut fds, Some(&now))? == 0 {
            return Err(Errno::AGAIN);
        }
        // A pipe that can be written has room for a page.
        rustix::io::write(pipe, &bytes[..there.min(4096)])?
    } else {
        rustix::io::write(pipe, bytes)?
    };
    let mut waste = vec![0; written];
    socket.recv(&mut waste, libc::MSG_DONTWAIT)?;
    Ok(written)
}
