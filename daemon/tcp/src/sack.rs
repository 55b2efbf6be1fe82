//! The receiver's half of SACK: which blocks our ACKs carry (RFC 2018 §4, RFC 2883).

use fourwave_wire::{MAX_OPTIONS_LEN, SackBlock, SackBlocks};

use crate::tcb::{Tcb, flag};

/// The option without its blocks, padding included, and each block.
const HEAD_LEN: u16 = 4;
const BLOCK_LEN: u16 = 8;

impl Tcb {
    /// What the option takes in the next segment.
    #[inline]
    pub(crate) fn sack_len(&self) -> u16 {
        if self.assembler.is_empty() && !self.has(flag::DUPLICATE) {
            return 0;
        }
        match self.sack_blocks().as_slice().len() as u16 {
            0 => 0,
            blocks => HEAD_LEN + BLOCK_LEN * blocks,
        }
    }

    /// The blocks of the next segment: a duplicate that arrived (RFC 2883 §4), then what lies beyond
    /// holes, the range that grew last first (RFC 2018 §4), as many as there is room for.
    #[inline]
    pub(crate) fn sack_blocks(&self) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        if !self.has(flag::SACK) {
            return blocks;
        }
        let room = MAX_OPTIONS_LEN as u16 - self.options_len() - HEAD_LEN;
        let mut room = room / BLOCK_LEN;
        if self.has(flag::DUPLICATE) {
            blocks.push(SackBlock { left: self.duplicate_start, right: self.duplicate_end });
            room -= 1;
        }
        for range in self.assembler.newest().take(usize::from(room)) {
            let left = self.rcv_seq(self.rcv_nxt + i64::from(range.start));
            let right = self.rcv_seq(self.rcv_nxt + i64::from(range.end));
            blocks.push(SackBlock { left, right });
        }
        blocks
    }

    /// Receive positions `start..end` arrived and had arrived before: the next ACK says so, once
    /// (RFC 2883 §4).
    pub(crate) fn note_duplicate(&mut self, start: i64, end: i64) {
        if start >= end || !self.has(flag::SACK) {
            return;
        }
        let (start, end) = (self.rcv_seq(start), self.rcv_seq(end));
        // Of a batch that is acknowledged once, a run of duplicates or the last of them is told.
        let extends = self.has(flag::DUPLICATE) && self.duplicate_end == start;
        if !extends {
            self.duplicate_start = start;
        }
        self.duplicate_end = end;
        self.set_flag(flag::DUPLICATE, true);
    }
}
