//! How [`classify`](crate::classify()) sees its inputs.

use crate::PortKey;

/// A frame that can be read in bounds only, from its Ethernet header on.
pub trait Frame {
    /// The `N` bytes at offset `at`, or `None` when any of them lies past the frame's end.
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// The byte at offset `at`.
    #[inline(always)]
    fn u8(&self, at: usize) -> Option<u8> {
        self.bytes(at).map(|[byte]| byte)
    }

    /// The big-endian 16-bit number at offset `at`.
    #[inline(always)]
    fn u16(&self, at: usize) -> Option<u16> {
        self.bytes(at).map(u16::from_be_bytes)
    }
}

impl Frame for [u8] {
    #[inline(always)]
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.get(at..)?.first_chunk().copied()
    }
}

/// The set of local addresses and ports that are served.
pub trait Ports {
    /// Whether exactly this key is in the set. [`classify`](crate::classify()) asks for the
    /// wildcard key by itself.
    fn contains(&self, key: &PortKey) -> bool;
}
