//! What the kernel counts about the AF_XDP sockets, read by control beside the workers.

use crate::control::Totals;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Second descriptors of the workers' sockets.
#[derive(Debug, Default)]
pub(super) struct Sockets(Vec<OwnedFd>);

impl Sockets {
    /// Keeps a descriptor of `socket`, which is thus open until this is dropped.
    pub(super) fn keep(&mut self, socket: impl AsFd) -> io::Result<()> {
        self.0.push(socket.as_fd().try_clone_to_owned()?);
        Ok(())
    }

    /// Adds all six counters, over all sockets, under the kernel's names.
    pub(super) fn add_to(&self, totals: &mut Totals) {
        for counted in self.0.iter().filter_map(|socket| statistics(socket).ok()) {
            for (name, value) in named(&counted) {
                totals.add(name, value);
            }
        }
    }

    /// The counters of each socket, in the order of the workers.
    pub(super) fn read(&self) -> Vec<[(&'static str, u64); 6]> {
        self.0.iter().filter_map(|socket| Some(named(&statistics(socket).ok()?))).collect()
    }
}

fn named(counted: &libc::xdp_statistics) -> [(&'static str, u64); 6] {
    [
        ("xsk_rx_dropped", counted.rx_dropped),
        ("xsk_rx_invalid_descs", counted.rx_invalid_descs),
        ("xsk_tx_invalid_descs", counted.tx_invalid_descs),
        ("xsk_rx_ring_full", counted.rx_ring_full),
        ("xsk_rx_fill_ring_empty_descs", counted.rx_fill_ring_empty_descs),
        ("xsk_tx_ring_empty_descs", counted.tx_ring_empty_descs),
    ]
}

fn statistics(socket: &OwnedFd) -> io::Result<libc::xdp_statistics> {
    // SAFETY: six integers, for which zero is a value.
    let mut counted: libc::xdp_statistics = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::xdp_statistics>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `counted`, which has as many; the
    // descriptor is open while it is borrowed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_STATISTICS,
            (&raw mut counted).cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok(counted),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_explained() {
        // SAFETY: six integers, for which zero is a value.
        let none: libc::xdp_statistics = unsafe { std::mem::zeroed() };
        for (name, _) in named(&none) {
            assert!(crate::explain::explain(name, None).is_some(), "{name}");
        }
    }

    /// Only AF_XDP sockets are counted so; others add nothing.
    #[test]
    fn other_sockets_add_nothing() {
        let mut sockets = Sockets::default();
        sockets.keep(std::net::TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let mut totals = Totals::default();
        sockets.add_to(&mut totals);
        assert_eq!(totals.text(), "");
        assert!(sockets.read().is_empty());
    }
}
