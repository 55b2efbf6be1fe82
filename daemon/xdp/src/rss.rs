//! Receive-side scaling: how an interface deals frames out to its queues, asked through ethtool.

use std::io;
use std::os::fd::AsFd;

use crate::interface::any_socket;
use crate::sys;

/// Commands, flow types and flags of `linux/ethtool.h`.
const ETHTOOL_GRXFH: u32 = 0x29;
const ETHTOOL_GRSSH: u32 = 0x46;
const TCP_V4_FLOW: u32 = 0x01;
const TCP_V6_FLOW: u32 = 0x05;
/// Source and destination address, both ports (`RXH_IP_SRC`, `_IP_DST`, `_L4_B_0_1`, `_L4_B_2_3`).
const ALL_FIELDS: u64 = 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7;
const HASH_TOEPLITZ: u8 = 1;

/// `struct ethtool_rxfh` up to its variable part, and where its fields are.
const RXFH_LEN: usize = 24;
const RXFH_TABLE_LEN: usize = 8;
const RXFH_KEY_LEN: usize = 12;
const RXFH_FUNCTION: usize = 16;
const RXFH_TRANSFORM: usize = 17;
/// `struct ethtool_rxnfc`, with room for its rules, and where the fields to hash are.
const RXNFC_LEN: usize = 192;
const RXNFC_DATA: usize = 8;
/// No driver has more; a larger answer is not believed.
const MOST_TABLE: usize = 1 << 16;
const MOST_KEY: usize = 1 << 10;

/// How frames of TCP flows find their queue: the Toeplitz hash of addresses and ports, and a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    /// The key of the hash.
    pub key: Vec<u8>,
    /// The queue for each place.
    pub table: Vec<u32>,
}

/// What `interface` does; `None` when its driver does not tell, or does something else.
///
/// # Errors
/// `ENODEV` when there is no such interface in this thread's network namespace.
pub fn rss(interface: &str) -> io::Result<Option<Rss>> {
    let socket = any_socket()?;
    match read(|request| sys::ethtool(socket.as_fd(), interface, request)) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Err(error),
        // Whatever else a driver says to a question that it does not know.
        Err(_) => Ok(None),
        Ok(rss) => Ok(rss),
    }
}

/// Asks by `ask`, which hands a request to the driver and has its answer in the same place.
fn read(mut ask: impl FnMut(&mut [u64]) -> io::Result<()>) -> io::Result<Option<Rss>> {
    for flow in [TCP_V4_FLOW, TCP_V6_FLOW] {
        let mut request = Request::new(RXNFC_LEN, ETHTOOL_GRXFH);
        request.put(4, flow);
        ask(&mut request.0)?;
        if request.u64_at(RXNFC_DATA) & ALL_FIELDS != ALL_FIELDS {
            return Ok(None);
        }
    }
    // Without room, it tells how much it needs.
    let mut sizes = Request::new(RXFH_LEN, ETHTOOL_GRSSH);
    ask(&mut sizes.0)?;
    let table_len = sizes.u32_at(RXFH_TABLE_LEN) as usize;
    let key_len = sizes.u32_at(RXFH_KEY_LEN) as usize;
    if !(1..=MOST_TABLE).contains(&table_len) || !(1..=MOST_KEY).contains(&key_len) {
        return Ok(None);
    }
    let mut answer = Request::new(RXFH_LEN + 4 * table_len + key_len, ETHTOOL_GRSSH);
    answer.put(RXFH_TABLE_LEN, table_len as u32);
    answer.put(RXFH_KEY_LEN, key_len as u32);
    ask(&mut answer.0)?;
    // A symmetric hash exchanges fields before it hashes.
    let plain =
        answer.byte_at(RXFH_FUNCTION) == HASH_TOEPLITZ && answer.byte_at(RXFH_TRANSFORM) == 0;
    if !plain {
        return Ok(None);
    }
    let table = (0..table_len).map(|place| answer.u32_at(RXFH_LEN + 4 * place)).collect();
    let key_at = RXFH_LEN + 4 * table_len;
    let key = (key_at..key_at + key_len).map(|at| answer.byte_at(at)).collect();
    Ok(Some(Rss { key, table }))
}

