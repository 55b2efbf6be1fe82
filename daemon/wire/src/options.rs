//! TCP options: parsing and writing (RFC 9293 §3.2, RFC 7323, RFC 2018).

use crate::bytes::{u16_at, u32_at};
use crate::parse::ParseError;

/// The most that options can take in a header: 15 words less the fixed five.
pub const MAX_OPTIONS_LEN: usize = 40;
/// The largest shift that may be used (RFC 7323 §2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// What stands before the values of the timestamps when there is no other option (RFC 7323
/// Appendix A), in one number.
pub(crate) const PLAIN_TIMESTAMPS: u32 = u32::from_be_bytes([NOP, NOP, TIMESTAMPS, 10]);

const MAX_SACK_BLOCKS: usize = 4;

/// The options of a segment that we know; others were skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Options {
    /// Maximum segment size, bytes; meaningful on a SYN.
    pub mss: Option<u16>,
    /// Window scale, at most [`MAX_WINDOW_SCALE`]; meaningful on a SYN.
    pub window_scale: Option<u8>,
    /// SACK permitted; meaningful on a SYN.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// Selective acknowledgements.
    pub sack: SackBlocks,
}

/// The timestamps option (RFC 7323 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Timestamps {
    /// The sender's clock (TSval).
    pub value: u32,
    /// The value echoed (TSecr).
    pub echo: u32,
}

/// One selectively acknowledged range: sequence numbers, `right` exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SackBlock {
    /// First byte received.
    pub left: u32,
    /// One past the last byte received.
    pub right: u32,
}

/// Up to four SACK blocks, in the order of the option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SackBlocks {
    blocks: [SackBlock; MAX_SACK_BLOCKS],
    count: u8,
}

impl SackBlocks {
    /// The blocks.
    #[inline]
    pub fn as_slice(&self) -> &[SackBlock] {
        &self.blocks[..usize::from(self.count)]
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a block; `false` when four are there already.
    pub fn push(&mut self, block: SackBlock) -> bool {
        let Some(slot) = self.blocks.get_mut(usize::from(self.count)) else {
            return false;
        };
        *slot = block;
        self.count += 1;
        true
    }
}

impl Options {
    /// Reads an option list: unknown options are skipped, malformed ones refuse the segment
    /// (RFC 9293 §3.1, MUST-6, MUST-7).
    pub(crate) fn parse(bytes: &[u8]) -> Result<Options, ParseError> {
        let mut options = Options::default();
        let mut rest = bytes;
        while let [kind, tail @ ..] = rest {
            match *kind {
                END => break,
                NOP => rest = tail,
                kind => {
                    let len = usize::from(*tail.first().ok_or(ParseError::TcpOptions)?);
                    let value = rest.get(2..len).ok_or(ParseError::TcpOptions)?;
                    options.take(kind, value).ok_or(ParseError::TcpOptions)?;
                    rest = &rest[len..];
                }
            }
        }
        Ok(options)
    }

    /// The timestamps, if there are no other options.
    #[inline]
    pub(crate) fn plain_timestamps(&self) -> Option<Timestamps> {
        let others = !self.sack.is_empty()
            || self.sack_permitted
            || self.mss.is_some()
            || self.window_scale.is_some();
        self.timestamps.filter(|_| !others)
    }

    /// One option's value; `None` if its length is wrong for its kind.
    fn take(&mut self, kind: u8, value: &[u8]) -> Option<()> {
        match (kind, value.len()) {
            (MSS, 2) => self.mss = u16_at(value, 0),
            // RFC 7323 §2.3: a larger shift is used as 14.
            (WINDOW_SCALE, 1) => self.window_scale = Some(value[0].min(MAX_WINDOW_SCALE)),
            (SACK_PERMITTED, 0) => self.sack_permitted = true,
            (TIMESTAMPS, 8) => {
                let (value, echo) = (u32_at(value, 0)?, u32_at(value, 4)?);
                self.timestamps = Some(Timestamps { value, echo });
            }
            (SACK, 8 | 16 | 24 | 32) => {
                self.sack = SackBlocks::default();
                for block in value.as_chunks::<8>().0 {
                    let (left, right) = (u32_at(block, 0)?, u32_at(block, 4)?);
                    self.sack.push(SackBlock { left, right });
                }
            }
            (MSS | WINDOW_SCALE | SACK_PERMITTED | TIMESTAMPS | SACK, _) => return None,
            _ => {}
        }
        Some(())
    }

    /// How many bytes these options take on the wire: a multiple of 4, at most 40.
    #[inline]
    pub fn wire_len(&self) -> usize {
        let fixed = self.fixed_len();
        fixed + sack_len(self.sack_that_fit(fixed).len())
    }

