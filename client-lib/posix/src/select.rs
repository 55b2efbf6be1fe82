//! `select` and `pselect` over descriptors of the kernel's and of ours.

use crate::error::{Errno, Result};
use crate::poll;
use std::os::fd::RawFd;
use std::time::Duration;

const WORD_BITS: usize = u64::BITS as usize;

/// One of the three sets of `select(2)`: `nfds` bits, in words. Programs may give sets larger
/// than `fd_set`, as the kernel lets them.
pub type Bits<'a> = Option<&'a mut [u64]>;

/// Words of a set for numbers below `nfds`.
pub fn words(nfds: usize) -> usize {
    nfds.div_ceil(WORD_BITS)
}

fn has(set: &Bits<'_>, fd: usize) -> bool {
    let word = set.as_ref().and_then(|set| set.get(fd / WORD_BITS));
    word.is_some_and(|word| word >> (fd % WORD_BITS) & 1 != 0)
}

/// The sets of one call.
#[derive(Debug)]
pub struct Sets<'a> {
    /// Numbers below this are looked at.
    pub nfds: usize,
    /// Readable.
    pub read: Bits<'a>,
    /// Writable.
    pub write: Bits<'a>,
    /// Exceptional conditions, of which a socket of ours has none.
    pub except: Bits<'a>,
}

impl Sets<'_> {
    /// Whether any of the descriptors is served here: else the kernel's own call does.
    pub fn concern(&self) -> bool {
        poll::concerns(&self.entries())
    }

    fn entries(&self) -> Vec<libc::pollfd> {
        let wanted = |fd: usize| {
            let parts = [
                (has(&self.read, fd), libc::POLLIN),
                (has(&self.write, fd), libc::POLLOUT),
                (has(&self.except, fd), libc::POLLPRI),
            ];
            parts.iter().filter(|(is, _)| *is).fold(0, |all, (_, bits)| all | bits)
        };
        let entry = |fd: usize| {
            let events = wanted(fd);
            (events != 0).then_some(libc::pollfd { fd: fd as RawFd, events, revents: 0 })
        };
        (0..self.nfds).filter_map(entry).collect()
    }

    /// `pselect(2)`. Returns the number of bits that are set in the end.
    ///
    /// # Errors
    /// `EBADF` for a number that is not open; otherwise as [`poll::poll`]. The sets are not
    /// changed then.
    pub fn select(
        mut self,
        timeout: Option<Duration>,
        mask: Option<&libc::sigset_t>,
    ) -> Result<usize> {
        let mut entries = self.entries();
        poll::poll(&mut entries, timeout, mask)?;
        if entries.iter().any(|entry| entry.revents & libc::POLLNVAL != 0) {
            return Err(Errno::BADF);
        }
        // As the kernel's: failures make readable and writable.
        const IN: i16 = libc::POLLIN | libc::POLLHUP | libc::POLLERR;
        const OUT: i16 = libc::POLLOUT | libc::POLLERR;
        let sets = [
            (&mut self.read, libc::POLLIN, IN),
            (&mut self.write, libc::POLLOUT, OUT),
            (&mut self.except, libc::POLLPRI, libc::POLLPRI),
        ];
        let mut count = 0;
        for (set, wanted, told) in sets {
            let Some(set) = set else { continue };
            let length = set.len();
            set[..words(self.nfds).min(length)].fill(0);
            for entry in &entries {
                if entry.events & wanted != 0 && entry.revents & told != 0 {
                    let fd = entry.fd as usize;
                    set[fd / WORD_BITS] |= 1 << (fd % WORD_BITS);
                    count += 1;
                }
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsRawFd;
    use rustix::pipe::pipe;

    #[test]
    fn sets_are_read_and_written() {
        let (read, write) = pipe().unwrap();
        let (r, w) = (read.as_raw_fd() as usize, write.as_raw_fd() as usize);
        let nfds = r.max(w) + 1;
        let bit = |fd: usize| {
            let mut set = vec![0u64; words(nfds)];
            set[fd / WORD_BITS] |= 1 << (fd % WORD_BITS);
            set
        };
        let (mut reads, mut writes) = (bit(r), bit(w));
        let sets = Sets { nfds, read: Some(&mut reads), write: Some(&mut writes), except: None };
        assert!(!sets.concern());
        assert_eq!(sets.select(Some(Duration::ZERO), None), Ok(1));
        assert_eq!((reads, writes), (vec![0; words(nfds)], bit(w)));
    }

    #[test]
    fn a_closed_number_is_an_error() {
        let mut reads = vec![1 << 63; 16];
        let sets = Sets { nfds: 1024, read: Some(&mut reads), write: None, except: None };
        assert_eq!(sets.select(Some(Duration::ZERO), None), Err(Errno::BADF));
        assert_eq!(reads, vec![1 << 63; 16]);
    }
}
