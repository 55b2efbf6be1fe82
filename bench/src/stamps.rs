//! When a server's `accept` returned, told to the client that measures.
//!
//! Both are processes of one machine, so they share a clock (CLOCK_MONOTONIC), and a file in memory
//! through which the server leaves the time of some accepts. The client looks there when the reply
//! has come, which is later than the accept that it answers.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

/// One for each client port: a port is not used by two connections at once.
const SLOTS: usize = 1 << 16;

/// One accept in this many leaves its time, so that telling costs the server next to nothing.
pub const SAMPLE: u64 = 16;

#[repr(C)]
struct Slot {
    time: AtomicU64,
    /// Which address's port it was.
    address: AtomicU64,
}

/// The shared table.
pub struct Stamps {
    slots: NonNull<[Slot; SLOTS]>,
    accepted: u64,
}

impl std::fmt::Debug for Stamps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stamps").field("accepted", &self.accepted).finish_non_exhaustive()
    }
}

// SAFETY: the mapping is this value's own until it is dropped, and is accessed through atomics only.
unsafe impl Send for Stamps {}

impl Stamps {
    /// Opens the table at `path`, and makes it if it is not there.
    ///
    /// # Errors
    /// Whatever `open`, `ftruncate` or `mmap` say.
    pub fn open(path: &Path) -> io::Result<Stamps> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let length = size_of::<[Slot; SLOTS]>();
        file.set_len(length as u64)?;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let address =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, protection, flags, &file, 0)? };
        let slots = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Stamps { slots, accepted: 0 })
    }

    /// Whether the accept that has just returned is one to [`put`](Self::put).
    #[inline]
    pub fn is_due(&mut self) -> bool {
        self.accepted = self.accepted.wrapping_add(1);
        self.accepted.is_multiple_of(SAMPLE)
    }

    /// `accept` returned the connection of `client` at `now`.
    pub fn put(&self, client: SocketAddr, now: u64) {
        let slot = self.slot(client.port());
        slot.time.store(now, Ordering::Relaxed);
        // Release: pairs with the Acquire in get().
        slot.address.store(tag(client.ip()), Ordering::Release);
    }

    /// When `accept` returned the connection of `client` that started at `from`, if that was told.
    pub fn get(&self, client: SocketAddr, from: u64) -> Option<u64> {
        let slot = self.slot(client.port());
        // Acquire: pairs with the Release in put().
        let is_its = slot.address.load(Ordering::Acquire) == tag(client.ip());
        let time = slot.time.load(Ordering::Relaxed);
        // An earlier connection of the same address and port was accepted before this one started.
        (is_its && time >= from).then_some(time)
    }

    fn slot(&self, port: u16) -> &Slot {
        // SAFETY: open() has mapped that many slots, of which zero bytes are valid ones; the file
        // does not shrink, and a slot has nothing but atomics.
        unsafe { &self.slots.as_ref()[usize::from(port)] }
    }
}

impl Drop for Stamps {
    fn drop(&mut self) {
        // SAFETY: mapped with this length by open(); no reference outlives `self`.
        let _ =
            unsafe { rustix::mm::munmap(self.slots.as_ptr().cast(), size_of::<[Slot; SLOTS]>()) };
    }
}

/// Tells the addresses of a lab apart; never 0.
fn tag(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => u64::from(u32::from(v4)) | 1 << 32,
        IpAddr::V6(v6) => (u128::from(v6) as u64) | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_puts_the_other_gets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stamps");
        let (server, client) = (Stamps::open(&path).unwrap(), Stamps::open(&path).unwrap());
        let address: SocketAddr = "10.0.0.1:2000".parse().unwrap();
        assert_eq!(client.get(address, 0), None);
        server.put(address, 500);
        assert_eq!(client.get(address, 400), Some(500));
        // An earlier connection's, and another address's.
        assert_eq!(client.get(address, 501), None);
        assert_eq!(client.get("10.0.0.2:2000".parse().unwrap(), 400), None);
    }

    #[test]
    fn one_of_some_is_due() {
        let folder = tempfile::tempdir().unwrap();
        let mut stamps = Stamps::open(&folder.path().join("stamps")).unwrap();
        assert_eq!((0..160).filter(|_| stamps.is_due()).count(), 10);
    }
}
