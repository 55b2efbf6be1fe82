//! Frames to classify, and a second opinion about them. Used by the tests here, by the fuzz
//! target and by the tests that run the program in the kernel.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several crates, each of which takes what it needs"
)]

pub mod frames;
pub mod reference;
pub mod samples;

use std::collections::HashSet;

use fourwave_ebpf_common::{PortKey, Ports};

/// The ports that are served in all of these tests.
pub struct Served(HashSet<PortKey>);

/// IPv4 address with [`PORT`] served.
pub const HOST4: [u8; 4] = [10, 99, 0, 2];
/// IPv6 address with [`PORT`] served.
pub const HOST6: [u8; 16] = [0xfd, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// Served at [`HOST4`] and [`HOST6`] only.
pub const PORT: u16 = 7777;
/// Served at every IPv4 address.
pub const ANY4_PORT: u16 = 80;
/// Served at every IPv6 address.
pub const ANY6_PORT: u16 = 8080;

/// The entries of [`Served`].
pub fn keys() -> [PortKey; 4] {
    [
        PortKey::v4(HOST4, PORT),
        PortKey::new(HOST6, PORT),
        PortKey::v4([0; 4], ANY4_PORT),
        PortKey::new([0; 16], ANY6_PORT),
    ]
}

impl Served {
    /// [`keys`] as a set.
    pub fn new() -> Self {
        Self(HashSet::from(keys()))
    }
}

impl Ports for Served {
    fn contains(&self, key: &PortKey) -> bool {
        self.0.contains(key)
    }
}