    #[inline]
    fn fixed_len(&self) -> usize {
        let mss = if self.mss.is_some() { 4 } else { 0 };
        let scale = if self.window_scale.is_some() { 4 } else { 0 };
        let times = match (self.timestamps.is_some(), self.sack_permitted) {
            (true, _) => 12,
            (false, true) => 4,
            (false, false) => 0,
        };
        mss + scale + times
    }

    /// SACK blocks yield to the other options: the first ones are the freshest (RFC 2018 §4).
    #[inline]
    fn sack_that_fit(&self, fixed: usize) -> &[SackBlock] {
        let room = (MAX_OPTIONS_LEN - fixed).saturating_sub(4) / 8;
        let blocks = self.sack.as_slice();
        &blocks[..blocks.len().min(room)]
    }

    /// Writes the options; `out` has exactly [`Options::wire_len`] bytes.
    ///
    /// Aligned with NOPs as Linux aligns them, so that the peer's fast path knows the layout.
    #[inline]
    pub(crate) fn emit(&self, out: &mut [u8]) {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        if let Some(mss) = self.mss {
            let [a, b] = mss.to_be_bytes();
            put(&[MSS, 4, a, b]);
        }
        match (self.timestamps, self.sack_permitted) {
            (Some(_), true) => put(&[SACK_PERMITTED, 2, TIMESTAMPS, 10]),
            (Some(_), false) => put(&[NOP, NOP, TIMESTAMPS, 10]),
            (None, true) => put(&[NOP, NOP, SACK_PERMITTED, 2]),
            (None, false) => {}
        }
        if let Some(Timestamps { value, echo }) = self.timestamps {
            put(&value.to_be_bytes());
            put(&echo.to_be_bytes());
        }
        if let Some(scale) = self.window_scale {
            put(&[NOP, WINDOW_SCALE, 3, scale.min(MAX_WINDOW_SCALE)]);
        }
        let sack = self.sack_that_fit(self.fixed_len());
        if !sack.is_empty() {
            put(&[NOP, NOP, SACK, 2 + 8 * sack.len() as u8]);
            for block in sack {
                put(&block.left.to_be_bytes());
                put(&block.right.to_be_bytes());
            }
        }
    }
}

#[inline]
fn sack_len(blocks: usize) -> usize {
    if blocks == 0 { 0 } else { 4 + 8 * blocks }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any, prop};
    use proptest::{option, prop_assert, prop_assert_eq, proptest};

    fn options() -> impl Strategy<Value = Options> {
        (
            option::of(any::<u16>()),
            option::of(0..=MAX_WINDOW_SCALE),
            any::<bool>(),
            option::of((any::<u32>(), any::<u32>())),
            prop::collection::vec((any::<u32>(), any::<u32>()), 0..=4),
        )
            .prop_map(|(mss, window_scale, sack_permitted, times, blocks)| {
                let timestamps = times.map(|(value, echo)| Timestamps { value, echo });
                let mut options =
                    Options { mss, window_scale, sack_permitted, timestamps, ..Options::default() };
                for (left, right) in blocks {
                    options.sack.push(SackBlock { left, right });
                }
                options
            })
    }

    proptest! {
        #[test]
        fn a_round_trip_keeps_all_but_blocks_that_do_not_fit(options in options()) {
            let mut buffer = [0xaa; MAX_OPTIONS_LEN];
            let len = options.wire_len();
            prop_assert!(len % 4 == 0 && len <= MAX_OPTIONS_LEN);
            options.emit(&mut buffer[..len]);
            let parsed = Options::parse(&buffer[..len]).unwrap();
            let kept = parsed.sack.as_slice();
            prop_assert_eq!(kept, &options.sack.as_slice()[..kept.len()]);
            prop_assert!(kept.len() == options.sack.as_slice().len() || len + 8 > MAX_OPTIONS_LEN);
            prop_assert_eq!(Options { sack: options.sack, ..parsed }, options);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..=40)) {
            let _ = Options::parse(&bytes);
        }
    }

    #[test]
    fn unknown_options_are_skipped_and_end_ends() {
        let list = [254, 6, 1, 2, 3, 4, NOP, MSS, 4, 0x05, 0xb4, END, MSS, 0, 0, 0];
        assert_eq!(Options::parse(&list).unwrap().mss, Some(1460));
    }

    #[test]
    fn malformed_options_are_refused() {
        let bad: [&[u8]; 7] = [
            &[MSS],
            &[MSS, 0],
            &[MSS, 1],
            &[MSS, 4, 5],
            &[MSS, 3, 5],
            &[SACK, 9, 0, 0, 0, 0, 0, 0, 0],
            &[99, 8, 0, 0],
        ];
        for list in bad {
            assert_eq!(Options::parse(list), Err(ParseError::TcpOptions), "{list:?}");
        }
    }

    #[test]
    fn a_scale_above_14_counts_as_14() {
        assert_eq!(Options::parse(&[WINDOW_SCALE, 3, 200, END]).unwrap().window_scale, Some(14));
    }
}
