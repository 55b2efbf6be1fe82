//! Streams of stdio over sockets.
//!
//! libc reads and writes the number of a stream past us. So a stream over a socket that is served
//! here has functions in the place of a number (fopencookie(3)), and its number is told by us.

use crate::sockets::{served, with};
use crate::transfer::send_all;
use crate::{fail, next};
use fourwave_posix::{Errno, Socket, memory};
use libc::{FILE, size_t, ssize_t};
use std::ffi::{c_char, c_int, c_void};
use std::io::IoSlice;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering};

/// Streams over sockets that can be open at once.
const MOST: usize = 16 * 1024;

/// A stream and its number. Looked at without a lock: in children of a fork too.
struct Slot {
    stream: AtomicPtr<FILE>,
    fd: AtomicI32,
}

static SLOTS: [Slot; MOST] =
    [const { Slot { stream: AtomicPtr::new(null_mut()), fd: AtomicI32::new(-1) } }; MOST];

/// Slots that have ever been used: those from here on are empty.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Stands in a slot that is being filled.
const TAKEN: *mut FILE = std::ptr::dangling_mut::<c_void>().cast();

fn slots() -> &'static [Slot] {
    // Acquire: pairs with the Release in enter().
    &SLOTS[..USED.load(Ordering::Acquire).min(MOST)]
}

/// Where a new stream will stand.
fn vacancy() -> Option<&'static Slot> {
    let order = (Ordering::Relaxed, Ordering::Relaxed);
    let take =
        |slot: &&Slot| slot.stream.compare_exchange(null_mut(), TAKEN, order.0, order.1).is_ok();
    if let Some(slot) = slots().iter().find(take) {
        return Some(slot);
    }
    let (at, slot) = SLOTS.iter().enumerate().skip(slots().len()).find(|(_, slot)| take(slot))?;
    USED.fetch_max(at + 1, Ordering::Release);
    Some(slot)
}

fn find(stream: *mut FILE) -> Option<&'static Slot> {
    // Relaxed: whoever has the stream has synchronised with whoever opened it.
    slots().iter().find(|slot| slot.stream.load(Ordering::Relaxed) == stream)
}

/// Streams are closed: those of ours take their number with them.
pub(crate) fn forget(stream: *mut FILE) -> bool {
    let found = find(stream);
    // Before the stream ends: its address is another's then.
    found.inspect(|slot| slot.stream.store(null_mut(), Ordering::Relaxed)).is_some()
}

#[repr(C)]
struct Functions {
    read: unsafe extern "C" fn(*mut c_void, *mut c_char, size_t) -> ssize_t,
    write: unsafe extern "C" fn(*mut c_void, *const c_char, size_t) -> ssize_t,
    seek: unsafe extern "C" fn(*mut c_void, *mut i64, c_int) -> c_int,
    close: unsafe extern "C" fn(*mut c_void) -> c_int,
}

unsafe extern "C" {
    fn fopencookie(cookie: *mut c_void, mode: *const c_char, functions: Functions) -> *mut FILE;
}

/// The cookie is the number.
fn number(cookie: *mut c_void) -> c_int {
    cookie as usize as c_int
}

unsafe extern "C" fn read(cookie: *mut c_void, buffer: *mut c_char, size: size_t) -> ssize_t {
    let received = with(number(cookie), |socket: &Socket| {
        // SAFETY: libc's buffer.
        socket.recv(unsafe { memory::bytes_mut(buffer.cast(), size) }?, 0)
    });
    crate::count(received.unwrap_or(Err(Errno::BADF)))
}

/// All of it, or less after an error: libc takes anything less for one.
unsafe extern "C" fn write(cookie: *mut c_void, buffer: *const c_char, size: size_t) -> ssize_t {
    let mut done = 0;
    while done < size {
        let sent = with(number(cookie), |socket: &Socket| {
            // SAFETY: libc's buffer.
            let bytes = unsafe { memory::bytes(buffer.cast(), size) }?;
            send_all(socket, &[IoSlice::new(&bytes[done..])], 0)
        });
        match sent.unwrap_or(Err(Errno::BADF)) {
            Ok(count) => done += count,
            Err(errno) => {
                fail(errno);
                break;
            }
        }
    }
    done as ssize_t
}

unsafe extern "C" fn seek(_: *mut c_void, _: *mut i64, _: c_int) -> c_int {
    fail(Errno::SPIPE)
}

unsafe extern "C" fn close(cookie: *mut c_void) -> c_int {
    // SAFETY: a number of the program's, which the stream was given.
    unsafe { crate::files::close(number(cookie)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdopen(fd: c_int, mode: *const c_char) -> *mut FILE {
    if served(fd).is_none() {
        // SAFETY: the caller's arguments.
        return unsafe { next::fdopen(fd, mode) };
    }
    let Some(slot) = vacancy() else {
        fail(Errno::MFILE);
        return null_mut();
    };
    let functions = Functions { read, write, seek, close };
    // SAFETY: the caller's mode; the functions are those of a cookie, which is a number.
    let stream = unsafe { fopencookie(fd as usize as *mut c_void, mode, functions) };
    slot.fd.store(fd, Ordering::Relaxed);
    slot.stream.store(stream, Ordering::Relaxed);
    stream
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fileno(stream: *mut FILE) -> c_int {
    match find(stream) {
        Some(slot) => slot.fd.load(Ordering::Relaxed),
        // SAFETY: the caller's stream.
        None => unsafe { next::fileno(stream) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fileno_unlocked(stream: *mut FILE) -> c_int {
    // SAFETY: the caller's stream.
    unsafe { fileno(stream) }
}
