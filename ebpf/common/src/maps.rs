//! Keys, values and names of the BPF maps.

/// Version of everything in this file. It stands in `CONFIG`, so that whoever opens pinned maps
/// can tell whether they are laid out as it knows them.
pub const LAYOUT: u32 = 2;

/// Value of every entry of `PORTS`. Presence is what counts; the other bits are kept for later.
pub const SERVED: u32 = 1;

/// The maps' names, in the object and as pinned.
pub mod map_names {
    /// `XSKMAP`: NIC queue (`u32`) → AF_XDP socket.
    pub const XSKS: &str = "XSKS";
    /// Hash: [`PortKey`](super::PortKey) → [`SERVED`](super::SERVED).
    pub const PORTS: &str = "PORTS";
    /// Array with one [`Config`](super::Config).
    pub const CONFIG: &str = "CONFIG";
    /// Per-CPU array: [`Verdict`](crate::Verdict) → number of frames (`u64`).
    pub const STATS: &str = "STATS";
    /// Array that can be mapped: NIC queue (`u32`) → [`Admission`](super::Admission).
    pub const ADMISSION: &str = "ADMISSION";
}

/// Key of `PORTS`: a local address and port.
///
/// IPv4 addresses are v4-mapped (`::ffff:a.b.c.d`). The wildcard of a family is its unspecified
/// address: `::` stands for every IPv6 address, `::ffff:0.0.0.0` for every IPv4 address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey {
    /// The address' bytes in network order, four at a time as they lie in memory.
    addr: [u32; 4],
    /// Port in host order; 32 bits wide so that the key has no padding.
    port: u32,
}

impl PortKey {
    /// Bytes of a key as the kernel sees it.
    pub const SIZE: usize = 20;

    /// Key of an IPv6 or v4-mapped address, in network order, and a port.
    #[inline(always)]
    #[must_use]
    pub const fn new(addr: [u8; 16], port: u16) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = addr;
        Self {
            addr: [
                u32::from_ne_bytes([a, b, c, d]),
                u32::from_ne_bytes([e, f, g, h]),
                u32::from_ne_bytes([i, j, k, l]),
                u32::from_ne_bytes([m, n, o, p]),
            ],
            port: port as u32,
        }
    }

    /// Key of an IPv4 address, in network order, and a port.
    #[inline(always)]
    #[must_use]
    pub const fn v4(addr: [u8; 4], port: u16) -> Self {
        Self { addr: [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes(addr)], port: port as u32 }
    }

    /// Whether the address is an IPv4 address, that is v4-mapped.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(self) -> bool {
        let [a, b, c, _] = self.addr;
        a == 0 && b == 0 && c == 0xffff_u32.to_be()
    }

    /// The same port at any address of the same family.
    #[inline(always)]
    #[must_use]
    pub const fn any_address(self) -> Self {
        let addr = if self.is_v4() { [0, 0, self.addr[2], 0] } else { [0; 4] };
        Self { addr, port: self.port }
    }

    /// The key as the kernel's map sees it, for those who update the map without this type.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        let words = self.addr.iter().chain([&self.port]);
        for (bytes, word) in out.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        out
    }
}

const _: () = assert!(size_of::<PortKey>() == PortKey::SIZE);

/// The one entry of `CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// [`LAYOUT`] of the daemon that wrote it.
    pub layout: u32,
    /// [`Config::ICMP_ERRORS`]; other bits are 0.
    pub flags: u32,
}

impl Config {
    /// Bytes of the entry as the kernel sees it.
    pub const SIZE: usize = 8;

    /// ICMP and ICMPv6 errors that quote a served flow go to the AF_XDP socket. Without this
    /// flag they go to the kernel.
    pub const ICMP_ERRORS: u32 = 1;

    /// The entry as the kernel's map sees it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let [a, b, c, d] = self.layout.to_ne_bytes();
        let [e, f, g, h] = self.flags.to_ne_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { layout: LAYOUT, flags: Self::ICMP_ERRORS }
    }
}

const _: () = assert!(size_of::<Config>() == Config::SIZE);

/// How many SYNs a queue's worker is ready for. A worker that gets more frames than it can look at
/// would otherwise lose those of connections that it has as often as SYNs, and finish none.
///
/// The two numbers have cache lines of their own: either is written on another CPU, and both are
/// only to be touched atomically.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Admission {
    /// Number of SYNs steered to the queue's socket since the program was loaded; the program
    /// counts them.
    pub steered: u64,
    _line: [u64; 7],
    /// The worker's: SYNs are steered while [`steered`](Self::steered) is less, and dropped then.
    /// 0: no limit.
    pub limit: u64,
    _last: [u64; 7],
}

impl Admission {
    /// Bytes of an entry as the kernel sees it.
    pub const SIZE: usize = 128;

    /// Whether there is room for one more SYN than those `steered`.
    #[inline(always)]
    #[must_use]
    pub const fn has_room(steered: u64, limit: u64) -> bool {
        limit == 0 || steered < limit
    }
}

const _: () = assert!(size_of::<Admission>() == Admission::SIZE);
