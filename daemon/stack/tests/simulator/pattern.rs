//! What applications write: bytes that tell where they belong.

use std::sync::LazyLock;

/// Bytes until they repeat: a prime, so that no multiple of a segment or a window hides a mistake.
const PERIOD: usize = 65_521;
/// The longest piece that is looked at as one.
const PIECE: usize = 2_048;

static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let byte = |at: usize| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0];
    (0..PERIOD + PIECE).map(|at| byte(at % PERIOD)).collect()
});

/// `len` bytes (at most [`PIECE`]) of what end `end` of a conversation writes, from `offset` on.
fn piece(conversation: usize, end: usize, offset: u64, len: usize) -> &'static [u8] {
    let shift = (conversation % PERIOD) as u64 * 7_919 + end as u64 * 32_003;
    let start = ((offset + shift) % PERIOD as u64) as usize;
    &TABLE[start..start + len]
}

/// Writes that stream from `offset` on.
pub(crate) fn write(conversation: usize, end: usize, offset: u64, out: &mut [u8]) {
    for (out, at) in out.chunks_mut(PIECE).zip((offset..).step_by(PIECE)) {
        out.copy_from_slice(piece(conversation, end, at, out.len()));
    }
}

/// Compares with it.
pub(crate) fn is(conversation: usize, end: usize, offset: u64, bytes: &[u8]) -> bool {
    let mut pieces = bytes.chunks(PIECE).zip((offset..).step_by(PIECE));
    pieces.all(|(bytes, at)| bytes == piece(conversation, end, at, bytes.len()))
}