/// A request and its answer, aligned for any of its fields.
struct Request(Vec<u64>);

impl Request {
    fn new(len: usize, command: u32) -> Request {
        let mut request = Request(vec![0; len.div_ceil(8)]);
        request.put(0, command);
        request
    }

    /// Writes a number at a multiple of four.
    fn put(&mut self, at: usize, value: u32) {
        let mut bytes = self.0[at / 8].to_ne_bytes();
        bytes[at % 8..at % 8 + 4].copy_from_slice(&value.to_ne_bytes());
        self.0[at / 8] = u64::from_ne_bytes(bytes);
    }

    fn byte_at(&self, at: usize) -> u8 {
        self.0[at / 8].to_ne_bytes()[at % 8]
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from_ne_bytes([0, 1, 2, 3].map(|byte| self.byte_at(at + byte)))
    }

    fn u64_at(&self, at: usize) -> u64 {
        self.0[at / 8]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A driver in memory.
    #[derive(Clone)]
    struct Driver {
        fields: u64,
        function: u8,
        transform: u8,
        table: Vec<u32>,
        key: Vec<u8>,
    }

    impl Driver {
        fn usual() -> Driver {
            let table = (0..128).map(|place| place % 4).collect();
            let key = (0..40).collect();
            Driver { fields: ALL_FIELDS, function: HASH_TOEPLITZ, transform: 0, table, key }
        }

        fn answer(&self, words: &mut [u64]) -> io::Result<()> {
            let mut request = Request(words.to_vec());
            match request.u32_at(0) {
                ETHTOOL_GRXFH => {
                    assert!([TCP_V4_FLOW, TCP_V6_FLOW].contains(&request.u32_at(4)));
                    request.0[RXNFC_DATA / 8] = self.fields;
                }
                ETHTOOL_GRSSH => {
                    let sizes = [self.table.len() as u32, self.key.len() as u32];
                    let asked = [request.u32_at(RXFH_TABLE_LEN), request.u32_at(RXFH_KEY_LEN)];
                    request.put(RXFH_TABLE_LEN, sizes[0]);
                    request.put(RXFH_KEY_LEN, sizes[1]);
                    let function = u32::from_ne_bytes([self.function, self.transform, 0, 0]);
                    request.put(RXFH_FUNCTION, function);
                    if asked == sizes {
                        let numbers = self.table.iter().copied();
                        let key = self.key.chunks(4).map(|four| {
                            let mut bytes = [0; 4];
                            bytes[..four.len()].copy_from_slice(four);
                            u32::from_ne_bytes(bytes)
                        });
                        for (place, number) in numbers.chain(key).enumerate() {
                            request.put(RXFH_LEN + 4 * place, number);
                        }
                    } else {
                        assert_eq!(asked, [0, 0], "neither the sizes nor none");
                    }
                }
                other => panic!("command {other:#x}"),
            }
            words.copy_from_slice(&request.0);
            Ok(())
        }

        fn read(&self) -> Option<Rss> {
            read(|request| self.answer(request)).unwrap()
        }
    }

    #[test]
    fn key_and_table_are_read() {
        for key_len in [40, 52] {
            let driver = Driver { key: (0..key_len).collect(), ..Driver::usual() };
            let Driver { key, table, .. } = driver.clone();
            assert_eq!(driver.read(), Some(Rss { key, table }));
        }
    }

    #[test]
    fn what_is_no_plain_toeplitz_of_all_four_is_left_alone() {
        let usual = Driver::usual();
        let others = [
            Driver { fields: ALL_FIELDS & !(1 << 7), ..usual.clone() },
            Driver { function: 2, ..usual.clone() },
            Driver { transform: 1, ..usual.clone() },
            Driver { table: Vec::new(), ..usual.clone() },
            Driver { key: Vec::new(), ..usual.clone() },
            Driver { key: vec![0; MOST_KEY + 1], ..usual },
        ];
        for (index, other) in others.iter().enumerate() {
            assert_eq!(other.read(), None, "{index}");
        }
        let refused = read(|_| Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)));
        assert!(refused.is_err());
    }

    #[test]
    fn loopback_has_none_and_what_is_not_there_is_an_error() {
        assert_eq!(rss("lo").unwrap(), None);
        let error = rss("no-such-if0").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
